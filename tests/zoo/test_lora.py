"""Low-rank adapters: a frozen base from a file, what is trained beside it, and what they become."""

import hashlib

import numpy as np
import pytest
import torch
from torch.func import functional_call

import zoo
from zoo.errors import (
    InvalidConfigError,
    MissingDataError,
    UnknownNameError,
    WeightSpaceMismatchError,
)
from zoo.networks import (
    CNNConfig,
    LoRAConfig,
    MLPConfig,
    RecurrentConfig,
    ViTConfig,
    build,
    from_dict,
    to_dict,
)
from zoo.networks.frozen import load_base, save_base
from zoo.networks.lora import merge
from zoo.symmetry.factors import mix, random_matrices

BASE = MLPConfig(in_features=64, hidden=(5, 3), out_features=10, activation="tanh")
CNN = CNNConfig(
    in_channels=1, image_size=8, channels=(3, 5), kernel_size=2, stride=1, out_features=4
)
VIT = ViTConfig(
    in_channels=1,
    image_size=4,
    patch_size=2,
    width=6,
    depth=1,
    heads=2,
    hidden=5,
    out_features=3,
)
RECURRENT = RecurrentConfig(vocabulary=11, in_features=3, length=5, hidden=4, out_features=2)
NAMES = ["layers.1", "layers.4", "layers.7"]


def adapters(base=BASE, **changes):
    return LoRAConfig(base=base, **({"rank": 2, "alpha": 3.0} | changes))


@pytest.fixture
def stored(tmp_path):
    """A base with weights of its own, and adapters that read it from a file."""
    torch.manual_seed(0)
    module = BASE.build()
    data, sha256 = save_base(module.state_dict())
    path = tmp_path / "base.npz"
    path.write_bytes(data)
    return module, adapters(weights=str(path), sha256=sha256)


def drawn(config, seed=1):
    module = config.build().double()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(size=parameter.shape)))
    return module, torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


# ---- configuration ------------------------------------------------------------------------------
def test_a_configuration_within_another_is_written_and_restored():
    config = adapters(layers=("layers.4",))
    plain = to_dict(config)
    assert plain["base"] == to_dict(BASE)
    assert plain["layers"] == ["layers.4"]
    assert from_dict(plain) == config
    assert config.example_input(3).shape == (3, 64)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"rank": 0}, InvalidConfigError, "rank of at least 1"),
        ({"alpha": 0.0}, InvalidConfigError, "positive alpha"),
        ({"weights": "base.npz"}, InvalidConfigError, "together with its sha256"),
        ({"layers": ("layers.2",)}, UnknownNameError, "layers.2.*Known: layers.1, layers.4"),
        ({"base": MLPConfig(in_features=4, hidden=(3,), out_features=2, batch_norm=True)},
         InvalidConfigError, "running statistics"),
        ({"base": MLPConfig(in_features=4, hidden=(3,), out_features=2, dropout=0.1)},
         InvalidConfigError, "without dropout"),
        ({"base": RECURRENT},
         InvalidConfigError, "recurrent"),
        ({"base": adapters()}, InvalidConfigError, "Merge them first"),
    ],
)  # fmt: skip
def test_bases_and_settings_that_do_not_go_are_refused(changes, error, words):
    with pytest.raises(error, match=words):
        adapters(**changes)


# ---- function -----------------------------------------------------------------------------------
def test_only_adapters_are_parameters_and_the_base_is_in_no_state_dict(stored):
    module = stored[1].build()
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    widths = zip(NAMES, [(64, 5), (5, 3), (3, 10)], strict=True)
    assert shapes == {
        key: shape
        for name, (inputs, outputs) in widths
        for key, shape in (
            (f"{name}.lora_A.weight", (2, inputs)),
            (f"{name}.lora_B.weight", (outputs, 2)),
        )
    }
    assert set(module.state_dict()) == set(shapes)
    assert stored[1].zeros == tuple(f"{name}.lora_B.weight" for name in NAMES)


def test_a_layer_adds_the_scaled_low_rank_map(stored):
    """Equation 3 of the paper, layer by layer, written out."""
    base, config = stored
    module, _ = drawn(config)
    state = {name: tensor.double() for name, tensor in base.state_dict().items()}
    inputs = torch.randn(7, 64, generator=torch.Generator().manual_seed(2)).double()
    own, hidden = dict(module.named_parameters()), inputs
    for place, name in enumerate(NAMES):
        low = hidden @ own[f"{name}.lora_A.weight"].mT @ own[f"{name}.lora_B.weight"].mT
        plain = hidden @ state[f"{name}.weight"].mT + state[f"{name}.bias"]
        hidden = plain + 3.0 / 2 * low
        hidden = hidden.tanh() if place < 2 else hidden
    torch.testing.assert_close(module(inputs), hidden, rtol=0, atol=1e-12)
    torch.testing.assert_close(config.build()(inputs.float()), base(inputs.float()))


