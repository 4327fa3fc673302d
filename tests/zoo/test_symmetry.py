"""Tracing: spaces equal hand-written ones, verification proves them and notices what is wrong."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

import zoo
from zoo.errors import TraceError, UnknownNameError, WeightSpaceMismatchError, ZooWarning
from zoo.networks import CNNConfig, MLPConfig, SirenConfig, build, example_input
from zoo.space import NeuronGroup, Touch, UnitIndex
from zoo.symmetry import fields, from_permutations, identity, inert_tensors, random_weights
from zoo.symmetry.rules import RULES

CONFIGS = {
    "mlp": MLPConfig(in_features=4, hidden=(3, 5), out_features=2, activation="gelu"),
    "mlp-batch-norm": MLPConfig(in_features=4, hidden=(3, 5), out_features=2, batch_norm=True),
    "small-cnn": CNNConfig(in_channels=1, image_size=16, channels=(2, 3, 5), out_features=4),
    "cnn-batch-norm": CNNConfig(
        in_channels=2, image_size=9, channels=(3, 5), out_features=2, batch_norm=True, dropout=0.5
    ),
    "cnn-flatten": CNNConfig(
        in_channels=2, image_size=8, channels=(3, 5), stride=1, head="flatten", out_features=4
    ),
    "siren": SirenConfig(hidden=(5, 3)),
}


class LeNet(nn.Module):
    """Convolutions, max pooling, a view, linear layers, called functionally."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 5), nn.Conv2d(4, 6, 3)
        self.fc1, self.fc2 = nn.Linear(6 * 2 * 2, 7), nn.Linear(7, 2)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = nn.functional.avg_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc2(torch.tanh(self.fc1(x.view(x.shape[0], -1))))


