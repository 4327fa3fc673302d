"""Scalings, signs and general linear blocks: equal to hand-written and to numerical null spaces."""

import copy
import dataclasses
import itertools

import pytest
import torch
from architectures import ARCHITECTURES
from architectures.attention import FusedAttention, SeparateAttention
from architectures.inputs import noise
from architectures.language import LENGTH, Causal, MultiQuery, Rotate
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

import zoo
from zoo.errors import UnknownNameError, WeightSpaceMismatchError, ZooWarning
from zoo.networks import CNNConfig, MLPConfig, SirenConfig, build, example_input
from zoo.symmetry import (
    from_factors,
    identity,
    mix,
    random_weights,
    sample_scale,
)
from zoo.symmetry.degrees import DEGREES
from zoo.symmetry.factors import random_matrices
from zoo.symmetry.forms import ANYTHING, ZERO, Echelon, Forms
from zoo.symmetry.verify import refuted_scalings

CONFIGS = {
    "relu": MLPConfig(in_features=4, hidden=(3, 5), out_features=2),
    "tanh": MLPConfig(in_features=4, hidden=(3, 5), out_features=2, activation="tanh"),
    "gelu": MLPConfig(in_features=4, hidden=(3, 5), out_features=2, activation="gelu"),
    "siren": SirenConfig(hidden=(5, 3)),
    "batch-norm": MLPConfig(in_features=4, hidden=(3,), out_features=2, batch_norm=True),
    "cnn-flatten": CNNConfig(
        in_channels=2, image_size=8, channels=(3, 5), stride=1, head="flatten", out_features=4
    ),
}


def traced(name):
    config = CONFIGS[name]
    return zoo.trace(build(config), example_input(config, batch=3), strict=True)


def powers(space, domain):
    """Per neuron group its scalings, each as ``{(tensor, dim): exponent}``."""
    found = {}
    for scaling in space.scalings:
        if scaling.domain == domain:
            exponents = {(e.tensor, e.dim): e.exponent for e in scaling.exponents}
            found.setdefault(scaling.group, []).append(exponents)
    return found


# ---- hand-written exponents -------------------------------------------------------------------
def test_relu_perceptron_scales_and_has_no_signs():
    space = traced("relu")
    first, second, third = ("layers.1", "layers.4", "layers.7")
    assert powers(space, "positive") == {
        first: [{(f"{first}.weight", 0): 1, (f"{first}.bias", 0): 1, (f"{second}.weight", 1): -1}],
        second: [
            {(f"{second}.weight", 0): 1, (f"{second}.bias", 0): 1, (f"{third}.weight", 1): -1}
        ],
    }
    assert powers(space, "sign") == {}


@pytest.mark.parametrize(("name", "layers"), [("tanh", "147"), ("siren", "012")])
def test_odd_activations_flip_signs_and_do_not_scale(name, layers):
    space = traced(name)
    first, second, third = (f"layers.{at}" for at in layers)
    assert powers(space, "positive") == {}
    assert powers(space, "sign") == {
        first: [{(f"{first}.weight", 0): 1, (f"{first}.bias", 0): 1, (f"{second}.weight", 1): 1}],
        second: [{(f"{second}.weight", 0): 1, (f"{second}.bias", 0): 1, (f"{third}.weight", 1): 1}],
    }


def test_gelu_has_neither():
    assert traced("gelu").scalings == ()


def test_flattened_channels_scale_with_all_their_columns():
    space = traced("cnn-flatten")
    (exponents,) = powers(space, "positive")["layers.3"]
    assert exponents == {("layers.3.weight", 0): 1, ("layers.3.bias", 0): 1, ("head.weight", 1): -1}
    assert all(e.slots is None for scaling in space.scalings for e in scaling.exponents)


