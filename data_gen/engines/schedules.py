"""Step sizes over the course of training, step by step: those of ``torch.optim.lr_scheduler``."""

from collections.abc import Callable

import numpy as np

from zoo.errors import unknown_name

_RISE = 0.3
"""Part of a one-cycle schedule in which the step size rises."""
_START, _END = 25.0, 1e4
"""How far below its peak a one-cycle schedule starts, and how far below that start it ends."""
_STAGES, _DROP = 3, 0.1


def rate_factors(
    schedule: str, steps: np.ndarray, num_steps: int, *, warmup: float = 0.0
) -> np.ndarray:
    """Return what a member's learning rate is multiplied by at some of its steps.

    With ``t`` the step and ``T`` the number of steps, counted over all epochs:

    ========= ==================================================================================
    constant  1
    cosine    ``(1 + cos(pi t / T)) / 2`` [1]_: ``CosineAnnealingLR(T_max=T)``
    one_cycle from 1/25 up to 1 in the first 30 %, then down to 1/250000, both along half a
              cosine [2]_: ``OneCycleLR(total_steps=T, cycle_momentum=False)``
    step      ``0.1 ** (t // ceil(T / 3))``: ``StepLR(step_size=ceil(T / 3))``
    ========= ==================================================================================

    Warm-up multiplies the first ``W = round(warmup T)`` steps by ``(t + 1) / W``:
    ``LinearLR(start_factor=1 / W, total_iters=W - 1)``.

    Parameters
    ----------
    schedule
        A name of :data:`SCHEDULES`.
    steps
        Steps ``t``, any shape, in [0, num_steps).
    num_steps
        ``T``.
    warmup
        Part of the steps, in [0, 1].

    Returns
    -------
    np.ndarray
        Shape of ``steps``, float64.

    References
    ----------
    .. [1] Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.
    .. [2] Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large
       Learning Rates", 2019, arXiv 1708.07120.
    """
    if schedule not in SCHEDULES:
        raise unknown_name("schedule", schedule, SCHEDULES)
    factors = SCHEDULES[schedule](np.asarray(steps, dtype=np.float64), num_steps)
    rising = round(warmup * num_steps)
    return factors * np.minimum((steps + 1) / rising, 1.0) if rising else factors


def _constant(steps: np.ndarray, _: int) -> np.ndarray:
    return np.ones_like(steps)


def _cosine(steps: np.ndarray, num_steps: int) -> np.ndarray:
    return (1 + np.cos(np.pi * steps / num_steps)) / 2


def _one_cycle(steps: np.ndarray, num_steps: int) -> np.ndarray:
    start, end = 1 / _START, 1 / (_START * _END)
    peak, last = _RISE * num_steps - 1, num_steps - 1
    rise = _between(start, 1.0, steps / peak)
    fall = _between(1.0, end, (steps - peak) / (last - peak))
    return np.where(steps <= peak, rise, fall)


def _between(first: float, second: float, way: np.ndarray) -> np.ndarray:
    """Go from one number to another along half a cosine."""
    return second + (first - second) / 2 * (1 + np.cos(np.pi * way))


def _step(steps: np.ndarray, num_steps: int) -> np.ndarray:
    return _DROP ** (steps // -(-num_steps // _STAGES))


SCHEDULES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "constant": _constant,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
    "step": _step,
}
"""Per name, the factor at steps ``[...]`` (float64) of ``num_steps``."""
