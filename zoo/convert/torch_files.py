"""One checkpoint file of torch or safetensors: its named tensors, read without running anything."""

import math
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.convert.side_files import parsed
from zoo.convert.source import ColumnValue
from zoo.errors import InvalidConfigError, ZooError

TORCH_SUFFIXES = (".pt", ".pth", ".th", ".bin")
SAFETENSORS = ".safetensors"
STATE_KEYS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
)
"""Keys below which training scripts keep the state dict, the most telling first."""

_PREFIXES = ("module.", "_orig_mod.")
_NESTING = 3
_WORDS = 80


class UnreadableFileError(ZooError, ValueError):
    """A file that holds no networks that may be read."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What one file holds.

    Parameters
    ----------
    tensors
        Floating-point tensors by name, in order, as float32; common prefixes of wrappers removed.
    extras
        Numbers and words beside the state dict.
    dtype
        Of the tensors in the file; several are joined by ``+``.
    """

    tensors: dict[str, np.ndarray]
    extras: dict[str, ColumnValue]
    dtype: str


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file.

    Raises
    ------
    UnreadableFileError
        If it is damaged, asks to run code, or holds no named tensors.
    """
    content = _read_safetensors(path) if path.suffix == SAFETENSORS else read_torch(path)
    state, extras = _find_state(content)
    floating: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if tensor.is_complex() or tensor.is_quantized or tensor.layout != torch.strided:
            raise UnreadableFileError(f"{name!r} is {_kind(tensor)}, not plain numbers")
        if tensor.is_floating_point():
            floating[name] = tensor
    if not floating:
        raise UnreadableFileError("holds no floating-point tensors with names")
    return Checkpoint(
        tensors={name: _numbers(tensor) for name, tensor in _unwrapped(floating).items()},
        extras=extras,
        dtype="+".join(sorted({str(t.dtype).removeprefix("torch.") for t in floating.values()})),
    )


def read_torch(path: Path) -> Any:
    """Read whatever torch saved, as far as it is plain values and tensors.

    Raises
    ------
    UnreadableFileError
        If it is damaged or asks to run code.
    """
    if path.stat().st_size == 0:
        raise UnreadableFileError("is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError,
            AttributeError, TypeError, IndexError, UnicodeDecodeError) as error:  # fmt: skip
        raise UnreadableFileError(_why(error)) from error


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    """Read tensors, and beside them what the metadata says, as numbers where it is some."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise InvalidConfigError(
            f'Reading {path} needs safetensors: pip install "weight-zoo[convert]".'
        ) from error
    try:
        with safe_open(path, "pt") as file:
            said = {key: parsed(text) for key, text in (file.metadata() or {}).items()}
            said.pop("format", None)  # of the tensors' library
            return said | {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UnreadableFileError(f"is damaged: {_first_line(error)}") from error


def _why(error: Exception) -> str:
    """Say in a few words why torch did not read a file."""
    text = str(error)
    asked = re.search(r"GLOBAL (\S+)", text)
    if asked:
        return f"its pickle asks to run {asked.group(1)}, which is refused"
    if "Unsupported operand" in text:
        return "is damaged, or a pickle of a kind that torch does not write, which is refused"
    if "TorchScript" in text or "torch.jit" in text:
        return "is a TorchScript program, not weights; save its state_dict() instead"
    if "legacy .tar" in text:
        return "is in torch's legacy .tar format, which cannot be read without running code"
    return f"is damaged or no torch file: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    return first if len(first) <= 120 else f"{first[:117]}..."


def _find_state(content: Any) -> tuple[dict[str, Tensor], dict[str, ColumnValue]]:
    """Find the state dict in what a file holds, and the plain values beside it."""
    extras: dict[str, ColumnValue] = {}
    for _ in range(_NESTING):
        if not isinstance(content, Mapping):
            break
        inner = _inner(content)
        if inner is None:
            tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
            extras.update(_plain(content, with_tensors=False))
            return tensors, extras
        extras.update(_plain(content, with_tensors=True))
        content = inner
    raise UnreadableFileError(f"holds {type(content).__name__}, not a state dict")


def _inner(content: Mapping[Any, Any]) -> Any:
    """Return the dict below the one that holds the weights; ``None`` if they are at this level."""
    holding = {key: value for key, value in content.items() if _holds_tensors(value)}
    for key in STATE_KEYS:
        if key in holding:
            return holding[key]
    if any(isinstance(value, Tensor) for value in content.values()):
        return None
    if len(holding) > 1:
        raise UnreadableFileError(
            f"holds several state dicts ({', '.join(map(str, holding))}); which is the network's?"
        )
    return next(iter(holding.values()), None)


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(
        isinstance(each, Tensor) or _holds_tensors(each) for each in value.values()
    )


def _plain(content: Mapping[Any, Any], *, with_tensors: bool) -> Iterator[tuple[str, ColumnValue]]:
    """Yield finite numbers and short words; of tensors only single numbers beside a state dict."""
    for key, value in content.items():
        if with_tensors and isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        is_number = isinstance(value, int | float) and math.isfinite(value)
        if is_number or (isinstance(value, str) and len(value) <= _WORDS):
            yield str(key), value


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove what DataParallel and torch.compile put before every name."""
    for prefix in _PREFIXES * 2:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _numbers(tensor: Tensor) -> np.ndarray:
    numbers: np.ndarray = tensor.detach().to(torch.float32).contiguous().numpy()
    return numbers


def _kind(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "complex"
    return "quantised" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")
