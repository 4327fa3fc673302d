"""Baselines: closed forms, trees and the flat perceptron."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES
from sklearn.ensemble import HistGradientBoostingRegressor
from torch.func import functional_call

from neural_functionals.models import BoostedStatistics, FlatMLP, LinearStatistics
from neural_functionals.models.flat_mlp import RandomRelabellings
from neural_functionals.testing import (
    InvariantModelContract,
    ModelContract,
    across_tensors,
    example_space,
    random_action,
    random_networks,
)
from zoo.errors import InvalidConfigError
from zoo.symmetry import from_permutations, trace


def fitted(model, *, members=60):
    """Fit a model to noise, drawn from torch's current generator."""
    inputs = random_networks(model.source, members, seed=5)
    model.fit(model.features(inputs), torch.randn(members, model.num_outputs))
    return model


class TestLinearStatistics(InvariantModelContract):
    non_symmetry = staticmethod(across_tensors)

    def make_model(self, space):
        return fitted(LinearStatistics(space))

    def test_gradient_reaches_every_parameter(self, space):
        """There are none: nothing is trained by gradient steps."""
        assert not list(self.make_model(space).parameters())


class TestLinearWeights(ModelContract):
    def make_model(self, space):
        return fitted(LinearStatistics(space, features="weights", num_outputs=2))

    def make_inputs(self, space, count, *, seed):
        return random_networks(space, count, seed=seed)

    def test_gradient_reaches_every_parameter(self, space):
        """There are none: nothing is trained by gradient steps."""
        assert not list(self.make_model(space).parameters())


class TestBoostedStatistics(InvariantModelContract):
    non_symmetry = staticmethod(across_tensors)

    def make_model(self, space):
        return fitted(BoostedStatistics(space, num_trees=10, min_members=5, num_outputs=2))

    def test_gradient_reaches_every_parameter(self, space):
        """There are none: nothing is trained by gradient steps."""
        assert not list(self.make_model(space).parameters())

    def test_no_gradient_crosses_members(self, space):
        """There is no gradient at all, but another member changes nothing."""
        model, inputs = self.fitted(space), self.make_inputs(space, 4, seed=1)
        before = model(inputs)
        inputs[1] = self.make_inputs(space, 1, seed=2)[0]
        assert torch.equal(model(inputs)[[0, 2, 3]], before[[0, 2, 3]])
        assert not torch.equal(model(inputs)[1], before[1])


class TestFlatMLP(ModelContract):
    def make_model(self, space):
        return FlatMLP(space, hidden=(7,), num_views=3, num_outputs=2).eval()

    def make_inputs(self, space, count, *, seed):
        return random_networks(space, count, seed=seed)


def test_linear_statistics_are_those_of_the_paper():
    space = example_space("cnn")
    weights = random_networks(space, 3, seed=0)
    ours = LinearStatistics(space).features(weights).unflatten(1, (-1, 7))
    for at, entries in enumerate(space.unflatten(weights).values()):
        flat = entries.flatten(1).numpy()
        percentiles = np.percentile(flat, [1, 25, 50, 75, 99], axis=1)
        expected = np.column_stack([flat.mean(axis=1), flat.var(axis=1), *percentiles])
        np.testing.assert_allclose(ours[:, at], expected)


@pytest.mark.parametrize("members", [7, 200])
def test_linear_regression_is_ridge_regression(members):
    """Fewer and more members than features; against the textbook's formula."""
    space = example_space("siren")
    model = LinearStatistics(space, features="weights", ridge=0.1, num_outputs=2).double()
    x, y = random_networks(space, members, seed=0), torch.randn(members, 2, dtype=torch.float64)
    model.fit(model.features(x), y)
    mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
    z = (x - mean) / std
    penalty = 0.1 * torch.eye(space.num_parameters, dtype=torch.float64)
    beta = (z.T @ z / members + penalty).inverse() @ z.T @ (y - y.mean(dim=0)) / members
    new = random_networks(space, 5, seed=1)
    torch.testing.assert_close(model(new), (new - mean) / std @ beta + y.mean(dim=0))


def test_constant_features_do_no_harm():
    space = example_space("siren")  # the variance of its last bias is zero
    model = LinearStatistics(space)
    weights = random_networks(space, 50, seed=0).float()
    target = weights.std(dim=1, keepdim=True)
    model.fit(model.features(weights), target)
    residual = model(weights) - target
    assert residual.square().mean() < 0.1 * target.var()


