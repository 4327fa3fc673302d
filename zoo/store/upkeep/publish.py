"""Copying a finished zoo to where others read it: chunks first, the root's metadata last."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from zoo.errors import DamagedChunkError, StoreError
from zoo.layout import Ragged
from zoo.schema import CHECKPOINT, CHUNKS, LEDGER, POPULATIONS, SPLITS, TABLE, side_file
from zoo.store.disk.architectures import space_file
from zoo.store.disk.arrays import TRAILER_BYTES
from zoo.store.disk.chunks import ChunkRecord, fault
from zoo.store.disk.claims import coordinator_claim
from zoo.store.disk.files import PopulationFiles
from zoo.store.disk.frozen import split_fault, split_names
from zoo.store.disk.gathered import Gathered
from zoo.store.disk.metadata import node_bytes, nodes_below, with_consolidated
from zoo.store.disk.place import NODE, Place, place_of
from zoo.store.root import Zoo, open_place
from zoo.store.root import open as open_zoo

Progress = Callable[[int], object]
_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a publication did.

    Parameters
    ----------
    target
        Where the copy is.
    version
        Its dataset version, as read back from there.
    num_bytes
        Bytes of chunk files that were copied now.
    num_present
        Chunk files that were there before, of an interrupted publication or an earlier version.
    """

    target: str
    version: str
    num_bytes: int
    num_present: int


