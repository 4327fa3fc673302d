"""Centred kernel alignment: how alike two networks see the same samples."""

import numpy as np
import torch
from torch import Tensor

from zoo.errors import InvalidConfigError

_PAIRS = 256


def linear_cka(first: Tensor, second: Tensor, *, unbiased: bool = False) -> np.ndarray:
    """Compare features by centred kernel alignment with a linear kernel [1]_.

    Of centred features ``X`` and ``Y`` it is ``|Y'X|^2 / (|X'X| |Y'Y|)`` in Frobenius norms: 1 for
    features that are equal up to a rotation and a factor.

    Parameters
    ----------
    first, second
        Features of pairs of networks on the same samples, ``[pairs, samples, features]``: logits or
        any others; numbers of features may differ.
    unbiased
        Estimate each of the three terms without the bias that few samples cause [2]_.

    Returns
    -------
    np.ndarray
        ``[pairs]``, float64. NaN where features are not finite, or do not vary over samples.

    References
    ----------
    .. [1] Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019,
       Eqs. (2) to (5).
    .. [2] Song et al., "Feature Selection via Dependence Maximization", JMLR 2012, Eq. (5);
       Nguyen et al., "Do Wide and Deep Networks Learn the Same Things?", ICLR 2021, Eq. (3).
    """
    samples = first.shape[1]
    if second.shape[:2] != first.shape[:2] or samples < 4:
        raise InvalidConfigError(
            "Expected features [pairs, samples, features] of the same pairs on the same samples, "
            f"at least 4, got {list(first.shape)} and {list(second.shape)}."
        )
    one, two = _centred(first), _centred(second)
    compare = _unbiased_hsic if unbiased else _hsic
    product = compare(one, one) * compare(two, two)
    valid = product > 0
    root = torch.where(valid, product, 1).sqrt()
    found: np.ndarray = torch.where(valid, compare(one, two) / root, torch.nan).numpy()
    return found


def pairwise_cka(features: Tensor, pairs: np.ndarray, *, unbiased: bool = False) -> np.ndarray:
    """Compare pairs of members by :func:`linear_cka`.

    Parameters
    ----------
    features
        ``[n, samples, features]``.
    pairs
        Positions ``[pairs, 2]``.

    Returns
    -------
    np.ndarray
        ``[pairs]``, float64.
    """
    flat = features.flatten(2)
    blocks = [
        linear_cka(flat[block[:, 0]], flat[block[:, 1]], unbiased=unbiased)
        for block in torch.split(torch.as_tensor(pairs), _PAIRS)
    ]
    return np.concatenate([np.zeros(0), *blocks])


def _centred(features: Tensor) -> Tensor:
    features = features.double()
    return features - features.mean(1, keepdim=True)


def _hsic(one: Tensor, two: Tensor) -> Tensor:
    """Sum of squares of the cross-covariance, ``[pairs]``: the dependence, up to a factor."""
    return (one.mT @ two).square().sum((-2, -1))


def _unbiased_hsic(one: Tensor, two: Tensor) -> Tensor:
    """Unbiased dependence of features, ``[pairs]``, without matrices of samples by samples."""
    n = one.shape[1]
    diagonal_one, diagonal_two = one.square().sum(-1), two.square().sum(-1)
    # Features are centred, so rows of a kernel matrix without its diagonal sum to minus that.
    trace = _hsic(one, two) - (diagonal_one * diagonal_two).sum(-1)
    sums = diagonal_one.sum(-1) * diagonal_two.sum(-1) / ((n - 1) * (n - 2))
    mixed = (diagonal_one * diagonal_two).sum(-1) * 2 / (n - 2)
    return (trace + sums - mixed) / (n * (n - 3))
