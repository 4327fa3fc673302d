"""Batched recurrent layers: all members take a step at a time.

Steps lie in memory as ``[N, features, batch]``, so that one product per step serves all samples.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from data_gen.engines.elementwise import apply_exact, apply_rounded
from data_gen.engines.products import EDGE, affine
from zoo.errors import InvalidConfigError

Cell = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From what the input and what the hidden state give to the gates, ``[N, gates * hidden, batch]``
each, and the hidden state ``[N, hidden, batch]``, to the new one."""


def _gru_cell(given: Tensor, recurring: Tensor, hidden: Tensor) -> Tensor:
    """Step of a gated unit [1]_.

    References
    ----------
    .. [1] Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", EMNLP 2014.
    """
    width = hidden.shape[1]
    both = apply_rounded(torch.sigmoid, given[:, : 2 * width] + recurring[:, : 2 * width])
    reset, keep = both[:, :width], both[:, width:]
    offered = apply_rounded(torch.tanh, given[:, 2 * width :] + reset * recurring[:, 2 * width :])
    return offered + keep * (hidden - offered)


def _tanh_cell(given: Tensor, recurring: Tensor, _: Tensor) -> Tensor:
    return apply_rounded(torch.tanh, given + recurring)


def _relu_cell(given: Tensor, recurring: Tensor, _: Tensor) -> Tensor:
    return apply_exact(torch.relu, given + recurring)


class _LSTM(torch.autograd.Function):
    """All steps of a long short-term memory [1]_, gates in torch's order: input, forget, new, out.

    From what the input gives to the gates ``[T, N, 4, hidden, batch]`` and the weights of the
    hidden state ``[N, 4, hidden, hidden]`` to the hidden states ``[T, N, hidden, batch]``.

    References
    ----------
    .. [1] Hochreiter & Schmidhuber, "Long Short-Term Memory", Neural Computation 1997, with forget
       gates as in Gers et al., "Learning to Forget", Neural Computation 2000.
    """

    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor) -> Tensor:
        gates, matrix = torch.empty_like(given), weight.flatten(1, 2)
        hiddens, memories, shown = (torch.empty_like(given[:, :, 0]) for _ in range(3))
        hidden = memory = torch.zeros_like(hiddens[0])
        for step, now in enumerate(given):
            raw = torch.baddbmm(now.flatten(1, 2), matrix, hidden).view_as(now)
            gate = gates[step]
            # Parts of a member's rows: each row ends in scalar code at the same entries.
            torch.sigmoid(raw[:, :2], out=gate[:, :2])
            torch.tanh(raw[:, 2], out=gate[:, 2])
            torch.sigmoid(raw[:, 3], out=gate[:, 3])
            kept = gate[:, 1] * memory
            memory = torch.add(kept, gate[:, 0] * gate[:, 2], out=memories[step])
            shown[step] = apply_rounded(torch.tanh, memory)
            hidden = torch.mul(gate[:, 3], shown[step], out=hiddens[step])
        ctx.save_for_backward(gates, memories, shown, hiddens, weight)
        return hiddens

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor]:
        gates, memories, shown, hiddens, weight = ctx.saved_tensors
        matrix = weight.flatten(1, 2).transpose(1, 2)
        factors, through = _lstm_factors(gates, memories, shown)
        slopes = torch.empty_like(gates)
        to_hidden = to_memory = torch.zeros_like(hiddens[0])
        for step in range(len(gates) - 1, -1, -1):
            to_hidden = to_hidden + slope[step]
            to_memory = to_memory + to_hidden * through[step]
            torch.mul(factors[step][:, :3], to_memory[:, None], out=slopes[step][:, :3])
            torch.mul(factors[step][:, 3], to_hidden, out=slopes[step][:, 3])
            to_memory = to_memory * gates[step][:, 1]
            to_hidden = torch.bmm(matrix, slopes[step].flatten(1, 2))
        rows = slopes[1:].flatten(2, 3).permute(1, 2, 0, 3).flatten(2)
        before = hiddens[:-1].permute(1, 0, 3, 2).flatten(1, 2)
        return slopes, torch.bmm(rows, before).view_as(weight)


