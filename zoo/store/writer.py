"""Writing a population: block by block, each with one owner, each all there or not at all."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from zoo.errors import StoreError
from zoo.schema import CHUNKS, COLUMNS, DEFAULT_SPLIT, LINEAGE, POPULATIONS, TABLE, PopulationSpec
from zoo.splits import DEFAULT_FRACTIONS, assign
from zoo.store.arrays import (
    ArrayLayout,
    block_arrays,
    consolidate,
    read_layout,
    sync_directory,
)
from zoo.store.chunks import Bytes, ChunkRecord, encode, is_temporary, write_temporary
from zoo.store.files import PopulationFiles, read_spec
from zoo.store.frozen import split_names, write_split
from zoo.store.incoming import check_block
from zoo.store.ledger import Ledger, LedgerEntry

_DISK_BLOCK = 4096


class PopulationWriter:
    """Writes the blocks of one population; processes may share them if each block has one owner.

    Parameters
    ----------
    root
        The zoo.
    name
        Name of a population that was created.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.path = root / POPULATIONS / name
        self.spec: PopulationSpec = read_spec(self.path, name)
        self._ledger = Ledger(root, name)
        self._layouts = {array: read_layout(self.path, array) for array in block_arrays(self.spec)}
        if not all(layout.is_plain for layout in self._layouts.values()):
            raise StoreError(
                f"Population {name!r} in {root} was stored with other codecs and is read only. "
                "Write a new population instead."
            )

    @property
    def name(self) -> str:
        """Name of the population."""
        return self.spec.name

    @property
    def block_size(self) -> int:
        """Members per block."""
        return self.spec.block_size

    @property
    def num_blocks(self) -> int:
        """Blocks planned."""
        return self.spec.num_blocks

    @property
    def committed(self) -> set[int]:
        """Blocks committed by now, by anyone."""
        return self._ledger.committed()

    def members_of(self, block: int) -> range:
        """Return the member ids of a block; its arrays have one row for each."""
        return self.spec.members_of(block)

    def bytes_needed(self) -> int:
        """Return the disk space that the blocks not yet committed will take, in bytes."""
        per_block = 2 * _DISK_BLOCK + sum(
            (-(-layout.chunk_bytes // _DISK_BLOCK) + 1) * _DISK_BLOCK
            for layout in self._layouts.values()
            for _ in layout.chunks_of_block(0)
        )
        return per_block * (self.num_blocks - len(self.committed))

    def write_block(
        self,
        block: int,
        *,
        weights: np.ndarray,
        metrics: Mapping[str, ArrayLike],
        columns: Mapping[str, ArrayLike],
    ) -> None:
        """Commit a block: every chunk durable and in place first, then its ledger entry.

        Parameters
        ----------
        block
            Its number.
        weights
            ``[n, C, P]`` float32, one row per member of :meth:`members_of`.
        metrics
            Each ``[n, C]``; all that the spec names.
        columns
            Each ``[n]``; all that the spec names. Categories as strings or as int8 codes.

        Raises
        ------
        StoreError
            If the arrays are not exactly this block's, or it is committed with other numbers.
        WeightSpaceMismatchError
            If the weights are of another weight space.
        """
        values = check_block(self.spec, block, weights, metrics, columns)
        encoded = {
            layout.key(index): encode(layout, _chunk_values(layout, index, values[array]))
            for array, layout in self._layouts.items()
            for index in layout.chunks_of_block(block)
        }
        entry = self._entry(block, {key: record for key, (_, record) in encoded.items()})
        if block in self.committed:
            self._ledger.refuse_other(entry)
            return
        self._place({key: file for key, (file, _) in encoded.items()})
        self._ledger.publish(entry)

    def create_split(
        self,
        name: str,
        *,
        seed: int,
        fractions: Sequence[float] = DEFAULT_FRACTIONS,
    ) -> None:
        """Freeze a split by lineage; see :func:`zoo.splits.assign`.

        Raises
        ------
        StoreError
            If blocks are missing, or the name holds another split.
        """
        files = self._complete()
        codes = assign(files.array(f"{COLUMNS}/{LINEAGE}"), seed=seed, fractions=fractions)
        write_split(self.path, name, codes, seed=seed, fractions=fractions, by=LINEAGE)
        consolidate(self.path)

    def finish(self, *, seed: int = 0, fractions: Sequence[float] = DEFAULT_FRACTIONS) -> None:
        """Do the coordinator's last work: default split if absent, table, old temporary files.

        Raises
        ------
        StoreError
            If blocks are missing.
        """
        from zoo.store.root import Zoo

        self._complete()
        self._remove_temporary()
        if DEFAULT_SPLIT not in split_names(self.path):
            self.create_split(DEFAULT_SPLIT, seed=seed, fractions=fractions)
        zoo = Zoo(self.root, writable=True)
        zoo.write_table()
        consolidate(self.root)

    def _complete(self) -> PopulationFiles:
        """Return the population as a reader sees it; it must have every block."""
        files = PopulationFiles(self.root, self.name)
        missing = sorted(set(range(self.num_blocks)) - set(files.committed))
        if missing:
            raise StoreError(
                f"Expected all {self.num_blocks} blocks of population {self.name!r} in "
                f"{self.root}, got {len(files.committed)}; block {missing[0]} is the first that is "
                "missing. Resume the run that makes the population."
            )
        return files

    def _remove_temporary(self) -> None:
        """Remove what killed writers left; with every block committed nobody is writing."""
        beside = [*self.root.glob(f".{TABLE}.*"), *self.path.parent.glob(f".{self.name}.*")]
        inside = [*self.path.rglob(".*"), *self._ledger.folder.rglob(".*")]
        for path in filter(is_temporary, beside + inside):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _entry(self, block: int, chunks: dict[str, ChunkRecord]) -> LedgerEntry:
        members = self.members_of(block)
        return LedgerEntry(
            population=self.name,
            block=block,
            start=members.start,
            stop=members.stop,
            chunks=chunks,
        )

    def _place(self, files: dict[str, Bytes]) -> None:
        """Write chunk files aside, then rename them all into place, durably."""
        placed = [self.path / key for key in files]
        aside = [
            write_temporary(path, file) for path, file in zip(placed, files.values(), strict=True)
        ]
        for temporary, path in zip(aside, placed, strict=True):
            temporary.replace(path)
        for folder in {folder for path in placed for folder in _changed_folders(path)}:
            sync_directory(folder)


def _changed_folders(path: Path) -> Iterator[Path]:
    """Yield the folders that a new chunk file may have added to, up to its array's chunk folder."""
    for folder in path.parents:
        yield folder
        if folder.name == CHUNKS:
            return


def _chunk_values(layout: ArrayLayout, index: tuple[int, ...], values: np.ndarray) -> np.ndarray:
    """Cut a block's values ``[n, ...]`` to one of its chunks."""
    later = [
        slice(i * size, (i + 1) * size)
        for i, size in zip(index[1:], layout.chunks[1:], strict=True)
    ]
    return np.asarray(values[(slice(None), *later)])
