"""Kill writers at random moments, flip random bits, and see that nothing wrong is ever read.

Usage: python scripts/crash_campaign.py [--kills 50] [--flips 100] [--seed 0]
"""

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from jsonargparse import auto_cli
from tqdm import tqdm

import zoo
from zoo.errors import ZooError
from zoo.store.upkeep.check import check
from zoo.store.upkeep.repair import repair
from zoo.testing import tiny_block, tiny_population, tiny_space, tiny_spec, write_tiny_block

FIRST, GROWN, BLOCK = 64, 96, 8
CONTEXT = multiprocessing.get_context("fork")
Result = TypeVar("Result")
KINDS = ("weights", "columns", "metrics", "member", "ledger", "splits", "attributes", "metadata")


def run(*, kills: int = 50, flips: int = 100, seed: int = 0) -> int:
    """Run both campaigns; prints a log, then a line that sums it up.

    Parameters
    ----------
    kills
        How many times to kill a writer with signal 9: while it creates, writes blocks, gathers the
        ledger, grows the population or finishes.
    flips
        How many single bits to flip, one at a time, in files of a finished zoo.
    seed
        Of all random moments and places.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    tiny_space()  # traced once, for all children
    folder = Path(tempfile.mkdtemp(prefix="crash-campaign-"))
    try:
        crashes = crash(folder, kills, rng)
        bits = flip_bits(folder, flips, rng)
    finally:
        shutil.rmtree(folder)
    print(crashes)
    print(bits)
    return 0 if crashes.is_clean and bits.is_clean else 1


# ---- kills --------------------------------------------------------------------------------------
@dataclass
class Crashes:
    """What killing did."""

    kills: int = 0
    zoos: int = 0
    wrong: int = 0
    unreadable: int = 0
    unlisted: int = 0
    other_versions: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether no number was wrong, none unreadable, and every lost cell listed."""
        return not (self.wrong or self.unreadable or self.unlisted or self.other_versions)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills over {self.zoos} zoos: {self.wrong} wrong numbers, "
            f"{self.unreadable} unreadable, {self.unlisted} lost cells not listed, "
            f"{self.other_versions} dataset versions other than uninterrupted"
        )


def work(path: Path) -> None:
    """Do everything a coordinator does, from wherever the last one stopped."""
    store = zoo.create(path, exist_ok=True)
    if "tiny" not in store:
        store.create_population(tiny_spec(num_members=FIRST, block_size=BLOCK))
    writer = store.writer("tiny")
    for members in (FIRST, GROWN):
        if writer.spec.num_members < members:
            writer.grow(members)
        for block in sorted(set(range(writer.num_blocks)) - writer.committed):
            write_tiny_block(writer, block)
            if block % 3 == 2:
                writer.compact()
        writer.finish()


def crash(folder: Path, kills: int, rng: np.random.Generator) -> Crashes:
    """Kill, look, resume; a zoo that was finished is compared with one that nobody killed."""
    version, whole = apart(uninterrupted, folder / "uninterrupted.zarr")
    print(f"uninterrupted: {whole:.2f} s, dataset version {version}")
    found = Crashes()
    path = folder / "0.zarr"
    with tqdm(total=kills, desc="kills", file=sys.stderr) as bar:
        while found.kills < kills:
            if killed(path, rng.uniform(0, whole / 2)):
                found.kills += 1
                found = apart(look, path, found)
                bar.update()
            else:
                found = apart(finished, path, version, found)
                path = folder / f"{found.zoos}.zarr"
    apart(work, path)
    return apart(finished, path, version, found)


def uninterrupted(path: Path) -> tuple[str, float]:
    """Return the dataset version, and how long it takes, in seconds."""
    started = time.monotonic()
    work(path)
    return zoo.open(path).version, time.monotonic() - started


def apart(function: Callable[..., Result], *arguments: object) -> Result:
    """Call in a process of its own: threads of polars and zarr do not survive a fork."""
    queue = CONTEXT.SimpleQueue()
    child = CONTEXT.Process(target=lambda: queue.put(function(*arguments)))
    child.start()
    child.join()
    if child.exitcode != 0:
        raise RuntimeError(f"{function.__name__} failed")
    return queue.get()


