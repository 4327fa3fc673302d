"""Memory that freed tensors leave behind."""

import ctypes
import platform
from functools import cache

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
