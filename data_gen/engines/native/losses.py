"""Losses: their value, and its gradient with respect to the network's outputs."""

import math
from typing import Any

import numpy as np

from data_gen.engines.native import table as t
from data_gen.engines.native.activations import exp
from data_gen.engines.native.jit import Real, kernel

_0, _1, _2 = np.float32(0), np.float32(1), np.float32(2)
_MUCH = 1e250


@kernel
def cross_entropy(
    total: Real,
    plane: Any,
    memory: np.ndarray,
    classes: np.ndarray,
    indices: np.ndarray,
    batch: int,
    temperature: Real,
) -> Real:
    """Add cross-entropies in nats, of logits over a temperature; the gradient is of their mean."""
    width, wide, count = plane.channels, plane.wide, len(indices)
    inverse, part = _1 / temperature, _1 / np.float32(batch)
    for sample in range(count):
        at, out = plane.data + sample * wide, plane.grad + sample * wide
        logits, slope = memory[at : at + width], memory[out : out + width]
        largest = logits[0]
        for c in range(1, width):
            largest = logits[c] if logits[c] > largest else largest
        for c in range(width):
            slope[c] = (logits[c] - largest) * inverse
        wanted = classes[indices[sample]]
        if wanted < 0 or wanted >= width:
            raise IndexError("a target is no class of the network")
        total -= np.float64(slope[wanted])
    _exponential(memory[plane.grad : plane.grad + count * wide])
    shares = 1.0
    for sample in range(count):
        out = plane.grad + sample * wide
        slope, share = memory[out : out + width], _0
        for c in range(width):
            share += slope[c]
        # One logarithm for many: shares are at least 1, and their product has room.
        shares *= np.float64(share)
        if shares > _MUCH:
            total, shares = total + math.log(shares), 1.0
        scale = inverse * part / share
        for c in range(width):
            slope[c] *= scale
        slope[classes[indices[sample]]] -= inverse * part
        for c in range(out + width, out + wide):
            memory[c] = _0
    return total + math.log(shares)


@kernel
def _exponential(values: np.ndarray) -> None:
    """Take exponentials of all samples at once, filling included: lines of one would be short."""
    for i in range(len(values)):
        values[i] = exp(values[i])


@kernel
def regression(
    total: Real,
    kind: int,
    plane: Any,
    memory: np.ndarray,
    truths: np.ndarray,
    indices: np.ndarray,
    batch: int,
) -> Real:
    """Add, for each sample, its mean squared error or mean binary cross-entropy of logits."""
    width, wide = plane.channels, plane.wide
    part = _1 / np.float32(batch * width)
    for sample in range(len(indices)):
        at, out = plane.data + sample * wide, plane.grad + sample * wide
        index, own = indices[sample], 0.0
        for c in range(width):
            x, wanted = memory[at + c], truths[index, c]
            if kind == t.SQUARED_ERROR:
                gap = x - wanted
                own += np.float64(gap) * np.float64(gap)
                memory[out + c] = _2 * gap * part
            else:
                small = exp(-abs(x))
                own += np.float64(max(x, _0) - x * wanted) + math.log1p(np.float64(small))
                sure = (_1 if x >= _0 else small) / (_1 + small)
                memory[out + c] = (sure - wanted) * part
        total += own / width
    return total


@kernel
def judge(
    logits: np.ndarray, targets: np.ndarray, margin: Real, predicted: np.ndarray, close: np.ndarray
) -> Real:
    """Sum cross-entropies; say which class is predicted, and whether another is as good.

    Two logits are too close to call if they differ by ``margin`` times the largest magnitude.
    Logits are overwritten.
    """
    total, width = 0.0, logits.shape[1]
    for sample in range(len(logits)):
        own, wanted = logits[sample], targets[sample]
        if wanted < 0 or wanted >= width:
            raise IndexError("a target is no class of the network")
        best, second, most, winner = own[0], np.float32(-np.inf), abs(own[0]), 0
        for c in range(1, width):
            value = own[c]
            most = max(most, abs(value))
            if value > best:
                best, second, winner = value, best, c
            elif value > second:
                second = value
        total += np.float64(best) - np.float64(own[wanted])
        predicted[sample] = winner
        close[sample] = best - second <= margin * most
        for c in range(width):
            own[c] -= best
    _exponential(logits.reshape(logits.size))
    for sample in range(len(logits)):
        share = 0.0
        for c in range(width):
            share += np.float64(logits[sample, c])
        total += math.log(share)
    return total
