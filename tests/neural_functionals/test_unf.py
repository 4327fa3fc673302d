"""Universal neural functionals, and NFN beside them, on spaces where groups move several axes."""

import pytest
import torch
from tiny_networks import REPEATED, space_called
from torch import nn

from neural_functionals.models import NFN, UNF, DWSNet
from neural_functionals.testing import (
    InvariantModelContract,
    example_space,
    random_networks,
    symmetry_errors,
)
from zoo.errors import InvalidConfigError
from zoo.symmetry import trace


class TestUNF(InvariantModelContract):
    def make_model(self, space):
        return UNF(space, channels=(5, 3), hidden=(7,))


class HeadsAsStream(nn.Module):
    """Attention whose concatenated heads are the residual stream: units inside heads, repeated."""

    def __init__(self):
        super().__init__()
        self.mix, self.block = nn.Linear(1, 18), nn.Linear(6, 6, bias=False)
        self.read = nn.Linear(6, 1)

    def forward(self, x):
        q, k, v = self.mix(x).view(*x.shape[:2], 3, 2, 3).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.read(mixed + torch.relu(self.block(mixed)))


def space_of(name):
    if name == "heads":
        return trace(HeadsAsStream(), torch.zeros(2, 3, 1), strict=True)
    return space_called(name)


@pytest.mark.parametrize("name", [*REPEATED, "attention", "depthwise", "heads"])
@pytest.mark.parametrize("cls", [UNF, NFN, DWSNet])
def test_groups_that_move_several_axes(cls, name):
    """Whole pipeline, float64: exact, and a one-sided relabelling is noticed."""
    space = space_of(name)
    torch.manual_seed(0)
    model = cls(space, channels=(5, 3), hidden=(7,))
    model.fit_statistics(random_networks(space, 50, seed=0))
    weights = random_networks(space, 16, seed=1)
    kinds = ("permutation",)
    (row,) = symmetry_errors(model.double(), space, weights, kinds=kinds)
    assert row.error <= 1e-9
    assert row.control >= 1e3 * row.error


def test_diagonals_are_pooled_apart():
    """Moving numbers from the diagonal of a recurrent matrix to the rest changes the output."""
    space = space_called("recurrent")
    name = next(t.name for t in space.tensors if t.shape == (4, 4))
    model = UNF(space, channels=(3,), hidden=(5,)).double()
    weights = random_networks(space, 3, seed=0)
    moved = {key: value.clone() for key, value in space.unflatten(weights).items()}
    moved[name] = moved[name].roll(1, dims=1)
    assert (model(space.flatten(moved)) - model(weights)).abs().max() > 1e-6


def test_bad_options_are_refused():
    with pytest.raises(InvalidConfigError, match="at least one layer"):
        UNF(example_space("mlp"), channels=())
