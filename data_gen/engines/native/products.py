"""Linear layers and convolutions, forward and backward, as products of register tiles.

The sizes of each product are written in the order of
:func:`~data_gen.engines.native.tile.contract`: counts, then ``x`` with its strides and the lengths
of the sums, then ``w``, what sums start from, and where they go. Gradients of weights start from
what is there: they add up over samples, in the order of samples.
"""

from typing import Any

import numpy as np

from data_gen.engines.native import lines
from data_gen.engines.native import table as t
from data_gen.engines.native.jit import Real, kernel
from data_gen.engines.native.planes import grad_pixel, pixel
from data_gen.engines.native.tile import NO_LIMIT, contract

_0 = np.float32(0)


@kernel
def _low(row: Any) -> Real:
    """Return the lower bound of a layer's results: 0 where ReLU follows."""
    return _0 if row.fused else NO_LIMIT


@kernel
def _start(row: Any, out: int) -> tuple[int, int]:
    """Return what sums that go to ``out`` start from, and 1 where that is ``out`` itself."""
    add = row.mode == t.ADD
    return (out if add else t.ZERO), (1 if add else 0)


# fmt: off
# ---- linear: rows are samples -------------------------------------------------------------------
@kernel
def linear(
    product: int,
    row: Any,
    source: Any,
    target: Any,
    memory: np.ndarray,
    count: int,
) -> None:
    """Compute ``x w + b``."""
    contract(product, memory, (
        1, count, target.wide,
        source.data, 0, source.data_step, 1, 0, 1, 0, source.channels, 1,
        row.weight, 0, 0, target.wide,
        row.bias, 0, 0,
        target.data, 0, target.data_step,
    ), _low(row))


@kernel
def linear_gradient(
    product: int,
    row: Any,
    source: Any,
    target: Any,
    memory: np.ndarray,
    count: int,
    shift: int,
) -> None:
    """Add to the gradients of weights and biases; hand the rest on to the source."""
    wide, weight, bias = target.wide, row.weight + shift, row.bias + shift
    slope, step = target.grad, target.grad_step
    contract(product, memory, (
        1, source.channels, wide,
        source.data, 0, 1, 1, 0, 1, 0, count, source.data_step,
        slope, 0, 0, step,
        weight, 0, wide,
        weight, 0, wide,
    ), NO_LIMIT)
    if row.has_bias:
        contract(product, memory, (
            1, 1, wide, t.ONE, 0, 0, 1, 0, 1, 0, count, 0,
            slope, 0, 0, step, bias, 0, 0, bias, 0, 0,
        ), NO_LIMIT)
    if row.mode != t.SKIP:
        start, own = _start(row, source.grad)
        contract(product, memory, (
            1, count, source.wide,
            slope, 0, step, 1, 0, 1, 0, target.channels, 1,
            row.turned, 0, 0, source.wide,
            start, 0, own * source.grad_step,
            source.grad, 0, source.grad_step,
        ), NO_LIMIT)


# ---- convolution: rows are the pixels of a line -------------------------------------------------
@kernel
def convolve(
    product: int,
    row: Any,
    source: Any,
    target: Any,
    memory: np.ndarray,
    count: int,
) -> None:
    """Correlate images with kernels; a line of a kernel is one sum where channels have no gaps."""
    wide, deep, channels = target.wide, source.wide, source.channels
    line = (source.width + 2 * source.edge) * deep
    taps, depth = (1, row.kx * deep) if channels == deep else (row.kx, channels)
    for sample in range(count):
        contract(product, memory, (
            target.height, target.width, wide,
            pixel(source, sample, -row.py, -row.px), row.sy * line, row.sx * deep,
            row.ky, line, taps, deep, depth, 1,
            row.weight, row.kx * channels * wide, channels * wide, wide,
            row.bias, 0, 0,
            pixel(target, sample, 0, 0), (target.width + 2 * target.edge) * wide, wide,
        ), _low(row))