def test_batch_norm_has_two_dimensions_and_its_statistics_take_part():
    space = traced("batch-norm")
    linear, norm, readers = "layers.1", "layers.2", ("layers.5.weight", 1)
    before = {(f"{linear}.weight", 0): 1, (f"{linear}.bias", 0): 1, (f"{norm}.running_mean", 0): 1}
    after = {(f"{norm}.weight", 0): 1, (f"{norm}.bias", 0): 1, readers: -1}
    assert powers(space, "positive") == {linear: [after, before | {(f"{norm}.weight", 0): -1}]}
    assert powers(space, "sign") == {linear: [before | {(f"{norm}.weight", 0): 1}]}


def test_heads_scale_queries_against_keys_and_values_against_readers():
    space = zoo.trace(*ARCHITECTURES["vit-separate"]()[:1], *ARCHITECTURES["vit-separate"]()[1])
    first = "blocks.0.attention"
    found = powers(space, "positive")
    inner = [f"{first}.q/units", f"{first}.q/units#2"]
    assert sorted((found[name] for name in inner), key=len) == [
        [{(f"{first}.q.weight", 0): 1, (f"{first}.q.bias", 0): 1,
          (f"{first}.k.weight", 0): -1, (f"{first}.k.bias", 0): -1}],
        [{(f"{first}.v.weight", 0): 1, (f"{first}.v.bias", 0): 1, (f"{first}.out.weight", 1): -1}],
    ]  # fmt: skip
    assert f"{first}.q" not in found  # a whole head adds nothing to its units
    gains = [scaling for scaling in found["patch"] if ("norm.weight", 0) in scaling]
    assert gains == [{("norm.weight", 0): 1, ("norm.bias", 0): 1, ("heads.0.weight", 1): -1}]


def test_parts_of_a_unit_may_scale_differently():
    """In a gated unit only the value does, in a cell only the new content flips its sign."""
    space = zoo.trace(ARCHITECTURES["gpt-rms-norm-swiglu"]()[0], *ARCHITECTURES["gpt-tied"]()[1])
    up, down = space.scaling("layers.1.up/scale").exponents
    assert (up.tensor, up.slots, up.exponent) == ("layers.1.up.weight", (1,), 1)
    assert (down.tensor, down.slots, down.exponent) == ("layers.1.down.weight", None, -1)
    module, inputs = ARCHITECTURES["lstm-attention-pooling"]()
    space = zoo.trace(module, *inputs)
    lstm = next(s for s in space.scalings if "weight_hh" in str(s))
    assert {(e.dim, e.slots) for e in lstm.exponents if "weight_hh" in e.tensor} == {
        (0, (2,)), (1, None),
    }  # fmt: skip


class Between(nn.Module):
    """A function of five hidden units, between two linear layers."""

    def __init__(self, function):
        super().__init__()
        self.first, self.second, self.function = nn.Linear(3, 5), nn.Linear(5, 2), function

    def forward(self, x):
        return self.second(self.function(self.first(x)))


