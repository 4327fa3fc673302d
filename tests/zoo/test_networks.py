"""Networks that recipes use: sizes, verified spaces, what keeps the function, what is refused."""

import json

import numpy as np
import pytest
import torch

import zoo
from zoo.errors import InvalidConfigError, UnknownNameError
from zoo.layout import Architecture, Ragged
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
    from_dict,
    to_dict,
)
from zoo.symmetry.act import sample
from zoo.symmetry.explain import explain
from zoo.testing import TINY_COLUMNS, tiny_block, tiny_spec

WILD = WildCNNConfig(
    in_channels=2,
    image_size=6,
    out_features=3,
    channels=(4, 2, 5, 3),
    kernel_sizes=(3, 5, 3, 1),
    residuals=(-1, -1, 0, 1),
    activations=("relu", "tanh", "gelu", "leaky_relu"),
)
TEXT = {"vocabulary": 11, "length": 5, "out_features": 3}
VIT = {"in_channels": 1, "image_size": 6, "out_features": 3, "patch_size": 2, "heads": 2}
SERIES = {"in_features": 2, "length": 5, "out_features": 3, "hidden": 4}
CNN_S = {"channels": (8, 6, 4), "kernel_sizes": (5, 5, 2), "pools": (2, 2, 1)}
CNN_L = {"channels": (16, 32, 15), "kernel_sizes": (3, 3, 3), "pools": (2, 2, 2)}
CONFIGS = {
    "wild": WILD,
    "wild, one function": WildCNNConfig(
        image_size=5, channels=(2, 3, 5), kernel_sizes=(3, 1, 3), residuals=(-1, -1, 0)
    ),
    "small of ModelZoos": LeNetConfig(
        in_channels=1, image_size=28, out_features=10, hidden=(20,), undropped=(2,), **CNN_S
    ),
    "resnet with projections": ResNetConfig(
        image_size=8, depth=10, blocks=(1, 1, 1, 1), width=2, shortcut="projection"
    ),
    "resnet with bottlenecks": ResNetConfig(
        image_size=4, depth=8, blocks=(1, 1), width=2, shortcut="projection", bottleneck=True
    ),
    "vit": ViTConfig(**VIT, width=6, depth=2, hidden=5),
    "plain vit": ViTConfig(**VIT, width=8, depth=1, hidden=5, positions="sincos", head="mean"),
    "transformer": TransformerConfig(**TEXT, width=6, depth=2, heads=2, hidden=7),
    "sincos transformer": TransformerConfig(
        **TEXT, width=6, depth=1, heads=3, hidden=5, positions="sincos"
    ),
    "lstm": RecurrentConfig(vocabulary=11, **SERIES, depth=2),
    "gru": RecurrentConfig(vocabulary=11, **SERIES, cell="gru", pool="mean"),
    "rnn of series": RecurrentConfig(vocabulary=0, **SERIES, cell="rnn_tanh"),
    "fcn": FCNConfig(in_channels=2, length=9, out_features=3, channels=(4, 5), kernel_sizes=(4, 3)),
    "fourier": MLPConfig(in_features=2, hidden=(5, 3), out_features=1, fourier_bands=3),
    "pinn": MLPConfig(in_features=2, hidden=(5, 3), out_features=1, activation="tanh"),
    "sine": MLPConfig(in_features=2, hidden=(5, 3), out_features=1, activation="sin"),
}


def inputs_of(config):
    """Random inputs; texts as they are."""
    example = config.example_input(3)
    if example.dtype == torch.int64:
        return example
    generator = torch.Generator().manual_seed(0)
    return torch.randn(example.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", CONFIGS)
def test_space_is_verified_and_relabelling_keeps_the_function(name):
    config = CONFIGS[name]
    torch.manual_seed(0)
    module = build(config).eval()
    space = zoo.trace(module, example_input(config), strict=True)
    assert space.groups
    module, inputs = module.double(), inputs_of(config)
    before = module(inputs)
    vector = space.flatten(module.state_dict())
    moved = sample(space, torch.Generator().manual_seed(1))(vector)
    assert not torch.equal(moved, vector)
    module.load_state_dict(space.state_dict(moved), strict=False)
    assert (module(inputs) - before).abs().max() < 1e-9 * before.std()
    shuffled = vector[torch.randperm(len(vector), generator=torch.Generator().manual_seed(2))]
    module.load_state_dict(space.state_dict(shuffled.abs()), strict=False)
    assert (module(inputs) - before).abs().max() > 1e-3 * before.std()


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_survive_json(name):
    config = CONFIGS[name]
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert example_input(config, batch=3).shape[0] == 3
    assert build(to_dict(config))(example_input(config)).shape == (2, config.out_features)


# ---- sizes --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("config", "count"),
    [
        (LeNetConfig(in_channels=1, image_size=28, out_features=10, hidden=(20,), **CNN_S), 2_464),
        (LeNetConfig(in_channels=3, image_size=28, out_features=10, hidden=(20,), **CNN_S), 2_864),
        (LeNetConfig(in_channels=3, image_size=32, out_features=10, hidden=(20,), **CNN_L), 10_853),
        # 11.2 and 23.5 million, as torchvision's with a 3x3 stem, no first pooling, 10 classes
        (
            ResNetConfig(depth=18, blocks=(2, 2, 2, 2), width=64, shortcut="projection"),
            11_173_962,
        ),
        (
            ResNetConfig(
                depth=50, blocks=(3, 4, 6, 3), width=64, shortcut="projection", bottleneck=True
            ),
            23_520_842,
        ),
    ],
    ids=["CNN-s, 1 channel", "CNN-s, 3 channels", "CNN-l", "ResNet-18", "ResNet-50"],
)
def test_sizes_are_those_of_the_papers(config, count):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in build(config).parameters()) == count


