"""Normalisation by groups of channels of one sample, forward and backward [1]_.

One group is layer normalisation of a vector or, with gains per entry, of an image.

References
----------
.. [1] Wu and He, "Group Normalization", ECCV 2018, Eqs. (1)-(6).
"""

import math
from typing import Any

import numpy as np

from data_gen.engines.native import table as t
from data_gen.engines.native.jit import kernel
from data_gen.engines.native.planes import grad_pixel, pixel

_0 = np.float32(0)


@kernel
def _parameter(row: Any, target: Any, y: int, x: int) -> int:
    """Return where a pixel's gains start: with KIND 1 each entry has its own."""
    place: int = row.kind * (y * target.width + x) * target.wide
    return place


@kernel
def normalise(
    row: Any,
    source: Any,
    target: Any,
    memory: np.ndarray,
    count: int,
    scratch: int,
) -> None:
    """Subtract the mean, divide by the deviation, scale and shift; keep the normal numbers."""
    wide = source.wide
    for sample in range(count):
        sums, centre = memory[scratch : scratch + wide], memory[scratch + wide : scratch + 2 * wide]
        stats = row.stats + sample * wide
        rate = memory[stats : stats + wide]
        centre[:] = _0
        _sum_squares(source, memory, sample, centre, sums, power=1)
        _share(sums, centre, source, row.groups)
        _sum_squares(source, memory, sample, centre, sums, power=2)
        _share(sums, rate, source, row.groups)
        for c in range(source.channels):
            rate[c] = np.float32(1 / math.sqrt(np.float64(rate[c]) + np.float64(row.factor)))
        for y in range(source.height):
            for x in range(source.width):
                at, out = pixel(source, sample, y, x), pixel(target, sample, y, x)
                aside = out + row.slope - target.data
                own = _parameter(row, target, y, x)
                gain = memory[row.weight + own : row.weight + own + wide]
                shift = memory[row.bias + own : row.bias + own + wide]
                values, result = memory[at : at + wide], memory[out : out + wide]
                normal = memory[aside : aside + wide]
                for c in range(wide):
                    normal[c] = (values[c] - centre[c]) * rate[c]
                    result[c] = normal[c] * gain[c] + shift[c]


@kernel
def _sum_squares(
    plane: Any,
    memory: np.ndarray,
    sample: int,
    centre: np.ndarray,
    sums: np.ndarray,
    power: int,
) -> None:
    """Sum what channels are above their centre, or the square of it, over all pixels."""
    sums[:] = _0
    for y in range(plane.height):
        for x in range(plane.width):
            at = pixel(plane, sample, y, x)
            values = memory[at : at + len(sums)]
            if power == 1:
                for c in range(len(sums)):
                    sums[c] += values[c] - centre[c]
            else:
                for c in range(len(sums)):
                    sums[c] += (values[c] - centre[c]) * (values[c] - centre[c])


@kernel
def _share(sums: np.ndarray, means: np.ndarray, plane: Any, groups: int) -> None:
    """Give each channel the mean over its group, of all entries; filling has 0."""
    size = plane.channels // groups
    entries = size * plane.height * plane.width
    for group in range(groups):
        total = 0.0
        for c in range(group * size, (group + 1) * size):
            total += np.float64(sums[c])
        for c in range(group * size, (group + 1) * size):
            means[c] = np.float32(total / entries)


@kernel
def normalise_gradient(
    row: Any,
    source: Any,
    target: Any,
    memory: np.ndarray,
    count: int,
    scratch: int,
    shift: int,
) -> None:
    """Add to the gradients of gains and shifts, and hand the rest on to the source."""
    wide = source.wide
    sums = memory[scratch : scratch + wide]
    products = memory[scratch + wide : scratch + 2 * wide]
    for sample in range(count):
        sums[:] = _0
        products[:] = _0
        for y in range(source.height):
            for x in range(source.width):
                out = grad_pixel(target, sample, y, x)
                aside = pixel(target, sample, y, x) + row.slope - target.data
                own = row.weight + _parameter(row, target, y, x)
                below = row.bias + _parameter(row, target, y, x) + shift
                slope, normal = memory[out : out + wide], memory[aside : aside + wide]
                gain, of_gain = memory[own : own + wide], memory[own + shift : own + shift + wide]
                of_shift = memory[below : below + wide]
                for c in range(wide):
                    of_gain[c] += slope[c] * normal[c]
                    of_shift[c] += slope[c]
                    sums[c] += slope[c] * gain[c]
                    products[c] += slope[c] * gain[c] * normal[c]
        if row.mode != t.SKIP:
            _share(sums, sums, source, row.groups)
            _share(products, products, source, row.groups)
            _hand_on(row, source, target, memory, sample, sums, products)


@kernel
def _hand_on(
    row: Any,
    source: Any,
    target: Any,
    memory: np.ndarray,
    sample: int,
    sums: np.ndarray,
    products: np.ndarray,
) -> None:
    wide = len(sums)
    stats = row.stats + sample * wide
    rate = memory[stats : stats + wide]
    for y in range(source.height):
        for x in range(source.width):
            at, out = grad_pixel(source, sample, y, x), grad_pixel(target, sample, y, x)
            aside = pixel(target, sample, y, x) + row.slope - target.data
            own = row.weight + _parameter(row, target, y, x)
            slope, normal, gain = (
                memory[out : out + wide],
                memory[aside : aside + wide],
                memory[own : own + wide],
            )
            result = memory[at : at + wide]
            for c in range(wide):
                part = rate[c] * (slope[c] * gain[c] - sums[c] - normal[c] * products[c])
                result[c] = result[c] + part if row.mode == t.ADD else part
