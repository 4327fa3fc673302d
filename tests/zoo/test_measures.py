"""Measures made after the fact: stored beside the networks, resumable, verified, never mixed up."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import polars as pl
import pytest
import torch
import xarray
import zarr

import zoo
from zoo import problems
from zoo.cards import zoo_card
from zoo.cli import main
from zoo.convert.hdf5 import from_hdf5, to_hdf5
from zoo.convert.sink import write
from zoo.convert.state_dicts import StateDicts
from zoo.datasets import ZooDataset
from zoo.errors import (
    DamagedChunkError,
    InvalidConfigError,
    MissingDataError,
    StoreError,
    UnknownNameError,
)
from zoo.measures import (
    REGISTRY,
    MeasureRun,
    Networks,
    SampleConfig,
    Samples,
    measure_population,
    subset,
    unpacked,
)
from zoo.measures.batch import Members
from zoo.measures.hessian import HessianConfig, hessian
from zoo.measures.norms import l2_norm
from zoo.measures.partners import OTHERS, SAME, choose_partners
from zoo.measures.phases import PHASES
from zoo.networks import UNKNOWN, build, example_input
from zoo.page import write_page
from zoo.page.figures import panels
from zoo.store.costs import Cost, record_cost
from zoo.store.upkeep.check import check
from zoo.store.upkeep.publish import publish
from zoo.store.upkeep.repack import repack
from zoo.store.upkeep.repair import repair
from zoo.symmetry import trace
from zoo.testing import (
    TINY_COLUMNS,
    TINY_NETWORK,
    ragged_population,
    tiny_block,
    tiny_population,
    tiny_spec,
    write_tiny_block,
)

NETWORK = TINY_NETWORK | {"in_features": 64, "out_features": 10}
GOLDEN = Path(__file__).parent / "golden"
FAST = {"hessian": {"max_probes": 2, "max_steps": 2}, "connectivity": {"epochs": 1}}
DIVERGED = 7


def digits_zoo(path, **changes):
    """A zoo of random networks that fit the digits' inputs and classes."""
    space = trace(build(NETWORK), example_input(NETWORK))
    return tiny_population(path, network=NETWORK, space=space, diverged=[DIVERGED], **changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return digits_zoo(tmp_path_factory.mktemp("made") / "digits.zarr").path


@pytest.fixture(scope="module")
def measured(made):
    """The same zoo, measured in every way."""
    path = made.with_name("measured.zarr")
    shutil.copytree(made, path)
    run(path, *REGISTRY)
    return path


@pytest.fixture
def fresh(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "digits.zarr"))


@pytest.fixture
def done(measured, tmp_path):
    return Path(shutil.copytree(measured, tmp_path / "digits.zarr"))


def run(path, *measures, population="tiny", samples=40, seed=3, **options):
    """Measure, with settings that are fast."""
    settings = options.pop("settings", {n: s for n, s in FAST.items() if n in measures})
    return measure_population(
        MeasureRun(
            path=str(path),
            population=population,
            measures=measures,
            samples=SampleConfig(samples=samples, seed=seed),
            settings=settings,
            **options,
        )
    )


# ---- what is stored ---------------------------------------------------------------------------


def test_stored_numbers_are_those_of_the_function_called_alone(measured):
    population = zoo.open(measured)["tiny"]
    digits = problems.load({"name": "digits"})
    chosen = subset(len(digits.train_inputs), 40, 3)
    samples = Samples(inputs=digits.train_inputs[chosen], targets=digits.train_targets[chosen])
    seeds = Members(population, SampleConfig(samples=40, seed=3), digits)._seed
    for member in (0, 20, 39):
        networks = Networks(
            module=build(population.network_of(member)).eval(),
            space=population.space,
            vectors=torch.from_numpy(population.weights([member])),
        )
        alone = hessian(
            networks,
            samples,
            seeds=[seeds(member, 5)],
            config=HessianConfig(max_probes=2, max_steps=2),
        )
        stored = population.metric("hessian_trace")[member, -1]
        assert stored == pytest.approx(alone.trace[0], rel=1e-5)
        norm = population.metric("l2_norm")[member, -1]
        assert norm == np.float32(l2_norm(networks)[0])


