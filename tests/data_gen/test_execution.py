import platform

import pytest
import torch
from torch import nn

from data_gen.engines.execution import StackedProgram, sections_of
from data_gen.engines.graph import capture, scale_weights
from data_gen.engines.memory import keep_freed_memory
from data_gen.engines.operators import EXAMPLE_BATCH, Stack


def _net(*layers):
    return nn.Sequential(*layers)


_MODULES = {
    "conv": (
        _net(nn.Conv2d(2, 3, 3, padding=1), nn.GELU(), nn.MaxPool2d(2), nn.Flatten()),
        (2, 6, 5),
    ),
    "stride and dilation": (
        _net(nn.Conv2d(2, 3, (3, 2), stride=(2, 1), dilation=(1, 2))),
        (2, 7, 5),
    ),
    "pool": (_net(nn.Conv2d(2, 5, 2), nn.AvgPool2d(2), nn.Sigmoid()), (2, 5, 7)),
    "no form of its own": (_net(nn.Linear(5, 4), nn.GroupNorm(2, 4), nn.Linear(4, 3)), (5,)),
    "grouped": (_net(nn.Conv2d(4, 6, 3, groups=2), nn.ReLU()), (4, 5, 5)),
}


@pytest.mark.parametrize("name", _MODULES)
def test_values_and_gradients_equal_each_module_alone(name):
    torch.manual_seed(0)
    module, shape = _MODULES[name]
    module = module.double()
    program = capture(module, torch.zeros(EXAMPLE_BATCH, *shape).double(), training=False)
    assert program.is_batched == (name != "no form of its own")
    inputs = torch.randn(3, 4, *shape, dtype=torch.float64)
    stacked = {
        key: torch.randn(3, *value.shape, dtype=torch.float64).requires_grad_()
        for key, value in module.state_dict().items()
    }
    outputs, _ = StackedProgram([(program, 3)])(stacked, inputs, Stack(4))
    slopes = torch.randn_like(outputs)
    ours = torch.autograd.grad(outputs, list(stacked.values()), slopes)
    for member in range(3):
        own = {key: value[member].detach().requires_grad_() for key, value in stacked.items()}
        alone = torch.func.functional_call(module, own, inputs[member])
        theirs = torch.autograd.grad(alone, list(own.values()), slopes[member])
        torch.testing.assert_close(outputs[member], alone, rtol=1e-12, atol=1e-12)
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine[member], other, rtol=1e-10, atol=1e-12)


class _Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 3), nn.Linear(3, 2)

    def forward(self, inputs):
        hidden = self.first(inputs)
        return self.last(torch.sin(7.0 * hidden)) * 0.5


def test_scales_move_into_the_weights():
    torch.manual_seed(0)
    module = _Scaled().double()
    program = capture(module, torch.zeros(EXAMPLE_BATCH, 5).double(), training=True)
    scaled = scale_weights(program)
    kinds = [str(call.target) for call in scaled.calls]
    assert kinds.count("aten.mul.Tensor") == 4
    assert kinds[-1] == "aten.linear.default"
    stacked = {
        key: torch.randn(3, *value.shape, dtype=torch.float64).requires_grad_()
        for key, value in module.state_dict().items()
    }
    inputs = torch.randn(3, 4, 5, dtype=torch.float64)
    results = []
    for each in (program, scaled):
        outputs, _ = StackedProgram([(each, 3)])(stacked, inputs, Stack(4))
        results.append([outputs, *torch.autograd.grad(outputs.square().sum(), stacked.values())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_an_unscaled_output_stays():
    class Twice(_Scaled):
        def forward(self, inputs):
            hidden = self.first(inputs)
            return self.last(hidden + 7.0 * hidden)

    program = capture(Twice(), torch.zeros(EXAMPLE_BATCH, 5), training=True)
    assert scale_weights(program) == program


def test_intermediates_are_counted_per_sample():
    linear = capture(_net(nn.Linear(5, 3), nn.ReLU()), torch.zeros(EXAMPLE_BATCH, 5), training=True)
    assert linear.footprint == 3 + 3
    convolution = _net(nn.Conv2d(2, 3, 3, stride=2))
    program = capture(convolution, torch.zeros(EXAMPLE_BATCH, 2, 7, 5), training=True)
    assert program.footprint == 3 * 6 + 6 * 2 * 9


def test_freed_memory_is_kept_where_the_c_library_can():
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


def test_programs_that_differ_in_activations_run_side_by_side():
    torch.manual_seed(0)
    modules = [_net(nn.Linear(5, 3), kind(), nn.Linear(3, 2)) for kind in (nn.ReLU, nn.Tanh)]
    example = torch.zeros(EXAMPLE_BATCH, 5)
    relu, tanh = (capture(module, example, training=True) for module in modules)
    assert relu.merges_with(tanh)
    assert not relu.merges_with(capture(modules[0][:1], example, training=True))
    stacked = {key: torch.randn(3, *value.shape) for key, value in modules[0].state_dict().items()}
    inputs = torch.randn(3, 4, 5)
    outputs, _ = StackedProgram([(relu, 1), (tanh, 2)])(stacked, inputs, Stack(4))
    for member, module in enumerate((modules[0], modules[1], modules[1])):
        own = {key: value[member] for key, value in stacked.items()}
        alone = torch.func.functional_call(module, own, inputs[member])
        torch.testing.assert_close(outputs[member], alone)


def test_sections():
    assert sections_of(["a", "a", "b", "a"]) == [("a", 2), ("b", 1), ("a", 1)]
