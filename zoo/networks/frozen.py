"""Networks that stay as they are: their tensors in a file, and out of every member's vector."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.errors import InvalidConfigError, MissingDataError, WeightSpaceMismatchError

_SAFETENSORS = ".safetensors"


def freeze(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make every parameter a buffer that no state dict holds, with the values given."""
    for prefix, each in module.named_modules():
        for name in list(each._parameters):
            given = each._parameters.pop(name)
            full = f"{prefix}.{name}" if prefix else name
            each.register_buffer(name, None if given is None else tensors[full], persistent=False)


def stand_in(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Draw tensors of the same shapes from a fixed seed: no two units are alike."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: (torch.rand(tensor.shape, generator=generator, device="cpu") - 0.5).to(tensor)
        for name, tensor in own.items()
    }


def save_base(tensors: Mapping[str, Tensor]) -> tuple[bytes, str]:
    """Turn a base's tensors into an NPZ file, the same bytes for the same numbers.

    Returns
    -------
    tuple of bytes and str
        The file, and its SHA-256 in hexadecimal.
    """
    file = io.BytesIO()
    arrays: dict[str, Any] = {name: each.detach().cpu().numpy() for name, each in tensors.items()}
    np.savez(file, **arrays)
    return file.getvalue(), hashlib.sha256(file.getvalue()).hexdigest()


def load_base(path: str, sha256: str) -> dict[str, Tensor]:
    """Read named tensors from a safetensors or NPZ file, without pickles.

    Raises
    ------
    MissingDataError
        If there is no such file.
    WeightSpaceMismatchError
        If it has another hash.
    InvalidConfigError
        If it is a safetensors file and the package of that name is not installed.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise MissingDataError(
            f"Expected the weights of a frozen base network (sha256 {sha256}) in {path}, found no "
            "file. Paths in a stored population are relative to the folder of its zoo: copy the "
            "file there, or pass build() the configuration with 'weights' where it lies."
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise WeightSpaceMismatchError(
            f"Expected the weights of a frozen base network with sha256 {sha256} in {path}, got a "
            f"file with sha256 {found}: it was altered or is another one. Restore it; adapters "
            "mean nothing on another base."
        )
    if path.endswith(_SAFETENSORS):
        return _from_safetensors(data)
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _from_safetensors(data: bytes) -> dict[str, Tensor]:
    try:
        import safetensors.torch
    except ImportError as error:
        raise InvalidConfigError(
            "Safetensors files need the package of that name. Install it with "
            "`pip install 'weight-zoo[convert]'`."
        ) from error
    tensors: dict[str, Tensor] = safetensors.torch.load(data)
    return tensors