ROWS = torch.tensor([[True], [False], [True], [True]])
MIXING = noise(4, 4)
FUNCTIONS = {  # of hidden [4, 5], and the dimensions of factors and signs that it leaves
    "clamp-min": (lambda h: h.clamp(min=0), 1, 0),
    "clamp-max": (lambda h: h.clamp_max(0), 1, 0),
    "clamp": (lambda h: h.clamp(-1, 1), 0, 1),
    "clamp-skewed": (lambda h: h.clamp(-1, 2), 0, 0),
    "hardtanh": (F.hardtanh, 0, 1),
    "relu6": (F.relu6, 0, 0),
    "root": (lambda h: h.abs().sqrt(), 1, 1),
    "inverse-root": (lambda h: h.abs().rsqrt(), 1, 1),
    "square": (torch.square, 1, 1),
    "cube": (lambda h: h**3, 1, 1),
    "own-product": (lambda h: h * h, 1, 1),
    "reciprocal": (torch.reciprocal, 1, 1),
    "softsign": (lambda h: h / (h.abs() + 1), 0, 1),
    "cosine": (torch.cos, 0, 1),
    "erf": (torch.erf, 0, 1),
    "arctangent": (torch.atan, 0, 1),
    "sign": (torch.sign, 1, 1),
    "minimum": (lambda h: torch.minimum(h, 2 * h), 1, 0),
    "where": (lambda h: torch.where(ROWS, h, torch.tensor(0.0, dtype=h.dtype)), 1, 1),
    "masked-zero": (lambda h: h.masked_fill(ROWS, 0.0), 1, 1),
    "masked-one": (lambda h: h.masked_fill(ROWS, 1.0), 0, 0),
    "masked-infinity": (lambda h: h.masked_fill(ROWS, -torch.inf).amax(0, keepdim=True), 1, 0),
    "prelu": (lambda h: F.prelu(h, torch.tensor([0.2], dtype=h.dtype)), 1, 0),
    "plus-one": (lambda h: h + 1, 0, 0),
    "one-minus": (lambda h: 1 - h, 0, 0),
    "centred": (lambda h: h - h.mean(0), 1, 1),
    "addcmul": (lambda h: torch.addcmul(h, h, torch.full_like(h, 2)), 1, 1),
    "lerp": (lambda h: torch.lerp(h, h.abs(), 0.3), 1, 0),
    "cumulative": (lambda h: h.cumsum(0), 1, 1),
    "variance": (lambda h: h.var(0, keepdim=True), 1, 1),
    "deviation": (lambda h: h.std(0, keepdim=True).expand_as(h), 1, 1),
    "norm": (lambda h: torch.linalg.vector_norm(h, dim=0, keepdim=True), 1, 1),
    "normalised": (lambda h: F.normalize(h, dim=0), 0, 1),
    "max-pool": (lambda h: F.max_pool1d(h.T[None], 2)[0].T, 1, 0),
    "mean-pool": (lambda h: F.avg_pool1d(h.T[None], 2)[0].T, 1, 1),
    "upsampled": (lambda h: F.interpolate(h.T[None], scale_factor=2, mode="linear")[0].T, 1, 1),
    "padded": (lambda h: F.pad(h, (0, 0, 1, 2)), 1, 1),
    "padded-with-ones": (lambda h: F.pad(h, (0, 0, 1, 2), value=1.0), 0, 0),
    "flipped": (lambda h: h.flip(0), 1, 1),
    "rolled": (lambda h: h.roll(1, 0), 1, 1),
    "chunks": (lambda h: torch.cat(h.chunk(2)[::-1]), 1, 1),
    "stacked": (lambda h: torch.stack([h, -h]).sum(1), 1, 1),
    "two-parts": (lambda h: torch.cat([h, h.tanh()]), 0, 1),
    "repeated": (lambda h: h.repeat(2, 1).repeat_interleave(2, 0), 1, 1),
    "indexed": (lambda h: h[torch.tensor([2, 0, 0])], 1, 1),
    "selected": (lambda h: h.index_select(0, torch.tensor([2, 0, 0])), 1, 1),
    "mixed-rows": (lambda h: MIXING.to(h) @ h, 1, 1),
    "rectangle": (lambda h: h[:, :, None].expand(4, 5, 3).flatten(1).unflatten(1, (5, 3)).sum(2),
                  1, 1),
    "instance-norm": (lambda h: F.instance_norm(h.T[None])[0].T, 0, 1),
    "group-norm": (lambda h: F.group_norm(h.T[None], 5)[0].T, 0, 1),
    "layer-norm": (lambda h: F.layer_norm(h, (5,)), 0, 0),
    "rms-norm": (lambda h: F.rms_norm(h, (5,)), 0, 1),
    "softmax": (lambda h: h.softmax(1), 0, 0),
    "by-largest": (lambda h: h / h.abs().amax(1, keepdim=True), 0, 1),
    "zeroed": (lambda h: h + torch.zeros_like(h).exp(), 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_pass_on_what_they_should(name):
    """What is found is verified on numbers; what is not must be known to be absent."""
    function, factors, signs = FUNCTIONS[name]
    space = zoo.trace(Between(function), noise(4, 3))
    found = [len(powers(space, domain).get("first", [])) for domain in ("positive", "sign")]
    assert found == [factors, signs]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_convolutions_of_every_rank(rank):
    transposed = getattr(nn, f"ConvTranspose{rank}d")(3, 5, 2)
    module = nn.Sequential(transposed, nn.ReLU(), getattr(nn, f"Conv{rank}d")(5, 2, 1))
    space = zoo.trace(module, noise(2, 3, *[3] * rank))
    assert powers(space, "positive") == {
        "0": [{("0.weight", 1): 1, ("0.bias", 0): 1, ("2.weight", 1): -1}]
    }


@pytest.mark.parametrize(("nonlinearity", "counts"), [("relu", [1, 0]), ("tanh", [0, 1])])
def test_recurrent_cells(nonlinearity, counts):
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.RNNCell(3, 5, nonlinearity=nonlinearity)
            self.head = nn.Linear(5, 2)

        def forward(self, x):
            hidden = self.cell(x[0])
            return self.head(self.cell(x[1], hidden))

    space = zoo.trace(Steps(), noise(2, 4, 3))
    assert [len(powers(space, domain)) for domain in ("positive", "sign")] == counts
    if nonlinearity == "relu":
        (exponents,) = powers(space, "positive")["cell"]
        assert exponents["cell.weight_hh", 0] == 1
        assert exponents["cell.weight_hh", 1] == -1


# ---- acting -----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["relu", "siren", "batch-norm", "cnn-flatten"])
def test_scaled_weights_compute_the_same_function(name):
    config = CONFIGS[name]
    module, space = build(config).double().eval(), traced(name)
    generator = torch.Generator().manual_seed(0)
    weights = random_weights(space, generator)
    inputs = torch.randn(example_input(config, batch=5).shape, dtype=torch.float64)
    action = space.sample(generator).compose(sample_scale(space, generator, log_std=1.0))

    def outputs(vector):
        return torch.func.functional_call(module, space.state_dict(vector), inputs)

    assert not torch.allclose(action(weights), space.sample(generator)(weights))
    torch.testing.assert_close(outputs(action(weights)), outputs(weights), rtol=1e-9, atol=1e-9)


def test_factors_multiply_rows_and_divide_columns():
    space = traced("relu")
    factors = torch.tensor([2.0, 4.0, 8.0])
    weights = random_weights(space, torch.Generator().manual_seed(0))
    before = space.unflatten(weights)
    after = space.unflatten(from_factors(space, {"layers.1/scale": factors})(weights))
    assert torch.equal(after["layers.1.weight"], before["layers.1.weight"] * factors[:, None])
    assert torch.equal(after["layers.4.weight"], before["layers.4.weight"] / factors)
    assert torch.equal(after["layers.7.weight"], before["layers.7.weight"])


def test_scalings_and_permutations_form_a_group():
    space = traced("batch-norm")
    generator = torch.Generator().manual_seed(1)
    first, second = (
        space.sample(generator).compose(sample_scale(space, generator)) for _ in range(2)
    )
    weights = random_weights(space, generator)
    close = torch.testing.assert_close
    close(first.compose(second)(weights), first(second(weights)))
    close(second.compose(first)(weights), second(first(weights)))
    close(first.inverse()(first(weights)), weights)
    close(first.compose(first.inverse())(weights), weights)
    close(identity(space).compose(first)(weights), first(weights))
    plain = space.sample(generator)
    close(plain.compose(first).inverse()(plain(first(weights))), weights)


def test_factors_may_differ_from_member_to_member():
    space = traced("relu")
    generator = torch.Generator().manual_seed(0)
    factors = torch.rand(7, 5, generator=generator) + 0.5
    weights = random_weights(space, generator).expand(7, -1)
    together = from_factors(space, {"layers.4/scale": factors})(weights)
    for member in range(7):
        alone = from_factors(space, {"layers.4/scale": factors[member]})(weights[member])
        assert torch.equal(together[member], alone)
    assert together.float().dtype == torch.float32


def test_nested_factors_are_given_per_copy():
    module, inputs = ARCHITECTURES["soft-experts"]()
    space = zoo.trace(module, *inputs)
    (scaling,) = [one for one in space.scalings if one.domain == "positive"]
    group = space.group(scaling.group)
    assert (group.copies, group.size) == (3, 5)
    factors = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)).double() + 0.5
    weights = torch.ones(space.num_parameters, dtype=torch.float64)
    after = space.unflatten(from_factors(space, {scaling.name: factors})(weights))
    assert torch.equal(after["up_bias"], factors)
    assert torch.equal(after["up"], factors[:, None, :].expand(3, 4, 5))
    assert torch.equal(after["down"], (1 / factors)[:, :, None].expand(3, 5, 2))


