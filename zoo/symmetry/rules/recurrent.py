"""Recurrent layers: gates are blocks of one axis, hidden units feed back into themselves."""

from typing import Any

import numpy as np
from torch.fx import Node

from zoo.symmetry.labels import Labelled, Labels, UnsupportedError, along
from zoo.symmetry.rules.registry import output_shape, rule
from zoo.symmetry.scene import Scene


def _recurrent(
    scene: Scene,
    node: Node,
    inputs: Labelled,
    states: list[Labelled],
    weights: list[Labelled],
    has_biases: Any,
    num_layers: int,
    bidirectional: Any,
    num_gates: int,
) -> tuple[Labelled, ...]:
    hidden_size = weights[1].shape[1]
    per_cell = 4 if has_biases else 2
    if len(weights) != num_layers * (2 if bidirectional else 1) * per_cell:
        raise UnsupportedError("recurrent layer with projections")
    features: Labels = None if inputs.labels[-1] is None else inputs.labels[-1].ravel()
    cells = [weights[at : at + per_cell] for at in range(0, len(weights), per_cell)]
    all_hidden = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(2 if bidirectional else 1):
            cell = cells[layer * (2 if bidirectional else 1) + direction]
            hidden = scene.units.fresh(hidden_size)
            _unify_cell(scene, cell, features, hidden, num_gates)
            outputs.append(hidden)
            if bidirectional:
                scene.mark(hidden)
        features = np.concatenate(outputs)
        all_hidden += outputs
    for state in states:
        for hidden in all_hidden:
            labels = state.labels[-1]
            scene.unify(None if labels is None else labels.ravel(), hidden)
    return _results(scene, node, inputs, features, all_hidden)


def _unify_cell(
    scene: Scene, cell: list[Labelled], features: Labels, hidden: np.ndarray, num_gates: int
) -> None:
    input_weight, hidden_weight, *biases = cell
    scene.role(input_weight, "weight", "out", "in")
    scene.role(hidden_weight, "weight", "out", "in")
    columns = input_weight.labels[1]
    scene.unify(None if columns is None else columns.ravel(), features)
    if len(hidden) == 1:
        return
    scene.unify(
        None if hidden_weight.labels[1] is None else hidden_weight.labels[1].ravel(), hidden
    )
    for tensor in (input_weight, hidden_weight, *biases):
        if tensor in biases:
            scene.role(tensor, "bias", "out")
        rows = tensor.labels[0]
        assert rows is not None
        scene.units.unify(rows.ravel().reshape(num_gates, -1), hidden[None])


def _results(
    scene: Scene, node: Node, inputs: Labelled, features: Labels, all_hidden: list[np.ndarray]
) -> tuple[Labelled, ...]:
    shape, rank = output_shape(node), len(output_shape(node))
    last = None if features is None or shape[-1] == 1 else along(features, rank - 1, rank)
    output = Labelled(shape, (*inputs.labels[:-1], last))
    state_shape = output_shape(node, 1)
    width = len(state_shape)
    units = np.stack(all_hidden).reshape(len(all_hidden), *[1] * (width - 2), -1)
    axes = [scene.fixed(state_shape[dim], dim, width) for dim in range(width - 1)]
    state = Labelled(state_shape, (*axes, units if state_shape[-1] > 1 else None))
    return (output, *[state] * (len(node.meta["val"]) - 1))


@rule("lstm")
def lstm(
    scene: Scene,
    node: Node,
    inputs: Labelled,
    states: list[Labelled],
    weights: list[Labelled],
    has_biases: Any,
    num_layers: int,
    dropout: float,
    train: Any,
    bidirectional: Any,
    batch_first: Any,
) -> tuple[Labelled, ...]:
    """Four gates per hidden unit; hidden and cell state move together."""
    return _recurrent(
        scene, node, inputs, states, weights, has_biases, num_layers, bidirectional, 4
    )


def _simple(num_gates: int) -> Any:
    def rule_of_cell(
        scene: Scene,
        node: Node,
        inputs: Labelled,
        state: Labelled,
        weights: list[Labelled],
        has_biases: Any,
        num_layers: int,
        dropout: float,
        train: Any,
        bidirectional: Any,
        batch_first: Any,
    ) -> tuple[Labelled, ...]:
        return _recurrent(
            scene, node, inputs, [state], weights, has_biases, num_layers, bidirectional, num_gates
        )

    return rule_of_cell


gru = rule("gru")(_simple(3))
rnn = rule("rnn_tanh", "rnn_relu")(_simple(1))


def _cell(num_gates: int) -> Any:
    def rule_of_cell(
        scene: Scene, node: Node, inputs: Labelled, states: Any, *weights: Labelled | None
    ) -> Any:
        """One step of a recurrent layer."""
        present = [weight for weight in weights if weight is not None]
        hidden = scene.units.fresh(present[1].shape[1])
        columns = inputs.labels[-1]
        _unify_cell(scene, present, None if columns is None else columns.ravel(), hidden, num_gates)
        several = states if isinstance(states, list | tuple) else [states]
        for state in several:
            labels = state.labels[-1]
            scene.unify(None if labels is None else labels.ravel(), hidden)
        shape = output_shape(node)
        last = along(hidden, len(shape) - 1, len(shape)) if shape[-1] > 1 else None
        output = Labelled(shape, (*inputs.labels[:-1], last))
        return (output,) * len(several) if isinstance(states, list | tuple) else output

    return rule_of_cell


lstm_cell = rule("lstm_cell")(_cell(4))
gru_cell = rule("gru_cell")(_cell(3))
rnn_cell = rule("rnn_tanh_cell", "rnn_relu_cell")(_cell(1))
