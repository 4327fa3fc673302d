"""Arrays out of pickles, without running what a pickle says."""

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from zoo.problems.parts import DataFormatError

_NUMBERS = re.compile(r"[biuf][1248]")
"""Codes of booleans, integers and floating-point numbers; never of objects or records."""


def _refuse(what: object) -> Any:
    raise pickle.UnpicklingError(
        f"it asks for {what}, and only NumPy arrays of numbers and builtin containers are read"
    )


class _Kind:
    """What a pickle says of ``numpy.dtype``: a code and an order of bytes."""

    __slots__ = ("code", "order")

    def __init__(self, code: str | bytes, *_: object) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        self.order = order if order in ("<", ">") else "="

    def dtype(self) -> np.dtype[Any]:
        """Return the type, which is one of numbers."""
        known = _NUMBERS.fullmatch(self.code)
        return np.dtype(self.order + self.code) if known else _refuse(f"the type {self.code!r}")


class _Array:
    """What a pickle says of an array; it becomes one when its bytes and shape are known."""

    __slots__ = ("values",)

    def __init__(self, *_: object) -> None:
        self.values = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, columns_first, raw = state
        flat = np.frombuffer(raw, kind.dtype())
        self.values = flat.reshape(shape, order="F" if columns_first else "C")


class _Encode:
    """Bytes, which Python 3 writes into old protocols as text."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str | bytes) -> bytes:
        return text.encode("latin1") if encoding in ("latin1", b"latin1") else _refuse(encoding)


_ALLOWED: dict[tuple[str, str], object] = {
    ("_codecs", "encode"): _Encode(),
    ("numpy", "ndarray"): "numpy.ndarray",  # an argument of what comes next, no more
    ("numpy", "dtype"): _Kind,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of what is known; all else is refused, and never imported."""
        known = _ALLOWED.get((module, name))
        return _refuse(f"{module}.{name}") if known is None else known

    def persistent_load(self, pid: object) -> Any:
        """Refuse what lies outside of the file."""
        return _refuse(f"{pid!r} elsewhere")


def read_pickle(path: Path) -> Any:
    """Read arrays of numbers and builtin containers from a pickle of Python 2 or 3.

    Nothing else is built, imported or called; even NumPy's own constructors are not, which take
    states that no array ever had. Strings of Python 2 come as bytes.

    Raises
    ------
    DataFormatError
        If the file is damaged, or asks for anything else.
    """
    try:
        return _plain(_ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load())
    except pickle.UnpicklingError as error:
        raise DataFormatError(f"Cannot read the pickle {path}: {error}.") from error
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        OverflowError,
        RecursionError,
        MemoryError,
    ) as error:
        raise DataFormatError(f"Cannot read {path}: {error}. Fetch the file again.") from error


def _plain(value: Any) -> Any:
    """Put arrays in the places of their stand-ins, inside of dictionaries and lists."""
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
