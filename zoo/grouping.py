"""Groups of members that stay together, and how a seed deals them out to parts."""

from collections.abc import Sequence

import numpy as np

from zoo.errors import InvalidConfigError
from zoo.schema import PARTS

DEFAULT_FRACTIONS = (0.7, 0.15, 0.15)


def assign(
    groups: np.ndarray, *, seed: int, fractions: Sequence[float] | np.ndarray = DEFAULT_FRACTIONS
) -> np.ndarray:
    """Assign members to parts so that groups stay whole.

    The result depends on the seed and on which members share a group, nothing else.

    Parameters
    ----------
    groups
        Per member ``[n]`` the number of its group, such as the id of its ancestor, int.
    seed
        Seed of the shuffle.
    fractions
        Shares of train, validation and test; they sum to 1. No part of positive share stays empty
        while there are groups enough.

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
    shares = check_shares(fractions)
    distinct, group_of = np.unique(groups, return_inverse=True)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(distinct))
    sizes = np.bincount(group_of, minlength=len(distinct))[order]
    # A group belongs where the middle of its members falls.
    middles = (np.cumsum(sizes) - sizes / 2) / max(len(groups), 1)
    part_of = np.empty(len(distinct), dtype=np.int8)
    part_of[order] = _cut(middles, shares)
    return part_of[group_of]


def join(lineage: np.ndarray, columns: Sequence[np.ndarray]) -> np.ndarray:
    """Join families whose members agree in all columns.

    Parameters
    ----------
    lineage
        Per member ``[n]`` the id of its ancestor, int.
    columns
        Values ``[n]`` each; no columns join nothing.

    Returns
    -------
    np.ndarray
        ``[n]`` int: the smallest lineage of those that a member hangs together with.

    Examples
    --------
    >>> join(np.array([0, 1, 0, 3]), [np.array([2, 2, 5, 3])]).tolist()
    [0, 0, 0, 3]
    """
    if not columns:
        return lineage
    families, family_of = np.unique(lineage, return_inverse=True)
    value_of = np.zeros(len(lineage), dtype=np.int64)
    for values in columns:
        distinct, inverse = np.unique(values, return_inverse=True)
        value_of = np.unique(value_of * len(distinct) + inverse, return_inverse=True)[1]
    root = list(range(len(families)))
    first: dict[int, int] = {}
    for value, family in np.unique(np.stack([value_of, family_of], axis=1), axis=0).tolist():
        one, other = _root(root, first.setdefault(value, family)), _root(root, family)
        root[max(one, other)] = min(one, other)
    smallest = np.array([_root(root, family) for family in range(len(families))], dtype=np.int64)
    return np.asarray(families[smallest][family_of])


def check_shares(fractions: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return fractions of train, validation and test, ``[3]``; raise unless they sum to 1."""
    shares = np.array(fractions, dtype=np.float64)
    if shares.shape != (3,) or (shares < 0).any() or abs(shares.sum() - 1) > 1e-9:
        raise InvalidConfigError(
            f"Expected three fractions of at least 0 that sum to 1 ({', '.join(PARTS)}), "
            f"got {tuple(fractions)}."
        )
    return shares


def _cut(middles: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Cut shuffled groups at the shares; ``[groups]`` int8."""
    count = len(middles)
    first = int(np.searchsorted(middles, shares[0]))
    second = int(np.searchsorted(middles, shares[0] + shares[1]))
    least = (shares > 0).astype(int).tolist()
    if count >= sum(least):
        first = min(max(first, least[0]), count - least[1] - least[2])
        second = min(max(second, first + least[1]), count - least[2])
    return np.repeat(np.arange(3, dtype=np.int8), [first, second - first, count - second])


def _root(root: list[int], family: int) -> int:
    """Follow links to the smallest family joined so far, shortening the way."""
    while root[family] != family:
        root[family] = root[root[family]]
        family = root[family]
    return family
