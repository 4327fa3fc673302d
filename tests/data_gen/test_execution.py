import pytest
import torch
from torch import nn

from data_gen.engines.execution import StackedProgram, sections_of
from data_gen.engines.graph import capture
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
    "no form of its own": (_net(nn.Linear(5, 3), nn.LayerNorm(3), nn.Linear(3, 2)), (5,)),
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
