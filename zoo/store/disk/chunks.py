"""Chunk files: the raw little-endian block and four bytes of CRC32C, written atomically."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import Blosc

from zoo.store.disk.arrays import TRAILER_BYTES, ArrayLayout, sync_directory

TEMPORARY = ".tmp"
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class ChunkRecord:
    """Size and checksum of one chunk file.

    Parameters
    ----------
    num_bytes
        Bytes of the whole file.
    crc32c
        Of every byte but the last four, which hold it, little-endian.
    """

    num_bytes: int
    crc32c: int


def encode(layout: ArrayLayout, values: np.ndarray) -> tuple[Bytes, ChunkRecord]:
    """Lay values out as the bytes of a chunk file.

    Parameters
    ----------
    values
        ``[n, ...]`` with ``n`` at most the chunk's members; the rest is filled up.

    Returns
    -------
    Bytes
        The whole file.
    ChunkRecord
        What the ledger says about it.
    """
    file = np.empty(layout.chunk_bytes, dtype=np.uint8)
    block = file[:-TRAILER_BYTES].view(layout.dtype).reshape(layout.chunks)
    with np.errstate(over="ignore"):  # diverged members in float16; others were refused before
        block[: len(values)] = values
    block[len(values) :] = layout.fill
    if layout.blosc is not None:
        file = _compressed(layout.blosc, block)
    crc = int(google_crc32c.value(file[:-TRAILER_BYTES]))
    file[-TRAILER_BYTES:] = np.frombuffer(crc.to_bytes(TRAILER_BYTES, "little"), dtype=np.uint8)
    return file, ChunkRecord(len(file), crc)


def fault(file: Bytes, record: ChunkRecord | None) -> str | None:
    """Say what is wrong with the bytes of a chunk file; ``None`` when nothing is.

    Parameters
    ----------
    record
        What the ledger says; ``None`` checks against the file's own trailer only.
    """
    if record is not None and len(file) != record.num_bytes:
        return f"{len(file)} bytes where the ledger says {record.num_bytes}"
    if len(file) <= TRAILER_BYTES:
        return f"{len(file)} bytes, less than a checksum and one value"
    trailer = int.from_bytes(file[-TRAILER_BYTES:].tobytes(), "little")
    crc = int(google_crc32c.value(file[:-TRAILER_BYTES]))
    if crc != trailer:
        return f"its bytes have CRC32C {crc:08x}, its trailer says {trailer:08x}"
    if record is not None and crc != record.crc32c:
        return f"its bytes have CRC32C {crc:08x}, the ledger says {record.crc32c:08x}"
    return None


def decode(layout: ArrayLayout, file: Bytes) -> np.ndarray:
    """Return the numbers of an intact chunk file of known codecs, shape ``layout.chunks``.

    A view of the file when it is plain.

    Raises
    ------
    ValueError
        If it holds another count of numbers than the layout says, or cannot be decompressed.
    """
    body = file[:-TRAILER_BYTES]
    if layout.blosc is not None:
        try:
            body = np.frombuffer(Blosc().decode(body), dtype=np.uint8)
        except RuntimeError as error:
            raise ValueError(f"its bytes are no Blosc buffer: {error}") from error
    return body.view(layout.dtype).reshape(layout.chunks)


def _compressed(blosc: Mapping[str, Any], block: np.ndarray) -> Bytes:
    """Compress as zarr-python does, byte for byte; room for the checksum is left at the end.

    The size of a number is taken from the array, as releases of numcodecs differ in asking for it.
    """
    shuffle = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}[blosc["shuffle"]]
    codec = Blosc(blosc["cname"], blosc["clevel"], shuffle, blosc["blocksize"])
    packed = codec.encode(block.reshape(-1))
    file = np.empty(len(packed) + TRAILER_BYTES, dtype=np.uint8)
    file[:-TRAILER_BYTES] = np.frombuffer(packed, dtype=np.uint8)
    return file


def write_temporary(path: Path, data: bytes | Bytes) -> Path:
    """Write a durable temporary file beside ``path`` and return where it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    with temporary.open("wb") as file:
        file.write(data if isinstance(data, bytes) else data.data)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def replace_file(path: Path, data: bytes | Bytes) -> None:
    """Write a file so that a reader, and a crash, see all of it or nothing."""
    write_temporary(path, data).replace(path)
    sync_directory(path.parent)


def is_temporary(path: Path) -> bool:
    """Whether a path is what a writer leaves when it is killed."""
    return path.name.startswith(".") and path.name.endswith(TEMPORARY)
