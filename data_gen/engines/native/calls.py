"""What the arguments of a graph's calls mean."""

from typing import Any

import torch

from data_gen.engines.graph import Call, Ref
from data_gen.engines.native import table as t
from data_gen.engines.native.rows import lacking

aten: Any = torch.ops.aten


def argument(call: Call, position: int, name: str, default: Any = None) -> Any:
    """Return an argument that may be missing, or given by name."""
    if len(call.args) > position:
        return call.args[position]
    return dict(call.kwargs).get(name, default)


def pair(sizes: Any) -> tuple[int, int]:
    """Return a size in y and x, given as one number, one for both, or two."""
    numbers = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    return int(numbers[0]), int(numbers[-1])


def geometry(
    size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> dict[str, float]:
    """Return the fields of a row that has a window."""
    names = ("ky", "kx", "sy", "sx", "py", "px")
    return dict(zip(names, (*size, *stride, *padding), strict=True))


PLAIN_ACTIVATIONS: dict[Any, int] = {
    aten.relu.default: t.RELU,
    aten.silu.default: t.SILU,
    aten.sigmoid.default: t.SIGMOID,
    aten.tanh.default: t.TANH,
    aten.sin.default: t.SINE,
    aten.cos.default: t.COSINE,
}
"""Activations without parameters."""


def activation_of(call: Call) -> tuple[int, float]:
    """Return which activation an operator is, and its parameter."""
    if call.target in PLAIN_ACTIVATIONS:
        return PLAIN_ACTIVATIONS[call.target], 1.0
    if call.target is aten.leaky_relu.default:
        return t.LEAKY_RELU, float(argument(call, 1, "negative_slope", 0.01))
    if call.target is aten.gelu.default:
        exact = argument(call, 1, "approximate", "none") == "none"
        return (t.GELU if exact else t.GELU_TANH), 1.0
    if call.target is aten.elu.default and len(call.args) <= 2:
        return t.ELU, float(argument(call, 1, "alpha", 1.0))
    if call.target is aten.softplus.default and tuple(call.args[1:]) in ((), (1.0,), (1.0, 20.0)):
        return t.SOFTPLUS, 1.0
    raise lacking(f"operator {call.target} with arguments {call.args[1:]}")


def constant(call: Call) -> float:
    """Return the number that a value is combined with."""
    if isinstance(call.args[1], Ref):
        raise lacking("products and quotients of values")
    return float(call.args[1])
