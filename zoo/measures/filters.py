"""Convolution filters of a population: what they look like, how diverse they are, how they shift.

After CNN Filter DB [1]_, without torch. A filter is the kernel between one input and one output
channel; which tensors hold filters, the weight space says.

References
----------
.. [1] Gavrikov and Keuper, "CNN Filter DB: An Empirical Investigation of Trained Convolutional
   Filters", CVPR 2022.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from zoo.errors import InvalidConfigError, unknown_name
from zoo.space import WeightSpace

_NEAR_ZERO = 0.01
_BINS = 70
_EMPTY = float(np.finfo(np.float32).eps)
_RANDOM_DRAWS, _RANDOM_FILTERS = 100, 4096
_SIGMOID = (1.2618047, 0.88767525, 2.30436435, -0.31050834)
"""Height, slope, midpoint and offset of the published randomness threshold of 3x3 filters."""


@dataclass(frozen=True, eq=False, kw_only=True)
class FilterQuality:
    """Quality of one layer's filters in each member, ``[n]`` each; NaN for diverged members.

    Parameters
    ----------
    sparsity
        Share of filters whose entries are all below a hundredth of the layer's largest magnitude.
    entropy
        Variance entropy, in bans; from 0 (one shape) to ``log10`` of the kernel's size.
    randomness
        The entropy over that of random filters; at 1 and above, filters are as good as random.
    """

    sparsity: np.ndarray
    entropy: np.ndarray
    randomness: np.ndarray


def kernel_tensors(space: WeightSpace) -> tuple[str, ...]:
    """Name the parameters with two kernel axes of more than one entry in all."""
    return tuple(
        spec.name
        for spec in space.tensors
        if spec.kind == "parameter" and _kernel_size(space, spec.name) > 1
    )


def filters(space: WeightSpace, vectors: np.ndarray, name: str) -> np.ndarray:
    """Cut out the filters of one tensor.

    Parameters
    ----------
    vectors
        Weights ``[n, P]``.
    name
        One of :func:`kernel_tensors`.

    Returns
    -------
    np.ndarray
        ``[n, filters, kernel entries]``, float64.

    Raises
    ------
    UnknownNameError
        If the tensor is none, or has no two kernel axes.
    """
    if name not in kernel_tensors(space):
        raise unknown_name("tensor of convolution filters", name, kernel_tensors(space))
    spec, start = space.tensor(name), space.offsets[name]
    values = vectors[:, start : start + spec.numel].reshape(-1, *spec.shape)
    kernel = [axis + 1 for axis, its in enumerate(spec.axes) if its.role == "kernel"]
    size = _kernel_size(space, name)
    last = np.moveaxis(values, kernel, [-2, -1])
    return last.reshape(len(vectors), spec.numel // size, size).astype(np.float64)


def quality(space: WeightSpace, vectors: np.ndarray) -> dict[str, FilterQuality]:
    """Measure how good each member's filters are, per tensor of filters.

    Parameters
    ----------
    vectors
        Weights ``[n, P]``.
    """
    finite = np.flatnonzero(np.isfinite(vectors).all(-1))
    found = {}
    for name in kernel_tensors(space):
        rows = np.full((3, len(vectors)), np.nan)
        for member in finite:
            own = filters(space, vectors[member : member + 1], name)[0]
            entropy = variance_entropy(own)
            limit = random_entropy(len(own), own.shape[1])
            rows[:, member] = sparsity(own), entropy, entropy / limit if limit > 0 else np.nan
        found[name] = FilterQuality(sparsity=rows[0], entropy=rows[1], randomness=rows[2])
    return found


def sparsity(layer: np.ndarray) -> float:
    """Compute the share of filters that are nearly zero, of a layer's ``[filters, entries]``."""
    limit = _NEAR_ZERO * np.abs(layer).max()
    return float((np.abs(layer) < limit).all(-1).mean()) if limit > 0 else 1.0


def variance_entropy(layer: np.ndarray) -> float:
    """Compute the entropy of the variance that principal components explain, in bans.

    Parameters
    ----------
    layer
        ``[filters, entries]``, not scaled.
    """
    ratio = principal_components(layer)[0]
    ratio = ratio[ratio > 0]
    return float(-(ratio * np.log10(ratio)).sum()) if len(ratio) else 0.0


