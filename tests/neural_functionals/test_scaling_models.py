import pytest
import torch
from torch import nn
from torch.func import functional_call

from neural_functionals.layers import WeightLayout
from neural_functionals.layers.scale_normalise import ScaleNormalisation
from neural_functionals.layers.scaling import ScaleReference, scale_degrees
from neural_functionals.layers.sign_graph import EVEN, SignGraph
from neural_functionals.models import NFN
from neural_functionals.testing import (
    SCALED_NETWORKS,
    example_space,
    random_action,
    random_networks,
    random_scale,
    symmetry_errors,
    symmetry_kinds,
)
from zoo.errors import WeightSpaceMismatchError
from zoo.networks import build, example_input
from zoo.space import (
    AxisSpec,
    Exponent,
    NeuronGroup,
    ScaleGroup,
    TensorSpec,
    Touch,
    UnitIndex,
    WeightSpace,
)
from zoo.symmetry import trace

SCALED = [name for name in SCALED_NETWORKS if "scale" in symmetry_kinds(example_space(name))]


def divided(space, weights):
    layout = WeightLayout(space)
    return layout.scatter(ScaleReference(space, layout)(layout.gather(weights)))


def test_degrees_are_the_powers_of_the_factors():
    space = example_space("mlp")
    first, first_bias, second, second_bias, last, last_bias = scale_degrees(
        space, WeightLayout(space), "positive"
    )
    assert first.tolist() == [[1, 0]] * 4
    assert first_bias.tolist() == [[1, 0]]
    assert second.tolist() == [[-1, 1]]
    assert second_bias.tolist() == [[0, 1]]
    assert last.tolist() == [[0, -1]] * 2
    assert last_bias.tolist() == [[0, 0]] * 2


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("seed", [0, 1])
def test_reference_divides_all_positive_factors_out(name, seed):
    space = example_space(name)
    weights = random_networks(space, 5, seed=seed)
    scaled = random_scale(space, "scale", seed=seed)(weights)
    torch.testing.assert_close(divided(space, scaled), divided(space, weights), rtol=1e-11, atol=0)


@pytest.mark.parametrize("name", SCALED)
def test_reference_follows_relabelling(name):
    space = example_space(name)
    weights, action = random_networks(space, 5, seed=0), random_action(space, seed=0)
    torch.testing.assert_close(
        divided(space, action(weights)), action(divided(space, weights)), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("name", SCALED)
def test_divided_networks_compute_the_same(name):
    """Nothing is lost: dividing is itself one of the factors that keep a network's function."""
    space = example_space(name)
    weights = random_networks(space, 1, seed=0)
    for at in (tensor.name for tensor in space.tensors if tensor.role == "variance"):
        space.unflatten(weights)[at].abs_()
    module = build(SCALED_NETWORKS[name]).double().eval()
    inputs = torch.rand(example_input(SCALED_NETWORKS[name]).shape).double()
    before, after = (
        functional_call(module, space.state_dict(one[0]), (inputs,))
        for one in (weights, divided(space, weights))
    )
    assert not torch.equal(weights, divided(space, weights))
    torch.testing.assert_close(after, before, rtol=1e-11, atol=1e-12)


def test_nearly_vanishing_weights_stay_small():
    """No weight is inverted: what is divided by is a mean square over all that enters a unit."""
    space = example_space("cnn")
    weights = random_networks(space, 5, seed=0)
    weights[:, ::3] *= 1e-20
    assert divided(space, weights).abs().max() < 1e3
    assert divided(space, torch.zeros_like(weights)).abs().max() == 0


def test_odd_channels_are_not_centred():
    space = example_space("cnn-batch-norm")
    layout = WeightLayout(space)
    normalise = ScaleNormalisation(space, layout).double()
    normalise.fit(random_networks(space, 50, seed=0) + 3.0)
    shift = layout.fields[3]
    assert shift.tensor == "layers.1.bias"
    at = int(layout.orbit[int(shift.index[0, 0])])
    assert not normalise.odd[at]
    assert normalise.normalise.mean[at] != 0
    assert normalise.odd.any()
    assert (normalise.normalise.mean[normalise.odd] == 0).all()


def square_space():
    """One matrix between two groups, whose factors nothing else tells apart."""
    index = UnitIndex(size=3)
    axes = AxisSpec(role="out"), AxisSpec(role="in")
    tensor = TensorSpec(
        name="w", shape=(3, 3), kind="parameter", role="weight", layer="w", axes=axes
    )
    return WeightSpace(
        tensors=(tensor,),
        groups=tuple(
            NeuronGroup(name=name, size=3, touches=(Touch(tensor="w", dim=dim, index=index),))
            for dim, name in enumerate(("a", "b"))
        ),
        scalings=tuple(
            ScaleGroup(
                name=f"{name}/scale",
                group=name,
                domain="positive",
                exponents=(Exponent(tensor="w", dim=dim, exponent=1),),
            )
            for dim, name in enumerate(("a", "b"))
        ),
    )


def test_factors_that_nothing_tells_apart_are_refused_by_name():
    space = square_space()
    with pytest.raises(WeightSpaceMismatchError, match="factors of neuron group 'a'"):
        ScaleReference(space, WeightLayout(space))


def test_a_model_that_claims_nothing_fails_the_suite():
    """The measure can fail: NFN respects relabelling alone."""
    space = example_space("cnn-batch-norm")
    torch.manual_seed(0)
    model = NFN(space, hidden=(20,)).double()
    rows = symmetry_errors(model, space, random_networks(space, 16, seed=1))
    errors = {row.kind: row.error for row in rows}
    assert list(errors) == ["permutation", "scale", "sign"]
    assert errors["permutation"] < 1e-10
    assert min(errors["scale"], errors["sign"]) > 0.1


def test_graph_tells_sources_targets_and_signs():
    space = example_space("siren")
    graph = SignGraph(space, WeightLayout(space))
    (edge,) = graph.edges
    assert [space.groups[end].name for end in edge.ends] == ["layers.1", "layers.0"]
    assert edge.signs == (("layers.1/sign",), ("layers.0/sign",))
    assert graph.sizes == [5, 3]
    assert [one.group for one in graph.units] == [0, 0, 1, 1]
    assert all(one.sign == graph.signs[one.group][0] != EVEN for one in graph.units)


def test_attention_heads_are_refused():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    space = trace(Heads(), torch.zeros(1, 3, 6))
    with pytest.raises(WeightSpaceMismatchError, match="units inside others"):
        SignGraph(space, WeightLayout(space))
