"""Networks around one operator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

aten = torch.ops.aten


@dataclass(frozen=True)
class Case:
    """A network as a function, and the groups that tracing should find."""

    function: Callable[..., Any]
    parameters: dict[str, tuple[int, ...]]
    inputs: tuple[tuple[int, ...], ...] = ((2, 3),)
    groups: tuple[tuple[int, int], ...] = ((5, 1),)
    buffers: tuple[str, ...] = ()

    def build(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """Make the network and example inputs."""
        generator = torch.Generator().manual_seed(0)
        inputs = tuple(torch.randn(*shape, generator=generator) for shape in self.inputs)
        return Network(self), inputs


class Network(nn.Module):
    """Parameters by name, and a function of them."""

    def __init__(self, case: Case):
        super().__init__()
        self.function = case.function
        generator = torch.Generator().manual_seed(1)
        for name, shape in case.parameters.items():
            value = torch.randn(*shape, generator=generator)
            if name in case.buffers:
                self.register_buffer(name, value.abs() + 0.5)
            else:
                self.register_parameter(name, nn.Parameter(value))

    def forward(self, *inputs):
        return self.function(self, *inputs)


HIDDEN = {"a": (5, 3), "b": (5,), "o": (2, 5)}
BOTH = {"a": (5, 3), "b": (5, 3), "o": (2, 5)}
TOKENS = ((2, 4, 3),)


def through(operation, inputs=((2, 3),), groups=((5, 1),), **shapes) -> Case:
    """Linear, an operation, linear."""
    return Case(
        lambda p, x: F.linear(operation(F.linear(x, p.a, p.b)).to(x.dtype), p.o),
        HIDDEN | {"a": (shapes.get("a", (5, 3))), "b": (shapes.get("a", (5, 3))[0],)} | shapes,
        inputs,
        groups,
    )


def joined(operation, inputs=((2, 3),), groups=((5, 1),), **shapes) -> Case:
    """Two linear layers, an operation of both, linear."""
    return Case(
        lambda p, x: F.linear(operation(F.linear(x, p.a), F.linear(x, p.b)).to(x.dtype), p.o),
        BOTH | shapes,
        inputs,
        groups,
    )


def image(operation, size=(4, 4), width=5, out=5, **shapes) -> Case:
    """A convolution with kernels of one position, an operation, the same over its channels."""
    rank = len(size)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    ones = (1,) * rank
    return Case(
        lambda p, x: convolve(operation(convolve(x, p.a)), p.o),
        {"a": (width, 3, *ones), "o": (2, out, *ones)} | shapes,
        ((2, 3, *size),),
        ((5, 1),),
    )


def calls(name: str, *arguments: Any, of: Any = None, pick: int | None = None) -> Any:
    """An operator as a function of its first tensor."""
    operator = getattr(aten, name)

    def call(h: Tensor) -> Tensor:
        result = operator(h if of is None else of(h), *arguments)
        return result if pick is None else result[pick]

    return call


def positive(x):
    return x > 0
