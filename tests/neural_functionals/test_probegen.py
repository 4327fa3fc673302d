import pytest
import torch
from torch.func import functional_call

from neural_functionals.layers import MemberRunner
from neural_functionals.models import ProbeGen
from neural_functionals.models.probegen import probe_generator
from neural_functionals.testing import (
    NETWORKS,
    ScaleInvariantModelContract,
    example_space,
    network_of,
    random_networks,
    runnable_networks,
)
from zoo.errors import InvalidConfigError, WeightSpaceMismatchError
from zoo.networks import build, example_input
from zoo.symmetry import trace

SMALL = {"num_probes": 3, "latent": 5, "width": 2, "hidden": (7,)}


class TestProbeGen(ScaleInvariantModelContract):
    def make_model(self, space):
        return ProbeGen(space, network=network_of(space), **SMALL)

    def make_inputs(self, space, count, *, seed):
        return runnable_networks(space, count, seed=seed)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_members_answer_as_they_would_alone(name):
    space, network = example_space(name), NETWORKS[name]
    run = MemberRunner(space, network)
    weights = runnable_networks(space, 4, seed=0)
    probes = torch.randn(3, *run.input_shape, dtype=torch.float64)
    answers = run(weights, probes)
    assert answers.shape == (4, 3, run.num_outputs)
    module = build(network).double().eval()
    for member, answer in zip(weights, answers, strict=True):
        alone = functional_call(module, space.state_dict(member), (probes,))
        torch.testing.assert_close(answer, alone)


def test_all_outputs_of_a_network_are_joined():
    network = {"name": "tandem", "num_fractions": 2, "num_choices": 3, "num_outputs": 4}
    network["hidden"] = [5, 2, 3]
    space = trace(build(network), example_input(network))
    run = MemberRunner(space, network)
    weights, probes = random_networks(space, 2, seed=0), torch.randn(6, 4, dtype=torch.float64)
    design, performance = functional_call(
        build(network).double(), space.state_dict(weights[1]), (probes,)
    )
    torch.testing.assert_close(run(weights, probes)[1], torch.cat([design, performance], dim=1))


def test_activations_decide_what_members_answer():
    """The same weights in other networks."""
    space = example_space("mlp")
    weights = runnable_networks(space, 4, seed=0)
    relu = ProbeGen(space, network=NETWORKS["mlp"], **SMALL).double()
    tanh = ProbeGen(space, network=NETWORKS["mlp"] | {"activation": "tanh"}, **SMALL).double()
    tanh.load_state_dict(relu.state_dict())
    assert (relu(weights) - tanh(weights)).abs().max() > 1e-4


def test_members_are_no_parameters():
    model = ProbeGen(example_space("cnn"), network=NETWORKS["cnn"], **SMALL)
    assert {name.split(".")[0] for name in model.state_dict()} == {"codes", "generator", "head"}


@pytest.mark.parametrize("side", [3, 4, 8, 9, 28, 32])
def test_probes_have_the_inputs_shape(side):
    generator = probe_generator(5, (2, side, side + 1), width=2)
    probes = generator(torch.randn(3, 5))
    assert probes.shape == (3, 2, side, side + 1)
    assert probes.abs().max() <= 1


def test_generators_are_linear():
    """Deep, but without activations; images are bounded at the end."""
    for generator in (
        probe_generator(5, (4,), width=2).double(),
        probe_generator(5, (2, 9, 9), width=2)[:-1].double(),
    ):
        a, b = torch.randn(2, 3, 5, dtype=torch.float64)
        zero = generator(torch.zeros_like(a))
        torch.testing.assert_close(generator(a + b) + zero, generator(a) + generator(b))


def test_probes_are_learnt_through_the_members():
    space = example_space("cnn")
    model = ProbeGen(space, network=NETWORKS["cnn"], **SMALL).double()
    model(runnable_networks(space, 2, seed=0)).sum().backward()
    assert model.codes.grad.abs().min() > 0


def test_other_networks_are_refused():
    space = example_space("mlp")
    with pytest.raises(InvalidConfigError, match=r"network=population.network_of"):
        ProbeGen(space)
    with pytest.raises(WeightSpaceMismatchError, match="layers.1.bias, layers.1.weight"):
        ProbeGen(space, network=NETWORKS["mlp"] | {"hidden": [2, 5]})
    with pytest.raises(InvalidConfigError, match="vectors or images"):
        probe_generator(5, (2, 3), width=2)
    with pytest.raises(InvalidConfigError, match="at least one probe"):
        ProbeGen(space, network=NETWORKS["mlp"], num_probes=0)
