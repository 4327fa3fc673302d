import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import xarray
import zarr

import zoo
from zoo.cli import main
from zoo.errors import DamagedChunkError, InvalidConfigError, StoreError, UnknownNameError
from zoo.layout import TIERS, Source, Storage
from zoo.store.upkeep.check import check
from zoo.store.upkeep.repack import repack, repacked_spec
from zoo.testing import (
    ragged_population,
    ragged_spaces,
    ragged_spec,
    tiny_block,
    tiny_population,
    tiny_spec,
    write_tiny_block,
)

MODES = ("ram", "pread", "mmap")
MEMBERS = 100
DIVERGED = (7, 93)


@pytest.fixture(scope="module")
def hot(tmp_path_factory):
    path = tmp_path_factory.mktemp("repack") / "hot.zarr"
    store = tiny_population(path, diverged=DIVERGED, num_members=MEMBERS, block_size=64)
    store.writer("tiny").adopt_split("mine", {"train": [4, 2], "test": [90]}, source="list.json")
    return zoo.open(path)


@pytest.fixture(scope="module")
def archive(hot, tmp_path_factory):
    path = tmp_path_factory.mktemp("repack") / "archive.zarr"
    repack(hot.path, path, tier="archive")
    return zoo.open(path)


@pytest.fixture(scope="module")
def compact(hot, tmp_path_factory):
    path = tmp_path_factory.mktemp("repack") / "compact.zarr"
    repack(hot.path, path, tier="compact")
    return zoo.open(path)


@pytest.fixture(scope="module")
def written():
    return tiny_block(tiny_spec(), range(MEMBERS), diverged=DIVERGED)


def bits(values):
    return np.ascontiguousarray(values).view(np.uint32)


# ---- the same networks --------------------------------------------------------------------------
@pytest.mark.parametrize("io", MODES)
def test_archives_hold_the_same_bits(archive, written, io):
    rng = np.random.default_rng(0)
    reader = archive["tiny"].reader(io)
    for count in (1, 5, 200):
        members, checkpoints = rng.integers(MEMBERS, size=count), rng.integers(3, size=count)
        got = reader.gather(members, checkpoints)
        np.testing.assert_array_equal(bits(got), bits(written["weights"][members, checkpoints]))


@pytest.mark.parametrize("io", MODES)
def test_compact_rounds_once(compact, written, io):
    members, checkpoints = np.array([99, 0, 17, 93]), np.array([2, 0, 1, 2])
    got = compact["tiny"].reader(io).gather(members, checkpoints)
    assert got.dtype == np.float32
    wanted = written["weights"][members, checkpoints].astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(got, wanted)
    assert not np.array_equal(got[:3], written["weights"][members, checkpoints][:3])


@pytest.mark.parametrize("tier", ["archive", "compact"])
def test_everything_else_is_carried_over(hot, tier, request):
    store = request.getfixturevalue(tier)
    old, new = hot["tiny"], store["tiny"]
    assert new.table.equals(old.table, null_equal=True)
    assert store.table.equals(hot.table, null_equal=True)
    for name in old.metrics:
        np.testing.assert_array_equal(new.metric(name), old.metric(name))
    for split in ("default", "mine"):
        parts = new.split(split)
        assert {k: v.tolist() for k, v in parts.items()} == {
            k: v.tolist() for k, v in old.split(split).items()
        }
        file = f"populations/tiny/splits/{split}/zarr.json"
        assert json.loads((store.path / file).read_text()) == json.loads(
            (hot.path / file).read_text()
        )
    same = {"name", "space", "network", "problem", "recipe", "environment", "columns"}
    assert all(getattr(new.spec, name) == getattr(old.spec, name) for name in same)
    assert (store.path / "table.parquet").is_file()
    assert check(store.path).ok


def test_there_and_back_is_the_same_version(hot, archive, tmp_path):
    back = repack(archive.path, tmp_path / "back.zarr", tier="hot")
    assert back.version == hot.version != archive.version
    chunks = [p.relative_to(hot.path) for p in hot.path.glob("populations/*/weights/c/*/*/*")]
    assert len(chunks) == 6
    for chunk in chunks:
        assert (back.path / chunk).read_bytes() == (hot.path / chunk).read_bytes()


def test_lineage_of_the_data(hot, archive, compact, tmp_path):
    original = Source(version=hot["tiny"].version, dtype="float32")
    assert hot["tiny"].spec.sources == ()
    assert archive["tiny"].spec.sources == (original,)
    back = repack(compact.path, tmp_path / "back.zarr", tier="hot")
    rounded = Source(version=compact["tiny"].version, dtype="float16")
    assert zoo.open(back.path)["tiny"].spec.sources == (original, rounded)
    assert back["tiny"].spec.storage == TIERS["hot"]
    np.testing.assert_array_equal(back["tiny"].weights(), compact["tiny"].weights())


