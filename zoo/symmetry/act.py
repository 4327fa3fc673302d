"""Acting on weights: a group element re-indexes the flat vector, and may scale it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zoo.errors import WeightSpaceMismatchError, unknown_name
from zoo.space import NeuronGroup, Touch, WeightSpace


@dataclass(frozen=True, eq=False)
class Action:
    """An element ``g`` of a weight space's group: ``(g.w)[i] = multiplier[i] * w[index[i]]``.

    Parameters
    ----------
    index
        ``[P]``, int64.
    multiplier
        Factors ``[..., P]``, float64, or one set of factors for each member of a batch; ``None``
        where nothing is scaled.
    """

    index: Tensor
    multiplier: Tensor | None = None

    def __call__(self, vector: Tensor) -> Tensor:
        """Relabel and scale weights ``[..., P]``; returns new weights of the same dtype."""
        moved = vector.index_select(-1, self.index.to(vector.device))
        if self.multiplier is None:
            return moved
        return moved * self.multiplier.to(moved)

    def compose(self, other: "Action") -> "Action":
        """Return ``g`` such that ``g.w = self.(other.w)``."""
        inner = None if other.multiplier is None else other.multiplier[..., self.index]
        if inner is not None and self.multiplier is not None:
            inner = inner * self.multiplier
        return Action(
            other.index[self.index], multiplier=self.multiplier if inner is None else inner
        )

    def inverse(self) -> "Action":
        """Return the element that undoes this one."""
        index = torch.argsort(self.index)
        if self.multiplier is None:
            return Action(index)
        return Action(index, multiplier=1 / self.multiplier[..., index])


def identity(space: WeightSpace) -> Action:
    """Return the element that changes nothing."""
    return Action(torch.arange(space.num_parameters))


def sample(
    space: WeightSpace, generator: torch.Generator, *, groups: tuple[str, ...] | None = None
) -> Action:
    """Draw a uniformly random element.

    Parameters
    ----------
    generator
        Source of randomness.
    groups
        Names of the groups to move; all of them by default.
    """
    chosen = [group.name for group in space.groups] if groups is None else list(groups)
    permutations = {}
    for name in chosen:
        group = space.group(name)
        copies = [torch.randperm(group.size, generator=generator) for _ in range(group.copies)]
        permutations[name] = torch.stack(copies)
    return from_permutations(space, permutations)


def from_permutations(space: WeightSpace, permutations: Mapping[str, Tensor]) -> Action:
    """Build the element that relabels each named group.

    Parameters
    ----------
    permutations
        Per neuron group ``[size]``, or ``[copies, size]`` where it is nested, int64; new unit ``i``
        is old unit ``permutations[g][i]``. Groups that are not named stay. A group moves after the
        groups nested inside it.

    Raises
    ------
    WeightSpaceMismatchError
        If a permutation is not one of its group's units.
    """
    known = {group.name: group for group in space.groups}
    for name in permutations:
        if name not in known:
            raise unknown_name("neuron group", name, known)
    grids = {tensor.name: np.arange(tensor.numel).reshape(tensor.shape) for tensor in space.tensors}
    for group in sorted(space.groups, key=lambda group: -depth(space, group)):
        if group.name in permutations:
            orders = _orders(group, permutations[group.name])
            for touch in group.touches:
                grids[touch.tensor] = _relabel(grids[touch.tensor], touch, orders)
    return Action(
        torch.from_numpy(
            np.concatenate(
                [
                    space.offsets[tensor.name] + grids[tensor.name].ravel()
                    for tensor in space.tensors
                ]
            )
        )
    )


def depth(space: WeightSpace, group: NeuronGroup) -> int:
    """Return the number of groups that a group is nested inside."""
    return 0 if group.parent is None else 1 + depth(space, space.group(group.parent))


def _orders(group: NeuronGroup, permutation: Tensor) -> np.ndarray:
    """Check a permutation; returns ``[copies, size]``."""
    orders = np.asarray(permutation)
    shape = (group.copies, group.size)
    fits = orders.shape == shape or (group.copies == 1 and orders.shape == shape[1:])
    orders = orders.reshape(shape) if fits else orders
    if not fits or not np.array_equal(np.sort(orders, axis=1), np.indices(shape)[1]):
        raise WeightSpaceMismatchError(
            f"Expected a permutation of {group.size} units in each of {group.copies} copies of "
            f"neuron group {group.name!r}, got {orders.tolist()}."
        )
    return orders


def _relabel(grid: np.ndarray, touch: Touch, orders: np.ndarray) -> np.ndarray:
    """Move one axis of a tensor's grid of positions."""
    positions = touch.index.array().reshape(*orders.shape, -1)
    if touch.rows is None:
        source = np.arange(grid.shape[touch.dim])
        for copy, order in zip(positions, orders, strict=True):
            source[copy] = copy[order]
        return grid.take(source, axis=touch.dim)
    assert touch.rows_dim is not None
    grid = grid.copy()
    for copy, order, rows in zip(positions, orders, touch.rows.array(), strict=True):
        source = np.arange(grid.shape[touch.dim])
        source[copy] = copy[order]
        at = [slice(None)] * grid.ndim
        at[touch.rows_dim] = rows  # type: ignore[call-overload]
        grid[tuple(at)] = grid[tuple(at)].take(source, axis=touch.dim)
    return grid
