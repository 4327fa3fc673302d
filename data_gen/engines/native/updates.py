"""Update rules: those of :mod:`data_gen.engines.optim`, for one member."""

import math
from typing import Any

import numpy as np

from data_gen.engines.native import table as t
from data_gen.engines.native.jit import Real, kernel

_BETA1, _BETA2, _ALPHA = 0.9, 0.999, np.float32(0.99)
_REST1, _REST2, _DECAY2 = np.float32(1 - 0.9), np.float32(1 - 0.999), np.float32(0.999)
_REST_ALPHA, _EPS, _CLIP_EPS = np.float32(1 - 0.99), 1e-8, 1e-6


@kernel
def update(rule: int, plan: Any, memory: np.ndarray, settings: Any, rate: Real, step: int) -> None:
    """Take one step; ``step`` counts from 1."""
    size = plan.num_weights
    weights = memory[plan.weights : plan.weights + size]
    gradient = memory[plan.gradient : plan.gradient + size]
    first = memory[plan.moment1 : plan.moment1 + size]
    second = memory[plan.moment2 : plan.moment2 + size]
    if settings.clip_norm > 0:
        _clip(gradient, settings.clip_norm)
    if settings.has_decay > 0 and rule == t.ADAMW:
        shrink = np.float32(1 - rate * settings.weight_decay)
        for i in range(size):
            weights[i] *= shrink
    elif settings.has_decay > 0:
        decay = np.float32(settings.weight_decay)
        for i in range(size):
            gradient[i] += decay * weights[i]
    if rule == t.SGD or rule == t.NESTEROV:  # noqa: PLR1714 - numba knows no sets of constants
        inertia, ahead = np.float32(settings.momentum), rule == t.NESTEROV
        _momentum(weights, gradient, first, inertia, np.float32(rate), ahead)
    elif rule == t.RMSPROP:
        _rmsprop(weights, gradient, second, np.float32(rate))
    else:
        root = math.sqrt(1 - _BETA2**step)
        whole = np.float32(rate * root / (1 - _BETA1**step))
        _adam(weights, gradient, first, second, whole, np.float32(_EPS * root))


@kernel
def _clip(gradient: np.ndarray, limit: Real) -> None:
    total = 0.0
    for value in gradient:
        total += np.float64(value) * np.float64(value)
    factor = np.float32(limit / (math.sqrt(total) + _CLIP_EPS))
    if factor < 1:
        for i in range(len(gradient)):
            gradient[i] *= factor


@kernel
def _momentum(
    weights: np.ndarray,
    gradient: np.ndarray,
    velocity: np.ndarray,
    inertia: Real,
    rate: Real,
    ahead: bool,  # noqa: FBT001
) -> None:
    for i in range(len(weights)):
        v = velocity[i] * inertia + gradient[i]
        velocity[i] = v
        weights[i] -= rate * (gradient[i] + inertia * v if ahead else v)


@kernel
def _adam(
    weights: np.ndarray,
    gradient: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    rate: Real,
    epsilon: Real,
) -> None:
    """Both bias corrections are in the step size and epsilon."""
    for i in range(len(weights)):
        g = gradient[i]
        m = mean[i] + _REST1 * (g - mean[i])
        v = square[i] * _DECAY2 + _REST2 * g * g
        mean[i], square[i] = m, v
        weights[i] -= rate * m / (math.sqrt(v) + epsilon)


@kernel
def _rmsprop(weights: np.ndarray, gradient: np.ndarray, square: np.ndarray, rate: Real) -> None:
    epsilon = np.float32(_EPS)
    for i in range(len(weights)):
        g = gradient[i]
        v = square[i] * _ALPHA + _REST_ALPHA * g * g
        square[i] = v
        weights[i] -= rate * g / (math.sqrt(v) + epsilon)
