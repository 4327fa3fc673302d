"""Activations: each replaces its argument by its value and writes the derivative beside it.

Exponentials, sines and the like are polynomials, which LLVM turns into vector code; library calls
would go number by number. Each is good to a few units in the last place of float32, the sine for
arguments up to about 10,000 [1]_.

References
----------
.. [1] Cody and Waite, "Software Manual for the Elementary Functions", 1980: argument reduction.
       Moshier, "Methods and Programs for Mathematical Functions", 1989: the polynomials of exp,
       tanh, sin and cos.
"""

import numpy as np

from data_gen.engines.native import table
from data_gen.engines.native.jit import Real, kernel

F = np.float32
_0, _1, _2, _HALF = F(0), F(1), F(2), F(0.5)
_ROUND = F(12582912)
"""1.5 * 2**23: adding it and taking it away again rounds to a whole number."""
_LOG2_E, _LN2_HIGH, _LN2_LOW, _EXP_MOST = F(1.44269504), F(0.693359375), F(-2.12194440e-4), F(87)
_E5, _E4, _E3, _E2, _E1, _E0 = (
    F(1.9875691500e-4),
    F(1.3981999507e-3),
    F(8.3334519073e-3),
    F(4.1665795894e-2),
    F(1.6666665459e-1),
    F(5.0000001201e-1),
)
_BIAS, _MANTISSA = np.int32(127), np.int32(23)
_T4, _T3, _T2, _T1, _T0 = (
    F(-5.70498872745e-3),
    F(2.06390887954e-2),
    F(-5.37397155531e-2),
    F(1.33314422036e-1),
    F(-3.33332819422e-1),
)
_TANH_NEAR = F(0.625)
_2_OVER_PI, _P1, _P2, _P3 = (
    F(0.636619772),
    F(1.57079601287841796875),
    F(3.1391647326017846e-07),
    F(5.390302529957764e-15),
)
_S2, _S1, _S0 = F(-1.9515295891e-4), F(8.3321608736e-3), F(-1.6666654611e-1)
_C2, _C1, _C0 = F(2.443315711809948e-5), F(-1.388731625493765e-3), F(4.166664568298827e-2)
_INT1, _INT2, _INT0 = np.int32(1), np.int32(2), np.int32(0)
# Own fit of erfcx(a / sqrt(2)) / 2 for a in [0, 13] by powers of 1 / (1 + 0.3 a), error 1.4e-7.
_TAIL = F(0.3)
_G8, _G7, _G6, _G5, _G4, _G3, _G2, _G1 = (
    F(0.03664949),
    F(-0.16117448),
    F(0.21304017),
    F(-0.05969493),
    F(0.13166805),
    F(0.09899336),
    F(0.12089829),
    F(0.11962006),
)
_DENSITY = F(0.3989422804014327)
_CUBE, _ROOT_2_PI = F(0.044715), F(0.7978845608028654)


@kernel
def exp(x: Real) -> Real:
    """Compute ``exp(x)``, constant beyond -87 and 87."""
    bound = min(max(x, -_EXP_MOST), _EXP_MOST)
    whole = (bound * _LOG2_E + _ROUND) - _ROUND
    r = bound - whole * _LN2_HIGH
    r = r - whole * _LN2_LOW
    p = ((((_E5 * r + _E4) * r + _E3) * r + _E2) * r + _E1) * r + _E0
    p = p * r * r + r + _1
    power = np.int32((np.int32(whole) + _BIAS) << _MANTISSA).view(np.float32)
    return p * power if x == x else x  # noqa: PLR0124 - NaN stays NaN


@kernel
def sigmoid(x: Real) -> Real:
    """Compute ``1 / (1 + exp(-x))``."""
    return _1 / (_1 + exp(-x))


@kernel
def tanh(x: Real) -> Real:
    """Compute the hyperbolic tangent."""
    z = x * x
    near = ((((_T4 * z + _T3) * z + _T2) * z + _T1) * z + _T0) * z * x + x
    size = abs(x)
    far = _1 - _2 / (exp(size + size) + _1)
    return near if size < _TANH_NEAR else (far if x > _0 else -far)


