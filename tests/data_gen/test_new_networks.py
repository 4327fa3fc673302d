"""Engines train transformers, recurrent layers, series and wild networks, and agree on them."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from data_gen.distributions import Choice, Constant, LogUniform
from data_gen.engines import LoopEngine, StackedEngine, products
from data_gen.engines.execution import StackedProgram
from data_gen.engines.graph import capture
from data_gen.engines.initialisation import initialise
from data_gen.engines.operators import EXAMPLE_BATCH, Stack, Table
from data_gen.plan import space_of
from data_gen.testing import assert_same_bits, small_digits, tiny_recipe
from zoo.errors import InvalidConfigError
from zoo.networks import (
    FCNConfig,
    LeNetConfig,
    MLPConfig,
    RecurrentConfig,
    ResNetConfig,
    TransformerConfig,
    ViTConfig,
    WildCNNConfig,
    build,
    example_input,
    to_dict,
)

_TEXT = {"vocabulary": 9, "length": 6, "out_features": 10}
_STEPS = {"in_features": 3, "length": 6, "out_features": 10, "hidden": 5}
NETWORKS = {
    "wild": WildCNNConfig(
        in_channels=1,
        image_size=8,
        channels=(4, 2, 5, 3),
        kernel_sizes=(3, 5, 3, 1),
        residuals=(-1, -1, 0, 1),
        activations=("relu", "tanh", "gelu", "sigmoid"),
    ),
    "lenet": LeNetConfig(
        in_channels=1,
        image_size=8,
        channels=(3, 2),
        kernel_sizes=(3, 2),
        pools=(2, 1),
        hidden=(5,),
        out_features=10,
        undropped=(1,),
    ),
    "resnet": ResNetConfig(
        in_channels=1, image_size=8, depth=8, blocks=(1, 1, 1), width=2, shortcut="projection"
    ),
    "vit": ViTConfig(
        in_channels=1, image_size=8, width=6, depth=1, heads=2, hidden=5, patch_size=4
    ),
    "plain vit": ViTConfig(
        in_channels=1,
        image_size=8,
        width=8,
        depth=1,
        heads=2,
        hidden=5,
        patch_size=2,
        positions="sincos",
        head="mean",
    ),
    "transformer": TransformerConfig(**_TEXT, width=6, depth=1, heads=2, hidden=5),
    "sincos transformer": TransformerConfig(
        **_TEXT, width=6, depth=1, heads=3, hidden=5, positions="sincos"
    ),
    "lstm": RecurrentConfig(vocabulary=9, **_STEPS, depth=2),
    "gru": RecurrentConfig(vocabulary=9, **_STEPS, cell="gru", pool="mean"),
    "rnn of series": RecurrentConfig(vocabulary=0, **_STEPS, cell="rnn_relu", pool="mean"),
    "lstm of series": RecurrentConfig(vocabulary=0, **_STEPS),
    "fcn": FCNConfig(
        in_channels=3, length=6, out_features=10, channels=(4, 5), kernel_sizes=(4, 3)
    ),
    "fourier": MLPConfig(in_features=64, hidden=(5, 3), out_features=10, fourier_bands=2),
}
_RELATED = ("resnet", "sincos transformer", "gru", "lstm of series", "plain vit")
EVERY_NETWORK = [
    pytest.param(name, marks=pytest.mark.slow) if name in _RELATED else name for name in NETWORKS
]
_MIXED = {
    "learning_rate": LogUniform(1e-3, 1e-1),
    "optimizer": Constant("sgd"),
    "momentum": Choice((0.0, 0.9)),
    "init_scale": Choice((0.5, 1.0)),
    "batch_size": Choice((7, 10)),
}


def _problem(config):
    """Digits as images, as texts of six words that may end early, or as series."""
    flat = small_digits()
    shape = tuple(example_input(config).shape[1:])

    def shaped(inputs):
        pixels = inputs[:, 10 : 10 + int(np.prod(shape))] if len(shape) < 3 else inputs
        pixels = inputs if shape == (64,) else pixels
        if getattr(config, "vocabulary", 0):
            words = 1 + (pixels * 7.99 / inputs.max()).long()
            ends = 1 + (inputs.sum(1) * 100).long() % shape[0]
            return torch.where(torch.arange(shape[0]) < ends[:, None], words, 0)
        return pixels.reshape(-1, *shape)

    return replace(
        flat, train_inputs=shaped(flat.train_inputs), test_inputs=shaped(flat.test_inputs)
    )


@cache
def _space(config):
    return space_of(tiny_recipe(config, hyperparameters={}))


def _recipe(config, **changes):
    mixed = dict(_MIXED)
    if "dropout" in to_dict(config):
        mixed["dropout"] = Choice((0.0, 0.3))
    if config.name == "vit" and config.positions == "sincos":
        mixed["activation"] = Choice(("relu", "gelu"))
    settings = {"hyperparameters": mixed, "num_members": 5, "epochs": 1, "checkpoints": (0, 1)}
    return tiny_recipe(config, **(settings | changes))


def _train(engine, recipe, members):
    members = np.asarray(members)
    drawn = recipe.draw(members)
    space = _space(recipe.network)
    return engine.train(recipe, _problem(recipe.network), space, members, drawn)


@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_engines_agree_on_one_step(name):
    """They draw the same numbers and differ in rounding alone."""
    recipe = _recipe(NETWORKS[name])
    one_step = recipe.hyperparameters | {"batch_size": Constant(83)}
    recipe = replace(recipe, hyperparameters=one_step)
    loop, stacked = (_train(engine, recipe, range(3)) for engine in (LoopEngine(), StackedEngine()))
    np.testing.assert_array_equal(stacked.weights[:, 0], loop.weights[:, 0])
    assert (loop.weights[:, 1] != loop.weights[:, 0]).any(axis=1).all()
    for mine, theirs in zip(stacked.weights[:, 1], loop.weights[:, 1], strict=True):
        assert np.abs(mine - theirs).max() < 1e-6 * np.abs(theirs).max()
    for metric, values in stacked.metrics.items():
        np.testing.assert_allclose(values, loop.metrics[metric], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_a_member_is_the_same_bit_for_bit_alone_and_in_company(name):
    recipe, engine = _recipe(NETWORKS[name]), StackedEngine()
    together = _train(engine, recipe, range(5))
    assert np.isfinite(together.weights).all()
    for member in (0, 4):
        alone = _train(engine, recipe, [member])
        assert_same_bits(alone, np.array([member]), together)


class _Last(nn.Module):
    """A recurrent layer, and its last step."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0][:, -1]


