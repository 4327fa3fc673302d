"""Mode connectivity: a planted valley is found, barriers are seen, statistics come anew."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

import zoo
from zoo.errors import InvalidConfigError
from zoo.measures.connectivity import (
    CurveConfig,
    Paths,
    curves,
    estimate_statistics,
    lines,
    point,
)
from zoo.measures.networks import Networks, Samples, squared_error
from zoo.measures.pairs import mean_over_partners, pairs_within
from zoo.networks import CNNConfig, MLPConfig
from zoo.space import AxisSpec, TensorSpec, WeightSpace
from zoo.symmetry import random_weights

MLP = MLPConfig(in_features=4, hidden=(5,), out_features=3)
NORMALISED = CNNConfig(
    in_channels=1, image_size=7, out_features=3, channels=(2, 3), batch_norm=True
)


class Valley(nn.Module):
    """Outputs the squared length of its two weights, less one: 0 on the unit circle."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(2))

    def forward(self, inputs):
        return (self.place.square().sum() - 1) * torch.ones_like(inputs)


def valley(*places):
    """Networks in the plane whose loss is a circular valley."""
    spec = TensorSpec(
        name="place", shape=(2,), kind="parameter", role="weight", layer="place", axes=(AxisSpec(),)
    )
    networks = Networks(
        module=Valley().double().eval(),
        space=WeightSpace(tensors=(spec,), groups=()),
        vectors=torch.tensor(places, dtype=torch.float64),
    )
    zeros = torch.zeros(8, 1, dtype=torch.float64)
    return networks, Samples(inputs=zeros, targets=zeros, loss=squared_error)


@cache
def space_of(config):
    return zoo.trace(config.build().eval(), config.example_input(2))


def networks_of(config, members=3):
    generator, space = torch.Generator().manual_seed(0), space_of(config)
    vectors = torch.stack([random_weights(space, generator) for _ in range(members)])
    return Networks(module=config.build().double().eval(), space=space, vectors=vectors)


def samples_of(config, count=30):
    shape = config.example_input(count).shape
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Samples(inputs=inputs, targets=torch.arange(count) % 3)


# ---- a planted valley ---------------------------------------------------------------------------
def test_straight_lines_leave_the_valley_by_a_known_barrier():
    networks, samples = valley((1, 0), (0, 1), (-1, 0))
    paths = lines(networks, np.array([[0, 1], [0, 2]]), samples, quantity="loss")
    # Halfway between two points of the unit circle at a right angle, the squared length is 1/2.
    at = np.linspace(0, 1, 5)
    expected = [(at**2 + (1 - at) ** 2 - 1) ** 2, ((1 - 2 * at) ** 2 - 1) ** 2]
    np.testing.assert_allclose(paths.values, expected, atol=1e-12)
    np.testing.assert_allclose(paths.connectivity, [-0.25, -1], atol=1e-12)
    np.testing.assert_allclose(paths.barrier, [0.25, 1], atol=1e-12)
    np.testing.assert_allclose(paths.bends, [[0.5, 0.5], [0, 0]], atol=1e-12)


def test_curves_find_the_valley():
    networks, samples = valley((1, 0), (0, 1), (np.nan, 0))
    pairs = np.array([[0, 1], [1, 2], [1, 0]])
    config = CurveConfig(epochs=300, batch_size=8, learning_rate=0.1, weight_decay=0)
    paths = curves(networks, pairs, samples, seeds=[1, 2, 3], quantity="loss", config=config)
    assert abs(paths.connectivity[0]) < 0.01 < 0.25
    assert np.isnan(paths.connectivity[1])
    assert np.isnan(paths.barrier[1])
    # The bend of the best quadratic curve for a quarter of a circle lies on the diagonal, outside.
    best = best_bend()
    np.testing.assert_allclose(paths.bends[0], [best, best], atol=0.02)
    alone = curves(networks, pairs[2:], samples, seeds=[3], quantity="loss", config=config)
    np.testing.assert_allclose(alone.values[0], paths.values[2], rtol=1e-6, atol=1e-12)


