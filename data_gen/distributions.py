"""Distributions of hyper-parameters over the members of a population."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import exp, inf, log
from typing import Any, ClassVar, Protocol

import numpy as np

from zoo.errors import InvalidConfigError, unknown_name

Value = float | int | str


class Distribution(Protocol):
    """How a recipe spreads one hyper-parameter over members."""

    @property
    def support(self) -> tuple[Value, ...]:
        """Values that bound or make up what can be drawn."""

    def sample(self, rng: np.random.Generator) -> Value:
        """Draw one member's value."""


@dataclass(frozen=True)
class Constant:
    """One value for all."""

    name: ClassVar[str] = "constant"
    value: Value

    @property
    def support(self) -> tuple[Value, ...]:
        """The value."""
        return (self.value,)

    def sample(self, rng: np.random.Generator) -> Value:
        """Return the value."""
        return self.value


@dataclass(frozen=True)
class Uniform:
    """Real numbers spread evenly over [low, high)."""

    name: ClassVar[str] = "uniform"
    low: float
    high: float

    def __post_init__(self) -> None:
        _check_order(self.low, self.high)

    @property
    def support(self) -> tuple[Value, ...]:
        """Both ends."""
        return (self.low, self.high)

    def sample(self, rng: np.random.Generator) -> Value:
        """Draw a number."""
        return float(rng.uniform(self.low, self.high))


@dataclass(frozen=True)
class LogUniform:
    """Positive numbers whose logarithm is spread evenly."""

    name: ClassVar[str] = "log_uniform"
    low: float
    high: float

    def __post_init__(self) -> None:
        _check_order(self.low, self.high)
        if self.low <= 0:
            raise InvalidConfigError(f"Expected a positive lower end, got {self}.")

    @property
    def support(self) -> tuple[Value, ...]:
        """Both ends."""
        return (self.low, self.high)

    def sample(self, rng: np.random.Generator) -> Value:
        """Draw a number."""
        return min(exp(rng.uniform(log(self.low), log(self.high))), self.high)


@dataclass(frozen=True)
class IntUniform:
    """Whole numbers from low to high, both included."""

    name: ClassVar[str] = "int_uniform"
    low: int
    high: int

    def __post_init__(self) -> None:
        _check_order(self.low, self.high)

    @property
    def support(self) -> tuple[Value, ...]:
        """Both ends."""
        return (self.low, self.high)

    def sample(self, rng: np.random.Generator) -> Value:
        """Draw a number."""
        return int(rng.integers(self.low, self.high, endpoint=True))


@dataclass(frozen=True)
class Choice:
    """One of several values, each as likely."""

    name: ClassVar[str] = "choice"
    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        if not self.values or len(set(self.values)) != len(self.values):
            raise InvalidConfigError(f"Expected distinct values to choose from, got {self.values}.")

    @property
    def support(self) -> tuple[Value, ...]:
        """The values."""
        return self.values

    def sample(self, rng: np.random.Generator) -> Value:
        """Draw a value."""
        return self.values[int(rng.integers(len(self.values)))]


@dataclass(frozen=True)
class Grid:
    """Every value with every value of the recipe's other grids; nothing is drawn.

    Which value a member has follows from its id: see :class:`data_gen.grid.Places`.
    """

    name: ClassVar[str] = "grid"
    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        if not self.values or len(set(self.values)) != len(self.values):
            raise InvalidConfigError(
                f"Expected at least one value in a grid, and none twice, got {self.values}."
            )

    @property
    def support(self) -> tuple[Value, ...]:
        """The values."""
        return self.values

    def as_choice(self) -> Choice:
        """Return the same values to draw from."""
        return Choice(self.values)

    def sample(self, rng: np.random.Generator) -> Value:
        """Refuse: a member's place in the grid says its value.

        Raises
        ------
        InvalidConfigError
            Always.
        """
        raise InvalidConfigError(
            f"Values of a grid are enumerated, not drawn: {self.values}. Draw members by "
            "Recipe.draw, or use Choice."
        )


DISTRIBUTIONS: dict[str, type[Any]] = {
    kind.name: kind for kind in (Constant, Uniform, LogUniform, IntUniform, Choice, Grid)
}


def to_json(distribution: Any) -> dict[str, Any]:
    """Turn a distribution into plain values; :func:`from_json` turns it back."""
    values = {item.name: getattr(distribution, item.name) for item in fields(distribution)}
    plain = {
        key: list(value) if isinstance(value, tuple) else value for key, value in values.items()
    }
    return {"distribution": distribution.name} | plain


def from_json(raw: Mapping[str, Any]) -> Distribution:
    """Restore a distribution."""
    kind = raw.get("distribution")
    if kind not in DISTRIBUTIONS:
        raise unknown_name("distribution", kind, DISTRIBUTIONS)
    values = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in raw.items()
        if key != "distribution"
    }
    distribution: Distribution = DISTRIBUTIONS[kind](**values)
    return distribution


def _check_order(low: float, high: float) -> None:
    if not -inf < low <= high < inf:
        raise InvalidConfigError(f"Expected low <= high, both finite, got {low} and {high}.")
