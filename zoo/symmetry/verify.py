"""Proof by numbers: relabelled random weights must compute the same function, in float64."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite, prod, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.space import ScaleGroup, TensorSpec, WeightSpace
from zoo.symmetry.act import Action, from_permutations
from zoo.symmetry.factors import from_factors, mix, random_factors, random_matrices

TOLERANCE = 1e-9
ALL_GROUPS = "all groups"
_SEED = 0


@dataclass(frozen=True)
class Verification:
    """Largest change of the outputs under relabelling, as a fraction of their spread.

    Parameters
    ----------
    deviations
        Per neuron group moved alone, and :data:`ALL_GROUPS` moved together.
    failed
        Groups whose deviation exceeds the tolerance.
    """

    deviations: dict[str, float]
    failed: tuple[str, ...]
    passed: bool


def verify(
    space: WeightSpace, module: nn.Module, *inputs: Any, tolerance: float = TOLERANCE
) -> Verification:
    """Check every group alone and all together on random weights, buffers and inputs.

    Parameters
    ----------
    module
        A module of this space, in any mode; it is not changed.
    *inputs
        Inputs of its forward; floating-point ones are replaced by random numbers of their shape.
    tolerance
        Largest accepted deviation, relative to the spread of the outputs.
    """
    generator = torch.Generator().manual_seed(_SEED)
    network = copy.deepcopy(module).double().eval()
    arguments = pytree.tree_map_only(Tensor, lambda x: _random_input(x, generator), inputs)
    weights = random_weights(space, generator)
    reference = _outputs(space, network, weights, arguments)
    spread = _spread(reference)

    def deviation(action: Action) -> float:
        changed = _outputs(space, network, action(weights), arguments)
        value = float((changed - reference).abs().max()) / spread
        return value if isfinite(value) else inf

    deviations: dict[str, float] = {}
    for name, action in _actions(space, generator):
        deviations[name] = max(deviations.get(name, 0.0), deviation(action))
    failed = tuple(group.name for group in space.groups if not deviations[group.name] <= tolerance)
    return Verification(
        deviations=deviations,
        failed=failed,
        passed=all(value <= tolerance for value in deviations.values()),
    )


def refuted_scalings(
    space: WeightSpace, module: nn.Module, *inputs: Any, tolerance: float = TOLERANCE
) -> tuple[str, ...]:
    """Name the scalings and general linear blocks (``GROUP/gl``) that change the function.

    All are tried together first, with random factors and matrices; each alone if that fails.
    """
    generator = torch.Generator().manual_seed(_SEED)
    network = copy.deepcopy(module).double().eval()
    arguments = pytree.tree_map_only(Tensor, lambda x: _random_input(x, generator), inputs)
    weights = random_weights(space, generator)
    reference = _outputs(space, network, weights, arguments)
    spread = _spread(reference)
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        scaling.name: from_factors(space, {scaling.name: _factors(space, scaling, generator)})
        for scaling in space.scalings
    }
    for block in space.gl_blocks:
        matrices = random_matrices(block, generator)
        changes[f"{block.group}/gl"] = partial(mix, space, block, matrices)

    def fails(*chosen: Callable[[Tensor], Tensor]) -> bool:
        changed = weights
        for change in chosen:
            changed = change(changed)
        outputs = _outputs(space, network, changed, arguments)
        return not float((outputs - reference).abs().max()) <= tolerance * spread

    if not changes or not fails(*changes.values()):
        return ()
    return tuple(name for name, change in changes.items() if fails(change)) or tuple(changes)


def _factors(space: WeightSpace, scaling: ScaleGroup, generator: torch.Generator) -> Tensor:
    """Random factors, ``[copies, size]``; among signs, both occur in every copy."""
    factors = random_factors(space, scaling, generator)
    if scaling.domain == "sign":
        factors[:, 0], factors[:, 1] = -1, 1
    return factors


def inert_tensors(
    space: WeightSpace, module: nn.Module, *inputs: Any, tolerance: float = TOLERANCE
) -> tuple[str, ...]:
    """Name the tensors that the function does not depend on, as far as these inputs show.

    A key's bias under softmax is one, and a bias before a normalisation.
    """
    generator = torch.Generator().manual_seed(_SEED)
    network = copy.deepcopy(module).double().eval()
    arguments = pytree.tree_map_only(Tensor, lambda x: _random_input(x, generator), inputs)
    weights, other = random_weights(space, generator), random_weights(space, generator)
    reference = _outputs(space, network, weights, arguments)
    spread = _spread(reference)
    inert = []
    for tensor in space.tensors:
        entries = slice(space.offsets[tensor.name], space.offsets[tensor.name] + tensor.numel)
        changed = weights.clone()
        changed[entries] = other[entries]
        outputs = _outputs(space, network, changed, arguments)
        if float((outputs - reference).abs().max()) <= tolerance * spread:
            inert.append(tensor.name)
    return tuple(inert)


class _InFloat64(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lifts casts to shorter floats, so that networks with norms in float32 are proved too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = dict(kwargs or {})
        if keywords.get("dtype") in (torch.float32, torch.float16, torch.bfloat16):
            keywords["dtype"] = torch.float64
        return func(*args, **keywords)


def random_weights(space: WeightSpace, generator: torch.Generator) -> Tensor:
    """Draw weights and buffers, ``[P]``, float64: no two units alike, outputs of order one."""
    parts = [_random_tensor(tensor, generator).ravel() for tensor in space.tensors]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def _random_tensor(tensor: TensorSpec, generator: torch.Generator) -> Tensor:
    values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    if tensor.role == "variance":
        return values.abs() + 0.5
    return values / sqrt(max(1, prod(tensor.shape[1:])))


def _random_input(value: Tensor, generator: torch.Generator) -> Tensor:
    if not value.is_floating_point():
        return value
    return torch.randn(value.shape, generator=generator, dtype=torch.float64)


def _actions(space: WeightSpace, generator: torch.Generator) -> Iterator[tuple[str, Action]]:
    """Per group, a random cycle through all its units and a swap of two neighbours in that cycle.

    Together they generate every relabelling of the group, and neither is the identity.
    """
    cycles: dict[str, Tensor] = {}
    for group in space.groups:
        cycle, swap = (torch.arange(group.size).repeat(group.copies, 1) for _ in range(2))
        for number in range(group.copies):
            order = torch.randperm(group.size, generator=generator)
            cycle[number, order] = order.roll(1)
            swap[number, order[:2]] = order[:2].flip(0)
        cycles[group.name] = cycle
        yield group.name, from_permutations(space, {group.name: cycle})
        yield group.name, from_permutations(space, {group.name: swap})
    yield ALL_GROUPS, from_permutations(space, cycles)


def _spread(outputs: Tensor) -> float:
    """Return how far outputs are from their mean at most; of a single number, its size."""
    away = outputs - outputs.mean() if outputs.numel() > 1 else outputs
    return max(float(away.abs().max()), 1e-300)


@torch.no_grad()
def _outputs(space: WeightSpace, network: nn.Module, weights: Tensor, inputs: Any) -> Tensor:
    """All floating-point outputs of the network with these weights, as one vector."""
    with _InFloat64():  # type: ignore[no-untyped-call]
        values = torch.func.functional_call(
            network, space.state_dict(weights), inputs, tie_weights=False
        )
    tensors = [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]
    return torch.cat([t.double().ravel() for t in tensors if t.is_floating_point()])