def test_the_small_cnn_of_modelzoos_has_no_dropout_after_its_last_convolution():
    config = LeNetConfig(
        in_channels=1,
        image_size=28,
        out_features=10,
        hidden=(20,),
        dropout=0.5,
        undropped=(2,),
        **CNN_S,
    )
    module, seen = build(config), []
    module.dropout.draw = lambda shape: seen.append(tuple(shape)) or torch.rand(shape)
    module.train()(torch.zeros(2, 1, 28, 28))
    assert seen == [(2, 8, 12, 12), (2, 6, 4, 4), (2, 20)]


def test_fields_that_came_later_leave_stored_networks_and_their_hashes_alone():
    old = {"name": "lenet", "in_channels": 1, "image_size": 28, "out_features": 10}
    assert "undropped" not in to_dict(from_dict(old))
    assert "undropped" in to_dict(CONFIGS["small of ModelZoos"])
    assert to_dict(ResNetConfig()).keys() == {
        "name", "in_channels", "image_size", "out_features", "depth", "width", "activation",
    }  # fmt: skip
    assert "fourier_bands" not in to_dict(CONFIGS["pinn"])


# ---- wild networks ------------------------------------------------------------------------------
def test_partly_shared_channels_split_groups():
    space = zoo.trace(build(WILD), example_input(WILD), strict=True)
    groups = {group.name: group for group in space.groups}
    touched = {
        name: {(touch.tensor, touch.dim) for touch in group.touches}
        for name, group in groups.items()
    }
    assert {name: group.size for name, group in groups.items()} == {"convs.0": 4, "convs.1": 2}
    assert {("convs.0.bias", 0), ("convs.2.weight", 0), ("convs.3.weight", 1)} < touched["convs.0"]
    assert {("convs.1.bias", 0), ("convs.3.weight", 0), ("head.weight", 1)} < touched["convs.1"]
    index = {touch.tensor: touch.index for touch in groups["convs.0"].touches}
    assert index["convs.2.bias"].array().ravel().tolist() == [0, 1, 2, 3]  # of five
    assert "convs.2.bias[0]" in explain(space)


def test_wild_residuals_are_added_before_the_activation():
    config = WildCNNConfig(
        in_channels=1,
        image_size=4,
        out_features=2,
        channels=(3, 1, 2),
        kernel_sizes=(1, 1, 1),
        residuals=(-1, -1, 0),
        activation="tanh",
    )
    module = build(config)
    images = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    first = module.convs[0](images).tanh()
    last = module.convs[2](module.convs[1](first).tanh())
    wanted = module.head((last + first[:, :2]).tanh().mean((2, 3)))
    torch.testing.assert_close(module(images), wanted)


def test_wild_networks_share_a_ragged_population(tmp_path):
    """Their shapes and spaces differ; every member is read back and rebuilt as itself."""
    configs = [WILD, CONFIGS["wild, one function"]]
    spaces = [zoo.trace(build(config), example_input(config)) for config in configs]
    members = [member % 2 for member in range(6)]
    plan = Ragged.plan(
        [
            Architecture(
                network={key: value for key, value in to_dict(config).items() if key != "name"},
                space=space.fingerprint,
                num_parameters=space.num_parameters,
            )
            for config, space in zip(configs, spaces, strict=True)
        ],
        members,
        block_size=6,
    )
    spec = tiny_spec(
        name="wild",
        space=plan,
        network={"name": "wild_cnn"},
        network_columns=(),
        num_members=6,
        block_size=0,
        columns=(*TINY_COLUMNS, zoo.schema.ARCHITECTURE_COLUMN),
    )
    writer = zoo.create(tmp_path / "zoo.zarr").create_population(spec, spaces=tuple(spaces))
    made = [
        tiny_block(tiny_spec(space=spaces[own]), [member]) for member, own in enumerate(members)
    ]
    writer.write_block(
        0,
        weights=[each["weights"][0] for each in made],
        metrics={
            name: np.concatenate([each["metrics"][name] for each in made]) for name in spec.metrics
        },
        columns={
            **{name: [each["columns"][name][0] for each in made] for name in made[0]["columns"]},
            "architecture": members,
        },
    )
    writer.finish()
    population = zoo.open(tmp_path / "zoo.zarr")["wild"]
    for member, own in enumerate(members):
        module = population.module(member)
        images = torch.ones(1, configs[own].in_channels, configs[own].image_size, 1)
        images = images.expand(-1, -1, -1, configs[own].image_size)
        plain = build(configs[own])
        vector = torch.from_numpy(made[member]["weights"][0, -1])
        plain.load_state_dict(spaces[own].state_dict(vector), strict=False)
        torch.testing.assert_close(module(images), plain.eval()(images))


