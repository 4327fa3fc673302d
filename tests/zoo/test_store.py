import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import google_crc32c
import numpy as np
import polars as pl
import pytest
import torch
import xarray
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import zoo
from zoo.errors import (
    InvalidConfigError,
    StoreError,
    UnknownNameError,
    WeightSpaceMismatchError,
)
from zoo.networks import build
from zoo.schema import ColumnSpec, PopulationSpec, default_block_size
from zoo.store.disk.chunks import ChunkRecord
from zoo.store.disk.ledger import Ledger, LedgerEntry
from zoo.testing import (
    TINY_COLUMNS,
    TINY_NETWORK,
    tiny_block,
    tiny_population,
    tiny_space,
    tiny_spec,
    write_tiny_block,
)

P = 4 * 3 + 3 + 3 * 5 + 5 + 5 * 2 + 2


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "zoo.zarr"
    tiny_population(path, diverged=(7, 33))
    return path


@pytest.fixture(scope="module")
def undiverged(tmp_path_factory):
    return tiny_population(tmp_path_factory.mktemp("store") / "undiverged.zarr")


@pytest.fixture(scope="module")
def population(path):
    return zoo.open(path)["tiny"]


@pytest.fixture(scope="module")
def written():
    return tiny_block(tiny_spec(), range(40), diverged=(7, 33))


# ---- reading back -------------------------------------------------------------------------------
def test_numbers_round_trip(population, written):
    for checkpoint in range(3):
        got = population.weights(checkpoint=checkpoint)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, written["weights"][:, checkpoint])
    for name, values in written["metrics"].items():
        np.testing.assert_array_equal(population.metric(name), values)
    table = population.table
    assert table["member"].to_list() == list(range(40))
    for name, values in written["columns"].items():
        assert table[name].to_list() == values
    np.testing.assert_array_equal(table["test_loss"], written["metrics"]["test_loss"][:, -1])


def test_declarations_round_trip(population):
    spec = tiny_spec()
    assert population.space == spec.space
    assert population.space.num_parameters == P
    assert (population.network, population.problem) == (spec.network, spec.problem)
    assert (population.recipe, population.environment) == (spec.recipe, spec.environment)
    assert population.columns == spec.columns
    assert population.metrics == spec.metrics
    assert population.epochs.tolist() == [0, 2, 5]
    assert population.epochs.dtype == population.member_ids.dtype == np.int64
    assert (population.num_members, population.is_complete) == (40, True)
    assert PopulationSpec.from_attributes("tiny", spec.to_attributes()) == spec


def test_gather_takes_pairs_in_any_order(population, written):
    members, checkpoints = np.array([39, 0, 17, 17, 3]), np.array([-1, 0, 1, 2, 0])
    got = population.gather(members, checkpoints)
    np.testing.assert_array_equal(got, written["weights"][members, checkpoints])
    assert population.gather([], []).shape == (0, P)


def test_module_is_the_member(population, written):
    member = population.module(4, checkpoint=1)
    assert not member.training
    by_hand = build(TINY_NETWORK | {"activation": "tanh"})
    vector = torch.from_numpy(written["weights"][4, 1])
    by_hand.load_state_dict(tiny_space().state_dict(vector))
    inputs = torch.linspace(-2, 2, 12).reshape(3, 4)
    assert torch.equal(member(inputs), by_hand.eval()(inputs))
    other = population.module(3, checkpoint=1)
    assert not torch.equal(member(inputs), other(inputs))


def test_module_of_another_network_is_refused(tmp_path):
    network = TINY_NETWORK | {"hidden": [3, 5, 2]}
    tiny_population(tmp_path / "z.zarr", network=network, num_members=2)
    with pytest.raises(WeightSpaceMismatchError, match=r"differs in: layers\.10\.bias"):
        zoo.open(tmp_path / "z.zarr")["tiny"].module(0)


def test_empty_zoo(tmp_path):
    empty = zoo.create(tmp_path / "z.zarr")
    assert empty.populations == ()
    assert empty.table.shape == (0, 1)
    assert zoo.open(tmp_path / "z.zarr").version == empty.version


# ---- parts of a population ----------------------------------------------------------------------
def test_where_is_sql_over_the_table(population):
    view = population.where("test_accuracy > 0.5 and activation == 'relu'")
    table = population.table.filter(pl.col("test_accuracy") > 0.5, activation="relu")
    wanted = table.filter(pl.col("test_accuracy").is_not_nan())["member"].to_list()
    assert view.member_ids.tolist() == wanted
    assert 0 < len(wanted) < 40
    assert view.metric("test_loss").shape == (len(wanted), 3)
    np.testing.assert_array_equal(view.weights(), population.weights(wanted))
    assert view.version == population.version


