"""Writing a population: block by block, each with one owner, each all there or not at all."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from zoo.errors import StoreError
from zoo.grouping import DEFAULT_FRACTIONS
from zoo.schema import (
    CHUNKS,
    COLUMNS,
    DEFAULT_SPLIT,
    LINEAGE,
    MEASURES,
    POPULATIONS,
    PopulationSpec,
)
from zoo.splits import SplitRule, adopt, check_codes
from zoo.store.disk.arrays import (
    ArrayLayout,
    block_arrays,
    read_layout,
    sync_directory,
)
from zoo.store.disk.chunks import Bytes, ChunkRecord, encode, write_temporary
from zoo.store.disk.claims import block_claim, coordinator_claim, remove_claims
from zoo.store.disk.files import PopulationFiles, read_spec
from zoo.store.disk.frozen import split_names, write_split
from zoo.store.disk.ledger import Ledger, LedgerEntry
from zoo.store.disk.leftovers import temporaries
from zoo.store.disk.metadata import consolidate
from zoo.store.disk.place import LocalPlace
from zoo.store.growth import grow
from zoo.store.incoming import check_block
from zoo.store.population import Population

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
        if not all(layout.is_known for layout in self._layouts.values()):
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
        weights: np.ndarray | Sequence[np.ndarray],
        metrics: Mapping[str, ArrayLike],
        columns: Mapping[str, ArrayLike],
    ) -> None:
        """Commit a block: every chunk durable and in place first, then its ledger entry.

        Parameters
        ----------
        block
            Its number.
        weights
            ``[n, C, P]`` float32, one row per member of :meth:`members_of`; for a ragged population
            one array ``[C, P]`` per member, its own ``P``.
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
            layout.key(index): encode(layout, chunk_values(layout, index, values[array]))
            for array, layout in self._layouts.items()
            for index in layout.chunks_of_block(block)
        }
        entry = self._entry(block, {key: record for key, (_, record) in encoded.items()})
        if block in self.committed:
            self._ledger.refuse_other(entry)
            return
        with block_claim(self.root, self.name, block):
            if block in self.committed:  # by another owner, while this one came here
                self._ledger.refuse_other(entry)
                return
            self._check_plan(block)
            place_files(self.path, {key: file for key, (file, _) in encoded.items()})
            self._ledger.publish(entry)

    def grow(self, num_members: int) -> None:
        """Plan more members, as the coordinator; see :func:`zoo.store.growth.grow`.

        Splits keep the members they were frozen with; the new ones are in no part of them.

        Raises
        ------
        StoreError
            If that is not more than now, or the last block is short and committed.
        """
        self.spec = grow(self.root, self.name, num_members)

    def compact(self) -> None:
        """Gather the ledger's entries into one file, as the coordinator; others may go on writing.

        Raises
        ------
        DamagedChunkError
            If an entry cannot be trusted.
        """
        with coordinator_claim(self.root):
            self._ledger.compact()

    def create_split(
        self,
        name: str,
        *,
        seed: int,
        fractions: Sequence[float] = DEFAULT_FRACTIONS,
        by: str | Sequence[str] = LINEAGE,
        validation: str | None = None,
        test: str | None = None,
    ) -> None:
        """Freeze a split: by families, by the values of columns, or by regions.

        Takes what :class:`zoo.splits.SplitRule` takes; ``by`` may be one column.

        Raises
        ------
        StoreError
            If blocks are missing, or the name holds another split.
        UnknownNameError
            If a column does not exist.
        InvalidConfigError
            If the rule leaves no members for a part.
        """
        columns = (by,) if isinstance(by, str) else tuple(by)
        rule = SplitRule(
            seed=seed, fractions=fractions, by=columns, validation=validation, test=test
        )
        table = Population(self._complete()).table
        codes = rule.codes(table, of=f"population {self.name!r}")
        self.freeze_split(name, codes, how=rule.to_attributes())

    def adopt_split(
        self, name: str, parts: Mapping[str, ArrayLike], *, source: str = "explicit lists"
    ) -> None:
        """Freeze a split that somebody chose member by member; see :func:`zoo.splits.adopt`.

        Parameters
        ----------
        name
            Its name.
        parts
            Member ids of ``train``, ``validation`` and ``test``, or of some of them.
        source
            Where the parts come from, such as the name of a file.

        Raises
        ------
        StoreError
            If blocks are missing, or the name holds another split.
        """
        lineage = self._complete().array(f"{COLUMNS}/{LINEAGE}")
        codes = adopt(parts, lineage, of=f"population {self.name!r}")
        self.freeze_split(name, codes, how={"by": "list", "source": source})

    def freeze_split(self, name: str, codes: np.ndarray, *, how: Mapping[str, Any]) -> None:
        """Freeze the codes of a split that was made before, such as in the zoo this one copies.

        Parameters
        ----------
        name
            Its name.
        codes
            Per member ``[M]``: 0 train, 1 validation, 2 test, -1 none.
        how
            What the split says of how it was made, plain JSON.

        Raises
        ------
        StoreError
            If blocks are missing, or the name holds another split.
        InvalidConfigError
            If relatives are in different parts, or the codes are not one for each member.
        """
        lineage = self._complete().array(f"{COLUMNS}/{LINEAGE}")
        check_codes(codes, lineage, of=f"population {self.name!r}")
        with coordinator_claim(self.root):
            write_split(self.path, name, codes, how=how)
            consolidate(self.path)
            consolidate(self.root)

    def finish(self, *, seed: int = 0, fractions: Sequence[float] = DEFAULT_FRACTIONS) -> None:
        """Do the coordinator's last work: one ledger file, default split if absent, table.

        What killed writers left is removed.

        Raises
        ------
        StoreError
            If blocks are missing.
        DamagedChunkError
            If the ledger, or a metric or column, cannot be trusted.
        """
        from zoo.store.root import Zoo

        with coordinator_claim(self.root):
            self._complete()
            self._remove_temporary()
            self._ledger.compact()
            if DEFAULT_SPLIT not in split_names(self.path):
                self.create_split(DEFAULT_SPLIT, seed=seed, fractions=fractions)
            Zoo(LocalPlace(self.root), writable=True).write_table()
            consolidate(self.path)
            consolidate(self.root)

    def _check_plan(self, block: int) -> None:
        """Refuse a block whose members the population's growth has changed meanwhile."""
        planned = LocalPlace(self.path).node()["attributes"]["num_members"]
        if planned == self.spec.num_members:
            return
        now = read_spec(self.path, self.name)
        if now.members_of(block) != self.members_of(block):
            raise StoreError(
                f"Expected block {block} of population {self.name!r} in {self.root} to have "
                f"{len(now.members_of(block))} members, since it grew to {now.num_members}, got "
                f"{len(self.members_of(block))}. Open the writer again and make the block whole."
            )

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
        remove_claims(self.root, self.name)
        for path in temporaries(self.root, self.name):
            if MEASURES in path.relative_to(self.root).parts:
                continue  # somebody may be measuring
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


def place_files(folder: Path, files: Mapping[str, Bytes]) -> None:
    """Write chunk files aside, then rename them all into place below a folder, durably."""
    placed = [folder / key for key in files]
    aside = [write_temporary(path, file) for path, file in zip(placed, files.values(), strict=True)]
    for temporary, path in zip(aside, placed, strict=True):
        temporary.replace(path)
    for changed in {each for path in placed for each in _changed_folders(path)}:
        sync_directory(changed)


def _changed_folders(path: Path) -> Iterator[Path]:
    """Yield the folders that a new chunk file may have added to, up to its array's chunk folder."""
    for folder in path.parents:
        yield folder
        if folder.name == CHUNKS:
            return


def chunk_values(layout: ArrayLayout, index: tuple[int, ...], values: np.ndarray) -> np.ndarray:
    """Cut a block's values ``[n, ...]`` to one of its chunks."""
    later = [
        slice(i * size, (i + 1) * size)
        for i, size in zip(index[1:], layout.chunks[1:], strict=True)
    ]
    return np.asarray(values[(slice(None), *later)])
