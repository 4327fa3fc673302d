"""Random rows of weights at the speed of memory: an uncompressed Zarr chunk is the raw block."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import unknown_name
from zoo.store.disk.files import PopulationFiles
from zoo.store.reading.sources import Io as Io
from zoo.store.reading.sources import open_source

RAM_BUDGET = 2 * 2**30
_MODES = ("auto", "ram", "pread", "mmap")

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
        WeightSpaceMismatchError
            If the members have different weight spaces.
        StoreError
            If a member's block is not committed.
        DamagedChunkError
            If a chunk is missing, truncated or altered.
        """
        if self._is_ragged:
            return self._gather_ragged(members, checkpoints)
        if self._pid != os.getpid():
            self._start()  # a forked child opens its own files
        blocks, rows = np.divmod(members, self._block_size)
        keys = blocks * self._num_checkpoints + checkpoints
        return self._source.gather(keys, rows).astype(np.float32, copy=False)

    def vectors(self, members: np.ndarray, checkpoints: np.ndarray) -> list[np.ndarray]:
        """Read flat vectors of any length.

        Parameters
        ----------
        members, checkpoints
            As :meth:`gather` takes them.

        Returns
        -------
        list of np.ndarray
            Each ``[P]`` of its member, float32, a copy.
        """
        if not self._is_ragged:
            return list(self.gather(members, checkpoints))
        sizes = self.files.architectures.sizes[members]
        found = [np.empty(size, dtype=self.files.weights.dtype) for size in sizes.tolist()]
        self._fill(members, checkpoints, found)
        return [vector.astype(np.float32, copy=False) for vector in found]

    @property
    def wants_blocks(self) -> bool:
        """Whether a row costs its whole chunk: it is compressed or far, and memory holds not all.

        A sampler should then stay within few chunks at a time, of which some are kept decoded.
        """
        return self.io != "ram" and not (self.files.weights.is_plain and self.files.is_local)

    def blocks(self, members: np.ndarray, checkpoints: np.ndarray) -> np.ndarray:
        """Return the number of the chunk that holds each row, ``[n]`` int64."""
        return np.asarray(members // self._block_size * self._num_checkpoints + checkpoints)

    def _start(self) -> None:
        spec = self.files.spec
        self._pid = os.getpid()
        self._block_size, self._num_checkpoints = spec.block_size, len(spec.checkpoints)
        self._is_ragged = self.files.architectures.ragged is not None
        self._source = open_source(self.files, self.io)

    def _gather_ragged(self, members: np.ndarray, checkpoints: np.ndarray) -> np.ndarray:
        space = self.files.architectures.common_space(members) if len(members) else None
        width = 0 if space is None else space.num_parameters
        found = np.empty((len(members), width), dtype=self.files.weights.dtype)
        self._fill(members, checkpoints, found)
        return found.astype(np.float32, copy=False)

    def _fill(
        self, members: np.ndarray, checkpoints: np.ndarray, into: np.ndarray | list[np.ndarray]
    ) -> None:
        """Read members of a ragged population, each into a vector of its length."""
        if self._pid != os.getpid():
            self._start()
        keys = self.blocks(members, checkpoints).tolist()
        starts = self.files.architectures.offsets[members].tolist()
        for key, start, vector in zip(keys, starts, into, strict=True):
            self._source.fill(key, start, vector)


def _resolve(files: PopulationFiles) -> Io:
    """Choose between memory and files."""
    layout = files.weights
    needed = len(files.committed) * layout.shape[1] * layout.chunk_bytes
    mode: Io = "ram" if needed <= min(RAM_BUDGET, _free_memory() // 4) else "pread"
    logger.debug("reading %.0f MB of %s by %s", needed / 1e6, files.name, mode)
    return mode


def _free_memory() -> int:
    """Return the bytes that the system can give, those of its page cache included."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        amounts = dict(line.split(":", 1) for line in lines)
        return int(amounts["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):  # another system than Linux
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