@pytest.mark.parametrize("sql", ["test_accuracy > 0", "test_accuracy < 9", "test_accuracy != 3"])
def test_where_never_keeps_nan(population, sql):
    assert set(range(40)) - set(population.where(sql).member_ids.tolist()) == {7, 33}


@pytest.mark.parametrize("sql", ["accuracy > 0.5", "test_accuracy >", "seed + 1", "SELECT 1", ""])
def test_where_refuses_what_is_no_condition(population, sql):
    with pytest.raises(InvalidConfigError, match="Columns: member, learning_rate, .*test_accuracy"):
        population.where(sql)


def test_select_keeps_order_and_checks(population):
    view = population.select([30, 2, 11])
    assert view.member_ids.tolist() == [30, 2, 11]
    assert view.table["seed"].to_list() == [1030, 1002, 1011]
    with pytest.raises(UnknownNameError, match="Unknown member '3'. Known: 3 members from 2 to 30"):
        view.select([2, 3])
    with pytest.raises(UnknownNameError, match="Unknown member '40'"):
        population.weights([40])
    with pytest.raises(UnknownNameError, match="Unknown member '-1'"):
        population.weights([-1])
    with pytest.raises(InvalidConfigError, match="once"):
        population.select([5, 5])
    with pytest.raises(InvalidConfigError, match="integers"):
        population.select([0.5])


def test_split_is_restricted_to_the_view(population):
    whole = population.split()
    assert sorted(np.concatenate(list(whole.values())).tolist()) == list(range(40))
    assert [len(whole[part]) for part in ("train", "validation", "test")] == [28, 6, 6]
    part = population.select([0, 1, 2, 3]).split()
    assert sorted(np.concatenate(list(part.values())).tolist()) == [0, 1, 2, 3]
    assert set(part["train"]) <= set(whole["train"])


def test_unknown_names_list_what_exists(path, population):
    with pytest.raises(UnknownNameError, match="Unknown population 'tyni'. Known: tiny"):
        zoo.open(path)["tyni"]
    with pytest.raises(UnknownNameError, match="Known: train_loss, train_accuracy"):
        population.metric("accuracy")
    with pytest.raises(UnknownNameError, match="Unknown split 'mine'. Known: default"):
        population.split("mine")
    with pytest.raises(UnknownNameError, match="Known: 0 to 2"):
        population.weights([0], checkpoint=3)
    with pytest.raises(UnknownNameError, match="Known: auto, ram, pread, mmap"):
        population.reader("disk")


# ---- other readers ------------------------------------------------------------------------------
def test_zarr_python_reads_the_same_numbers(path, written):
    group = zarr.open_group(path / "populations/tiny", mode="r")
    np.testing.assert_array_equal(group["weights"][:], written["weights"])
    np.testing.assert_array_equal(group["metrics/test_loss"][:], written["metrics"]["test_loss"])
    np.testing.assert_array_equal(group["columns/lineage"][:], np.arange(40))
    meanings = group["columns/activation"].attrs["flag_meanings"].split()
    codes = group["columns/activation"][:]
    assert [meanings[code] for code in codes] == written["columns"]["activation"]
    codecs = [codec.to_dict()["name"] for codec in group["weights"].metadata.codecs]
    assert codecs == ["bytes", "crc32c"]
    assert group["weights"].chunks == (16, 1, P)


def test_xarray_names_the_dimensions(path, written):
    dataset = xarray.open_zarr(path / "populations/tiny")
    assert dict(dataset.sizes) == {"member": 40, "checkpoint": 3, "parameter": P}
    last = dataset["weights"].sel(checkpoint=5, member=39)
    np.testing.assert_array_equal(last.values, written["weights"][39, 2])
    tree = xarray.open_datatree(path, engine="zarr")
    assert tree["populations/tiny/metrics"]["test_loss"].dims == ("member", "checkpoint")


def test_parquet_is_the_table(path):
    table = pl.read_parquet(path / "table.parquet")
    assert table.equals(zoo.open(path).table)
    assert table.columns[:2] == ["population", "member"]


def test_reading_changes_nothing_on_disk(path):
    before = snapshot(path)
    store = zoo.open(path)
    store["tiny"].where("seed > 3").weights()
    assert len(store.table) == 40
    assert len(store["tiny"].split()["train"]) == 28
    assert store.version
    with pytest.raises(StoreError, match="opened to read"):
        store.create_population(tiny_spec(name="more"))
    with pytest.raises(StoreError, match="opened to read"):
        store.write_table()
    assert snapshot(path) == before


