import gc
import json
import os
import resource
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

import zoo
from zoo.errors import DamagedChunkError, StoreError
from zoo.store.disk.chunks import ChunkRecord
from zoo.store.disk.ledger import LedgerEntry
from zoo.store.disk.metadata import consolidate
from zoo.store.reading.gather import RowReader
from zoo.store.upkeep.check import check
from zoo.testing import tiny_block, tiny_population, tiny_spec, write_tiny_block

MODES = ("ram", "pread", "mmap")
CHUNK = "populations/tiny/weights/c/1/2/0"  # members 16 to 31 at epoch 5


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "zoo.zarr"
    tiny_population(path, diverged=(7,))
    return path


@pytest.fixture
def path(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "zoo.zarr")


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 0b100
    file.write_bytes(data)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def swap_with_sibling(file: Path) -> None:
    file.write_bytes((file.parents[1] / "1" / "0").read_bytes())


DAMAGE = {
    "bit flip": (lambda file: flip(file, 1234), "CRC32C"),
    "bit flip in the trailer": (lambda file: flip(file, -1), "its trailer says"),
    "truncation": (truncate, "bytes where the ledger says 3012"),
    "growth": (lambda file: file.write_bytes(file.read_bytes() + b"x"), "3013 bytes"),
    "loss": (lambda file: file.unlink(), "the file is missing"),
    "emptiness": (lambda file: file.write_bytes(b""), "0 bytes"),
    "another valid chunk": (swap_with_sibling, "the ledger says"),
}


@pytest.mark.parametrize("io", MODES)
@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_and_never_read(path, kind, io):
    harm, reason = DAMAGE[kind]
    harm(path / CHUNK)
    population = zoo.open(path)["tiny"]
    reader = population.reader(io)
    with pytest.raises(DamagedChunkError) as caught:
        reader.gather(np.array([3, 16]), np.array([2, 2]))
    message = str(caught.value)
    for part in (reason, CHUNK, "members 16 to 31", "'tiny'", "epoch 5", "'weights'", "zoo check"):
        assert part in message
    good = reader.gather(np.array([3, 16, 32]), np.array([2, 1, 2]))
    wanted = tiny_block(tiny_spec(), [3, 16, 32])["weights"]
    np.testing.assert_array_equal(good, wanted[[0, 1, 2], [2, 1, 2]])
    with pytest.raises(DamagedChunkError):
        population.weights()


@pytest.mark.parametrize("kind", DAMAGE)
def test_check_lists_the_damage(path, kind):
    harm, reason = DAMAGE[kind]
    harm(path / CHUNK)
    report = check(path)
    assert not report.ok
    (found,) = report.damaged
    assert (found.population, found.array) == ("tiny", "weights")
    assert f"populations/tiny/{found.chunk}" == CHUNK
    assert (found.members, found.epochs) == (tuple(range(16, 32)), (5,))
    assert reason in found.reason
    assert "members 16 to 31, epochs 5" in str(found)


def test_every_bit_counts(path):
    rng = np.random.default_rng(0)
    file = path / CHUNK
    intact = file.read_bytes()
    for position in rng.integers(len(intact), size=100).tolist():
        flip(file, position)
        with pytest.raises(DamagedChunkError):
            zoo.open(path)["tiny"].weights([20])
        file.write_bytes(intact)
    assert check(path).ok


def test_damaged_metric_and_column(path):
    flip(path / "populations/tiny/metrics/test_loss/c/0/0", 5)
    flip(path / "populations/tiny/columns/seed/c/2", 5)
    population = zoo.open(path)["tiny"]
    with pytest.raises(DamagedChunkError, match="'metrics/test_loss' of members 0 to 15.*epochs 0"):
        population.metric("test_loss")
    with pytest.raises(DamagedChunkError, match="'columns/seed' of members 32 to 39"):
        _ = population.table
    assert {damage.array for damage in check(path).damaged} == {"metrics/test_loss", "columns/seed"}


def loosen(path: Path) -> None:
    """Put the gathered ledger's entries into single files, as before finishing."""
    gathered = path / "_ledger/tiny.jsonl"
    (path / "_ledger/tiny").mkdir(exist_ok=True)
    for line in gathered.read_text().splitlines()[1:]:
        entry = LedgerEntry.from_json(line)
        (path / f"_ledger/tiny/{entry.block:06d}.json").write_text(entry.to_json())
    gathered.unlink()


