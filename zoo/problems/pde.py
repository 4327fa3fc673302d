"""Differential equations that members solve: physics-informed networks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import pi
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from zoo.errors import InvalidConfigError
from zoo.problems.problem import Equation, Field, Problem

PDE_METRICS = ("train_loss", "test_loss", "relative_error")
"""Numbers recorded of solutions: the loss; mean squared error, and L2 error over the L2 norm of the
reference, on a grid."""

_TEST_GRID = (100, 101)
"""Points of the test grid in time and space."""
_INITIAL, _BOUNDARY = 256, 100
"""Points at the initial time, and at each end in space."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _InTimeAndSpace(ABC):
    """An equation in one space coordinate; points are (x, t).

    Parameters
    ----------
    coefficients
        One per signal, ``[signals]`` float32.
    span
        Ends in space; time runs from 0 to 1.
    """

    metrics: ClassVar[tuple[str, ...]] = PDE_METRICS
    coefficients: Tensor
    span: tuple[float, float]

    @abstractmethod
    def residual(self, field: Field, points: Tensor, coefficients: Tensor) -> Tensor:
        """Compute by how much the equation is missed, ``[networks, n, 1]``."""

    @abstractmethod
    def initial(self, x: Tensor) -> Tensor:
        """Compute the wanted values at time 0."""

    @abstractmethod
    def at_ends(self, left: Tensor, right: Tensor) -> Tensor:
        """Compute squared violations of the boundary conditions from the values at both ends."""

    def loss(self, field: Field, points: Tensor, targets: Tensor, signals: Tensor) -> Tensor:
        """Add mean squared violations of equation, initial and boundary conditions, weighted 1."""
        networks = len(points)
        own = self.coefficients.to(points.device)[signals].view(-1, 1, 1)
        inside = (self.residual(field, points, own) - targets).square().flatten(1).mean(1)
        start, left, right = (
            each.to(points.device).expand(networks, -1, -1) for each in self._sides()
        )
        first = (field(start) - self.initial(start[..., :1])).square().flatten(1).mean(1)
        ends = self.at_ends(field(left), field(right)).flatten(1).mean(1)
        return inside + first + ends

    def score(self, problem: Problem, field: Field, signals: Tensor) -> dict[str, Tensor]:
        """Measure the loss on the training points, and errors on the test grid."""
        points, grid = (
            inputs.expand(len(signals), *inputs.shape)
            for inputs in (problem.train_probe[0], problem.test_inputs)
        )
        loss = self.loss(
            field, points, problem.train_targets[signals][:, : points.shape[1]], signals
        )
        wanted = problem.test_targets[signals].double()
        with torch.no_grad():
            gap = (field(grid).double() - wanted).flatten(1)
        relative = gap.norm(dim=1) / wanted.flatten(1).norm(dim=1)
        values = (loss.detach(), gap.square().mean(1), relative)
        return dict(zip(self.metrics, (each.to(torch.float32) for each in values), strict=True))

    def _sides(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the points at time 0 and at the left and right end, ``[n, 2]`` each."""
        x = torch.linspace(*self.span, _INITIAL)
        t = torch.linspace(0, 1, _BOUNDARY)
        left, right = (torch.stack([torch.full_like(t, end), t], 1) for end in self.span)
        return torch.stack([x, torch.zeros_like(x)], 1), left, right


class Convection(_InTimeAndSpace):
    """``u_t + c u_x = 0`` on a circle of length 2 pi, from ``u(x, 0) = sin x`` [1]_ (Sec. 3.1).

    The solution is ``sin(x - c t)``; large ``c`` are hard to learn.

    References
    ----------
    .. [1] Krishnapriyan et al., "Characterizing possible failure modes in physics-informed neural
       networks", NeurIPS 2021.
    """

    def residual(self, field: Field, points: Tensor, coefficients: Tensor) -> Tensor:
        """Compute ``u_t + c u_x``."""
        _, u_x, u_t = _slopes(field, points)
        return u_t + coefficients * u_x

    def initial(self, x: Tensor) -> Tensor:
        """Compute ``sin x``."""
        return torch.sin(x)

    def at_ends(self, left: Tensor, right: Tensor) -> Tensor:
        """Both ends are one place."""
        return (left - right).square()


class Burgers(_InTimeAndSpace):
    """``u_t + u u_x = nu u_xx``, from ``u(x, 0) = -sin(pi x)``, zero at both ends [1]_ (App. A.1).

    References
    ----------
    .. [1] Raissi et al., "Physics-informed neural networks", Journal of Computational Physics 378,
       2019.
    """

    def residual(self, field: Field, points: Tensor, coefficients: Tensor) -> Tensor:
        """Compute ``u_t + u u_x - nu u_xx``."""
        inputs = points.detach().requires_grad_()
        with torch.enable_grad():
            u = field(inputs)
            slope = _gradient(u, inputs)
            u_x, u_t = slope[..., :1], slope[..., 1:]
            u_xx = _gradient(u_x, inputs)[..., :1]
        return u_t + u * u_x - coefficients * u_xx

    def initial(self, x: Tensor) -> Tensor:
        """Compute ``-sin(pi x)``."""
        return -torch.sin(pi * x)

    def at_ends(self, left: Tensor, right: Tensor) -> Tensor:
        """Return squared values: both ends are held at zero."""
        return (left.square() + right.square()) / 2


def _slopes(field: Field, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute values and their derivatives by x and t, ``[networks, n, 1]`` each."""
    inputs = points.detach().requires_grad_()
    with torch.enable_grad():
        u = field(inputs)
        slope = _gradient(u, inputs)
    return u, slope[..., :1], slope[..., 1:]


def _gradient(values: Tensor, inputs: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(values.sum(), inputs, create_graph=True)
    return slope


def convection(
    _: Path | None, *, coefficients: Sequence[float] = (1.0,), num_points: int = 1000, seed: int = 0
) -> Problem:
    """Let members solve :class:`Convection`; member by member another coefficient.

    Parameters
    ----------
    coefficients
        Speeds ``c``, one per signal; the paper goes from 1 to 40.
    num_points, seed
        Points inside of the domain, drawn uniformly.

    Raises
    ------
    InvalidConfigError
        If there is no coefficient or no point.
    """
    speeds = _checked(coefficients, num_points)
    equation = Convection(coefficients=speeds, span=(0.0, 2 * pi))

    def solution(x: Tensor, t: Tensor) -> Tensor:
        return torch.sin(x - speeds.double().view(-1, 1) * t)

    config = {"name": "convection", "coefficients": list(coefficients), "num_points": num_points}
    return _problem(equation, solution, config | {"seed": seed})


def burgers(
    _: Path | None,
    *,
    coefficients: Sequence[float] = (0.01 / pi,),
    num_points: int = 10_000,
    seed: int = 0,
) -> Problem:
    """Let members solve :class:`Burgers`, whose exact solution :func:`burgers_solution` computes.

    Parameters
    ----------
    coefficients
        Viscosities ``nu``, one per signal; 0.01 / pi in the paper.
    num_points, seed
        Points inside of the domain, drawn uniformly.

    Raises
    ------
    InvalidConfigError
        If there is no coefficient or no point.
    """
    viscosities = _checked(coefficients, num_points)
    equation = Burgers(coefficients=viscosities, span=(-1.0, 1.0))

    def solution(x: Tensor, t: Tensor) -> Tensor:
        own = [burgers_solution(x.numpy(), t.numpy(), viscosity=nu) for nu in coefficients]
        return torch.from_numpy(np.stack(own))

    config = {"name": "burgers", "coefficients": list(coefficients), "num_points": num_points}
    return _problem(equation, solution, config | {"seed": seed})


def burgers_solution(x: np.ndarray, t: np.ndarray, *, viscosity: float) -> np.ndarray:
    """Compute the solution of :class:`Burgers` by the Cole-Hopf transformation [1]_ (Eq. 4).

    Its two integrals over a Gaussian are taken by a trapezoidal rule with 4,001 nodes, which is
    exact to rounding for functions this smooth.

    Parameters
    ----------
    x, t
        Places in [-1, 1] and times >= 0, ``[n]`` float64.

    Returns
    -------
    np.ndarray
        ``[n]``, float64.

    References
    ----------
    .. [1] Basdevant et al., "Spectral and finite difference solutions of the Burgers equation",
       Computers & Fluids 14, 1986.
    """
    nodes = np.linspace(-12, 12, 4_001)
    found = np.empty(len(x))
    for start in range(0, len(x), 1_000):
        part = slice(start, start + 1_000)
        places = x[part, None] - np.sqrt(4 * viscosity * t[part, None]) * nodes
        exponent = -(nodes**2) - np.cos(pi * places) / (2 * pi * viscosity)
        weight = np.exp(exponent - exponent.max(1, keepdims=True))
        found[part] = -(np.sin(pi * places) * weight).sum(1) / weight.sum(1)
    return found


def _checked(coefficients: Sequence[float], num_points: int) -> Tensor:
    if not coefficients or not np.isfinite(coefficients).all() or num_points < 1:
        raise InvalidConfigError(
            f"Expected at least one finite coefficient and one point, got {list(coefficients)} and "
            f"{num_points} points."
        )
    return torch.tensor(coefficients, dtype=torch.float32)


def _problem(equation: _InTimeAndSpace, solution: Any, config: dict[str, Any]) -> Problem:
    """Draw points inside, and lay the test grid with the reference solution."""
    rng = np.random.default_rng(config["seed"])
    low, high = equation.span
    points = rng.uniform((low, 0), (high, 1), (config["num_points"], 2)).astype(np.float32)
    t, x = (
        torch.linspace(*ends, count, dtype=torch.float64)
        for ends, count in zip(((0, 1), equation.span), _TEST_GRID, strict=True)
    )
    grid = torch.cartesian_prod(t, x).flip(1)
    wanted = solution(grid[:, 0], grid[:, 1]).to(torch.float32)
    known: Equation = equation
    return Problem(
        name=config["name"],
        config=config,
        train_inputs=torch.from_numpy(points),
        train_targets=torch.zeros(len(wanted), len(points), 1),
        test_inputs=grid.to(torch.float32),
        test_targets=wanted[..., None],
        num_classes=0,
        equation=known,
        signal_columns={"coefficient": torch.tensor(config["coefficients"], dtype=torch.float64)},
        source=(equation.__doc__ or "").partition("[1]_")[0].strip(),
    )
