"""Each kernel against torch in float64, through the one checked way that leads to them."""

from dataclasses import replace
from functools import cache

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import zoo
from data_gen.engines.graph import capture
from data_gen.engines.native import NoKernelError, load_kernels
from data_gen.engines.native.layout import lay_out
from data_gen.engines.native.lowering import lower
from data_gen.engines.operators import EXAMPLE_BATCH
from zoo.errors import InvalidConfigError

load_kernels()

from data_gen.engines.native.network import Lesson, Memory, Task  # noqa: E402 - compiles on import
from data_gen.engines.native.tile import address, contract  # noqa: E402

_SAMPLES = 13


class _Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self._function = function

    def forward(self, x):
        return self._function(x)


class _Residual(nn.Module):
    """Skips before and after an activation, norms of groups and layers, means over positions."""

    def __init__(self, *, early):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.last_norm = nn.GroupNorm(3, 6), nn.LayerNorm(4)
        self.head, self._early = nn.Linear(6, 4), early

    def forward(self, x):
        kept = self.norm(self.first(x))
        active = torch.relu(kept)
        hidden = (kept if self._early else active) + functional.gelu(self.second(active))
        pooled = functional.avg_pool2d(0.5 * hidden - 1, 2).mean((2, 3))
        return self.last_norm(self.head(pooled))


def _net(*layers):
    return nn.Sequential(*layers)


_MODULES = {
    "linear": (_net(nn.Linear(5, 3)), (5,)),
    "no bias": (
        _net(nn.Linear(5, 3, bias=False), nn.Tanh(), nn.Linear(3, 2, bias=False)),
        (5,),
    ),
    "wide": (_net(nn.Linear(21, 37), nn.ReLU(), nn.Linear(37, 19)), (21,)),
    "sine": (_net(nn.Linear(2, 5), _Function(lambda x: torch.sin(7 * x)), nn.Linear(5, 3)), (2,)),
    "cosine": (_net(nn.Linear(2, 5), _Function(torch.cos), nn.Linear(5, 3)), (2,)),
    "strides": (
        _net(
            nn.Conv2d(2, 5, 3, stride=2),
            nn.Sigmoid(),
            nn.Conv2d(5, 9, 2, padding=1),
            nn.ELU(0.7),
            nn.Conv2d(9, 3, 1, stride=3),
            nn.Softplus(),
            nn.Flatten(),
            nn.Linear(12, 3),
            nn.LeakyReLU(0.1),
            nn.Linear(3, 2),
        ),
        (2, 11, 9),
    ),
    "oblong": (
        _net(
            nn.Conv2d(3, 5, (3, 2), stride=(2, 3), padding=(0, 1)),
            nn.GELU("tanh"),
            nn.Conv2d(5, 3, (1, 4), stride=(1, 2), padding=(1, 2), bias=False),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d((2, 1)),
            nn.Flatten(),
            nn.Linear(6, 2),
        ),
        (3, 9, 10),
    ),
    "kernel below stride": (
        _net(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 2, stride=3), nn.Flatten()),
        (2, 4, 7),
    ),
    "pools": (
        _net(
            nn.MaxPool2d(2, stride=1),
            nn.Conv2d(2, 10, 3, padding=2),
            nn.MaxPool2d((3, 2), stride=(2, 1), padding=1),
            nn.ReLU(),
            nn.AvgPool2d(2, stride=1, padding=1),
            nn.Flatten(),
            nn.Linear(500, 3),
        ),
        (2, 6, 7),
    ),
    "layer norm of images": (
        _net(nn.Conv2d(1, 3, 2), nn.LayerNorm((3, 4, 5)), nn.Flatten(), nn.Linear(60, 2)),
        (1, 5, 6),
    ),
    "residual": (_Residual(early=False), (2, 6, 5)),
    "residual before the activation": (_Residual(early=True), (2, 6, 5)),
}
_EACH = pytest.mark.parametrize("name", _MODULES)


def _compile(module, shape, **options):
    space = zoo.trace(module, torch.zeros(2, *shape))
    program = capture(module, torch.zeros(EXAMPLE_BATCH, *shape), training=True)
    return space, lay_out(lower(program, space, shape), space, **options)


@cache
def _compiled(name, samples_per_pass):
    return _compile(*_MODULES[name], samples_per_pass=samples_per_pass)


