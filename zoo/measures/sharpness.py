"""Sharpness: how much the loss rises around a network."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from zoo.errors import InvalidConfigError
from zoo.measures.gradients import gradient
from zoo.measures.networks import Networks, Samples, generator_of


def ascent_sharpness(networks: Networks, samples: Samples, *, radius: float = 0.05) -> np.ndarray:
    """Compute how much the loss rises in the worst direction, to first order [1]_.

    The step has length ``radius`` and the direction of the gradient of the mean loss on all
    samples; buffers stay.

    Returns
    -------
    np.ndarray
        ``[n]``, float64, in units of the loss; NaN for diverged members, 0 where the gradient
        vanishes.

    References
    ----------
    .. [1] Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization",
       ICLR 2021, Eqs. (1) and (2) with p = 2.
    """
    _check(radius)

    def rise(member: int) -> float:
        slope = gradient(networks, member, samples)
        length = torch.linalg.vector_norm(slope, dtype=torch.float64)
        direction = slope / length.to(slope) if length > 0 else slope
        return _mean_rise(networks, member, samples, [radius * direction])

    return networks.each(rise)


def random_sharpness(
    networks: Networks,
    samples: Samples,
    *,
    seeds: Sequence[int],
    radius: float = 0.1,
    num_directions: int = 10,
) -> np.ndarray:
    """Compute how much the loss rises on average in random, filter-normalised directions [1]_.

    Directions are normal and scaled, filter by filter (output by output), to the length of the
    member's weights; biases, gains and other vectors stay. A radius of 0.1 thus moves each filter
    by a tenth of its length, and scaled networks get equal numbers.

    Parameters
    ----------
    seeds
        Per member, where its directions start.

    Returns
    -------
    np.ndarray
        ``[n]``, float64, in units of the loss; NaN for diverged members.

    References
    ----------
    .. [1] Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018, Sec. 4.
    """
    _check(radius, num_directions)

    def rise(member: int) -> float:
        generator = generator_of(seeds[member])
        steps = (
            radius * filter_direction(networks, member, generator) for _ in range(num_directions)
        )
        return _mean_rise(networks, member, samples, steps)

    return networks.each(rise)


def filter_direction(networks: Networks, member: int, generator: torch.Generator) -> Tensor:
    """Draw a filter-normalised direction ``[p]`` of a member's parameters."""
    space, vector = networks.space, networks.vectors[member]
    parts = []
    for spec in space.tensors:
        if spec.kind != "parameter":
            continue
        weights = vector.narrow(0, space.offsets[spec.name], spec.numel).reshape(spec.shape)
        if len(spec.shape) < 2:
            parts.append(torch.zeros_like(weights))
            continue
        roles = [axis.role for axis in spec.axes]
        out = roles.index("out") if "out" in roles else 0
        others = [axis for axis in range(len(spec.shape)) if axis != out]
        noise = torch.randn(spec.shape, generator=generator, dtype=torch.float64).to(weights)
        lengths = torch.linalg.vector_norm(weights, dim=others, keepdim=True)
        noise /= torch.linalg.vector_norm(noise, dim=others, keepdim=True)
        parts.append((noise * lengths).flatten())
    return torch.cat(parts)


def _mean_rise(networks: Networks, member: int, samples: Samples, steps: Iterable[Tensor]) -> float:
    """Compute how much the loss rises on average after each of the steps ``[p]``."""
    rises = []
    for step in steps:
        vector = networks.vectors[member].clone()
        vector[: len(step)] += step
        rises.append(networks.loss(member, vector, samples))
    return float(np.mean(rises)) - networks.loss(member, networks.vectors[member], samples)


def _check(radius: float, num_directions: int = 1) -> None:
    if not radius > 0 or num_directions < 1:
        raise InvalidConfigError(
            "Expected a positive radius and at least one direction, got a radius of "
            f"{radius} and {num_directions} directions."
        )
