"""Probe features: units are what they compute, and networks are run as they are."""

import numpy as np
import pytest
import torch
from tiny_networks import Recurrent
from torch import nn
from torch.func import functional_call

from neural_functionals.graphs import ProbeFeatures, graph_room, graph_template
from neural_functionals.graphs.probing import _check_covered
from neural_functionals.layers.activations import ActivationRunner
from neural_functionals.models import NGGNN, NGT, describe_model, needs_network, restore_model
from neural_functionals.testing import (
    NETWORKS,
    InvariantModelContract,
    example_space,
    network_of,
    random_action,
    runnable_networks,
)
from zoo.errors import InvalidConfigError, WeightSpaceMismatchError
from zoo.networks import build, example_input
from zoo.symmetry import trace

RESIDUAL = {"name": "resnet", "depth": 8, "width": 2, "image_size": 8, "shortcut": "projection"}


class TestNGGNNWithProbes(InvariantModelContract):
    @pytest.fixture(params=["siren", "cnn-batch-norm"])
    def space(self, request):
        return example_space(request.param)

    def make_model(self, space):
        network = network_of(space)
        return NGGNN(space, width=7, num_layers=3, num_waves=5, num_probes=3, network=network)

    def make_inputs(self, space, count, *, seed):
        return runnable_networks(space, count, seed=seed)


class TestNGTWithProbes(InvariantModelContract):
    @pytest.fixture
    def space(self):
        return example_space("flatten")

    def make_model(self, space):
        widths = {"node_width": 6, "edge_width": 5, "attention_width": 8, "num_heads": 2}
        return NGT(space, num_layers=3, num_probes=4, network=network_of(space), **widths)

    def make_inputs(self, space, count, *, seed):
        return runnable_networks(space, count, seed=seed)


def outputs_of(module, kinds, inputs):
    """Outputs of all modules of some kinds, in the order of their calls."""
    seen = []
    hooks = [
        one.register_forward_hook(lambda _, __, output: seen.append(output))
        for one in module.modules()
        if isinstance(one, kinds)
    ]
    module(inputs)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("name", ["mlp", "cnn", "cnn-batch-norm", "flatten"])
def test_activations_are_those_of_the_modules(name):
    """After ReLU in hidden layers, before nothing in the last one; averaged over pixels."""
    space, network = example_space(name), NETWORKS[name]
    run = ActivationRunner(space, network, 3)
    weights = runnable_networks(space, 2, seed=0)
    inputs = torch.randn(3, *run.input_shape, dtype=torch.float64)
    came = run(weights, inputs)
    module = build(network).double().eval()
    module.load_state_dict(space.state_dict(weights[1]), strict=False)
    normalised = name == "cnn-batch-norm"
    hidden = outputs_of(module, nn.BatchNorm2d if normalised else (nn.Linear, nn.Conv2d), inputs)
    expected = [*map(torch.relu, hidden if normalised else hidden[:-1]), module(inputs)]
    assert len(came) == len(run.layers) == len(expected)
    for ours, theirs in zip(came, expected, strict=True):
        averaged = theirs.flatten(2).mean(dim=2) if theirs.ndim > 2 else theirs
        torch.testing.assert_close(ours[1], averaged)


def test_sines_are_followed():
    space, network = example_space("siren"), NETWORKS["siren"]
    run = ActivationRunner(space, network, 2)
    weights = runnable_networks(space, 1, seed=0)
    inputs = torch.randn(2, 2, dtype=torch.float64)
    first, *_, last = run(weights, inputs)
    module = build(network).double()
    expected = functional_call(module, space.state_dict(weights[0]), (inputs,))
    torch.testing.assert_close(last[0], expected)
    assert first.abs().max() <= 1


def test_streams_are_read_after_the_sum():
    """What a block and its shortcut write to a stream is one thing, and each unit has it once."""
    space = trace(build(RESIDUAL), example_input(RESIDUAL))
    probes = ProbeFeatures(
        graph_template(space), space, network=RESIDUAL, num_probes=2, width=3
    ).double()
    weights = runnable_networks(space, 2, seed=0)
    seen = dict(zip(probes.run.layers, probes.run(weights, probes.probes), strict=True))
    block, shortcut, other = (
        seen[f"blocks.{name}.weight"] for name in ("1.conv2", "1.shortcut_conv", "1.conv1")
    )
    assert torch.equal(block, shortcut)
    assert not torch.equal(block, other)
    assert block.min() >= 0
    features = probes(weights)
    assert features[:, probes.counts[:, 0] == 0].abs().max() == 0
    assert probes.counts.max() == 2


@pytest.mark.parametrize("name", ["mlp", "cnn-batch-norm", "flatten"])
def test_features_follow_relabelled_units(name):
    """The same features, in other places: per set of nodes sorted ones agree."""
    space, template = example_space(name), graph_template(example_space(name))
    probes = ProbeFeatures(template, space, network=NETWORKS[name], num_probes=3, width=4).double()
    weights = runnable_networks(space, 2, seed=0)
    before = probes(weights)
    after = probes(random_action(space, seed=0)(weights))
    assert not torch.allclose(before, after)
    for each in template.node_sets:
        rows = slice(each.start, each.start + each.size)
        torch.testing.assert_close(before[:, rows].sort(1).values, after[:, rows].sort(1).values)


def test_probes_are_learnt_through_the_members():
    space = example_space("mlp")
    model = NGGNN(space, width=5, num_probes=2, network=NETWORKS["mlp"]).double()
    model(runnable_networks(space, 3, seed=0)).sum().backward()
    assert model.probe.probes.grad.abs().min() > 0


def test_there_are_none_by_default():
    space = example_space("mlp")
    assert NGGNN(space).probe is None
    assert not needs_network("ng-t", {})
    assert needs_network("ng-t", {"num_probes": 2})


def test_description_restores_the_network():
    space = example_space("cnn")
    model = NGGNN(space, width=5, num_probes=2, network=NETWORKS["cnn"])
    other = restore_model(describe_model(model))
    other.load_state_dict(model.state_dict())
    weights = runnable_networks(space, 2, seed=0).float()
    torch.testing.assert_close(other(weights), model(weights))


def test_what_cannot_be_run_is_refused():
    space = example_space("mlp")
    with pytest.raises(InvalidConfigError, match=r"network=population.network_of"):
        NGGNN(space, num_probes=2)
    with pytest.raises(InvalidConfigError, match="either probes.*or room"):
        NGGNN(space, num_probes=2, network=NETWORKS["mlp"], room=graph_room(space))
    with pytest.raises(WeightSpaceMismatchError, match="layers.1.bias, layers.1.weight"):
        NGT(space, num_probes=2, network=NETWORKS["mlp"] | {"hidden": [2, 5]})
    with pytest.raises(InvalidConfigError, match="positive widths"):
        NGT(space, num_probes=-1)


def test_units_that_no_layer_writes_are_named():
    recurrent = trace(Recurrent(), torch.zeros(2, 3, 1))
    template = graph_template(recurrent)
    with pytest.raises(InvalidConfigError, match=r"got 'cell', .*which none of these writes"):
        _check_covered(template, np.zeros(template.num_nodes))
