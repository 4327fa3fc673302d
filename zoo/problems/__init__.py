"""What members are trained for: data, loss and metrics."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zoo.errors import unknown_name
from zoo.problems.cifar import CIFARFormatError, cifar10
from zoo.problems.digits import digits
from zoo.problems.idx import IDXFormatError, idx, read_idx
from zoo.problems.images import ImageFormatError, images
from zoo.problems.pde import PDE_METRICS, burgers, burgers_solution, convection
from zoo.problems.problem import Equation, Problem, evaluate, in_float64, measure
from zoo.problems.scores import (
    METRICS,
    REGRESSION_METRICS,
    SIGNAL_METRICS,
    score,
    score_regression,
    score_signals,
)
from zoo.problems.signals import digit_signals, idx_signals, image_signals, pixel_grid

__all__ = [
    "EQUATIONS",
    "METRICS",
    "PDE_METRICS",
    "PROBLEMS",
    "REGRESSION_METRICS",
    "SIGNAL_METRICS",
    "CIFARFormatError",
    "IDXFormatError",
    "ImageFormatError",
    "Equation",
    "Problem",
    "burgers",
    "burgers_solution",
    "cifar10",
    "convection",
    "digit_signals",
    "digits",
    "evaluate",
    "idx",
    "idx_signals",
    "image_signals",
    "images",
    "in_float64",
    "load",
    "measure",
    "pixel_grid",
    "read_idx",
    "score",
    "score_regression",
    "score_signals",
]

PROBLEMS: dict[str, Callable[..., Problem]] = {
    "digits": lambda _: digits(),
    "idx": idx,
    "images": images,
    "cifar10": cifar10,
    "digit-signals": lambda _: digit_signals(),
    "idx-signals": idx_signals,
    "convection": convection,
    "burgers": burgers,
}
EQUATIONS = ("convection", "burgers")
"""Names of the problems whose loss takes derivatives of the network."""


def load(config: Mapping[str, Any], *, data: Path | None = None) -> Problem:
    """Load the problem that ``config`` names.

    Parameters
    ----------
    config
        ``{"name": ...}`` and the problem's options, as recipes and populations carry it.
    data
        Folder with the files, for problems that read files.

    Raises
    ------
    UnknownNameError
        If there is no such problem, or it has no such option.
    """
    name = config.get("name")
    if name not in PROBLEMS:
        raise unknown_name("problem", name, PROBLEMS)
    options = {option: value for option, value in config.items() if option != "name"}
    known = [option for option in inspect.signature(PROBLEMS[name]).parameters][1:]
    for option in options:
        if option not in known:
            raise unknown_name(f"option of problem {name!r}", option, known)
    return PROBLEMS[name](data, **options)