@kernel
def log1p(u: Real) -> Real:
    """Compute ``log(1 + u)`` for ``u`` in [0, 1], by the series of the inverse of tanh."""
    s = u / (_2 + u)
    z = s * s
    p = (
        ((((z / F(13) + F(1 / 11)) * z + F(1 / 9)) * z + F(1 / 7)) * z + F(0.2)) * z + F(1 / 3)
    ) * z
    return _2 * s * (p + _1)


@kernel
def _sine(y: np.ndarray, slope: np.ndarray, factor: Real, turn: int) -> None:
    """Compute ``sin(factor y)``, or the cosine for ``turn`` 1: the same, a quarter turn on."""
    for i in range(len(y)):
        x = y[i] * factor
        quarters = (x * _2_OVER_PI + _ROUND) - _ROUND
        k = np.int32(np.int32(quarters) + np.int32(turn))
        x = x - quarters * _P1
        x = x - quarters * _P2
        x = x - quarters * _P3
        z = x * x
        s = ((_S2 * z + _S1) * z + _S0) * z * x + x
        c = ((_C2 * z + _C1) * z + _C0) * z * z - _HALF * z + _1
        odd = (k & _INT1) != _INT0
        value, other = (c if odd else s), (s if odd else c)
        y[i] = -value if (k & _INT2) != _INT0 else value
        slope[i] = (-other if ((k + _INT1) & _INT2) != _INT0 else other) * factor


@kernel
def _gelu(y: np.ndarray, slope: np.ndarray) -> None:
    for i in range(len(y)):
        x = y[i]
        t = _1 / (_1 + _TAIL * abs(x))
        g = ((((((_G8 * t + _G7) * t + _G6) * t + _G5) * t + _G4) * t + _G3) * t + _G2) * t + _G1
        bell = exp(-_HALF * x * x)
        tail = g * t * bell
        below = tail if x < _0 else _1 - tail
        y[i] = x * below
        slope[i] = below + x * bell * _DENSITY


@kernel
def _gelu_tanh(y: np.ndarray, slope: np.ndarray) -> None:
    for i in range(len(y)):
        x = y[i]
        t = tanh(_ROOT_2_PI * (x + _CUBE * x * x * x))
        y[i] = _HALF * x * (_1 + t)
        inner = _ROOT_2_PI * (_1 + F(3) * _CUBE * x * x)
        slope[i] = _HALF * (_1 + t) + _HALF * x * (_1 - t * t) * inner


@kernel
def _smooth(kind: int, y: np.ndarray, slope: np.ndarray, parameter: Real) -> None:
    if kind == table.SIGMOID:
        for i in range(len(y)):
            s = sigmoid(y[i])
            y[i] = s
            slope[i] = s * (_1 - s)
    elif kind == table.SILU:
        for i in range(len(y)):
            x = y[i]
            s = sigmoid(x)
            y[i] = x * s
            slope[i] = s * (_1 + x * (_1 - s))
    elif kind == table.TANH:
        for i in range(len(y)):
            t = tanh(y[i])
            y[i] = t
            slope[i] = _1 - t * t
    elif kind == table.ELU:
        for i in range(len(y)):
            x = y[i]
            grown = parameter * exp(min(x, _0))
            y[i] = np.maximum(x, _0) + (grown - parameter)
            slope[i] = _1 if x > _0 else grown
    else:
        for i in range(len(y)):  # softplus
            x = y[i]
            small = exp(-abs(x))
            y[i] = max(x, _0) + log1p(small)
            slope[i] = (_1 if x > _0 else small) / (_1 + small)


@kernel
def activate(kind: int, y: np.ndarray, slope: np.ndarray, parameter: Real) -> None:
    """Apply an activation of :mod:`~data_gen.engines.native.table` but RELU, in place.

    Parameters
    ----------
    y, slope
        Arguments, overwritten by values; derivatives. Of equal length.
    parameter
        Slope below zero of LEAKY_RELU, alpha of ELU, factor of the argument for SINE and COSINE.
    """
    if kind == table.LEAKY_RELU:
        for i in range(len(y)):
            factor = parameter if y[i] < _0 else _1
            slope[i] = factor
            y[i] *= factor
    elif kind == table.SINE:
        _sine(y, slope, parameter, 0)
    elif kind == table.COSINE:
        _sine(y, slope, parameter, 1)
    elif kind == table.GELU:
        _gelu(y, slope)
    elif kind == table.GELU_TANH:
        _gelu_tanh(y, slope)
    else:
        _smooth(kind, y, slope, parameter)
