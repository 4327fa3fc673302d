"""Repairing a zoo: leftovers removed, damaged blocks set aside to be made again, copies mended.

Nothing intact is touched, and nothing damaged is destroyed.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from zoo.errors import StoreError
from zoo.schema import LEDGER, POPULATIONS, TABLE
from zoo.store.disk.arrays import block_arrays
from zoo.store.disk.chunks import is_temporary
from zoo.store.disk.claims import coordinator_claim, is_claim, no_writers, remove_claims
from zoo.store.disk.files import PopulationFiles
from zoo.store.disk.leftovers import orphans, temporaries
from zoo.store.disk.place import LocalPlace
from zoo.store.root import Zoo, open_place
from zoo.store.upkeep.aside import SetAside, mend_ledger, set_aside
from zoo.store.upkeep.check import Progress, check_population, is_table_stale, population_names
from zoo.store.upkeep.measures import mend_measures, scan_measures
from zoo.store.upkeep.mend import mend_axis, mend_consolidated, mend_metadata, mend_root
from zoo.store.upkeep.report import NO_BLOCK, PopulationReport


@dataclass(frozen=True, kw_only=True)
class RepairReport:
    """What repairing did.

    Parameters
    ----------
    set_aside
        Blocks to be made again: resume the run that made the population.
    removed
        Leftovers of killed writers.
    mended
        Metadata, axes, ledgers and tables that were written again.
    left
        What cannot be repaired, in sentences: splits, weights that are not finite, attributes.
    """

    set_aside: tuple[SetAside, ...]
    removed: tuple[Path, ...]
    mended: tuple[str, ...]
    left: tuple[str, ...]


def repair(path: str | PathLike[str], *, progress: Progress | None = None) -> RepairReport:
    """Repair a zoo on this machine; doing it twice does nothing more.

    Parameters
    ----------
    path
        A zoo.
    progress
        Called with the bytes of every chunk file that was checked.

    Raises
    ------
    StoreError
        If there is no zoo at the path, or somebody is writing to it.
    """
    root = LocalPlace(path)
    mender = _Mender(root, progress)
    if root.nodes(POPULATIONS):
        with coordinator_claim(root.path):
            mender.mended += mend_root(root)
    open_place(root)
    with coordinator_claim(root.path):
        for name in population_names(root):
            with no_writers(root.path, name):
                mender.population(name)
            remove_claims(root.path, name)
        mender.rest()
    return RepairReport(
        set_aside=tuple(mender.set_aside),
        removed=tuple(mender.removed),
        mended=tuple(mender.mended),
        left=tuple(mender.left),
    )


class _Mender:
    """Repairs population by population, collecting what it does."""

    def __init__(self, root: LocalPlace, progress: Progress | None) -> None:
        self.root = root
        self.progress = progress
        self.set_aside: list[SetAside] = []
        self.removed: list[Path] = []
        self.mended: list[str] = []
        self.left: list[str] = []

    def population(self, name: str) -> None:
        """Repair one population."""
        self.mended += mend_metadata(self.root, name)
        try:
            files = PopulationFiles(self.root, name)
            self.mended += mend_axis(files)
            mended, moved = mend_ledger(self.root.path, files)
            self.mended, self.set_aside = self.mended + mended, self.set_aside + moved
            found = check_population(self.root, name, progress=self.progress)
        except (StoreError, ValueError) as error:
            self.left.append(f"population {name!r} cannot be read: {error}")
            return
        self._blocks(name, found)
        try:
            mended, moved = mend_measures(self.root.path, PopulationFiles(self.root, name))
            self.mended, self.set_aside = self.mended + mended, self.set_aside + moved
        except StoreError as error:
            self.left.append(f"measures of population {name!r}: {error}")
            return
        self._leftovers(name)
        self.left += [f"split {split!r} of {name!r}: {reason}" for split, reason in found.splits]
        self.left += [
            f"member {member} of {name!r} at epoch {epoch}: its weights are not finite"
            for member, epoch in found.not_finite
        ]
        self.left += [str(damage) for damage in found.damaged if damage.block == NO_BLOCK]

    def rest(self) -> None:
        """Repair what the populations share."""
        path = self.root.path
        self.mended += mend_consolidated(self.root, "")
        beside = [*path.glob(".*"), *path.glob(f"{POPULATIONS}/.*"), *path.glob(f"{LEDGER}/.*")]
        self._remove(p for p in beside if is_temporary(p) and not is_claim(p))
        zoo = Zoo(self.root, writable=True)
        try:
            if is_table_stale(zoo):
                zoo.write_table()
                self.mended.append(TABLE)
        except (StoreError, ValueError) as error:
            self.left.append(f"{TABLE} cannot be made: {error}")

    def _blocks(self, name: str, found: PopulationReport) -> None:
        """Set aside the blocks of damaged chunks."""
        reasons: dict[int, list[str]] = {}
        for damage in found.damaged:
            if damage.block != NO_BLOCK:
                reasons.setdefault(damage.block, []).append(f"{damage.chunk}: {damage.reason}")
        if reasons:
            files = PopulationFiles(self.root, name)
            kept = {block: files.ledger.entry(block) for block in files.ledger.committed()}
            self.set_aside += set_aside(self.root.path, files, reasons, kept)

    def _leftovers(self, name: str) -> None:
        files = PopulationFiles(self.root, name)
        known = {key for block in files.committed for key in files.ledger.entry(block).chunks}
        self._remove(temporaries(self.root.path, name))
        self._remove(list(orphans(files.path, block_arrays(files.spec), known)))
        measures = scan_measures(files)
        self._remove(list(orphans(files.path, measures.arrays, measures.known)))
        for measured in files.measures.values():
            remove_claims(self.root.path, measured.ledger.population)

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            self.removed.append(path)
