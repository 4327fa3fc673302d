import pytest
import torch
from torch import nn

from neural_functionals.layers import Tokeniser
from neural_functionals.models import SANE, SANEConfig
from neural_functionals.testing import (
    NETWORKS,
    ModelContract,
    example_space,
    random_action,
    random_networks,
)
from zoo.errors import InvalidConfigError
from zoo.symmetry import trace

SMALL = {"num_blocks": 1, "channels": 8, "num_heads": 2, "latent": 5, "hidden": (7,)}


class ReadsWeights(ModelContract):
    def make_inputs(self, space, count, *, seed):
        return random_networks(space, count, seed=seed)


class TestSANE(ReadsWeights):
    def make_model(self, space):
        return SANE(space, **SMALL)


class TestSANEInWindows(ReadsWeights):
    def make_model(self, space):
        return SANE(space, token_size=3, window=4, num_outputs=2, **SMALL)


def test_order_of_units_matters():
    """It claims no invariance."""
    space = example_space("mlp")
    model = SANE(space, **SMALL).double()
    weights = random_networks(space, 8, seed=0)
    before = model(weights)
    change = (model(random_action(space, seed=0)(weights)) - before).abs().max()
    assert change > 1e-2 * before.std()


@pytest.mark.parametrize("token_size", [0, 1, 3, 50])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_tokens_are_read_back_bit_by_bit(name, token_size):
    space = example_space(name)
    tokenise = Tokeniser(space, token_size=token_size)
    weights = random_networks(space, 3, seed=0).float()
    tokens = tokenise(weights)
    assert tokens.shape == (3, tokenise.num_tokens, tokenise.token_size)
    assert torch.equal(tokenise.weights(tokens), weights)
    assert int(tokenise.mask.sum()) == space.num_parameters
    assert (tokens[:, ~tokenise.mask] == 0).all()
    noise = torch.randn_like(tokens).masked_fill(tokenise.mask, 0.0)
    assert torch.equal(tokenise.weights(tokens + noise), weights)


def test_tokens_are_the_rows_of_layers():
    """Weights of one unit, then its bias, cut and padded; positions count tokens, layers, units."""
    network = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    space = trace(network, torch.zeros(2, 2))
    tokenise = Tokeniser(space, token_size=2)
    tokens = tokenise(space.flatten(network.state_dict()))
    zero = torch.zeros(1)
    expected = []
    for layer in (network[0], network[2]):
        for row, bias in zip(layer.weight, layer.bias, strict=True):
            entries = torch.cat([row, bias[None], *[zero] * (-(len(row) + 1) % 2)])
            expected += list(entries.view(-1, 2))
    assert torch.equal(tokens, torch.stack(expected))
    units = [(0, 0), (0, 0), (0, 1), (0, 1), (0, 2), (0, 2), (1, 0), (1, 0)]
    assert tokenise.positions.tolist() == [[n, *unit] for n, unit in enumerate(units)]


def test_layers_without_bias_count_for_the_longest_token():
    network = nn.Sequential(nn.Linear(7, 3, bias=False), nn.Tanh(), nn.Linear(3, 2))
    space = trace(network, torch.zeros(2, 7))
    assert Tokeniser(space).token_size == 7


def test_a_norm_units_numbers_share_a_row():
    space = example_space("cnn-batch-norm")
    tokenise = Tokeniser(space)
    gain = next(tensor for tensor in space.tensors if tensor.role == "gain")
    tensors = [tensor for tensor in space.tensors if tensor.layer == gain.layer]
    starts = [space.offsets[tensor.name] for tensor in tensors]
    assert {tensor.role for tensor in tensors} == {"gain", "shift", "mean", "variance"}
    vector = torch.arange(space.num_parameters)
    assert any(token[:4].tolist() == starts for token in tokenise(vector))


def test_windows_that_hold_everything_are_one():
    space = example_space("mlp")
    weights = random_networks(space, 3, seed=0)
    wide, other = (SANE(space, window=window, **SMALL).double() for window in (64, 10))
    assert wide.tokenise.num_tokens == 10
    other.load_state_dict(wide.state_dict())
    torch.testing.assert_close(wide(weights), other(weights))
    cut = SANE(space, window=4, **SMALL).double()
    cut.load_state_dict(wide.state_dict())
    assert (cut(weights) - wide(weights)).abs().max() > 1e-6


def test_defaults_are_the_papers():
    config = SANEConfig()
    assert (config.window, config.num_blocks, config.channels, config.latent) == (64, 8, 1024, 128)


def test_bad_options_are_refused():
    space = example_space("mlp")
    with pytest.raises(InvalidConfigError, match="token_size of at least 0"):
        SANE(space, **SMALL, token_size=-1)
    with pytest.raises(InvalidConfigError, match="even number of channels"):
        SANE(space, **SMALL | {"channels": 7})
    with pytest.raises(InvalidConfigError, match="window"):
        SANE(space, **SMALL, window=0)
