"""Deep sets see each field of a weight space as a set."""

import pytest
import torch

from neural_functionals.models import DeepSets
from neural_functionals.testing import (
    InvariantModelContract,
    across_tensors,
    example_space,
    random_networks,
)
from zoo.errors import InvalidConfigError


class TestDeepSets(InvariantModelContract):
    non_symmetry = staticmethod(across_tensors)

    def make_model(self, space):
        return DeepSets(space, channels=(5, 3), hidden=(7,))


def test_entries_of_a_matrix_may_change_places_but_not_leave_it():
    """What no other model allows: a shuffle of the hidden matrix, entry by entry."""
    space = example_space("mlp")
    name = next(tensor.name for tensor in space.tensors if tensor.shape == (5, 3))
    model = DeepSets(space, channels=(5, 3), hidden=(7,)).double()
    tensors = dict(space.unflatten(random_networks(space, 4, seed=0)))
    before = model(space.flatten(tensors))
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    tensors[name] = tensors[name].flatten(1)[:, order].unflatten(1, (5, 3))
    torch.testing.assert_close(model(space.flatten(tensors)), before, rtol=1e-11, atol=1e-12)
    tensors[name] = tensors[name] * torch.linspace(0.5, 1.5, 15).double().view(5, 3)
    assert (model(space.flatten(tensors)) - before).abs().max() > 1e-6


def test_bad_options_are_refused():
    with pytest.raises(InvalidConfigError, match="at least one layer"):
        DeepSets(example_space("mlp"), channels=())