def publish(
    source: str | PathLike[str],
    target: str | PathLike[str],
    *,
    storage_options: dict[str, Any] | None = None,
    source_options: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Published:
    """Copy a zoo, verifying every byte, and read its version back; resumes what was interrupted.

    Only what the ledger lists is copied. Until the root's metadata is written, last of all, the
    target is no zoo to anybody; an earlier version there stays readable meanwhile.

    Parameters
    ----------
    source
        A zoo whose populations are complete; it is only read.
    target
        A folder, or a URL that takes files, such as ``s3://bucket/zoo.zarr``.
    storage_options, source_options
        For URLs, what fsspec's file system takes.
    progress
        Called with the bytes of every chunk file that is done.

    Raises
    ------
    StoreError
        If a population has no end yet, or the target holds other numbers or cannot be written.
    DamagedChunkError
        If a file of the source cannot be trusted.
    """
    zoo = open_zoo(source, storage_options=source_options)
    where = place_of(target, storage_options=storage_options)
    files = [PopulationFiles(zoo.place, name) for name in zoo.populations]
    for population in files:
        check_complete(population)
    _check_target(zoo, files, where)
    with nullcontext() if where.local is None else coordinator_claim(where.local):
        counts = [_copy_chunks(each, where, progress or (lambda _: None)) for each in files]
        for population in files:
            _copy_rest(population, where)
        _write_root(zoo.place, where)
    return Published(
        target=str(where),
        version=_read_back(zoo, place_of(target, storage_options=storage_options)),
        num_bytes=sum(num_bytes for num_bytes, _ in counts),
        num_present=sum(num_present for _, num_present in counts),
    )


def num_chunk_bytes(zoo: Zoo) -> int:
    """Return the bytes of all chunk files that the ledger lists."""
    return sum(
        record.num_bytes
        for name in zoo.populations
        for record in chunk_records(PopulationFiles(zoo.place, name)).values()
    )


def chunk_records(files: PopulationFiles) -> dict[str, ChunkRecord]:
    """Return what the ledgers say of every chunk file, by its path below the population.

    Those of measures are among them.
    """
    entries = [files.ledger.entry(block) for block in files.committed]
    for measured in files.measures.values():
        entries += [measured.entry(block) for block in measured.committed]
    return {key: record for entry in entries for key, record in entry.chunks.items()}


def read_chunk(files: PopulationFiles, key: str, record: ChunkRecord) -> bytes:
    """Read a chunk file whole.

    Raises
    ------
    DamagedChunkError
        If it is missing, truncated or altered.
    """
    (data,) = files.place.read_many([key])
    if data is None:
        raise _damaged(files, key, "the file is missing")
    if (reason := fault(np.frombuffer(data, dtype=np.uint8), record)) is not None:
        raise _damaged(files, key, reason)
    return data


def _copy_chunks(files: PopulationFiles, target: Place, progress: Progress) -> tuple[int, int]:
    """Copy chunk files that are not there yet; returns the bytes copied, and how many were."""
    records = chunk_records(files)
    folder = target / f"{POPULATIONS}/{files.name}"
    there = _present(folder, records)
    progress(sum(records[key].num_bytes for key in there))
    absent = [key for key in records if key not in there]

    def copy(key: str) -> int:
        data = read_chunk(files, key, records[key])
        folder.write(key, data)
        return len(data)

    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        for num_bytes in pool.map(copy, absent):
            progress(num_bytes)
    finally:
        pool.shutdown(cancel_futures=True)
    return sum(records[key].num_bytes for key in absent), len(there)


def _present(folder: Place, records: dict[str, ChunkRecord]) -> set[str]:
    """Return the chunks that a target holds already, by size and by the checksum they end in."""
    found = folder.sizes()
    sizes = {key: r.num_bytes for key, r in records.items() if found.get(key) == r.num_bytes}
    tails = folder.tails(sizes, num_bytes=TRAILER_BYTES) if sizes else {}
    return {
        key for key, tail in tails.items() if int.from_bytes(tail, "little") == records[key].crc32c
    }


def _copy_rest(files: PopulationFiles, target: Place) -> None:
    """Copy what is small: splits, the checkpoint axis, spaces, metadata; the ledger at last."""
    folder = target / f"{POPULATIONS}/{files.name}"
    files.check_axis()
    keys = [f"{CHECKPOINT}/{CHUNKS}/0", *_space_files(files)]
    for split in split_names(files.place):
        if (reason := split_fault(files.place, split)) is not None:
            raise _damaged(files, f"{SPLITS}/{split}", reason)
        keys.append(f"{SPLITS}/{split}/{CHUNKS}/0")
    for key in keys:
        folder.write(key, files.place.read(key))
    if (beside := side_file(files.spec.network)) is not None:
        target.write(beside, files.root_place.read(beside))
    below = dict(nodes_below(files.place))
    for key, node in below.items():
        folder.write(f"{key}/{NODE}", node_bytes(node))
    folder.write(NODE, node_bytes(with_consolidated(files.place.node(), below)))
    lines = {block: files.ledger.entry(block).to_line() for block in files.committed}
    (target / LEDGER).write(f"{files.name}.jsonl", Gathered.to_bytes(files.name, lines))
    for measured in files.measures.values():
        name = measured.ledger.population
        lines = {block: measured.entry(block).to_line() for block in measured.committed}
        (target / LEDGER).write(f"{name}.jsonl", Gathered.to_bytes(name, lines))


def _write_root(source: Place, target: Place) -> None:
    with suppress(FileNotFoundError):  # derived; readers do without it
        target.write(TABLE, source.read(TABLE))
    below = dict(nodes_below(source))
    target.write(f"{POPULATIONS}/{NODE}", node_bytes(below[POPULATIONS]))
    target.write(NODE, node_bytes(with_consolidated(source.node(), below)))


def check_complete(files: PopulationFiles) -> None:
    """Raise :class:`StoreError` unless every planned block is committed."""
    if not files.is_committed.all():
        raise StoreError(
            f"Expected finished populations in {files.root}, got {files.name!r} with "
            f"{len(files.committed)} of {files.spec.num_blocks} blocks. Finish the run that makes "
            "it, then publish."
        )


def _check_target(zoo: Zoo, files: list[PopulationFiles], target: Place) -> None:
    """Refuse a target that holds something else, or blocks with other numbers."""
    if not target.exists(NODE):
        begun = {LEDGER, POPULATIONS, TABLE}
        is_file = target.local is not None and target.local.is_file()
        if is_file or set(target.names()) - begun:
            raise StoreError(f"Expected nothing or a zoo at {target}, got something else.")
        return
    there = open_place(target)
    ours = {population.name: population for population in files}
    for name in there.populations:
        old = PopulationFiles(target, name)
        new = ours.get(name)
        same_space = new is not None and old.spec.space == new.spec.space
        if new is not None and (other := _other_measure(old, new)):
            raise StoreError(
                f"Expected {target} to be empty, or to hold an earlier state of {zoo.place}, got "
                f"other numbers of measure {other!r} in population {name!r}. Publish to another "
                "place."
            )
        if not (same_space and new and _is_part_of(old, new)):
            raise StoreError(
                f"Expected {target} to be empty, or to hold an earlier state of {zoo.place}, got "
                f"another population {name!r}. Published numbers never change: publish to another "
                "place."
            )


def _is_part_of(old: PopulationFiles, new: PopulationFiles) -> bool:
    return set(old.committed) <= set(new.committed) and all(
        old.ledger.entry(block) == new.ledger.entry(block) for block in old.committed
    )


def _other_measure(old: PopulationFiles, new: PopulationFiles) -> str | None:
    """Name a measure of an earlier state that is not what the later one holds."""
    for name, measured in old.measures.items():
        ours = new.measures.get(name)
        kept = ours is not None and ours.spec == measured.spec
        if not (kept and ours and set(measured.committed) <= set(ours.committed)):
            return name
        if any(measured.entry(block) != ours.entry(block) for block in measured.committed):
            return name
    return None


def _space_files(files: PopulationFiles) -> list[str]:
    space = files.spec.space
    each = space.architectures if isinstance(space, Ragged) else ()
    return sorted({space_file(architecture.space) for architecture in each})


def _damaged(files: PopulationFiles, key: str, reason: str) -> DamagedChunkError:
    return DamagedChunkError(
        f"{files.place / key} is damaged: {reason}. The target is not complete. Run `zoo check "
        f"--repair {files.root}`, make again what it lists, and publish again."
    )


def _read_back(zoo: Zoo, target: Place) -> str:
    """Open the copy; returns its version, which must be the source's."""
    version = open_place(target).version
    if version != zoo.version:
        raise StoreError(
            f"Expected dataset version {zoo.version} at {target} after publishing, got {version}: "
            f"{zoo.place} changed meanwhile, or the target does not keep what it is given. Publish "
            "again."
        )
    return version