def _prepared(name, *, samples_per_pass=None):
    """Return a module with random weights, its space, its memory, and samples."""
    module, shape = _MODULES[name]
    space, network = _compiled(name, samples_per_pass)
    torch.manual_seed(len(name))
    vector = torch.randn(space.num_parameters) * 0.4
    module.load_state_dict(space.state_dict(vector))
    memory = Memory(network)
    memory.load(vector.numpy())
    return module, space, memory, torch.randn(_SAMPLES, *shape)


def _lesson(memory, inputs, targets, **task):
    return Lesson(memory.network, inputs.numpy(), targets.numpy(), Task(**task))


def _autograd(module, space, inputs, targets, loss):
    module.zero_grad()
    outputs = module(inputs)
    value = loss(outputs, targets)
    value.backward()
    slopes = {key: parameter.grad.clone() for key, parameter in module.named_parameters()}
    return outputs.detach().numpy(), value.item(), space.flatten(slopes).numpy()


def _reference(module, space, inputs, targets, loss):
    """Compute outputs, loss and gradient in float64; also how far torch's float32 is from them."""
    plain = _autograd(module, space, inputs, targets, loss)
    exact = targets.double() if targets.is_floating_point() else targets
    wanted = _autograd(module.double(), space, inputs.double(), exact, loss)
    module.float()
    return *wanted, np.abs(plain[2] - wanted[2]).max() / np.abs(wanted[2]).max()


def _assert_near(found, wanted, part=1e-6):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=part * np.abs(wanted).max())


# ---- outputs and gradients ----------------------------------------------------------------------
@_EACH
def test_outputs_and_gradients_equal_autograd(name):
    module, space, memory, inputs = _prepared(name)
    classes = torch.randint(0, memory.network.num_outputs, (_SAMPLES,))
    outputs, loss, gradient, error = _reference(
        module, space, inputs, classes, functional.cross_entropy
    )
    _assert_near(memory.outputs(inputs.numpy()), outputs)
    found, slopes = memory.gradient(_lesson(memory, inputs, classes))
    assert found == pytest.approx(loss, rel=1e-6)
    _assert_near(slopes, gradient, 1e-6 + 3 * error)


@pytest.mark.parametrize(
    ("loss", "function"),
    [
        ("squared_error", functional.mse_loss),
        ("binary_cross_entropy", functional.binary_cross_entropy_with_logits),
    ],
)
def test_other_losses_equal_autograd(loss, function):
    module, space, memory, inputs = _prepared("wide")
    inputs *= 3
    targets = torch.rand(_SAMPLES, 19)
    _, value, gradient, _ = _reference(module, space, inputs, targets, function)
    found, slopes = memory.gradient(_lesson(memory, inputs, targets, loss=loss))
    assert found == pytest.approx(value, rel=1e-6)
    _assert_near(slopes, gradient)


def test_temperature_divides_logits():
    module, space, memory, inputs = _prepared("linear")
    classes = torch.randint(0, 3, (_SAMPLES,))

    def loss(outputs, targets):
        return functional.cross_entropy(outputs / 0.3, targets)

    _, value, gradient, _ = _reference(module, space, inputs, classes, loss)
    found, slopes = memory.gradient(_lesson(memory, inputs, classes, temperature=0.3))
    assert found == pytest.approx(value, rel=1e-6)
    _assert_near(slopes, gradient)


@pytest.mark.parametrize("name", ["wide", "strides", "pools", "residual"])
def test_samples_that_go_together_change_no_number(name):
    _, _, memory, inputs = _prepared(name)
    classes = torch.zeros(_SAMPLES, dtype=torch.int64)
    whole = memory.gradient(_lesson(memory, inputs, classes))
    for count in (1, 5):
        _, _, other, _ = _prepared(name, samples_per_pass=count)
        loss, slopes = other.gradient(_lesson(other, inputs, classes))
        assert loss == pytest.approx(whole[0], rel=1e-12)
        np.testing.assert_array_equal(slopes, whole[1])


def test_the_place_of_a_sample_in_a_batch_does_not_matter():
    _, _, memory, inputs = _prepared("strides")
    whole = memory.outputs(inputs.numpy())
    for sample in (0, 7, 12):
        alone = memory.outputs(inputs[sample : sample + 1].numpy())
        np.testing.assert_array_equal(alone[0], whole[sample])


def test_infinite_numbers_show():
    _, _, memory, inputs = _prepared("pools")
    inputs[3, 1, 2, 2] = torch.nan
    outputs = memory.outputs(inputs.numpy())
    assert np.isnan(outputs[3]).all()
    assert np.isfinite(np.delete(outputs, 3, axis=0)).all()


