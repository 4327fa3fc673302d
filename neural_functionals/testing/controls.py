"""Controls that are proved: what looks like a symmetry and changes what a network computes."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from neural_functionals.testing.actions import moved_on_one_axis
from zoo.space import WeightSpace
from zoo.symmetry import Action, random_weights

_CHANGED = 1e-4  # of the spread of a network's outputs: less may be rounding


def proved_controls(
    space: WeightSpace, module: nn.Module, *inputs: Any, most: int = 12
) -> list[Action]:
    """Find relabellings of one axis only that are proved to change the function.

    Some do not: where a group touches one axis alone, or all others are inert (keys' biases), one
    side is the whole symmetry. So each is tried on a module with random weights and inputs.

    Parameters
    ----------
    module
        A module of the space; it is not changed.
    *inputs
        Inputs of its forward, whose floating-point ones are replaced by random numbers.
    most
        Number of relabellings at most, spread over all groups and axes.
    """
    changes = _try_on(space, module, inputs)
    one_sided = (
        moved_on_one_axis(space, group, touch) for group in space.groups for touch in group.touches
    )
    found = list(filter(changes, one_sided))
    return found[:: max(1, -(-len(found) // most))]


def _try_on(
    space: WeightSpace, module: nn.Module, inputs: tuple[Any, ...]
) -> Callable[[Action], bool]:
    """Return what tells whether an action changes the outputs of a module."""
    generator = torch.Generator().manual_seed(0)
    network = deepcopy(module).double().eval()
    arguments = pytree.tree_map_only(Tensor, lambda value: _noise(value, generator), inputs)
    weights = random_weights(space, generator)

    @torch.no_grad()
    def outputs(vector: Tensor) -> Tensor:
        values = functional_call(network, space.state_dict(vector), arguments, tie_weights=False)
        leaves = (leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor))
        return torch.cat([leaf.double().ravel() for leaf in leaves if leaf.is_floating_point()])

    before = outputs(weights)
    least = _CHANGED * (before - before.mean()).abs().max()
    return lambda action: bool((outputs(action(weights)) - before).abs().max() > least)


def _noise(value: Tensor, generator: torch.Generator) -> Tensor:
    if not value.is_floating_point():
        return value
    return torch.randn(value.shape, generator=generator, dtype=torch.float64)
