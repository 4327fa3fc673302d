"""Many writers, one owner per block, one coordinator."""

import fcntl
import multiprocessing
import os
import time
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.errors import StoreError
from zoo.store.disk.claims import block_claim, coordinator_claim
from zoo.store.upkeep.check import check
from zoo.testing import tiny_block, tiny_population, tiny_spec, write_tiny_block

SPEC = {"num_members": 128, "block_size": 8}
CONTEXT = multiprocessing.get_context("fork")


def start(function, *arguments):
    process = CONTEXT.Process(target=function, args=arguments)
    process.start()
    return process


def finished(processes) -> list[int]:
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def write_share(path: Path, blocks: list[int], seed: int, ready, outcomes: "Queue[str]") -> None:
    writer = zoo.create(path, exist_ok=True).writer("tiny")
    ready.wait(30)
    for block in blocks:
        try:
            write_tiny_block(writer, block, seed=seed)
            outcomes.put(f"{seed} wrote {block}")
        except StoreError as error:
            outcomes.put(f"{seed} refused {block}: {error}")
    outcomes.put("end")


def outcomes_of(queue: "Queue[str]", count: int) -> list[str]:
    found, ends = [], 0
    while ends < count:
        word = queue.get(timeout=60)
        ends += word == "end"
        found.append(word)
    return [word for word in found if word != "end"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same population by one writer."""
    return tiny_population(tmp_path_factory.mktemp("alone") / "z.zarr", **SPEC)


def test_four_writers_of_disjoint_blocks_are_bit_exact(tmp_path, alone):
    path = tmp_path / "z.zarr"
    writer = zoo.create(path).create_population(tiny_spec(**SPEC))
    ready, queue = CONTEXT.Event(), CONTEXT.Queue()
    shares = [list(range(i, 16, 4)) for i in range(4)]
    processes = [start(write_share, path, share, 0, ready, queue) for share in shares]
    ready.set()
    while len(writer.committed) < 8:  # the coordinator gathers while they write
        writer.compact()
    outcomes = outcomes_of(queue, 4)
    assert finished(processes) == [0] * 4
    assert sorted(outcomes) == sorted(f"0 wrote {block}" for block in range(16))
    writer.finish()
    assert check(path).ok
    assert zoo.open(path).version == alone.version
    for file in alone.path.rglob("*"):
        if file.is_file():
            assert (path / file.relative_to(alone.path)).read_bytes() == file.read_bytes(), file
    left = [p.name for p in path.rglob(".*")]
    assert left == []


def test_a_race_for_the_same_blocks_has_one_winner_each(tmp_path):
    """Two runs with other numbers want all blocks: every block is of one of them, whole."""
    path = tmp_path / "z.zarr"
    writer = zoo.create(path).create_population(tiny_spec(**SPEC))
    ready, queue = CONTEXT.Event(), CONTEXT.Queue()
    blocks = list(range(16))
    processes = [start(write_share, path, blocks, seed, ready, queue) for seed in (0, 1)]
    ready.set()
    outcomes = outcomes_of(queue, 2)
    assert finished(processes) == [0, 0]
    won = {int(w.split()[-1]): int(w[0]) for w in outcomes if " wrote " in w}
    refused = [w for w in outcomes if " refused " in w]
    assert sorted(won) == blocks
    assert len(refused) == 16
    for word in refused:
        assert "already committed with other numbers" in word or "is at work on it" in word, word
    assert check(path).ok
    weights = zoo.open(path)["tiny"].weights()
    for block in blocks:
        members = writer.members_of(block)
        wanted = tiny_block(writer.spec, members, seed=won[block])["weights"][:, -1]
        np.testing.assert_array_equal(weights[members.start : members.stop], wanted)


# ---- one owner ----------------------------------------------------------------------------------
def hold(path: Path, ready, stop) -> None:
    with block_claim(path, "tiny", 1):
        ready.set()
        stop.wait(60)


def test_a_second_owner_is_named_the_first_and_a_dead_one_owns_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.store.disk.claims.BLOCK_SECONDS", 0.1)
    path = tmp_path / "z.zarr"
    writer = zoo.create(path).create_population(tiny_spec())
    ready, stop = CONTEXT.Event(), CONTEXT.Event()
    owner = start(hold, path, ready, stop)
    ready.wait(30)
    with pytest.raises(StoreError, match=rf"block 1 of .*'tiny'.*process {owner.pid} on"):
        write_tiny_block(writer, 1)
    write_tiny_block(writer, 0)  # others go on
    owner.kill()
    owner.join()
    assert [p.name for p in (path / "_ledger/tiny").glob(".*1.claim.tmp")] == [".000001.claim.tmp"]
    assert check(path).populations[0].orphans == ()  # a claim is no data
    write_tiny_block(writer, 1)
    assert zoo.open(path)["tiny"].member_ids.tolist() == list(range(32))


def test_a_committed_block_needs_no_claim(tmp_path):
    writer = zoo.create(tmp_path / "z.zarr").create_population(tiny_spec())
    write_tiny_block(writer, 1)
    with block_claim(tmp_path / "z.zarr", "tiny", 1):
        write_tiny_block(writer, 1)
        with pytest.raises(StoreError, match="already committed with other numbers"):
            write_tiny_block(writer, 1, seed=1)
    writer.compact()
    assert not writer._ledger.path(1).exists()
    with pytest.raises(StoreError, match=r"Block 1 \(members 16 to 31\).*already committed"):
        write_tiny_block(writer, 1, seed=1)
    write_tiny_block(writer, 1)
    assert not writer._ledger.path(1).exists()


def test_the_late_owner_looks_again(tmp_path, monkeypatch):
    """Committed by another between the first look and the claim: nothing of it is overwritten."""
    path = tmp_path / "z.zarr"
    writer = zoo.create(path).create_population(tiny_spec())
    other = zoo.create(path, exist_ok=True).writer("tiny")
    claim = block_claim

    def late(*arguments):
        monkeypatch.setattr("zoo.store.writer.block_claim", claim)
        write_tiny_block(other, 1)
        return claim(*arguments)

    monkeypatch.setattr("zoo.store.writer.block_claim", late)
    with pytest.raises(StoreError, match="already committed with other numbers"):
        write_tiny_block(writer, 1, seed=1)
    assert check(path).ok
    wanted = tiny_block(tiny_spec(), range(16, 32))["weights"][:, -1]
    np.testing.assert_array_equal(zoo.open(path)["tiny"].weights(), wanted)


def test_two_owners_of_the_same_numbers_do_no_harm(tmp_path, alone):
    """As when a killed run is resumed while its workers are still writing."""
    path = tmp_path / "z.zarr"
    zoo.create(path).create_population(tiny_spec(**SPEC))
    ready, queue = CONTEXT.Event(), CONTEXT.Queue()
    blocks = list(range(16))
    processes = [start(write_share, path, blocks, 0, ready, queue) for _ in range(2)]
    ready.set()
    outcomes = outcomes_of(queue, 2)
    assert finished(processes) == [0, 0]
    assert sorted(outcomes) == sorted(f"0 wrote {block}" for block in blocks * 2)
    assert zoo.open(path).version == alone.version
    assert check(path).ok


def test_systems_without_locks_still_write(tmp_path, monkeypatch, caplog):
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    tiny_population(tmp_path / "z.zarr")
    assert "owners are not enforced" in caplog.text
    assert check(tmp_path / "z.zarr").ok


# ---- one coordinator ----------------------------------------------------------------------------
def create_same(path: Path, seed: int, ready, outcomes: "Queue[str]") -> None:
    ready.wait(30)
    try:
        spec = tiny_spec(recipe={"seed": seed})
        zoo.create(path, exist_ok=True).create_population(spec)
        outcomes.put(f"{seed} made it")
    except StoreError as error:
        outcomes.put(f"{seed} refused: {error}")
    outcomes.put("end")


def test_one_creator_wins(tmp_path):
    tiny_spec()  # traced once, here, and not by every process
    for attempt in range(5):
        path = tmp_path / f"{attempt}.zarr"
        ready, queue = CONTEXT.Event(), CONTEXT.Queue()
        processes = [start(create_same, path, seed, ready, queue) for seed in range(3)]
        ready.set()
        outcomes = outcomes_of(queue, 3)
        assert finished(processes) == [0] * 3
        (winner,) = [word for word in outcomes if "made it" in word]
        assert sum("'tiny' already exists" in word for word in outcomes) == 2, outcomes
        assert zoo.open(path)["tiny"].recipe == {"seed": int(winner[0])}
        assert check(path).ok


def coordinate(path: Path, ready, stop) -> None:
    with coordinator_claim(path):
        ready.set()
        stop.wait(60)


def test_one_coordinator_at_a_time(tmp_path, monkeypatch):
    path = tmp_path / "z.zarr"
    writer = tiny_population(path, num_members=32).writer("tiny")
    ready, stop = CONTEXT.Event(), CONTEXT.Event()
    other = start(coordinate, path, ready, stop)
    ready.wait(30)
    with (
        pytest.raises(StoreError, match=rf"process {other.pid} on"),
        coordinator_claim(path, patience=0.1),
    ):
        pass
    started = time.monotonic()
    stop.set()
    writer.grow(48)  # waits its turn
    assert time.monotonic() - started < 30
    assert finished([other]) == [0]


def test_claims_nest_within_a_thread_and_leave_no_file(tmp_path):
    path = tmp_path / "z.zarr"
    zoo.create(path)
    with coordinator_claim(path), coordinator_claim(path, patience=0.0):
        assert (path / "_ledger/.coordinator.claim.tmp").is_file()
    assert list((path / "_ledger").iterdir()) == []


# ---- reading only -------------------------------------------------------------------------------
def tree(root: Path) -> dict[str, tuple[int, int, bytes]]:
    found = {}
    for path in [root, *root.rglob("*")]:
        status = path.stat()
        data = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (status.st_mtime_ns, status.st_mode, data)
    return found


def test_readers_never_write(tmp_path):
    path = tmp_path / "z.zarr"
    tiny_population(path)
    folders = [path, *(p for p in path.rglob("*") if p.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        before = tree(path)
        store = zoo.open(path)
        population = store["tiny"]
        assert population.where("seed > 1003").weights().shape == (36, 47)
        for io in ("ram", "pread", "mmap"):
            population.reader(io).gather(np.array([3, 39]), np.array([0, 2]))
        assert len(store.table) == 40
        assert population.split()["train"].size == 28
        assert store.version
        assert check(path).ok
        assert tree(path) == before
        if os.geteuid() != 0:
            with pytest.raises(PermissionError):
                zoo.create(path, exist_ok=True).write_table()
    finally:
        for folder in folders:
            folder.chmod(0o755)
