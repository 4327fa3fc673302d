"""Checking a zoo: every byte against the ledger, every split against its hash, all metadata."""

from collections.abc import Callable
from os import PathLike
from typing import Any

import numpy as np
import polars as pl

from zoo.errors import DamagedChunkError, StoreError
from zoo.schema import COLUMNS, DIVERGED, LEDGER, POPULATIONS, SPACES, TABLE, WEIGHTS
from zoo.store.disk.arrays import ArrayLayout, block_arrays
from zoo.store.disk.chunks import is_temporary
from zoo.store.disk.claims import is_claim
from zoo.store.disk.copies import metadata_faults
from zoo.store.disk.files import PopulationFiles
from zoo.store.disk.frozen import split_fault, split_names
from zoo.store.disk.leftovers import orphans, temporaries
from zoo.store.disk.place import Place
from zoo.store.root import Zoo
from zoo.store.root import open as open_zoo
from zoo.store.upkeep.measures import scan_measures
from zoo.store.upkeep.report import NO_BLOCK, CheckReport, Damage, PopulationReport

Progress = Callable[[int], object]


def check(
    path: str | PathLike[str],
    *,
    storage_options: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Read a whole zoo and report what cannot be trusted; nothing on disk changes.

    Parameters
    ----------
    path
        A path, or the URL of a published zoo.
    storage_options
        For URLs, what fsspec's file system takes.
    progress
        Called with the bytes of every chunk file that was checked.

    Raises
    ------
    StoreError
        If there is no zoo at the path.
    """
    zoo = open_zoo(path, storage_options=storage_options)
    reports: list[PopulationReport] = []
    unreadable: list[tuple[str, str]] = []
    for name in population_names(zoo.place):
        try:
            reports.append(check_population(zoo.place, name, progress=progress))
        except (StoreError, ValueError) as error:
            unreadable.append((name, str(error)))
    beside = (
        []
        if zoo.place.local is None
        else [
            *zoo.path.glob(".*"),
            *zoo.path.glob(f"{POPULATIONS}/.*"),
            *zoo.path.glob(f"{LEDGER}/.*"),
        ]
    )
    spoilt = any(report.damaged or report.measures for report in reports)
    sound = not unreadable and not spoilt
    return CheckReport(
        path=str(zoo.place),
        populations=tuple(reports),
        unreadable=tuple(unreadable),
        faults=tuple(metadata_faults(zoo.place)),
        orphans=tuple(sorted(p for p in beside if is_temporary(p) and not is_claim(p))),
        is_table_stale=sound and is_table_stale(zoo),
    )


def population_names(root: Place) -> list[str]:
    """Return the populations that there are, or that the ledger says there were."""
    entered = {name.removesuffix(".jsonl") for name in root.names(LEDGER) if name[0] != "."}
    return sorted({*root.nodes(POPULATIONS), *entered})


def check_population(
    root: Place, name: str, *, progress: Progress | None = None
) -> PopulationReport:
    """Check one population; see :func:`check`.

    Raises
    ------
    StoreError
        If its attributes, or the metadata of an array, cannot be read.
    """
    files = PopulationFiles(root, name)
    scan = _Scan(files, progress or (lambda _: None))
    for block in files.committed:
        scan.block(block)
    scan.spaces()
    measures = scan_measures(files, progress or (lambda _: None))
    reasons = {split: split_fault(files.place, split) for split in split_names(files.place)}
    left = (
        []
        if root.local is None
        else [
            *(path for path in temporaries(root.local, name) if name in path.parts),
            *orphans(files.path, block_arrays(files.spec), scan.known),
            *orphans(files.path, measures.arrays, measures.known),
        ]
    )
    return PopulationReport(
        name=name,
        epochs=files.spec.checkpoints,
        blocks_committed=len(files.committed),
        blocks_planned=files.spec.num_blocks,
        missing_members=tuple(np.flatnonzero(~files.is_committed).tolist()),
        num_bytes=scan.num_bytes + measures.num_bytes,
        damaged=tuple(scan.damaged),
        orphans=tuple(sorted(left)),
        splits=tuple((split, reason) for split, reason in reasons.items() if reason is not None),
        not_finite=tuple(scan.not_finite),
        faults=(*_faults(files), *measures.faults),
        measures=tuple(measures.damaged),
    )


def is_table_stale(zoo: Zoo) -> bool:
    """Whether ``table.parquet`` is there and differs from the arrays."""
    if zoo.place.local is None or not (path := zoo.place.local / TABLE).is_file():
        return False
    try:
        return not pl.read_parquet(path).equals(zoo.table)
    except (OSError, pl.exceptions.PolarsError):
        return True


def _faults(files: PopulationFiles) -> list[str]:
    """Say what is wrong with a population beside its chunks and splits."""
    found = [f"the gathered ledger: {fault}" for fault in files.ledger.gathered_faults()]
    try:
        files.check_axis()
    except StoreError as error:
        found.append(str(error))
    beyond = sorted(files.ledger.committed() - set(range(files.spec.num_blocks)))
    if beyond:
        found.append(f"the ledger lists block {beyond[0]}, past the members planned")
    return found


class _Scan:
    """Goes through a population block by block, collecting what it finds."""

    def __init__(self, files: PopulationFiles, progress: Progress) -> None:
        self.files = files
        self.progress = progress
        self.num_bytes = 0
        self.known: set[str] = set()
        self.damaged: list[Damage] = []
        self.not_finite: list[tuple[int, int]] = []

    def block(self, block: int) -> None:
        try:
            entry = self.files.ledger.entry(block)
        except DamagedChunkError as error:
            self._damaged("ledger", f"{block:06d}", block, (), str(error))
            return
        self.known.update(entry.chunks)
        layouts = [self.files.layout(array) for array in block_arrays(self.files.spec)]
        expected = {
            layout.key(i): (layout, i) for layout in layouts for i in layout.chunks_of_block(block)
        }
        for key in entry.chunks.keys() - expected.keys():
            self._damaged("ledger", key, block, (), "the ledger lists it, but no array has it")
        diverged = self._diverged(block)
        for layout, index in expected.values():
            self._chunk(layout, index, diverged)

    def _chunk(self, layout: ArrayLayout, index: tuple[int, ...], diverged: np.ndarray) -> None:
        file, reason = self.files.examine(layout, index)
        members, epochs = self.files.concerned(layout, index)
        self.num_bytes += len(file)
        self.progress(len(file))
        if reason is not None:
            self._damaged(layout.name, layout.key(index), index[0], epochs, reason)
        elif layout.name == WEIGHTS:
            try:
                chunk = self.files.decoded(layout, index, file)
            except DamagedChunkError as error:
                self._damaged(layout.name, layout.key(index), index[0], epochs, str(error))
                return
            bad = self._not_finite(index[0], chunk[:, 0]) & ~diverged
            self.not_finite += [(members[row], epochs[0]) for row in np.flatnonzero(bad)]

    def spaces(self) -> None:
        """Check the weight spaces of a ragged population."""
        for file, members, reason in self.files.architectures.faults():
            damage = Damage(
                population=self.files.name,
                array=SPACES,
                chunk=file,
                block=NO_BLOCK,
                members=members,
                epochs=(),
                reason=reason,
            )
            self.damaged.append(damage)

    def _not_finite(self, block: int, rows: np.ndarray) -> np.ndarray:
        """Per member of a block, whether its weights hold NaN or infinity; bool."""
        count = len(self.files.spec.members_of(block))
        if self.files.architectures.ragged is None:
            return _rows_not_finite(rows[:count])
        try:
            members = self.files.architectures.members(block, rows)
        except DamagedChunkError:  # where members lie is damaged, and reported by itself
            return np.zeros(count, dtype=bool)
        return np.array([not np.isfinite(vector).all() for vector in members])

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
                block=block,
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
