"""Operators that make a constant in the shape of a tensor; those from nothing are computed."""

from typing import Any

from torch.fx import Node

from zoo.symmetry.labels import Labelled
from zoo.symmetry.rules.registry import output_shape, rule
from zoo.symmetry.scene import Scene


@rule(
    "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full",
    "new_empty", "fill",
)  # fmt: skip
def uniform(scene: Scene, node: Node, *_: Any, **__: Any) -> Labelled:
    """One value everywhere."""
    return scene.uniform(output_shape(node))
