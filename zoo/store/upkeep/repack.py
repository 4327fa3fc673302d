"""The same networks in another tier: read block by block, written anew, splits carried over."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from os import PathLike

import numpy as np

from zoo.errors import StoreError
from zoo.layout import CHUNK_BYTES, TIERS, Ragged, Source, Storage, Tier
from zoo.schema import ARCHITECTURE, COLUMNS, METRICS, PopulationSpec, side_file
from zoo.store.disk.files import PopulationFiles
from zoo.store.disk.frozen import read_split, split_attributes, split_names, write_split
from zoo.store.disk.measures import Measured
from zoo.store.measuring import create_measure
from zoo.store.reading.gather import RowReader
from zoo.store.root import Zoo, create
from zoo.store.root import open as open_zoo
from zoo.store.writer import PopulationWriter

ARCHIVE_MEMBERS = 64
Progress = Callable[[str, int, int], None]


def repack(
    source: str | PathLike[str],
    target: str | PathLike[str],
    *,
    tier: Tier,
    populations: Sequence[str] = (),
    block_size: int = 0,
    progress: Progress | None = None,
) -> Zoo:
    """Write a zoo again in another tier; goes on where it was interrupted.

    Float32 numbers come back bit for bit, whichever tiers they went through. ``compact`` rounds
    to float16: weights of diverged members that leave its range become infinite, while those of
    any other member stop the repacking.

    Parameters
    ----------
    source
        A finished zoo, here or elsewhere.
    target
        A new zoo, or one to add to.
    tier
        ``hot`` (float32), ``compact`` (float16) or ``archive`` (float32, compressed).
    populations
        Which to repack; all by default.
    block_size
        Members per block; by default the source's, and in an archive at least 64 while its chunks
        stay below 4 MiB.
    progress
        Called before each block with the population's name, the block, and how many there are.

    Returns
    -------
    Zoo
        The target.

    Raises
    ------
    StoreError
        If a population is not complete, if the target holds another one of its name, or if a
        weight of a member that did not diverge leaves the range of float16.
    """
    zoo = open_zoo(source)
    into = create(target, exist_ok=True)
    for name in populations or zoo.populations:
        if not zoo[name].is_complete:
            raise StoreError(
                f"Population {name!r} in {source} is not complete. Finish it, then repack the zoo."
            )
        _repack(zoo[name]._files, into, TIERS[tier], block_size, progress)
    return into


def repacked_spec(files: PopulationFiles, storage: Storage, *, block_size: int) -> PopulationSpec:
    """Return what a population is in another tier; its blocks may change, its members do not."""
    spec = files.spec
    size = block_size or _block_size(spec, storage)
    space = spec.space
    if isinstance(space, Ragged):
        of_member = files.array(f"{COLUMNS}/{ARCHITECTURE}")
        space = Ragged.plan(space.architectures, of_member, block_size=size)
    own = Source(version=files.version, dtype=spec.storage.dtype)
    sources = (*spec.sources, own)
    return replace(spec, space=space, block_size=size, storage=storage, sources=sources)


def _block_size(spec: PopulationSpec, storage: Storage) -> int:
    """Return the source's block size; a compressor gains little from fewer than 64 members."""
    if storage.compressor is None:
        return spec.block_size
    per_row = spec.block_size if isinstance(spec.space, Ragged) else 1
    within = CHUNK_BYTES * per_row // (storage.itemsize * spec.row_length)
    return max(spec.block_size, min(ARCHIVE_MEMBERS, 1 << max(within.bit_length() - 1, 0)))


def _repack(
    files: PopulationFiles, into: Zoo, storage: Storage, block_size: int, progress: Progress | None
) -> None:
    writer = _writer(files, into, repacked_spec(files, storage, block_size=block_size))
    if (beside := side_file(files.spec.network)) is not None:
        into.place.write(beside, files.root_place.read(beside))
    reader = RowReader(files, io="pread")
    missing = sorted(set(range(writer.num_blocks)) - writer.committed)
    for block in missing:
        if progress is not None:
            progress(writer.name, block, writer.num_blocks)
        _copy(files, reader, writer, block)
    for split in split_names(files.place):
        how = split_attributes(files.place, split)
        write_split(writer.path, split, read_split(files.place, split), how=how)
    for measured in files.measures.values():
        _copy_measure(measured, into, writer)
    writer.finish()


def _copy_measure(measured: Measured, into: Zoo, writer: PopulationWriter) -> None:
    """Carry a measure over, as far as the members of each new block were measured."""
    measuring = create_measure(into.path, writer.name, measured.spec)
    size, there = measured.files.spec.block_size, set(measured.committed)
    for block in measuring.missing():
        members = writer.members_of(block)
        if {member // size for member in members} <= there:
            rows = slice(members.start, members.stop)
            values = {each.name: measured.array(each.name)[rows] for each in measured.spec.outputs}
            measuring.write_block(block, values)
    measuring.finish()


def _writer(files: PopulationFiles, into: Zoo, spec: PopulationSpec) -> PopulationWriter:
    """Create the population, or resume it when it is the same."""
    if spec.name not in into:
        architectures = files.architectures
        count = 0 if architectures.ragged is None else len(architectures.ragged.architectures)
        return into.create_population(spec, spaces=map(architectures.space, range(count)))
    writer = into.writer(spec.name)
    if writer.spec != spec:
        raise StoreError(
            f"Population {spec.name!r} in {into.path} is not what repacking {files.root} gives: "
            "another tier, another source or other blocks. Choose another target."
        )
    return writer


def _copy(files: PopulationFiles, reader: RowReader, writer: PopulationWriter, block: int) -> None:
    members = np.array(writer.members_of(block))
    epochs = range(len(files.spec.checkpoints))
    columns = {column.name: f"{COLUMNS}/{column.name}" for column in files.spec.columns}
    is_bool = {column.name for column in files.spec.columns if column.dtype == "bool"}
    values = {name: files.array(array)[members] for name, array in columns.items()}
    by_epoch = [reader.vectors(members, np.full(len(members), epoch)) for epoch in epochs]
    writer.write_block(
        block,
        weights=list(_by_member(by_epoch)),
        metrics={name: files.array(f"{METRICS}/{name}")[members] for name in files.spec.metrics},
        columns={name: v == 1 if name in is_bool else v for name, v in values.items()},
    )


def _by_member(by_epoch: Sequence[Sequence[np.ndarray]]) -> Iterator[np.ndarray]:
    """Yield each member's trajectory ``[C, P]``."""
    for vectors in zip(*by_epoch, strict=True):
        yield np.stack(vectors)