def test_wrong_factors_are_refused():
    space = traced("relu")
    with pytest.raises(WeightSpaceMismatchError, match="positive factors of shape"):
        from_factors(space, {"layers.1/scale": torch.tensor([1.0, -1.0, 1.0])})
    with pytest.raises(WeightSpaceMismatchError, match="positive factors of shape"):
        from_factors(space, {"layers.1/scale": torch.ones(4)})
    with pytest.raises(UnknownNameError, match="Known: "):
        from_factors(space, {"layers.1": torch.ones(3)})
    with pytest.raises(WeightSpaceMismatchError, match="1 or -1"):
        from_factors(traced("tanh"), {"layers.1/sign": torch.tensor([1.0, 2.0, 1.0])})


def test_a_wrong_degree_is_noticed_and_its_scalings_dropped(monkeypatch):
    monkeypatch.setitem(DEGREES, "gelu", lambda run, node, x, **_: x.form)
    config = CONFIGS["gelu"]
    with pytest.warns(ZooWarning, match="layers.1/scale.*left out"):
        space = zoo.trace(build(config), example_input(config))
    assert space.scalings == ()
    assert [group.name for group in space.groups] == ["layers.1", "layers.4"]


def test_leaving_out_any_exponent_changes_the_function():
    for name in ("relu", "siren", "batch-norm", "cnn-flatten"):
        config, space = CONFIGS[name], traced(name)
        for number, scaling in enumerate(space.scalings):
            for left_out in scaling.exponents:
                kept = tuple(each for each in scaling.exponents if each != left_out)
                scalings = list(space.scalings)
                scalings[number] = dataclasses.replace(scaling, exponents=kept)
                wrong = dataclasses.replace(space, scalings=tuple(scalings))
                inputs = example_input(config, batch=3)
                assert refuted_scalings(wrong, build(config), inputs) == (scaling.name,)


