"""Grids: the axes that a recipe enumerates, and the place that a member has among them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from data_gen.distributions import Distribution, Grid

ARCHITECTURES_AXIS = "architectures"
"""Name of the axis along which a recipe's architectures are enumerated."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where members are in a grid.

    Member ``m`` has place ``m % size`` and is its repeat ``m // size``. Places run through the
    product of all axes, the last axis fastest: a block of members holds all values of the last.

    Parameters
    ----------
    sizes
        Per axis, in order, how many values it has.
    """

    sizes: Mapping[str, int]

    @classmethod
    def of(cls, hyperparameters: Mapping[str, Distribution], num_architectures: int) -> "Places":
        """Take the grids among hyper-parameters, in their order, then the architectures."""
        sizes = {
            name: len(item.values)
            for name, item in hyperparameters.items()
            if isinstance(item, Grid)
        }
        if num_architectures:
            sizes[ARCHITECTURES_AXIS] = num_architectures
        return cls(sizes=sizes)

    @property
    def size(self) -> int:
        """Places of the grid; 1 where nothing is enumerated.

        >>> Places(sizes={"learning_rate": 3, "optimizer": 2}).size
        6
        """
        return prod(self.sizes.values())

    def repeats(self, members: Iterable[int]) -> np.ndarray:
        """Return which pass through the grid each member belongs to, ``[n]`` int64."""
        return np.asarray(members, dtype=np.int64) // self.size

    def along_axes(self, members: Iterable[int]) -> dict[str, np.ndarray]:
        """Return members' positions along every axis, ``[n]`` int64 each.

        >>> places = Places(sizes={"learning_rate": 2, "optimizer": 2})
        >>> {name: where.tolist() for name, where in places.along_axes(range(5)).items()}
        {'learning_rate': [0, 0, 1, 1, 0], 'optimizer': [0, 1, 0, 1, 0]}
        """
        if not self.sizes:
            return {}
        flat = np.asarray(members, dtype=np.int64) % self.size
        along = np.unravel_index(flat, tuple(self.sizes.values()))
        return dict(zip(self.sizes, along, strict=True))