def best_bend():
    """Minimise the mean loss along the curve over bends (b, b), by brute force."""
    at = np.linspace(0, 1, 1001)
    found = []
    for bend in (choices := np.linspace(0.5, 1.5, 1001)):
        x = (1 - at) ** 2 + 2 * at * (1 - at) * bend
        y = at**2 + 2 * at * (1 - at) * bend
        found.append(np.mean((x**2 + y**2 - 1) ** 2))
    return choices[np.argmin(found)]


def test_training_the_bend_is_plain_gradient_descent():
    """Momentum, decay and the Bezier weights, against autograd through the curve itself."""
    networks = networks_of(MLP, 2)
    samples = samples_of(MLP)
    config = CurveConfig(epochs=2, batch_size=11)
    found = curves(networks, np.array([[0, 1]]), samples, seeds=[7], config=config)
    generator = torch.Generator().manual_seed(7)
    first, second = networks.vectors
    bend = ((first + second) / 2).requires_grad_()
    optimiser = torch.optim.SGD([bend], lr=1.0, momentum=0.9)
    for epoch in range(2):
        # torch.optim's velocity does not contain the rate, as ours does not.
        optimiser.param_groups[0]["lr"] = config.rate(epoch)
        for chosen in torch.split(torch.randperm(30, generator=generator), 11):
            t = float(torch.rand(1, generator=generator))
            here = (1 - t) ** 2 * first + 2 * t * (1 - t) * bend + t**2 * second
            outputs = functional_call(
                networks.module, networks.space.state_dict(here), (samples.inputs[chosen],)
            )
            loss = samples.loss(outputs, samples.targets[chosen])
            optimiser.zero_grad()
            (loss + 0.5 * config.weight_decay * here.square().sum()).backward()
            optimiser.step()
    torch.testing.assert_close(found.bends[0], bend.detach())


# ---- numbers ------------------------------------------------------------------------------------
def test_rates_do_not_compound():
    config = CurveConfig(epochs=10, learning_rate=0.2)
    rates = [config.rate(epoch) for epoch in range(10)]
    assert rates[:6] == [0.2] * 6
    np.testing.assert_allclose(rates[6:], [0.1505, 0.101, 0.0515, 0.002], rtol=1e-9)


@pytest.mark.parametrize(
    ("values", "connectivity", "barrier"),
    [
        ([0.2, 0.5, 0.4], -0.2, 0.2),
        ([0.2, 0.1, 0.4], 0.2, 0.0),
        ([0.0, 0.0, 0.0], 0.0, 0.0),
        ([0.0, np.nan, 0.0], np.nan, np.nan),
    ],
)
def test_connectivity_by_definition(values, connectivity, barrier):
    paths = Paths(
        positions=np.array([0, 0.5, 1]), values=np.array([values]), bends=torch.zeros(1, 2)
    )
    np.testing.assert_allclose(paths.connectivity, [connectivity])
    np.testing.assert_allclose(paths.barrier, [barrier], atol=1e-12)


def test_curves_end_at_their_networks():
    networks = networks_of(MLP)
    samples = samples_of(MLP)
    config = CurveConfig(epochs=1, num_points=3)
    paths = curves(networks, np.array([[0, 2]]), samples, seeds=[0], config=config)
    wrong = (networks.outputs(samples.inputs).argmax(-1) != samples.targets).double().mean(1)
    np.testing.assert_allclose(paths.values[0, [0, -1]], wrong[[0, 2]])
    ends = (networks.vectors[0], networks.vectors[2])
    torch.testing.assert_close(point(ends, paths.bends[0], 0.0), ends[0])
    torch.testing.assert_close(point(ends, paths.bends[0], 1.0), ends[1])


def test_test_samples_are_where_curves_are_evaluated():
    networks, samples = networks_of(MLP), samples_of(MLP)
    test = Samples(inputs=samples.inputs[:7] + 1, targets=samples.targets[:7])
    paths = lines(networks, np.array([[0, 1]]), samples, test=test)
    wrong = (networks.outputs(test.inputs).argmax(-1) != test.targets).double().mean(1)
    np.testing.assert_allclose(paths.values[0, [0, -1]], wrong[:2])


