"""Operators that put tensors side by side, and writes into a part of one."""

from typing import Any

import numpy as np
from torch.fx import Node

from zoo.symmetry.labels import Labelled, UnsupportedError
from zoo.symmetry.rules.registry import output_shape, rule
from zoo.symmetry.scene import Scene
from zoo.symmetry.units import Pin


@rule("cat", "concat", "concatenate")
def cat(scene: Scene, node: Node, tensors: list[Labelled], dim: int = 0) -> Labelled:
    """One after another."""
    parts = [part for part in tensors if part.shape != (0,)]
    return parts[0] if len(parts) == 1 else scene.concatenate(parts, dim % parts[0].rank)


@rule("stack")
def stack(scene: Scene, node: Node, tensors: list[Labelled], dim: int = 0) -> Labelled:
    """Along a new axis."""
    dim %= tensors[0].rank + 1
    return cat(scene, node, [scene.unsqueeze(part, dim) for part in tensors], dim)  # type: ignore[no-any-return]


@rule("constant_pad_nd", "pad")
def pad(
    scene: Scene,
    node: Node,
    inputs: Labelled,
    amounts: list[int],
    mode: Any = "constant",
    *_: Any,
    **__: Any,
) -> Labelled:
    """Constants before and after; other modes repeat positions, which must not move then."""
    shape = output_shape(node)
    dims = [inputs.rank - 1 - at for at in range(len(amounts) // 2)]
    if isinstance(mode, str) and mode != "constant":
        scene.pin(inputs, dims, Pin("fixed", "padded"))
        labels = list(inputs.labels)
        for dim in dims:
            labels[dim] = scene.fixed(shape[dim], dim, inputs.rank)
        return Labelled(shape, tuple(labels))
    for at, dim in enumerate(dims):
        inputs = _pad_axis(scene, inputs, dim, amounts[2 * at], amounts[2 * at + 1])
    return inputs


def _pad_axis(scene: Scene, x: Labelled, dim: int, before: int, after: int) -> Labelled:
    kept = np.arange(max(0, -before), x.shape[dim] - max(0, -after))
    x = scene.take(x, dim, kept)
    parts = [x]
    for amount, at in ((before, 0), (after, 1)):
        if amount > 0:
            constant = scene.uniform((*x.shape[:dim], amount, *x.shape[dim + 1 :]))
            parts.insert(0, constant) if at == 0 else parts.append(constant)
    return x if len(parts) == 1 else scene.concatenate(parts, dim)


@rule("slice_scatter")
def slice_scatter(
    scene: Scene,
    node: Node,
    inputs: Labelled,
    source: Labelled,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Labelled:
    """Write a range of positions of an axis."""
    dim %= inputs.rank
    index = np.arange(inputs.shape[dim])[slice(start, end, step)]
    if step != 1:
        raise UnsupportedError("writing every few positions")
    first, last = int(index[0]), int(index[-1]) + 1
    before = scene.take(inputs, dim, np.arange(first)) if first else None
    after_index = np.arange(last, inputs.shape[dim])
    after = scene.take(inputs, dim, after_index) if len(after_index) else None
    parts = [part for part in (before, source, after) if part is not None]
    return parts[0] if len(parts) == 1 else scene.concatenate(parts, dim)
