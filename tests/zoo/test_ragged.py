import json
import os
import shutil
from copy import deepcopy
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import xarray
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zoo
from zoo.cli import main
from zoo.datasets import ZooDataset
from zoo.errors import (
    DamagedChunkError,
    InvalidConfigError,
    StoreError,
    UnknownNameError,
    WeightSpaceMismatchError,
)
from zoo.networks import build
from zoo.page import write_page
from zoo.store.reading.gather import RowReader
from zoo.store.upkeep.check import check
from zoo.testing import (
    RAGGED_HIDDEN,
    TINY_NETWORK,
    ragged_block,
    ragged_population,
    ragged_spaces,
    ragged_spec,
    tiny_population,
    tiny_spec,
)

MODES = ("ram", "pread", "mmap")
OF_MEMBER = [member % 3 for member in range(40)]
SIZES = [47, 51, 51]  # two architectures of one size, yet of different spaces


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("ragged") / "zoo.zarr"
    ragged_population(path)
    tiny_population(path, num_members=20)
    return path


@pytest.fixture(scope="module")
def population(path):
    return zoo.open(path)["ragged"]


@pytest.fixture(scope="module")
def written():
    return ragged_block(ragged_spec(), dict(enumerate(OF_MEMBER)))


def assert_same(vectors, wanted):
    assert len(vectors) == len(wanted)
    for got, want in zip(vectors, wanted, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, want)


# ---- reading back -------------------------------------------------------------------------------
def test_vectors_round_trip(population, written):
    for checkpoint in (0, 1, 2, -1):
        wanted = [weights[checkpoint] for weights in written["weights"]]
        assert_same(population.vectors(checkpoint=checkpoint), wanted)
    assert [len(vector) for vector in population.vectors([2, 0, 7])] == [51, 47, 51]
    assert population.vectors([]) == []
    assert population.table["architecture"].to_list() == OF_MEMBER
    assert population.table["learning_rate"].to_list() == written["columns"]["learning_rate"]
    with pytest.raises(UnknownNameError, match="Unknown member '40'"):
        population.vectors([40])
    with pytest.raises(UnknownNameError, match="checkpoint index '3'"):
        population.vectors([0], checkpoint=3)


@pytest.mark.parametrize("io", MODES)
def test_every_way_of_reading_agrees(path, written, io):
    reader = zoo.open(path)["ragged"].reader(io)
    members, checkpoints = np.array([39, 0, 17, 17, 16, 15]), np.array([2, 0, 1, 2, 0, 1])
    wanted = [written["weights"][m][c] for m, c in zip(members, checkpoints, strict=True)]
    assert_same(reader.vectors(members, checkpoints), wanted)
    alike = np.array([4, 1, 37, 16])  # all of architecture 1
    got = reader.gather(alike, np.array([0, 2, 1, 1]))
    assert_same(got, [written["weights"][m][c] for m, c in zip(alike, (0, 2, 1, 1), strict=True)])
    assert_same(deepcopy(reader).vectors(members, checkpoints), wanted)
    regular = zoo.open(path)["tiny"].reader(io)
    alike = alike % 20
    assert_same(regular.vectors(alike, alike % 3), regular.gather(alike, alike % 3))


@pytest.mark.parametrize("io", MODES)
def test_mixed_members_are_never_one_array(population, io):
    reader = population.reader(io)
    for mixed in ([0, 1], [1, 2]):  # of two lengths; of one length, but two spaces
        with pytest.raises(WeightSpaceMismatchError, match=r"by_architecture.*vectors"):
            reader.gather(np.array(mixed), np.zeros(2, dtype=np.int64))
    with pytest.raises(WeightSpaceMismatchError, match="3 architectures"):
        population.weights()
    with pytest.raises(WeightSpaceMismatchError, match="40 members of population 'ragged'"):
        _ = population.space
    with pytest.raises(WeightSpaceMismatchError):
        ZooDataset(population, target="test_accuracy")


