"""Contract suites for networks that read weights, and the spaces they are tested on.

A new model subclasses :class:`InvariantModelContract`, gives ``make_model`` and inherits every
test. Errors are compared with the *spread* of the output over different networks, for a small error
means nothing where all outputs are alike, and with what a non-symmetry does.
:class:`ScaleInvariantModelContract` adds factors and signs of hidden units for models that claim
them; :func:`symmetry_errors` measures every kind of symmetry for tests and tables alike.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from math import isfinite
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from neural_functionals.models import NeuralFunctional
from neural_functionals.models.functional import Symmetry
from zoo.networks import build, example_input
from zoo.space import Domain, NeuronGroup, Touch, WeightSpace
from zoo.symmetry import Action, from_permutations, sample_scale, trace

# Distinct small widths: an axis taken for another fails.
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "in_features": 4, "hidden": [3, 5], "out_features": 2},
    "siren": {"name": "siren", "in_features": 2, "hidden": [5, 3], "out_features": 1},
    "cnn": {
        "name": "cnn",
        "in_channels": 1,
        "image_size": 8,
        "out_features": 4,
        "channels": [3, 2],
        "kernel_size": 2,
    },
    "cnn-batch-norm": {
        "name": "cnn",
        "in_channels": 1,
        "image_size": 8,
        "out_features": 5,
        "channels": [2, 3],
        "kernel_size": 2,
        "batch_norm": True,
    },
    "flatten": {
        "name": "cnn",
        "in_channels": 1,
        "image_size": 9,
        "out_features": 2,
        "channels": [2, 3],
        "kernel_size": 2,
        "head": "flatten",
    },
}
SCALED_NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": NETWORKS["mlp"],
    "mlp-tanh": NETWORKS["mlp"] | {"activation": "tanh"},
    "siren": NETWORKS["siren"],
    "cnn": NETWORKS["cnn"],
    "cnn-batch-norm": NETWORKS["cnn-batch-norm"],
}  # hidden units have positive factors (ReLU), signs (tanh, sine) or both (before a BatchNorm)
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}  # error per spread
SCALE_TOLERANCE = 1e-9  # of factors, in float64: these are not exact as permutations are
CONTROL = 1e3  # what a non-symmetry changes, in errors
SEEDS = (0, 1, 2)
DOMAINS: dict[Symmetry, Domain] = {"scale": "positive", "sign": "sign"}


@cache
def example_space(name: str) -> WeightSpace:
    """Weight space of one of :data:`NETWORKS` or :data:`SCALED_NETWORKS`."""
    recipe = (NETWORKS | SCALED_NETWORKS)[name]
    return trace(build(recipe), example_input(recipe))


def random_networks(space: WeightSpace, count: int, *, seed: int) -> Tensor:
    """Weights ``[count, P]``, float64, of networks as different in scale as trained ones are."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.empty(count, 1, dtype=torch.float64).uniform_(0.3, 3.0, generator=generator)
    entries = torch.randn(count, space.num_parameters, generator=generator, dtype=torch.float64)
    return scale * entries


