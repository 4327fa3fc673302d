"""Splitting members into train, validation and test: by lineage, from a seed, once and for all."""

import hashlib
from collections.abc import Sequence

import numpy as np

from zoo.errors import InvalidConfigError
from zoo.schema import PARTS

DEFAULT_FRACTIONS = (0.7, 0.15, 0.15)


def assign(
    lineage: np.ndarray, *, seed: int, fractions: Sequence[float] = DEFAULT_FRACTIONS
) -> np.ndarray:
    """Assign members to parts so that relatives never meet across parts.

    The result depends on the seed and on which members share a lineage, nothing else.

    Parameters
    ----------
    lineage
        Per member ``[n]`` the id of its ancestor, int; members with one ancestor share a part.
    seed
        Seed of the shuffle.
    fractions
        Shares of train, validation and test; they sum to 1. With three lineages or more, no part of
        positive share stays empty.

    Returns
    -------
    np.ndarray
        ``[n]`` int8: 0 train, 1 validation, 2 test.

    Raises
    ------
    InvalidConfigError
        If the fractions are no shares.

    Examples
    --------
    >>> assign(np.array([0, 1, 2, 2, 4]), seed=0, fractions=(0.5, 0.25, 0.25)).tolist()
    [1, 1, 0, 0, 2]
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.shape != (3,) or (shares < 0).any() or abs(shares.sum() - 1) > 1e-9:
        raise InvalidConfigError(
            f"Expected three fractions of at least 0 that sum to 1 ({', '.join(PARTS)}), "
            f"got {tuple(fractions)}."
        )
    families, family_of = np.unique(lineage, return_inverse=True)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(families))
    sizes = np.bincount(family_of, minlength=len(families))[order]
    # A family belongs where the middle of its members falls.
    middles = (np.cumsum(sizes) - sizes / 2) / max(len(lineage), 1)
    part_of = np.empty(len(families), dtype=np.int8)
    part_of[order] = _cut(middles, shares)
    return part_of[family_of]


def digest(codes: np.ndarray) -> str:
    """Hash a split's codes ``[n]``, int8: SHA-256 in hexadecimal."""
    return hashlib.sha256(codes.astype(np.int8).tobytes()).hexdigest()


def _cut(middles: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Cut shuffled families at the shares; ``[families]`` int8."""
    count = len(middles)
    first = int(np.searchsorted(middles, shares[0]))
    second = int(np.searchsorted(middles, shares[0] + shares[1]))
    if count >= 3 and (shares > 0).all():
        first = min(max(first, 1), count - 2)
        second = min(max(second, first + 1), count - 1)
    return np.repeat(np.arange(3, dtype=np.int8), [first, second - first, count - second])