@pytest.mark.parametrize("io", MODES)
def test_a_forked_child_opens_its_own_files(path, io):
    reader = RowReader(zoo.open(path)["ragged"]._files, io=io)
    members, checkpoints = np.array([1, 20]), np.array([0, 2])
    wanted, source = reader.vectors(members, checkpoints), reader._source
    child = os.fork()
    if child == 0:
        same = map(np.array_equal, reader.vectors(members, checkpoints), wanted)
        os._exit(0 if all(same) and reader._source is not source else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_networks_are_rebuilt(population, written):
    inputs = torch.linspace(-2, 2, 12).reshape(3, 4)
    for member in (3, 4, 5):
        shape = OF_MEMBER[member]
        network = TINY_NETWORK | {"hidden": list(RAGGED_HIDDEN[shape])}
        network["activation"] = written["columns"]["activation"][member]
        assert population.network_of(member) == network
        assert population.space_of(member) == ragged_spaces()[shape]
        by_hand = build(network)
        vector = torch.from_numpy(written["weights"][member][1])
        by_hand.load_state_dict(ragged_spaces()[shape].state_dict(vector))
        module = population.module(member, checkpoint=1)
        assert torch.equal(module(inputs), by_hand.eval()(inputs))
    assert population.state_dict(1)["layers.1.weight"].shape == (7, 4)
    with pytest.raises(UnknownNameError):
        population.space_of(40)


# ---- parts --------------------------------------------------------------------------------------
def test_parts_of_one_architecture_are_ordinary(population, written):
    parts = population.by_architecture()
    assert list(parts) == [0, 1, 2]
    for position, part in parts.items():
        ids = list(range(position, 40, 3))
        assert part.member_ids.tolist() == ids
        assert part.space == ragged_spaces()[position]
        assert_same(part.weights(), [written["weights"][i][-1] for i in ids])
        dataset = ZooDataset(part, target="test_accuracy")
        assert_same(dataset[np.arange(len(ids))].weights.numpy(), part.weights())
        assert part.by_architecture().keys() == {position}
    assert repr(parts[0]) == "Population('ragged', 14 members, 3 checkpoints, 47 parameters)"
    assert "40 members, 3 checkpoints, 47 to 51 parameters" in repr(population)


def test_spaces_of_a_view(population):
    fingerprints = [space.fingerprint for space in ragged_spaces()]
    assert list(population.spaces) == fingerprints
    view = population.where("architecture != 0 and test_accuracy < 2")
    assert list(view.spaces) == fingerprints[1:]
    assert population.select([4, 1]).space == ragged_spaces()[1]
    assert population.where("architecture == 9").by_architecture() == {}
    assert population.checkpoints("first").by_architecture()[2].epochs.tolist() == [0]


def test_a_regular_population_is_one_part(path):
    tiny = zoo.open(path)["tiny"]
    (part,) = tiny.by_architecture().values()
    assert part.member_ids.tolist() == tiny.member_ids.tolist()
    assert tiny.spaces == {tiny.space.fingerprint: tiny.space}
    assert tiny.space_of(3) == tiny.space
    assert_same(tiny.vectors([3, 1]), tiny.weights([3, 1]))


def test_split_covers_all_architectures(population):
    parts = population.split()
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(40))
    own = population.by_architecture()[1].split()
    assert set(own["train"]) == {i for i in parts["train"] if i % 3 == 1}


def test_a_split_may_keep_architectures_together(tmp_path):
    store = ragged_population(tmp_path / "z.zarr")
    thirds = (0.4, 0.3, 0.3)
    store.writer("ragged").create_split("new", seed=0, fractions=thirds, by="architecture")
    parts = zoo.open(store.path)["ragged"].split("new")
    shapes = [{member % 3 for member in members.tolist()} for members in parts.values()]
    assert sorted(map(tuple, shapes)) == [(0,), (1,), (2,)]


def test_table_across_a_regular_and_a_ragged_population(path):
    table = zoo.open(path).table
    assert table.columns[:2] == ["population", "member"]
    counts = dict(table.group_by("population").len().iter_rows())
    assert counts == {"ragged": 40, "tiny": 20}
    own = table.filter(pl.col("population") == "ragged")
    assert own["architecture"].to_list() == OF_MEMBER
    other = table.filter(pl.col("population") == "tiny")
    assert other["architecture"].null_count() == 20
    assert other["seed"].to_list() == list(range(1000, 1020))
    assert pl.read_parquet(path / "table.parquet").equals(table)