def test_the_format_document_is_enough(path, population):
    """Version and checksums, written again from FORMAT.md alone."""
    lines = []
    head, *entries = map(json.loads, (path / "_ledger/tiny.jsonl").read_text().splitlines())
    attributes = json.loads((path / "populations/tiny/zarr.json").read_text())["attributes"]
    for entry in (head, *entries, dict(attributes)):
        checksum = entry.pop("crc32c")
        text = json.dumps(entry, separators=(",", ":"), sort_keys=True)
        assert f"{google_crc32c.value(text.encode()):08x}" == checksum
    assert head == {"blocks": [[0, 3]], "population": "tiny"}
    assert [entry["block"] for entry in entries] == [0, 1, 2]
    for entry in entries:
        for key, (size, crc) in entry["chunks"].items():
            data = (path / "populations/tiny" / key).read_bytes()
            assert len(data) == size
            assert f"{google_crc32c.value(data[:-4]):08x}" == data[-4:][::-1].hex() == crc
            lines.append(f"tiny/{key} {crc}")
    structure = {key: attributes["space"][key] for key in ("tensors", "groups", "tied")}
    space = json.dumps(structure, separators=(",", ":"))
    fingerprint = hashlib.sha256(space.encode()).hexdigest()[:12]
    assert fingerprint == attributes["space_fingerprint"]
    meaning = {
        "checkpoints": attributes["checkpoints"],
        "columns": [[c["name"], c["dtype"], c["categories"]] for c in attributes["columns"]],
        "num_members": attributes["num_members"],
        "space": fingerprint,
    }
    text = "\n".join([json.dumps(meaning, sort_keys=True), *sorted(lines)])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == population.version
    whole = hashlib.sha256(f"tiny {population.version}".encode()).hexdigest()[:16]
    assert zoo.open(path).version == whole


