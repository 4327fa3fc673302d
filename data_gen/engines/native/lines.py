"""Loops over lines of numbers, each simple enough for LLVM to turn into vector code.

For that, no number is stored back as it was under a condition: LLVM would store the others only,
under a mask, which is slow. Conditions become factors of 0 and 1.
"""

import numpy as np

from data_gen.engines.native.jit import Real, kernel

_0, _NONE, _EIGHT = np.float32(0), np.uint64(0), np.uint64(8)


@kernel
def fill(target: np.ndarray, value: Real) -> None:
    """Set all numbers to one value."""
    for i in range(len(target)):
        target[i] = value


@kernel
def copy(target: np.ndarray, source: np.ndarray) -> None:
    """Copy numbers."""
    for i in range(len(target)):
        target[i] = source[i]


@kernel
def turn(
    memory: np.ndarray, target: int, source: int, rows: int, columns: int, deep: int, wide: int
) -> None:
    """Transpose: ``rows`` lines of ``deep`` numbers from ``columns`` lines of ``wide``."""
    to, start = np.uint64(target), np.uint64(source)
    for r in range(np.uint64(rows)):
        for c in range(np.uint64(columns)):
            memory[to + r * np.uint64(deep) + c] = memory[start + c * np.uint64(wide) + r]


@kernel
def copy_row(
    memory: np.ndarray,
    target: int,
    step: int,
    table: np.ndarray,
    row: int,
    start: int,
    count: int,
) -> None:
    """Copy neighbours in a row of a table to places that are some steps apart."""
    to, apart, line, first = np.uint64(target), np.uint64(step), np.uint64(row), np.uint64(start)
    if step == 1:
        for i in range(np.uint64(count)):
            memory[to + i] = table[line, first + i]
    else:
        for i in range(np.uint64(count)):
            memory[to + i * apart] = table[line, first + i]


@kernel
def is_finite(values: np.ndarray) -> bool:
    """Say whether all are numbers: any other, times 0, is NaN and stays it."""
    for start in range(0, len(values), 16):
        none = _0
        for value in values[start : start + 16]:
            none += value * _0
        if none != _0:
            return False
    return True


@kernel
def add(target: np.ndarray, source: np.ndarray, factor: Real) -> None:
    """Add numbers, times a factor."""
    for i in range(len(target)):
        target[i] += factor * source[i]


@kernel
def drop(
    target: np.ndarray,
    factors: np.ndarray,
    draws: np.ndarray,
    step: int,
    probability: Real,
    scale: Real,
) -> None:
    """Multiply by 0 where a number is below the probability, else by ``scale``; keep these."""
    for i in range(len(target)):
        factor = scale * np.float32(draws[i * step] >= probability)
        factors[i] = factor
        target[i] *= factor


@kernel
def multiply(target: np.ndarray, factors: np.ndarray) -> None:
    """Multiply by numbers."""
    for i in range(len(target)):
        target[i] *= factors[i]


@kernel
def scale(target: np.ndarray, factor: Real, shift: Real) -> None:
    """Multiply by one number and add another."""
    for i in range(len(target)):
        target[i] = target[i] * factor + shift


@kernel
def rectify(target: np.ndarray) -> None:
    """Replace numbers below zero by zero; NaN stays."""
    for i in range(len(target)):
        target[i] = np.maximum(target[i], _0)


@kernel
def mask(target: np.ndarray, values: np.ndarray) -> None:
    """Set to zero where a value is not above zero."""
    for i in range(len(target)):
        target[i] *= np.float32(values[i] > _0)


@kernel
def keep_larger(best: np.ndarray, winner: np.ndarray, values: np.ndarray, place: Real) -> None:
    """Take what is larger than the best so far, and note its place; NaN stays."""
    for i in range(len(best)):
        before, value, holder = best[i], values[i], winner[i]
        winner[i] = holder + (place - holder) * np.float32(value > before)
        best[i] = np.maximum(before, value)


@kernel
def pick(target: np.ndarray, source: np.ndarray, winner: np.ndarray, place: Real) -> None:
    """Copy numbers where the winner is a place, zeros elsewhere."""
    for i in range(len(target)):
        target[i] = source[i] if winner[i] == place else _0


# ---- pixels some steps apart, to or from a line of pixels ----------------------------------------
# Channels go by eights, as many as fill a register; offsets without sign spare a test for counting
# from the end, which would stop vector code.
@kernel
def add_where(
    memory: np.ndarray,
    at: int,
    step: int,
    source: int,
    winner: int,
    wide: int,
    count: int,
    place: Real,
) -> None:
    """Add a line to pixels apart, where the winner is a place."""
    target, values, who = np.uint64(at), np.uint64(source), np.uint64(winner)
    apart, size = np.uint64(step), np.uint64(wide)
    for x in range(np.uint64(count)):
        for c in range(_NONE, size, _EIGHT):
            for i in range(_EIGHT):
                own = x * size + c + i
                is_winner = np.float32(memory[who + own] == place)
                memory[target + x * apart + c + i] += memory[values + own] * is_winner


@kernel
def add_apart(
    memory: np.ndarray,
    at: int,
    step: int,
    source: int,
    source_step: int,
    wide: int,
    count: int,
    factor: Real,
) -> None:
    """Add pixels, times a factor, to others; both some steps apart."""
    target, values = np.uint64(at), np.uint64(source)
    apart, own, size = np.uint64(step), np.uint64(source_step), np.uint64(wide)
    for x in range(np.uint64(count)):
        for c in range(_NONE, size, _EIGHT):
            for i in range(_EIGHT):
                memory[target + x * apart + c + i] += factor * memory[values + x * own + c + i]