# ---- training -----------------------------------------------------------------------------------
_RULES = {
    "sgd": lambda own, rate: torch.optim.SGD(own, rate, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda own, rate: torch.optim.SGD(
        own, rate, momentum=0.9, weight_decay=0.01, nesterov=True
    ),
    "adam": lambda own, rate: torch.optim.Adam(own, rate, weight_decay=0.01),
    "adamw": lambda own, rate: torch.optim.AdamW(own, rate, weight_decay=0.01),
    "rmsprop": lambda own, rate: torch.optim.RMSprop(own, rate, weight_decay=0.01),
}


@pytest.mark.parametrize("clip_norm", [0.0, 0.05])
@pytest.mark.parametrize("rule", _RULES)
def test_steps_equal_torch_optim(rule, clip_norm):
    module, space, memory, inputs = _prepared("wide")
    classes = torch.randint(0, 19, (_SAMPLES,))
    batches = np.array([[0, 5, 3], [7, 1, 2], [12, 4, 6], [3, 3, 0]])
    rates = np.array([0.01, 0.02, 0.005, 0.01])
    twin = module.double()
    optimizer = _RULES[rule](twin.parameters(), 0.01)
    for batch, rate in zip(batches, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        functional.cross_entropy(twin(inputs[batch].double()), classes[batch]).backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(twin.parameters(), clip_norm)
        optimizer.step()
    wanted = space.flatten(twin.state_dict()).detach().numpy()
    module.float()
    lesson = _lesson(
        memory, inputs, classes, rule=rule, momentum=0.9, weight_decay=0.01, clip_norm=clip_norm
    )
    for part in (slice(0, 1), slice(1, 4)):
        memory.train(lesson, batches[part], rates[part])
    _assert_near(memory.weights, wanted, 1e-5)


def test_weight_decay_may_be_left_out():
    _, _, memory, inputs = _prepared("linear")
    classes, before = torch.zeros(_SAMPLES, dtype=torch.int64), memory.weights
    results = []
    for decay in (None, 0.0, 0.1):
        memory.load(before)
        lesson = _lesson(memory, inputs, classes, rule="adamw", weight_decay=decay)
        memory.train(lesson, np.array([[0, 1]]), np.array([0.1]))
        results.append(memory.weights)
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).all()


def test_dropout_takes_its_numbers_layer_by_layer():
    torch.manual_seed(0)
    layers = (nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5), nn.Tanh())
    head = nn.Linear(5, 2)
    module = _net(*layers[:2], nn.Dropout(0.3), *layers[2:], nn.Dropout(0.3), head)
    space, network = _compile(module, (2, 4, 5))
    memory = Memory(network)
    assert network.num_draws == 3 * 3 * 4 + 5
    inputs, classes = torch.randn(4, 2, 4, 5), torch.tensor([0, 1, 1, 0])
    vector = space.flatten(module.state_dict()).numpy()
    rng = np.random.default_rng(0)
    first, second = rng.random((4, 3, 3, 4), np.float32), rng.random((4, 5), np.float32)
    draws = np.concatenate([first.ravel(), second.ravel()])
    for probability in (0.3, 0.6):
        masks = [
            torch.from_numpy((draw >= probability) / (1 - probability)) for draw in (first, second)
        ]
        twin = module.double()
        hidden = twin[1](twin[0](inputs.double())) * masks[0]
        hidden = torch.tanh(twin[4](hidden.flatten(1))) * masks[1]
        twin.zero_grad()
        functional.cross_entropy(twin[7](hidden), classes).backward()
        slopes = {key: parameter.grad.clone() for key, parameter in twin.named_parameters()}
        wanted = vector - space.flatten(slopes).numpy()
        module.float()
        memory.load(vector)
        own = None if probability == 0.3 else probability
        lesson = _lesson(memory, inputs, classes, dropout=own)
        memory.train(lesson, np.arange(4)[None], np.ones(1), draws=draws)
        _assert_near(memory.weights, wanted)