def test_broken_numbers_of_diverged_members(tmp_path):
    writer = zoo.create(tmp_path / "hot.zarr").create_population(tiny_spec(num_members=16))
    arrays = tiny_block(writer.spec, range(16), diverged=(4, 5))
    odd = np.array([0x7FC12345, 0xFF800000, 0x80000000], dtype=np.uint32).view(np.float32)
    arrays["weights"][4, 1, :3] = odd  # a NaN with a payload, minus infinity, minus zero
    arrays["weights"][5, 0, 0] = 1e30
    writer.write_block(0, **arrays)
    writer.finish()
    archive = repack(tmp_path / "hot.zarr", tmp_path / "archive.zarr", tier="archive")
    got = archive["tiny"].weights([4, 5], checkpoint=1)
    np.testing.assert_array_equal(bits(got), bits(arrays["weights"][[4, 5], 1]))
    compact = repack(tmp_path / "archive.zarr", tmp_path / "compact.zarr", tier="compact")
    assert compact["tiny"].weights([5], checkpoint=0)[0, 0] == np.inf
    got = compact["tiny"].weights([4], checkpoint=1)[0, :3]
    assert np.isnan(got[0])
    assert got[1] == -np.inf
    assert np.signbit(got[2])


def test_weights_that_half_precision_cannot_hold(tmp_path):
    writer = zoo.create(tmp_path / "hot.zarr").create_population(tiny_spec(num_members=20))
    for block in (0, 1):
        arrays = tiny_block(writer.spec, writer.members_of(block))
        if block == 1:
            arrays["weights"][3, 1, 46] = -65520.0  # the least that rounds to infinity
            arrays["weights"][2, 1, 46] = 65519.0
        writer.write_block(block, **arrays)
    writer.finish()
    with pytest.raises(StoreError, match=r"-65504 and 65504.*got 65520 in member 19.*archive"):
        repack(tmp_path / "hot.zarr", tmp_path / "compact.zarr", tier="compact")
    assert zoo.open(tmp_path / "compact.zarr")["tiny"].member_ids.tolist() == list(range(16))
    repack(tmp_path / "hot.zarr", tmp_path / "archive.zarr", tier="archive")


# ---- blocks -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("size", "storage", "wanted"),
    [
        (64, TIERS["archive"], 64),
        (16, TIERS["archive"], 64),
        (16, TIERS["hot"], 16),
        (16, TIERS["compact"], 16),
        (128, TIERS["archive"], 128),
        (16, Storage(dtype="float16", compressor="blosc-lz4-bitshuffle"), 64),
    ],
)
def test_block_sizes(tmp_path, size, storage, wanted):
    store = tiny_population(tmp_path / "z.zarr", num_members=3, block_size=size)
    files = store["tiny"]._files
    assert repacked_spec(files, storage, block_size=0).block_size == wanted
    assert repacked_spec(files, storage, block_size=8).block_size == 8


def test_archives_of_large_networks_keep_small_blocks(tmp_path, monkeypatch):
    store = tiny_population(tmp_path / "z.zarr", num_members=3, block_size=2)
    monkeypatch.setattr("zoo.store.upkeep.repack.CHUNK_BYTES", 47 * 4 * 31)
    assert repacked_spec(store["tiny"]._files, TIERS["archive"], block_size=0).block_size == 16
    monkeypatch.setattr("zoo.store.upkeep.repack.CHUNK_BYTES", 47)
    assert repacked_spec(store["tiny"]._files, TIERS["archive"], block_size=0).block_size == 2