class Residual(nn.Module):
    """A residual stream: one group is read and written by several layers."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(4, 5), nn.Linear(5, 2)
        self.up, self.down = nn.Linear(5, 3), nn.Linear(3, 5)

    def forward(self, x):
        x = self.embed(x)
        return self.head(x + self.down(torch.relu(self.up(x))))


@pytest.fixture(params=CONFIGS, scope="module")
def traced(request):
    config = CONFIGS[request.param]
    module = build(config)
    inputs = example_input(config, batch=3)
    return module, inputs, zoo.trace(module, inputs, strict=True)


def moves(space):
    return {
        group.name: (group.size, {(touch.tensor, touch.dim) for touch in group.touches})
        for group in space.groups
    }


def test_mlp_partition_equals_the_hand_written_one():
    config = CONFIGS["mlp"]
    assert moves(zoo.trace(build(config), example_input(config))) == {
        "layers.1": (3, {("layers.1.weight", 0), ("layers.1.bias", 0), ("layers.4.weight", 1)}),
        "layers.4": (5, {("layers.4.weight", 0), ("layers.4.bias", 0), ("layers.7.weight", 1)}),
    }


def test_lenet_partition_equals_the_hand_written_one():
    space = zoo.trace(LeNet(), torch.zeros(2, 3, 16, 16), strict=True)
    assert moves(space) == {
        "conv1": (4, {("conv1.weight", 0), ("conv1.bias", 0), ("conv2.weight", 1)}),
        "conv2": (6, {("conv2.weight", 0), ("conv2.bias", 0), ("fc1.weight", 1)}),
        "fc1": (7, {("fc1.weight", 0), ("fc1.bias", 0), ("fc2.weight", 1)}),
    }
    blocks = {touch.tensor: touch.index.block for touch in space.group("conv2").touches}
    assert blocks == {"conv2.weight": 1, "conv2.bias": 1, "fc1.weight": 4}


def test_batch_norm_vectors_and_buffers_move_with_the_channels():
    config = CONFIGS["cnn-batch-norm"]
    space = zoo.trace(build(config), example_input(config))
    assert {touch.tensor for touch in space.group("layers.0").touches} == {
        "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias",
        "layers.1.running_mean", "layers.1.running_var", "layers.4.weight",
    }  # fmt: skip
    roles = {tensor.name: tensor.role for tensor in space.tensors}
    assert roles["layers.1.weight"] == "gain"
    assert roles["layers.1.running_var"] == "variance"
    assert space.num_trainable == space.num_parameters - 2 * (3 + 5)


def test_residual_stream_is_one_group():
    space = zoo.trace(Residual(), torch.zeros(2, 4), strict=True)
    assert {name: size for name, (size, _) in moves(space).items()} == {"embed": 5, "up": 3}
    assert ("down.weight", 0) in moves(space)["embed"][1]


def test_every_group_is_verified(traced):
    module, inputs, space = traced
    result = space.verify(module, inputs)
    assert result.passed
    assert set(result.deviations) >= {group.name for group in space.groups}
    assert max(result.deviations.values()) <= 1e-9


def test_network_is_unchanged_on_its_own_weights(traced):
    module, inputs, space = traced
    module = copy.deepcopy(module).double().eval()
    weights = space.flatten(module.state_dict())
    inputs = torch.randn(inputs.shape, dtype=torch.float64)
    before = module(inputs)
    moved = space.act(space.sample(torch.Generator().manual_seed(1)), weights)
    assert not torch.equal(moved, weights)
    module.load_state_dict(space.state_dict(moved), strict=False)
    torch.testing.assert_close(module(inputs), before, rtol=1e-9, atol=1e-12)


def test_leaving_out_any_touched_axis_changes_the_function(traced):
    module, inputs, space = traced
    for number, group in enumerate(space.groups):
        for left_out in group.touches:
            touches = tuple(touch for touch in group.touches if touch != left_out)
            groups = list(space.groups)
            groups[number] = dataclasses.replace(group, touches=touches)
            wrong = dataclasses.replace(space, groups=tuple(groups))
            assert group.name in wrong.verify(module, inputs).failed, left_out


def test_a_broken_rule_is_noticed_and_its_group_dropped(monkeypatch):
    linear = RULES["linear"]

    def forgets_the_bias(scene, node, inputs, weight, bias=None):
        return linear(scene, node, inputs, weight)

    monkeypatch.setitem(RULES, "linear", forgets_the_bias)
    config = CONFIGS["mlp"]
    with pytest.warns(ZooWarning, match="left out"):
        space = zoo.trace(build(config), example_input(config))
    assert space.groups == ()


def test_operator_without_a_rule_pins_and_is_reported():
    class Transforms(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.second(torch.fft.fft(self.first(x)).abs())

    space = zoo.trace(Transforms(), torch.zeros(2, 4))
    assert space.groups == ()
    assert [item.op for item in space.unsupported] == ["aten.fft_fft.default"]
    assert "torch.fft" in space.unsupported[0].source
    with pytest.raises(TraceError, match="aten.fft"):
        zoo.trace(Transforms(), torch.zeros(2, 4), strict=True)


def test_tied_weights_are_stored_once():
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False))
    module[2].weight = module[0].weight
    space = zoo.trace(module, torch.zeros(2, 3))
    assert space.tied == (("2.weight", "0.weight"),)
    assert space.num_parameters == 9
    assert set(space.state_dict(torch.zeros(9))) == {"0.weight", "2.weight"}


def test_data_dependent_control_flow_is_a_clear_error():
    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(TraceError, match="cannot capture Branches"):
        zoo.trace(Branches(), torch.ones(2, 2))


def test_complex_parameters_are_refused():
    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3, dtype=torch.complex64))

        def forward(self, x):
            return x * self.weight.real

    with pytest.raises(TraceError, match="'weight' with dtype torch.complex64"):
        zoo.trace(Complex(), torch.ones(2, 3))


def test_space_round_trips_through_json(traced):
    _, _, space = traced
    restored = zoo.WeightSpace.from_json(space.to_json())
    assert restored == space
    assert restored.fingerprint == space.fingerprint


def test_flatten_and_unflatten_are_inverse_and_share_memory(traced):
    module, _, space = traced
    vector = space.flatten(module.state_dict())
    tensors = space.unflatten(vector)
    assert torch.equal(space.flatten(tensors), vector)
    assert all(
        tensor.untyped_storage().data_ptr() == vector.data_ptr() for tensor in tensors.values()
    )
    batch = vector.expand(2, 3, -1)
    assert space.flatten(space.unflatten(batch)).shape == (2, 3, space.num_parameters)


def test_actions_form_a_group(traced):
    _, _, space = traced
    generator = torch.Generator().manual_seed(0)
    first, second = space.sample(generator), space.sample(generator)
    weights = random_weights(space, generator)
    assert torch.equal(first.compose(second)(weights), first(second(weights)))
    assert torch.equal(first.inverse()(first(weights)), weights)
    assert torch.equal(identity(space)(weights), weights)


def test_permutations_say_which_old_unit_comes_where():
    config = CONFIGS["mlp"]
    space = zoo.trace(build(config), example_input(config))
    weights = torch.arange(space.num_parameters)
    action = from_permutations(space, {"layers.1": torch.tensor([2, 0, 1])})
    before, after = space.unflatten(weights), space.unflatten(action(weights))
    assert torch.equal(after["layers.1.bias"], before["layers.1.bias"][[2, 0, 1]])
    assert torch.equal(after["layers.4.weight"], before["layers.4.weight"][:, [2, 0, 1]])
    assert torch.equal(after["layers.7.weight"], before["layers.7.weight"])


@pytest.mark.parametrize("free", [(), ("input", "output")])
def test_fields_partition_the_flat_vector(traced, free):
    _, _, space = traced
    index = torch.cat([torch.from_numpy(field.index.ravel()) for field in fields(space, free=free)])
    assert torch.equal(index.sort().values, torch.arange(space.num_parameters))


def test_actions_permute_fields_along_their_group_axes(traced):
    _, _, space = traced
    for group in space.groups:
        order = torch.randperm(group.size, generator=torch.Generator().manual_seed(3))
        action = from_permutations(space, {group.name: order})
        weights = torch.arange(space.num_parameters)
        for field in fields(space):
            expected = torch.from_numpy(field.index)
            for dim, name in enumerate(field.groups):
                if name == group.name:
                    expected = expected.index_select(dim, order)
            assert torch.equal(action(weights)[torch.from_numpy(field.index)], expected)


def test_wrong_weights_and_names_are_refused(traced):
    _, _, space = traced
    with pytest.raises(WeightSpaceMismatchError, match="Expected weights of shape"):
        space.unflatten(torch.zeros(space.num_parameters + 1))
    with pytest.raises(WeightSpaceMismatchError, match="Expected a tensor"):
        space.flatten({})
    first = space.tensors[0]
    state = space.unflatten(torch.zeros(space.num_parameters)) | {first.name: torch.zeros(1, 7)}
    with pytest.raises(WeightSpaceMismatchError, match="another network"):
        space.flatten(state)
    with pytest.raises(UnknownNameError, match="Known: "):
        space.group("nobody")
    with pytest.raises(WeightSpaceMismatchError, match="permutation of"):
        from_permutations(space, {space.groups[0].name: torch.tensor([0, 0])})


def test_explain_names_groups_and_pins():
    config = CONFIGS["cnn-flatten"]
    text = zoo.trace(build(config), example_input(config)).explain()
    assert "layers.3: 5 units move" in text
    assert "head.weight[1] (blocks of 16)" in text
    assert "pinned, outputs of the network (output[0].1): head.weight[0], head.bias[0]" in text


def test_irregular_positions_survive_the_round_trip():
    positions = torch.tensor([[0, 3], [7, 1], [5, 4]]).numpy()
    index = UnitIndex.from_array(positions)
    assert index.explicit == (0, 3, 7, 1, 5, 4)
    assert (index.array() == positions).all()
    group = NeuronGroup(name="g", size=3, touches=(Touch(tensor="t", dim=0, index=index),))
    space = dataclasses.replace(zoo.trace(nn.Linear(2, 2), torch.zeros(2, 2)), groups=(group,))
    assert zoo.WeightSpace.from_json(space.to_json()) == space


def test_a_call_that_the_rule_was_not_written_for_pins(monkeypatch):
    def of_another_version(scene, node, inputs):
        raise AssertionError("must not be called with a weight")

    monkeypatch.setitem(RULES, "linear", of_another_version)
    space = zoo.trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), torch.zeros(2, 2))
    assert space.groups == ()
    assert {item.op for item in space.unsupported} == {"aten.linear.default"}


def test_fingerprint_is_of_layout_and_relabellings(traced):
    _, _, space = traced
    assert dataclasses.replace(space, scalings=()).fingerprint == space.fingerprint
    assert dataclasses.replace(space, groups=()).fingerprint != space.fingerprint


def test_inert_tensors_are_named():
    module = nn.Sequential(nn.Conv1d(2, 3, 2), nn.InstanceNorm1d(3), nn.Flatten(), nn.Linear(15, 2))
    inputs = torch.zeros(2, 2, 6)
    space = zoo.trace(module, inputs, strict=True)
    assert inert_tensors(space, module, inputs) == ("0.bias",)


class Late(nn.Module):
    """Makes a parameter when it is first run."""

    def forward(self, x):
        if not hasattr(self, "weight"):
            self.weight = nn.Parameter(torch.ones(3))
        return x * self.weight


class Packed(nn.Module):
    """Carries weights that are no tensors, as quantised layers do."""

    def get_extra_state(self):
        return {"packed": 1}

    def set_extra_state(self, state):
        pass

    def forward(self, x):
        return x


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3).to_sparse())

    def forward(self, x):
        return torch.sparse.mm(self.weight, x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Late, "creates parameters in its forward: weight"),
        (Packed, "packed or quantised"),
        (Sparse, "layout torch.sparse_coo"),
        (lambda: nn.LazyLinear(3), "Run the module once first"),
        (lambda: nn.Linear(4, 2), "Check the example inputs"),
    ],
)
def test_modules_without_a_space_are_refused_in_a_sentence(make, message):
    with pytest.raises(TraceError, match=message):
        zoo.trace(make(), torch.ones(3, 3))