# ---- on disk ------------------------------------------------------------------------------------
def test_other_readers_find_every_member(path, population, written):
    group = zarr.open_group(path / "populations/ragged", mode="r")
    weights, offset = group["weights"], group["offset"][:]
    assert weights.chunks == (1, 1, population.spec.row_length)
    assert weights.shape == (3, 3, population.spec.row_length)
    codecs = [codec.to_dict()["name"] for codec in weights.metadata.codecs]
    assert codecs == ["bytes", "crc32c"]
    ends = offset + np.array(SIZES)[OF_MEMBER]
    for member, values in enumerate(written["weights"]):
        row = weights[member // 16, 1]
        np.testing.assert_array_equal(row[offset[member] : ends[member]], values[1])
    for block in range(3):
        last = min(block * 16 + 15, 39)
        assert np.isnan(weights[block][:, ends[last] :]).all()
        assert not np.isnan(weights[block][:, : ends[last]]).any()
    dataset = xarray.open_zarr(path / "populations/ragged")
    assert dataset["weights"].dims == ("block", "checkpoint", "value")
    assert dataset["offset"].dims == ("member",)


def test_each_space_lies_once(path):
    folder = path / "populations/ragged"
    wanted = {space.fingerprint: space.to_json() for space in ragged_spaces()}
    found = {file.stem: file.read_text() for file in (folder / "spaces").iterdir()}
    assert found == wanted
    assert len(json.dumps(json.loads((folder / "zarr.json").read_text())["attributes"])) < 4096
    assert not (path / "populations/tiny/spaces").exists()


def test_version_follows_the_architectures(tmp_path, population):
    again = ragged_population(tmp_path / "again.zarr")
    assert again["ragged"].version == population.version
    other = ragged_population(tmp_path / "other.zarr", of_member=OF_MEMBER[::-1])
    assert other["ragged"].version != population.version


# ---- writing ------------------------------------------------------------------------------------
def test_blocks_resume_in_any_order(tmp_path, population):
    store = zoo.create(tmp_path / "z.zarr")
    store.create_population(ragged_spec(), spaces=ragged_spaces())
    for block in (2, 0):
        writer = zoo.create(tmp_path / "z.zarr", exist_ok=True).writer("ragged")
        ids = writer.members_of(block)
        shapes = {member: OF_MEMBER[member] for member in ids}
        writer.write_block(block, **ragged_block(writer.spec, shapes))
        partly = zoo.open(tmp_path / "z.zarr")["ragged"]
        assert_same(partly.vectors(ids), population.vectors(ids))
        with pytest.raises(UnknownNameError):
            partly.vectors([16])
    assert partly.by_architecture()[1].member_ids.tolist() == [1, 4, 7, 10, 13, 34, 37]
    assert check(tmp_path / "z.zarr").ok


def test_populations_need_the_spaces_of_their_architectures(tmp_path):
    store = zoo.create(tmp_path / "z.zarr")
    with pytest.raises(WeightSpaceMismatchError, match="3 weight spaces.*got none"):
        store.create_population(ragged_spec())
    with pytest.raises(WeightSpaceMismatchError, match="as `spaces`"):
        store.create_population(ragged_spec(), spaces=ragged_spaces()[1:])
    with pytest.raises(WeightSpaceMismatchError, match="its space is in the spec"):
        store.create_population(tiny_spec(), spaces=ragged_spaces())
    assert store.populations == ()
    assert list((store.path / "populations").glob(".*")) == []


def bad_blocks():
    def of(change):
        arrays = ragged_block(ragged_spec(), dict(enumerate(OF_MEMBER[:16])))
        change(arrays)
        return arrays

    def swapped(arrays):
        arrays["weights"][:2] = arrays["weights"][1::-1]

    def short(arrays):
        arrays["weights"] = arrays["weights"][:-1]

    def double(arrays):
        arrays["weights"][3] = arrays["weights"][3].astype(np.float64)

    def no_epochs(arrays):
        arrays["weights"][3] = arrays["weights"][3][-1]

    def unknown(arrays):
        arrays["columns"]["architecture"][5] = 3

    def too_long(arrays):
        long = ragged_block(ragged_spec(), {member: 1 for member in range(16)})
        arrays.update(weights=long["weights"], columns=long["columns"])

    return [
        (of(swapped), WeightSpaceMismatchError, r"\(3, 47\), \(3, 51\).*got \(\(3, 51\)"),
        (of(short), WeightSpaceMismatchError, r"\(16\), got .*\(15\)"),
        (of(double), WeightSpaceMismatchError, "float32.*got .*float64"),
        (of(no_epochs), WeightSpaceMismatchError, "checkpoint, parameter"),
        (of(unknown), InvalidConfigError, "positions 0 to 2 of architectures.*got 0 to 3"),
        (of(too_long), StoreError, r"at most 796 numbers.*got 816 in block 0.*Ragged\.plan"),
    ]


@pytest.mark.parametrize(("arrays", "error", "message"), bad_blocks())
def test_members_of_other_architectures_are_refused(tmp_path, arrays, error, message):
    store = zoo.create(tmp_path / "z.zarr")
    writer = store.create_population(ragged_spec(), spaces=ragged_spaces())
    with pytest.raises(error, match=message):
        writer.write_block(0, **arrays)
    assert writer.committed == set()
    assert check(tmp_path / "z.zarr").populations[0].orphans == ()


# ---- damage -------------------------------------------------------------------------------------
@pytest.fixture
def copy(path, tmp_path):
    return shutil.copytree(path, tmp_path / "zoo.zarr")


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[20] ^= 0b100
    file.write_bytes(data)


@pytest.mark.parametrize("io", MODES)
def test_damaged_rows_are_named_and_never_read(copy, io, written):
    flip(copy / "populations/ragged/weights/c/1/2/0")
    reader = zoo.open(copy)["ragged"].reader(io)
    with pytest.raises(DamagedChunkError, match="members 16 to 31 of population 'ragged' at epoch"):
        reader.vectors(np.array([31]), np.array([2]))
    assert_same(reader.vectors(np.array([31]), np.array([1])), [written["weights"][31][1]])
    (found,) = check(copy).damaged
    assert (found.members, found.epochs) == (tuple(range(16, 32)), (5,))


@pytest.mark.parametrize("array", ["offset", "columns/architecture"])
def test_damage_of_what_says_where_members_lie(copy, array):
    flip(copy / f"populations/ragged/{array}/c/0")
    with pytest.raises(DamagedChunkError, match=f"'{array}' of members 0 to 15"):
        zoo.open(copy)["ragged"].vectors([20])
    report = check(copy)
    assert [damage.array for damage in report.damaged] == [array]
    assert report.populations[0].not_finite == ()


@pytest.mark.parametrize("harm", ["loss", "another space", "nonsense"])
def test_damaged_spaces_are_named(copy, harm):
    first, second, _ = (copy / f"populations/ragged/spaces/{s.fingerprint}.json" for s in
                        ragged_spaces())  # fmt: skip
    if harm == "loss":
        first.unlink()
    else:
        first.write_text(second.read_text() if harm == "another space" else "{}")
    population = zoo.open(copy)["ragged"]
    with pytest.raises(DamagedChunkError, match=rf"{first.stem}\.json"):
        population.module(3)
    population.module(4)
    assert len(population.vectors()) == 40
    (found,) = check(copy).damaged
    assert (found.array, found.chunk) == ("spaces", f"spaces/{first.name}")
    assert found.members == tuple(range(0, 40, 3))


def test_check_finds_broken_weights_by_member(tmp_path):
    store = zoo.create(tmp_path / "z.zarr")
    writer = store.create_population(ragged_spec(OF_MEMBER[:20]), spaces=ragged_spaces())
    for block in (0, 1):
        shapes = {member: OF_MEMBER[member] for member in writer.members_of(block)}
        arrays = ragged_block(writer.spec, shapes)
        if block == 1:
            arrays["weights"][1][2, 50] = np.nan  # the last number of member 17
            arrays["weights"][2][1, 0] = np.inf  # the first of member 18, which diverged
            arrays["columns"]["diverged"][2] = True
        writer.write_block(block, **arrays)
    report = check(tmp_path / "z.zarr")
    assert report.populations[0].not_finite == ((17, 5),)


# ---- commands -----------------------------------------------------------------------------------
def test_commands_know_ragged_populations(path, tmp_path, capsys):
    assert main(["info", str(path)]) == 0
    told = capsys.readouterr().out
    assert "3 of 3 weight spaces" in told
    assert "47 to 51" in told
    assert main(["check", str(path)]) == 0
    page = write_page(zoo.open(path), tmp_path / "page.html", predictions=[])
    assert "3 of 3 weight spaces" in page.read_text()


# ---- against a dict -----------------------------------------------------------------------------
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_ragged_population_is_a_dict(tmp_path, data):
    shapes = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=23), label="shapes")
    size = data.draw(st.sampled_from([1, 2, 8]), label="block size")
    root = tmp_path / str(len(list(tmp_path.iterdir())))
    store = ragged_population(root, of_member=shapes, block_size=size)
    written = ragged_block(store["ragged"].spec, dict(enumerate(shapes)))["weights"]
    pair = st.tuples(st.integers(0, len(shapes) - 1), st.integers(0, 2))
    pairs = np.array(data.draw(st.lists(pair, max_size=9)), dtype=np.int64).reshape(-1, 2)
    for io in MODES:
        got = store["ragged"].reader(io).vectors(pairs[:, 0], pairs[:, 1])
        assert_same(got, [written[member][checkpoint] for member, checkpoint in pairs])
