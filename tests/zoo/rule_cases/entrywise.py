"""Operators that work entry by entry."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .networks import HIDDEN, TOKENS, Case, aten, calls, joined, positive, through

UNARY_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "clamp": (-0.5, 0.5), "clamp_max": (0.3,), "clamp_min": (-0.3,), "dropout": (0.5, False),
    "feature_dropout": (0.5, False), "threshold": (0.1, -1.0), "to": (torch.float64,),
}  # fmt: skip
DOMAIN: dict[str, Callable[[Tensor], Tensor]] = {
    **dict.fromkeys(("acos", "asin", "erfinv"), torch.tanh),
    **dict.fromkeys(("log", "log1p", "log2", "rsqrt", "sqrt"), torch.exp),
    **dict.fromkeys(("bitwise_not", "logical_not"), positive),
    **dict.fromkeys(("ceil", "floor", "round", "trunc"), lambda x: 3 * x),
    "logit": torch.sigmoid,
    "isinf": lambda x: x / positive(x),
    "isnan": lambda x: x.sqrt(),
    "nan_to_num": lambda x: x.sqrt(),
}
UNARY = (
    "abs", "acos", "alias", "asin", "atan", "bitwise_not", "ceil", "celu", "clamp", "clamp_max",
    "clamp_min", "clone", "contiguous", "cos", "cosh", "detach", "dropout", "elu", "erf",
    "erfinv", "exp", "expm1", "feature_dropout", "floor", "gelu", "hardsigmoid", "hardswish",
    "hardtanh", "isinf", "isnan", "leaky_relu", "lift_fresh_copy", "log", "log1p", "log2",
    "log_sigmoid", "logical_not", "logit", "mish", "nan_to_num", "neg", "reciprocal", "relu",
    "relu6", "round", "rsqrt", "selu", "sigmoid", "sign", "silu", "sin", "sinc", "sinh",
    "softplus", "sqrt", "square", "tan", "tanh", "threshold", "to", "trunc",
)  # fmt: skip


def unary(name: str) -> Case:
    return through(calls(name, *UNARY_ARGUMENTS.get(name, ()), of=DOMAIN.get(name)))


def signs(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    operator = getattr(aten, name)
    return lambda u, v: operator(u > 0, v > 0)


BINARY = (
    "add", "atan2", "div", "floor_divide", "fmod", "ge", "gt", "le", "logaddexp", "lt", "maximum",
    "minimum", "mul", "remainder", "rsub", "sub", "type_as",
)  # fmt: skip
LOGICAL = ("bitwise_and", "bitwise_or", "logical_and", "logical_or", "eq", "ne")

ELEMENTWISE: dict[str, Case] = {
    **{name: unary(name) for name in UNARY},
    **{name: joined(getattr(aten, name)) for name in BINARY},
    **{name: joined(signs(name)) for name in LOGICAL},
    "_to_copy": through(lambda h: aten._to_copy(h, dtype=torch.float64)),
    "addcdiv": joined(lambda u, v: aten.addcdiv(u, v, v.exp())),
    "addcmul": joined(lambda u, v: aten.addcmul(u, v, u)),
    "lerp": joined(lambda u, v: aten.lerp(u, v, 0.3)),
    "masked_fill": joined(lambda u, v: u.masked_fill(v > 0, 0.5)),
    "pow": joined(lambda u, v: aten.pow(u.exp(), v)),
    "where": joined(lambda u, v: torch.where(u > 0, u, v)),
    "xlogy": joined(lambda u, v: aten.xlogy(u, v.exp())),
    "native_dropout": through(lambda h: aten.native_dropout(h, 0.5, False)[0]),
    "copy": through(lambda h: aten.copy(torch.zeros_like(h), h)),
    "prelu": Case(
        lambda p, x: F.linear(torch.prelu(F.linear(x, p.a, p.b), p.s), p.o), HIDDEN | {"s": (5,)}
    ),
    "_prelu_kernel": Case(
        lambda p, x: F.linear(aten._prelu_kernel(F.linear(x, p.a, p.b), p.s), p.o),
        HIDDEN | {"s": (1, 5)},
    ),
    "getitem": through(lambda h: h.split(2, dim=1)[1], inputs=TOKENS),
}
