"""Families of functions of one variable as signals, each with the parameters that made it."""

from collections.abc import Callable, Mapping
from math import pi, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.polynomial import legendre

from zoo.errors import InvalidConfigError
from zoo.problems.parts import config_of, middles, signals_problem
from zoo.problems.problem import Problem

_HALF_WIDTH = 5.0
"""The sines of Finn et al. live on [-5, 5]."""
_AMPLITUDES, _PHASES = (0.1, 5.0), (0.0, pi)
_LENGTH_SCALES = (0.1, 1.0)


def sines(
    _: Path | None = None, *, num_signals: int = 1000, num_points: int = 100, seed: int = 0
) -> Problem:
    """Draw sines ``A sin(5 c - p)`` with ``A`` from U[0.1, 5] and ``p`` from U[0, pi] [1]_.

    Coordinates ``c`` are in (-1, 1), evenly spaced, as those of all signals: the paper's ``x`` in
    [-5, 5] is ``5 c``. Values are the paper's. Columns are ``amplitude`` and ``phase``.

    Parameters
    ----------
    num_signals, num_points
        Sines, and coordinates that all of them are known at.
    seed
        Of the parameters. The first sines are the same whatever their number.

    Raises
    ------
    InvalidConfigError
        If there are no signals or points.

    References
    ----------
    .. [1] Finn et al., "Model-agnostic meta-learning for fast adaptation of deep networks", ICML
       2017, Sec. 5.1.
    """
    _check(num_signals, num_points)
    drawn = np.random.default_rng(seed).random((num_signals, 2))
    amplitude, phase = (
        low + (high - low) * drawn[:, k] for k, (low, high) in enumerate((_AMPLITUDES, _PHASES))
    )
    places = middles(num_points)
    values = amplitude[:, None] * np.sin(_HALF_WIDTH * places - phase[:, None])
    options = {"num_signals": num_signals, "num_points": num_points, "seed": seed}
    columns = {"amplitude": amplitude, "phase": phase}
    peak = 2 * _AMPLITUDES[1]
    return _family("sines", sines, options, places, values, columns, peak=peak)


def polynomials(
    _: Path | None = None,
    *,
    degree: int = 3,
    num_signals: int = 1000,
    num_points: int = 100,
    seed: int = 0,
) -> Problem:
    """Draw sums of Legendre polynomials on (-1, 1), with standard normal coefficients.

    Columns are ``coefficient_0`` and so on, by degree.

    Parameters
    ----------
    degree
        The highest.
    num_signals, num_points, seed
        As in :func:`sines`.

    Raises
    ------
    InvalidConfigError
        If there are no signals or points, or the degree is negative.
    """
    _check(num_signals, num_points)
    if degree < 0:
        raise InvalidConfigError(f"Expected a degree from 0, got {degree}.")
    coefficients = np.random.default_rng(seed).standard_normal((num_signals, degree + 1))
    places = middles(num_points)
    values = legendre.legval(places, coefficients.T)
    options = {"degree": degree, "num_signals": num_signals, "num_points": num_points}
    options |= {"seed": seed}
    columns = {f"coefficient_{k}": coefficients[:, k] for k in range(degree + 1)}
    return _family("polynomials", polynomials, options, places, values, columns)


def gaussian_process(
    _: Path | None = None, *, num_signals: int = 1000, num_points: int = 100, seed: int = 0
) -> Problem:
    """Draw functions on (-1, 1) from Gaussian processes of mean 0 and variance 1.

    The kernel is Matern's with smoothness 3/2; the length scale of each is drawn log-uniformly from
    [0.1, 1] and is its column ``length_scale``. Such a process and its slope are Markov, so draws
    are exact, from left to right [1]_, and need no factor of a matrix.

    Parameters
    ----------
    num_signals, num_points, seed
        As in :func:`sines`.

    Raises
    ------
    InvalidConfigError
        If there are no signals or points.

    References
    ----------
    .. [1] Hartikainen and Sarkka, "Kalman filtering and smoothing solutions to temporal Gaussian
       process regression models", MLSP 2010.
    """
    _check(num_signals, num_points)
    rng = np.random.default_rng(seed)
    low, high = np.log(_LENGTH_SCALES)
    length_scale = np.exp(low + (high - low) * rng.random(num_signals))
    values = _matern(length_scale, rng.standard_normal((num_points, 2, num_signals)))
    options = {"num_signals": num_signals, "num_points": num_points, "seed": seed}
    columns = {"length_scale": length_scale}
    places = middles(num_points)
    return _family("gaussian-process", gaussian_process, options, places, values, columns)


def _matern(length_scale: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Turn standard normal ``noise`` ``[points, 2, signals]`` into values ``[signals, points]``.

    With ``r = sqrt(3) / length_scale``, value and slope ``(f, g)`` have variances 1 and ``r^2``;
    over a step ``h`` their mean is ``e^(-rh) [[1 + rh, h], [-r^2 h, 1 - rh]] (f, g)``, and what is
    missing of the variances is new.
    """
    rate, step = sqrt(3) / length_scale, 2 / len(noise)
    turn = rate * step
    fade = np.exp(-turn)
    stay, cross, back, slow = (
        fade * (1 + turn),
        fade * step,
        -fade * rate * turn,
        fade * (1 - turn),
    )
    new = 1 - stay**2 - (cross * rate) ** 2
    shared = -(stay * back) - cross * slow * rate**2
    new_slope = rate**2 - back**2 - (slow * rate) ** 2
    first = np.sqrt(new)
    second = np.sqrt(new_slope - (shared / first) ** 2)
    value, slope = noise[0, 0], rate * noise[0, 1]
    values = [value]
    for one, two in noise[1:]:
        moved = stay * value + cross * slope + first * one
        slope = back * value + slow * slope + shared / first * one + second * two
        value = moved
        values.append(value)
    return np.stack(values, axis=1)


def _check(num_signals: int, num_points: int) -> None:
    if min(num_signals, num_points) < 1:
        raise InvalidConfigError(
            f"Expected one signal and one point or more, got {num_signals} and {num_points}."
        )


def _family(
    name: str,
    loader: Callable[..., Problem],
    options: Mapping[str, object],
    places: np.ndarray,
    values: np.ndarray,
    columns: dict[str, np.ndarray],
    **about: Any,
) -> Problem:
    return signals_problem(
        places[:, None],
        values[..., None],
        name=name,
        config=config_of(name, loader, options),
        signal_columns={key: torch.from_numpy(np.array(each)) for key, each in columns.items()},
        **about,
    )