def _lstm_factors(gates: Tensor, memories: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
    """Return what slopes are multiplied with: from states to gates, from hidden state to memory."""
    factors = gates * (1 - gates)
    take, offered, show = gates[:, :, 0], gates[:, :, 2], gates[:, :, 3]
    factors[:, :, 0].mul_(offered)
    factors[1:, :, 1].mul_(memories[:-1])
    factors[0, :, 1].zero_()
    factors[:, :, 2] = (1 - offered * offered).mul_(take)
    factors[:, :, 3].mul_(shown)
    return factors, (1 - shown * shown).mul_(show)


_CELLS: dict[str, Cell] = {"gru": _gru_cell, "rnn_tanh": _tanh_cell, "rnn_relu": _relu_cell}
KINDS = ("lstm", *_CELLS)
"""Recurrent layers that have a batched form, as ATen names them."""


def recurrent(
    kind: str,
    x: Tensor,
    initial: Any,
    weights: Sequence[Tensor],
    has_biases: bool,  # noqa: FBT001 - ATen's order
    num_layers: int,
    dropout: float,
    train: bool,  # noqa: FBT001
    bidirectional: bool,  # noqa: FBT001
    batch_first: bool,  # noqa: FBT001
) -> tuple[Tensor, None]:
    """Run recurrent layers over ``[N, batch, steps, features]``, from states of zeros.

    Returns
    -------
    tuple[Tensor, None]
        States of the last layer at every step, ``[N, batch, steps, hidden]``; last states are not
        computed.

    Raises
    ------
    InvalidConfigError
        For what stacks of members cannot do.
    """
    per_layer = 4 if has_biases else 2
    plain = batch_first and not bidirectional and not (dropout and train)
    if initial is not None or not plain or len(weights) != num_layers * per_layer:
        raise InvalidConfigError(
            "Recurrent layers of stacked members run forward, batch first, from states of zeros, "
            "without projections and without torch's own dropout: use zoo.networks.Dropout."
        )
    layer = _lstm_layer if kind == "lstm" else _cell_layer
    steps = x.permute(0, 3, 2, 1)  # [N, features, steps, batch]
    for place in range(0, len(weights), per_layer):
        steps = layer(kind, steps, *weights[place : place + per_layer])
    return steps.permute(0, 3, 2, 1), None


def _lstm_layer(
    _: str,
    steps: Tensor,
    input_weight: Tensor,
    hidden_weight: Tensor,
    input_bias: Tensor | None = None,
    hidden_bias: Tensor | None = None,
) -> Tensor:
    """Run a layer over ``[N, features, steps, batch]``; odd sizes are padded by zeros."""
    bias = None if input_bias is None or hidden_bias is None else input_bias + hidden_bias
    given = affine(steps.flatten(2), input_weight, bias)
    hidden, batch = hidden_weight.shape[2], steps.shape[3]
    more, more_samples = -hidden % EDGE, -batch % EDGE
    given = given.reshape(-1, 4, hidden, *steps.shape[2:]).permute(3, 0, 1, 2, 4)
    weight = hidden_weight.reshape(-1, 4, hidden, hidden)
    if more or more_samples:
        given = functional.pad(given, (0, more_samples, 0, more))
        weight = functional.pad(weight, (0, more, 0, more))
    states: Tensor = _LSTM.apply(given.contiguous(), weight.contiguous())  # type: ignore[no-untyped-call]
    return states[:, :, :hidden, :batch].permute(1, 2, 0, 3)


def _cell_layer(
    kind: str,
    steps: Tensor,
    input_weight: Tensor,
    hidden_weight: Tensor,
    input_bias: Tensor | None = None,
    hidden_bias: Tensor | None = None,
) -> Tensor:
    """Run a layer of cells over ``[N, features, steps, batch]``."""
    given = affine(steps.flatten(2), input_weight, input_bias)
    given = given.reshape(*given.shape[:2], *steps.shape[2:]).permute(2, 0, 1, 3).contiguous()
    hidden = steps.new_zeros(len(hidden_weight), hidden_weight.shape[2], steps.shape[3])
    states = []
    for now in given.unbind():
        hidden = _CELLS[kind](now, affine(hidden, hidden_weight, hidden_bias), hidden)
        states.append(hidden)
    return torch.stack(states, dim=2)
