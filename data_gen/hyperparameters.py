"""Hyper-parameters: which there are, how a recipe spreads them, what a member drew."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal
from zlib import crc32

import numpy as np

from data_gen.distributions import Choice, Distribution, Grid, LogUniform, Uniform, Value
from data_gen.streams import Purpose, stream
from zoo.errors import InvalidConfigError, unknown_name
from zoo.networks import ACTIVATIONS
from zoo.schema import ColumnScale, ColumnSpec

OPTIMIZERS = ("sgd", "nesterov", "adam", "adamw", "rmsprop")
SCHEDULES = ("constant", "cosine", "one_cycle", "step")
INITS = (
    "default",
    "kaiming_uniform",
    "kaiming_normal",
    "xavier_uniform",
    "xavier_normal",
    "normal",
    "uniform",
    "truncated_normal",
    "unit_uniform",
    "unit_normal",
    "orthogonal",
    "siren",
)


@dataclass(frozen=True, kw_only=True)
class HyperParameter:
    """One thing that may differ between members.

    Parameters
    ----------
    default
        Value of members whose recipe does not name it; ``None`` takes the network's field.
    kind
        Type of its values.
    lower, upper
        Allowed range, ends included.
    choices
        Allowed names, for kind ``"name"``.
    scale
        How a list of numbers is offered to models.
    description
        A sentence for the table's readers.
    """

    default: Value | None
    kind: Literal["float", "int", "name"] = "float"
    lower: float = 0.0
    upper: float = inf
    choices: tuple[str, ...] = ()
    scale: Literal["linear", "log"] = "linear"
    description: str

    def check(self, name: str, value: Value) -> None:
        """Raise :class:`InvalidConfigError` unless a member may have this value."""
        if self.kind == "name":
            if value not in self.choices:
                raise unknown_name(name, value, self.choices)
            return
        allowed = (int,) if self.kind == "int" else (int, float)
        number = isinstance(value, allowed) and not isinstance(value, bool)
        if not number or not self.lower <= float(value) <= self.upper:
            raise InvalidConfigError(
                f"Expected {name!r} to be {self.kind} in [{self.lower:g}, {self.upper:g}], "
                f"got {value!r}."
            )


HYPERPARAMETERS: dict[str, HyperParameter] = {
    "learning_rate": HyperParameter(default=1e-3, scale="log", description="step size"),
    "weight_decay": HyperParameter(
        default=0.0, scale="log", description="L2 penalty; decoupled for adamw"
    ),
    "schedule": HyperParameter(
        default="constant",
        kind="name",
        choices=SCHEDULES,
        description="how the step size goes from the first step to the last",
    ),
    "warmup": HyperParameter(
        default=0.0, upper=1.0, description="part of the steps in which the step size rises from 0"
    ),
    "momentum": HyperParameter(default=0.0, upper=1.0, description="momentum of sgd and nesterov"),
    "clip_norm": HyperParameter(
        default=0.0,
        scale="log",
        description="largest norm that a gradient may have, 0 for any",
    ),
    "optimizer": HyperParameter(
        default="adam", kind="name", choices=OPTIMIZERS, description="update rule, as in torch"
    ),
    "activation": HyperParameter(
        default=None, kind="name", choices=tuple(ACTIVATIONS), description="hidden activation"
    ),
    "dropout": HyperParameter(default=None, upper=0.99, description="probability of dropping"),
    "init": HyperParameter(
        default="default", kind="name", choices=INITS, description="initialisation scheme"
    ),
    "init_std": HyperParameter(
        default=0.1,
        scale="log",
        description="standard deviation of the schemes normal, uniform and truncated_normal",
    ),
    "init_scale": HyperParameter(
        default=1.0, scale="log", description="factor on initial weights and biases"
    ),
    "init_bias": HyperParameter(
        default=0.0, lower=-inf, description="initial biases, where the scheme draws none"
    ),
    "batch_size": HyperParameter(
        default=64, kind="int", lower=1, scale="log", description="samples per step"
    ),
    "data_fraction": HyperParameter(
        default=1.0, upper=1.0, scale="log", description="part of the training set that is used"
    ),
    "label_noise": HyperParameter(
        default=0.0, upper=1.0, description="part of the training labels replaced by wrong ones"
    ),
    "temperature": HyperParameter(
        default=1.0,
        lower=1e-3,
        scale="log",
        description="what logits are divided by in the training loss",
    ),
    "signal": HyperParameter(
        default=None, kind="int", description="which of the problem's signals the member fits"
    ),
    "domain": HyperParameter(
        default=-1,
        kind="int",
        lower=-1,
        description="which of the problem's domains the member trains on, -1 for all",
    ),
}
"""Every hyper-parameter by name: the one place where defaults are spelled."""

NETWORK_FIELDS = ("activation", "dropout")
"""Hyper-parameters that override the network's field of the same name."""


def check(distributions: Mapping[str, Distribution]) -> None:
    """Check names and ranges.

    Raises
    ------
    UnknownNameError
        If a hyper-parameter, or one of its named values, does not exist.
    InvalidConfigError
        If values leave their range.
    """
    for name, distribution in distributions.items():
        if name not in HYPERPARAMETERS:
            raise unknown_name("hyper-parameter", name, HYPERPARAMETERS)
        for value in distribution.support:
            HYPERPARAMETERS[name].check(name, value)
        if HYPERPARAMETERS[name].kind == "int" and isinstance(distribution, Uniform | LogUniform):
            raise InvalidConfigError(f"Expected whole numbers for {name!r}, got {distribution}.")


def draw(
    distributions: Mapping[str, Distribution],
    seeds: np.ndarray,
    places: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Draw what a recipe spreads, for members with these seeds.

    Each hyper-parameter has a stream of its own, so adding one to a recipe leaves the others as
    they were.

    Parameters
    ----------
    seeds
        ``[n]``, int64.
    places
        Of every hyper-parameter that is a grid, which of its values each member has: ``[n]``.

    Returns
    -------
    dict[str, np.ndarray]
        Per hyper-parameter ``[n]``: float64, int64, or str objects.
    """
    columns = {}
    for name, distribution in distributions.items():
        if isinstance(distribution, Grid):
            own = (places or {})[name]
            values = [distribution.values[int(place)] for place in own]
        else:
            key = crc32(name.encode())
            values = [
                distribution.sample(stream(int(seed), Purpose.HYPERPARAMETERS, key))
                for seed in seeds
            ]
        columns[name] = as_column(name, values)
    return columns


def as_column(name: str, values: list[Value]) -> np.ndarray:
    """Make an array of a hyper-parameter's own type."""
    dtype = {"float": np.float64, "int": np.int64, "name": object}[HYPERPARAMETERS[name].kind]
    return np.array(values, dtype=dtype)


def column_spec(name: str, distribution: Distribution) -> ColumnSpec:
    """Describe the column in which the store keeps a hyper-parameter."""
    known = HYPERPARAMETERS[name]
    if known.kind == "name":
        return ColumnSpec(
            name=name,
            dtype="category",
            categories=tuple(str(value) for value in distribution.support),
            scale="categorical",
            description=known.description,
        )
    return ColumnSpec(
        name=name,
        dtype="int64" if known.kind == "int" else "float64",
        scale=_scale(known, distribution),
        description=known.description,
    )


def _scale(known: HyperParameter, distribution: Distribution) -> ColumnScale:
    if isinstance(distribution, LogUniform):
        return "log"
    if isinstance(distribution, Choice | Grid):
        positive = all(float(value) > 0 for value in distribution.support)
        return known.scale if positive else "linear"
    return "linear"
