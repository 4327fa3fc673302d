"""Checking a zoo on disk: every byte against the ledger, every split against its hash."""

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from zoo.errors import DamagedChunkError, StoreError
from zoo.schema import CHUNKS, COLUMNS, DIVERGED, POPULATIONS, WEIGHTS
from zoo.store.arrays import ArrayLayout, block_arrays
from zoo.store.chunks import decode, is_temporary
from zoo.store.files import PopulationFiles
from zoo.store.frozen import split_fault, split_names
from zoo.store.root import open as open_zoo


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One chunk file that cannot be trusted.

    Parameters
    ----------
    population, array, chunk
        Where it is; ``chunk`` is the path below the population.
    members, epochs
        Whose values it holds; no epochs for values that are recorded once.
    reason
        What is wrong.
    """

    population: str
    array: str
    chunk: str
    members: tuple[int, ...]
    epochs: tuple[int, ...]
    reason: str

    def __str__(self) -> str:
        epochs = f", epochs {', '.join(map(str, self.epochs))}" if self.epochs else ""
        members = f"members {self.members[0]} to {self.members[-1]}" if self.members else "members"
        return f"{self.population}/{self.chunk}: {self.reason} ({members}{epochs})"


@dataclass(frozen=True, kw_only=True)
class PopulationReport:
    """What was found in one population.

    Parameters
    ----------
    name
        Its name.
    blocks_committed, blocks_planned
        How far it is.
    missing_members
        Ids of the members whose blocks are not committed.
    num_bytes
        Bytes of chunk files that were read and checked.
    damaged
        Chunks that cannot be trusted.
    orphans
        Files no ledger entry speaks of, left by a killed writer; harmless.
    splits
        Splits that are not what was frozen, each with the reason.
    not_finite
        ``(member, epoch)`` of weights with NaN or infinity, of members not marked as diverged.
    """

    name: str
    blocks_committed: int
    blocks_planned: int
    missing_members: tuple[int, ...]
    num_bytes: int
    damaged: tuple[Damage, ...]
    orphans: tuple[Path, ...]
    splits: tuple[tuple[str, str], ...]
    not_finite: tuple[tuple[int, int], ...]

    @property
    def ok(self) -> bool:
        """Whether everything committed can be trusted."""
        return not (self.damaged or self.splits or self.not_finite)


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What was found in a zoo.

    Parameters
    ----------
    path
        The zoo.
    populations
        One report each.
    orphans
        What killed writers left beside the populations; harmless.
    """

    path: Path
    populations: tuple[PopulationReport, ...]
    orphans: tuple[Path, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything committed can be trusted; missing blocks and orphans are no damage."""
        return all(population.ok for population in self.populations)

    @property
    def damaged(self) -> tuple[Damage, ...]:
        """Damaged chunks of all populations."""
        return tuple(damage for population in self.populations for damage in population.damaged)

    @property
    def num_bytes(self) -> int:
        """Bytes checked."""
        return sum(population.num_bytes for population in self.populations)


def check(path: str | PathLike[str]) -> CheckReport:
    """Read a whole zoo and report what cannot be trusted; nothing on disk changes.

    Raises
    ------
    StoreError
        If there is no zoo at the path, or a population's metadata cannot be read.
    """
    zoo = open_zoo(path)
    reports = tuple(check_population(zoo.path, name) for name in zoo.populations)
    beside = [*zoo.path.glob(".*"), *(zoo.path / POPULATIONS).glob(".*")]
    orphans = tuple(sorted(path for path in beside if is_temporary(path)))
    return CheckReport(path=zoo.path, populations=reports, orphans=orphans)


def check_population(root: Path, name: str) -> PopulationReport:
    """Check one population; see :func:`check`."""
    files = PopulationFiles(root, name)
    files.check_axis()
    scan = _Scan(files)
    for block in files.committed:
        scan.block(block)
    faults = {split: split_fault(files.path, split) for split in split_names(files.path)}
    return PopulationReport(
        name=name,
        blocks_committed=len(files.committed),
        blocks_planned=files.spec.num_blocks,
        missing_members=tuple(np.flatnonzero(~files.is_committed).tolist()),
        num_bytes=scan.num_bytes,
        damaged=tuple(scan.damaged),
        orphans=tuple(sorted(_orphans(files, scan.known))),
        splits=tuple((split, reason) for split, reason in faults.items() if reason is not None),
        not_finite=tuple(scan.not_finite),
    )


class _Scan:
    """Goes through a population block by block, collecting what it finds."""

    def __init__(self, files: PopulationFiles) -> None:
        self.files = files
        self.num_bytes = 0
        self.known: set[str] = set()
        self.damaged: list[Damage] = []
        self.not_finite: list[tuple[int, int]] = []

    def block(self, block: int) -> None:
        try:
            entry = self.files.ledger.entry(block)
        except DamagedChunkError as error:
            self._damaged("ledger", str(self.files.ledger.path(block)), block, (), str(error))
            return
        self.known.update(entry.chunks)
        diverged = self._diverged(block)
        for array in block_arrays(self.files.spec):
            layout = self.files.layout(array)
            for index in layout.chunks_of_block(block):
                self._chunk(layout, index, diverged)

    def _chunk(self, layout: ArrayLayout, index: tuple[int, ...], diverged: np.ndarray) -> None:
        file, reason = self.files.examine(layout, index)
        members, epochs = self.files.concerned(layout, index)
        self.num_bytes += len(file)
        if reason is not None:
            self._damaged(layout.name, layout.key(index), index[0], epochs, reason)
        elif layout.name == WEIGHTS:
            plain = decode(layout, file) if layout.is_plain else self.files.chunk(layout, index)
            rows = _rows_not_finite(plain[: len(diverged), 0]) & ~diverged
            self.not_finite += [(members[row], epochs[0]) for row in np.flatnonzero(rows)]

    def _diverged(self, block: int) -> np.ndarray:
        """Per member of a block, whether it diverged; all, when that cannot be read."""
        count = len(self.files.spec.members_of(block))
        try:
            chunk = self.files.chunk(self.files.layout(f"{COLUMNS}/{DIVERGED}"), (block,))
        except StoreError:
            return np.ones(count, dtype=bool)
        return np.asarray(chunk[:count] != 0)

    def _damaged(
        self, array: str, chunk: str, block: int, epochs: tuple[int, ...], reason: str
    ) -> None:
        self.damaged.append(
            Damage(
                population=self.files.name,
                array=array,
                chunk=chunk,
                members=tuple(self.files.spec.members_of(block)),
                epochs=epochs,
                reason=reason,
            )
        )


def _rows_not_finite(block: np.ndarray) -> np.ndarray:
    """Per row of ``[n, P]``, whether it holds NaN or infinity; bool."""
    with np.errstate(all="ignore"):
        suspect = ~np.isfinite(block.sum(axis=1))  # an overflow alone is looked at again
    suspect[suspect] = ~np.isfinite(block[suspect]).all(axis=1)
    return np.asarray(suspect)


def _orphans(files: PopulationFiles, known: set[str]) -> Iterator[Path]:
    """Find temporary files, and chunk files that no ledger entry lists."""
    folders = [path for path in (files.path, files.ledger.folder) if path.exists()]
    for folder in folders:
        yield from (path for path in folder.rglob("*") if is_temporary(path))
    for array in block_arrays(files.spec):
        for path in (files.path / array / CHUNKS).rglob("*"):
            key = path.relative_to(files.path).as_posix()
            if path.is_file() and key not in known and not is_temporary(path):
                yield path