def test_accuracies_of_all_samples_are_those_that_evaluating_gives(fresh):
    run(fresh, "accuracy", samples=10_000, where="member in (0, 20)")
    population = zoo.open(fresh)["tiny"]
    for member in (0, 20):
        wanted = problems.evaluate(problems.load({"name": "digits"}), population.module(member))
        for part in ("train", "test"):
            found = population.metric(f"subset_{part}_accuracy")[member, -1]
            assert found == np.float32(wanted[f"{part}_accuracy"])


def test_masks_agree_with_accuracies(measured):
    population = zoo.open(measured)["tiny"]
    masks = population.measured("errors_test")
    assert masks.shape == (40, 3, 5)
    wrong = unpacked(masks[:, -1], 40)
    sound = np.arange(40) != DIVERGED
    accuracy = population.metric("subset_test_accuracy")[sound, -1]
    np.testing.assert_allclose(1 - wrong[sound].mean(-1), accuracy, atol=1e-6)
    assert (masks[:, :2] == 255).all()  # other checkpoints were not measured


def test_measures_are_seen_like_metrics(measured):
    population = zoo.open(measured)["tiny"]
    trace_ = population.metric("hessian_trace")
    assert trace_.shape == (40, 3)
    assert trace_.dtype == np.float32
    assert np.isnan(trace_[:, :2]).all()
    assert np.isnan(trace_[DIVERGED]).all()
    kept = population.where("hessian_trace > 10")
    assert kept.member_ids.tolist() == np.flatnonzero(trace_[:, -1] > 10).tolist()
    np.testing.assert_array_equal(kept.metric("hessian_trace"), trace_[kept.member_ids])
    assert kept.measures == population.measures
    assert set(population.table["phase"].unique()) <= set(PHASES)
    assert "hessian_trace" not in population.metrics
    with pytest.raises(UnknownNameError, match="hessian_trace"):
        population.metric("hessian_trac")
    dataset = ZooDataset(population, target="hessian_trace")
    assert len(dataset) == 39
    with pytest.raises(UnknownNameError, match="errors_test"):
        ZooDataset(population, target="errors_test")


def test_what_was_measured_says_how(measured):
    spec = zoo.open(measured)["tiny"].measure_of("hessian_trace")
    assert spec.settings == {"max_steps": 2, "max_probes": 2, "tolerance": 1e-3, "chunk": 256}
    assert spec.samples["problem"] == {"name": "digits"}
    assert spec.samples["problem_sha256"] == problems.load({"name": "digits"}).sha256
    assert spec.checkpoints == (5,)


def test_the_dataset_version_and_the_networks_stay(made, measured):
    assert zoo.open(made).version == zoo.open(measured).version
    report = check(measured)
    assert report.ok, report
    assert report.num_bytes > check(made).num_bytes


def test_stock_readers_read_the_arrays(measured):
    population = zoo.open(measured)["tiny"]
    group = zarr.open_group(measured / "populations/tiny/measures", mode="r")
    for name in population.measures:
        np.testing.assert_array_equal(group[name][:], population.measured(name))
    opened = xarray.open_zarr(measured / "populations/tiny/measures", consolidated=False)
    assert opened.hessian_trace.dims == ("member", "checkpoint")
    assert opened.phase.attrs["flag_meanings"].startswith("I II III")
    named = population.to_xarray()
    np.testing.assert_array_equal(named["cka"].values, population.metric("cka"))
    assert named.coords["phase"].dims == ("member",)


# ---- settings ---------------------------------------------------------------------------------