# ---- opening ------------------------------------------------------------------------------------
def test_open_says_what_is_wrong(tmp_path, path):
    with pytest.raises(StoreError, match="no such path"):
        zoo.open(tmp_path / "none.zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="got something else"):
        zoo.open(tmp_path / "folder")
    with pytest.raises(StoreError, match="folder inside a zoo"):
        zoo.open(path / "populations" / "tiny")
    zoo.create(tmp_path / "new.zarr")
    meta = tmp_path / "new.zarr" / "zarr.json"
    raw = json.loads(meta.read_text())
    raw["attributes"]["format_version"] = "2"
    meta.write_text(json.dumps(raw))
    with pytest.raises(StoreError, match="'weight-zoo' version 2. Update the package"):
        zoo.open(tmp_path / "new.zarr")


def test_create_never_overwrites(tmp_path):
    zoo.create(tmp_path / "z.zarr")
    with pytest.raises(StoreError, match="already exists"):
        zoo.create(tmp_path / "z.zarr")
    assert zoo.create(tmp_path / "z.zarr", exist_ok=True).populations == ()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("words")
    with pytest.raises(StoreError, match="got something else"):
        zoo.create(tmp_path / "other", exist_ok=True)
    with pytest.raises(StoreError, match="got something else"):
        zoo.create(tmp_path / "other" / "thesis.txt", exist_ok=True)


def test_populations_never_replace_each_other(tmp_path):
    store = tiny_population(tmp_path / "z.zarr", num_members=5)
    with pytest.raises(StoreError, match="'tiny' already exists"):
        store.create_population(tiny_spec())
    tiny_population(tmp_path / "z.zarr", name="second", num_members=3)
    assert store.populations == ("second", "tiny")
    assert "second" in store
    assert store.table["population"].to_list() == ["second"] * 3 + ["tiny"] * 5
    with pytest.raises(UnknownNameError, match="Known: second, tiny"):
        store.writer("third")


# ---- writing ------------------------------------------------------------------------------------
def test_resume_gives_the_same_bytes(tmp_path, undiverged):
    straight = undiverged
    writer = zoo.create(tmp_path / "b.zarr").create_population(tiny_spec())
    write_tiny_block(writer, 2)
    partly = zoo.open(tmp_path / "b.zarr")["tiny"]
    assert (partly.num_members, partly.is_complete) == (8, False)
    assert partly.member_ids.tolist() == list(range(32, 40))
    np.testing.assert_array_equal(partly.weights(), straight["tiny"].weights(range(32, 40)))
    with pytest.raises(UnknownNameError, match="8 members from 32 to 39"):
        partly.weights([0])

    writer = zoo.create(tmp_path / "b.zarr", exist_ok=True).writer("tiny")
    assert writer.committed == {2}
    with pytest.raises(StoreError, match="block 0 is the first that is missing"):
        writer.finish()
    for block in (1, 0):
        write_tiny_block(writer, block)
    writer.finish()
    resumed = zoo.open(tmp_path / "b.zarr")
    assert resumed.version == straight.version
    names = ({p.relative_to(r) for p in r.rglob("*")} for r in (straight.path, resumed.path))
    assert next(names) == next(names)
    for file in straight.path.rglob("*"):
        if file.is_file():
            twin = resumed.path / file.relative_to(straight.path)
            assert twin.read_bytes() == file.read_bytes(), file


def test_version_follows_every_number(tmp_path, undiverged):
    writer = zoo.create(tmp_path / "b.zarr").create_population(tiny_spec(environment={"cpu": "x"}))
    for block in range(3):
        arrays = tiny_block(writer.spec, writer.members_of(block))
        if block == 1:
            arrays["columns"]["seed"][3] += 1
        writer.write_block(block, **arrays)
    assert len(undiverged.version) == 16
    assert zoo.open(tmp_path / "b.zarr").version != undiverged.version


def test_a_committed_block_never_changes(tmp_path):
    writer = zoo.create(tmp_path / "z.zarr").create_population(tiny_spec())
    write_tiny_block(writer, 1)
    before = snapshot(tmp_path)
    write_tiny_block(writer, 1)  # the same numbers again are no harm
    with pytest.raises(StoreError, match=r"Block 1 \(members 16 to 31\).*already committed"):
        write_tiny_block(writer, 1, seed=1)
    assert snapshot(tmp_path) == before


def test_two_owners_of_a_block_meet_at_the_ledger(tmp_path):
    writer = zoo.create(tmp_path / "z.zarr").create_population(tiny_spec())
    write_tiny_block(writer, 1)
    ledger = Ledger(tmp_path / "z.zarr", "tiny")
    entry = ledger.entry(1)
    ledger.publish(entry)  # the slower of two owners that agree
    other = replace(entry, chunks=entry.chunks | {"weights/c/1/0/0": ChunkRecord(3012, 1)})
    with pytest.raises(StoreError, match=r"Block 1 \(members 16 to 31\).*already committed"):
        ledger.publish(other)
    assert [path.name for path in ledger.folder.iterdir()] == ["000001.json"]
    assert LedgerEntry.from_json(ledger.path(1).read_text()) == entry


def bad_blocks():
    def of(change):
        arrays = tiny_block(tiny_spec(), range(16))
        change(arrays)
        return arrays

    def cut(arrays):
        arrays["weights"] = arrays["weights"][:8]

    def double(arrays):
        arrays["weights"] = arrays["weights"].astype(np.float64)

    def other_space(arrays):
        arrays["weights"] = arrays["weights"][:, :, :-1]

    def swapped(arrays):
        arrays["metrics"]["test_loss"] = arrays["metrics"]["test_loss"].T

    def unnamed(arrays):
        arrays["metrics"]["loss"] = arrays["metrics"].pop("test_loss")

    def absent(arrays):
        del arrays["columns"]["seed"]

    def fractional(arrays):
        arrays["columns"]["seed"] = np.linspace(0, 1, 16)

    def foreign(arrays):
        arrays["columns"]["activation"] = ["elu"] * 16

    def code(arrays):
        arrays["columns"]["activation"] = np.full(16, 3)

    def zero(arrays):
        arrays["columns"]["learning_rate"] = np.zeros(16)

    return [
        (of(cut), StoreError, r"shape \(16, 3, 47\).*got \(8, 3, 47\)"),
        (of(double), StoreError, "dtype float32.*got .*float64"),
        (of(other_space), WeightSpaceMismatchError, "Expected weights of 47.*got 46"),
        (of(swapped), StoreError, r"'test_loss'.*\(16, 3\).*got float32 of shape \(3, 16\)"),
        (of(unnamed), UnknownNameError, "'loss'. Known: train_loss"),
        (of(absent), StoreError, "none called 'seed'"),
        (of(fractional), StoreError, "'seed' as integers"),
        (of(foreign), UnknownNameError, "'elu'. Known: relu, tanh, gelu"),
        (of(code), InvalidConfigError, "codes 0 to 2.*got 3 to 3"),
        (of(zero), InvalidConfigError, "positive values in column 'learning_rate'"),
    ]


@pytest.mark.parametrize(("arrays", "error", "message"), bad_blocks())
def test_misaligned_blocks_are_refused(tmp_path, arrays, error, message):
    writer = zoo.create(tmp_path / "z.zarr").create_population(tiny_spec())
    before = snapshot(tmp_path)
    with pytest.raises(error, match=message):
        writer.write_block(0, **arrays)
    assert snapshot(tmp_path) == before
    with pytest.raises(UnknownNameError, match="Unknown block '3'. Known: 0 to 2"):
        writer.members_of(3)


def test_bytes_needed_bounds_what_is_written(tmp_path):
    def used():
        return sum(path.lstat().st_blocks * 512 for path in tmp_path.rglob("*"))

    writer = zoo.create(tmp_path / "z.zarr").create_population(tiny_spec())
    before, needed = used(), writer.bytes_needed()
    write_tiny_block(writer, 0)
    assert writer.bytes_needed() == needed * 2 // 3
    for block in (1, 2):
        write_tiny_block(writer, block)
    assert writer.bytes_needed() == 0
    assert 0 < used() - before <= needed


def test_processes_share_the_blocks(tmp_path, undiverged):
    zoo.create(tmp_path / "b.zarr").create_population(tiny_spec())
    children = []
    for share in ([0, 2], [1]):
        children.append(os.fork())
        if children[-1] == 0:
            writer = zoo.create(tmp_path / "b.zarr", exist_ok=True).writer("tiny")
            for block in share:
                write_tiny_block(writer, block)
            os._exit(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert zoo.open(tmp_path / "b.zarr").version == undiverged.version


# ---- specs --------------------------------------------------------------------------------------
def test_default_block_size():
    assert default_block_size(10_000, 5_018) == 256
    assert default_block_size(512, 5_018) == 64
    assert default_block_size(10, 5_018) == 16
    assert default_block_size(10**6, 50) == 4096
    assert default_block_size(10**6, 10**7) == 16
    assert tiny_spec(block_size=0, num_members=1000).block_size == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../up"}, "population name"),
        ({"checkpoints": (2, 0)}, "ascending"),
        ({"num_members": 0}, "at least one member"),
        ({"metrics": ("seed",)}, "got seed twice"),
        ({"metrics": ("a/b",)}, "metric name"),
        ({"columns": TINY_COLUMNS[:-1]}, "Expected columns diverged"),
        ({"network_columns": ("width",)}, "Expected columns width"),
        ({"recipe": {"rate": float("nan")}}, "recipe to be plain JSON"),
        ({"recipe": {"rates": (1, 2)}}, "recipe to be plain JSON that reads back equal"),
    ],
)
def test_specs_are_checked(changes, message):
    with pytest.raises(InvalidConfigError, match=message):
        tiny_spec(**changes)


