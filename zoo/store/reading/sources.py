"""Where rows of weights come from: memory, mapped files, open files, or decoded chunks.

A chunk's key is ``block * C + checkpoint``. Every chunk is checked against the ledger when a
process first touches it; afterwards its rows are copied without looking at the rest.
"""

import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Literal, Protocol

import numpy as np

from zoo.errors import StoreError
from zoo.store.disk.files import PopulationFiles
from zoo.store.reading.arena import Arena

Io = Literal["auto", "ram", "pread", "mmap"]
_DECODED_KEPT = 32  # twice what zoo.sampling mixes at a time
_ROWS_PER_CHUNK = 4
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)


class Source(Protocol):
    """Copies numbers out of a population's chunks of weights, in their stored dtype."""

    def gather(self, keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Read rows ``[n]`` of the chunks ``keys``: ``[n, row_length]``."""

    def fill(self, key: int, start: int, into: np.ndarray) -> None:
        """Copy what stands from position ``start`` of a chunk on; ``into`` is contiguous."""


def open_source(files: PopulationFiles, io: Io) -> Source:
    """Return what reads by ``io``; chunks that have to be decoded are, unless memory holds them."""
    if io == "ram":
        return _Whole.in_memory(files)
    if not (files.weights.is_plain and files.is_local):
        return _Decoded(files)
    return _Whole.mapped(files) if io == "mmap" else _Pread(files)


class _Whole:
    """All weights as one array, ``[chunk, row, number]``; chunks get there when first touched."""

    def __init__(self, weights: np.ndarray, load: Callable[[list[int]], Iterator[int]]) -> None:
        self.weights = weights
        self.load = load
        self.lock = threading.Lock()
        self.is_loaded = np.zeros(len(weights), dtype=bool)

    @classmethod
    def in_memory(cls, files: PopulationFiles) -> "_Whole":
        """Chunks are read, and decoded, into memory."""
        size, _, width = files.weights.chunks
        weights = np.empty((_num_chunks(files), size, width), dtype=files.weights.dtype)

        def load(keys: list[int]) -> Iterator[int]:
            chunks = files.chunks(files.weights, [_index(files, key) for key in keys])
            for key, chunk in zip(keys, chunks, strict=True):
                weights[key] = chunk[:, 0]
                yield key

        return cls(weights, load)

    @classmethod
    def mapped(cls, files: PopulationFiles) -> "_Whole":
        """Chunk files are mapped side by side."""
        size, _, width = files.weights.chunks
        arena = Arena(_num_chunks(files), files.weights.chunk_bytes)

        def load(keys: list[int]) -> Iterator[int]:
            for key in keys:
                index = _index(files, key)
                files.verified(files.weights, index)
                arena.map(key, files.path / files.weights.key(index))
                yield key

        return cls(arena.view((size, width), files.weights.dtype), load)

    def gather(self, keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if not self.is_loaded[keys].all():
            self._load(np.unique(keys))
        return np.asarray(self.weights[keys, rows])

    def fill(self, key: int, start: int, into: np.ndarray) -> None:
        if not self.is_loaded[key]:
            self._load(np.array([key]))
        into[:] = self.weights[key].reshape(-1)[start : start + len(into)]

    def _load(self, keys: np.ndarray) -> None:
        with self.lock:
            for key in self.load(keys[~self.is_loaded[keys]].tolist()):
                self.is_loaded[key] = True


class _Decoded:
    """Chunks that have to be decoded whole, or fetched from elsewhere; the last ones are kept."""

    def __init__(self, files: PopulationFiles) -> None:
        self.files = files
        self.lock = threading.Lock()
        self.kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def gather(self, keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
        out = _empty(self.files, len(keys))
        wanted = dict(_groups(keys))
        for key, chunk in self._chunks(list(wanted)):
            out[wanted[key]] = chunk[rows[wanted[key]]]
        return out

    def fill(self, key: int, start: int, into: np.ndarray) -> None:
        ((_, chunk),) = self._chunks([key])
        into[:] = chunk.reshape(-1)[start : start + len(into)]

    def _chunks(self, keys: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield chunks by key, those at hand first."""
        with self.lock:
            found = {key: self.kept[key] for key in keys if key in self.kept}
        yield from found.items()
        missing = [key for key in keys if key not in found]
        indices = [_index(self.files, key) for key in missing]
        chunks = self.files.chunks(self.files.weights, indices)
        for key, chunk in zip(missing, chunks, strict=True):
            with self.lock:
                self.kept[key] = chunk[:, 0]
                while len(self.kept) > _DECODED_KEPT:
                    self.kept.popitem(last=False)
            yield key, chunk[:, 0]


class _Pread:
    """Chunk files from which rows are read one by one, past the page cache's read-ahead."""

    def __init__(self, files: PopulationFiles) -> None:
        self.files = files
        self.limit = _handle_limit()
        self.lock = threading.Lock()
        self.verified: set[int] = set()
        self.opened: OrderedDict[int, _OpenFile] = OrderedDict()
        self.itemsize = files.weights.dtype.itemsize
        self.row_bytes = files.weights.chunks[2] * self.itemsize

    def gather(self, keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
        out = _empty(self.files, len(keys))
        if len(keys) > _ROWS_PER_CHUNK * len(np.unique(keys)):
            for key, where in _groups(keys):
                self._span(key, rows[where], out, where)
            return out
        buffer, size = _bytes_of(out), self.row_bytes
        waiting = []
        for i, (key, row) in enumerate(zip(keys.tolist(), rows.tolist(), strict=True)):
            file, into = self._file(key), buffer[i * size : (i + 1) * size]
            if not file.read_cached(into, row * size):
                waiting.append((file, into, row * size))
        for file, into, offset in waiting:  # the disk looks for all of them at once
            file.expect(len(into), offset)
        for file, into, offset in waiting:
            file.read(into, offset)
        return out

    def fill(self, key: int, start: int, into: np.ndarray) -> None:
        self._file(key).read(_bytes_of(into), start * self.itemsize)

    def _span(self, key: int, rows: np.ndarray, out: np.ndarray, where: np.ndarray) -> None:
        """Read from the first to the last of many rows in one go; pick those that are wanted."""
        first, count = int(rows.min()), len(rows)
        num_rows = int(rows.max()) - first + 1
        is_run = num_rows == count and bool((np.diff(rows) == 1).all() and np.ptp(where) < count)
        span = out[where[0] : where[0] + count] if is_run else _empty(self.files, num_rows)
        self._file(key).read(_bytes_of(span), first * self.row_bytes)
        if not is_run:
            out[where] = span[rows - first]

    def _file(self, key: int) -> "_OpenFile":
        """Return a chunk's open file; the one opened first makes room for the last."""
        try:
            return self.opened[key]
        except KeyError:
            pass
        with self.lock:
            if key not in self.opened:
                self.opened[key] = self._open(key)
            opened = self.opened[key]
            while len(self.opened) > self.limit:
                self.opened.popitem(last=False)
            return opened

    def _open(self, key: int) -> "_OpenFile":
        """Open a chunk file; every byte is checked once, and the size whenever it is opened."""
        layout, index = self.files.weights, _index(self.files, key)
        if key not in self.verified:
            self.files.verified(layout, index)
            self.verified.add(key)
        opened = _OpenFile(str(self.files.path / layout.key(index)))
        if opened.size != layout.chunk_bytes:
            reason = f"it changed to {opened.size} bytes since it was verified"
            self.files.damaged(layout, index, reason)
        return opened


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

    @property
    def size(self) -> int:
        """Bytes it has now."""
        return os.fstat(self.descriptor).st_size

    def read_cached(self, into: memoryview, offset: int) -> bool:
        """Fill a buffer if that needs no disk, and say whether it did."""
        try:
            return os.preadv(self.descriptor, [into], offset, _NOWAIT) == len(into)
        except OSError:  # not in the page cache, or a file system that cannot tell
            return False

    def expect(self, num_bytes: int, offset: int) -> None:
        """Have the system begin to read a place in the file."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.descriptor, offset, num_bytes, os.POSIX_FADV_WILLNEED)

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


def _num_chunks(files: PopulationFiles) -> int:
    return files.spec.num_blocks * files.weights.shape[1]


def _index(files: PopulationFiles, key: int) -> tuple[int, ...]:
    return (*divmod(key, files.weights.shape[1]), 0)


def _empty(files: PopulationFiles, num_rows: int) -> np.ndarray:
    return np.empty((num_rows, files.weights.shape[2]), dtype=files.weights.dtype)


def _bytes_of(block: np.ndarray) -> memoryview:
    return block.reshape(-1).view(np.uint8).data


def _groups(keys: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each distinct key and the positions ``[k]`` at which it stands."""
    order = np.argsort(keys, kind="stable")
    distinct, starts = np.unique(keys[order], return_index=True)
    yield from zip(distinct.tolist(), np.split(order, starts[1:]), strict=True)


def _handle_limit() -> int:
    """Return how many files one reader keeps open: half of what the system grants the process."""
    granted, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(32, min(granted, 8192) // 2) if granted > 0 else 4096
