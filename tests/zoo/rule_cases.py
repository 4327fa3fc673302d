"""One tiny network per operator that has a rule: hidden units flow through the operator.

A case is a function of a namespace of parameters and the inputs, the shapes of the parameters, the
shapes of the inputs, and the expected groups as (size, copies).
"""

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
        lambda p, x: F.linear(
            operation(F.linear(x, p.a), F.linear(x, p.b)).to(x.dtype), p.o
        ),
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


def positive(x):
    return x > 0


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
    operator, arguments = getattr(aten, name), UNARY_ARGUMENTS.get(name, ())
    domain = DOMAIN.get(name, lambda x: x)
    return through(lambda h: operator(domain(h), *arguments))


BINARY = (
    "add", "atan2", "div", "floor_divide", "fmod", "ge", "gt", "le", "logaddexp", "lt", "maximum",
    "minimum", "mul", "remainder", "rsub", "sub", "type_as",
)  # fmt: skip
LOGICAL = ("bitwise_and", "bitwise_or", "logical_and", "logical_or", "eq", "ne")

ELEMENTWISE: dict[str, Case] = {
    **{name: unary(name) for name in UNARY},
    **{name: joined(getattr(aten, name)) for name in BINARY},
    **{
        name: joined(lambda l, r, operator=getattr(aten, name): operator(l > 0, r > 0))
        for name in LOGICAL
    },
    "_to_copy": through(lambda h: aten._to_copy(h, dtype=torch.float64)),
    "addcdiv": joined(lambda l, r: aten.addcdiv(l, r, r.exp())),
    "addcmul": joined(lambda l, r: aten.addcmul(l, r, l)),
    "lerp": joined(lambda l, r: aten.lerp(l, r, 0.3)),
    "masked_fill": joined(lambda l, r: l.masked_fill(r > 0, 0.5)),
    "pow": joined(lambda l, r: aten.pow(l.exp(), r)),
    "where": joined(lambda l, r: torch.where(l > 0, l, r)),
    "xlogy": joined(lambda l, r: aten.xlogy(l, r.exp())),
    "native_dropout": through(lambda h: aten.native_dropout(h, 0.5, False)[0]),
    "copy": through(lambda h: aten.copy(torch.zeros_like(h), h)),
    "prelu": Case(
        lambda p, x: F.linear(torch.prelu(F.linear(x, p.a), p.s), p.o), HIDDEN | {"s": (5,)}
    ),
    "_prelu_kernel": Case(
        lambda p, x: F.linear(aten._prelu_kernel(F.linear(x, p.a), p.s), p.o),
        HIDDEN | {"s": (1, 5)},
    ),
    "getitem": through(lambda h: h.split(2, dim=1)[1], inputs=TOKENS),
}

LINEAR: dict[str, Case] = {
    "linear": Case(lambda p, x: F.linear(F.linear(x, p.a, p.b).tanh(), p.o), HIDDEN),
    "matmul": Case(
        lambda p, x: torch.matmul(torch.matmul(x, p.a).tanh(), p.o), {"a": (3, 5), "o": (5, 2)}
    ),
    "mm": Case(lambda p, x: torch.mm(torch.mm(x, p.a).tanh(), p.o), {"a": (3, 5), "o": (5, 2)}),
    "bmm": Case(
        lambda p, x: torch.bmm(F.linear(x, p.a), F.linear(x, p.b).mT), BOTH, TOKENS
    ),
    "mv": Case(lambda p, x: torch.mv(F.linear(x, p.a).tanh(), p.v), {"a": (5, 3), "v": (5,)}),
    "dot": Case(
        lambda p, x: torch.dot(torch.mv(p.a, x).tanh(), p.v), {"a": (5, 3), "v": (5,)}, ((3,),)
    ),
    "addmm": Case(
        lambda p, x: torch.addmm(p.b, x, p.a).tanh() @ p.o,
        {"a": (3, 5), "b": (5,), "o": (5, 2)},
    ),
    "baddbmm": Case(
        lambda p, x: torch.baddbmm(p.c, F.linear(x, p.a), F.linear(x, p.b).mT),
        BOTH | {"c": (2, 4, 4)},
        TOKENS,
    ),
    "addmv": Case(
        lambda p, x: torch.mv(p.o, torch.addmv(p.b, p.a, x).tanh()), HIDDEN, ((3,),)
    ),
    "einsum": Case(
        lambda p, x: torch.einsum("oh,bh->bo", p.o, torch.einsum("bi,hi->bh", x, p.a).tanh()),
        {"a": (5, 3), "o": (2, 5)},
    ),
    "outer": Case(
        lambda p, x: p.o @ torch.outer(p.a, x).tanh(), {"a": (5,), "o": (2, 5)}, ((3,),)
    ),
}