@lru_cache
def random_entropy(num_filters: int, entries: int) -> float:
    """Say which variance entropy random filters reach at least.

    Of 3x3 filters it is the published threshold, a sigmoid of the binary logarithm of their number.
    Of others it is found as the authors found theirs: the least entropy of 100 draws of normal
    filters (of at most 4,096, from where on it hardly changes), from a fixed seed.
    """
    if entries == 9:
        height, slope, midpoint, offset = _SIGMOID
        return float(height / (1 + np.exp(-slope * (np.log2(num_filters) - midpoint))) + offset)
    return simulated_entropy(num_filters, entries)


def simulated_entropy(num_filters: int, entries: int) -> float:
    """Find the least variance entropy of 100 draws of normal filters."""
    rng = np.random.default_rng(0)
    shape = (min(num_filters, _RANDOM_FILTERS), entries)
    return min(variance_entropy(rng.standard_normal(shape)) for _ in range(_RANDOM_DRAWS))


def scaled(layer: np.ndarray) -> np.ndarray:
    """Scale each filter ``[..., entries]`` by its largest magnitude; zero filters stay."""
    largest = np.abs(layer).max(-1, keepdims=True)
    return layer / np.where(largest > 0, largest, 1)


def principal_components(layer: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the principal components of filters.

    Parameters
    ----------
    layer
        ``[filters, entries]``.

    Returns
    -------
    tuple[np.ndarray, np.ndarray, np.ndarray]
        Shares of variance ``[entries]``, falling (zeros of equal filters); components
        ``[entries, entries]`` in rows; the mean filter ``[entries]``.
    """
    mean = layer.mean(0)
    centred = layer - mean
    variances, columns = np.linalg.eigh(centred.T @ centred)
    variances = np.clip(variances[::-1], 0, None)
    total = variances.sum()
    return variances / (total if total > 0 else 1), columns[:, ::-1].T, mean


def shift(first: np.ndarray, second: np.ndarray, *, num_bins: int = _BINS) -> float:
    """Compute how far two sets of filters lie apart, in nats.

    As in the paper: filters are scaled one by one, both sets are projected on the principal
    components of their union, and per component the histograms of coefficients are compared by the
    symmetric Kullback-Leibler divergence ``KL(p, q) + KL(q, p)``; the sum is weighted by the share
    of variance that components explain. Histograms share one range, that of all coefficients;
    empty bins count as the smallest float32 step in density.

    Parameters
    ----------
    first, second
        ``[filters, entries]``; their numbers may differ.

    Raises
    ------
    InvalidConfigError
        If there is no filter in one of them.
    """
    if not len(first) or not len(second):
        raise InvalidConfigError(
            f"Expected filters to compare, got {len(first)} and {len(second)}. Have all members "
            "diverged?"
        )
    one, two = scaled(first), scaled(second)
    shares, components, mean = principal_components(np.concatenate([one, two]))
    coefficients = [(each - mean) @ components.T for each in (one, two)]
    low = min(each.min() for each in coefficients)
    high = max(each.max() for each in coefficients)
    total = 0.0
    for component, share in enumerate(shares):
        p, q = (_histogram(each[:, component], low, high, num_bins) for each in coefficients)
        total += share * float(((p - q) * np.log(p / q)).sum())
    return total


def layer_shifts(
    space: WeightSpace, first: np.ndarray, second: np.ndarray, *, num_bins: int = _BINS
) -> dict[str, float]:
    """Compute the shift between two populations of one weight space, per tensor of filters.

    Parameters
    ----------
    first, second
        Weights ``[n, P]``; diverged members are left out.
    """
    kept = [each[np.isfinite(each).all(-1)] for each in (first, second)]
    return {
        name: shift(*(pooled(space, each, name) for each in kept), num_bins=num_bins)
        for name in kernel_tensors(space)
    }


def pooled(space: WeightSpace, vectors: np.ndarray, name: str) -> np.ndarray:
    """Return one tensor's filters of all members as one set, ``[n * filters, kernel entries]``."""
    cut = filters(space, vectors, name)
    return cut.reshape(-1, cut.shape[-1])


def _kernel_size(space: WeightSpace, name: str) -> int:
    spec = space.tensor(name)
    sizes = [
        size for size, axis in zip(spec.shape, spec.axes, strict=True) if axis.role == "kernel"
    ]
    return int(np.prod(sizes)) if len(sizes) == 2 else 0


def _histogram(values: np.ndarray, low: float, high: float, num_bins: int) -> np.ndarray:
    """Probabilities of bins, ``[num_bins]``, none of them zero."""
    spread = (low, high) if high > low else (low - 0.5, low + 0.5)
    density = np.histogram(values, num_bins, spread, density=True)[0]
    density[density == 0] = _EMPTY
    found: np.ndarray = density / density.sum()
    return found
