"""How much memory stacks of members take, and what freed tensors leave behind."""

import ctypes
import platform
from functools import cache

WORKING_SET = {"cpu": 32 * 2**20, "cuda": 16 * 2**30}
"""Bytes that the intermediates of members side by side may take: what the cache holds, on a CPU."""
_FLOAT = 4

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's ``mallopt`` options, from its manual page."""
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
_KEPT = 2**30


@cache
def keep_freed_memory() -> bool:
    """Let this process keep up to 1 GiB of what it frees; says whether the C library can do that.

    glibc otherwise hands large blocks back at once, and every intermediate of every step costs
    fresh pages from the kernel: a sixth of the time of a step. A property of the process that, once
    set, stays; no number depends on it.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    option = ctypes.CDLL(None).mallopt
    return bool(option(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and option(_TRIM_THRESHOLD, _KEPT))


def fitting_members(kind: str, samples: int, footprint: int) -> int:
    """Return how many members fit a device of a kind side by side.

    Parameters
    ----------
    kind
        ``cpu`` or ``cuda``.
    samples
        Of each member.
    footprint
        Numbers that a sample's intermediates take.
    """
    return WORKING_SET[kind] // (_FLOAT * samples * footprint)
