"""The Hessian of the loss by the parameters: its top eigenvalue and its trace.

Both need products of the Hessian with vectors only, which are exact. Stopping rules are those of
PyHessian [1]_, whose numbers the model zoo on phase transitions [2]_ publishes.

References
----------
.. [1] Yao et al., "PyHessian: Neural Networks Through the Lens of the Hessian", IEEE BigData 2020.
.. [2] Schürholt et al., "A Model Zoo on Phase Transitions in Neural Networks", arXiv 2025.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zoo.errors import InvalidConfigError
from zoo.measures.gradients import CHUNK, Curvature, curvature
from zoo.measures.networks import Networks, Samples, generator_of

_TINY = 1e-6


@dataclass(frozen=True, kw_only=True)
class HessianConfig:
    """How long to iterate.

    Parameters
    ----------
    max_steps
        Most steps of the power iteration; 0 leaves the eigenvalue out.
    max_probes
        Most probes of the trace; 0 leaves it out.
    tolerance
        Stop at a relative change below this; 0 takes all steps. A running mean may change little
        by chance, long before it is accurate to the tolerance: a fixed number of probes is fairer.
    chunk
        Samples differentiated at a time.
    """

    max_steps: int = 100
    max_probes: int = 100
    tolerance: float = 1e-3
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        if min(self.max_steps, self.max_probes, self.tolerance) < 0 or self.chunk < 1:
            raise InvalidConfigError(
                f"Expected no negative steps, probes or tolerance and a chunk of at least 1, "
                f"got {self}."
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class HessianMeasures:
    """What is known of members' Hessians, ``[n]`` each; NaN and 0 steps for diverged members.

    Parameters
    ----------
    top_eigenvalue
        The eigenvalue of largest magnitude (negative, if that is), float64.
    trace
        Hutchinson's estimate of the trace, float64.
    trace_error
        Its standard error: the standard deviation of probes over the root of their number.
    steps, probes
        How many products each took, int64.
    """

    top_eigenvalue: np.ndarray
    trace: np.ndarray
    trace_error: np.ndarray
    steps: np.ndarray
    probes: np.ndarray


def hessian(
    networks: Networks,
    samples: Samples,
    *,
    seeds: Sequence[int],
    config: HessianConfig | None = None,
) -> HessianMeasures:
    """Measure the Hessian of each member's mean loss by its parameters.

    Parameters
    ----------
    samples
        What the loss is taken on.
    seeds
        Per member, where its random vectors start, so that numbers do not depend on company.
    config
        How long to iterate; by default as PyHessian does.
    """
    config = config or HessianConfig()
    rows = np.full((networks.num_members, 5), np.nan)
    rows[:, 3:] = 0
    for member in np.flatnonzero(networks.finite):
        operator = curvature(networks, int(member), samples, chunk=config.chunk)
        generator = generator_of(seeds[int(member)])
        rows[member, [0, 3]] = top_eigenvalue(operator, generator, config)
        rows[member, [1, 2, 4]] = hutchinson_trace(operator, generator, config)
    return HessianMeasures(
        top_eigenvalue=rows[:, 0],
        trace=rows[:, 1],
        trace_error=rows[:, 2],
        steps=rows[:, 3].astype(np.int64),
        probes=rows[:, 4].astype(np.int64),
    )


def top_eigenvalue(
    operator: Curvature, generator: torch.Generator, config: HessianConfig
) -> tuple[float, int]:
    """Find the eigenvalue of largest magnitude by power iteration.

    Returns
    -------
    tuple[float, int]
        The last Rayleigh quotient, and the number of products taken.
    """
    vector = _unit(_normal(operator, generator))
    value, steps = float("nan"), 0
    for steps in range(1, config.max_steps + 1):  # noqa: B007
        product = operator.product(vector)
        last, value = value, _dot(vector, product)
        if not np.isfinite(value) or abs(value - last) < config.tolerance * (abs(last) + _TINY):
            break
        vector = _unit(product)
    return value, steps


def hutchinson_trace(
    operator: Curvature, generator: torch.Generator, config: HessianConfig
) -> tuple[float, float, int]:
    """Estimate the trace by random signs [1]_.

    Returns
    -------
    tuple[float, float, int]
        The mean over probes, its standard error (NaN of one probe), and the number of probes.

    References
    ----------
    .. [1] Hutchinson, "A Stochastic Estimator of the Trace of the Influence Matrix for Laplacian
       Smoothing Splines", Communications in Statistics 1990.
    """
    found: list[float] = []
    value = 0.0
    while len(found) < config.max_probes:
        signs = _signs(operator, generator)
        found.append(_dot(signs, operator.product(signs)))
        last, value = value, float(np.mean(found))
        if not np.isfinite(value) or abs(value - last) < config.tolerance * (abs(last) + _TINY):
            break
    if not found:
        return float("nan"), float("nan"), 0
    error = np.std(found, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.nan
    return value, float(error), len(found)


def _normal(operator: Curvature, generator: torch.Generator) -> Tensor:
    like = operator.leaves[0]
    return torch.randn(operator.num_parameters, generator=generator, dtype=torch.float64).to(like)


def _signs(operator: Curvature, generator: torch.Generator) -> Tensor:
    like = operator.leaves[0]
    bits = torch.randint(0, 2, (operator.num_parameters,), generator=generator)
    return (2 * bits - 1).to(like)


def _unit(vector: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(vector, dtype=torch.float64)
    return vector / length.to(vector) if length > 0 else vector


def _dot(first: Tensor, second: Tensor) -> float:
    return float(first.double() @ second.double())