# ---- tokens -------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["transformer", "lstm", "gru"])
def test_padding_changes_nothing(name):
    """Texts end where padding starts: what the padding's row holds does not matter."""
    config = CONFIGS[name]
    torch.manual_seed(0)
    module = build(config).double().eval()
    texts = torch.tensor([[3, 1, 2, 0, 0], [4, 0, 0, 0, 0], [5, 6, 7, 8, 9]])
    before = module(texts)
    with torch.no_grad():
        module.embedding.weight[0] += 1
    torch.testing.assert_close(module(texts), before, rtol=1e-12, atol=1e-12)
    assert (module(torch.tensor([[3, 1, 2, 1, 0]])) - before[0]).abs().max() > 1e-4
    assert torch.isfinite(module(torch.zeros(1, 5, dtype=torch.int64))).all()


def test_recurrent_networks_read_the_last_word():
    config = CONFIGS["lstm"]
    torch.manual_seed(0)
    module = build(config).eval()
    states, _ = module.layers(module.embedding(torch.tensor([[3, 1, 2]])))
    wanted = module.head(states[:, -1])
    torch.testing.assert_close(module(torch.tensor([[3, 1, 2, 0, 0]])), wanted)


def test_fourier_features_are_octaves():
    module = build(CONFIGS["fourier"])
    point = torch.tensor([[0.25, -0.5]])
    angles = torch.pi * torch.tensor([[0.25, 0.5, 1.0, -0.5, -1.0, -2.0]])
    torch.testing.assert_close(module.layers[1](point), torch.cat([angles.sin(), angles.cos()], 1))
    assert not any(name.endswith("rates") for name in module.state_dict())


# ---- refusals -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "fields", "match"),
    [
        (WildCNNConfig, {"kernel_sizes": (3,)}, "2 layers"),
        (WildCNNConfig, {"kernel_sizes": (3, 4)}, "odd"),
        (WildCNNConfig, {"residuals": (-1, 0)}, "at least two before"),
        (WildCNNConfig, {"channels": (3, 0)}, "positive"),
        (LeNetConfig, {"in_channels": 1, "image_size": 28, "out_features": 2, "undropped": (4,)},
         "below 4"),
        (ResNetConfig, {"blocks": (2, 2)}, "the depth that they have, 10"),
        (ResNetConfig, {"depth": 9}, "8, 14, 20"),
        (ResNetConfig, {"bottleneck": True}, "blocks where bottleneck"),
        (ViTConfig, {"patch_size": 5}, "divides 32"),
        (ViTConfig, {"width": 63}, "4 heads divide"),
        (ViTConfig, {"width": 6, "heads": 3, "positions": "sincos"}, "4 divides"),
        (ViTConfig, {"head": "max"}, "token or mean"),
        (TransformerConfig, {**TEXT, "width": 63}, "4 heads divide"),
        (TransformerConfig, {**TEXT, "vocabulary": 1}, "two tokens"),
        (TransformerConfig, {**TEXT, "positions": "rotary"}, "learned or sincos"),
        (RecurrentConfig, {**SERIES, "vocabulary": 1}, "at least 2"),
        (RecurrentConfig, {**SERIES, "vocabulary": 0, "cell": "rnn"}, "rnn_tanh"),
        (FCNConfig, {"in_channels": 1, "length": 5, "out_features": 2, "channels": (3,)},
         "one kernel size"),
        (MLPConfig, {"in_features": 2, "hidden": (3,), "out_features": 1, "fourier_bands": -1},
         "positive"),
    ],
)  # fmt: skip
def test_impossible_sizes_are_refused(kind, fields, match):
    with pytest.raises(InvalidConfigError, match=match):
        kind(**fields)


def test_unknown_activations_are_refused():
    with pytest.raises(UnknownNameError, match="Unknown activation 'swish'"):
        build(WildCNNConfig(activations=("relu", "swish")))
