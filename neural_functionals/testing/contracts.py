"""Contract suites: what every model does, and what those do that claim symmetries."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import isfinite
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from neural_functionals.models import NeuralFunctional
from neural_functionals.models.functional import Symmetry
from neural_functionals.testing.actions import (
    CONTROL,
    SCALE_TOLERANCE,
    SEEDS,
    TOLERANCE,
    change,
    one_sided,
    random_action,
    random_scale,
    symmetry_errors,
    symmetry_kinds,
)
from neural_functionals.testing.spaces import (
    NETWORKS,
    SCALED_NETWORKS,
    example_space,
    random_networks,
    wild_networks,
)
from zoo.space import WeightSpace
from zoo.symmetry import Action


def train_briefly(model: NeuralFunctional, weights: Tensor, targets: Tensor) -> list[float]:
    """Train for ten epochs on standardised targets; returns the mean squared error of each."""
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
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
            change(model, random_action(space, seed=seed)(weights), outputs) for seed in SEEDS
        )
        assert error <= TOLERANCE[dtype]

    @pytest.mark.parametrize("seed", SEEDS)
    def test_notices_a_non_symmetry(self, space: WeightSpace, seed: int) -> None:
        """What changes the networks' function changes the output."""
        model = self.fitted(space)
        weights = self.make_inputs(space, 16, seed=1)
        outputs = model(weights).detach()

        noticed = change(model, self.non_symmetry(space, seed=seed)(weights), outputs)
        error = change(model, random_action(space, seed=seed)(weights), outputs)
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
        assert change(model, moved(weights), outputs) <= SCALE_TOLERANCE

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
