"""Symmetries of a space, what looks like them but is none, and what a model makes of both."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from neural_functionals.models import NeuralFunctional
from neural_functionals.models.functional import DOMAINS, Symmetry
from zoo.space import NeuronGroup, Touch, WeightSpace
from zoo.symmetry import Action, from_permutations, sample_scale

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}  # error per spread
SCALE_TOLERANCE = 1e-9  # of factors, in float64: these are not exact as permutations are
CONTROL = 1e3  # what a non-symmetry changes, in errors
SEEDS = (0, 1, 2)


def random_action(space: WeightSpace, *, seed: int) -> Action:
    """Draw a relabelling that moves something."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        action = space.sample(generator)
        if not torch.equal(action.index, torch.arange(space.num_parameters)):
            return action


def one_sided(space: WeightSpace, *, seed: int) -> Action:
    """Permute the units of a group on one side of a layer only, which changes most networks.

    Groups that touch one axis alone are passed over: they have no other side.
    """
    chosen = [group for group in space.groups if len(group.touches) > 1]
    group = chosen[seed % len(chosen)]
    largest = max(group.touches, key=lambda touch: space.tensor(touch.tensor).numel)
    return moved_on_one_axis(space, group, largest)


def moved_on_one_axis(space: WeightSpace, group: NeuronGroup, touch: Touch) -> Action:
    """Move each unit of a group by one, on one axis only."""
    half = replace(space, groups=(replace(group, touches=(touch,), parent=None),))
    moved = torch.arange(group.size).roll(1).expand(group.copies, -1)
    return from_permutations(half, {group.name: moved})


def random_scale(space: WeightSpace, kind: Symmetry, *, seed: int) -> Action:
    """Draw factors of one kind for all hidden units, not all of them one."""
    generator = torch.Generator().manual_seed(seed)
    names = tuple(one.name for one in space.scalings if one.domain == DOMAINS[kind])
    while True:
        action = sample_scale(space, generator, scalings=names)
        if action.multiplier is not None and bool((action.multiplier != 1).any()):
            return action


def one_sided_scale(space: WeightSpace, kind: Symmetry, *, seed: int) -> Action:
    """Scale the units of a group on one side of a layer only, which changes most networks."""
    chosen = [one for one in space.scalings if one.domain == DOMAINS[kind]]
    scaling = chosen[seed % len(chosen)]
    largest = max(scaling.exponents, key=lambda one: space.tensor(one.tensor).numel)
    half = replace(space, scalings=(replace(scaling, exponents=(largest,)),))
    return random_scale(half, kind, seed=seed)


def across_tensors(space: WeightSpace, *, seed: int) -> Action:
    """Shuffle all entries: what even statistics per tensor must notice."""
    generator = torch.Generator().manual_seed(seed)
    return Action(torch.randperm(space.num_parameters, generator=generator))


class SymmetryRow(NamedTuple):
    """What one kind of symmetry does to a model's output, per spread of it over networks.

    ``error``: the largest change under the symmetry; ``control``: the smallest under something like
    it that changes the networks' function, infinite if there is none.
    """

    kind: Symmetry
    error: float
    control: float

    @property
    def holds(self) -> bool:
        """Whether the error is none, and the control far above it."""
        noticed = self.control >= CONTROL * max(self.error, TOLERANCE[torch.float64])
        return self.error <= SCALE_TOLERANCE and noticed


def symmetry_kinds(space: WeightSpace) -> tuple[Symmetry, ...]:
    """Kinds of symmetry that a space has."""
    domains = {scaling.domain for scaling in space.scalings}
    return (
        *(("permutation",) if space.groups else ()),
        *(kind for kind, domain in DOMAINS.items() if domain in domains),
    )


def symmetry_errors(
    model: NeuralFunctional,
    space: WeightSpace,
    weights: Tensor,
    *,
    kinds: tuple[Symmetry, ...] | None = None,
    non_symmetries: Sequence[Action] | None = None,
) -> list[SymmetryRow]:
    """Measure ``f(g.w) = f(w)`` for each kind of symmetry, with a control.

    Parameters
    ----------
    model
        What is tested, with measured normalisation and before any sigmoid.
    weights
        Different networks ``[batch, P]`` of the model's dtype, at least two.
    kinds
        Kinds to measure; by default all that the space has.
    non_symmetries
        The controls of ``"permutation"``, by default of :func:`one_sided`; the other kinds then
        have none.
    """
    with torch.no_grad():
        before = model(weights)
    rows = []
    for kind in symmetry_kinds(space) if kinds is None else kinds:
        moves, controls = zip(*(_drawn(space, kind, seed=seed) for seed in SEEDS), strict=True)
        if non_symmetries is not None:
            controls = tuple(non_symmetries) if kind == "permutation" else ()
        error = max(change(model, action(weights), before) for action in moves)
        control = min((change(model, action(weights), before) for action in controls), default=inf)
        rows.append(SymmetryRow(kind, error, control))
    return rows


def _drawn(space: WeightSpace, kind: Symmetry, *, seed: int) -> tuple[Action, Action]:
    """Draw a symmetry of one kind, and what looks like it."""
    if kind == "permutation":
        return random_action(space, seed=seed), one_sided(space, seed=seed)
    return random_scale(space, kind, seed=seed), one_sided_scale(space, kind, seed=seed)


@torch.no_grad()
def change(model: NeuralFunctional, weights: Tensor, before: Tensor) -> float:
    """Largest change of an output, per spread of that output over networks."""
    return float(((model(weights) - before).abs() / before.std(dim=0)).max())