def test_columns_are_checked():
    with pytest.raises(InvalidConfigError, match="categories for a category column"):
        ColumnSpec(name="a", dtype="category")
    with pytest.raises(InvalidConfigError, match="none for others"):
        ColumnSpec(name="a", dtype="int64", categories=("x",))
    with pytest.raises(InvalidConfigError, match="distinct"):
        ColumnSpec(name="a", dtype="category", categories=("x", "x"))


# ---- against a dict -----------------------------------------------------------------------------
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_the_store_is_a_dict(tmp_path, data):
    members = data.draw(st.integers(1, 37), label="members")
    epochs = data.draw(st.integers(1, 3), label="epochs")
    size = data.draw(st.sampled_from([1, 2, 8, 16]), label="block size")
    spec = tiny_spec(num_members=members, checkpoints=tuple(range(epochs)), block_size=size)
    root = tmp_path / str(len(list(tmp_path.iterdir())))
    writer = zoo.create(root).create_population(spec)
    kept = data.draw(st.lists(st.integers(0, spec.num_blocks - 1), unique=True), label="blocks")
    model = {}
    numbers = arrays(np.float32, (epochs, P), elements=st.floats(width=32), fill=st.just(0.5))
    for block in kept:
        block_arrays = tiny_block(spec, writer.members_of(block))
        block_arrays["weights"][0] = data.draw(numbers, label="weights")
        writer.write_block(block, **block_arrays)
        model |= dict(zip(writer.members_of(block), block_arrays["weights"], strict=True))
    population = zoo.open(root)["tiny"]
    assert population.member_ids.tolist() == sorted(model)
    pair = st.tuples(st.sampled_from(sorted(model) or [0]), st.integers(0, epochs - 1))
    pairs = data.draw(st.lists(pair, max_size=40 if model else 0), label="pairs")
    for io in ("ram", "pread", "mmap"):
        rows = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        got = population.reader(io).gather(rows[:, 0], rows[:, 1])
        wanted = [model[member][checkpoint] for member, checkpoint in pairs]
        np.testing.assert_array_equal(got, np.reshape(wanted, (-1, P)).astype(np.float32))