@pytest.mark.parametrize("harm", [truncate, lambda file: flip(file, 200)])
def test_damaged_ledger_entry(path, harm):
    loosen(path)
    harm(path / "_ledger/tiny/000001.json")
    with pytest.raises(DamagedChunkError, match=r"Ledger entry .*000001\.json"):
        zoo.open(path)["tiny"].weights([20])
    report = check(path)
    assert [damage.array for damage in report.damaged] == ["ledger"]
    assert report.damaged[0].members == tuple(range(16, 32))
    assert report.populations[0].lost_cells == tuple(
        (member, epoch) for member in range(16, 32) for epoch in (0, 2, 5)
    )


def test_moved_ledger_entry(path):
    loosen(path)
    shutil.copy(path / "_ledger/tiny/000000.json", path / "_ledger/tiny/000001.json")
    with pytest.raises(DamagedChunkError, match="was moved"):
        zoo.open(path)["tiny"].weights([20])


def test_a_damaged_line_loses_its_block_alone(path):
    """Every byte of the second block's line in turn: the others are read, the damage is named."""
    wanted = tiny_block(tiny_spec(), range(40))["weights"]
    file = path / "_ledger/tiny.jsonl"
    intact = file.read_bytes()
    lines = intact.split(b"\n")
    start = len(lines[0]) + 1 + len(lines[1]) + 1
    for position in range(start, start + len(lines[2]), 37):
        flip(file, position)
        population = zoo.open(path)["tiny"]
        assert population.is_complete
        np.testing.assert_array_equal(
            population.weights([15, 39], checkpoint=0), wanted[[15, 39], 0]
        )
        with pytest.raises(DamagedChunkError, match=r"tiny\.jsonl.*nothing of block 1"):
            population.weights([20])
        (found,) = check(path).damaged
        assert (found.array, found.block) == ("ledger", 1)
        file.write_bytes(intact)


def test_every_byte_of_the_gathered_ledger_counts(path):
    file = path / "_ledger/tiny.jsonl"
    intact = file.read_bytes()
    ends = [i for i, byte in enumerate(intact) if byte == ord("\n")]
    head = range(0, ends[0], 7)
    for position in (*head, *ends):
        flip(file, position)
        assert zoo.open(path)["tiny"].is_complete
        assert not check(path).ok
        file.write_bytes(intact)
    file.write_bytes(intact[: ends[1] + 1])  # cut at the end of a line
    assert zoo.open(path)["tiny"].is_complete
    assert {damage.block for damage in check(path).damaged} == {1, 2}


def test_the_two_ledgers_must_agree(path):
    """A block in both is the trace of a kill while gathering; with other numbers it is damage."""
    gathered = (path / "_ledger/tiny.jsonl").read_bytes()
    loosen(path)
    (path / "_ledger/tiny.jsonl").write_bytes(gathered)
    assert check(path).ok
    assert zoo.open(path)["tiny"].is_complete
    single = path / "_ledger/tiny/000001.json"
    entry = LedgerEntry.from_json(single.read_text())
    chunks = entry.chunks | {"weights/c/1/0/0": ChunkRecord(3012, 1)}
    single.write_text(replace(entry, chunks=chunks).to_json())
    with pytest.raises(DamagedChunkError, match="they differ"):
        zoo.open(path)["tiny"].weights([20])
    assert [damage.block for damage in check(path).damaged] == [1]


def test_damaged_split(path):
    file = path / "populations/tiny/splits/default/c/0"
    flip(file, 3)
    with pytest.raises(DamagedChunkError, match="Split 'default'.*CRC32C"):
        zoo.open(path)["tiny"].split()
    # The checksum made right again; only the frozen hash can tell.
    array = zarr.open_array(file.parents[1], mode="r+")
    array[:] = np.zeros(40, dtype=np.int8)
    with pytest.raises(DamagedChunkError, match="SHA-256"):
        zoo.open(path)["tiny"].split()
    report = check(path)
    assert not report.ok
    assert report.populations[0].splits[0][0] == "default"


def test_metadata_that_lies(path):
    meta = path / "populations/tiny/zarr.json"
    intact = meta.read_text()
    harms = [('"num_members": 40', '"num_members": 0'), ('"size": 5', '"size": 4'), (None, "")]
    for old, new in harms:
        harm = intact.replace(old, new, 1) if old else intact[:-40]
        assert harm != intact
        meta.write_text(harm)
        with pytest.raises(StoreError, match="attributes of population 'tiny'"):
            zoo.open(path)["tiny"]
    meta.write_text(intact)
    array = path / "populations/tiny/weights/zarr.json"
    array.write_text(array.read_text().replace("47", "46"))
    with pytest.raises(DamagedChunkError, match="metadata asks for 2948"):
        zoo.open(path)["tiny"].weights([0])
    array.unlink()
    with pytest.raises(StoreError, match="metadata of a Zarr v3 array"):
        zoo.open(path)["tiny"].weights([0])


