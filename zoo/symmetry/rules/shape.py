"""Operators that rearrange axes."""

from typing import Any

import numpy as np
from torch.fx import Node

from zoo.symmetry.labels import Labelled, UnsupportedError
from zoo.symmetry.rules.registry import normal_dims, output_shape, rule
from zoo.symmetry.scene import Scene


@rule("permute")
def permute(scene: Scene, node: Node, inputs: Labelled, dims: list[int]) -> Labelled:
    """Reorder axes."""
    return scene.permute(inputs, dims)


@rule("transpose", "swapaxes")
def transpose(scene: Scene, node: Node, inputs: Labelled, first: int, second: int) -> Labelled:
    """Swap two axes."""
    order = list(range(inputs.rank))
    order[first], order[second] = order[second], order[first]
    return scene.permute(inputs, order)


@rule("t", "numpy_T")
def reverse_axes(scene: Scene, node: Node, inputs: Labelled) -> Labelled:
    """Reverse the order of axes."""
    return scene.permute(inputs, list(range(inputs.rank))[::-1])


@rule("mT")
def transpose_matrices(scene: Scene, node: Node, inputs: Labelled) -> Labelled:
    """Swap the last two axes."""
    return transpose(scene, node, inputs, inputs.rank - 2, inputs.rank - 1)  # type: ignore[no-any-return]


@rule("movedim")
def movedim(scene: Scene, node: Node, inputs: Labelled, source: Any, target: Any) -> Labelled:
    """Move axes to other places."""
    sources, targets = normal_dims(source, inputs.rank), normal_dims(target, inputs.rank)
    order = [dim for dim in range(inputs.rank) if dim not in sources]
    for at, dim in sorted(zip(targets, sources, strict=True)):
        order.insert(at, dim)
    return scene.permute(inputs, order)


@rule("view", "reshape", "flatten", "unflatten", "_unsafe_view", "view_copy")
def reshape(scene: Scene, node: Node, inputs: Labelled, *_: Any) -> Labelled:
    """Merge and split neighbouring axes."""
    return scene.reshape(inputs, output_shape(node))


@rule("squeeze", "unsqueeze")
def ones(scene: Scene, node: Node, inputs: Labelled, *_: Any) -> Labelled:
    """Remove or insert axes of one position."""
    return scene.reshape(inputs, output_shape(node))


@rule("expand", "expand_as", "broadcast_to")
def expand(scene: Scene, node: Node, inputs: Labelled, *_: Any, **__: Any) -> Labelled:
    """Broadcast."""
    return scene.expand(inputs, output_shape(node))


@rule("repeat", "tile")
def repeat(scene: Scene, node: Node, inputs: Labelled, repeats: list[int]) -> Labelled:
    """Lay copies side by side: a new axis of copies in front of the old, merged with it."""
    x = scene.expand(inputs, (1,) * (len(repeats) - inputs.rank) + inputs.shape)
    for dim, count in enumerate(repeats):
        if count == 1:
            continue
        grown = scene.unsqueeze(x, dim)
        x = scene.merge(scene.expand(grown, (*x.shape[:dim], count, *x.shape[dim:])), dim)
    return x


@rule("repeat_interleave")
def repeat_interleave(
    scene: Scene, node: Node, inputs: Labelled, count: int, dim: int | None = None, **_: Any
) -> Labelled:
    """Repeat each position: a new axis of copies behind the old, merged with it."""
    if not isinstance(count, int) or dim is None:
        raise UnsupportedError("repeat_interleave with a tensor or without an axis")
    dim %= inputs.rank
    grown = scene.unsqueeze(inputs, dim + 1)
    shape = (*inputs.shape[: dim + 1], count, *inputs.shape[dim + 1 :])
    return scene.merge(scene.expand(grown, shape), dim)


@rule("pixel_shuffle")
def pixel_shuffle(scene: Scene, node: Node, inputs: Labelled, factor: int) -> Labelled:
    """``[B, C r r, H, W]`` to ``[B, C, H r, W r]``."""
    batch, channels, height, width = inputs.shape
    grid = (batch, channels // factor**2, factor, factor, height, width)
    x = scene.permute(scene.reshape(inputs, grid), (0, 1, 4, 2, 5, 3))
    return scene.reshape(x, output_shape(node))


@rule("pixel_unshuffle")
def pixel_unshuffle(scene: Scene, node: Node, inputs: Labelled, factor: int) -> Labelled:
    """``[B, C, H r, W r]`` to ``[B, C r r, H, W]``."""
    batch, channels, height, width = inputs.shape
    grid = (batch, channels, height // factor, factor, width // factor, factor)
    x = scene.permute(scene.reshape(inputs, grid), (0, 1, 3, 5, 2, 4))
    return scene.reshape(x, output_shape(node))


@rule("channel_shuffle")
def channel_shuffle(scene: Scene, node: Node, inputs: Labelled, groups: int) -> Labelled:
    """Transpose blocks and places of the channel axis."""
    index = np.arange(inputs.shape[1]).reshape(groups, -1)
    return scene.take(inputs, 1, index.T.ravel())
