from math import sqrt

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from data_gen.engines.initialisation import initialise
from zoo.errors import UnknownNameError
from zoo.networks import CNNConfig, MLPConfig, build, example_input

_CONV = CNNConfig(
    in_channels=2, image_size=6, channels=(3, 5), out_features=4, head="flatten", stride=1
)
_TORCH = {
    "kaiming_uniform": nn.init.kaiming_uniform_,
    "kaiming_normal": nn.init.kaiming_normal_,
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "normal": lambda w: nn.init.normal_(w, std=0.2),
    "uniform": lambda w: nn.init.uniform_(w, -0.2 * sqrt(3), 0.2 * sqrt(3)),
    "truncated_normal": lambda w: nn.init.trunc_normal_(w, std=0.2, a=-0.4, b=0.4),
}


@pytest.fixture(scope="module")
def space():
    return zoo.trace(build(_CONV), example_input(_CONV))


def _draws(space, name, **settings):
    vectors = np.stack([initialise(space, seed, **settings) for seed in range(400)])
    start = space.offsets[name]
    return vectors[:, start : start + space.tensor(name).numel].astype(np.float64)


@pytest.mark.parametrize("scheme", _TORCH)
def test_weights_are_distributed_as_torch_does(space, scheme):
    torch.manual_seed(0)
    theirs = torch.empty(400, *space.tensor("layers.3.weight").shape)
    for each in theirs:
        _TORCH[scheme](each)
    ours, theirs = _draws(space, "layers.3.weight", scheme=scheme, std=0.2).ravel(), theirs.ravel()
    levels = np.linspace(0, 1, 21)[1:-1]
    spread = float(theirs.std())
    np.testing.assert_allclose(ours.mean(), 0, atol=0.02 * spread)
    np.testing.assert_allclose(ours.std(), spread, rtol=0.01)
    np.testing.assert_allclose(
        np.quantile(ours, levels), np.quantile(theirs.numpy(), levels), atol=0.03 * spread
    )
    assert np.abs(ours).max() == pytest.approx(float(theirs.abs().max()), rel=0.25)


@pytest.mark.parametrize("name", ["layers.0", "layers.3", "head"])
def test_default_is_what_the_modules_do_when_they_are_made(space, name):
    module = build(_CONV).get_submodule(name)
    bound = 1 / sqrt(module.weight[0].numel())
    for part in ("weight", "bias"):
        ours = _draws(space, f"{name}.{part}", scheme="default")
        assert np.abs(ours).max() <= bound * (1 + 1e-6)
        assert np.abs(ours).max() > 0.97 * bound
        assert ours.std() == pytest.approx(bound / sqrt(3), rel=0.03)


def test_orthogonal_rows(space):
    for row in _draws(space, "layers.3.weight", scheme="orthogonal")[:5]:
        matrix = row.reshape(5, -1)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(5), atol=1e-6)
    signs = _draws(space, "layers.3.weight", scheme="orthogonal").mean()
    assert abs(signs) < 0.01


def test_scale_multiplies_and_biases_are_zero_but_for_default(space):
    plain, scaled = (_draws(space, "head.weight", scheme="xavier_normal", scale=s) for s in (1, 3))
    np.testing.assert_allclose(scaled, 3 * plain, rtol=1e-6)
    assert not _draws(space, "head.bias", scheme="xavier_normal").any()
    assert _draws(space, "head.bias", scheme="default").all()


def test_normalisation_starts_at_the_identity():
    network = MLPConfig(in_features=3, hidden=(5, 2), out_features=4, batch_norm=True)
    space = zoo.trace(build(network), example_input(network))
    tensors = space.unflatten(torch.from_numpy(initialise(space, 1, scale=7.0)))
    wanted = {"gain": 1, "shift": 0, "mean": 0, "variance": 1}
    seen = [tensor.role for tensor in space.tensors if tensor.role in wanted]
    assert sorted(seen) == sorted(2 * list(wanted))
    for tensor in space.tensors:
        if tensor.role in wanted:
            assert (tensors[tensor.name] == wanted[tensor.role]).all()


def test_unknown_scheme(space):
    with pytest.raises(UnknownNameError, match="Known: default, kaiming_uniform"):
        initialise(space, 0, scheme="he")
