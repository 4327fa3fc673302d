"""Random rows of weights at the speed of memory: an uncompressed Zarr chunk is the raw block.

Every chunk is checked against the ledger when a process first touches it; afterwards its rows are
copied straight from memory, from a mapping or from the file.
"""

import logging
import mmap
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np

from zoo.errors import StoreError, unknown_name
from zoo.store.chunks import decode
from zoo.store.files import PopulationFiles

Io = Literal["auto", "ram", "pread", "mmap"]
RAM_BUDGET = 2 * 2**30
_MODES = ("auto", "ram", "pread", "mmap")
_DECODED_KEPT = 16
_ROWS_PER_CHUNK = 4

T = TypeVar("T")
logger = logging.getLogger(__name__)


class RowReader:
    """Gathers (member, checkpoint) rows of one population's weights.

    Safe to share among threads and to pickle; open files belong to the process that opened them.

    Parameters
    ----------
    files
        The population.
    io
        ``ram`` keeps every chunk it touched in memory, ``pread`` reads rows from files (best when
        the zoo is larger than memory), ``mmap`` maps files (best when they are in the page cache).
        ``auto`` is ``ram`` while the committed weights fit a quarter of the free memory and 2 GiB,
        else ``pread``.

    Raises
    ------
    UnknownNameError
        If there is no such mode.
    """

    def __init__(self, files: PopulationFiles, *, io: Io = "auto") -> None:
        if io not in _MODES:
            raise unknown_name("io mode", io, _MODES)
        self.files = files
        self.io: Io = _resolve(files) if io == "auto" else io
        self._start()

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "io": self.io}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def gather(self, members: np.ndarray, checkpoints: np.ndarray) -> np.ndarray:
        """Read rows.

        Parameters
        ----------
        members, checkpoints
            Pairs of member id and checkpoint index, ``[n]``, int64, both in range.

        Returns
        -------
        np.ndarray
            ``[n, P]`` float32, a copy.

        Raises
        ------
        StoreError
            If a member's block is not committed.
        DamagedChunkError
            If a chunk is missing, truncated or altered.
        """
        if self._pid != os.getpid():
            self._start()  # a forked child opens its own files
        layout = self.files.weights
        blocks, rows = np.divmod(members, layout.chunks[0])
        keys = blocks * layout.shape[1] + checkpoints
        return self._source.gather(keys, rows).astype(np.float32, copy=False)

    def _start(self) -> None:
        self._pid = os.getpid()
        self._source: _Source = _SOURCES[self.io](self.files)


