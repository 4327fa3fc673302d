"""The arrays of a population: which there are, how Zarr describes them, where chunks lie."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, Crc32cCodec

from zoo.errors import StoreError
from zoo.layout import Compressor, Ragged
from zoo.schema import (
    BLOCK,
    CHECKPOINT,
    CHUNKS,
    COLUMNS,
    MEMBER,
    METRICS,
    OFFSET,
    PARAMETER,
    SPLITS,
    VALUE,
    WEIGHTS,
    ColumnSpec,
    PopulationSpec,
)
from zoo.space import WeightSpace
from zoo.store.disk.architectures import space_files
from zoo.store.disk.place import Place, place_of

TRAILER_BYTES = 4
INT_FILL = -1
MASK_FILL = 255
BLOSC: dict[Compressor, dict[str, Any]] = {
    "blosc-lz4-bitshuffle": {"cname": "lz4", "clevel": 5, "shuffle": "bitshuffle", "blocksize": 0}
}


@dataclass(frozen=True, kw_only=True)
class ArrayLayout:
    """Where the numbers of one array lie.

    Parameters
    ----------
    name
        Path below the population, such as ``metrics/test_loss``.
    shape, chunks
        Of the array and of one chunk; the first axis is ``member``.
    dtype
        Little-endian number type.
    codecs
        Names of its codecs, in order of writing.
    blosc
        Configuration of the Blosc codec among them, if there is one.
    """

    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    codecs: tuple[str, ...]
    blosc: Mapping[str, Any] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether a chunk file is the raw block and its CRC: rows are read without decoding."""
        return self.codecs == ("bytes", "crc32c")

    @property
    def is_known(self) -> bool:
        """Whether this package encodes and decodes its chunk files itself."""
        return self.is_plain or self.codecs == ("bytes", "blosc", "crc32c")

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk file, its CRC included, before any compression."""
        return prod(self.chunks) * self.dtype.itemsize + TRAILER_BYTES

    @property
    def fill(self) -> float | int:
        """Value of cells that nobody wrote."""
        if self.dtype.kind == "u":
            return MASK_FILL
        return float("nan") if self.dtype.kind == "f" else INT_FILL

    def key(self, index: tuple[int, ...]) -> str:
        """Return the path of a chunk below the population.

        >>> layout = ArrayLayout(
        ...     name="weights", shape=(5, 2, 3), chunks=(4, 1, 3), dtype=np.dtype("<f4"), codecs=()
        ... )
        >>> layout.key((1, 0, 0))
        'weights/c/1/0/0'
        """
        return "/".join((self.name, CHUNKS, *map(str, index)))

    def chunks_of_block(self, block: int) -> list[tuple[int, ...]]:
        """Return the indices of the chunks that a block of members owns."""
        counts = [-(-n // c) for n, c in zip(self.shape[1:], self.chunks[1:], strict=True)]
        return [(block, *rest) for rest in np.ndindex(*counts)]


def block_arrays(spec: PopulationSpec) -> list[str]:
    """Return the names of the arrays that every block writes, in the order of writing.

    ``member`` is the last, so that its id vouches for a row even to readers without the ledger.
    """
    ragged = [OFFSET] if isinstance(spec.space, Ragged) else []
    metrics = [f"{METRICS}/{metric}" for metric in spec.metrics]
    columns = [f"{COLUMNS}/{column.name}" for column in spec.columns]
    return [WEIGHTS, *ragged, *metrics, *columns, MEMBER]


def create_arrays(path: Path, spec: PopulationSpec, spaces: Iterable[WeightSpace] = ()) -> None:
    """Create the population's group and arrays at ``path``: metadata, and the checkpoint axis.

    Parameters
    ----------
    path
        Folder of the population; absent.
    spec
        What it is.
    spaces
        Weight spaces of its architectures, when it is ragged.

    Raises
    ------
    WeightSpaceMismatchError
        If the spaces are not those of the architectures.
    """
    files = space_files(spec, spaces)
    group = zarr.create_group(path, attributes=spec.to_attributes())
    for name in (METRICS, COLUMNS, SPLITS):
        group.create_group(name)
    _create_weights(group, spec)
    epochs = len(spec.checkpoints)
    for metric in spec.metrics:
        create_array(
            group,
            f"{METRICS}/{metric}",
            shape=(spec.num_members, epochs),
            chunks=(spec.block_size, epochs),
            dtype="float32",
            dimensions=(MEMBER, CHECKPOINT),
        )
    for column in spec.columns:
        dtype = "int8" if column.dtype in ("category", "bool") else column.dtype
        attributes = _column_attributes(column)
        _create_column(group, f"{COLUMNS}/{column.name}", spec, dtype, attributes)
    for name in block_arrays(spec):
        (path / name / CHUNKS).mkdir()
    for name, text in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(text)
    axis = create_array(
        group,
        CHECKPOINT,
        shape=(epochs,),
        chunks=(epochs,),
        dtype="int64",
        dimensions=(CHECKPOINT,),
        attributes={"units": "epochs"},
    )
    axis[:] = np.array(spec.checkpoints, dtype=np.int64)


def _create_weights(group: zarr.Group, spec: PopulationSpec) -> None:
    """Create the weights and what says whose they are: ``member``, and ``offset`` when ragged."""
    is_ragged = isinstance(spec.space, Ragged)
    rows = (BLOCK, spec.num_blocks, 1) if is_ragged else (MEMBER, spec.num_members, spec.block_size)
    create_array(
        group,
        WEIGHTS,
        shape=(rows[1], len(spec.checkpoints), spec.row_length),
        chunks=(rows[2], 1, spec.row_length),
        dtype=spec.storage.dtype,
        dimensions=(rows[0], CHECKPOINT, VALUE if is_ragged else PARAMETER),
        compressor=spec.storage.compressor,
    )
    identity = ColumnSpec(name=MEMBER, dtype="int64", role="identity")
    _create_column(group, MEMBER, spec, "int64", _column_attributes(identity))
    if is_ragged:
        description = "first position of the member in its block's row of weights"
        _create_column(group, OFFSET, spec, "int64", {"long_name": description})


def _create_column(
    group: zarr.Group, name: str, spec: PopulationSpec, dtype: str, attributes: dict[str, Any]
) -> None:
    create_array(
        group,
        name,
        shape=(spec.num_members,),
        chunks=(spec.block_size,),
        dtype=dtype,
        dimensions=(MEMBER,),
        attributes=attributes,
    )


def create_array(
    group: zarr.Group,
    name: str,
    *,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: str,
    dimensions: tuple[str, ...],
    attributes: dict[str, Any] | None = None,
    compressor: Compressor | None = None,
) -> zarr.Array[Any]:
    """Create one array with the store's codecs and fill value."""
    compressors: list[BytesBytesCodec] = [Crc32cCodec()]
    if compressor is not None:
        compressors.insert(0, BloscCodec(typesize=np.dtype(dtype).itemsize, **BLOSC[compressor]))
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=_fill(dtype),
        filters=None,
        compressors=compressors,
        dimension_names=dimensions,
        attributes=attributes or {},
    )


