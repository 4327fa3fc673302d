"""Labelled tensors: a shape and, per axis, the unit that each position belongs to.

The units of an axis may depend on where one is on other axes (the units inside a head depend on the
head), so the labels of each axis are an array of the tensor's rank, of size 1 along the axes that
they do not depend on.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod
from operator import mul

import numpy as np
from torch import Tensor

Labels = np.ndarray | None
"""Unit ids of one axis, or ``None`` where the tensor does not vary along the axis."""


class UnsupportedError(Exception):
    """A rule meets a case that it does not cover; what the operator touches is pinned."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """What is known of one tensor of the graph.

    Parameters
    ----------
    shape, labels
        Per axis its length and its units, of the tensor's rank.
    name
        Name in the weight space, for the network's own parameters and buffers.
    constant
        Its value, where it depends on nothing but the code.
    """

    shape: tuple[int, ...]
    labels: tuple[Labels, ...]
    name: str | None = None
    constant: Tensor | None = None

    def __post_init__(self) -> None:
        assert len(self.shape) == len(self.labels), (self.shape, len(self.labels))
        for dim, labels in enumerate(self.labels):
            assert labels is None or labels.ndim == self.rank, (self.shape, labels.shape)
            assert labels is None or labels.shape[dim] == self.shape[dim] > 1, (dim, self.shape)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def replace(self, dim: int, labels: Labels) -> "Labelled":
        """Return a copy with other units on one axis."""
        changed = list(self.labels)
        changed[dim] = labels
        return Labelled(self.shape, tuple(changed))


def along(ids: np.ndarray, dim: int, rank: int) -> np.ndarray:
    """Lay ids ``[length]`` along one axis of an array of some rank."""
    return ids.reshape([-1 if at == dim else 1 for at in range(rank)])


def without(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    """Replace one length of a shape by 1."""
    return (*shape[:dim], 1, *shape[dim + 1 :])


def merged_axes(labels: np.ndarray, dim: int, outer: int, inner: int) -> np.ndarray:
    """Merge two axes of a label array, unless it depends on neither."""
    lengths = labels.shape[dim : dim + 2]
    target = (1, 1) if lengths == (1, 1) else (outer, inner)
    full = np.broadcast_to(labels, (*labels.shape[:dim], *target, *labels.shape[dim + 2 :]))
    return full.reshape(*labels.shape[:dim], prod(target), *labels.shape[dim + 2 :])


def split_axis(labels: np.ndarray, dim: int, outer: int, inner: int) -> np.ndarray:
    """Split an axis of a label array, unless it does not depend on it."""
    lengths = (1, 1) if labels.shape[dim] == 1 else (outer, inner)
    return labels.reshape(*labels.shape[:dim], *lengths, *labels.shape[dim + 1 :])


def matching_runs(source: list[int], target: list[int]) -> list[tuple[list[int], list[int]]]:
    """Match axes of two shapes without ones: which of the first make which of the second."""
    runs = []
    i = j = 0
    while i < len(source):
        first_i, first_j = i, j
        left, right = source[i], target[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left, i = left * source[i], i + 1
            else:
                right, j = right * target[j], j + 1
        runs.append((source[first_i:i], target[first_j:j]))
    return runs


def common_grid(source: list[int], target: list[int]) -> list[int] | None:
    """Lengths of which axes of both shapes are products, if there are any."""
    bounds = sorted({*accumulate(source, mul), *accumulate(target, mul)})
    if any(high % low for low, high in pairwise(bounds)):
        return None
    return [high // low for low, high in pairwise([1, *bounds])]


def grouped(grid: list[int], lengths: list[int]) -> list[list[int]]:
    """Cut a grid into runs whose products are the lengths."""
    groups: list[list[int]] = []
    at = 0
    for length in lengths:
        group: list[int] = []
        while prod(group) < length:
            group.append(grid[at])
            at += 1
        groups.append(group)
    return groups