def test_checkpoint_axis_that_lies(path):
    zarr.open_array(path / "populations/tiny/checkpoint", mode="r+")[:] = np.array([0, 2, 6])
    report = check(path)
    assert not report.ok
    (fault,) = report.populations[0].faults
    assert "(0, 2, 5), but it holds other epochs" in fault


# ---- kills --------------------------------------------------------------------------------------
def test_what_a_kill_leaves_is_ignored_listed_and_cleaned(tmp_path, pristine):
    path = tmp_path / "killed.zarr"
    writer = zoo.create(path).create_population(tiny_spec())
    write_tiny_block(writer, 0, diverged=(7,))
    # Chunks of block 1 in place, no ledger entry; a temporary file half written.
    for epoch in range(2):
        target = path / f"populations/tiny/weights/c/1/{epoch}/0"
        target.parent.mkdir(parents=True)
        target.write_bytes(b"half a chunk")
    (path / "populations/tiny/weights/c/1/1/.0.99.tmp").write_bytes(b"quarter")
    (path / "_ledger/tiny/.000001.json.99.tmp").write_bytes(b"{")
    (path / "populations/.tiny.99.tmp").mkdir()
    population = zoo.open(path)["tiny"]
    assert zoo.open(path).populations == ("tiny",)
    assert population.member_ids.tolist() == list(range(16))
    report = check(path)
    assert report.ok
    assert [orphan.name for orphan in report.orphans] == [".tiny.99.tmp"]
    tiny = report.populations[0]
    assert (tiny.blocks_committed, tiny.blocks_planned) == (1, 3)
    assert tiny.missing_members == tuple(range(16, 40))
    names = [str(orphan.relative_to(path)) for orphan in tiny.orphans]
    assert names == [
        "_ledger/tiny/.000001.json.99.tmp",
        "populations/tiny/weights/c/1/0/0",
        "populations/tiny/weights/c/1/1/.0.99.tmp",
        "populations/tiny/weights/c/1/1/0",
    ]
    writer = zoo.create(path, exist_ok=True).writer("tiny")
    for block in sorted(set(range(3)) - writer.committed):
        write_tiny_block(writer, block, diverged=(7,))
    writer.finish()
    report = check(path)
    assert (report.ok, report.orphans, report.populations[0].orphans) == (True, (), ())
    assert zoo.open(path).version == zoo.open(pristine).version


@pytest.mark.parametrize("renames", [0, 1, 4, 13])
def test_kill_at_any_rename(tmp_path, renames, pristine):
    path = tmp_path / "z.zarr"
    writer = zoo.create(path).create_population(tiny_spec())
    write_tiny_block(writer, 0, diverged=(7,))
    child = os.fork()
    if child == 0:
        count = 0
        replace = Path.replace

        def die(self, target):
            nonlocal count
            if count == renames:
                os._exit(9)
            count += 1
            return replace(self, target)

        Path.replace = die
        write_tiny_block(writer, 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert writer.committed == {0}
    assert zoo.open(path)["tiny"].member_ids.tolist() == list(range(16))
    assert check(path).ok
    for block in (1, 2):
        write_tiny_block(writer, block, diverged=(7,))
    writer.finish()
    assert check(path).populations[0].orphans == ()
    assert zoo.open(path).version == zoo.open(pristine).version


# ---- check --------------------------------------------------------------------------------------
def test_check_of_a_sound_zoo(path):
    report = check(path)
    assert report.ok
    tiny = report.populations[0]
    files = [f for f in path.glob("populations/tiny/**/c/**/*") if f.is_file()]
    others = [f for f in files if "splits" in f.parts or "checkpoint" in f.parts]
    assert report.num_bytes == sum(f.stat().st_size for f in files if f not in others)
    assert (tiny.damaged, tiny.orphans, tiny.splits, tiny.not_finite) == ((), (), (), ())
    assert tiny.missing_members == ()


def test_check_lists_broken_weights_of_sound_members(tmp_path):
    writer = zoo.create(tmp_path / "z.zarr").create_population(tiny_spec(num_members=16))
    arrays = tiny_block(writer.spec, range(16), diverged=(4,))
    arrays["weights"][9, 1, 5] = np.inf
    arrays["weights"][3, 0, :] = np.finfo(np.float32).max  # large is not infinite
    writer.write_block(0, **arrays)
    report = check(tmp_path / "z.zarr")
    assert report.populations[0].not_finite == ((9, 2),)
    assert not report.ok


# ---- reading ------------------------------------------------------------------------------------
@pytest.mark.parametrize("io", MODES)
def test_few_handles_suffice(path, io, monkeypatch):
    monkeypatch.setattr("zoo.store.reading.sources._handle_limit", lambda: 2)
    population = zoo.open(path)["tiny"]
    reader = RowReader(population._files, io=io)
    rng = np.random.default_rng(0)
    wanted = tiny_block(tiny_spec(), range(40), diverged=(7,))["weights"]
    for count in (1, 5, 64):
        members, checkpoints = rng.integers(40, size=count), rng.integers(3, size=count)
        got = reader.gather(members, checkpoints)
        np.testing.assert_array_equal(got, wanted[members, checkpoints])


def test_handles_stay_below_the_limit(path):
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    reader = zoo.open(path)["tiny"].reader("pread")
    reader.gather(np.arange(40), np.zeros(40, dtype=np.int64))
    assert len(os.listdir("/proc/self/fd")) - before == 3 <= soft // 2  # noqa: PTH208
    del reader


@pytest.mark.parametrize("io", MODES)
def test_threads_share_a_reader(path, io):
    reader = RowReader(zoo.open(path)["tiny"]._files, io=io)
    wanted = tiny_block(tiny_spec(), range(40), diverged=(7,))["weights"]
    results: dict[int, bool] = {}

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        same = True
        for _ in range(20):
            members, checkpoints = rng.integers(40, size=9), rng.integers(3, size=9)
            got = reader.gather(members, checkpoints)
            same &= np.array_equal(got, wanted[members, checkpoints], equal_nan=True)
        results[seed] = same

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(4), True)