def test_other_settings_are_refused_kept_apart_or_replace(fresh):
    run(fresh, "norms")
    before = zoo.open(fresh)["tiny"].metric("sparsity")
    with pytest.raises(
        StoreError, match=r"threshold 0\.0 is stored, 0\.5 was asked for.*--replace"
    ):
        run(fresh, "norms", settings={"norms": {"threshold": 0.5}})
    run(fresh, "norms", settings={"norms": {"threshold": 0.5}}, suffix="_half")
    both = zoo.open(fresh)["tiny"]
    np.testing.assert_array_equal(both.metric("sparsity"), before)
    assert np.nanmean(both.metric("sparsity_half")) > np.nanmean(before)
    run(fresh, "norms", settings={"norms": {"threshold": 0.5}}, replace=True)
    after = zoo.open(fresh)["tiny"]
    np.testing.assert_array_equal(after.metric("sparsity"), both.metric("sparsity_half"))
    assert check(fresh).ok


def test_checkpoints_and_members_are_chosen(fresh):
    run(fresh, "norms", checkpoints=[0, 5], where="init_scale > 1")
    population = zoo.open(fresh)["tiny"]
    chosen = population.table["init_scale"].to_numpy() > 1
    chosen[DIVERGED] = False
    norms = population.metric("l2_norm")
    assert np.isfinite(norms[:, [0, 2]][chosen]).all()
    assert np.isnan(norms[:, 1]).all()
    assert np.isnan(norms[population.table["init_scale"].to_numpy() <= 1]).all()


def test_phases_store_the_thresholds_that_were_used(measured):
    settings = zoo.open(measured)["tiny"].measure_of("phase").settings
    assert settings["version"] == "otsu-1"
    again = run(measured, *REGISTRY)
    assert not any(plan.blocks for plan in again)


@pytest.mark.parametrize(
    ("measures", "options", "error", "text"),
    [
        (["hessain"], {}, UnknownNameError, "Known: accuracy, calibration"),
        (["norms"], {"settings": {"norms": {"limit": 1}}}, UnknownNameError, "threshold"),
        (["norms"], {"checkpoints": [3]}, UnknownNameError, "Known: 0, 2, 5"),
        (["norms"], {"where": "member < 0"}, InvalidConfigError, "no member has member < 0"),
        (["phase"], {}, UnknownNameError, "which measure 'phase' needs"),
        (["accuracy"], {"problem": {"name": "idx"}}, MissingDataError, "--data"),
        (["accuracy"], {"problem": {"name": "digit-signals"}}, InvalidConfigError, "Member 0 of"),
        (["norms"], {"num_workers": 0}, InvalidConfigError, "one worker, got"),
    ],
)
def test_what_cannot_be_done_is_refused(fresh, measures, options, error, text):
    with pytest.raises(error, match=text):
        run(fresh, *measures, **options)
    assert zoo.open(fresh)["tiny"].measures == ()
    assert check(fresh).ok


def test_other_data_than_that_of_training_need_a_word(tmp_path):
    recipe = {"name": "tiny", "problem_sha256": "0" * 64}
    path = digits_zoo(tmp_path / "zoo.zarr", recipe=recipe, num_members=16).path
    with pytest.raises(MissingDataError, match=r"hash 0{16}.*--other-data"):
        run(path, "accuracy")
    run(path, "norms")  # looks at no data
    run(path, "accuracy", other_data=True)
    assert np.isfinite(zoo.open(path)["tiny"].metric("subset_test_loss")[0, -1])


def test_networks_that_cannot_be_rebuilt_are_refused_by_name(tmp_path):
    path = tiny_population(tmp_path / "z.zarr", network=dict(UNKNOWN), network_columns=()).path
    with pytest.raises(InvalidConfigError, match="Member 0 of population 'tiny'.*not known"):
        run(path, "norms")


def test_zoos_elsewhere_are_refused(made):
    target = "memory://measured.zarr"
    publish(made, target)
    with pytest.raises(StoreError, match="this machine's file system"):
        run(target, "norms")