@pytest.mark.parametrize("size", [7, 16])
def test_other_blocks_hold_the_same_members(hot, archive, tmp_path, written, size):
    store = repack(archive.path, tmp_path / "z.zarr", tier="hot", block_size=size)
    assert store["tiny"].spec.num_blocks == -(-MEMBERS // size)
    np.testing.assert_array_equal(
        bits(store["tiny"].weights(checkpoint=1)), bits(written["weights"][:, 1])
    )
    assert store["tiny"].table.equals(hot["tiny"].table, null_equal=True)
    assert store.version != hot.version


# ---- resuming -----------------------------------------------------------------------------------
def test_an_interrupted_repacking_goes_on(hot, archive, tmp_path):
    seen = []

    def stop_at_second(name, block, num_blocks):
        seen.append((name, block, num_blocks))
        if len(seen) == 2:
            raise KeyboardInterrupt

    target = tmp_path / "z.zarr"
    with pytest.raises(KeyboardInterrupt):
        repack(hot.path, target, tier="archive", progress=stop_at_second)
    assert zoo.open(target)["tiny"].num_members == 64
    resumed = repack(hot.path, target, tier="archive", progress=lambda *call: seen.append(call))
    assert seen == [("tiny", 0, 2), ("tiny", 1, 2), ("tiny", 1, 2)]
    assert resumed.version == archive.version
    again = repack(hot.path, target, tier="archive", progress=lambda *call: seen.append(call))
    assert (len(seen), again.version) == (3, archive.version)


def test_a_target_of_something_else_is_refused(hot, archive, tmp_path):
    target = shutil.copytree(archive.path, tmp_path / "z.zarr")
    for changes in ({"tier": "hot"}, {"tier": "archive", "block_size": 16}):
        with pytest.raises(StoreError, match="another tier, another source or other blocks"):
            repack(hot.path, target, **changes)
    assert zoo.open(target).version == archive.version


def test_only_what_is_complete_and_intact(tmp_path, hot):
    writer = zoo.create(tmp_path / "part.zarr").create_population(tiny_spec())
    write_tiny_block(writer, 1)
    with pytest.raises(StoreError, match="'tiny' in .*part.zarr is not complete"):
        repack(tmp_path / "part.zarr", tmp_path / "z.zarr", tier="compact")
    broken = shutil.copytree(hot.path, tmp_path / "broken.zarr")
    chunk = broken / "populations/tiny/weights/c/1/2/0"
    data = bytearray(chunk.read_bytes())
    data[99] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(DamagedChunkError, match="members 64 to 99"):
        repack(broken, tmp_path / "z2.zarr", tier="archive")
    assert zoo.open(tmp_path / "z2.zarr")["tiny"].member_ids.tolist() == list(range(64))


def test_some_populations_of_a_zoo(tmp_path):
    for name, count in (("one", 3), ("two", 5)):
        tiny_population(tmp_path / "z.zarr", name=name, num_members=count)
    part = repack(tmp_path / "z.zarr", tmp_path / "p.zarr", tier="archive", populations=["two"])
    assert part.populations == ("two",)
    whole = repack(tmp_path / "z.zarr", tmp_path / "p.zarr", tier="archive")
    assert whole.populations == ("one", "two")
    with pytest.raises(UnknownNameError, match="Known: one, two"):
        repack(tmp_path / "z.zarr", tmp_path / "q.zarr", tier="hot", populations=["three"])


# ---- ragged -------------------------------------------------------------------------------------
def test_ragged_populations_change_tier_and_blocks(tmp_path):
    hot = ragged_population(tmp_path / "hot.zarr")
    archive = repack(hot.path, tmp_path / "archive.zarr", tier="archive", block_size=5)
    spec = archive["ragged"].spec
    assert (spec.block_size, spec.num_blocks) == (5, 8)
    assert spec.row_length == 47 + 4 * 51 < hot["ragged"].spec.row_length
    assert list(archive["ragged"].spaces) == [space.fingerprint for space in ragged_spaces()]
    for checkpoint in range(3):
        vectors = archive["ragged"].vectors(checkpoint=checkpoint)
        assert all(map(np.array_equal, vectors, hot["ragged"].vectors(checkpoint=checkpoint)))
    compact = repack(archive.path, tmp_path / "compact.zarr", tier="compact")
    halves = [v.astype(np.float16) for v in hot["ragged"].vectors([3, 4])]
    assert all(map(np.array_equal, compact["ragged"].vectors([3, 4]), halves))
    back = repack(archive.path, tmp_path / "back.zarr", tier="hot", block_size=16)
    assert back.version == hot.version
    for store in (archive, compact, back):
        assert check(store.path).ok
    assert repacked_spec(
        hot["ragged"]._files, TIERS["archive"], block_size=0
    ).block_size == 64  # fmt: skip


# ---- other readers ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "storage",
    [TIERS["archive"], TIERS["compact"], Storage(**vars(TIERS["archive"]) | {"dtype": "float16"})],
    ids=lambda storage: storage.tier,
)
def test_zarr_python_writes_the_same_bytes(tmp_path, storage):
    spec = tiny_spec(storage=storage, block_size=16)
    writer = zoo.create(tmp_path / "z.zarr").create_population(spec)
    for block in range(3):
        write_tiny_block(writer, block)
    folder = tmp_path / "z.zarr/populations/tiny/weights"
    ours = {p.relative_to(folder): p.read_bytes() for p in folder.glob("c/*/*/*")}
    assert len(ours) == 9
    array = zarr.open_array(folder, mode="r+")
    values = array[:]
    wanted = tiny_block(spec, range(40))["weights"].astype(storage.dtype)
    np.testing.assert_array_equal(values, wanted)
    shutil.rmtree(folder / "c")
    array[:] = values
    # The last block is short; zarr-python fills it up as we do.
    assert {p.relative_to(folder): p.read_bytes() for p in folder.glob("c/*/*/*")} == ours
    assert check(tmp_path / "z.zarr").ok
    np.testing.assert_array_equal(zoo.open(tmp_path / "z.zarr")["tiny"].weights(), wanted[:, -1])