class _Source(Protocol):
    def gather(self, keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Read rows ``[n]`` of the chunks ``keys``; a chunk's key is ``block * C + checkpoint``."""


class _Memory:
    """All weights as one array in memory; a chunk is read into it when it is first touched."""

    def __init__(self, files: PopulationFiles) -> None:
        layout = files.weights
        size, _, width = layout.chunks
        num_chunks = files.spec.num_blocks * layout.shape[1]
        self.files = files
        self.lock = threading.Lock()
        self.is_loaded = np.zeros(num_chunks, dtype=bool)
        self.weights = np.empty((num_chunks, size, width), dtype=layout.dtype)

    def gather(self, keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if not self.is_loaded[keys].all():
            self._load(np.unique(keys))
        return np.asarray(self.weights[keys, rows])

    def _load(self, keys: np.ndarray) -> None:
        with self.lock:
            for key in keys[~self.is_loaded[keys]].tolist():
                index = _chunk_index(self.files, key)
                self.weights[key] = self.files.chunk(self.files.weights, index)[:, 0]
                self.is_loaded[key] = True


class _Mapped:
    """Chunks mapped into memory; or decoded, where other codecs leave nothing to map."""

    def __init__(self, files: PopulationFiles) -> None:
        self.files = files
        if files.weights.is_plain:
            self.blocks = _Cache(files, self._map, limit=_handle_limit())
        else:
            self.blocks = _Cache(files, self._decode, limit=_DECODED_KEPT)

    def gather(self, keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
        out = _empty(self.files, len(keys))
        distinct, group_of = np.unique(keys, return_inverse=True)
        if len(keys) > _ROWS_PER_CHUNK * len(distinct):
            for key, where in _groups(distinct, group_of):
                out[where] = self.blocks[key][rows[where]]
        elif len(keys):
            pairs = zip(keys.tolist(), rows.tolist(), strict=True)
            np.concatenate([self.blocks[key][row] for key, row in pairs], out=out.reshape(-1))
        return out

    def _map(self, index: tuple[int, ...]) -> np.ndarray:
        layout = self.files.weights
        with (self.files.path / layout.key(index)).open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return decode(layout, np.frombuffer(mapping, dtype=np.uint8))[:, 0]

    def _decode(self, index: tuple[int, ...]) -> np.ndarray:
        return self.files.chunk(self.files.weights, index)[:, 0]


class _Pread:
    """Chunk files from which rows are read one by one, past the page cache's read-ahead."""

    def __init__(self, files: PopulationFiles) -> None:
        self.files = files
        self.opened = _Cache(files, self._open, limit=_handle_limit())
        self.row_bytes = files.weights.chunks[2] * files.weights.dtype.itemsize

    def gather(self, keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
        out = _empty(self.files, len(keys))
        distinct, group_of = np.unique(keys, return_inverse=True)
        if len(keys) > _ROWS_PER_CHUNK * len(distinct):
            for key, where in _groups(distinct, group_of):
                out[where] = self._span(key, rows[where])
            return out
        buffer, size = _bytes_of(out), self.row_bytes
        for i, (key, row) in enumerate(zip(keys.tolist(), rows.tolist(), strict=True)):
            self.opened[key].read(buffer[i * size : (i + 1) * size], row * size)
        return out

    def _span(self, key: int, rows: np.ndarray) -> np.ndarray:
        """Read from the first to the last of many rows in one go, and pick."""
        first, last = int(rows.min()), int(rows.max())
        span = _empty(self.files, last - first + 1)
        self.opened[key].read(_bytes_of(span), first * self.row_bytes)
        return np.asarray(span[rows - first])

    def _open(self, index: tuple[int, ...]) -> "_OpenFile":
        return _OpenFile(str(self.files.path / self.files.weights.key(index)))


class _OpenFile:
    """A file that closes with its last reference."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def read(self, into: memoryview, offset: int) -> None:
        """Fill a buffer from a place in the file."""
        got = os.preadv(self.descriptor, [into], offset)
        while 0 < got < len(into):  # a signal, or more than the system reads at once
            more = os.preadv(self.descriptor, [into[got:]], offset + got)
            got = got + more if more else -1
        if got != len(into):
            raise StoreError(
                f"Expected {len(into)} bytes at {offset} of {self.path}, got fewer: the file "
                "shrank while it was being read. Open the zoo again."
            )


class _Cache(Generic[T]):
    """Opened chunks, verified when first touched, the oldest making room; safe among threads."""

    def __init__(
        self, files: PopulationFiles, load: Callable[[tuple[int, ...]], T], *, limit: int
    ) -> None:
        self.files = files
        self.load = load
        self.limit = limit
        self.lock = threading.Lock()
        self.kept: OrderedDict[int, T] = OrderedDict()
        self.verified: set[int] = set()

    def __getitem__(self, key: int) -> T:
        try:
            return self.kept[key]
        except KeyError:
            return self._open(key)

    def _open(self, key: int) -> T:
        index = _chunk_index(self.files, key)
        with self.lock:
            if key in self.kept:
                return self.kept[key]
            self._verify(key, index)
            self.kept[key] = chunk = self.load(index)
            while len(self.kept) > self.limit:
                self.kept.popitem(last=False)
            return chunk

    def _verify(self, key: int, index: tuple[int, ...]) -> None:
        """Check every byte once, and the size whenever the file is opened again."""
        layout = self.files.weights
        if key not in self.verified:
            self.files.verified(layout, index)
            self.verified.add(key)
        size = (self.files.path / layout.key(index)).stat().st_size
        if layout.is_plain and size != layout.chunk_bytes:
            self.files.damaged(layout, index, f"it changed to {size} bytes since it was verified")


_SOURCES: dict[Io, Callable[[PopulationFiles], _Source]] = {
    "ram": _Memory,
    "mmap": _Mapped,
    "pread": lambda files: _Pread(files) if files.weights.is_plain else _Mapped(files),
}


def _chunk_index(files: PopulationFiles, key: int) -> tuple[int, ...]:
    return (*divmod(key, files.weights.shape[1]), 0)


def _empty(files: PopulationFiles, num_rows: int) -> np.ndarray:
    return np.empty((num_rows, files.weights.shape[2]), dtype=files.weights.dtype)


def _bytes_of(block: np.ndarray) -> memoryview:
    return block.reshape(-1).view(np.uint8).data


def _groups(distinct: np.ndarray, group_of: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each key and the positions ``[k]`` at which it stands."""
    order = np.argsort(group_of, kind="stable")
    cuts = np.cumsum(np.bincount(group_of, minlength=len(distinct)))[:-1]
    yield from zip(distinct.tolist(), np.split(order, cuts), strict=True)


def _resolve(files: PopulationFiles) -> Io:
    """Choose between memory and files."""
    layout = files.weights
    needed = len(files.committed) * layout.shape[1] * layout.chunk_bytes
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    mode: Io = "ram" if needed <= min(RAM_BUDGET, free // 4) else "pread"
    logger.debug("reading %.0f MB of %s by %s", needed / 1e6, files.name, mode)
    return mode


def _handle_limit() -> int:
    """Return how many files one reader keeps open: half of what the system grants the process."""
    granted, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(32, min(granted, 8192) // 2) if granted > 0 else 4096
