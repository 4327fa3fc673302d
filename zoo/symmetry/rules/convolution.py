"""Convolutions: channels behave as in a linear layer, positions and kernels stay in place."""

from typing import Any

import numpy as np
from torch.fx import Node

from zoo.space import AxisRole
from zoo.symmetry.labels import Labelled, Labels, UnsupportedError, along
from zoo.symmetry.rules.registry import output_shape, rule
from zoo.symmetry.scene import Scene
from zoo.symmetry.units import Pin


@rule("conv1d", "conv2d", "conv3d")
def convolution(
    scene: Scene,
    node: Node,
    inputs: Labelled,
    weight: Labelled,
    bias: Labelled | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Labelled:
    """``y_o = sum_ik W_oik x_i`` within each group of channels."""
    _pin_positions(scene, inputs, weight, "out", "in")
    scene.role(bias, "bias", "out")
    channels = _channels(inputs)
    if groups == 1:
        scene.unify(channels, _flat(weight.labels[1]))
    else:
        _unify_grouped(scene, channels, weight, inputs.shape[1], groups)
    return _output(scene, node, inputs, _flat(weight.labels[0]), bias)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(
    scene: Scene,
    node: Node,
    inputs: Labelled,
    weight: Labelled,
    bias: Labelled | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Labelled:
    """Treat the adjoint, of which the kernel's first axis is the input's."""
    if groups != 1:
        raise UnsupportedError("grouped transposed convolution")
    _pin_positions(scene, inputs, weight, "in", "out")
    scene.role(bias, "bias", "out")
    scene.unify(_channels(inputs), _flat(weight.labels[0]))
    return _output(scene, node, inputs, _flat(weight.labels[1]), bias)


@rule("convolution")
def general_convolution(
    scene: Scene,
    node: Node,
    inputs: Labelled,
    weight: Labelled,
    bias: Labelled | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: Any,
    output_padding: Any,
    groups: int,
) -> Labelled:
    """Either of the two."""
    function = transposed_convolution if transposed else convolution
    result: Labelled = function(scene, node, inputs, weight, bias, groups=groups)
    return result


def _pin_positions(
    scene: Scene, inputs: Labelled, weight: Labelled, first: AxisRole, second: AxisRole
) -> None:
    if inputs.rank != weight.rank:
        raise UnsupportedError("convolution without a batch axis")
    kernel: list[AxisRole] = ["kernel"] * (weight.rank - 2)
    scene.role(weight, "weight", first, second, *kernel)
    scene.pin(inputs, range(2, inputs.rank), Pin("fixed", "image position"))
    scene.pin(weight, range(2, weight.rank), Pin("kernel", "kernel position"))


def _channels(inputs: Labelled) -> Labels:
    labels = inputs.labels[1]
    if labels is not None and labels.size != inputs.shape[1]:
        raise UnsupportedError("channels that depend on the position")
    return _flat(labels)


def _flat(labels: Labels) -> Labels:
    return None if labels is None else labels.ravel()


def _unify_grouped(
    scene: Scene, channels: Labels, weight: Labelled, num_inputs: int, groups: int
) -> None:
    """Blocks of input and output channels move together; the kernel's axis 1 lives in its block."""
    num_outputs, per_group = weight.shape[0], num_inputs // groups
    own = Labelled((num_outputs,), (_flat(weight.labels[0]),))
    inputs = Labelled((num_inputs,), (channels,))
    rows = scene.split(own, 0, groups, num_outputs // groups)
    blocks = scene.split(inputs, 0, groups, per_group)
    scene.unify(rows.labels[0], blocks.labels[0])
    if per_group == 1:
        return
    places = blocks.labels[1]
    if places is None:
        scene.pin(weight, [1], Pin("fixed", "grouped convolution of a constant"))
        return
    full = np.broadcast_to(places, (groups, per_group))
    by_row = np.repeat(full, num_outputs // groups, axis=0)
    scene.depend(weight, 1, by_row.reshape(num_outputs, per_group, *[1] * (weight.rank - 2)))


def _output(
    scene: Scene, node: Node, inputs: Labelled, out: Labels, bias: Labelled | None
) -> Labelled:
    shape = output_shape(node)
    rank = len(shape)
    if bias is not None:
        out = scene.unify(out, _flat(bias.labels[0]))
    positions = tuple(scene.fixed(shape[dim], dim, rank) for dim in range(2, rank))
    channels = None if out is None else along(out, 1, rank)
    return Labelled(shape, (inputs.labels[0], channels, *positions))
