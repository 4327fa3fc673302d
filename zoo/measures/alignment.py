"""How gradients align with weights."""

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from zoo.errors import InvalidConfigError, unknown_name
from zoo.measures.gradients import gradient, leaves_of
from zoo.measures.networks import Networks, Samples

_OFFSET = 1.2
"""Keeps the denominator positive: the excess kurtosis of a uniform distribution is -1.2."""


def descent_alignment(
    networks: Networks, samples: Samples
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Compute the cosine between weights and the direction of steepest descent.

    The direction is minus the gradient of the mean loss on all samples, as in [1]_, which takes it
    per sample: positive where a step of gradient descent would lengthen the weights.

    Returns
    -------
    tuple[np.ndarray, dict[str, np.ndarray]]
        Of all parameters ``[n]``, and per layer (of the weight space) ``[n]``; float64, NaN for
        diverged members and where either vector is zero.

    References
    ----------
    .. [1] Hölzl et al., "Gradient-Weight Alignment as a Train-Time Proxy for Generalization in
       Classification Tasks", NeurIPS 2025.
    """
    layers = _layers(networks)
    whole = torch.arange(networks.space.num_trainable)
    found = np.full((1 + len(layers), networks.num_members), np.nan)
    for member in np.flatnonzero(networks.finite):
        slope = -gradient(networks, int(member), samples).double()
        weights = networks.vectors[member].double()
        for row, positions in enumerate((whole, *layers.values())):
            found[row, member] = _cosine(weights[positions], slope[positions])
    return found[0], dict(zip(layers, found[1:], strict=True))


def sample_alignments(
    networks: Networks, samples: Samples, *, tensor: str | None = None, chunk: int = 128
) -> np.ndarray:
    """Compute the cosine between one weight tensor and each sample's direction of descent.

    Parameters
    ----------
    tensor
        Its name; by default the last layer's weights, as the authors of [1]_ do.
    chunk
        Samples whose gradients are held at a time.

    Returns
    -------
    np.ndarray
        ``[n, samples]``, float64; NaN for diverged members. 0 where a gradient vanishes.

    References
    ----------
    .. [1] Hölzl et al., NeurIPS 2025.
    """
    name = last_weights(networks) if tensor is None else tensor
    if name not in networks.space.offsets:
        raise unknown_name("tensor", name, networks.space.offsets)
    found = np.full((networks.num_members, len(samples)), np.nan)
    for member in np.flatnonzero(networks.finite):
        found[member] = _alignments(networks, int(member), samples, name, chunk)
    return found


def gradient_weight_alignment(alignments: np.ndarray) -> np.ndarray:
    """Summarise samples' alignments: their mean over their excess kurtosis plus 1.2 [1]_.

    Parameters
    ----------
    alignments
        ``[n, samples]``, of :func:`sample_alignments`.

    Returns
    -------
    np.ndarray
        ``[n]``, float64; NaN where all alignments are equal.

    References
    ----------
    .. [1] Hölzl et al., NeurIPS 2025; the constant is that of the authors' code.
    """
    centred = alignments - alignments.mean(-1, keepdims=True)
    variance = np.square(centred).mean(-1)
    spread = np.where(variance > 0, variance, np.nan)
    kurtosis = (centred**4).mean(-1) / spread**2 - 3
    found: np.ndarray = alignments.mean(-1) / (kurtosis + _OFFSET)
    return found


def last_weights(networks: Networks) -> str:
    """Name the last weight tensor whose output axis is the network's output.

    Raises
    ------
    InvalidConfigError
        If no weights are known to make the network's outputs.
    """
    for spec in reversed(networks.space.tensors):
        pins = [axis.pin for axis in spec.axes if axis.role == "out"]
        if spec.kind == "parameter" and spec.role == "weight" and "output" in pins:
            return spec.name
    raise InvalidConfigError(
        "Expected a weight tensor that makes the network's outputs, found none in weight space "
        f"{networks.space.fingerprint}; name the tensor to look at."
    )


def _alignments(
    networks: Networks, member: int, samples: Samples, name: str, chunk: int
) -> np.ndarray:
    leaves, fixed = leaves_of(networks, networks.vectors[member])
    tensors = {key: value.detach() for key, value in (leaves | fixed).items()}
    tensors |= {alias: tensors[kept] for alias, kept in networks.space.tied}
    aliases = [alias for alias, kept in networks.space.tied if kept == name]

    def loss(weights: Tensor, inputs: Tensor, target: Tensor) -> Tensor:
        changed = dict.fromkeys([name, *aliases], weights)
        outputs = functional_call(networks.module, tensors | changed, (inputs[None],))
        return samples.loss(outputs, target[None])

    slopes = vmap(grad(loss), in_dims=(None, 0, 0), chunk_size=chunk)(
        tensors[name], samples.inputs, samples.targets_of(member)
    )
    rows = -slopes.flatten(1).double()
    weights = tensors[name].flatten().double()
    lengths = torch.linalg.vector_norm(rows, dim=1) * torch.linalg.vector_norm(weights)
    cosines = rows @ weights / lengths.clamp(min=torch.finfo(torch.float64).tiny)
    found: np.ndarray = cosines.numpy()
    return found


def _layers(networks: Networks) -> dict[str, Tensor]:
    """Positions in the flat vector of each layer's parameters."""
    space = networks.space
    pieces: dict[str, list[Tensor]] = {}
    for spec in space.tensors:
        if spec.kind == "parameter":
            start = space.offsets[spec.name]
            pieces.setdefault(spec.layer, []).append(torch.arange(start, start + spec.numel))
    return {layer: torch.cat(parts) for layer, parts in pieces.items()}


def _cosine(one: Tensor, two: Tensor) -> float:
    lengths = float(torch.linalg.vector_norm(one) * torch.linalg.vector_norm(two))
    return float(one @ two) / lengths if lengths > 0 else float("nan")