def wild_networks(name: str, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Networks that break careless arithmetic, and what each computes for one input.

    Units are scaled over several orders of magnitude, a tenth of all weights nearly vanishes, and
    one unit of each network is dead.

    Returns
    -------
    Tensor, Tensor
        Weights ``[count, P]`` of one of :data:`SCALED_NETWORKS`, and standardised outputs
        ``[count, 1]``, float32.
    """
    space, module = example_space(name), build(SCALED_NETWORKS[name]).double()
    generator = torch.Generator().manual_seed(seed)
    weights = random_networks(space, count, seed=seed)
    weights[torch.rand(weights.shape, generator=generator) < 0.1] *= 1e-9
    tensors = space.unflatten(weights)
    for touch in space.groups[0].touches:
        if space.tensor(touch.tensor).axes[touch.dim].role != "in":
            tensors[touch.tensor].select(1 + touch.dim, 0).zero_()
    weights = sample_scale(space, generator, log_std=3.0)(weights)
    example = torch.rand(example_input(SCALED_NETWORKS[name]).shape, generator=generator).double()
    outputs = torch.stack(
        [functional_call(module, space.state_dict(one), (example,))[0, :1] for one in weights]
    ).detach()
    return weights.float(), ((outputs - outputs.mean()) / outputs.std()).float()


def train_briefly(model: NeuralFunctional, weights: Tensor, targets: Tensor) -> list[float]:
    """Train for ten epochs on standardised targets; returns the mean squared error of each."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        total = 0.0
        for batch, target in zip(torch.split(weights, 16), torch.split(targets, 16), strict=True):
            loss = (model(batch)[:, :1] - target).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(batch) / len(weights)
        losses.append(total)
    return losses


def random_action(space: WeightSpace, *, seed: int) -> Action:
    """Draw a relabelling that moves something."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        action = space.sample(generator)
        if not torch.equal(action.index, torch.arange(space.num_parameters)):
            return action


def one_sided(space: WeightSpace, *, seed: int) -> Action:
    """Permute the units of a group on one side of a layer only, which changes most networks."""
    group = space.groups[seed % len(space.groups)]
    largest = max(group.touches, key=lambda touch: space.tensor(touch.tensor).numel)
    half = _only(space, group, largest)
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


def _only(space: WeightSpace, group: NeuronGroup, touch: Touch) -> WeightSpace:
    """Return a space whose one group moves one axis."""
    return replace(space, groups=(replace(group, touches=(touch,), parent=None),))


class SymmetryRow(NamedTuple):
    """What one kind of symmetry does to a model's output, per spread of it over networks.

    ``error``: the largest change under the symmetry; ``control``: the smallest under something like
    it that changes the networks' function.
    """

    kind: Symmetry
    error: float
    control: float


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
    non_symmetry: Callable[..., Action] = one_sided,
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
    non_symmetry
        The control of ``"permutation"``.
    """
    with torch.no_grad():
        before = model(weights)
    rows = []
    for kind in symmetry_kinds(space) if kinds is None else kinds:
        moves, controls = [], []
        for seed in SEEDS:
            if kind == "permutation":
                moves.append(random_action(space, seed=seed))
                controls.append(non_symmetry(space, seed=seed))
            else:
                moves.append(random_scale(space, kind, seed=seed))
                controls.append(one_sided_scale(space, kind, seed=seed))
        error = max(_change(model, action(weights), before) for action in moves)
        control = min(_change(model, action(weights), before) for action in controls)
        rows.append(SymmetryRow(kind, error, control))
    return rows


class ModelContract(ABC):
    """What every model does, whatever it reads."""

    @pytest.fixture(params=list(NETWORKS))
    def space(self, request: pytest.FixtureRequest) -> WeightSpace:
        """Each of the example spaces."""
        return example_space(request.param)

    @abstractmethod
    def make_model(self, space: WeightSpace) -> NeuralFunctional:
        """Make a model with fresh weights, drawn from torch's current generator."""

    @abstractmethod
    def make_inputs(self, space: WeightSpace, count: int, *, seed: int) -> Tensor:
        """Draw what the model reads for ``count`` members, float64."""

    def fitted(
        self, space: WeightSpace, *, seed: int = 0, dtype: torch.dtype = torch.float64
    ) -> NeuralFunctional:
        """Make a model with measured normalisation: the whole pipeline."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.make_model(space)
        model.fit_statistics(self.make_inputs(space, 50, seed=100 + seed))
        return model.to(dtype)

    def test_output_shape(self, space: WeightSpace) -> None:
        """One finite row per member."""
        model = self.fitted(space)
        outputs = model(self.make_inputs(space, 7, seed=1))
        assert outputs.shape == (7, model.num_outputs)
        assert outputs.isfinite().all()

    def test_batch_of_one_equals_its_row(self, space: WeightSpace) -> None:
        """A member's output does not depend on its batch."""
        model, inputs = self.fitted(space), self.make_inputs(space, 4, seed=1)
        torch.testing.assert_close(model(inputs[2:3]), model(inputs)[2:3], rtol=1e-11, atol=1e-12)

    def test_empty_batch(self, space: WeightSpace) -> None:
        """No members, no rows."""
        model = self.fitted(space)
        assert model(self.make_inputs(space, 2, seed=1)[:0]).shape == (0, model.num_outputs)

    def test_no_gradient_crosses_members(self, space: WeightSpace) -> None:
        """A member's output depends on that member alone."""
        inputs = self.make_inputs(space, 4, seed=1).requires_grad_()
        self.fitted(space)(inputs)[1].sum().backward()
        assert inputs.grad is not None
        assert inputs.grad[1].abs().max() > 0
        assert inputs.grad[[0, 2, 3]].abs().max() == 0

    def test_gradient_reaches_every_parameter(self, space: WeightSpace) -> None:
        """No parameter is left out of training."""
        model = self.fitted(space)
        model(self.make_inputs(space, 8, seed=1)).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name

    def test_state_dict_round_trip(self, space: WeightSpace) -> None:
        """Weights and measured normalisation travel together."""
        model, other = self.fitted(space), self.fitted(space, seed=1)
        inputs = self.make_inputs(space, 3, seed=2)
        assert not torch.equal(model(inputs), other(inputs))
        other.load_state_dict(model.state_dict())
        assert torch.equal(model(inputs), other(inputs))


class InvariantModelContract(ModelContract):
    """What a model that reads weights does: ``f(g.w) = f(w)``, but it notices non-symmetries."""

    non_symmetry: ClassVar[Callable[..., Action]] = staticmethod(one_sided)

    def make_inputs(self, space: WeightSpace, count: int, *, seed: int) -> Tensor:
        """Draw weights of different networks."""
        return random_networks(space, count, seed=seed)

    @pytest.mark.parametrize("dtype", list(TOLERANCE))
    def test_invariant(self, space: WeightSpace, dtype: torch.dtype) -> None:
        """``f(g.w) = f(w)`` before any sigmoid, normalisation included."""
        model = self.fitted(space, dtype=dtype)
        weights = self.make_inputs(space, 16, seed=1).to(dtype)
        outputs = model(weights).detach()
        error = max(
            _change(model, random_action(space, seed=seed)(weights), outputs) for seed in SEEDS
        )
        assert error <= TOLERANCE[dtype]

    @pytest.mark.parametrize("seed", SEEDS)
    def test_notices_a_non_symmetry(self, space: WeightSpace, seed: int) -> None:
        """What changes the networks' function changes the output."""
        model = self.fitted(space)
        weights = self.make_inputs(space, 16, seed=1)
        outputs = model(weights).detach()

        noticed = _change(model, self.non_symmetry(space, seed=seed)(weights), outputs)
        error = _change(model, random_action(space, seed=seed)(weights), outputs)
        assert noticed >= CONTROL * max(error, TOLERANCE[torch.float64])


class ScaleInvariantModelContract(InvariantModelContract):
    """What a model does that claims factors of hidden units, too: ``f(g.w) = f(w)`` for these.

    ``claims``: the kinds of factors that the model is invariant to.
    """

    claims: ClassVar[tuple[Symmetry, ...]] = ("scale", "sign")

    @pytest.fixture(params=list(SCALED_NETWORKS))
    def scaled_space(self, request: pytest.FixtureRequest) -> WeightSpace:
        """Each of the example spaces whose hidden units may be scaled."""
        return example_space(request.param)

    def test_invariant_to_scale(self, scaled_space: WeightSpace) -> None:
        """Factors that keep a network's function keep the output; one-sided ones do not."""
        model = self.fitted(scaled_space)
        weights = self.make_inputs(scaled_space, 16, seed=1)
        kinds = tuple(kind for kind in symmetry_kinds(scaled_space) if kind in self.claims)
        rows = symmetry_errors(model, scaled_space, weights, kinds=kinds)
        assert [row.kind for row in rows] == list(kinds)
        for row in rows:
            assert row.error <= SCALE_TOLERANCE, row
            assert row.control >= CONTROL * max(row.error, TOLERANCE[torch.float64]), row

    def test_permutes_and_scales_at_once(self, scaled_space: WeightSpace) -> None:
        """A monomial action: relabelling after scaling."""
        model = self.fitted(scaled_space)
        weights = self.make_inputs(scaled_space, 16, seed=1)
        outputs = model(weights).detach()
        moved = random_action(scaled_space, seed=3)
        for kind in symmetry_kinds(scaled_space):
            if kind in self.claims:
                moved = moved.compose(random_scale(scaled_space, kind, seed=3))
        assert _change(model, moved(weights), outputs) <= SCALE_TOLERANCE

    def test_trains_on_wild_networks(self) -> None:
        """Nearly vanishing weights, dead units and extreme factors give no NaN in ten epochs."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.make_model(example_space("cnn"))
            weights, targets = wild_networks("cnn", 64, seed=0)
            model.fit_statistics(weights)
            losses = train_briefly(model, weights, targets)
        assert all(isfinite(loss) for loss in losses), losses
        assert losses[-1] < losses[0], losses


@torch.no_grad()
def _change(model: NeuralFunctional, weights: Tensor, before: Tensor) -> float:
    """Largest change of an output, per spread of that output over networks."""
    return float(((model(weights) - before).abs() / before.std(dim=0)).max())
