import pytest
import torch

from neural_functionals.models.scalegmn import ScaleGMN
from neural_functionals.testing import (
    ScaleInvariantModelContract,
    example_space,
    random_networks,
    symmetry_errors,
)
from zoo.errors import InvalidConfigError
from zoo.networks import build, example_input
from zoo.symmetry import trace


class TestScaleGMN(ScaleInvariantModelContract):
    def make_model(self, space):
        return ScaleGMN(space, width=8, num_layers=2, hidden=(9,))


class TestScaleGMNBidirectional(ScaleInvariantModelContract):
    def make_model(self, space):
        return ScaleGMN(space, direction="bidirectional", width=8, num_layers=3, num_outputs=2)


def test_residual_networks_with_several_signs_per_unit():
    """Units before a BatchNorm and on the residual stream have factors and signs of both."""
    recipe = {"name": "resnet", "depth": 8, "width": 2, "image_size": 8}
    space = trace(build(recipe), example_input(recipe))
    torch.manual_seed(0)
    model = ScaleGMN(space, direction="bidirectional", width=8, num_layers=2).double()
    model.fit_statistics(random_networks(space, 20, seed=0))
    rows = symmetry_errors(model, space, random_networks(space, 8, seed=1))
    assert [row.kind for row in rows] == ["permutation", "scale", "sign"]
    for row in rows:
        assert row.error <= 1e-9, row
        assert row.control >= 1e3 * max(row.error, 1e-10), row


def test_only_the_bidirectional_one_sends_back():
    space = example_space("mlp")
    on, both = (ScaleGMN(space, direction=name, width=4) for name in ("forward", "bidirectional"))
    assert {kind for one in on.rounds for kind in one.messages} == {"on-even-even"}
    assert {kind for one in both.rounds for kind in one.messages} == {
        "on-even-even",
        "back-even-even",
    }


def test_bad_options_are_refused():
    space = example_space("mlp")
    with pytest.raises(InvalidConfigError, match="'forward' or 'bidirectional'"):
        ScaleGMN(space, direction="backward")
    with pytest.raises(InvalidConfigError, match="positive widths"):
        ScaleGMN(space, num_layers=0)