def _fill(dtype: str) -> float | int:
    if dtype.startswith("uint"):
        return MASK_FILL
    return float("nan") if dtype.startswith("float") else INT_FILL


def read_layout(population: Path | Place, name: str) -> ArrayLayout:
    """Read an array's layout from its ``zarr.json``.

    Raises
    ------
    StoreError
        If the file is missing or does not describe a little-endian array in regular chunks.
    """
    place = place_of(population)
    try:
        raw = place.node(name)
        codecs = raw["codecs"]
        how = {codec["name"]: codec.get("configuration", {}) for codec in codecs}
        swapped = how["bytes"].get("endian") == "big"
        layout = ArrayLayout(
            name=name,
            shape=tuple(raw["shape"]),
            chunks=tuple(raw["chunk_grid"]["configuration"]["chunk_shape"]),
            dtype=np.dtype(raw["data_type"]).newbyteorder("<"),
            codecs=("big-endian",) if swapped else tuple(codec["name"] for codec in codecs),
            blosc=how.get("blosc"),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"Expected the metadata of a Zarr v3 array at {place / name}, got {error!r}. "
            "Is the zoo complete? Copy it again or restore this file from a backup."
        ) from error
    return layout


def sync_directory(path: Path) -> None:
    """Make renames inside a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Make every file and directory below ``path`` durable."""
    for entry in (path, *path.rglob("*")):
        sync_directory(entry)  # fsync asks for a descriptor; files and directories alike


def _column_attributes(column: ColumnSpec) -> dict[str, Any]:
    """Return attributes after the CF conventions; category names there may hold no blanks."""
    attributes: dict[str, Any] = {"role": column.role, "scale": column.scale}
    if column.unit:
        attributes["units"] = column.unit
    if column.description:
        attributes["long_name"] = column.description
    values = ("false", "true") if column.dtype == "bool" else column.categories
    if values:
        attributes["flag_values"] = list(range(len(values)))
        attributes["flag_meanings"] = " ".join("_".join(value.split()) for value in values)
        attributes["categories"] = list(values)
    return attributes
