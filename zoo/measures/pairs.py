"""Pairs of members, for measures of how two networks relate."""

from collections.abc import Sequence

import numpy as np

from zoo.errors import InvalidConfigError


def pairs_within(groups: Sequence[object], *, partners: int | None = None) -> np.ndarray:
    """Pair members that share a group: equal hyper-parameters and another seed, say.

    Parameters
    ----------
    groups
        Each member's group, ``[n]``.
    partners
        Pair each member with so many that follow it in its group, in a circle; by default all
        members of a group are paired.

    Returns
    -------
    np.ndarray
        Positions ``[pairs, 2]``, int64, each pair once.

    Examples
    --------
    >>> pairs_within(["a", "b", "a", "a"]).tolist()
    [[0, 2], [0, 3], [2, 3]]
    >>> pairs_within(["a"] * 4, partners=1).tolist()
    [[0, 1], [0, 3], [1, 2], [2, 3]]
    """
    if partners is not None and partners < 1:
        raise InvalidConfigError(f"Expected at least one partner, got {partners}.")
    together: dict[object, list[int]] = {}
    for member, group in enumerate(groups):
        together.setdefault(group, []).append(member)
    found = set()
    for members in together.values():
        size = len(members)
        reach = size - 1 if partners is None else min(partners, size - 1)
        for place, member in enumerate(members):
            for step in range(1, reach + 1):
                other = members[(place + step) % size]
                found.add((min(member, other), max(member, other)))
    return np.array(sorted(found), np.int64).reshape(-1, 2)


def mean_over_partners(values: np.ndarray, pairs: np.ndarray, num_members: int) -> np.ndarray:
    """Give each member the mean over the pairs that it is part of.

    Parameters
    ----------
    values
        ``[pairs]``; pairs without a number (NaN) are left out.
    pairs
        Positions ``[pairs, 2]``.

    Returns
    -------
    np.ndarray
        ``[num_members]``, float64; NaN of members without a pair.
    """
    known = np.isfinite(values)
    members = pairs[known].ravel()
    sums = np.bincount(members, np.repeat(values[known], 2), minlength=num_members)
    counts = np.bincount(members, minlength=num_members)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
