"""Normalisation, convolutions and recurrent layers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .networks import HIDDEN, TOKENS, Case, aten

NORMALISED = {"a": (5, 3), "o": (2, 5)} | dict.fromkeys(("mean", "variance", "gain", "shift"), (5,))
NORMS: dict[str, Case] = {
    "batch_norm": Case(
        lambda p, x: F.linear(
            F.batch_norm(F.linear(x, p.a), p.mean, p.variance, p.gain, p.shift), p.o
        ),
        NORMALISED,
        buffers=("mean", "variance"),
    ),
    "_native_batch_norm_legit_no_training": Case(
        lambda p, x: F.linear(
            aten._native_batch_norm_legit_no_training(
                F.linear(x, p.a), p.gain, p.shift, p.mean, p.variance, 0.1, 1e-5
            )[0],
            p.o,
        ),
        NORMALISED,
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
    "rms_norm": Case(lambda p, x: F.linear(F.rms_norm(F.linear(x, p.a), (5,), p.b), p.o), HIDDEN),
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
        lambda p, x: convolve(convolve(convolve(x, p.a, p.b).relu(), p.g, groups=2).tanh(), p.o),
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