# ---- measuring ----------------------------------------------------------------------------------
def test_judging_equals_score():
    _, _, memory, inputs = _prepared("wide")
    classes = torch.randint(0, 19, (_SAMPLES,))
    outputs = torch.from_numpy(memory.outputs(inputs.numpy()))
    loss, predicted, close = memory.judge(inputs.numpy(), classes.numpy(), margin=0.05)
    assert loss == pytest.approx(functional.cross_entropy(outputs, classes).item(), rel=1e-6)
    np.testing.assert_array_equal(predicted, outputs.argmax(1).numpy())
    best = outputs.topk(2, 1).values
    near = best[:, 0] - best[:, 1] <= 0.05 * outputs.abs().amax(1)
    assert 0 < near.sum() < _SAMPLES
    np.testing.assert_array_equal(close, near.numpy())
    wrong = memory.wrong(inputs.numpy(), classes.numpy())
    np.testing.assert_array_equal(wrong, (outputs.argmax(1) != classes).numpy())


# ---- what has no kernel -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("module", "shape", "what"),
    [
        (_net(nn.Conv2d(2, 4, 3, groups=2), nn.Flatten()), (2, 3, 3), "grouped"),
        (_net(nn.Conv2d(2, 4, 2, dilation=2), nn.Flatten()), (2, 3, 3), "dilated"),
        (_net(nn.Linear(3, 2), nn.BatchNorm1d(2)), (3,), "BatchNorm"),
        (_net(nn.Linear(3, 2), nn.Softmax(1)), (3,), "softmax"),
        (_net(nn.Conv1d(2, 3, 2), nn.Flatten()), (2, 4), "shape"),
        (_net(nn.Linear(3, 2), nn.LayerNorm(2, elementwise_affine=False)), (3,), "without gains"),
        (_net(nn.Conv2d(2, 3, 2)), (2, 3, 3), "outputs of shape"),
    ],
)
def test_networks_without_kernels_say_so(module, shape, what):
    with pytest.raises(NoKernelError, match=what) as caught:
        _compile(module, shape)
    assert "use engine 'stacked'" in str(caught.value)


# ---- bad input raises ---------------------------------------------------------------------------
_ARRAYS = st.sampled_from(
    [
        np.zeros(0, np.float32),
        np.zeros((3, 5), np.float32),
        np.zeros((3, 5), np.float64),
        np.zeros((3, 5), np.int64),
        np.zeros((5, 3), np.float32).T,
        np.zeros((3, 6), np.float32),
        np.zeros(3, np.int64),
        np.full(3, 9, np.int64),
        np.full(3, -1, np.int64),
        np.zeros((1, 2), np.int64),
        np.full((1, 2), 3, np.int64),
        np.full((2, 1), -1, np.int64),
        np.zeros((1, 2), np.int32),
        np.zeros(1),
        np.zeros(2, np.float32),
    ]
)


@given(
    inputs=_ARRAYS,
    targets=_ARRAYS,
    batches=_ARRAYS,
    rates=_ARRAYS,
    draws=st.none() | _ARRAYS,
    loss=st.sampled_from(("cross_entropy", "squared_error", "binary_cross_entropy")),
)
@settings(deadline=None, max_examples=300)
def test_wrong_arrays_raise(inputs, targets, batches, rates, draws, loss):
    memory = _prepared("linear")[2]
    try:
        lesson = Lesson(memory.network, inputs, targets, Task(loss=loss))
        memory.train(lesson, batches, rates, draws=draws)
    except (InvalidConfigError, IndexError):
        return
    assert inputs.shape == (3, 5)
    assert batches.min() >= 0
    assert batches.max() < 3


@numba.njit
def _run_product(product, memory, sizes, low):
    contract(product, memory, sizes, low)


_SIZE = st.integers(-4, 12) | st.integers(-300, 300)


@given(st.lists(_SIZE, min_size=22, max_size=22), st.integers(0, 255))
@settings(deadline=None, max_examples=500)
def test_a_product_never_leaves_its_memory(sizes, low):
    guarded = np.arange(768, dtype=np.float32)
    memory = guarded[256:512]
    counts = {place: abs(sizes[place]) % 7 for place in (0, 1, 6, 8, 10)}
    chosen = [counts.get(place, value) for place, value in enumerate(sizes)]
    chosen[2] = 8 * (abs(sizes[2]) % 5)
    try:
        _run_product(address(), memory, tuple(chosen), np.float32(low))
    except IndexError:
        np.testing.assert_array_equal(guarded, np.arange(768))
    np.testing.assert_array_equal(guarded[:256], np.arange(256))
    np.testing.assert_array_equal(guarded[512:], np.arange(512, 768))


def test_tasks_are_checked():
    for wrong in ({"loss": "hinge"}, {"rule": "lion"}, {"temperature": 0.0}, {"dropout": 1.0}):
        with pytest.raises(InvalidConfigError):
            replace(Task(), **wrong)
