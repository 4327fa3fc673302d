"""Normalisation layers."""

from typing import Any

from torch.fx import Node

from zoo.space import AxisRole
from zoo.symmetry.labels import Labelled, along
from zoo.symmetry.rules.registry import rule, vector_labels
from zoo.symmetry.scene import Scene


def _per_channel(scene: Scene, inputs: Labelled, *vectors: Labelled | None) -> Labelled:
    """Vectors of one number per channel (axis 1) move with the channels."""
    labels = inputs.labels[1]
    for vector in vectors:
        units = vector_labels(vector)
        if units is not None:
            labels = scene.unify(labels, along(units, 1, inputs.rank))
    return inputs.replace(1, labels)


@rule("_native_batch_norm_legit_no_training", "batch_norm", "instance_norm")
def batch_norm(
    scene: Scene,
    node: Node,
    inputs: Labelled,
    gain: Labelled | None,
    shift: Labelled | None,
    mean: Labelled | None,
    variance: Labelled | None,
    *_: Any,
) -> Any:
    """Normalise each channel by its own statistics."""
    scene.role(gain, "gain", "node")
    scene.role(shift, "shift", "node")
    scene.role(mean, "mean", "node")
    scene.role(variance, "variance", "node")
    output = _per_channel(scene, inputs, gain, shift, mean, variance)
    several = isinstance(node.meta["val"], list | tuple)
    return (output, None, None) if several else output


@rule("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def layer_norm(
    scene: Scene,
    node: Node,
    inputs: Labelled,
    normalized_shape: list[int],
    gain: Labelled | None = None,
    shift: Labelled | None = None,
    *_: Any,
    **__: Any,
) -> Any:
    """Normalise over the last axes, whose order the statistics do not notice."""
    gain, shift = (term if isinstance(term, Labelled) else None for term in (gain, shift))
    terms = [term for term in (gain, shift) if term is not None]
    nodes: list[AxisRole] = ["node"] * len(normalized_shape)
    scene.role(gain, "gain", *nodes)
    scene.role(shift, "shift", *nodes)
    first = inputs.rank - len(normalized_shape)
    for dim in range(
        first, inputs.rank
    ):  # statistics mix positions: no other axis may depend on it
        for other in range(inputs.rank):
            if other != dim and other < first:
                inputs = inputs.replace(other, scene.collapse(inputs.labels[other], dim))
    output = scene.elementwise(inputs, *terms)
    several = isinstance(node.meta["val"], list | tuple)
    return (output, None, None) if several else output


@rule("group_norm", "native_group_norm")
def group_norm(
    scene: Scene,
    node: Node,
    inputs: Labelled,
    *args: Any,
    **_: Any,
) -> Any:
    """Normalise over blocks of channels: channels move within their block, blocks as a whole."""
    several = isinstance(node.meta["val"], list | tuple)
    gain, shift, groups = (args[0], args[1], args[5]) if several else (*args[1:3], args[0])
    scene.role(gain, "gain", "node")
    scene.role(shift, "shift", "node")
    output = _per_channel(scene, inputs, gain, shift)
    channels = output.labels[1]
    if channels is not None and 1 < groups < output.shape[1]:
        line = Labelled((output.shape[1],), (channels.ravel(),))
        scene.split(line, 0, groups, output.shape[1] // groups)
    return (output, None, None) if several else output


@rule("_weight_norm")
def weight_norm(
    scene: Scene, node: Node, direction: Labelled, gain: Labelled, dim: int = 0
) -> Labelled:
    """``g v / ||v||``, the norm over every axis but one."""
    nodes: list[AxisRole] = ["node"] * gain.rank
    scene.role(gain, "gain", *nodes)
    others = [axis for axis in range(direction.rank) if axis != dim % direction.rank]
    scene.reduce(direction, others, keepdim=True)
    return scene.elementwise(direction, gain)


@rule("_weight_norm_interface")
def weight_norm_interface(
    scene: Scene, node: Node, direction: Labelled, gain: Labelled, dim: int = 0
) -> tuple[Labelled, Labelled]:
    """Return the weight and its norms."""
    return weight_norm(scene, node, direction, gain, dim), gain
