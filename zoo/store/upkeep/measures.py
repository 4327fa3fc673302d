"""Checking and repairing what was measured after the fact, by the ledgers of measures."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from zoo.errors import DamagedChunkError, StoreError
from zoo.store.disk.arrays import ArrayLayout
from zoo.store.disk.files import PopulationFiles
from zoo.store.disk.ledger import Ledger, LedgerEntry
from zoo.store.disk.measures import Measured, array_name, read_measure
from zoo.store.upkeep.aside import SetAside, set_aside
from zoo.store.upkeep.report import Damage

STALE = "it was measured on weights that have been made again since"


@dataclass
class MeasuresScan:
    """What checking the measures of a population found.

    Parameters
    ----------
    arrays
        Names of their arrays.
    known
        Chunk files that their ledgers list.
    num_bytes
        Bytes that were read and checked.
    damaged
        Chunks and entries that cannot be trusted.
    faults
        What is wrong with their metadata, or with a ledger as a whole.
    """

    arrays: list[str] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    num_bytes: int = 0
    damaged: list[Damage] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def scan_measures(
    files: PopulationFiles, progress: Callable[[int], object] = lambda _: None
) -> MeasuresScan:
    """Verify every byte of a population's measures; ``progress`` is told the bytes."""
    scan = MeasuresScan()
    try:
        measures = list(files.measures.values())
    except StoreError as error:
        scan.faults.append(str(error))
        return scan
    for measured in measures:
        scan.arrays += [array_name(output.name) for output in measured.spec.outputs]
        absent = [o.name for o in measured.spec.outputs if o.name not in files.place.nodes(_HERE)]
        if absent:
            scan.faults.append(f"measure {measured.name!r}: its array {absent[0]!r} is missing")
            continue
        scan.faults += [
            f"measure {measured.name!r}: its arrays {measured.spec.outputs[0].name!r} and "
            f"{output.name!r} have different settings"
            for output in measured.spec.outputs
            if read_measure(files.place, output.name) != measured.spec
        ]
        for block in measured.listed:
            _scan_block(measured, block, scan, progress)
        scan.faults += [
            f"the gathered ledger of measure {measured.name!r}: {fault}"
            for fault in measured.ledger.gathered_faults()
        ]
    return scan


def mend_measures(root: Path, files: PopulationFiles) -> tuple[list[str], list[SetAside]]:
    """Set blocks of measures aside that cannot be trusted, to be measured again.

    Returns
    -------
    list of str
        Ledgers that were written again.
    list of SetAside
        Blocks to be measured again.
    """
    mended: list[str] = []
    moved: list[SetAside] = []
    for measured in files.measures.values():
        scan = MeasuresScan()
        for block in measured.listed:
            _scan_block(measured, block, scan, lambda _: None)
        reasons: dict[int, list[str]] = {}
        for damage in scan.damaged:
            reasons.setdefault(damage.block, []).append(f"{damage.chunk}: {damage.reason}")
        ledger = Ledger(root, measured.ledger.population)
        kept = _sound(ledger)
        if reasons:
            moved += set_aside(root, files, reasons, kept, measured=measured)
        elif ledger.gathered_faults():
            ledger.replace({block: entry.to_line() for block, entry in kept.items()})
            mended.append(f"{ledger.population}: the ledger")
    return mended, moved


_HERE = array_name("").rstrip("/")


def _sound(ledger: Ledger) -> dict[int, LedgerEntry]:
    """Return one sound entry of every block that has one."""
    kept: dict[int, LedgerEntry] = {}
    for block in ledger.committed():
        entries = [e for e in ledger.copies(block).values() if isinstance(e, LedgerEntry)]
        if entries and all(entry == entries[0] for entry in entries):
            kept[block] = entries[0]
    return kept


def _scan_block(
    measured: Measured, block: int, scan: MeasuresScan, progress: Callable[[int], object]
) -> None:
    files = measured.files
    try:
        entry = measured.entry(block)
    except DamagedChunkError as error:
        name = measured.ledger.population
        scan.damaged.append(_damage(measured, name, f"{block:06d}", block, (), str(error)))
        return
    scan.known.update(entry.chunks)
    if block not in files.committed:
        return  # its weights are to be made again; their entry will tell whether it counts
    try:
        reason = STALE if measured.is_stale(block) else None
    except DamagedChunkError:
        return  # the population's own entry is damaged, which is said by itself
    if reason is not None:
        name = measured.ledger.population
        scan.damaged.append(_damage(measured, name, f"{block:06d}", block, (), reason))
    for layout in measured.layouts().values():
        for index in layout.chunks_of_block(block):
            _scan_chunk(measured, layout, index, scan, progress)


def _scan_chunk(
    measured: Measured,
    layout: ArrayLayout,
    index: tuple[int, ...],
    scan: MeasuresScan,
    progress: Callable[[int], object],
) -> None:
    file, reason = measured.files.examine(layout, index)
    scan.num_bytes += len(file)
    progress(len(file))
    if reason is not None:
        _, epochs = measured.files.concerned(layout, index)
        key = layout.key(index)
        scan.damaged.append(_damage(measured, layout.name, key, index[0], epochs, reason))


def _damage(
    measured: Measured, array: str, chunk: str, block: int, epochs: tuple[int, ...], reason: str
) -> Damage:
    return Damage(
        population=measured.files.name,
        array=array,
        chunk=chunk,
        block=block,
        members=tuple(measured.files.spec.members_of(block)),
        epochs=epochs,
        reason=reason,
    )