def test_trees_predict_what_scikit_learn_does():
    space = example_space("cnn-batch-norm")
    model = BoostedStatistics(space, num_trees=20, max_leaves=6, max_depth=3, num_outputs=2)
    features = model.features(random_networks(space, 300, seed=0))
    targets = torch.stack([features[:, 0] * features[:, 8], features[:, 15].abs()], dim=1)
    model.fit(features, targets)
    new = model.features(random_networks(space, 50, seed=1))
    for output in range(2):
        theirs = HistGradientBoostingRegressor(
            max_iter=20, max_leaf_nodes=6, max_depth=3, early_stopping=False
        ).fit(features.numpy(), targets[:, output].numpy())
        np.testing.assert_allclose(
            model.predict(new)[:, output], theirs.predict(new.numpy()), rtol=1e-9, atol=1e-9
        )


def test_trees_that_cannot_split_predict_the_mean():
    model = BoostedStatistics(example_space("mlp"), num_trees=3)
    features = model.features(random_networks(model.source, 9, seed=0))
    model.fit(features, torch.arange(9.0)[:, None])
    assert model.predict(features).tolist() == [[4.0]] * 9


def test_relabellings_are_all_elements_of_the_group():
    """Twelve of them, each drawn about as often as any other."""
    space = example_space("flatten")
    first, second = space.groups
    orders = product(permutations(range(first.size)), permutations(range(second.size)))
    elements = {
        tuple(
            from_permutations(
                space, {first.name: torch.tensor(a), second.name: torch.tensor(b)}
            ).index.tolist()
        )
        for a, b in orders
    }
    torch.manual_seed(0)
    drawn, counts = RandomRelabellings(space)(1200).unique(dim=0, return_counts=True)
    assert {tuple(row.tolist()) for row in drawn} == elements
    assert len(elements) == 12
    assert counts.min() > 60  # 100 expected, with a standard deviation of 10


def test_relabellings_of_nested_groups_keep_the_function():
    module, inputs = ARCHITECTURES["multihead-attention"]()
    module = module.double().eval()
    space = trace(module, *(each.double() for each in inputs))
    assert any(group.parent for group in space.groups)
    torch.manual_seed(0)
    weights = torch.randn(space.num_parameters, dtype=torch.float64)

    def run(vector):
        return functional_call(module, space.state_dict(vector), tuple(i.double() for i in inputs))

    for index in RandomRelabellings(space)(3):
        assert not torch.equal(weights[index], weights)
        torch.testing.assert_close(run(weights[index]), run(weights))


def test_training_relabels_each_member_by_itself():
    space = example_space("mlp")
    model = FlatMLP(space, hidden=(7,)).double()
    weights = random_networks(space, 1, seed=0).expand(6, -1)
    torch.manual_seed(0)
    assert len(model.train()(weights).unique()) > 1
    assert not torch.equal(model(weights), model(weights))
    assert len(model.eval()(weights).unique()) == 1
    plain = FlatMLP(space, hidden=(7,), augment=False).double().train()
    assert len(plain(weights).unique()) == 1


@torch.no_grad()
def test_averaging_over_relabellings_makes_it_nearly_invariant():
    """It is not by itself: it claims nothing."""
    space = example_space("flatten")
    weights = random_networks(space, 20, seed=0)
    change = {}
    for num_views in (0, 500):
        torch.manual_seed(0)
        model = FlatMLP(space, hidden=(7,), num_views=num_views).double().eval()
        moved = torch.stack([model(random_action(space, seed=s)(weights)) for s in range(5)])
        change[num_views] = float((moved - model(weights)).abs().mean())
    assert change[0] > 0.05
    assert change[500] < 0.1 * change[0]


def test_bad_options_are_refused():
    space = example_space("mlp")
    with pytest.raises(InvalidConfigError, match="positive ridge"):
        LinearStatistics(space, ridge=0.0)
    with pytest.raises(InvalidConfigError, match="'statistics' or 'weights'"):
        LinearStatistics(space, features="moments")
    with pytest.raises(InvalidConfigError, match="two leaves"):
        BoostedStatistics(space, max_leaves=1)
    with pytest.raises(InvalidConfigError, match="positive learning rate"):
        BoostedStatistics(space, learning_rate=0.0)
    with pytest.raises(InvalidConfigError, match="num_views"):
        FlatMLP(space, num_views=-1)
