"""Sizes of weights, in float64; of parameters only, not of buffers."""

import numpy as np
import torch
from torch import Tensor

from zoo.errors import WeightSpaceMismatchError
from zoo.measures.networks import Networks
from zoo.space import TensorSpec, WeightSpace


def l2_norm(networks: Networks) -> np.ndarray:
    """Compute the Euclidean norm of all parameters, ``[n]``."""
    return _masked(networks, _length(_parameters(networks, networks.vectors)))


def tensor_norms(networks: Networks) -> dict[str, np.ndarray]:
    """Compute the Euclidean norm of each parameter tensor, per name ``[n]``."""
    return {
        spec.name: _masked(networks, _length(_tensor(networks.space, networks.vectors, spec)))
        for spec in networks.space.tensors
        if spec.kind == "parameter"
    }


def spectral_norms(networks: Networks) -> dict[str, np.ndarray]:
    """Compute the largest singular value of each weight matrix, per name ``[n]``.

    A tensor is one matrix: its output axis by all others. Of a convolution that bounds the norm of
    the operator, but is not it.
    """
    found = {}
    for spec in networks.space.tensors:
        if spec.kind == "parameter" and spec.role == "weight" and len(spec.shape) > 1:
            values = torch.nan_to_num(matrices(networks.space, networks.vectors, spec), 0, 0, 0)
            largest = torch.linalg.matrix_norm(values.double(), ord=2)
            found[spec.name] = _masked(networks, largest)
    return found


def sparsity(networks: Networks, *, threshold: float = 0.0) -> np.ndarray:
    """Compute the share of parameters of magnitude ``threshold`` or less, ``[n]``."""
    small = _parameters(networks, networks.vectors).abs() <= threshold
    return _masked(networks, small.double().mean(-1))


def distance(networks: Networks, origins: Tensor) -> np.ndarray:
    """Compute how far parameters are from others, such as the initial ones.

    Parameters
    ----------
    origins
        ``[n, P]``.

    Returns
    -------
    np.ndarray
        Euclidean distances ``[n]``, float64; NaN where either is not finite.

    Raises
    ------
    WeightSpaceMismatchError
        If there are not as many origins as members, of the same length.
    """
    if origins.shape != networks.vectors.shape:
        raise WeightSpaceMismatchError(
            f"Expected initial weights of shape {list(networks.vectors.shape)}, one for each "
            f"member, got {list(origins.shape)}."
        )
    moved = _parameters(networks, networks.vectors) - _parameters(networks, origins)
    found = _masked(networks, _length(moved))
    found[~torch.isfinite(origins).all(-1).numpy()] = np.nan
    return found


def matrices(space: WeightSpace, vectors: Tensor, spec: TensorSpec) -> Tensor:
    """Return a weight tensor of all members as matrices ``[n, out, rest]``.

    The output axis is the one whose role is ``out``; the first one, if there is none.
    """
    roles = [axis.role for axis in spec.axes]
    out = roles.index("out") if "out" in roles else 0
    stacked = _tensor(space, vectors, spec).reshape(len(vectors), *spec.shape)
    found: Tensor = stacked.movedim(out + 1, 1).flatten(2)
    return found


def _parameters(networks: Networks, vectors: Tensor) -> Tensor:
    found: Tensor = vectors[:, : networks.space.num_trainable]
    return found


def _tensor(space: WeightSpace, vectors: Tensor, spec: TensorSpec) -> Tensor:
    start = space.offsets[spec.name]
    found: Tensor = vectors[:, start : start + spec.numel]
    return found


def _length(values: Tensor) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(values, dim=-1, dtype=torch.float64)
    return found


def _masked(networks: Networks, values: Tensor) -> np.ndarray:
    found: np.ndarray = values.numpy().astype(np.float64)
    found[~networks.finite] = np.nan
    return found