def test_names_that_are_taken_are_refused(tmp_path):
    columns = tuple(
        replace(column, name="l2_norm") if column.name == "init_scale" else column
        for column in TINY_COLUMNS
    )
    spec = tiny_spec(columns=columns, num_members=16)
    writer = zoo.create(tmp_path / "z.zarr").create_population(spec)
    block = tiny_block(tiny_spec(num_members=16), range(16))
    block["columns"]["l2_norm"] = block["columns"].pop("init_scale")
    writer.write_block(0, **block)
    with pytest.raises(InvalidConfigError, match=r"'l2_norm' is a column.*--name-suffix"):
        run(tmp_path / "z.zarr", "norms")


# ---- partners ---------------------------------------------------------------------------------


def test_partners_are_siblings_where_there_are_any(tmp_path):
    writer = zoo.create(tmp_path / "grid.zarr").create_population(tiny_spec(num_members=16))
    block = tiny_block(writer.spec, range(16), diverged=[2])
    for name in ("learning_rate", "init_scale", "activation"):
        block["columns"][name] = [block["columns"][name][m // 4] for m in range(16)]
    writer.write_block(0, **block)
    writer.finish()
    population = zoo.open(tmp_path / "grid.zarr")["tiny"]
    found, rule = choose_partners(population, np.zeros(16), count=2, seed=0)
    assert rule == SAME
    assert (found[2] == -1).all()
    for member in set(range(16)) - {2}:
        assert set(found[member] // 4) == {member // 4}
        assert len({member, 2, *found[member]}) == 4


def test_partners_are_others_of_the_same_part_and_network_elsewhere(made):
    population = zoo.open(made)["tiny"]
    groups = np.arange(40) % 3
    found, rule = choose_partners(population, groups, count=1, seed=0)
    assert rule == OTHERS
    part = np.zeros(40, dtype=int)
    for code, members in enumerate(population.split().values()):
        part[members] = code
    there = found[:, 0] >= 0
    assert there.sum() > 30
    partners = found[there, 0]
    assert (part[partners] == part[there]).all()
    assert (groups[partners] == groups[there]).all()
    assert (partners != np.flatnonzero(there)).all()
    assert DIVERGED not in partners
    again, _ = choose_partners(population, groups, count=1, seed=0)
    other, _ = choose_partners(population, groups, count=1, seed=1)
    np.testing.assert_array_equal(found, again)
    assert (found != other).any()


def test_partners_are_recorded_and_need_the_whole_population(measured, tmp_path):
    population = zoo.open(measured)["tiny"]
    partners = population.measured("cka_partners")
    assert partners.shape == (40, 2)
    assert (np.isfinite(population.metric("cka")[:, -1]) == (partners[:, 0] >= 0)).all()
    space = trace(build(NETWORK), example_input(NETWORK))
    writer = zoo.create(tmp_path / "part.zarr").create_population(
        tiny_spec(network=NETWORK, space=space)
    )
    write_tiny_block(writer, 1)
    with pytest.raises(StoreError, match="finish population 'tiny' first"):
        run(tmp_path / "part.zarr", "cka")


# ---- growth, interruption, damage ---------------------------------------------------------------


def test_an_unfinished_population_is_measured_as_it_grows(tmp_path):
    path = tmp_path / "part.zarr"
    writer = zoo.create(path).create_population(tiny_spec(num_members=32))
    write_tiny_block(writer, 1)
    (plan,) = run(path, "norms")
    assert plan.blocks == (1,)
    writer.grow(48)
    write_tiny_block(writer, 0)
    write_tiny_block(writer, 2)
    (plan,) = run(path, "norms")
    assert plan.blocks == (0, 2)
    writer.finish()
    report = check(path)
    assert report.ok, report
    assert np.isfinite(zoo.open(path)["tiny"].metric("l2_norm")[:, -1]).all()
    lengths = {
        array.shape[0]
        for _, array in zarr.open_group(path / "populations/tiny/measures", mode="r").arrays()
    }
    assert lengths == {48}


KILLED = """
import os, signal, sys
from zoo.measures import MeasureRun, SampleConfig, measure_population

done = 0

def report(networks):
    global done
    done += networks
    if done > 20:  # in the second block of 16
        os.kill(os.getpid(), signal.SIGKILL)

samples = SampleConfig(samples=40, seed=3)
settings = {"hessian": {"max_probes": 2, "max_steps": 2}}
run = MeasureRun(
    path=sys.argv[1], population="tiny", measures=("hessian",), samples=samples, settings=settings
)
measure_population(run, report=report)
"""


def test_a_killed_run_is_resumed_to_the_same_numbers(measured, fresh):
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(fresh)], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert ended.returncode == -signal.SIGKILL
    assert check(fresh).ok
    assert np.isfinite(zoo.open(fresh)["tiny"].metric("hessian_trace")[:7, -1]).all()
    left = fresh / "populations/tiny/measures/hessian_trace/c/1/.0.77.tmp"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"of a writer that was killed in the middle of a file")
    (plan,) = run(fresh, "hessian")
    assert plan.blocks == (1, 2)
    assert not left.exists()
    ledger = "_ledger/tiny/measures/hessian.jsonl"
    assert (fresh / ledger).read_bytes() == (measured / ledger).read_bytes()
    assert check(fresh).ok


@pytest.mark.slow
def test_processes_give_the_numbers_of_one(measured, fresh):
    run(fresh, "norms", "hessian", num_workers=2)
    for measure in ("norms", "hessian"):
        ledger = f"_ledger/tiny/measures/{measure}.jsonl"
        assert (fresh / ledger).read_bytes() == (measured / ledger).read_bytes()


def test_damage_is_found_never_read_and_measured_again(done):
    before = zoo.open(done)["tiny"].metric("hessian_trace")
    weights = (done / "_ledger/tiny.jsonl").read_bytes()
    chunk = done / "populations/tiny/measures/hessian_trace/c/1/0"
    data = bytearray(chunk.read_bytes())
    data[10] ^= 1
    chunk.write_bytes(data)
    report = check(done)
    (damage,) = report.damaged
    assert damage.array == "measures/hessian_trace"
    assert damage.members == tuple(range(16, 32))
    assert not report.ok
    with pytest.raises(DamagedChunkError, match="hessian_trace.*members 16 to 31"):
        zoo.open(done)["tiny"].metric("hessian_trace")
    (aside,) = repair(done).set_aside
    assert (aside.population, aside.block) == ("tiny/measures/hessian", 1)
    assert (done / "_ledger/tiny.jsonl").read_bytes() == weights
    assert check(done).ok
    assert np.isnan(zoo.open(done)["tiny"].metric("hessian_trace")[16:32]).all()
    (plan,) = run(done, "hessian")
    assert plan.blocks == (1,)
    np.testing.assert_array_equal(zoo.open(done)["tiny"].metric("hessian_trace"), before)
    assert not repair(done).set_aside


def test_an_altered_ledger_is_found_and_its_blocks_measured_again(done):
    ledger = done / "_ledger/tiny/measures/norms.jsonl"
    text = ledger.read_text()
    ledger.write_text(text.replace('"members":[16,32]', '"members":[16,31]'))
    assert not check(done).ok
    (aside,) = repair(done).set_aside
    assert aside.block == 1
    run(done, "norms")
    assert ledger.read_text() == text
    assert check(done).ok


def test_measures_of_weights_that_were_made_again_do_not_count(done):
    """A block of weights is lost, and made again with other numbers."""
    chunk = done / "populations/tiny/weights/c/1/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    repair(done)
    assert check(done).ok
    write_tiny_block(zoo.create(done, exist_ok=True).writer("tiny"), 1, seed=5)
    population = zoo.open(done)["tiny"]
    assert np.isnan(population.metric("l2_norm")[16:32]).all()
    assert np.isfinite(population.metric("l2_norm")[32:, -1]).all()
    with pytest.raises(StoreError, match="made again since.*--repair"):
        run(done, "norms")
    assert any("made again since" in damage.reason for damage in check(done).damaged)
    repair(done)
    (plan,) = run(done, "norms")
    assert plan.blocks == (1,)
    assert np.isfinite(zoo.open(done)["tiny"].metric("l2_norm")[16:32, -1]).all()


def test_metadata_is_put_back_from_its_copies(done):
    node = done / "populations/tiny/measures/cka/zarr.json"
    before = node.read_text()
    node.write_text(before.replace('"seed": 3', '"seed": 4'))
    assert not check(done).ok
    repair(done)
    assert node.read_text().split() == before.split()
    assert check(done).ok


# ---- other zoos -------------------------------------------------------------------------------


@pytest.mark.parametrize("archive", sorted(path.stem for path in GOLDEN.glob("*.zip")))
def test_zoos_of_old_open_as_before_and_can_be_measured(archive, tmp_path):
    with ZipFile(GOLDEN / f"{archive}.zip") as packed:
        packed.extractall(tmp_path)
    before = zoo.open(tmp_path)
    assert before["tiny"].measures == ()
    assert check(tmp_path).ok
    version = before.version
    run(tmp_path, "norms")
    run(tmp_path, "norms", population="ragged", checkpoints="all")
    assert zoo.open(tmp_path).version == version
    assert check(tmp_path).ok


def test_ragged_members_are_measured_by_architecture(tmp_path):
    path = ragged_population(tmp_path / "ragged.zarr").path
    run(path, "norms", "filters", population="ragged")
    population = zoo.open(path)["ragged"]
    wanted = [
        np.linalg.norm(vector[: population.space_of(member).num_trainable].astype(np.float64))
        for member, vector in enumerate(population.vectors())
    ]
    found = population.metric("l2_norm")[:, -1]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert np.isnan(population.metric("filter_entropy")).all()  # no convolutions


def test_converted_networks_are_measured_on_a_problem_that_is_named(tmp_path):
    network = {"name": "mlp", "in_features": 64, "hidden": [5], "out_features": 10}
    for seed in range(3):
        torch.manual_seed(seed)
        module = build(network)
        torch.save(module.state_dict(), tmp_path / f"network-{seed}.pt")
    path = tmp_path / "converted.zarr"
    write(StateDicts(tmp_path), path, name="theirs", networks=[network])
    with pytest.raises(InvalidConfigError, match="not known. Name it by --problem"):
        run(path, "accuracy", population="theirs")
    everything = {"problem": {"name": "digits"}, "samples": 10_000}
    run(path, "accuracy", "cka", population="theirs", **everything)
    population = zoo.open(path)["theirs"]
    wanted = problems.evaluate(problems.load({"name": "digits"}), population.module(1))
    assert population.metric("subset_test_loss")[1, 0] == pytest.approx(
        wanted["test_loss"], rel=1e-6
    )
    assert population.metric("cka").shape == (3, 1)


def test_copies_carry_measures(measured, tmp_path):
    ours = zoo.open(measured)["tiny"]
    publish(measured, tmp_path / "published.zarr")
    publish(measured, "memory://copy.zarr")
    archive = repack(measured, tmp_path / "archive.zarr", tier="archive", block_size=32)
    hdf5 = from_hdf5(to_hdf5(zoo.open(measured), tmp_path / "zoo.h5"), tmp_path / "back.zarr")
    for where in (tmp_path / "published.zarr", "memory://copy.zarr", archive.path, hdf5.path):
        theirs = zoo.open(where)["tiny"]
        assert theirs.measures == ours.measures
        assert theirs.measure_of("phase") == ours.measure_of("phase")
        for name in ours.measures:
            np.testing.assert_array_equal(theirs.measured(name), ours.measured(name))
        assert check(where).ok
    run(tmp_path / "back.zarr", "norms", replace=True, settings={"norms": {"threshold": 0.1}})
    with pytest.raises(StoreError, match="other numbers of measure 'norms'"):
        publish(tmp_path / "back.zarr", tmp_path / "published.zarr")


def test_concatenations_have_what_all_measured_alike(measured, tmp_path):
    other = digits_zoo(tmp_path / "other.zarr", name="other", seed=1).path
    run(other, "norms", "hessian", population="other", settings=FAST)
    run(other, "accuracy", population="other", samples=17)
    both = zoo.concat([zoo.open(measured)["tiny"], zoo.open(other)["other"]])
    assert "hessian_trace" in both.measures
    assert "subset_test_loss" not in both.measures  # of other samples
    assert "cka" not in both.measures
    assert both.metric("hessian_trace").shape == (80, 3)
    kept = both.where("hessian_trace > 10")
    assert 0 < len(kept) < 80


# ---- commands ---------------------------------------------------------------------------------


def test_the_command_measures_and_says_what(fresh, capsys):
    arguments = ["measure", str(fresh), "--measures", "norms,accuracy", "--samples", "20"]
    assert main([*arguments, "--checkpoints", "0,5", "--where", "member < 20"]) == 0
    text = capsys.readouterr().out
    assert "tiny: accuracy: 40 networks to measure (epochs 0, 5), 0 of 3 blocks are stored" in text
    assert "subset_train_loss" in text
    assert main(["measure", str(fresh), "--measures", "list"]) == 0
    assert "hessian_trace" in capsys.readouterr().out
    assert main([*arguments, "--population", "none"]) == 2
    assert "Known: tiny" in capsys.readouterr().err
    assert main([*arguments, "--checkpoints", "end"]) == 2
    assert "first, last, all" in capsys.readouterr().err
    assert main([*arguments, "--settings", "{"]) == 2
    assert "Expected JSON for --settings" in capsys.readouterr().err
    table = pl.read_parquet(fresh / "table.parquet")
    assert table["l2_norm"].is_not_nan().sum() == 19


def test_the_card_says_what_is_stored_and_nothing_else(measured, tmp_path, capsys):
    recipe = {
        "name": "grid",
        "seed": 4,
        "epochs": 5,
        "source": "Author et al., venue 2020",
        "problem_sha256": "ab" * 32,
        "problem_licence": "CC BY 4.0",
    }
    environment = {"engine": "loop", "torch": "2.0"}
    path = tiny_population(
        tmp_path / "z.zarr", diverged=[1], recipe=recipe, environment=environment
    ).path
    assert "- **training took**: not recorded" in zoo_card(zoo.open(path))
    record_cost(path, "tiny", 0, Cost(seconds=7200, cpu_seconds=3600))
    text = zoo_card(zoo.open(path))
    for said in (
        "- **member-epochs**: 200",
        "- **training took**: 1 CPU hours (2 hours of work)",
        "- **licence**: CC BY 4.0",
        f"- **hash**: {'ab' * 32}",
        "- **cite**: Author et al., venue 2020",
        "- **measures**: none",
        "1 members that diverged",
    ):
        assert said in text, said
    page = write_page(zoo.open(measured), tmp_path / "page.html").read_text()
    assert "Data card" in page
    (panel,) = (p for p in panels(zoo.open(measured)["tiny"]) if p.title == "Measured afterwards")
    assert "log10 hessian trace" in panel.figure.to_json()
    assert main(["card", str(measured), "--population", "tiny"]) == 0
    text = capsys.readouterr().out
    assert "**licence**: not stated" in text
    assert "max_probes 2" in text
    assert "hessian_trace" in text
