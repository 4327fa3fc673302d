import pytest
import torch

from neural_functionals.layers import InvariantPooling, OrbitNormalisation, WeightLayout
from neural_functionals.models import NFN, NFT, StatNN
from neural_functionals.testing import NETWORKS, example_space, random_action, random_networks
from zoo.errors import WeightSpaceMismatchError
from zoo.space import AxisSpec, NeuronGroup, TensorSpec, Touch, UnitIndex, WeightSpace


@pytest.mark.parametrize("free", [(), ("input", "output")])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_scatter_undoes_gather(name, free):
    space = example_space(name)
    layout = WeightLayout(space, free=free)
    weights = random_networks(space, 3, seed=0)
    blocks = layout.gather(weights)
    assert torch.equal(layout.scatter(blocks), weights)
    for block, shape in zip(blocks, layout.blocks(), strict=True):
        assert block.shape == (3, *shape.sizes, shape.channels)


def test_gather_refuses_other_weights():
    space = example_space("mlp")
    with pytest.raises(WeightSpaceMismatchError, match="another population"):
        WeightLayout(space).gather(torch.zeros(2, space.num_parameters + 1))


def recurrent_space():
    """A layer that feeds itself: its units are both axes of one matrix."""
    index = UnitIndex(size=3)
    touches = tuple(Touch(tensor="recurrent", dim=dim, index=index) for dim in (0, 1))
    tensor = TensorSpec(
        name="recurrent",
        shape=(3, 3),
        kind="parameter",
        role="weight",
        layer="recurrent",
        axes=(AxisSpec(role="out"), AxisSpec(role="in")),
    )
    group = NeuronGroup(name="units", size=3, touches=touches)
    return WeightSpace(tensors=(tensor,), groups=(group,))


def test_a_group_twice_on_a_tensor_is_refused_by_name():
    with pytest.raises(WeightSpaceMismatchError, match="'units' moves several axes of 'recurrent'"):
        NFT(recurrent_space())
    for model in (NFN, StatNN):
        assert model(recurrent_space())(torch.zeros(1, 9)).shape == (1, 1)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_normalisation_has_one_statistic_per_orbit(name):
    """Equal to a per-orbit mean and deviation over members; commutes with every relabelling."""
    space = example_space(name)
    layout = WeightLayout(space)
    normalise = OrbitNormalisation(layout.orbit).double()
    weights = random_networks(space, 40, seed=0) + torch.arange(space.num_parameters) / 10
    normalise.fit(weights)
    for orbit in range(layout.num_orbits):
        entries = weights[:, layout.orbit == orbit]
        torch.testing.assert_close(normalise.mean[orbit], entries.mean())
        torch.testing.assert_close(normalise.std[orbit], entries.std(correction=0))
    action = random_action(space, seed=0)
    assert torch.equal(normalise(action(weights)), action(normalise(weights)))


def test_orbits_are_those_of_the_group():
    """Positions share an orbit exactly if some relabelling carries one into the other."""
    space = example_space("flatten")
    orbit = WeightLayout(space).orbit
    reached = torch.eye(space.num_parameters, dtype=torch.bool)
    for seed in range(200):
        action = random_action(space, seed=seed)
        reached[torch.arange(space.num_parameters), action.index] = True
    assert torch.equal(reached, orbit[:, None] == orbit[None, :])


def test_statistics_do_not_depend_on_chunks():
    weights = torch.randn(2500, 3, generator=torch.Generator().manual_seed(0))
    normalise = OrbitNormalisation(torch.tensor([0, 1, 1]))
    normalise.fit(weights)
    torch.testing.assert_close(normalise.std[1], weights[:, 1:].std(correction=0))


def test_constant_orbits_are_only_centred():
    normalise = OrbitNormalisation(torch.tensor([0, 0, 1]))
    normalise.fit(torch.tensor([[3.0, 3.0, 1.0], [3.0, 3.0, 2.0]]))
    assert normalise.std.tolist() == [1.0, 0.5]
    assert normalise(torch.tensor([[3.0, 4.0, 1.5]])).tolist() == [[0.0, 1.0, 0.0]]


def test_pooling_is_the_mean_over_groups():
    layout = WeightLayout(example_space("mlp"))
    blocks = layout.blocks(2)
    features = [torch.randn(3, *block.sizes, block.channels) for block in blocks]
    pooled = InvariantPooling(blocks)(features)
    means = [x.mean(dim=list(range(1, x.ndim - 1))) if x.ndim > 2 else x for x in features]
    torch.testing.assert_close(pooled, torch.cat(means, dim=1))
    assert pooled.shape == (3, InvariantPooling(blocks).num_features)
