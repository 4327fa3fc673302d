"""Tracing at module boundaries, where the whole cannot be captured."""

import pytest
import torch
from torch import nn

import zoo
from zoo.errors import TraceError, UnknownNameError
from zoo.symmetry import trace_boundaries


class Branches(nn.Module):
    """Which head answers depends on the data."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 5))
        self.left, self.right = nn.Linear(5, 2), nn.Linear(5, 2)

    def forward(self, x):
        x = self.body(x)
        return self.left(x) if x.sum() > 0 else self.right(x)


def test_error_offers_the_call_that_works():
    module = Branches().eval()
    with pytest.raises(TraceError, match=r"trace_boundaries\(.*'body', 'left', 'right'") as error:
        zoo.trace(module, torch.ones(2, 4))
    assert "if x.sum() > 0" in str(error.value)
    space = trace_boundaries(module, torch.ones(2, 4), submodules=["body"])
    assert [(group.name, group.size) for group in space.groups] == [("body.0", 3)]
    assert space.verify(module, torch.ones(2, 4)).passed
    vector = space.flatten(module.state_dict())
    moved = space.act(space.sample(torch.Generator().manual_seed(0)), vector)
    inputs = torch.randn(3, 4)
    before = module(inputs)
    module.load_state_dict(space.state_dict(moved), strict=False)
    torch.testing.assert_close(module(inputs), before)


def test_layout_is_that_of_the_whole_module():
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 2))
    whole = zoo.trace(module, torch.zeros(2, 4))
    parts = trace_boundaries(module, torch.zeros(2, 4), submodules=["0", "3"])
    assert [tensor.name for tensor in parts.tensors] == [tensor.name for tensor in whole.tensors]
    assert parts.groups == ()


def test_a_tensor_shared_with_the_outside_stays():
    class Shares(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
            self.other = nn.Linear(3, 3)
            self.other.weight = self.part[0].weight

        def forward(self, x):
            return self.other(self.part(x))

    space = trace_boundaries(Shares(), torch.zeros(2, 3), submodules=["part"])
    assert space.groups == ()
    assert space.tied == (("other.weight", "part.0.weight"),)


def test_wrong_names_and_inputs_are_clear():
    module, inputs = Branches(), torch.ones(2, 4)
    with pytest.raises(UnknownNameError, match="Known: body"):
        trace_boundaries(module, inputs, submodules=["head"])
    with pytest.raises(TraceError, match="inside another"):
        trace_boundaries(module, inputs, submodules=["body", "body.0"])
    with pytest.raises(TraceError, match="do not reach left, right|do not reach left|right"):
        trace_boundaries(module, inputs, submodules=["left", "right"])
