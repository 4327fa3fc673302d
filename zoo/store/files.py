"""One population's files as a reader sees them: verified chunks, and whole member arrays."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import zarr

from zoo.errors import DamagedChunkError, StoreError
from zoo.schema import CHECKPOINT, POPULATIONS, WEIGHTS, PopulationSpec
from zoo.store.arrays import ArrayLayout, read_layout
from zoo.store.chunks import Bytes, decode, fault
from zoo.store.ledger import Ledger


class PopulationFiles:
    """Reads what the ledger vouches for, and nothing else.

    The committed blocks are those of the moment of opening; blocks committed later are seen by
    opening again. Holds no open files, so it may be pickled to other processes.

    Parameters
    ----------
    root
        The zoo.
    name
        Name of the population.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name
        self.path = root / POPULATIONS / name
        self.ledger = Ledger(root, name)
        self.spec = read_spec(self.path, name)
        self.committed = sorted(self.ledger.committed())
        self._layouts: dict[str, ArrayLayout] = {}
        self._arrays: dict[str, np.ndarray] = {}

    def layout(self, array: str) -> ArrayLayout:
        """Return an array's layout."""
        if array not in self._layouts:
            self._layouts[array] = read_layout(self.path, array)
        return self._layouts[array]

    @cached_property
    def weights(self) -> ArrayLayout:
        """Layout of the weights."""
        return self.layout(WEIGHTS)

    @cached_property
    def is_committed(self) -> np.ndarray:
        """Per member planned, whether it is stored; bool."""
        mask = np.zeros(self.spec.num_members, dtype=bool)
        for block in self.committed:
            members = self.spec.members_of(block)
            mask[members.start : members.stop] = True
        return mask

    @cached_property
    def version(self) -> str:
        """Hash of what the numbers mean and of every committed chunk's checksum, 16 digits."""
        spec = self.spec
        meaning = {
            "space": spec.space.fingerprint,
            "checkpoints": spec.checkpoints,
            "num_members": spec.num_members,
            "columns": [(c.name, c.dtype, c.categories) for c in spec.columns],
        }
        lines = sorted(
            f"{self.name}/{key} {record.crc32c:08x}"
            for block in self.committed
            for key, record in self.ledger.entry(block).chunks.items()
        )
        text = "\n".join([json.dumps(meaning, sort_keys=True), *lines])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def array(self, array: str) -> np.ndarray:
        """Read a whole array that every block writes, such as a metric or a column.

        Returns
        -------
        np.ndarray
            One row per member planned; rows of blocks that are not committed hold the fill value.
        """
        if array not in self._arrays:
            layout = self.layout(array)
            values = np.full(layout.shape, layout.fill, dtype=layout.dtype.newbyteorder("="))
            for block in self.committed:
                for index in layout.chunks_of_block(block):
                    where = _slices(layout, index)
                    chunk = self.chunk(layout, index)
                    values[where] = chunk[tuple(slice(0, s.stop - s.start) for s in where)]
            self._arrays[array] = values
        return self._arrays[array]

    def chunk(self, layout: ArrayLayout, index: tuple[int, ...]) -> np.ndarray:
        """Read, verify and decode one chunk; shape ``layout.chunks``.

        Raises
        ------
        StoreError
            If its block is not committed.
        DamagedChunkError
            If the file is missing, truncated or altered.
        """
        file = self.verified(layout, index)
        if layout.is_plain:
            return decode(layout, file)
        # Some other pipeline of codecs: verified above, decoded by zarr-python.
        array = zarr.open_array(self.path / layout.name, mode="r")
        block = np.full(layout.chunks, layout.fill, dtype=layout.dtype.newbyteorder("="))
        part = np.asarray(array[_slices(layout, index)])
        block[tuple(slice(0, n) for n in part.shape)] = part
        return block

    def verified(self, layout: ArrayLayout, index: tuple[int, ...]) -> Bytes:
        """Read a chunk file whole and check it against the ledger; see :meth:`chunk`."""
        file, reason = self.examine(layout, index)
        if reason is not None:
            self.damaged(layout, index, reason)
        return file

    def examine(self, layout: ArrayLayout, index: tuple[int, ...]) -> tuple[Bytes, str | None]:
        """Read a chunk file and say what is wrong with it, ``None`` when nothing is.

        Raises
        ------
        StoreError
            If its block is not committed.
        """
        nothing = np.zeros(0, dtype=np.uint8)
        record = self.ledger.entry(index[0]).chunks.get(layout.key(index))
        if record is None:
            return nothing, "the ledger entry of its block does not list it"
        path = self.path / layout.key(index)
        if not path.is_file():
            return nothing, "the file is missing"
        file = np.fromfile(path, dtype=np.uint8)
        reason = fault(file, record)
        if reason is None and layout.is_plain and len(file) != layout.chunk_bytes:
            reason = f"{len(file)} bytes where the array's metadata asks for {layout.chunk_bytes}"
        return file, reason

    def damaged(self, layout: ArrayLayout, index: tuple[int, ...], reason: str) -> NoReturn:
        """Raise the error that names a damaged chunk and everyone concerned."""
        members, epochs = self.concerned(layout, index)
        raise DamagedChunkError(
            f"Chunk file {self.path / layout.key(index)} is damaged: {reason}. It holds "
            f"{layout.name!r} of members {members.start} to {members.stop - 1} of population "
            f"{self.name!r} at {_epochs_text(epochs)}; none of it was read. Run `zoo check "
            f"{self.root}` to list all damage, then restore the file or make the block again."
        )

    def concerned(
        self, layout: ArrayLayout, index: tuple[int, ...]
    ) -> tuple[range, tuple[int, ...]]:
        """Return the members and the epochs whose values a chunk holds (none for columns)."""
        members = self.spec.members_of(index[0])
        if len(index) == 1:
            return members, ()
        return members, self.spec.checkpoints[_slices(layout, index)[1]]

    def check_axis(self) -> None:
        """Raise :class:`StoreError` unless the checkpoint axis agrees with the attributes."""
        axis = zarr.open_array(self.path / CHECKPOINT, mode="r")
        if tuple(np.asarray(axis[:]).tolist()) != self.spec.checkpoints:
            raise StoreError(
                f"Expected the checkpoint axis of {self.path} to be {self.spec.checkpoints}, "
                "got other epochs: the array or the attributes were altered."
            )


def read_spec(path: Path, name: str) -> PopulationSpec:
    """Read a population's spec from its group.

    Raises
    ------
    StoreError
        If the group's attributes are missing or make no sense.
    """
    try:
        attributes: dict[str, Any] = json.loads((path / "zarr.json").read_text())["attributes"]
        return PopulationSpec.from_attributes(name, attributes)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise StoreError(
            f"Expected the attributes of population {name!r} in {path / 'zarr.json'}, "
            f"got {error!r}. Restore this file from a backup."
        ) from error


def _slices(layout: ArrayLayout, index: tuple[int, ...]) -> tuple[slice, ...]:
    """Return where a chunk lies in its array, cut at the array's end."""
    return tuple(
        slice(i * size, min((i + 1) * size, length))
        for i, size, length in zip(index, layout.chunks, layout.shape, strict=True)
    )


def _epochs_text(epochs: tuple[int, ...]) -> str:
    if not epochs:
        return "every epoch"
    return f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {epochs[0]} to {epochs[-1]}"
