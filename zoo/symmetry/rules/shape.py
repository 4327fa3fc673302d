"""Operators that rearrange axes."""

from math import prod
from typing import Any

import numpy as np
from torch.fx import Node

from zoo.symmetry.labels import Labelled, Labels, Scene, UnsupportedError
from zoo.symmetry.rules.registry import output_shape, rule
from zoo.symmetry.units import Pin


@rule("permute")
def permute(scene: Scene, node: Node, inputs: Labelled, dims: list[int]) -> Labelled:
    """Reorder axes."""
    return Labelled(
        tuple(inputs.shape[dim] for dim in dims), tuple(inputs.labels[dim] for dim in dims)
    )


@rule("transpose", "t")
def transpose(
    scene: Scene, node: Node, inputs: Labelled, first: int = 0, second: int = -1
) -> Labelled:
    """Swap two axes (of a vector, none)."""
    order = list(range(len(inputs.shape)))
    if order:
        order[first], order[second] = order[second], order[first]
    return Labelled(
        tuple(inputs.shape[dim] for dim in order), tuple(inputs.labels[dim] for dim in order)
    )


@rule("view", "reshape", "flatten", "unflatten", "_unsafe_view", "squeeze", "unsqueeze")
def reshape(scene: Scene, node: Node, inputs: Labelled, *_: Any) -> Labelled:
    """Merge neighbouring axes, or split axes of which no position moves."""
    shape = output_shape(node)
    source = [axis for axis in zip(inputs.shape, inputs.labels, strict=True) if axis[0] != 1]
    labels: list[Labels] = []
    for length in shape:
        labels.append(None if length == 1 else _next(scene, source, length))
    return Labelled(shape, tuple(labels))


def _next(scene: Scene, source: list[tuple[int, Labels]], length: int) -> Labels:
    """Take axes off the front of ``source`` until they make one of ``length`` positions."""
    taken: list[tuple[int, Labels]] = []
    while source and prod(axis[0] for axis in taken) < length:
        taken.append(source.pop(0))
    if (excess := prod(axis[0] for axis in taken)) == length:
        return _merge(scene, taken)
    if excess % length or not all(scene.is_pinned(labels) for _, labels in taken):
        raise UnsupportedError("an axis of hidden units is split")
    source.insert(0, (excess // length, scene.fixed(excess // length)))
    return scene.fixed(length)


def _merge(scene: Scene, axes: list[tuple[int, Labels]]) -> Labels:
    """Units of a merged axis: each unit of the one moving axis owns a block of positions."""
    if len(axes) == 1:
        return axes[0][1]
    lengths = [length for length, _ in axes]
    moving = [dim for dim, (_, labels) in enumerate(axes) if not scene.is_pinned(labels)]
    if not moving:
        return scene.pinned(prod(lengths), _merged_pin(scene, axes))
    if len(moving) > 1:
        raise UnsupportedError("two axes of hidden units are merged")
    labels = axes[moving[0]][1]
    assert labels is not None
    grid = labels.reshape([-1 if dim == moving[0] else 1 for dim in range(len(axes))])
    return np.broadcast_to(grid, lengths).ravel()


def _merged_pin(scene: Scene, axes: list[tuple[int, Labels]]) -> Pin:
    """Name a merged pinned axis after its parts, so that a flattened image is still the input."""
    pins = [
        scene.units.pin_of(int(scene.units.find(labels)[0]))
        for _, labels in axes
        if labels is not None
    ]
    kinds = {pin.kind for pin in pins if pin is not None}
    label = " x ".join(dict.fromkeys(pin.label for pin in pins if pin is not None))
    return Pin(kinds.pop(), label) if len(kinds) == 1 else Pin("fixed", label or scene.layer)
