"""Pooling: the largest or the mean number of a window, forward and backward.

Work goes by taps, one entry of the window for all windows at a time. Windows end at the rim of an
image: what lies outside is never larger and adds nothing.
"""

from typing import Any

import numpy as np

from data_gen.engines.native import lines
from data_gen.engines.native import table as t
from data_gen.engines.native.jit import kernel
from data_gen.engines.native.planes import grad_pixel, pixel
from data_gen.engines.native.products import move

_0, _1 = np.float32(0), np.float32(1)
_LOWEST = np.float32(-np.inf)


@kernel
def pool(
    product: int, row: Any, source: Any, target: Any, memory: np.ndarray, count: int, scratch: int
) -> None:
    """Take the largest number of each window, the first where several are, or the mean of all."""
    for sample in range(count):
        for y in range(target.height):
            start = pixel(target, sample, y, 0)
            line = memory[start : start + target.width * target.wide]
            lines.fill(line, _LOWEST if row.op == t.MAX_POOL else _0)
        for tap in range(row.ky * row.kx):
            if row.op == t.MAX_POOL:
                _keep_larger(product, row, source, target, memory, sample, tap, scratch)
            else:
                _add_mean(row, source, target, memory, sample, tap)


@kernel
def pool_gradient(
    product: int, row: Any, source: Any, target: Any, memory: np.ndarray, count: int, scratch: int
) -> None:
    """Hand gradients on to the largest numbers, or to all numbers in equal parts."""
    if row.mode == t.SET:
        _clear(source, memory, count)
    apart = row.mode == t.SET and row.sy >= row.ky and row.sx >= row.kx
    for sample in range(count):
        for tap in range(row.ky * row.kx):
            if row.op == t.AVERAGE_POOL:
                _spread_mean(row, source, target, memory, sample, tap)
            elif apart:
                _set_largest(product, row, source, target, memory, sample, tap, scratch)
            else:
                _add_to_largest(row, source, target, memory, sample, tap)


# ---- the largest: taps are brought together, then compared line by line --------------------------
@kernel
def _keep_larger(
    product: int,
    row: Any,
    source: Any,
    target: Any,
    memory: np.ndarray,
    sample: int,
    tap: int,
    scratch: int,
) -> None:
    top, height, left, width = _reach(row, source, target, tap)
    if height * width == 0:
        return
    length, line = width * target.wide, (source.width + 2 * source.edge) * source.wide
    at = pixel(source, sample, *_seen(row, tap, top, left))
    sizes = (height, width, target.wide)
    steps = (row.sy * line, row.sx * source.wide, length, target.wide)
    move(product, memory, sizes, at, scratch, steps)
    for y in range(height):
        out, values = pixel(target, sample, top + y, left), scratch + y * length
        who = out + row.slope - target.data
        lines.keep_larger(
            memory[out : out + length],
            memory[who : who + length],
            memory[values : values + length],
            np.float32(tap),
        )


@kernel
def _set_largest(
    product: int,
    row: Any,
    source: Any,
    target: Any,
    memory: np.ndarray,
    sample: int,
    tap: int,
    scratch: int,
) -> None:
    """Write gradients where no two windows meet."""
    top, height, left, width = _reach(row, source, target, tap)
    if height * width == 0:
        return
    length, line = width * target.wide, (source.width + 2 * source.grad_edge) * source.wide
    for y in range(height):
        out, values = grad_pixel(target, sample, top + y, left), scratch + y * length
        who = pixel(target, sample, top + y, left) + row.slope - target.data
        lines.pick(
            memory[values : values + length],
            memory[out : out + length],
            memory[who : who + length],
            np.float32(tap),
        )
    at = grad_pixel(source, sample, *_seen(row, tap, top, left))
    sizes = (height, width, target.wide)
    steps = (length, target.wide, row.sy * line, row.sx * source.wide)
    move(product, memory, sizes, scratch, at, steps)


@kernel
def _add_to_largest(
    row: Any, source: Any, target: Any, memory: np.ndarray, sample: int, tap: int
) -> None:
    top, height, left, width = _reach(row, source, target, tap)
    for y in range(top, top + height):
        at = grad_pixel(source, sample, *_seen(row, tap, y, left))
        out, who = grad_pixel(target, sample, y, left), pixel(target, sample, y, left)
        aside, step = who + row.slope - target.data, row.sx * target.wide
        lines.add_where(memory, at, step, out, aside, target.wide, width, np.float32(tap))


# ---- the mean -----------------------------------------------------------------------------------
@kernel
def _add_mean(
    row: Any, source: Any, target: Any, memory: np.ndarray, sample: int, tap: int
) -> None:
    top, height, left, width = _reach(row, source, target, tap)
    wide, part = target.wide, _1 / np.float32(row.ky * row.kx)
    for y in range(top, top + height):
        at, out = pixel(source, sample, *_seen(row, tap, y, left)), pixel(target, sample, y, left)
        lines.add_apart(memory, out, wide, at, row.sx * wide, wide, width, part)


@kernel
def _spread_mean(
    row: Any, source: Any, target: Any, memory: np.ndarray, sample: int, tap: int
) -> None:
    top, height, left, width = _reach(row, source, target, tap)
    wide, part = target.wide, _1 / np.float32(row.ky * row.kx)
    for y in range(top, top + height):
        at = grad_pixel(source, sample, *_seen(row, tap, y, left))
        out = grad_pixel(target, sample, y, left)
        lines.add_apart(memory, at, row.sx * wide, out, wide, wide, width, part)


# ---- windows ------------------------------------------------------------------------------------
@kernel
def _reach(row: Any, source: Any, target: Any, tap: int) -> tuple[int, int, int, int]:
    """Return the windows whose entry ``tap`` is inside the image: first and count in y, in x."""
    j = tap // row.kx
    top, height = _inside(row.sy, row.py - j, source.height, target.height)
    left, width = _inside(row.sx, row.px - (tap - j * row.kx), source.width, target.width)
    return top, height, left, width


@kernel
def _inside(stride: int, before: int, length: int, windows: int) -> tuple[int, int]:
    first = max(0, (before + stride - 1) // stride)
    last = min(windows - 1, (length - 1 + before) // stride)
    return first, max(0, last - first + 1)


@kernel
def _seen(row: Any, tap: int, y: int, x: int) -> tuple[int, int]:
    """Return the pixel that a window has as its entry ``tap``."""
    j = tap // row.kx
    return y * row.sy - row.py + j, x * row.sx - row.px + tap - j * row.kx


@kernel
def _clear(plane: Any, memory: np.ndarray, count: int) -> None:
    for number in range(count * plane.height):
        start = grad_pixel(plane, number // plane.height, number % plane.height, 0)
        lines.fill(memory[start : start + plane.width * plane.wide], _0)
