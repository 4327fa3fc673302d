"""Layers without products: what happens to planes of numbers, forward and backward.

Of a plane with an edge only the pixels inside are touched: its rows are *runs* of neighbouring
numbers. A plane without an edge is one run, over all samples.
"""

from typing import Any

import numpy as np

from data_gen.engines.native import lines
from data_gen.engines.native import table as t
from data_gen.engines.native.activations import activate
from data_gen.engines.native.jit import Real, kernel

_0, _1 = np.float32(0), np.float32(1)


# ---- where numbers lie --------------------------------------------------------------------------
@kernel
def pixel(plane: Any, sample: int, y: int, x: int) -> int:
    """Return the offset of a pixel's data."""
    edge, width = plane.edge, plane.width
    row = (y + edge) * (width + 2 * edge) + x + edge
    place: int = plane.data + sample * plane.data_step + row * plane.wide
    return place


@kernel
def grad_pixel(plane: Any, sample: int, y: int, x: int) -> int:
    """Return the offset of a pixel's gradient."""
    edge, width = plane.grad_edge, plane.width
    row = (y + edge) * (width + 2 * edge) + x + edge
    place: int = plane.grad + sample * plane.grad_step + row * plane.wide
    return place


@kernel
def run(plane: Any, number: int) -> int:
    """Return the offset of a run of data."""
    sample = number // plane.height
    return pixel(plane, sample, number - sample * plane.height, 0)


@kernel
def grad_run(plane: Any, number: int) -> int:
    """Return the offset of a run of gradients."""
    sample = number // plane.height
    return grad_pixel(plane, sample, number - sample * plane.height, 0)


@kernel
def runs(one: Any, other: Any, count: int) -> tuple[int, int]:
    """Return how many runs two planes of one shape have, and how long they are."""
    length = one.width * one.wide
    if one.edge + one.grad_edge + other.edge + other.grad_edge == 0:
        return 1, count * one.height * length
    return count * one.height, length


@kernel
def put(memory: np.ndarray, target: int, source: int, length: int, add: bool) -> None:  # noqa: FBT001
    """Copy a run of numbers to another place, or add it to what is there."""
    if add:
        lines.add(memory[target : target + length], memory[source : source + length], _1)
    else:
        lines.copy(memory[target : target + length], memory[source : source + length])


# ---- in place: activations, dropout, factors ----------------------------------------------------
@kernel
def activate_plane(row: Any, plane: Any, memory: np.ndarray, count: int) -> None:
    """Apply an activation, unless the product before it has done so."""
    if row.fused:
        return
    number, length = runs(plane, plane, count)
    for each in range(number):
        start = run(plane, each)
        aside = start + row.slope - plane.data
        if row.kind == t.RELU:
            lines.rectify(memory[start : start + length])
        else:
            values, slope = memory[start : start + length], memory[aside : aside + length]
            activate(row.kind, values, slope, row.factor)


@kernel
def multiply_gradient(row: Any, plane: Any, memory: np.ndarray, count: int) -> None:
    """Multiply a gradient by the derivatives or the mask that the way forward left."""
    number, length = runs(plane, plane, count)
    for each in range(number):
        start, slot = grad_run(plane, each), run(plane, each)
        aside = slot + row.slope - plane.data
        gradient = memory[start : start + length]
        if row.op == t.ACTIVATE and row.kind == t.RELU:
            lines.mask(gradient, memory[slot : slot + length])
        else:
            lines.multiply(gradient, memory[aside : aside + length])


@kernel
def drop(
    row: Any,
    probability: Real,
    plane: Any,
    memory: np.ndarray,
    count: int,
    draws: np.ndarray,
) -> None:
    """Zero entries whose number is below the probability, scale the others.

    ``draws`` are uniform numbers ``[count, channel, y, x]``.
    """
    height, width = plane.height, plane.width
    scale = _1 / (_1 - probability)
    size = height * width
    for sample in range(count):
        for y in range(height):
            for x in range(width):
                start = pixel(plane, sample, y, x)
                aside = start + row.slope - plane.data
                first = sample * size * plane.channels + y * width + x
                lines.drop(
                    memory[start : start + plane.channels],
                    memory[aside : aside + plane.channels],
                    draws[first:],
                    size,
                    probability,
                    scale,
                )


@kernel
def scale_plane(row: Any, plane: Any, memory: np.ndarray, count: int) -> None:
    """Multiply by a constant and add another."""
    number, length = runs(plane, plane, count)
    for each in range(number):
        start = run(plane, each)
        lines.scale(memory[start : start + length], row.factor, row.shift)


@kernel
def scale_gradient(row: Any, plane: Any, memory: np.ndarray, count: int) -> None:
    """Multiply a gradient by a constant."""
    number, length = runs(plane, plane, count)
    for each in range(number):
        start = grad_run(plane, each)
        lines.scale(memory[start : start + length], row.factor, _0)


# ---- from plane to plane ------------------------------------------------------------------------
@kernel
def copy_plane(row: Any, source: Any, target: Any, memory: np.ndarray, count: int) -> None:
    """Copy a plane, or add it to another (KIND 1)."""
    number, length = runs(source, target, count)
    for each in range(number):
        put(memory, run(target, each), run(source, each), length, row.kind == 1)


@kernel
def copy_gradient(row: Any, source: Any, target: Any, memory: np.ndarray, count: int) -> None:
    """Hand the target's gradient on to the source."""
    number, length = runs(source, target, count)
    for each in range(number):
        add = row.mode == t.ADD
        put(memory, grad_run(source, each), grad_run(target, each), length, add)


@kernel
def flatten(source: Any, target: Any, memory: np.ndarray, count: int) -> None:
    """Lay the channels of an image out one after the other."""
    size = source.height * source.width
    for sample in range(count):
        first = target.data + sample * target.data_step
        for place in range(size):
            start = pixel(source, sample, place // source.width, place % source.width)
            for c in range(source.channels):
                memory[first + c * size + place] = memory[start + c]


@kernel
def flatten_gradient(row: Any, source: Any, target: Any, memory: np.ndarray, count: int) -> None:
    """Bring the gradient of a long vector back into the form of an image."""
    size = source.height * source.width
    for sample in range(count):
        first = target.grad + sample * target.grad_step
        for place in range(size):
            start = grad_pixel(source, sample, place // source.width, place % source.width)
            for c in range(source.channels):
                before = memory[start + c] if row.mode == t.ADD else _0
                memory[start + c] = before + memory[first + c * size + place]
