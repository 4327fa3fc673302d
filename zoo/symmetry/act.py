"""Acting on weights: a group element is a re-indexing of the flat vector."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zoo.errors import WeightSpaceMismatchError, unknown_name
from zoo.space import WeightSpace


@dataclass(frozen=True, eq=False)
class Action:
    """An element ``g`` of a weight space's group: ``(g.w)[i] = w[index[i]]``.

    Parameters
    ----------
    index
        ``[P]``, int64.
    """

    index: Tensor

    def __call__(self, vector: Tensor) -> Tensor:
        """Relabel weights ``[..., P]``; returns new weights of the same shape and dtype."""
        return vector.index_select(-1, self.index.to(vector.device))

    def compose(self, other: "Action") -> "Action":
        """Return ``g`` such that ``g.w = self.(other.w)``."""
        return Action(other.index[self.index])

    def inverse(self) -> "Action":
        """Return the element that undoes this one."""
        return Action(torch.argsort(self.index))


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
    permutations = {
        name: torch.randperm(space.group(name).size, generator=generator) for name in chosen
    }
    return from_permutations(space, permutations)


def from_permutations(space: WeightSpace, permutations: dict[str, Tensor]) -> Action:
    """Build the element that relabels each named group.

    Parameters
    ----------
    permutations
        Per neuron group ``[group_size]``, int64; new unit ``i`` is old ``permutations[g][i]``.
        Groups that are not named stay.

    Raises
    ------
    WeightSpaceMismatchError
        If a permutation is not one of its group's units.
    """
    known = {group.name: group for group in space.groups}
    sources = {
        tensor.name: [np.arange(length) for length in tensor.shape] for tensor in space.tensors
    }
    for name, permutation in permutations.items():
        if name not in known:
            raise unknown_name("neuron group", name, known)
        order = np.asarray(permutation)
        if not np.array_equal(np.sort(order), np.arange(known[name].size)):
            raise WeightSpaceMismatchError(
                f"Expected a permutation of {known[name].size} units for neuron group {name!r}, "
                f"got {order.tolist()}."
            )
        for touch in known[name].touches:
            positions = touch.index.array()
            sources[touch.tensor][touch.dim][positions] = positions[order]
    return Action(torch.from_numpy(_flat_index(space, sources)))


def _flat_index(space: WeightSpace, sources: dict[str, list[np.ndarray]]) -> np.ndarray:
    """Combine one source index per axis into one index of the flat vector, ``[P]``."""
    index = np.empty(space.num_parameters, dtype=np.int64)
    for tensor in space.tensors:
        start = space.offsets[tensor.name]
        if tensor.shape:
            grid = np.ravel_multi_index(np.ix_(*sources[tensor.name]), tensor.shape)
        else:
            grid = np.zeros((), dtype=np.int64)
        index[start : start + tensor.numel] = start + np.ravel(grid)
    return index
