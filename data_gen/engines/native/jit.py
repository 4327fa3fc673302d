"""How kernels are compiled, and where compiled kernels are kept.

Kernels are plain functions that numba [1]_ turns into machine code. Only those that Python calls
are kept on disk; numba notices when the file of such a kernel changes but not when the file of
another kernel that it calls does, so each state of this package has a folder of its own.

References
----------
.. [1] Lam, Pitrou and Seibert, "Numba: a LLVM-based Python JIT compiler", LLVM-HPC 2015.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar, overload

import llvmlite.binding  # type: ignore[import-untyped]
import numba
import numpy as np
from numba import types
from numba.core.typing.templates import Signature

Real = Any
"""A float32 inside of kernels, which is none of Python's numbers."""
Function = TypeVar("Function", bound=Callable[..., Any])

FAST = {"contract", "nsz"}
"""Products and sums may be fused. Sums are never reordered: results do not depend on the width of
vectors, and a member's do not depend on who else is trained."""

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": FAST, "nogil": True}


def has_512_bits() -> bool:
    """Whether kernels are compiled for a processor with AVX-512: 32 registers of 16 numbers."""
    return bool(llvmlite.binding.get_host_cpu_features().get("avx512f", False))


def array(kind: Any, axes: int = 1, *, writes: bool = False) -> Any:
    """Name the type of a contiguous array that a kernel takes, of numbers or of records."""
    entries = numba.from_dtype(kind) if isinstance(kind, np.dtype) else kind
    return types.Array(entries, axes, "C", readonly=not writes)


@overload
def kernel(signature: Function) -> Function: ...


@overload
def kernel(signature: Signature) -> Callable[[Function], Function]: ...


def kernel(signature: Any) -> Any:
    """Compile a function for other kernels; Python does not call it.

    Used plainly, or with the one signature that the function should have.
    """
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True} | _OPTIONS
    if isinstance(signature, Signature):
        return numba.njit(signature, **options)
    return numba.njit(**options)(signature)


def entry(signature: Any) -> Callable[[Function], Function]:
    """Compile a function that Python calls, for exactly these types; keep it on disk."""
    return partial(_kept, numba.njit(signature, cache=True, **_OPTIONS))


def callback(signature: Any) -> Callable[[Function], Any]:
    """Compile a function that kernels call by its address; keep it on disk."""
    decorate: Any = numba.cfunc(signature, cache=True, fastmath=FAST, error_model="numpy")
    return partial(_kept, decorate)


def _kept(decorate: Callable[[Function], Function], function: Function) -> Function:
    before = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    numba.config.CACHE_DIR = str(folder())  # type: ignore[attr-defined]
    try:
        return decorate(function)
    finally:
        numba.config.CACHE_DIR = before  # type: ignore[attr-defined]


@lru_cache
def folder() -> Path:
    """Return where compiled kernels of this version are kept; made where absent.

    ``NUMBA_CACHE_DIR`` says where; else the user's cache folder, or one that goes with the process
    where that cannot be written.
    """
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = Path(chosen) if chosen else cache / "weight-zoo"
    try:
        path = path / f"kernels-{_fingerprint()}"
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="weight-zoo-"))
    return path


def _fingerprint() -> str:
    """Name this state of the kernels: their sources and what compiles them."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
