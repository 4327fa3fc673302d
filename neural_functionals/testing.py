"""Contract suites for networks that read weights, and the spaces they are tested on.

A new model subclasses :class:`InvariantModelContract`, gives ``make_model`` and inherits every
test. Errors are compared with the *spread* of the output over different networks, for a small error
means nothing where all outputs are alike, and with what a non-symmetry does.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from neural_functionals.models import NeuralFunctional
from zoo.networks import build, example_input
from zoo.space import NeuronGroup, Touch, WeightSpace
from zoo.symmetry import Action, from_permutations, trace

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
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}  # error per spread
CONTROL = 1e3  # what a non-symmetry changes, in errors
SEEDS = (0, 1, 2)


@cache
def example_space(name: str) -> WeightSpace:
    """Weight space of one of :data:`NETWORKS`."""
    return trace(build(NETWORKS[name]), example_input(NETWORKS[name]))


def random_networks(space: WeightSpace, count: int, *, seed: int) -> Tensor:
    """Weights ``[count, P]``, float64, of networks as different in scale as trained ones are."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.empty(count, 1, dtype=torch.float64).uniform_(0.3, 3.0, generator=generator)
    entries = torch.randn(count, space.num_parameters, generator=generator, dtype=torch.float64)
    return scale * entries


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
    return from_permutations(half, {group.name: torch.arange(group.size).roll(1)})


def across_tensors(space: WeightSpace, *, seed: int) -> Action:
    """Shuffle all entries: what even statistics per tensor must notice."""
    generator = torch.Generator().manual_seed(seed)
    return Action(torch.randperm(space.num_parameters, generator=generator))


def _only(space: WeightSpace, group: NeuronGroup, touch: Touch) -> WeightSpace:
    """Return a space whose one group moves one axis."""
    return replace(space, groups=(replace(group, touches=(touch,)),))


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


@torch.no_grad()
def _change(model: NeuralFunctional, weights: Tensor, before: Tensor) -> float:
    """Largest change of an output, per spread of that output over networks."""
    return float(((model(weights) - before).abs() / before.std(dim=0)).max())