def killed(path: Path, seconds: float) -> bool:
    """Start a writer and kill it after a while; false when it was quicker."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work(path)
            code = 0
        finally:
            os._exit(code)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the writer failed by itself: exit code {status}")
    return status != 0


def look(path: Path, found: Crashes) -> Crashes:
    """See what a kill left: right numbers, or cells that are listed as missing."""
    if not (path / "zarr.json").exists():
        print(f"kill {found.kills}: before there was a zoo")
        return found
    try:
        report = check(path)
        store = zoo.open(path)
        if "tiny" not in store:
            print(f"kill {found.kills}: before there was a population")
            return found
        wrong = wrong_numbers(store)
    except (ZooError, OSError, ValueError) as error:
        found.unreadable += 1
        print(f"kill {found.kills}: UNREADABLE {error!r}")
        return found
    (tiny,) = report.populations
    stored = store["tiny"].member_ids.tolist()
    lost = set(range(store["tiny"].spec.num_members)) - set(stored)
    unlisted = len(lost ^ set(tiny.missing_members)) + len(tiny.damaged)
    found.wrong += wrong
    found.unlisted += unlisted
    left = len(tiny.orphans) + len(report.orphans)
    stale = len(report.faults)
    print(
        f"kill {found.kills}: {len(stored)} members stored, {len(lost)} to be made, all listed: "
        f"{not unlisted}; {wrong} wrong numbers; {left} leftovers, {stale} stale copies of metadata"
    )
    return found


def wrong_numbers(store: zoo.Zoo) -> int:
    """Count stored numbers that are not those that were made."""
    population = store["tiny"]
    ids = population.member_ids
    if len(ids) == 0:
        return 0
    wanted = tiny_block(population.spec, ids.tolist())
    wrong = 0
    for checkpoint in range(len(population.epochs)):
        got = population.weights(checkpoint=checkpoint)
        wrong += int((got != wanted["weights"][:, checkpoint]).sum())
    for metric in population.metrics:
        wrong += int((population.metric(metric) != wanted["metrics"][metric]).sum())
    for column, values in wanted["columns"].items():
        wrong += sum(a != b for a, b in zip(population.table[column], values, strict=True))
    return wrong


def finished(path: Path, version: str, found: Crashes) -> Crashes:
    """Compare a finished zoo with the uninterrupted one."""
    report = check(path)
    clean = report.ok and not report.populations[0].orphans
    if zoo.open(path).version != version or not clean or wrong_numbers(zoo.open(path)):
        found.other_versions += 1
    found.zoos += 1
    print(f"zoo {found.zoos} finished after {found.kills} kills in all: check ok {clean}")
    shutil.rmtree(path)
    return found


# ---- bits ---------------------------------------------------------------------------------------
@dataclass
class Bits:
    """What flipping did."""

    flips: int = 0
    found: int = 0
    wrong: int = 0
    repaired: int = 0
    reported: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """Whether every flip was found, and mended or reported, and none was read."""
        return self.found == self.flips == self.repaired + self.reported and not self.wrong

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} in {kind}" for kind, count in sorted(self.by_kind.items()))
        return (
            f"{self.flips} bit flips ({kinds}): {self.found} found, {self.wrong} read as numbers, "
            f"{self.repaired} repaired and made again to the same version, {self.reported} "
            "reported for good (splits, the root)"
        )


def flip_bits(folder: Path, flips: int, rng: np.random.Generator) -> Bits:
    """Flip one bit at a time in a finished zoo; look; repair; make again; compare."""
    pristine = folder / "pristine.zarr"
    version = tiny_population(pristine, num_members=32, block_size=BLOCK).version
    files = {kind: files_of(pristine, kind) for kind in KINDS}
    found = Bits()
    for _ in tqdm(range(flips), desc="bit flips", file=sys.stderr):
        kind = KINDS[rng.integers(len(KINDS))]
        file = files[kind][rng.integers(len(files[kind]))]
        path = Path(shutil.copytree(pristine, folder / "flipped.zarr"))
        data = bytearray((path / file).read_bytes())
        position, bit = int(rng.integers(len(data))), int(rng.integers(8))
        data[position] ^= 1 << bit
        (path / file).write_bytes(data)
        found.flips += 1
        found.by_kind[kind] = found.by_kind.get(kind, 0) + 1
        outcome = judge(path, version, found)
        print(f"flip {found.flips}: bit {bit} of byte {position} of {file}: {outcome}")
        shutil.rmtree(path)
    return found


def judge(path: Path, version: str, found: Bits) -> str:
    """Check, read, repair, make again."""
    try:
        seen = not check(path).ok
    except ZooError:
        seen = True
    with suppress(ZooError):  # refused: that is what it should do
        found.wrong += wrong_numbers(zoo.open(path))
    if not seen:
        return "NOT FOUND"
    found.found += 1
    try:
        report = repair(path)
    except ZooError as error:
        found.reported += 1
        return f"found, refused: {str(error)[:60]}"
    if report.left:
        found.reported += 1
        return f"found, reported: {report.left[0][:60]}"
    writer = zoo.create(path, exist_ok=True).writer("tiny")
    for block in sorted(set(range(writer.num_blocks)) - writer.committed):
        write_tiny_block(writer, block)
    writer.finish()
    if check(path).ok and zoo.open(path).version == version:
        found.repaired += 1
        return f"found, repaired, {len(report.set_aside)} blocks made again, same version"
    return "found, NOT REPAIRED"


def files_of(path: Path, kind: str) -> list[Path]:
    """Return the files of a kind, below the zoo."""
    inside = path / "populations/tiny"
    chosen = {
        "ledger": (path / "_ledger").rglob("*"),
        "attributes": [path / "zarr.json", inside / "zarr.json"],
        "metadata": [*inside.glob("*/zarr.json"), *inside.glob("*/*/zarr.json")],
    }.get(kind, (inside / kind).rglob("*"))
    return sorted(p.relative_to(path) for p in chosen if p.is_file())


if __name__ == "__main__":
    sys.exit(auto_cli(run))