@kernel
def convolve_gradient(
    product: int,
    row: Any,
    source: Any,
    target: Any,
    memory: np.ndarray,
    count: int,
    shift: int,
) -> None:
    """Add to the gradients of kernels and biases; hand the rest on to the source."""
    _kernel_gradient(product, row, source, target, memory, count, shift)
    wide, bias = target.wide, row.bias + shift
    if row.has_bias:
        line = (target.width + 2 * target.grad_edge) * wide
        contract(product, memory, (
            1, 1, wide,
            t.ONE, 0, 0, count, 0, target.height, 0, target.width, 0,
            grad_pixel(target, 0, 0, 0), target.grad_step, line, wide,
            bias, 0, 0, bias, 0, 0,
        ), NO_LIMIT)
    if row.mode != t.SKIP:
        for sample in range(count):
            _image_gradient(product, row, source, target, memory, sample)


@kernel
def _kernel_gradient(
    product: int,
    row: Any,
    source: Any,
    target: Any,
    memory: np.ndarray,
    count: int,
    shift: int,
) -> None:
    """Sum over samples and pixels; rows are the entries of a line of the kernel."""
    wide, deep, channels = target.wide, source.wide, source.channels
    line = (source.width + 2 * source.edge) * deep
    own_line = (target.width + 2 * target.grad_edge) * wide
    first, slope = pixel(source, 0, -row.py, -row.px), grad_pixel(target, 0, 0, 0)
    whole = channels == deep
    height = row.kx * channels if whole else channels
    for tap in range(1 if whole else row.kx):
        weight = row.weight + shift + tap * channels * wide
        contract(product, memory, (
            row.ky, height, wide,
            first + tap * deep, line, 1,
            count, source.data_step,
            target.height, row.sy * line, target.width, row.sx * deep,
            slope, target.grad_step, own_line, wide,
            weight, row.kx * channels * wide, wide,
            weight, row.kx * channels * wide, wide,
        ), NO_LIMIT)


@kernel
def _image_gradient(
    product: int,
    row: Any,
    source: Any,
    target: Any,
    memory: np.ndarray,
    sample: int,
) -> None:
    """Correlate backwards: pixels at places of one remainder by the stride meet the same taps."""
    wide, deep, channels = target.wide, source.wide, target.channels
    line = (source.width + 2 * source.grad_edge) * deep
    own_line = (target.width + 2 * target.grad_edge) * wide
    tap = channels * deep
    for y in range(row.sy):
        top, height, taps_y = _class(y, row.sy, row.py, row.ky, source.height)
        for x in range(row.sx):
            left, width, taps_x = _class(x, row.sx, row.px, row.kx, source.width)
            if height <= 0 or width <= 0:
                continue
            out = grad_pixel(source, sample, top - row.py, left - row.px)
            start, own = _start(row, out)
            contract(product, memory, (
                height, width, deep,
                grad_pixel(target, sample, top // row.sy, left // row.sx), own_line, wide,
                taps_y, -own_line, taps_x, -wide, channels, 1,
                row.turned + (y * row.kx + x) * tap,
                row.sy * row.kx * tap, row.sx * tap, deep,
                start, own * row.sy * line, own * row.sx * deep,
                out, row.sy * line, row.sx * deep,
            ), NO_LIMIT)


# ---- no product at all --------------------------------------------------------------------------
@kernel
def move(
    product: int,
    memory: np.ndarray,
    sizes: tuple[int, int, int],
    source: int,
    target: int,
    steps: tuple[int, int, int, int],
) -> None:
    """Copy lines of pixels of channels; ``steps`` between lines and pixels of source and target."""
    height, width, wide = sizes
    contract(product, memory, (
        height, width, wide,
        0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0,
        source, steps[0], steps[1],
        target, steps[2], steps[3],
    ), NO_LIMIT)
# fmt: on


@kernel
def _class(rest: int, stride: int, padding: int, size: int, length: int) -> tuple[int, int, int]:
    """Return the first place of a remainder, counted from the padding, how many, and their taps."""
    first = padding + (rest - padding) % stride
    places = (length - 1 - (first - padding)) // stride + 1
    taps = (size - rest + stride - 1) // stride if rest < size else 0
    return first, places, taps


@kernel
def turn_weights(row: Any, source: Any, target: Any, memory: np.ndarray) -> None:
    """Exchange in and out of a layer's weights, for the way back."""
    wide, deep = target.wide, source.wide
    inputs, outputs = source.channels, target.channels
    for tap in range(row.ky * row.kx):
        start = row.turned + tap * outputs * deep
        lines.turn(memory, start, row.weight + tap * inputs * wide, outputs, inputs, deep, wide)