@pytest.mark.parametrize("io", MODES)
def test_a_forked_child_reads_with_files_of_its_own(path, io):
    reader = zoo.open(path)["tiny"].reader(io)
    wanted = reader.gather(np.array([1, 20]), np.array([0, 2]))
    source = reader._source
    child = os.fork()
    if child == 0:
        got = reader.gather(np.array([1, 20]), np.array([0, 2]))
        os._exit(0 if np.array_equal(got, wanted) and reader._source is not source else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(reader.gather(np.array([1, 20]), np.array([0, 2])), wanted)


def recode(path: Path, *, dtype: str, compressors: list[object]) -> None:
    """Store the weights again with other codecs, and tell the ledger."""
    array = path / "populations/tiny/weights"
    old = zarr.open_array(array, mode="r")
    values, chunks, names = old[:], old.chunks, old.metadata.dimension_names
    shutil.rmtree(array)
    new = zarr.create_array(
        array,
        shape=values.shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=np.nan,
        filters=None,
        compressors=[*compressors, Crc32cCodec()],
        dimension_names=names,
    )
    new[:] = values.astype(dtype)
    loosen(path)
    for file in (path / "_ledger/tiny").iterdir():
        entry = LedgerEntry.from_json(file.read_text())
        for key in entry.chunks:
            data = (path / "populations/tiny" / key).read_bytes()
            entry.chunks[key] = ChunkRecord(len(data), int.from_bytes(data[-4:], "little"))
        file.write_text(entry.to_json())
    consolidate(path / "populations/tiny")
    consolidate(path)


@pytest.mark.parametrize("io", MODES)
def test_other_codecs_are_read_by_zarr(path, io):
    recode(path, dtype="float32", compressors=[ZstdCodec(level=1)])
    population = zoo.open(path)["tiny"]
    wanted = tiny_block(tiny_spec(), range(40), diverged=(7,))["weights"]
    members, checkpoints = np.array([39, 0, 17, 17, 7]), np.array([2, 0, 1, 2, 2])
    got = population.reader(io).gather(members, checkpoints)
    np.testing.assert_array_equal(got, wanted[members, checkpoints])
    assert check(path).ok
    with pytest.raises(StoreError, match="other codecs"):
        zoo.create(path, exist_ok=True).writer("tiny")
    flip(path / CHUNK, 20)
    with pytest.raises(DamagedChunkError, match="CRC32C"):
        RowReader(population._files, io=io).gather(np.array([20]), np.array([2]))


@pytest.mark.parametrize("io", MODES)
def test_half_precision_archives(path, io):
    recode(path, dtype="float16", compressors=[])
    wanted = tiny_block(tiny_spec(), range(40), diverged=(7,))["weights"]
    members, checkpoints = np.array([39, 0, 17, 17, 7]), np.array([2, 0, 1, 2, 2])
    got = zoo.open(path)["tiny"].reader(io).gather(members, checkpoints)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, wanted[members, checkpoints].astype("float16"))
    assert check(path).ok


def test_ledger_holds_no_times(path, tmp_path):
    entry = json.loads((path / "_ledger/tiny.jsonl").read_text().splitlines()[-1])
    assert set(entry) == {"block", "chunks", "crc32c", "members", "population"}
    assert entry["members"] == [32, 40]
    assert len(entry["chunks"]) == 3 + 4 + 6 + 1
    assert entry["chunks"]["weights/c/2/0/0"][0] == 16 * 47 * 4 + 4
