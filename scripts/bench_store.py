"""Measure the store side by side with what it is compared to, and say which demands are met.

All contenders of a section take turns on the same numbers in one run, so that a busy machine slows
them alike; medians over the rounds, and the ratios of these, are what counts. Random numbers lie in
a temporary folder, about 1 GB for each contender that has files of its own. Peers with a file per
network hold fewer members.
"""

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unittest import mock

import numpy as np
from jsonargparse import auto_cli
from store_peers import PEERS, Load, Peer
from torch.utils.data import DataLoader
from tqdm import tqdm

import zoo
from zoo.layout import Tier
from zoo.loading import WeightLoader
from zoo.sampling import IndexBatchSampler
from zoo.store.reading.gather import Io
from zoo.store.upkeep.check import check
from zoo.store.upkeep.repack import repack

Section = Literal["gather", "cold", "loader", "scan", "write", "disk", "check"]
Turn = Callable[[], float]
SECTIONS: tuple[Section, ...] = ("gather", "cold", "loader", "scan", "write", "disk", "check")
MODES: tuple[Io, ...] = ("ram", "mmap", "pread")
FLOOR = "np.memmap"
OWN = tuple(f"zoo {mode}" for mode in MODES)
COLD = ("zoo pread", FLOOR, "LMDB", "HDF5 contiguous", "torch folders")
GATHER_FLOORS = {
    FLOOR: 0.5,
    "zarr items": 100.0,
    "zarr vindex": 100.0,
    "safetensors/model": 30.0,
    "torch folders": 200.0,
    "LMDB": 1.2,
}
COLD_FLOORS = {"LMDB": 3.0, "HDF5 contiguous": 3.0, "torch folders": 20.0}
CEILINGS: dict[Tier, float | None] = {"compact": 0.52, "archive": None}


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How measurements are made.

    Parameters
    ----------
    rows
        Rows per gather, items per batch.
    rounds
        Times each contender has its turn; medians are reported.
    seconds
        Length of a turn.
    clock
        ``wall`` is what a user waits; ``cpu`` is the process's own time, for ratios on a machine
        that is busy with other things. Cold reads are timed by the wall in any case.
    """

    rows: int = 64
    rounds: int = 15
    seconds: float = 0.1
    clock: Literal["wall", "cpu"] = "wall"


def main(
    *,
    sections: tuple[Section, ...] = SECTIONS,
    members: tuple[int, ...] = (10_000, 50_000),
    networks: int = 50_000,
    parameters: int = 5_018,
    few: int = 2_000,
    timing: Timing | None = None,
    folder: Path | None = None,
    seed: int = 0,
) -> None:
    """Write populations of noise and measure on them.

    Parameters
    ----------
    sections
        What to measure.
    members
        Sizes of the populations to gather from; all other sections take the first.
    networks
        Members times checkpoints of each population.
    parameters
        Numbers per network.
    few
        Members that peers with a file per network hold, at most.
    timing
        How measurements are made.
    folder
        Where the temporary folder goes; the system's default otherwise.
    seed
        Of the numbers and of the rows.
    """
    for size in members if "gather" in sections else members[:1]:
        load = Load(
            members=size,
            checkpoints=max(networks // size, 1),
            parameters=parameters,
            few=few,
            seed=seed,
        )
        asked = sections if size == members[0] else ("gather",)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            bench = Bench(Path(scratch), load, timing or Timing())
            for section in SECTIONS:
                if section in asked:
                    getattr(bench, section)()


class Bench:
    """Contenders that hold the same networks; each method measures one section and prints it."""

    def __init__(self, folder: Path, load: Load, timing: Timing) -> None:
        self.folder = folder
        self.load = load
        self.timing = timing
        self.peers = write_all(folder, load)
        rng = np.random.Generator(np.random.PCG64([load.seed, 1]))
        size = (512, timing.rows)
        self.pairs = (
            rng.integers(load.members, size=size),
            rng.integers(load.checkpoints, size=size),
        )
        self.count = 0
        self.clock = time.process_time if timing.clock == "cpu" else time.perf_counter
        busy = os.getloadavg()[0] / (os.cpu_count() or 1)
        shape = " x ".join(f"{number:,}" for number in load.shape)
        print(f"\n# {shape} float32, blocks of {load.spec.block_size:,} members")
        print(f"# in files per network: {min(load.few, load.members):,} members")
        print(f"# {timing.clock} clock; {busy:.1f} processes waiting for each processor")

    def gather(self) -> None:
        """Random rows, page cache warm."""
        self._warm(self.peers)
        rates = self._rates({name: self._random_rows(name) for name in self.peers})
        report(f"{self.timing.rows} random rows, warm (rows/s)", rates, FLOOR)
        chosen = f"zoo {self._auto()}"
        for own in dict.fromkeys([chosen, "zoo mmap"]):
            note = ', as io="auto"' if own == chosen else ""
            for peer, floor in GATHER_FLOORS.items():
                demand(f"{own} / {peer}{note}", rates[own] / rates[peer], floor)

    def cold(self) -> None:
        """Random rows that the page cache does not hold; checksums were verified before."""
        self._warm(COLD)
        self.peers["zoo mmap"].open()  # the system keeps pages that are mapped anywhere
        os.sync()

        def chill(name: str) -> None:
            if name != "zoo pread":  # what is mapped or buffered leaves the cache when closed
                self.peers[name].open()
            for path in self.peers[name].files:
                drop(path)

        self.clock, asked = time.perf_counter, self.clock
        turns = {name: self._random_rows(name, gathers=2) for name in COLD}
        rates = self._rates(turns, before=chill)
        self.clock = asked
        report(f"{self.timing.rows} random rows, cold (rows/s)", rates, FLOOR)
        for peer, floor in COLD_FLOORS.items():
            demand(f"zoo pread / {peer}", rates["zoo pread"] / rates[peer], floor)

    def loader(self) -> None:
        """Shuffled batches end to end, as a training loop meets them."""
        self._warm([FLOOR, *OWN])
        turns = {FLOOR: self._random_rows(FLOOR)}
        members, size = zoo.open(self.peers["zoo ram"].path)["bench"], self.timing.rows
        for io in MODES:
            dataset = zoo.ZooDataset(members, target="test_accuracy", checkpoint="all", io=io)
            dataset[np.arange(0, len(dataset), 16)]
            sampler = IndexBatchSampler(len(dataset), size, shuffle=True, seed=0)
            for ahead in (0, 2):
                loader = WeightLoader(dataset, sampler, prefetch=ahead)
                turns[f"WeightLoader {io}, {ahead} ahead"] = self._batches(loader)
            plain = DataLoader(dataset, batch_size=size, shuffle=True)
            turns[f"torch DataLoader {io}"] = self._batches(plain)
        rates = self._rates(turns)
        report(f"shuffled batches of {size} (models/s)", rates, FLOOR)
        for name in (f"WeightLoader {io}, 0 ahead" for io in MODES):
            demand(f"{name}, models/s", rates[name], 20_000)
            demand(f"{name} / {FLOOR}", rates[name] / rates[FLOOR], 0.2)

    def scan(self) -> None:
        """Read all rows in the order in which chunks hold them."""
        self._warm([FLOOR, *OWN])
        rates = self._rates({name: self._scan(name) for name in (FLOOR, *OWN)})
        report("sequential scan, block by block (MB/s)", rates, FLOOR, unit=1e6)
        for own in OWN:
            demand(f"{own} / {FLOOR}", rates[own] / rates[FLOOR], 0.4)

    def write(self) -> None:
        """Commit blocks, CRC and rename included, with and without waiting for the disk."""
        plain = {name: self._writer(name) for name in (FLOOR, "zoo")}
        synced = {f"{name}, synced": self._writer(name, is_synced=True) for name in plain}
        rounds = min(self.load.spec.num_blocks - 1, self.timing.rounds)
        rates = self._rates(plain | synced, before=lambda _: os.sync(), rounds=rounds)
        report("writing block by block (MB/s)", rates, FLOOR, unit=1e6)
        demand(f"zoo / {FLOOR}", rates["zoo"] / rates[FLOOR], 0.8)
        demand("the same, both synced", rates["zoo, synced"] / rates[f"{FLOOR}, synced"], None)

    def disk(self) -> None:
        """Bytes of the disk's blocks over raw float32 numbers."""
        os.sync()
        print("\n## bytes on disk / raw bytes")
        own = self.peers["zoo ram"]
        demand("zoo", own.disk_bytes / own.raw_bytes, 1.03, is_ceiling=True)
        for tier, ceiling in CEILINGS.items():
            packed = PEERS["zoo ram"](self.folder / f"{tier}.zarr", self.load)
            repack(own.path, packed.path, tier=tier)
            ratio = packed.disk_bytes / packed.raw_bytes
            demand(f"zoo, {tier} tier", ratio, ceiling, is_ceiling=True)
        for name in ("LMDB", "HDF5 contiguous", "safetensors/model", "torch folders"):
            peer = self.peers[name]
            demand(name, peer.disk_bytes / peer.raw_bytes, None)

    def check(self) -> None:
        """Verify a whole zoo."""
        path, rates = self.peers["zoo ram"].path, []
        for _ in range(3):
            start = time.process_time()
            size = check(path).num_bytes
            rates.append(size / (time.process_time() - start))
        print("\n## zoo check")
        demand("MB per second of process time", statistics.median(rates) / 1e6, 300)

    # ---- turns --------------------------------------------------------------------------------
    def _random_rows(self, name: str, *, gathers: int | None = None) -> Turn:
        """Return a turn that gathers until the time is over, or a number of times."""
        peer, (members, checkpoints) = self.peers[name], self.pairs

        def turn() -> float:
            done, end = 0, self.clock() + self.timing.seconds
            while done < gathers if gathers else self.clock() < end:
                self.count += 1
                at = self.count % len(members)
                peer.gather(members[at] % peer.members, checkpoints[at])
                done += 1
            return done * self.timing.rows

        return turn

    def _auto(self) -> str:
        reader = zoo.open(self.peers["zoo ram"].path)["bench"].reader("auto")
        return str(getattr(reader, "io", "unknown"))

    def _batches(self, loader: Iterable[zoo.WeightBatch]) -> Turn:
        def turn() -> float:
            done, end = 0, self.clock() + 2 * self.timing.seconds
            for batch in loader:
                done += len(batch.member)
                if self.clock() > end:
                    break
            return done

        return turn

    def _scan(self, name: str) -> Turn:
        peer, spec = self.peers[name], self.load.spec
        chunks = itertools.cycle(
            itertools.product(range(spec.num_blocks), range(self.load.checkpoints))
        )

        def turn() -> float:
            done, end = 0, self.clock() + self.timing.seconds
            while self.clock() < end:
                block, checkpoint = next(chunks)
                ids = np.asarray(spec.members_of(block))
                done += peer.gather(ids, np.full(len(ids), checkpoint)).nbytes
            return done

        return turn

    def _writer(self, name: str, *, is_synced: bool = False) -> Turn:
        """Return a turn that writes the next block; the numbers are always those of the first."""
        kind = PEERS["zoo ram" if name == "zoo" else name]
        peer = kind(self.folder / f"written by {name}, {is_synced}", self.load)
        peer.create()
        _, values = next(self.load.blocks())
        ids = map(self.load.spec.members_of, itertools.count())

        def turn() -> float:
            # What a format costs is one question, what the disk costs another.
            with nullcontext() if is_synced else mock.patch("os.fsync", new=no_sync):
                peer.write(next(ids), values)
            if is_synced and name == FLOOR:
                sync(peer.path)
            return values.nbytes

        return turn

    def _warm(self, names: Iterable[str]) -> None:
        """Touch every chunk, so that it is verified, mapped or kept."""
        first = np.arange(0, self.load.members, 16)
        for name, checkpoint in itertools.product(names, range(self.load.checkpoints)):
            ids = first[first < self.peers[name].members]
            for some in np.array_split(ids, -(-len(ids) // 64)):
                self.peers[name].gather(some, np.full(len(some), checkpoint))

    def _rates(
        self,
        turns: dict[str, Turn],
        *,
        before: Callable[[str], object] = lambda name: None,
        rounds: int = 0,
    ) -> dict[str, float]:
        """Return the median of what each turn did per second, turns interleaved."""
        rates: dict[str, list[float]] = {name: [] for name in turns}
        for _ in tqdm(range(rounds or self.timing.rounds), leave=False, unit="round"):
            for name, turn in turns.items():
                before(name)
                start = self.clock()
                done = turn()
                rates[name].append(done / (self.clock() - start))
        return {name: statistics.median(each) for name, each in rates.items()}


def write_all(folder: Path, load: Load) -> dict[str, Peer]:
    """Write the same networks for all contenders, and see that each reads them back."""
    peers: dict[str, Peer] = {}
    for name, kind in PEERS.items():
        is_zoo = name.startswith(("zoo", "zarr"))
        peers[name] = kind(folder / ("zoo.zarr" if is_zoo else name.replace("/", " per ")), load)
    writers = {peer.path: peer for peer in reversed(peers.values())}
    writers[peers["zoo ram"].path] = peers["zoo ram"]
    for peer in writers.values():
        peer.create()
    for ids, values in tqdm(load.blocks(), total=load.spec.num_blocks, leave=False, unit="block"):
        for peer in writers.values():
            peer.write(ids, values)
    rows = np.arange(0, min(load.few, load.members), 97)
    pairs = rows, np.full(len(rows), load.checkpoints - 1)
    for name, peer in peers.items():
        peer.open()
        if not np.array_equal(peer.gather(*pairs), peers[FLOOR].gather(*pairs)):
            raise SystemExit(f"{name} reads other numbers than {FLOOR}.")
    return peers


def drop(path: Path) -> None:
    """Take a file out of the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def no_sync(descriptor: int) -> None:
    """Do not wait."""


# ---- the table --------------------------------------------------------------------------------
def report(title: str, rates: dict[str, float], reference: str, *, unit: float = 1.0) -> None:
    """Print what was measured, and its ratio to a reference."""
    print(f"\n## {title}")
    for name, rate in rates.items():
        ratio = rate / rates[reference]
        print(f"{name:<44} {rate / unit:>12,.0f} {ratio:>12.4g} x {reference}")


def demand(name: str, value: float, limit: float | None, *, is_ceiling: bool = False) -> None:
    """Print a figure, and whether it is what it should be."""
    text = f"{name:<44} {value:>12,.4g}"
    if limit is not None:
        is_met = value <= limit if is_ceiling else value >= limit
        sign = "<=" if is_ceiling else ">="
        text += f"   wanted {sign} {limit:<8g} {'met' if is_met else 'NOT MET'}"
    print(text)


if __name__ == "__main__":
    auto_cli(main)
