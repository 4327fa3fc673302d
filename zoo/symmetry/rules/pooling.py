"""Operators that combine positions: pools, means and sums."""

from typing import Any

from torch.fx import Node

from zoo.symmetry.labels import Labelled, Scene
from zoo.symmetry.rules.registry import output_shape, rule
from zoo.symmetry.units import Pin

_POOLS = {
    1: ("avg_pool1d", "adaptive_avg_pool1d", "max_pool1d"),
    2: ("avg_pool2d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "max_pool2d"),
    3: ("avg_pool3d", "adaptive_avg_pool3d", "_adaptive_avg_pool3d", "max_pool3d"),
}


def _pool(scene: Scene, node: Node, inputs: Labelled, num_spatial: int) -> Labelled:
    first = len(inputs.shape) - num_spatial
    scene.pin(inputs, range(first, len(inputs.shape)), Pin("fixed", "image position"))
    shape = output_shape(node)
    return Labelled(shape, inputs.labels[:first] + tuple(map(scene.fixed, shape[first:])))


@rule(*_POOLS[1])
def pool1d(scene: Scene, node: Node, inputs: Labelled, *_: Any, **__: Any) -> Labelled:
    """Positions are combined in place; channels keep their labels."""
    return _pool(scene, node, inputs, 1)


@rule(*_POOLS[2])
def pool2d(scene: Scene, node: Node, inputs: Labelled, *_: Any, **__: Any) -> Labelled:
    """Positions are combined in place; channels keep their labels."""
    return _pool(scene, node, inputs, 2)


@rule(*_POOLS[3])
def pool3d(scene: Scene, node: Node, inputs: Labelled, *_: Any, **__: Any) -> Labelled:
    """Positions are combined in place; channels keep their labels."""
    return _pool(scene, node, inputs, 3)


@rule("max_pool2d_with_indices", "max_pool3d_with_indices")
def max_pool_with_indices(
    scene: Scene, node: Node, inputs: Labelled, kernel: list[int], *_: Any, **__: Any
) -> tuple[Labelled, Labelled]:
    """As the other pools; the indices are labelled like the values."""
    output = _pool(scene, node, inputs, len(kernel))
    return output, output


@rule("mean", "sum", "amax", "amin")
def reduction(
    scene: Scene,
    node: Node,
    inputs: Labelled,
    dims: list[int] | None = None,
    keepdim: bool = False,  # noqa: FBT001, FBT002 - the operator's own positional argument
    **_: Any,
) -> Labelled:
    """Drop axes: a symmetric function over an axis does not notice its order."""
    rank = len(inputs.shape)
    reduced = {dim % rank for dim in (dims or range(rank))}
    axes = [
        (1, None) if dim in reduced else (inputs.shape[dim], inputs.labels[dim])
        for dim in range(rank)
        if keepdim or dim not in reduced
    ]
    return Labelled(tuple(length for length, _ in axes), tuple(labels for _, labels in axes))