class _Joined(nn.Module):
    """Parts of feature maps, moved about, padded and joined."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3)

    def forward(self, x):
        maps = self.conv(x)
        lower, upper = maps[:, :3], functional.pad(maps[:, 3:], (0, 0, 0, 0, 1, 0), value=0.5)
        joined = torch.cat([lower * upper, maps[:, ::2].neg()], dim=1)
        return torch.cat([joined.softmax(1).sum((2, 3)), joined[:, :, 0, 1]], dim=-1)


_MODULES = {
    "normalised": (nn.Sequential(nn.Linear(5, 3), nn.LayerNorm(3), nn.Linear(3, 2)), (5,)),
    "normalised maps": (nn.LayerNorm((3, 5), elementwise_affine=False), (4, 3, 5)),
    "series": (nn.Conv1d(2, 3, 3, stride=2, padding=1, dilation=2), (2, 9)),
    "grouped series": (nn.Conv1d(4, 6, 2, groups=2), (4, 5)),
    "lstm": (_Last(nn.LSTM(3, 5, num_layers=2, batch_first=True)), (4, 3)),
    "lstm without biases": (_Last(nn.LSTM(3, 4, bias=False, batch_first=True)), (5, 3)),
    "gru": (_Last(nn.GRU(3, 5, num_layers=2, batch_first=True)), (4, 3)),
    "rnn": (_Last(nn.RNN(2, 3, nonlinearity="tanh", bias=False, batch_first=True)), (4, 2)),
    "joined": (_Joined(), (2, 5, 6)),
}


@pytest.mark.parametrize("name", [*_MODULES, "plain vit", "transformer"])
def test_values_and_gradients_equal_each_module_alone(name):
    """In float64, in evaluation mode; every operator has a batched form."""
    torch.manual_seed(0)
    if name in NETWORKS:
        module = build(NETWORKS[name])
        problem = _problem(NETWORKS[name])
        inputs = problem.train_inputs[:12].unflatten(0, (3, 4))
        example = example_input(NETWORKS[name], EXAMPLE_BATCH)
    else:
        module, shape = _MODULES[name]
        example, inputs = torch.zeros(EXAMPLE_BATCH, *shape), torch.randn(3, 4, *shape)
    module = module.double().eval()
    example, inputs = (
        each.double() if each.is_floating_point() else each for each in (example, inputs)
    )
    program = capture(module, example, training=False)
    assert program.is_batched
    buffers = dict(module.named_buffers())
    stacked = {
        key: torch.randn(3, *value.shape, dtype=torch.float64).requires_grad_()
        for key, value in module.named_parameters()
    }
    state = {
        key: value.expand(3, *value.shape)
        for key, value in buffers.items()
        if key in module.state_dict()
    }
    outputs, _ = StackedProgram([(program, 3)])(stacked | state, inputs, Stack(4))
    slopes = torch.randn_like(outputs)
    leaves = [*stacked.values()]
    ours = torch.autograd.grad(outputs, leaves, slopes) if leaves else ()
    for member in range(3):
        own = {key: value[member].detach().requires_grad_() for key, value in stacked.items()}
        alone = torch.func.functional_call(module, own, inputs[member])
        torch.testing.assert_close(outputs[member], alone, rtol=1e-10, atol=1e-10)
        theirs = torch.autograd.grad(alone, list(own.values()), slopes[member]) if own else ()
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine[member], other, rtol=1e-9, atol=1e-10)


def test_windows_that_memory_would_not_hold_are_made_in_parts(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 37, 3, 6, 5), (2, 4, 3, 3, 2), (2, 4))
    x, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    )

    def convolve():
        output = products.conv2d(x, weight, bias, (2, 1), (1, 1))
        slopes = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)
        return output, *torch.autograd.grad(output, (x, weight, bias), slopes)

    whole = convolve()
    monkeypatch.setattr(products, "MOST_WINDOWS", 1000)
    monkeypatch.setattr(products, "SOME_WINDOWS", 500)
    taken = []
    over_windows = products._over_windows
    monkeypatch.setattr(
        products,
        "_over_windows",
        lambda part, *args, **kwargs: (
            taken.append(part.shape[-1]) or over_windows(part, *args, **kwargs)
        ),
    )
    for mine, theirs in zip(convolve(), whole, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    assert sorted(taken) == [5, 5, 16, 16, 16, 16]  # there, and once more on the way back


def test_tables_compare_by_what_they_hold():
    """Graphs that share a table can share a stack; tables do not fill messages."""
    one, same, other = (Table.from_tensor(torch.tensor(each)) for each in ([1.0], [1.0], [2.0]))
    assert one == same != other
    assert hash(one) == hash(same)
    assert repr(one).endswith("Table(dtype='float32', shape=(1,))")
    drawn = one(Stack(4), torch.zeros(3, 4, 5))
    assert drawn.tolist() == [[1.0]] * 3


def test_what_stacks_cannot_do_is_said():
    module = _Last(nn.LSTM(3, 4, bidirectional=True, batch_first=True))
    program = capture(module, torch.zeros(EXAMPLE_BATCH, 5, 3), training=False)
    weights = {key: value.expand(2, *value.shape) for key, value in module.state_dict().items()}
    with pytest.raises(InvalidConfigError, match="run forward"):
        StackedProgram([(program, 2)])(weights, torch.zeros(2, 4, 5, 3), Stack(4))


# ---- initial weights ----------------------------------------------------------------------------
def _draws(config, name, **settings):
    space = _space(config)
    start, count = space.offsets[name], space.tensor(name).numel
    vectors = np.stack([initialise(space, seed, **settings) for seed in range(60)])
    return vectors[:, start : start + count].astype(np.float64)


def test_embeddings_are_standard_normal_and_positions_small():
    config = NETWORKS["transformer"]
    for name, std in (("embedding.weight", 1.0), ("positions", 0.02)):
        for scheme in ("default", "orthogonal"):
            drawn = _draws(config, name, scheme=scheme)
            assert drawn.std() == pytest.approx(std, rel=0.06)
            assert drawn.mean() == pytest.approx(0, abs=0.06 * std)
            inside = (np.abs(drawn) < std).mean()
            assert inside == pytest.approx(0.6827, abs=0.03)  # of a normal distribution
        assert _draws(config, name, scheme="normal", std=0.3).std() == pytest.approx(0.3, rel=0.06)
        doubled = _draws(config, name, scale=2.0)
        np.testing.assert_allclose(doubled, 2 * _draws(config, name), rtol=1e-6)
    token = _draws(NETWORKS["vit"], "token")
    assert token.std() == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_recurrent_layers_start_as_torch_makes_them(name):
    """Weights and biases alike are bounded by the fan-in of the hidden units."""
    config = NETWORKS[name]
    bound = 1 / np.sqrt(config.hidden)
    for part in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        drawn = _draws(config, f"layers.{part}")
        assert 0.95 * bound < np.abs(drawn).max() <= bound * (1 + 1e-6)
        assert drawn.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
        theirs = getattr(build(config).layers, part)
        assert theirs.abs().max() <= bound


def test_transformers_start_as_torch_makes_them():
    config = NETWORKS["transformer"]
    assert (_draws(config, "encoder.norm.weight") == 1).all()
    drawn = _draws(config, "encoder.blocks.0.attention.query.weight")
    assert drawn.std() == pytest.approx(1 / np.sqrt(3 * config.width), rel=0.03)
