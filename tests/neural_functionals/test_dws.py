"""Deep weight space networks have the maps that both papers list for perceptrons."""

import pytest
import torch

from neural_functionals.layers import EquivariantLinear, WeightLayout
from neural_functionals.models import NFN, DWSNet
from neural_functionals.testing import InvariantModelContract, example_space, random_networks
from zoo.errors import InvalidConfigError


class TestDWSNet(InvariantModelContract):
    def make_model(self, space):
        return DWSNet(space, channels=(5, 3), num_outputs=2)


def count_weights(layout):
    layer = EquivariantLinear(layout.blocks(), layout.blocks())
    return sum(weight.numel() for weight in layer.weights)


def test_maps_of_a_perceptron_whose_inputs_and_outputs_are_fixed():
    """One map per pair of blocks, set of hidden layers that both have, and pair of channels."""
    # Blocks: weights 4x3 (inputs are channels), 3x5, 5x2; biases 3, 5, 2 (outputs are channels).
    by_groups = {(0,): 4 + 1, (0, 1): 1, (1,): 1 + 2, (): 2}
    expected = sum(
        2 ** len(set(mine) & set(theirs)) * count * own
        for mine, count in by_groups.items()
        for theirs, own in by_groups.items()
    )
    assert count_weights(WeightLayout(example_space("mlp"))) == expected


def test_maps_of_a_perceptron_whose_neurons_may_all_be_permuted():
    """The terms of Eq. (3) and (4) of Zhou et al., NeurIPS 2023, counted for three layers.

    To the weights of a layer: the mean of each layer's weights, both means of its own rows and
    columns, its weights, a mean of each adjacent layer, and of biases each mean, its own and the
    previous one. To its biases: each mean of weights and biases, its own weights' and the next
    layer's mean, its own biases.
    """
    num = 3
    to_weights = (num * num + 3 * num + 2 * (num - 1)) + (num * num + num + num - 1)
    to_biases = (num * num + num + num - 1) + (num * num + num)
    layout = WeightLayout(example_space("mlp"), free=("input", "output"))
    assert count_weights(layout) == to_weights + to_biases == 62


@pytest.mark.parametrize("name", ["mlp", "siren"])
def test_its_maps_are_those_of_nfn(name):
    """The weights of one, in the other, give the same map between weights and biases."""
    space = example_space(name)
    ours, theirs = (cls(space, channels=(3, 2)).double() for cls in (DWSNet, NFN))
    features = ours.layout.gather(random_networks(space, 4, seed=0))
    before = [block.clone() for block in theirs.stack(features)]
    theirs.stack.load_state_dict(ours.stack.state_dict())
    after = zip(ours.stack(features), theirs.stack(features), before, strict=True)
    assert all(torch.equal(x, y) and not torch.equal(y, z) for x, y, z in after)


def test_bad_options_are_refused():
    with pytest.raises(InvalidConfigError, match="at least one layer"):
        DWSNet(example_space("mlp"), channels=())
