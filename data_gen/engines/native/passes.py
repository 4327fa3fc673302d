"""Samples through the rows of a table: forward, and backward."""

from typing import Any

import numpy as np

from data_gen.engines.native import lines
from data_gen.engines.native import table as t
from data_gen.engines.native.jit import Real, kernel
from data_gen.engines.native.norms import normalise, normalise_gradient
from data_gen.engines.native.planes import (
    activate_plane,
    copy_gradient,
    copy_plane,
    drop,
    flatten,
    flatten_gradient,
    multiply_gradient,
    pixel,
    scale_gradient,
    scale_plane,
)
from data_gen.engines.native.pools import pool, pool_gradient
from data_gen.engines.native.products import (
    convolve,
    convolve_gradient,
    linear,
    linear_gradient,
    turn_weights,
)


@kernel
def load(plane: Any, memory: np.ndarray, inputs: np.ndarray, indices: np.ndarray) -> None:
    """Bring samples ``[channel, y, x]`` into the input's plane."""
    size, width, wide = plane.height * plane.width, plane.width, plane.wide
    for sample in range(len(indices)):
        index = indices[sample]
        if index < 0 or index >= len(inputs):
            raise IndexError("a batch names a sample that does not exist")
        if size == 1:
            lines.copy_row(memory, pixel(plane, sample, 0, 0), 1, inputs, index, 0, plane.channels)
            continue
        for c in range(plane.channels):
            for y in range(plane.height):
                at, first = pixel(plane, sample, y, 0) + c, c * size + y * width
                lines.copy_row(memory, at, wide, inputs, index, first, width)


@kernel
def turn_all(rows: np.ndarray, planes: np.ndarray, memory: np.ndarray) -> None:
    """Bring all weights into the form that the way back needs."""
    for row in rows:
        if row.turned > 0:
            turn_weights(row, planes[row.source], planes[row.target], memory)


@kernel
def forward(
    product: int,
    rows: np.ndarray,
    planes: np.ndarray,
    memory: np.ndarray,
    count: int,
    scratch: int,
    draws: np.ndarray,
    done: int,
    batch: int,
    dropout: Real,
) -> None:
    """Compute all planes for ``count`` samples, of which ``done`` came before in their batch."""
    for row in rows:
        source, target = planes[row.source], planes[row.target]
        if row.op == t.LINEAR:
            linear(product, row, source, target, memory, count)
        elif row.op == t.CONV:
            convolve(product, row, source, target, memory, count)
        elif row.op == t.ACTIVATE:
            activate_plane(row, target, memory, count)
        elif row.op == t.DROP:
            _drop_some(row, target, memory, count, draws, done, batch, dropout)
        elif row.op == t.SCALE:
            scale_plane(row, target, memory, count)
        elif row.op == t.NORM:
            normalise(row, source, target, memory, count, scratch)
        elif row.op == t.COPY:
            copy_plane(row, source, target, memory, count)
        elif row.op == t.FLATTEN:
            flatten(source, target, memory, count)
        else:
            pool(product, row, source, target, memory, count, scratch)


@kernel
def _drop_some(
    row: Any,
    target: Any,
    memory: np.ndarray,
    count: int,
    draws: np.ndarray,
    done: int,
    batch: int,
    dropout: Real,
) -> None:
    """Drop by this step's numbers: they come layer by layer, for a whole batch each."""
    if not len(draws):
        return
    size = target.channels * target.height * target.width
    first = row.first_draw * batch + done * size
    own = draws[first : first + count * size]
    if len(own) < count * size:
        raise IndexError("dropout needs more numbers")
    drop(row, dropout if dropout >= 0 else row.factor, target, memory, count, own)


@kernel
def backward(
    product: int,
    rows: np.ndarray,
    planes: np.ndarray,
    memory: np.ndarray,
    count: int,
    scratch: int,
    shift: int,
    dropped: bool,  # noqa: FBT001
) -> None:
    """Add to the gradients of all weights, given that of the output; ``shift`` leads to them."""
    for r in range(len(rows) - 1, -1, -1):
        row = rows[r]
        source, target = planes[row.source], planes[row.target]
        if row.op == t.LINEAR:
            linear_gradient(product, row, source, target, memory, count, shift)
        elif row.op == t.CONV:
            convolve_gradient(product, row, source, target, memory, count, shift)
        elif row.op == t.NORM:
            normalise_gradient(row, source, target, memory, count, scratch, shift)
        elif row.mode == t.SKIP:
            continue
        elif row.op == t.ACTIVATE:
            multiply_gradient(row, target, memory, count)
        elif row.op == t.DROP:
            if dropped:
                multiply_gradient(row, target, memory, count)
        elif row.op == t.SCALE:
            scale_gradient(row, target, memory, count)
        elif row.op == t.COPY:
            copy_gradient(row, source, target, memory, count)
        elif row.op == t.FLATTEN:
            flatten_gradient(row, source, target, memory, count)
        else:
            pool_gradient(product, row, source, target, memory, count, scratch)
