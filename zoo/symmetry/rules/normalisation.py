"""Normalisation layers."""

from typing import Any

from torch.fx import Node

from zoo.symmetry.labels import Labelled, Scene
from zoo.symmetry.rules.registry import rule


@rule("_native_batch_norm_legit_no_training", "batch_norm")
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
    """Every per-channel vector moves with the channels (axis 1)."""
    scene.role(gain, "gain", "node")
    scene.role(shift, "shift", "node")
    scene.role(mean, "mean", "node")
    scene.role(variance, "variance", "node")
    labels = inputs.labels[1]
    for vector in (gain, shift, mean, variance):
        if vector is not None:
            labels = scene.unify(labels, vector.labels[0])
    output = inputs.replace(1, labels)
    several = isinstance(node.meta["val"], list | tuple)
    return (output, None, None) if several else output
