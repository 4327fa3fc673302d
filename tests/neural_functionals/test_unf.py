"""Models of complete equivariant maps: UNF, DWSNets, deep sets."""

import pytest
import torch
from tiny_networks import REPEATED, space_called

from neural_functionals.layers import EquivariantLinear, WeightLayout
from neural_functionals.models import NFN, UNF, DeepSets, DWSNet
from neural_functionals.testing import (
    InvariantModelContract,
    across_tensors,
    example_space,
    one_sided,
    random_networks,
    symmetry_errors,
)
from zoo.errors import InvalidConfigError, WeightSpaceMismatchError


class TestUNF(InvariantModelContract):
    def make_model(self, space):
        return UNF(space, channels=(5, 3), hidden=(7,))


class TestDWSNet(InvariantModelContract):
    def make_model(self, space):
        return DWSNet(space, channels=(5, 3), num_outputs=2)


class TestDeepSets(InvariantModelContract):
    non_symmetry = staticmethod(across_tensors)

    def make_model(self, space):
        return DeepSets(space, channels=(5, 3), hidden=(7,))


@pytest.mark.parametrize("name", [*REPEATED, "attention", "depthwise"])
@pytest.mark.parametrize("cls", [UNF, NFN])
def test_groups_that_move_several_axes(cls, name):
    """Whole pipeline, float64: exact, and a one-sided relabelling is noticed.

    All rows of queries and keys lie in one matrix: no relabelling of these is one-sided.
    """
    space = space_called(name)
    control = across_tensors if name == "attention" else one_sided
    torch.manual_seed(0)
    model = cls(space, channels=(5, 3), hidden=(7,))
    model.fit_statistics(random_networks(space, 50, seed=0))
    weights = random_networks(space, 16, seed=1)
    kinds = ("permutation",)
    (row,) = symmetry_errors(model.double(), space, weights, kinds=kinds, non_symmetry=control)
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


def test_maps_of_dws_are_those_of_nfn():
    """On a perceptron of n layers both papers count the same maps between weights and biases."""
    layout = WeightLayout(example_space("mlp"))
    layer = EquivariantLinear(layout.blocks(), layout.blocks())
    # Blocks: weights 4x3 (inputs are channels), 3x5, 5x2; biases 3, 5, 2 (outputs are channels).
    by_groups = {(0,): 4 + 1, (0, 1): 1, (1,): 1 + 2, (): 2}
    expected = sum(
        2 ** len(set(mine) & set(theirs)) * count * own
        for mine, count in by_groups.items()
        for theirs, own in by_groups.items()
    )
    assert sum(weight.numel() for weight in layer.weights) == expected


def test_dws_refuses_what_it_has_no_maps_for():
    with pytest.raises(WeightSpaceMismatchError, match="moves several axes"):
        DWSNet(space_called("recurrent"))


@pytest.mark.parametrize("cls", [UNF, DWSNet, DeepSets])
def test_bad_options_are_refused(cls):
    with pytest.raises(InvalidConfigError, match="at least one layer"):
        cls(example_space("mlp"), channels=())