BLOCKS = {"a": (6, 3), "b": (6,), "o": (2, 3)}
IN_BLOCKS = ((3, 1), (2, 3))


def blocks(view) -> Case:
    """Six units as three blocks of two, of which the larger counts."""
    return through(lambda h: view(h).amax(dim=-1), groups=IN_BLOCKS, **BLOCKS)


SHAPE: dict[str, Case] = {
    "permute": through(lambda h: h.permute(1, 0, 2), TOKENS),
    "transpose": through(lambda h: h.transpose(0, 1), TOKENS),
    "swapaxes": through(lambda h: aten.swapaxes(h, 0, 1), TOKENS),
    "t": Case(lambda p, x: p.o @ F.linear(x, p.a).tanh().t(), {"a": (5, 3), "o": (2, 5)}),
    "numpy_T": Case(
        lambda p, x: p.o @ aten.numpy_T(F.linear(x, p.a).tanh()), {"a": (5, 3), "o": (2, 5)}
    ),
    "mT": Case(lambda p, x: p.o @ F.linear(x, p.a).tanh().mT, {"a": (5, 3), "o": (2, 5)}),
    "movedim": through(lambda h: aten.movedim(h, 1, 0), TOKENS),
    "view": blocks(lambda h: h.view(-1, 3, 2)),
    "reshape": blocks(lambda h: h.reshape(-1, 3, 2)),
    "view_copy": blocks(lambda h: aten.view_copy(h, (-1, 3, 2))),
    "_unsafe_view": blocks(lambda h: aten._unsafe_view(h, (2, 3, 2))),
    "unflatten": blocks(lambda h: h.unflatten(1, (3, 2))),
    "flatten": Case(
        lambda p, x: F.linear(F.conv1d(x, p.a).flatten(1), p.o),
        {"a": (5, 3, 1), "o": (2, 20)},
        ((2, 3, 4),),
    ),
    "squeeze": through(lambda h: h[:, None].squeeze(1)),
    "unsqueeze": through(lambda h: h.unsqueeze(1)),
    "expand": through(lambda h: h[:, None].expand(-1, 4, -1)),
    "expand_as": through(lambda h: aten.expand_as(h, torch.zeros(4, 2, 5))),
    "broadcast_to": through(lambda h: aten.broadcast_to(h, (4, 2, 5))),
    "repeat": through(lambda h: h.repeat(1, 2), o=(2, 10)),
    "tile": through(lambda h: h.tile(1, 2), o=(2, 10)),
    "repeat_interleave": through(lambda h: aten.repeat_interleave(h, 2, 1), o=(2, 10)),
    "pixel_shuffle": image(lambda h: F.pixel_shuffle(h, 2), width=20),
    "pixel_unshuffle": image(lambda h: F.pixel_unshuffle(h, 2), out=20),
    "channel_shuffle": Case(
        lambda p, x: F.conv1d(aten.channel_shuffle(F.conv1d(x, p.a), 2), p.o, groups=3),
        {"a": (6, 3, 1), "o": (3, 2, 1)},
        ((2, 3, 4),),
        ((2, 3), (2, 1)),
    ),
}

