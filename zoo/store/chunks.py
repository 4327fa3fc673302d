"""Chunk files: the raw little-endian block and four bytes of CRC32C, written atomically."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from zoo.store.arrays import TRAILER_BYTES, ArrayLayout, sync_directory

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
    block[: len(values)] = values
    block[len(values) :] = layout.fill
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
    """Return the numbers of a plain chunk file as a view, shape ``layout.chunks``."""
    return file[:-TRAILER_BYTES].view(layout.dtype).reshape(layout.chunks)


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