# ---- batch normalisation ------------------------------------------------------------------------
def test_statistics_are_those_of_the_samples():
    networks, samples = networks_of(NORMALISED), samples_of(NORMALISED)
    before = networks.vectors[1].clone()
    found = estimate_statistics(networks, networks.vectors[1], samples.inputs, batch_size=15)
    torch.testing.assert_close(networks.vectors[1], before)
    size = networks.space.num_trainable
    assert torch.equal(found[:size], before[:size])
    tensors = networks.space.unflatten(found)
    module = NORMALISED.build().double()
    module.load_state_dict(networks.space.state_dict(before), strict=False)
    module.train()
    seen = []
    for inputs in torch.split(samples.inputs, 15):
        first = module.layers[0](inputs)
        second = module.layers[4](module.layers[:4](inputs))
        seen.append(
            [(z.mean((0, 2, 3)), z.transpose(0, 1).flatten(1).var(1)) for z in (first, second)]
        )
    for layer, name in enumerate(("layers.1", "layers.5")):
        for kind, suffix in enumerate(("running_mean", "running_var")):
            expected = (seen[0][layer][kind] + seen[1][layer][kind]) / 2
            torch.testing.assert_close(tensors[f"{name}.{suffix}"], expected.detach())
    assert not networks.module.training


def test_networks_without_statistics_stay():
    networks, samples = networks_of(MLP), samples_of(MLP)
    vector = networks.vectors[0]
    assert estimate_statistics(networks, vector, samples.inputs) is vector


def test_batch_normalised_networks_have_curves():
    networks, samples = networks_of(NORMALISED), samples_of(NORMALISED)
    before = networks.vectors.clone()
    config = CurveConfig(epochs=2, batch_size=10)
    paths = curves(networks, np.array([[0, 1]]), samples, seeds=[3], quantity="loss", config=config)
    assert torch.equal(networks.vectors, before)
    assert np.isfinite(paths.values).all()
    expected = [
        networks.loss(0, estimate_statistics(networks, vector, samples.inputs), samples)
        for vector in networks.vectors[:2]
    ]
    np.testing.assert_allclose(paths.values[0, [0, -1]], expected)
    straight = lines(networks, np.array([[0, 1]]), samples, quantity="loss")
    assert paths.values[0].mean() < straight.values[0].mean()


def test_signals_have_no_curve_in_common():
    networks, samples = networks_of(MLP), samples_of(MLP)
    own = Samples(inputs=samples.inputs, targets=samples.targets.expand(3, -1), own_targets=True)
    for measure in (lines, curves):
        with pytest.raises(InvalidConfigError, match="each member's own"):
            measure(
                networks, np.array([[0, 1]]), own, **({} if measure is lines else {"seeds": [1]})
            )
    with pytest.raises(InvalidConfigError, match="points"):
        CurveConfig(num_points=2)


# ---- pairs --------------------------------------------------------------------------------------
def test_pairs_stay_within_groups():
    groups = ["a", "b", "a", "a", "b", "c"]
    assert pairs_within(groups).tolist() == [[0, 2], [0, 3], [1, 4], [2, 3]]
    assert pairs_within(["a"] * 5, partners=1).tolist() == [[0, 1], [0, 4], [1, 2], [2, 3], [3, 4]]
    assert len(pairs_within(["a"] * 5, partners=9)) == 10
    assert pairs_within(["a", "b"]).shape == (0, 2)
    with pytest.raises(InvalidConfigError):
        pairs_within(groups, partners=0)


def test_members_get_the_mean_over_their_partners():
    pairs = np.array([[0, 1], [0, 2], [1, 3]])
    found = mean_over_partners(np.array([1.0, 3.0, np.nan]), pairs, 5)
    np.testing.assert_array_equal(found, [2, 1, 3, np.nan, np.nan])