INDEXING: dict[str, Case] = {
    "select": through(lambda h: h.select(1, 2), TOKENS),
    "slice": through(lambda h: h[:, 1:3], TOKENS),
    "narrow": through(lambda h: h.narrow(1, 1, 2), TOKENS),
    "split": through(lambda h: torch.mul(*h.split(5, dim=-1)), a=(10, 3)),
    "split_with_sizes": through(lambda h: torch.mul(*h.split([5, 5], dim=-1)), a=(10, 3)),
    "tensor_split": through(lambda h: torch.mul(*h.tensor_split(2, dim=-1)), a=(10, 3)),
    "chunk": through(lambda h: torch.mul(*h.chunk(2, dim=-1)), a=(10, 3)),
    "unbind": through(lambda h: torch.mul(*h.view(-1, 2, 5).unbind(1)), a=(10, 3)),
    "glu": through(F.glu, a=(10, 3)),
    "flip": through(lambda h: h.flip(-1)),
    "roll": through(lambda h: h.roll(2, -1)),
    "embedding": Case(
        lambda p, x: F.linear(F.embedding(torch.tensor([[0, 2, 1], [6, 3, 5]]), p.e), p.o) * x,
        {"e": (7, 5), "o": (2, 5)},
        ((1,),),
    ),
    "index_select": through(lambda h: h.index_select(1, torch.tensor([0, 2])), TOKENS),
    "index": through(lambda h: h[:, torch.tensor([0, 2])], TOKENS),
    "gather": through(
        lambda h: h.gather(1, torch.tensor([[0], [2]]).expand(2, 2, 5)), TOKENS
    ),
    "tril": Case(
        lambda p, x: torch.einsum("bhts,oh->bots", attend(p, x).tril(), p.o),
        {"a": (5, 3, 4), "o": (2, 5)},
        TOKENS,
    ),
    "triu": Case(
        lambda p, x: torch.einsum("bhts,oh->bots", attend(p, x).triu(), p.o),
        {"a": (5, 3, 4), "o": (2, 5)},
        TOKENS,
    ),
    **{
        name: joined(
            lambda l, r, operator=getattr(aten, name): operator(
                l, 1, torch.tensor([0, 2]), r[:, :2]
            ),
            TOKENS,
        )
        for name in ("index_add", "index_copy")
    },
    **{
        name: joined(
            lambda l, r, operator=getattr(aten, name): operator(
                l, 1, torch.tensor([[[0], [2]]]).expand(2, 2, 5), r
            ),
            TOKENS,
        )
        for name in ("scatter", "scatter_add")
    },
}


def attend(p: Any, x: Tensor) -> Tensor:
    """Five maps of positions to positions."""
    return torch.einsum("bti,his->bhts", x, p.a)


JOINING: dict[str, Case] = {
    **{
        name: joined(
            lambda l, r, operator=getattr(aten, name): operator([l, r], -1),
            groups=((5, 1), (3, 1)), b=(3, 3), o=(2, 8),
        )
        for name in ("cat", "concat", "concatenate")
    },
    "stack": joined(lambda l, r: torch.stack([l, r], 1)),
    "pad": through(lambda h: F.pad(h, (1, 2)), o=(2, 8)),
    "constant_pad_nd": through(lambda h: aten.constant_pad_nd(h, (1, 2)), o=(2, 8)),
    "slice_scatter": joined(
        lambda l, r: aten.slice_scatter(l, r, 1, 0, 3), groups=((3, 1),) * 2 + ((2, 1),), b=(3, 3)
    ),
}  # fmt: skip

NORMS: dict[str, Case] = {
    "batch_norm": Case(
        lambda p, x: F.linear(
            F.batch_norm(F.linear(x, p.a), p.mean, p.variance, p.gain, p.shift), p.o
        ),
        HIDDEN | dict.fromkeys(("mean", "variance", "gain", "shift"), (5,)),
        buffers=("mean", "variance"),
    ),
    "_native_batch_norm_legit_no_training": Case(
        lambda p, x: F.linear(
            aten._native_batch_norm_legit_no_training(
                F.linear(x, p.a), p.gain, p.shift, p.mean, p.variance, 0.1, 1e-5
            )[0],
            p.o,
        ),
        HIDDEN | dict.fromkeys(("mean", "variance", "gain", "shift"), (5,)),
        buffers=("mean", "variance"),
    ),
    "instance_norm": Case(
        lambda p, x: F.conv1d(F.instance_norm(F.conv1d(x, p.a), None, None, p.g, p.s), p.o),
        {"a": (5, 3, 1), "g": (5,), "s": (5,), "o": (2, 5, 1)},
        ((2, 3, 4),),
    ),
    "layer_norm": Case(
        lambda p, x: F.linear(F.layer_norm(F.linear(x, p.a), (5,), p.g, p.b), p.o),
        HIDDEN | {"g": (5,)},
    ),
    "native_layer_norm": Case(
        lambda p, x: F.linear(
            aten.native_layer_norm(F.linear(x, p.a), (5,), p.g, p.b, 1e-5)[0], p.o
        ),
        HIDDEN | {"g": (5,)},
    ),
    "rms_norm": Case(
        lambda p, x: F.linear(F.rms_norm(F.linear(x, p.a), (5,), p.b), p.o), HIDDEN
    ),
    "_fused_rms_norm": Case(
        lambda p, x: F.linear(aten._fused_rms_norm(F.linear(x, p.a), (5,), p.b, 1e-6)[0], p.o),
        HIDDEN,
    ),
    "group_norm": Case(
        lambda p, x: F.linear(F.group_norm(F.linear(x, p.a), 2, p.g, p.b), p.o),
        {"a": (6, 3), "g": (6,), "b": (6,), "o": (2, 6)},
        groups=((2, 1), (3, 2)),
    ),
    "native_group_norm": Case(
        lambda p, x: F.linear(
            aten.native_group_norm(F.linear(x, p.a), p.g, p.b, len(x), 6, 1, 2, 1e-5)[0], p.o
        ),
        {"a": (6, 3), "g": (6,), "b": (6,), "o": (2, 6)},
        groups=((2, 1), (3, 2)),
    ),
    "_weight_norm": Case(
        lambda p, x: F.linear(F.linear(x, aten._weight_norm(p.a, p.g)).tanh(), p.o),
        {"a": (5, 3), "g": (5, 1), "o": (2, 5)},
    ),
    "_weight_norm_interface": Case(
        lambda p, x: F.linear(F.linear(x, aten._weight_norm_interface(p.a, p.g)[0]).tanh(), p.o),
        {"a": (5, 3), "g": (5, 1), "o": (2, 5)},
    ),
}


