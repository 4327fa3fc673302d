"""Every architecture of the registry: traced without code of its own, and proved."""

import copy
import dataclasses

import pytest
import torch
from architectures import ARCHITECTURES, HUGGING_FACE
from architectures.collections import real_networks
from hand_written_spaces import HAND_WRITTEN

import zoo
from zoo.symmetry import fields, inert_tensors

WITHOUT_RULE = {"lstm-projected": {"aten.lstm.input"}}
"""Operators that are known to lack a rule; what they touch is pinned."""

MINIMAL = [
    "mlp-tanh", "siren", "lenet", "kan", "style-transfer", "lstm-bidirectional", "gru",
    "transformer-encoder-pre-norm", "gpt-rms-norm-swiglu", "gpt-qk-norm", "mlp-mixer",
]  # fmt: skip


def made(name):
    if name in HUGGING_FACE:
        pytest.importorskip("transformers")
    torch.manual_seed(0)
    module, inputs = ARCHITECTURES[name]()
    return module.eval(), inputs


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_traced_space_is_verified(name):
    """A group that fails verification is a warning, which is an error here."""
    module, inputs = made(name)
    space = zoo.trace(module, *inputs)
    assert {item.op for item in space.unsupported} == WITHOUT_RULE.get(name, set())
    assert space.groups or space.unsupported
    assert zoo.WeightSpace.from_json(space.to_json()) == space
    index = torch.cat([torch.from_numpy(field.index.ravel()) for field in fields(space)])
    assert torch.equal(index.sort().values, torch.arange(space.num_parameters))


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_partition_equals_the_hand_written_one(name):
    module, inputs = made(name)
    space = zoo.trace(module, *inputs)
    found = {
        (group.size, group.copies, frozenset((t.tensor, t.dim) for t in group.touches))
        for group in space.groups
    }
    expected = {
        (group["size"], group.get("copies", 1), frozenset(group["touches"]))
        for group in HAND_WRITTEN[name]
    }
    assert found == expected


@pytest.mark.parametrize("name", MINIMAL)
def test_no_touched_axis_can_be_left_out(name):
    """Except where a parameter is inert: a key bias shifts all scores of a query alike."""
    module, inputs = made(name)
    space = zoo.trace(module, *inputs)
    slack = set()
    for number, group in enumerate(space.groups):
        for left_out in group.touches:
            groups = list(space.groups)
            touches = tuple(touch for touch in group.touches if touch != left_out)
            groups[number] = dataclasses.replace(group, touches=touches)
            wrong = dataclasses.replace(space, groups=tuple(groups))
            if group.name not in wrong.verify(module, *inputs).failed:
                slack.add((group.name, left_out.tensor, left_out.dim))
    inert = inert_tensors(space, module, *inputs)
    assert {entry for entry in slack if entry[1] not in inert} == set()


def test_real_networks_keep_their_function(shared_data):
    """Weights by other people: relabelled, they compute the same on real inputs."""
    root = shared_data("zoos").parent
    spaces, counts = {}, {}
    for name, module, inputs in real_networks(root):
        module = copy.deepcopy(module).double().eval()
        inputs = tuple(value.double() for value in inputs)
        key = (str(module), *(tuple(p.shape) for p in module.parameters()))
        if key not in spaces:
            spaces[key] = zoo.trace(module, *(value[:2] for value in inputs), strict=True)
        space = spaces[key]
        with torch.no_grad():
            before = module(*inputs)
            weights = space.flatten(module.state_dict())
            moved = space.act(space.sample(torch.Generator().manual_seed(0)), weights)
            module.load_state_dict(space.state_dict(moved), strict=False)
            torch.testing.assert_close(module(*inputs), before, rtol=1e-9, atol=1e-9, msg=name)
        collection = name.split("/")[0]
        counts[collection] = counts.get(collection, 0) + bool(space.groups)
    assert counts["cifar-lenet-wild"] == 27
    assert counts["cifar-resnet"] == 2
    assert counts["robust-lenet"] == 2
    assert counts["deformation-mlp"] == 50
    assert counts["rl-policies"] > 50
