"""The arrays of a population: which there are, how Zarr describes them, where chunks lie."""

import json
import os
import warnings
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.errors import ZarrUserWarning

from zoo.errors import StoreError
from zoo.schema import (
    CHECKPOINT,
    CHUNKS,
    COLUMNS,
    MEMBER,
    METRICS,
    PARAMETER,
    SPLITS,
    WEIGHTS,
    ColumnSpec,
    PopulationSpec,
)

TRAILER_BYTES = 4
INT_FILL = -1
_PLAIN_CODECS = ("bytes", "crc32c")


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
    """

    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    codecs: tuple[str, ...]

    @property
    def is_plain(self) -> bool:
        """Whether a chunk file is the raw block and its CRC, which the own reader understands."""
        return self.codecs == _PLAIN_CODECS

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk file, its CRC included (for plain arrays)."""
        return prod(self.chunks) * self.dtype.itemsize + TRAILER_BYTES

    @property
    def fill(self) -> float | int:
        """Value of cells that nobody wrote."""
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
    metrics = [f"{METRICS}/{metric}" for metric in spec.metrics]
    columns = [f"{COLUMNS}/{column.name}" for column in spec.columns]
    return [WEIGHTS, *metrics, *columns, MEMBER]


def create_arrays(path: Path, spec: PopulationSpec) -> None:
    """Create the population's group and arrays at ``path``: metadata, and the checkpoint axis."""
    group = zarr.create_group(path, attributes=spec.to_attributes())
    for name in (METRICS, COLUMNS, SPLITS):
        group.create_group(name)
    members, epochs, size = spec.num_members, len(spec.checkpoints), spec.block_size
    create_array(
        group,
        WEIGHTS,
        shape=(members, epochs, spec.space.num_parameters),
        chunks=(size, 1, spec.space.num_parameters),
        dtype="float32",
        dimensions=(MEMBER, CHECKPOINT, PARAMETER),
    )
    for metric in spec.metrics:
        create_array(
            group,
            f"{METRICS}/{metric}",
            shape=(members, epochs),
            chunks=(size, epochs),
            dtype="float32",
            dimensions=(MEMBER, CHECKPOINT),
        )
    columns = [ColumnSpec(name=MEMBER, dtype="int64", role="identity"), *spec.columns]
    for column in columns:
        create_array(
            group,
            MEMBER if column.name == MEMBER else f"{COLUMNS}/{column.name}",
            shape=(members,),
            chunks=(size,),
            dtype="int8" if column.dtype in ("category", "bool") else column.dtype,
            dimensions=(MEMBER,),
            attributes=_column_attributes(column),
        )
    for name in block_arrays(spec):
        (path / name / CHUNKS).mkdir()
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


def create_array(
    group: zarr.Group,
    name: str,
    *,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: str,
    dimensions: tuple[str, ...],
    attributes: dict[str, Any] | None = None,
) -> zarr.Array[Any]:
    """Create one array with the store's codecs and fill value."""
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=float("nan") if dtype.startswith("float") else INT_FILL,
        filters=None,
        compressors=[Crc32cCodec()],
        dimension_names=dimensions,
        attributes=attributes or {},
    )


def read_layout(population: Path, name: str) -> ArrayLayout:
    """Read an array's layout from its ``zarr.json``.

    Raises
    ------
    StoreError
        If the file is missing or does not describe a little-endian array in regular chunks.
    """
    path = population / name / "zarr.json"
    try:
        raw = json.loads(path.read_text())
        codecs = raw["codecs"]
        swapped = any(c.get("configuration", {}).get("endian") == "big" for c in codecs)
        layout = ArrayLayout(
            name=name,
            shape=tuple(raw["shape"]),
            chunks=tuple(raw["chunk_grid"]["configuration"]["chunk_shape"]),
            dtype=np.dtype(raw["data_type"]).newbyteorder("<"),
            codecs=("big-endian",) if swapped else tuple(codec["name"] for codec in codecs),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"Expected the metadata of a Zarr v3 array at {path}, got {error!r}. "
            "Is the zoo complete? Copy it again or restore this file from a backup."
        ) from error
    return layout


def consolidate(path: Path) -> None:
    """Gather the metadata below a group into it, so that xarray opens it in one read."""
    with warnings.catch_warnings():
        # Zarr-python warns that consolidation is no part of the v3 standard; readers may ignore it.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(path)


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