def test_merged_adapters_are_the_base_with_other_weights(stored):
    base, config = stored
    module, vector = drawn(config)
    merged = merge(config, vector)
    assert set(merged) == set(base.state_dict())
    inputs = torch.randn(7, 64, generator=torch.Generator().manual_seed(2)).double()
    outputs = functional_call(
        base.double(), {name: tensor.double() for name, tensor in merged.items()}, inputs
    )
    torch.testing.assert_close(outputs, module(inputs), rtol=0, atol=1e-12)
    torch.testing.assert_close(merged["layers.4.bias"].double(), base.state_dict()["layers.4.bias"])
    with pytest.raises(WeightSpaceMismatchError, match="180 numbers"):
        merge(config, vector[:-1])


def test_only_chosen_layers_are_adapted(stored):
    config = adapters(
        weights=stored[1].weights, sha256=stored[1].sha256, layers=("layers.7", "layers.1")
    )
    names = [name for name, _ in config.build().named_parameters()]
    assert names == [f"layers.{k}.lora_{part}.weight" for k in (1, 7) for part in "AB"]


# ---- files --------------------------------------------------------------------------------------
def test_a_missing_or_altered_file_is_named(stored, tmp_path):
    config = stored[1]
    path = tmp_path / "base.npz"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(WeightSpaceMismatchError, match=f"{config.sha256}.*got a file with sha256"):
        config.build()
    path.unlink()
    with pytest.raises(MissingDataError, match=f"{config.sha256}.*copy the file there"):
        config.build()


def test_a_file_of_another_network_is_refused(tmp_path):
    data, sha256 = save_base(
        MLPConfig(in_features=64, hidden=(5,), out_features=10).build().state_dict()
    )
    (tmp_path / "other.npz").write_bytes(data)
    with pytest.raises(WeightSpaceMismatchError, match=r"layers\.4\.weight, layers\.7\.bias"):
        adapters(weights=str(tmp_path / "other.npz"), sha256=sha256).build()


def test_files_hold_no_pickles_and_equal_numbers_make_equal_bytes(stored, tmp_path):
    data, sha256 = save_base(stored[0].state_dict())
    assert save_base(stored[0].state_dict()) == (data, sha256)
    objects = tmp_path / "objects.npz"
    np.savez(objects, weight=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_base(str(objects), hashlib.sha256(objects.read_bytes()).hexdigest())


def test_safetensors_files_are_read_too(stored, tmp_path):
    package = pytest.importorskip("safetensors.torch")
    data = package.save(stored[0].state_dict())
    (tmp_path / "base.safetensors").write_bytes(data)
    config = adapters(
        weights=str(tmp_path / "base.safetensors"), sha256=hashlib.sha256(data).hexdigest()
    )
    _, vector = drawn(config)
    torch.testing.assert_close(merge(config, vector), merge(stored[1], vector))


# ---- symmetry -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "base",
    [
        BASE,
        CNN,
        VIT,
    ],
    ids=lambda base: base.name,
)
def test_the_only_freedom_is_a_change_of_basis_within_each_adapter(base):
    """Every unit of the base stays; a stand-in for its weights has the space of any weights."""
    config = adapters(base=base, rank=3)
    module, vector = drawn(config)
    example = config.example_input(2)
    space = zoo.trace(module, example.double(), strict=True)
    assert space.verify(module, example.double()).passed
    assert [group.name for group in space.groups] == [f"{name}.lora_A" for name in config.targets]
    assert {group.size for group in space.groups} == {3}
    assert [block.group for block in space.gl_blocks] == [group.name for group in space.groups]
    assert [tensor.name for tensor in space.tensors] == [n for n, _ in module.named_parameters()]
    inputs = torch.randn(example.shape, generator=torch.Generator().manual_seed(3)).double()
    before, moved = module(inputs), vector
    for block in space.gl_blocks:
        matrices = random_matrices(block, torch.Generator().manual_seed(4))
        moved = mix(space, block, matrices, moved)
    assert not torch.allclose(moved, vector)
    torch.testing.assert_close(
        functional_call(module, space.state_dict(moved), inputs), before, rtol=1e-9, atol=1e-9
    )


def test_a_base_from_a_file_has_the_space_of_the_stand_in(stored):
    example = stored[1].example_input(2)
    spaces = [zoo.trace(build(config), example) for config in (stored[1], adapters())]
    assert spaces[0].fingerprint == spaces[1].fingerprint