def test_codecs_and_dtypes_on_disk(archive, compact):
    found = {}
    for store in (archive, compact):
        node = json.loads((store.path / "populations/tiny/weights/zarr.json").read_text())
        found[store["tiny"].spec.storage.tier] = node["data_type"], node["codecs"]
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    blosc = {"typesize": 4, "cname": "lz4", "clevel": 5, "shuffle": "bitshuffle", "blocksize": 0}
    packed = {"name": "blosc", "configuration": blosc}
    assert found["archive"] == ("float32", [little, packed, {"name": "crc32c"}])
    assert found["compact"] == ("float16", [little, {"name": "crc32c"}])


def test_xarray_reads_every_tier(archive, compact, written):
    for store, dtype in ((archive, np.float32), (compact, np.float16)):
        dataset = xarray.open_zarr(store.path / "populations/tiny")
        row = dataset["weights"].sel(member=99, checkpoint=2).values
        np.testing.assert_array_equal(row, written["weights"][99, 1].astype(dtype))


def test_archives_are_smaller(hot, archive):
    def size(store):
        return sum(p.stat().st_size for p in store.path.glob("populations/tiny/weights/c/*/*/*"))

    assert size(archive) < 0.95 * size(hot)


def test_every_bit_of_an_archive_counts(archive, tmp_path):
    path = shutil.copytree(archive.path, tmp_path / "z.zarr")
    chunk = path / "populations/tiny/weights/c/0/1/0"
    intact = chunk.read_bytes()
    for position in np.random.default_rng(0).integers(len(intact), size=100).tolist():
        data = bytearray(intact)
        data[position] ^= 1 << position % 8
        chunk.write_bytes(data)
        with pytest.raises(DamagedChunkError, match="CRC32C"):
            zoo.open(path)["tiny"].weights([20], checkpoint=1)


def test_an_archive_whose_metadata_lies(archive, tmp_path):
    path = shutil.copytree(archive.path, tmp_path / "z.zarr")
    node = path / "populations/tiny/weights/zarr.json"
    node.write_text(node.read_text().replace("47", "46"))
    with pytest.raises(DamagedChunkError, match="weights/c/0/2/0"):
        zoo.open(path)["tiny"].weights([0])


# ---- writing straight into a tier ---------------------------------------------------------------
@pytest.mark.parametrize("tier", ["archive", "compact"])
def test_populations_may_start_in_any_tier(tmp_path, tier):
    spec = tiny_spec(storage=TIERS[tier], num_members=20)
    writer = zoo.create(tmp_path / "z.zarr").create_population(spec)
    needed = writer.bytes_needed()
    for block in (0, 1, 1):  # the same numbers again give the same bytes
        write_tiny_block(writer, block)
    with pytest.raises(StoreError, match="already committed"):
        write_tiny_block(writer, 1, seed=1)
    used = sum(p.stat().st_blocks * 512 for p in tmp_path.rglob("*/c/**/*") if p.is_file())
    assert 0 < used < needed
    writer.finish()
    assert zoo.open(tmp_path / "z.zarr")["tiny"].is_complete
    assert replace(spec, storage=TIERS["hot"]) == tiny_spec(num_members=20)


# ---- command ------------------------------------------------------------------------------------
def test_repack_command(hot, archive, tmp_path, capsys):
    target = tmp_path / "z.zarr"
    assert main(["repack", str(hot.path), str(target), "--tier", "archive"]) == 0
    assert archive.version in capsys.readouterr().out
    assert main(["info", str(target)]) == 0
    told = capsys.readouterr().out
    assert f"archive tier, blocks of 64 members; repacked from {hot['tiny'].version}" in told
    assert main(["repack", str(hot.path), str(target), "--tier", "warm"]) == 2
    assert main(["repack", str(hot.path), str(target), "--tier", "hot"]) == 2
    assert "another tier" in capsys.readouterr().err


def test_ragged_rows_follow_the_block_size(tmp_path):
    spec = ragged_spec(block_size=4)
    assert spec.row_length == 47 + 3 * 51
    with pytest.raises(InvalidConfigError, match="Plan the rows again"):
        replace(spec, block_size=8)
