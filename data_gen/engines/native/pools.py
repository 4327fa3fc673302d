"""Pooling: the largest or the mean number of a window, forward and backward.

Work goes by lines: one entry of the window, for all windows of a line at a time. Windows end at the
rim of an image: what lies outside is never larger and adds nothing.
"""

from typing import Any

import numpy as np

from data_gen.engines.native import lines
from data_gen.engines.native import table as t
from data_gen.engines.native.jit import kernel
from data_gen.engines.native.planes import grad_pixel, pixel

_0, _1 = np.float32(0), np.float32(1)
_LOWEST = np.float32(-np.inf)


@kernel
def pool(row: Any, source: Any, target: Any, memory: np.ndarray, count: int) -> None:
    """Take the largest number of each window, the first where several are, or the mean of all."""
    largest = row.op == t.MAX_POOL
    wide, part = target.wide, _1 / np.float32(row.ky * row.kx)
    for number in range(count * target.height):
        sample = number // target.height
        y = number - sample * target.height
        start = pixel(target, sample, y, 0)
        lines.fill(memory[start : start + target.width * wide], _LOWEST if largest else _0)
        for j in range(row.ky):
            line = y * row.sy - row.py + j
            if line < 0 or line >= source.height:
                continue
            for i in range(row.kx):
                first, windows = _reach(row, source, target, i)
                at = pixel(source, sample, line, first * row.sx - row.px + i)
                out, step = start + first * wide, row.sx * wide
                if largest:
                    aside = out + row.slope - target.data
                    place = np.float32(j * row.kx + i)
                    lines.keep_larger(memory, out, aside, at, step, wide, windows, place)
                else:
                    lines.add_apart(memory, out, wide, at, step, wide, windows, part)


@kernel
def pool_gradient(row: Any, source: Any, target: Any, memory: np.ndarray, count: int) -> None:
    """Hand gradients on to the largest numbers, or to all numbers in equal parts."""
    if row.mode == t.SET:
        _clear(source, memory, count)
    wide, part = target.wide, _1 / np.float32(row.ky * row.kx)
    for number in range(count * target.height):
        sample = number // target.height
        y = number - sample * target.height
        aside = pixel(target, sample, y, 0) + row.slope - target.data
        start = grad_pixel(target, sample, y, 0)
        for j in range(row.ky):
            line = y * row.sy - row.py + j
            if line < 0 or line >= source.height:
                continue
            for i in range(row.kx):
                first, windows = _reach(row, source, target, i)
                at = grad_pixel(source, sample, line, first * row.sx - row.px + i)
                out, who, step = start + first * wide, aside + first * wide, row.sx * wide
                if row.op == t.MAX_POOL:
                    place = np.float32(j * row.kx + i)
                    lines.add_where(memory, at, step, out, who, wide, windows, place)
                else:
                    lines.add_apart(memory, at, step, out, wide, wide, windows, part)


@kernel
def _reach(row: Any, source: Any, target: Any, i: int) -> tuple[int, int]:
    """Return the first window of a line whose entry ``i`` is inside the image, and how many are."""
    if row.px == 0 and (target.width - 1) * row.sx + row.kx <= source.width:
        return 0, target.width
    before = row.px - i
    first = max(0, (before + row.sx - 1) // row.sx)
    last = min(target.width - 1, (source.width - 1 + before) // row.sx)
    return first, max(0, last - first + 1)


@kernel
def _clear(plane: Any, memory: np.ndarray, count: int) -> None:
    for number in range(count * plane.height):
        start = grad_pixel(plane, number // plane.height, number % plane.height, 0)
        lines.fill(memory[start : start + plane.width * plane.wide], _0)
