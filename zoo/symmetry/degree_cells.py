"""Recurrent layers: hidden units feed back into themselves, so a scale must survive the step."""

from typing import Any

import numpy as np
from torch.fx import Node

from zoo.symmetry.degrees import Propagation, Scaled, degree
from zoo.symmetry.labels import UnsupportedError
from zoo.symmetry.rules.registry import output_shape


def _cell(
    run: Propagation, kind: str, x: np.ndarray, states: list[np.ndarray], cell: list[Scaled]
) -> np.ndarray:
    """How hidden units scale, ``[hidden]``: gates must not, the rest feeds back into itself."""
    num_gates = {"lstm": 4, "gru": 3}.get(kind, 1)
    width = cell[1].shape[1]
    inputs = run.forms.add(cell[0].form, np.broadcast_to(x, (1, cell[0].shape[1])))
    rows = run.forms.equal_along(inputs, [1])[:, 0]
    rows = run.forms.equal(np.broadcast_to(rows, (num_gates * width,)), *(b.form for b in cell[2:]))
    gates = rows.reshape(num_gates, width)
    content = {"lstm": 2, "gru": 2}.get(kind, 0)
    passes = run.mode == ("positive" if kind == "rnn_relu" else "sign")
    run.forms.vanish(*(gate for at, gate in enumerate(gates) if at != content or not passes))
    hidden = gates[content] if passes else np.zeros(width, dtype=np.int64)
    hidden = run.forms.equal(hidden, *states)
    back = run.forms.equal_along(run.forms.add(cell[1].form, hidden[None]), [1])[:, 0]
    run.forms.equal(rows, back)
    return hidden


def _last(run: Propagation, x: Scaled) -> np.ndarray:
    """Forms along the last axis, which must be the same everywhere else."""
    return run.forms.equal_along(x.form, list(range(x.rank - 1))).ravel()


def _recurrent(
    run: Propagation,
    node: Node,
    kind: str,
    x: Scaled,
    states: list[Scaled],
    weights: list[Scaled],
    num_layers: int,
    num_directions: int,
    per_cell: int,
) -> Any:
    if len(weights) != num_layers * num_directions * per_cell:
        raise UnsupportedError("recurrent layer with projections")
    cells = [weights[at : at + per_cell] for at in range(0, len(weights), per_cell)]
    first = [_last(run, state) for state in states]
    features, everything = _last(run, x), []
    for layer in range(num_layers):
        here = cells[layer * num_directions : (layer + 1) * num_directions]
        hidden = [_cell(run, kind, features, first, cell) for cell in here]
        features = np.concatenate(hidden)
        everything += hidden
    output = features.reshape(*[1] * (x.rank - 1), -1)
    rank = len(output_shape(node, 1))
    final = np.stack(everything).reshape(len(everything), *[1] * (rank - 2), -1)
    return (output, *[final] * (len(node.meta["val"]) - 1))


@degree("lstm")
def lstm(
    run: Propagation, node: Node, x: Scaled, states: list[Scaled], weights: list[Scaled],
    has_biases: Any, num_layers: int, dropout: float, train: Any, bidirectional: Any, *_: Any,
) -> Any:  # fmt: skip
    """Cell and hidden state take the sign of the new content."""
    directions, per_cell = 2 if bidirectional else 1, 4 if has_biases else 2
    return _recurrent(run, node, "lstm", x, states, weights, num_layers, directions, per_cell)


@degree("gru", "rnn_tanh", "rnn_relu")
def simple(
    run: Propagation, node: Node, x: Scaled, state: Scaled, weights: list[Scaled],
    has_biases: Any, num_layers: int, dropout: float, train: Any, bidirectional: Any, *_: Any,
) -> Any:  # fmt: skip
    """As for the LSTM; a ReLU passes positive scales instead."""
    directions, per_cell = 2 if bidirectional else 1, 4 if has_biases else 2
    kind = str(node.target).split(".")[1]
    return _recurrent(run, node, kind, x, [state], weights, num_layers, directions, per_cell)


@degree("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def one_step(run: Propagation, node: Node, x: Scaled, states: Any, *weights: Any) -> Any:
    """One step of a recurrent layer."""
    several = isinstance(states, list | tuple)
    first = [_last(run, state) for state in (states if several else [states])]
    kind = str(node.target).split(".")[1].removesuffix("_cell")
    present = [weight for weight in weights if weight is not None]
    hidden = _cell(run, kind, _last(run, x), first, present)
    output = hidden.reshape(*[1] * (x.rank - 1), -1)
    return (output,) * 2 if several else output