def convolution(rank: int) -> Case:
    convolve = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    kernel, side = (2,) * rank, (3,) * rank
    return Case(
        lambda p, x: convolve(
            convolve(convolve(x, p.a, p.b).relu(), p.g, groups=2).tanh(), p.o
        ),
        {"a": (6, 3, *kernel), "b": (6,), "g": (10, 3, *[1] * rank), "o": (2, 10, *kernel)},
        ((2, 3, *side),),
        ((2, 1), (3, 2), (5, 2)),
    )


def transposed(rank: int) -> Case:
    convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    kernel, side = (2,) * rank, (2,) * rank
    return Case(
        lambda p, x: convolve(convolve(x, p.a, p.b).relu(), p.o),
        {"a": (3, 5, *kernel), "b": (5,), "o": (5, 2, *kernel)},
        ((2, 3, *side),),
    )


CONVOLUTION: dict[str, Case] = {
    **{f"conv{rank}d": convolution(rank) for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": transposed(rank) for rank in (1, 2, 3)},
    "convolution": Case(
        lambda p, x: aten.convolution(
            aten.convolution(x, p.a, p.b, [1], [0], [1], False, [0], 1).relu(),
            p.o, None, [1], [0], [1], True, [0], 1,
        ),
        {"a": (5, 3, 2), "b": (5,), "o": (5, 2, 2)},
        ((2, 3, 4),),
    ),
}  # fmt: skip


def sequence(cell: type[nn.RNNBase], gates: int, **options) -> Case:
    """A recurrent layer of five units; its parameters are those of torch's module."""
    function = {"GRU": torch.gru, "LSTM": torch.lstm}.get(
        cell.__name__, {"relu": torch.rnn_relu}.get(options.get("nonlinearity", ""), torch.rnn_tanh)
    )

    def run(p: Any, x: Tensor) -> Tensor:
        start = torch.zeros(1, len(x), 5, dtype=x.dtype)
        state = (start, start) if cell is nn.LSTM else start
        weights = [p.w, p.u, p.c, p.d]
        return F.linear(function(x, state, weights, True, 1, 0.0, False, False, True)[0], p.o)

    return Case(run, recurrent_shapes(gates), TOKENS)


def recurrent_shapes(gates: int) -> dict[str, tuple[int, ...]]:
    rows = 5 * gates
    return {"w": (rows, 3), "u": (rows, 5), "c": (rows,), "d": (rows,), "o": (2, 5)}


def step(name: str, gates: int) -> Case:
    """Two steps of a recurrent cell."""

    def run(p: Any, x: Tensor) -> Tensor:
        start = torch.zeros(len(x), 5, dtype=x.dtype)
        state = [start, start] if name == "lstm_cell" else start
        for _ in range(2):
            found = getattr(aten, name)(x, state, p.w, p.u, p.c, p.d)
            state = list(found) if name == "lstm_cell" else found
        return F.linear(state[0] if name == "lstm_cell" else state, p.o)

    return Case(run, recurrent_shapes(gates))


RECURRENT: dict[str, Case] = {
    "lstm": sequence(nn.LSTM, 4),
    "gru": sequence(nn.GRU, 3),
    "rnn_tanh": sequence(nn.RNN, 1),
    "rnn_relu": sequence(nn.RNN, 1, nonlinearity="relu"),
    "lstm_cell": step("lstm_cell", 4),
    "gru_cell": step("gru_cell", 3),
    "rnn_tanh_cell": step("rnn_tanh_cell", 1),
    "rnn_relu_cell": step("rnn_relu_cell", 1),
}

REDUCTION: dict[str, Case] = {
    **{
        name: through(lambda h, operator=getattr(aten, name): operator(h, [1]), TOKENS)
        for name in ("mean", "sum", "amax", "amin", "logsumexp", "var", "std")
    },
    **{
        name: through(lambda h, operator=getattr(aten, name): operator(h, 1), TOKENS)
        for name in ("prod", "argmax", "argmin")
    },
    **{
        name: through(lambda h, operator=getattr(aten, name): operator(h > 0, 1), TOKENS)
        for name in ("all", "any")
    },
    **{
        name: through(lambda h, operator=getattr(aten, name): operator(h, 1)[0], TOKENS)
        for name in ("max", "min")
    },
    "linalg_vector_norm": through(lambda h: aten.linalg_vector_norm(h, 2, [1]), TOKENS),
    "norm": through(lambda h: aten.norm(h, 2, [1]), TOKENS),
    **{
        name: through(lambda h, operator=getattr(aten, name): operator(h, -1))
        for name in ("softmax", "log_softmax", "_safe_softmax")
    },
    **{
        name: through(lambda h, operator=getattr(aten, name): operator(h, -1, False))
        for name in ("_softmax", "_log_softmax")
    },
    **{
        name: through(lambda h, operator=getattr(aten, name): operator(h, 1), TOKENS)
        for name in ("cumsum", "cumprod", "logcumsumexp")
    },
    "topk": through(lambda h: aten.topk(h, 2, 1)[0], TOKENS),
    "sort": through(lambda h: aten.sort(h, 1)[0], TOKENS),
    "scaled_dot_product_attention": Case(
        lambda p, x: F.linear(
            F.scaled_dot_product_attention(F.linear(x, p.q), F.linear(x, p.k), F.linear(x, p.v)),
            p.o,
        ),
        {"q": (3, 3), "k": (3, 3), "v": (5, 3), "o": (2, 5)},
        TOKENS,
        ((3, 1), (5, 1)),
    ),
}


def pools() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for rank in (1, 2, 3):
        side, size = (4,) * rank, [2] * rank
        for kind in ("avg_pool", "max_pool"):
            found[f"{kind}{rank}d"] = image(
                lambda h, op=getattr(aten, f"{kind}{rank}d"), size=size: op(h, size), side
            )
        names = [f"adaptive_avg_pool{rank}d"] + [f"_adaptive_avg_pool{rank}d"] * (rank > 1)
        for name in names:
            found[name] = image(lambda h, op=getattr(aten, name), size=size: op(h, size), side)
        for name in (f"adaptive_max_pool{rank}d", f"max_pool{rank}d_with_indices"):
            found[name] = image(lambda h, op=getattr(aten, name), size=size: op(h, size)[0], side)
        grown = [6] * rank
        nearest = getattr(aten, f"upsample_nearest{rank}d")
        found[f"upsample_nearest{rank}d"] = image(
            lambda h, op=nearest, grown=grown: op(h, grown), side
        )
    smooth = {1: ("linear1d",), 2: ("bilinear2d", "bicubic2d"), 3: ("trilinear3d",)}
    for rank, names in smooth.items():
        for name in names:
            found[f"upsample_{name}"] = image(
                lambda h, op=getattr(aten, f"upsample_{name}"), grown=[6] * rank: op(
                    h, grown, False
                ),
                (4,) * rank,
            )
    return found


FILLED: dict[str, Case] = {
    **{
        name: through(lambda h, operator=getattr(aten, name): h + operator(h))
        for name in ("zeros_like", "ones_like")
    },
    **{
        name: through(lambda h, operator=getattr(aten, name): h + operator(h, h.shape))
        for name in ("new_zeros", "new_ones")
    },
    "empty_like": through(lambda h: h + aten.empty_like(h) * 0),
    "new_empty": through(lambda h: h + aten.new_empty(h, h.shape) * 0),
    "full_like": through(lambda h: h + aten.full_like(h, 2.0)),
    "new_full": through(lambda h: h + aten.new_full(h, h.shape, 2.0)),
    "fill": through(lambda h: h + aten.fill(h, 2.0)),
}
"""Constants: a rule that labels them too freely does no harm."""

CASES: dict[str, Case] = {
    **ELEMENTWISE,
    **LINEAR,
    **SHAPE,
    **INDEXING,
    **JOINING,
    **NORMS,
    **CONVOLUTION,
    **RECURRENT,
    **REDUCTION,
    **pools(),
    **FILLED,
}
