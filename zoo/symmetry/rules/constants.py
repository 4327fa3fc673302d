"""Operators that make tensors from nothing."""

from typing import Any

from torch.fx import Node

from zoo.symmetry.labels import Labelled, Scene
from zoo.symmetry.rules.registry import output_shape, rule


@rule(
    "zeros", "ones", "full", "empty", "zeros_like", "ones_like", "full_like", "empty_like",
    "new_zeros", "new_ones", "new_full", "new_empty", "scalar_tensor", "fill",
)  # fmt: skip
def uniform(scene: Scene, node: Node, *_: Any, **__: Any) -> Labelled:
    """One value everywhere."""
    return scene.uniform(output_shape(node))


@rule("arange", "linspace", "eye")
def distinct(scene: Scene, node: Node, *_: Any, **__: Any) -> Labelled:
    """Every position differs."""
    return scene.all_fixed(output_shape(node))