def test_spaces_with_scalings_round_trip_through_json_and_explain_them():
    space = zoo.trace(SeparateAttention(5, 2, 3), noise(2, 6, 5))
    assert space.scalings
    assert space.gl_blocks
    assert zoo.WeightSpace.from_json(space.to_json()) == space
    assert "v.weight[0] ^+1, v.bias[0] ^+1, out.weight[1] ^-1" in space.explain()
    assert "(qk): 2 times any invertible matrix of 3 x 3 mixes the units" in space.explain()
    plain = dataclasses.replace(space, scalings=(), gl_blocks=())
    assert "scalings" not in plain.to_json()
    assert zoo.WeightSpace.from_json(plain.to_json()) == plain


# ---- against numbers --------------------------------------------------------------------------
class WrittenOut(TorchFunctionMode):
    """Batch normalisation by its formula: torch gives no derivatives by running statistics."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is not nn.functional.batch_norm or kwargs["training"]:
            return func(*args, **kwargs)
        x, mean, variance = args
        shape = [-1 if dim == 1 else 1 for dim in range(x.ndim)]
        output = (x - mean.view(shape)) / (variance.view(shape) + kwargs["eps"]).sqrt()
        if kwargs["weight"] is not None:
            output = output * kwargs["weight"].view(shape) + kwargs["bias"].view(shape)
        return output


def jacobian(space, module, inputs, *, seed, num_inputs, num_outputs):
    """Random weights ``[P]`` and derivatives of random outputs by them, ``[outputs, P]``."""
    generator = torch.Generator().manual_seed(seed)
    network = copy.deepcopy(module).double().eval()
    weights = random_weights(space, generator).requires_grad_()
    rows = []

    def randomised(x):
        return torch.randn(x.shape, generator=generator).double() if x.is_floating_point() else x

    for _ in range(num_inputs):
        arguments = pytree.tree_map_only(torch.Tensor, randomised, inputs)
        with WrittenOut():
            found = torch.func.functional_call(
                network, space.state_dict(weights), arguments, tie_weights=False
            )
        outputs = torch.cat([leaf.ravel() for leaf in pytree.tree_leaves(found)])
        for at in torch.randperm(len(outputs), generator=generator)[:num_outputs]:
            rows.append(torch.autograd.grad(outputs[at], weights, retain_graph=True)[0])
    return weights.detach(), torch.stack(rows)


def masks(space, group):
    """Entries of the first unit of the first copy, per axis and position, each ``[P]``."""
    for touch in group.touches:
        tensor = space.tensor(touch.tensor)
        for position in touch.index.array()[0].tolist():
            entries = [slice(None)] * len(tensor.shape)
            entries[touch.dim] = position
            if touch.rows is not None:
                entries[touch.rows_dim] = touch.rows.array()[0].tolist()
            mask = torch.zeros(tensor.shape, dtype=torch.float64)
            mask[tuple(entries)] = 1
            full = torch.zeros(space.num_parameters, dtype=torch.float64)
            first = space.offsets[touch.tensor]
            full[first : first + tensor.numel] = mask.ravel()
            yield full


def nullity(matrix):
    """Columns minus rank; rows and columns are brought to length one first.

    Rows that are rounding alone (a first token attends to nothing else) say nothing.
    """
    lengths = matrix.norm(dim=1)
    matrix = matrix[lengths > 1e-12 * lengths.max()]
    matrix = matrix / matrix.norm(dim=1, keepdim=True)
    norms = matrix.norm(dim=0)
    kept = matrix[:, norms > 1e-10] / norms[norms > 1e-10]
    return matrix.shape[1] - int((torch.linalg.svdvals(kept) > 1e-7).sum())


def numerical_dimension(space, group, derivatives):
    """Dimension of the exponents that fit all weights at once.

    One weight vector has directions of its own (a bias before batch normalisation may be exchanged
    for its mean), and units that are dead.
    """
    columns = [
        torch.stack([rows @ (weights * mask) for mask in masks(space, group)], dim=1)
        for weights, rows in derivatives
    ]
    return nullity(torch.cat(columns))


NULL_SPACES = {
    "mlp-relu": {}, "mlp-tanh": {}, "mlp-batch-norm": {}, "siren": {}, "nerf": {}, "vae": {},
    "residual-mlp": {}, "maxout": {}, "gated-mlp": {}, "small-cnn": {}, "lenet": {},
    "vgg-group-norm": {}, "unet": {}, "conv-autoencoder": {}, "pixel-shuffle": {},
    "gpt-rms-norm-swiglu": {}, "mlp-mixer": {}, "low-rank": {}, "weight-norm": {}, "rnn-relu": {},
    "gru": {}, "hypernetwork": {}, "soft-experts": {}, "deep-sets": {}, "mobilenet-v3": {},
    # a bias before a normalisation is inert
    "style-transfer": {"conv1": 1, "conv2": 1},
    # the bias of the keys is inert
    "vit-separate": {"blocks.0.attention.q/units": 1, "blocks.1.attention.q/units": 1},
    "vit-fused": {"blocks.0.attention.qkv/units": 1, "blocks.1.attention.qkv/units": 1},
    "gpt-grouped-query": {"layers.0.q/units": 1},
}  # fmt: skip
"""Architectures, and by how much the numbers exceed the rules in which groups."""


@pytest.mark.parametrize("name", NULL_SPACES)
def test_dimensions_equal_the_numerical_null_space(name):
    torch.manual_seed(0)
    module, inputs = ARCHITECTURES[name]()
    space = zoo.trace(module, *inputs)
    derivatives = [
        jacobian(space, module, inputs, seed=seed, num_inputs=2, num_outputs=9)
        for seed in range(16)
    ]
    outer = {group.parent for group in space.groups}  # their factors are those of their units
    found, expected = {}, {}
    for group in space.groups:
        if group.name not in outer:
            found[group.name] = numerical_dimension(space, group, derivatives)
            by_rule = sum(s.group == group.name and s.domain == "positive" for s in space.scalings)
            expected[group.name] = by_rule + NULL_SPACES[name].get(group.name, 0)
    assert found == expected


@pytest.mark.parametrize(
    "name", ["mlp-relu", "mlp-tanh", "mlp-batch-norm", "siren", "euler-steps", "rnn-tanh", "vae"]
)
def test_number_of_sign_patterns_equals_a_brute_force_count(name):
    torch.manual_seed(0)
    module, inputs = ARCHITECTURES[name]()
    space = zoo.trace(module, *inputs)
    network = copy.deepcopy(module).double().eval()
    generator = torch.Generator().manual_seed(0)
    draws = [random_weights(space, generator) for _ in range(4)]
    arguments = [
        [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in inputs]
        for _ in draws
    ]

    @torch.no_grad()
    def outputs(vector, args):
        found = torch.func.functional_call(network, space.state_dict(vector), tuple(args))
        return torch.cat([leaf.ravel() for leaf in pytree.tree_leaves(found)])

    before = [outputs(*pair) for pair in zip(draws, arguments, strict=True)]
    for group in space.groups:
        units = list(masks(space, group))
        if len(units) > 7:
            continue
        count = 0
        for flips in itertools.product([0, 1], repeat=len(units)):
            sign = torch.stack([1 - 2 * b * u for b, u in zip(flips, units, strict=True)]).prod(0)
            count += all(
                torch.allclose(outputs(w * sign, args), old, rtol=0, atol=1e-10)
                for w, args, old in zip(draws, arguments, before, strict=True)
            )
        by_rule = sum(s.group == group.name and s.domain == "sign" for s in space.scalings)
        assert count == 2**by_rule, group.name


# ---- general linear blocks --------------------------------------------------------------------
def attention_after_perceptron():
    head = [nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 5)]
    return nn.Sequential(*head, SeparateAttention(5, 2, 3))


TINY = {
    # per head 9 for queries and keys and 9 for values; key biases are inert (6), value biases may
    # be moved to the bias behind (6)
    "separate": (lambda: SeparateAttention(5, 2, 3), 2 * 9 + 2 * 9, 6 + 6),
    "fused": (lambda: FusedAttention(5, 2, 3), 2 * 9 + 2 * 9, 6 + 6),
    "grouped-query": (lambda: Causal(5, 4, 2, groups=2), 2 * 4 + 2 * 4, 0),
    "multi-query": (lambda: MultiQuery(5, 3, 2), 4 + 4, 2 + 2),
    # a pair of rotary features may be stretched (found: 2 heads of 2 pairs) and turned (not found)
    "rotary": (lambda: Causal(5, 2, 4, adapt=Rotate), 2 * 16 + 2 * 2, 2 * 2),
    # also the 5 units between perceptron and attention, whose bias may be moved behind (5), and the
    # 7 factors of the ReLU
    "perceptron-and-attention": (attention_after_perceptron, 18 + 18 + 25 + 7, 6 + 6 + 5),
    # the streams before and behind, whose biases may be moved, too
    "between-linear-layers": (
        lambda: nn.Sequential(nn.Linear(5, 4), SeparateAttention(4, 2, 2), nn.Linear(4, 6)),
        8 + 8 + 16 + 16,
        4 + 4 + 4 + 4,
    ),
    "bottleneck": (lambda: nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 4)), 9, 3),
}
"""A network of 5 inputs, continuous dimensions in the space, further ones that no group has."""


@pytest.mark.parametrize("name", TINY)
def test_continuous_dimensions_equal_parameters_minus_jacobian_rank(name):
    torch.manual_seed(0)
    make, in_space, further = TINY[name]
    module, inputs = make(), (noise(2, LENGTH, 5),)
    space = zoo.trace(module, *inputs)
    mixed = {block.group for block in space.gl_blocks}
    predicted = sum(block.copies * block.size**2 for block in space.gl_blocks)
    for scaling in space.scalings:
        group = space.group(scaling.group)
        if scaling.domain == "positive" and group.name not in mixed:
            predicted += group.copies * group.size
    assert predicted == in_space
    _, rows = jacobian(space, module, inputs, seed=0, num_inputs=12, num_outputs=40)
    assert len(rows) > 1.5 * space.num_parameters
    assert nullity(rows) == predicted + further


def test_kinds_of_blocks():
    space = zoo.trace(attention_after_perceptron(), noise(2, 6, 5))
    assert {(b.kind, b.copies, b.size, b.tensors) for b in space.gl_blocks} == {
        ("qk", 2, 3, ("3.q.weight", "3.q.bias", "3.k.weight", "3.k.bias")),
        ("vo", 2, 3, ("3.v.weight", "3.v.bias", "3.out.weight")),
        ("linear", 1, 5, ("2.weight", "2.bias", "3.q.weight", "3.k.weight", "3.v.weight")),
    }


@pytest.mark.parametrize(
    "name", ["gpt-qk-norm", "gpt-rotary", "gpt-grouped-query", "soft-experts", "mlp-relu"]
)
def test_norms_positions_and_nonlinearities_leave_no_block(name):
    module, inputs = ARCHITECTURES[name]()
    kinds = {block.kind for block in zoo.trace(module, *inputs).gl_blocks}
    expected = {"gpt-qk-norm": {"vo"}, "gpt-rotary": {"vo"}, "gpt-grouped-query": {"vo", "qk"}}
    assert kinds == expected.get(name, set())


def test_mixing_units_keeps_the_function():
    module, inputs = FusedAttention(5, 2, 3).double(), noise(2, 6, 5).double()
    space = zoo.trace(module, inputs)
    generator = torch.Generator().manual_seed(0)
    weights = random_weights(space, generator)
    before = torch.func.functional_call(module, space.state_dict(weights), inputs)
    for block in space.gl_blocks:
        moved = mix(space, block, random_matrices(block, generator), weights)
        assert not torch.allclose(moved, weights)
        after = torch.func.functional_call(module, space.state_dict(moved), inputs)
        torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)
        wrong = dataclasses.replace(block, exponents=block.exponents[1:])
        moved = mix(space, wrong, random_matrices(block, generator), weights)
        after = torch.func.functional_call(module, space.state_dict(moved), inputs)
        assert float((after - before).abs().max()) > 1e-3


# ---- algebra ----------------------------------------------------------------------------------
def test_forms_add_agree_and_vanish():
    forms = Forms()
    a, b = (torch.tensor([[forms.unknown()]]).numpy() for _ in range(2))
    total = forms.add(a, a, b)
    assert forms.scale(total, 0).item() == ZERO
    assert forms.add(total, a * 0 + ANYTHING).item() == ANYTHING
    assert forms.equal(total, a * 0 + ANYTHING).item() == total.item()
    forms.vanish(total)
    assert forms.solutions() == [[1, -2]]
    forms.equal(a, b)
    assert forms.solutions() == []


def test_null_spaces_over_both_fields():
    rows = [{0: 1, 1: 1, 2: 1}, {0: 2, 1: 2, 2: 2}, {1: 3, 3: -2}]
    rational, binary = Echelon(), Echelon(modulus=2)
    from fractions import Fraction

    independent = [
        [one.insert({k: Fraction(v) for k, v in row.items()}) for row in rows]
        for one in (rational, binary)
    ]
    assert independent == [[True, False, True], [True, False, True]]
    assert rational.null_space(4) == [[1, 0, -1, 0], [2, -2, 0, -3]]
    assert binary.null_space(4) == [[1, 0, 1, 0], [0, 0, 0, 1]]
