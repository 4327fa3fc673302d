"""Operators that sum over an axis shared by two tensors: linear layers and convolutions."""

from typing import Any

from torch.fx import Node

from zoo.space import AxisRole
from zoo.symmetry.labels import Labelled, Scene, UnsupportedError
from zoo.symmetry.rules.registry import output_shape, rule
from zoo.symmetry.units import Pin


@rule("linear")
def linear(
    scene: Scene, node: Node, inputs: Labelled, weight: Labelled, bias: Labelled | None = None
) -> Labelled:
    """``y_o = sum_i x_i W_oi + b_o``: the input's last axis moves with ``W``'s second."""
    scene.role(weight, "weight", "out", "in")
    scene.role(bias, "bias", "out")
    scene.unify(inputs.labels[-1], weight.labels[1])
    out = weight.labels[0] if bias is None else scene.unify(weight.labels[0], bias.labels[0])
    return Labelled((*inputs.shape[:-1], weight.shape[0]), (*inputs.labels[:-1], out))


@rule("mm")
def mm(scene: Scene, node: Node, left: Labelled, right: Labelled) -> Labelled:
    """``C_ij = sum_k A_ik B_kj``."""
    scene.role(right, "weight", "in", "out")
    scene.role(left, "weight", "out", "in")
    scene.unify(left.labels[1], right.labels[0])
    return Labelled((left.shape[0], right.shape[1]), (left.labels[0], right.labels[1]))


@rule("addmm")
def addmm(
    scene: Scene, node: Node, bias: Labelled, left: Labelled, right: Labelled, **_: Any
) -> Labelled:
    """``C = bias + A B``."""
    product = mm(scene, node, left, right)
    scene.role(bias, "bias", "out")
    return scene.elementwise(product, bias)


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
    """Channels behave as in a linear layer; positions and kernel entries stay in place."""
    if groups != 1:
        raise UnsupportedError("grouped convolution")
    num_spatial = len(weight.shape) - 2
    if len(inputs.shape) != num_spatial + 2:
        raise UnsupportedError("convolution without a batch axis")
    kernel: list[AxisRole] = ["kernel"] * num_spatial
    scene.role(weight, "weight", "out", "in", *kernel)
    scene.role(bias, "bias", "out")
    scene.pin(inputs, range(2, len(inputs.shape)), Pin("fixed", "image position"))
    scene.pin(weight, range(2, len(weight.shape)), Pin("kernel", "kernel position"))
    scene.unify(inputs.labels[1], weight.labels[1])
    out = weight.labels[0] if bias is None else scene.unify(weight.labels[0], bias.labels[0])
    shape = output_shape(node)
    positions = tuple(scene.fixed(length) for length in shape[2:])
    return Labelled(shape, (inputs.labels[0], out, *positions))
