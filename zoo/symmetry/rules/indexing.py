"""Operators that pick positions."""

from typing import Any

import numpy as np
from torch.fx import Node

from zoo.symmetry.labels import Labelled, UnsupportedError, along
from zoo.symmetry.rules.registry import output_shape, rule
from zoo.symmetry.scene import Scene
from zoo.symmetry.units import Pin


@rule("select")
def select(scene: Scene, node: Node, inputs: Labelled, dim: int, index: int) -> Labelled:
    """One position of an axis."""
    dim %= inputs.rank
    return scene.squeeze(scene.take(inputs, dim, np.array([index % inputs.shape[dim]])), dim)


@rule("slice")
def slice_(
    scene: Scene,
    node: Node,
    inputs: Labelled,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Labelled:
    """Take a range of positions."""
    dim %= inputs.rank
    return scene.take(inputs, dim, np.arange(inputs.shape[dim])[slice(start, end, step)])


@rule("narrow")
def narrow(
    scene: Scene, node: Node, inputs: Labelled, dim: int, start: int, length: int
) -> Labelled:
    """Take a range of positions given by its length."""
    return slice_(scene, node, inputs, dim, start, start + length)  # type: ignore[no-any-return]


@rule("split", "split_with_sizes", "tensor_split")
def split(
    scene: Scene, node: Node, inputs: Labelled, sizes: int | list[int], dim: int = 0
) -> list[Labelled]:
    """Neighbouring ranges."""
    return [
        scene.take(inputs, dim % inputs.rank, index)
        for index in _ranges([output_shape(node, at)[dim] for at in range(len(node.meta["val"]))])
    ]


@rule("chunk")
def chunk(scene: Scene, node: Node, inputs: Labelled, count: int, dim: int = 0) -> list[Labelled]:
    """Neighbouring ranges of equal length."""
    return split(scene, node, inputs, count, dim)  # type: ignore[no-any-return]


@rule("unbind")
def unbind(scene: Scene, node: Node, inputs: Labelled, dim: int = 0) -> list[Labelled]:
    """Every position by itself."""
    return [select(scene, node, inputs, dim, at) for at in range(inputs.shape[dim])]


@rule("glu")
def glu(scene: Scene, node: Node, inputs: Labelled, dim: int = -1) -> Labelled:
    """First half times the sigmoid of the second."""
    dim %= inputs.rank
    half = inputs.shape[dim] // 2
    parts = [scene.take(inputs, dim, index) for index in _ranges([half, half])]
    return scene.elementwise(*parts)


@rule("flip")
def flip(scene: Scene, node: Node, inputs: Labelled, dims: list[int]) -> Labelled:
    """Reverse axes."""
    for dim in dims:
        inputs = scene.take(inputs, dim % inputs.rank, np.arange(inputs.shape[dim])[::-1])
    return inputs


@rule("roll")
def roll(
    scene: Scene, node: Node, inputs: Labelled, shifts: list[int], dims: list[int] | None = None
) -> Labelled:
    """Rotate axes."""
    if not dims:
        raise UnsupportedError("roll over the flattened tensor")
    for shift, dim in zip(shifts, dims, strict=True):
        index = np.roll(np.arange(inputs.shape[dim]), shift)
        inputs = scene.take(inputs, dim % inputs.rank, index)
    return inputs


@rule("embedding")
def embedding(scene: Scene, node: Node, weight: Labelled, index: Labelled, *_: Any) -> Labelled:
    """Rows of a table by token."""
    scene.role(weight, "weight", "in", "out")
    scene.pin(weight, [0], Pin("input", f"token of {weight.shape[0]}"))
    rows = [None if each is None else each[..., None] for each in index.labels]
    columns = weight.labels[1]
    out = None if columns is None else along(columns.ravel(), index.rank, index.rank + 1)
    return Labelled((*index.shape, weight.shape[1]), (*rows, out))


@rule("index_select")
def index_select(scene: Scene, node: Node, inputs: Labelled, dim: int, index: Labelled) -> Labelled:
    """Positions of one axis by a vector of numbers."""
    return index_(scene, node, inputs, [*[None] * (dim % inputs.rank), index])  # type: ignore[no-any-return]


@rule("index")
def index_(scene: Scene, node: Node, inputs: Labelled, indices: list[Labelled | None]) -> Labelled:
    """Positions of neighbouring axes by arrays of numbers."""
    indexed = [dim for dim, index in enumerate(indices) if index is not None]
    first, last = indexed[0], indexed[-1]
    numbers = [index for index in indices if index is not None]
    free = [index for index in numbers if not all(map(scene.is_pinned, index.labels))]
    if free or len(indexed) != last - first + 1:
        raise UnsupportedError("indexing by numbers that move, or of axes apart")
    scene.pin(inputs, indexed, Pin("fixed", "indexed"))
    shape = output_shape(node)
    rest = scene.reduce(inputs, indexed, keepdim=False)
    added = len(shape) - rest.rank
    for _ in range(added):
        rest = scene.unsqueeze(rest, first)
    labels = list(rest.labels)
    for dim in range(first, first + added):
        labels[dim] = scene.fixed(shape[dim], dim, len(shape))
    return Labelled(shape, tuple(labels))


@rule("gather")
def gather(
    scene: Scene, node: Node, inputs: Labelled, dim: int, index: Labelled, **_: Any
) -> Labelled:
    """Positions of one axis, chosen anew everywhere else."""
    scene.pin(inputs, [dim % inputs.rank], Pin("fixed", "gathered"))
    return scene.elementwise(scene.reduce(inputs, [dim], keepdim=True), index)


@rule("index_add", "index_copy", "scatter_add", "scatter")
def index_add(
    scene: Scene,
    node: Node,
    inputs: Labelled,
    dim: int,
    index: Labelled,
    source: Labelled,
    *_: Any,
    **__: Any,
) -> Labelled:
    """Add rows of a source to rows named by number: those axes stay, the others move together."""
    if not all(map(scene.is_pinned, index.labels)):
        raise UnsupportedError("writing to positions that move")
    dim %= inputs.rank
    for tensor in (inputs, source):
        scene.pin(tensor, [dim], Pin("fixed", "indexed"))
    rest = [scene.reduce(tensor, [dim], keepdim=True) for tensor in (inputs, source)]
    merged = scene.elementwise(*rest)
    labels = list(merged.labels)
    labels[dim] = scene.fixed(inputs.shape[dim], dim, inputs.rank)
    return Labelled(inputs.shape, tuple(labels))


@rule("tril", "triu")
def triangle(scene: Scene, node: Node, inputs: Labelled, *_: Any) -> Labelled:
    """Pin the last two axes: they are compared by position."""
    dims = [inputs.rank - 2, inputs.rank - 1]
    scene.pin(inputs, dims, Pin("fixed", "triangle"))
    labels = list(inputs.labels)
    for dim in dims:
        if labels[dim] is None:
            labels[dim] = scene.fixed(inputs.shape[dim], dim, inputs.rank)
    return Labelled(inputs.shape, tuple(labels))


def _ranges(lengths: list[int]) -> list[np.ndarray]:
    ends = np.cumsum([0, *lengths])
    return [np.arange(start, end) for start, end in zip(ends[:-1], ends[1:], strict=True)]
