"""One population's files as a reader sees them: verified chunks, and whole member arrays."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import zarr

from zoo.errors import DamagedChunkError, StoreError
from zoo.layout import Ragged
from zoo.measured import Output
from zoo.schema import CHECKPOINT, MEASURES, POPULATIONS, WEIGHTS, PopulationSpec
from zoo.store.disk.architectures import Architectures
from zoo.store.disk.arrays import ArrayLayout, read_layout
from zoo.store.disk.chunks import Bytes, decode, fault
from zoo.store.disk.ledger import Ledger
from zoo.store.disk.measures import Measured, measures_of, outputs_of
from zoo.store.disk.place import NODE, Place, place_of

_BYTES_AT_ONCE = 64 * 2**20
_FILES_AT_ONCE = 128


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

    def __init__(self, root: Path | Place, name: str) -> None:
        self.root = str(root)
        self.root_place = place_of(root)
        self.name = name
        self.place = self.root_place / f"{POPULATIONS}/{name}"
        self.ledger = Ledger(root, name)
        self.spec = read_spec(self.place, name)
        # Blocks past the plan belong to a later state of the zoo, which is being copied here.
        self.committed = sorted(self.ledger.committed() & set(range(self.spec.num_blocks)))
        self._layouts: dict[str, ArrayLayout] = {}
        self._arrays: dict[str, np.ndarray] = {}

    @property
    def path(self) -> Path:
        """Its folder, of a population on this machine."""
        if self.place.local is None:
            raise StoreError(
                f"Expected a population on this machine's file system, got {self.place}. "
                "Copy the zoo here first, by `zoo publish`."
            )
        return self.place.local

    @property
    def is_local(self) -> bool:
        """Whether its chunk files can be opened and mapped on this machine."""
        return self.place.local is not None

    def layout(self, array: str) -> ArrayLayout:
        """Return an array's layout; an array may have grown past the members planned."""
        if array not in self._layouts:
            self._layouts[array] = self._planned(read_layout(self.place, array))
        return self._layouts[array]

    @cached_property
    def weights(self) -> ArrayLayout:
        """Layout of the weights."""
        return self.layout(WEIGHTS)

    @cached_property
    def architectures(self) -> Architectures:
        """Which weight space each member has."""
        return Architectures(self)

    @cached_property
    def measures(self) -> dict[str, Measured]:
        """What was measured after the fact, by name of the measure."""
        return measures_of(self)

    @cached_property
    def outputs(self) -> dict[str, tuple[Measured, Output]]:
        """Every array that was measured after the fact, by name, and of which measure it is."""
        return outputs_of(self.measures)

    def ledger_of(self, array: str) -> Ledger:
        """Return the ledger that vouches for an array: every measure has its own."""
        folder, _, name = array.rpartition("/")
        return self.outputs[name][0].ledger if folder == MEASURES else self.ledger

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
            indices = [i for block in self.committed for i in layout.chunks_of_block(block)]
            for index, chunk in zip(indices, self.chunks(layout, indices), strict=True):
                where = _slices(layout, index)
                values[where] = chunk[tuple(slice(0, s.stop - s.start) for s in where)]
            self._arrays[array] = values
        return self._arrays[array]

    def array_at(self, array: str, checkpoint: int) -> np.ndarray:
        """Read one checkpoint of an array that has them, and keep no other in memory.

        Returns
        -------
        np.ndarray
            One number per member planned, as :meth:`array` returns them.
        """
        if array in self._arrays:
            return np.asarray(self._arrays[array][:, checkpoint])
        key = f"{array}@{checkpoint}"
        if key not in self._arrays:
            layout = self.layout(array)
            values = np.full(len(self.is_committed), layout.fill, layout.dtype.newbyteorder("="))
            column, inside = divmod(checkpoint, layout.chunks[1])
            indices = [(block, column) for block in self.committed]
            for index, chunk in zip(indices, self.chunks(layout, indices), strict=True):
                members = self.spec.members_of(index[0])
                values[members.start : members.stop] = chunk[: len(members), inside]
            self._arrays[key] = values
        return self._arrays[key]

    def chunk(self, layout: ArrayLayout, index: tuple[int, ...]) -> np.ndarray:
        """Read, verify and decode one chunk; shape ``layout.chunks``.

        Raises
        ------
        StoreError
            If its block is not committed.
        DamagedChunkError
            If the file is missing, truncated or altered.
        """
        return self.decoded(layout, index, self.verified(layout, index))

    def chunks(
        self, layout: ArrayLayout, indices: Sequence[tuple[int, ...]]
    ) -> Iterator[np.ndarray]:
        """Yield chunks as :meth:`chunk` returns them; from elsewhere, many are fetched together."""
        at_once = min(max(_BYTES_AT_ONCE // layout.chunk_bytes, 1), _FILES_AT_ONCE)
        files = self.place.read_many([layout.key(index) for index in indices], at_once=at_once)
        for index, data in zip(indices, files, strict=True):
            file, reason = self._examined(layout, index, data)
            if reason is not None:
                self.damaged(layout, index, reason)
            yield self.decoded(layout, index, file)

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
        self.ledger_of(layout.name).entry(index[0])
        (data,) = self.place.read_many([layout.key(index)])
        return self._examined(layout, index, data)

    def damaged(self, layout: ArrayLayout, index: tuple[int, ...], reason: str) -> NoReturn:
        """Raise the error that names a damaged chunk and everyone concerned."""
        members, epochs = self.concerned(layout, index)
        raise DamagedChunkError(
            f"Chunk file {self.place / layout.key(index)} is damaged: {reason}. It holds "
            f"{layout.name!r} of members {members.start} to {members.stop - 1} of population "
            f"{self.name!r} at {_epochs_text(epochs)}; none of it was read. Run `zoo check "
            f"{self.root}` to list all damage, then restore the file or make the block again."
        )

    def concerned(
        self, layout: ArrayLayout, index: tuple[int, ...]
    ) -> tuple[range, tuple[int, ...]]:
        """Return the members and the epochs whose values a chunk holds (none for columns)."""
        members = self.spec.members_of(index[0])
        folder, _, name = layout.name.rpartition("/")
        if len(index) == 1 or (folder == MEASURES and not self.outputs[name][1].has_checkpoints):
            return members, ()
        return members, self.spec.checkpoints[_slices(layout, index)[1]]

    def check_axis(self) -> None:
        """Raise :class:`StoreError` unless the checkpoint axis agrees with the attributes."""
        layout = read_layout(self.place, CHECKPOINT)
        (data,) = self.place.read_many([layout.key((0,))])
        file = np.frombuffer(data or b"", dtype=np.uint8)
        reason = fault(file, None)
        if reason is None and tuple(decode(layout, file).tolist()) != self.spec.checkpoints:
            reason = "it holds other epochs"
        if reason is not None:
            raise StoreError(
                f"Expected the checkpoint axis of {self.place} to be {self.spec.checkpoints}, but "
                f"{reason}: the array or the attributes were altered. `zoo check --repair` writes "
                "the axis again."
            )

    def _examined(
        self, layout: ArrayLayout, index: tuple[int, ...], data: bytes | None
    ) -> tuple[Bytes, str | None]:
        """Check the bytes of a chunk file, ``None`` when there is none."""
        file = np.frombuffer(data or b"", dtype=np.uint8)
        entry = self.ledger_of(layout.name).entry(index[0])
        record = entry.chunks.get(layout.key(index))
        if record is None:
            return file, "the ledger entry of its block does not list it"
        if data is None:
            return file, "the file is missing"
        reason = fault(file, record)
        if reason is None and layout.is_plain and len(file) != layout.chunk_bytes:
            reason = f"{len(file)} bytes where the array's metadata asks for {layout.chunk_bytes}"
        return file, reason

    def decoded(self, layout: ArrayLayout, index: tuple[int, ...], file: Bytes) -> np.ndarray:
        """Decode an intact chunk file; other pipelines of codecs than ours by zarr-python."""
        try:
            if layout.is_known:
                return decode(layout, file)
            return _decoded_by_zarr(self.place.node(layout.name), layout, index, file)
        except ValueError as error:
            self.damaged(layout, index, str(error))

    def _planned(self, layout: ArrayLayout) -> ArrayLayout:
        """Cut an array that has grown, or began to, to what the attributes plan."""
        is_by_block = isinstance(self.spec.space, Ragged) and layout.name == WEIGHTS
        planned = self.spec.num_blocks if is_by_block else self.spec.num_members
        if layout.name == CHECKPOINT or layout.shape[0] <= planned:
            return layout
        return replace(layout, shape=(planned, *layout.shape[1:]))


def read_spec(path: Path | Place, name: str) -> PopulationSpec:
    """Read a population's spec from its group.

    Raises
    ------
    StoreError
        If the group's attributes are missing or make no sense.
    """
    place = place_of(path)
    try:
        attributes: dict[str, Any] = place.node()["attributes"]
        return PopulationSpec.from_attributes(name, attributes)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise StoreError(
            f"Expected the attributes of population {name!r} in {place / NODE}, got {error!r}. "
            "Restore this file from a backup, or by `zoo check --repair` from its copy in the root."
        ) from error


def _decoded_by_zarr(
    node: dict[str, Any], layout: ArrayLayout, index: tuple[int, ...], file: Bytes
) -> np.ndarray:
    """Decode a verified chunk by whatever codecs its array names; shape ``layout.chunks``."""
    from zarr.core.buffer import cpu
    from zarr.storage import MemoryStore

    key = layout.key(index).removeprefix(f"{layout.name}/")
    files = {NODE: json.dumps(node).encode(), key: file.tobytes()}
    store = MemoryStore({name: cpu.Buffer.from_bytes(data) for name, data in files.items()})
    block = np.full(layout.chunks, layout.fill, dtype=layout.dtype.newbyteorder("="))
    part = np.asarray(zarr.open_array(store, mode="r")[_slices(layout, index)])
    block[tuple(slice(0, n) for n in part.shape)] = part
    return block


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
