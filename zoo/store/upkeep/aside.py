"""Blocks that are no longer committed: out of the ledger, their files kept in ``_aside``."""

import os
from dataclasses import dataclass
from pathlib import Path

from zoo.schema import ASIDE
from zoo.store.disk.arrays import block_arrays, sync_tree
from zoo.store.disk.files import PopulationFiles
from zoo.store.disk.ledger import Ledger, LedgerEntry
from zoo.store.disk.measures import Measured


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A block that has to be made again.

    Parameters
    ----------
    population, block
        Which; of a measure its ledger, ``<population>/measures/<measure>``.
    members, epochs
        Its cells: every one of these members at every one of these epochs.
    folder
        Where its files, and its ledger entry if that was sound, are kept.
    reasons
        What was wrong.
    """

    population: str
    block: int
    members: tuple[int, ...]
    epochs: tuple[int, ...]
    folder: Path
    reasons: tuple[str, ...]

    @property
    def cells(self) -> tuple[tuple[int, int], ...]:
        """Every ``(member, epoch)`` to be made again."""
        return tuple((member, epoch) for member in self.members for epoch in self.epochs)


def mend_ledger(root: Path, files: PopulationFiles) -> tuple[list[str], list[SetAside]]:
    """Keep of every block's entries one that is sound; blocks without are set aside."""
    ledger = Ledger(root, files.name)
    kept: dict[int, LedgerEntry] = {}
    spoilt: dict[int, list[str]] = {}
    for block in sorted(ledger.committed()):
        copies = ledger.copies(block)
        sound = [entry for entry in copies.values() if isinstance(entry, LedgerEntry)]
        if sound and all(entry == sound[0] for entry in sound):
            kept[block] = sound[0]
        if block not in kept or len(sound) != len(copies):
            spoilt[block] = [f"its entry in {key}: {entry}" for key, entry in copies.items()]
    if not spoilt and not ledger.gathered_faults():
        return [], []
    folder = _new_folder(root, files.name, "ledger")
    for path in (ledger.gathered_path, *map(ledger.path, spoilt)):
        if path.exists():
            os.link(path, folder / path.name)
    lost = {block: why for block, why in spoilt.items() if block not in kept}
    moved = set_aside(root, files, lost, kept)
    return [f"{files.name}: the ledger; its old files are in {folder}"], moved


def set_aside(
    root: Path,
    files: PopulationFiles,
    reasons: dict[int, list[str]],
    kept: dict[int, LedgerEntry],
    *,
    measured: Measured | None = None,
) -> list[SetAside]:
    """Keep the files of blocks apart, take the blocks out of the ledger, then clear their places.

    Killed in between, every file is still where it was, or apart, or both.

    Parameters
    ----------
    root, files
        The zoo, and the population.
    reasons
        Per block, what is wrong.
    kept
        Sound entries by block; those of blocks named in ``reasons`` are left out of the ledger.
    measured
        The measure whose blocks they are; those of the population itself by default.
    """
    moved = [_keep_apart(root, files, block, why, kept, measured) for block, why in reasons.items()]
    ledger = Ledger(root, files.name if measured is None else measured.ledger.population)
    ledger.committed()
    ledger.replace({b: entry.to_line() for b, entry in kept.items() if b not in reasons})
    for each in moved:
        for path in each.folder.rglob("*"):
            if path.is_file():
                (files.path / path.relative_to(each.folder)).unlink(missing_ok=True)
    return moved


def _keep_apart(
    root: Path,
    files: PopulationFiles,
    block: int,
    reasons: list[str],
    kept: dict[int, LedgerEntry],
    measured: Measured | None,
) -> SetAside:
    prefix = "" if measured is None else f"{measured.name}-"
    folder = _new_folder(root, files.name, f"{prefix}{block:06d}")
    for key in _keys(files, block, measured):
        if (files.path / key).is_file():
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            os.link(files.path / key, folder / key)
    if block in kept:
        folder.with_suffix(".json").write_text(kept[block].to_json())
    sync_tree(folder)
    return SetAside(
        population=files.name if measured is None else measured.ledger.population,
        block=block,
        members=tuple(files.spec.members_of(block)),
        epochs=files.spec.checkpoints if measured is None else measured.spec.checkpoints,
        folder=folder,
        reasons=tuple(reasons),
    )


def _keys(files: PopulationFiles, block: int, measured: Measured | None) -> list[str]:
    if measured is None:
        layouts = [files.layout(array) for array in block_arrays(files.spec)]
    else:
        layouts = list(measured.layouts().values())
    return [layout.key(index) for layout in layouts for index in layout.chunks_of_block(block)]


def _new_folder(root: Path, population: str, what: str) -> Path:
    parent = root / ASIDE / population
    number = 0
    while (folder := parent / f"{what}-{number}").exists():
        number += 1
    folder.mkdir(parents=True)
    return folder
