"""What members are trained for: data, loss and metrics."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from zoo.errors import unknown_name
from zoo.problems.cifar import CIFARFormatError, cifar10, cifar100
from zoo.problems.corrupted import CORRUPTIONS, corrupt
from zoo.problems.digits import digits
from zoo.problems.functions import gaussian_process, polynomials, sines
from zoo.problems.huggingface import huggingface
from zoo.problems.idx import IDXFormatError, idx, read_idx
from zoo.problems.images import ImageFormatError, images
from zoo.problems.mat import mat, read_mat
from zoo.problems.meshes import mesh
from zoo.problems.npz import npz
from zoo.problems.parts import DataFormatError
from zoo.problems.pde import PDE_METRICS, burgers, burgers_solution, convection
from zoo.problems.problem import Equation, Problem, evaluate, in_float64, measure
from zoo.problems.quickdraw import quickdraw, quickdraw_signals
from zoo.problems.resized import resize
from zoo.problems.scores import (
    METRICS,
    REGRESSION_METRICS,
    SIGNAL_METRICS,
    score,
    score_regression,
    score_signals,
)
from zoo.problems.signals import (
    cifar10_signals,
    digit_signals,
    file_signals,
    idx_signals,
    image_signals,
    pixel_grid,
)
from zoo.problems.tables import builtin, csv
from zoo.problems.text import ag_news, sst2
from zoo.problems.ucr import ucr, ucr_signals

__all__ = [
    "CORRUPTIONS",
    "EQUATIONS",
    "METRICS",
    "PDE_METRICS",
    "PROBLEMS",
    "REGRESSION_METRICS",
    "SIGNAL_METRICS",
    "CIFARFormatError",
    "DataFormatError",
    "Equation",
    "IDXFormatError",
    "ImageFormatError",
    "Problem",
    "ag_news",
    "builtin",
    "burgers",
    "burgers_solution",
    "cifar10",
    "cifar100",
    "cifar10_signals",
    "convection",
    "corrupt",
    "corrupted",
    "csv",
    "digit_signals",
    "digits",
    "evaluate",
    "file_signals",
    "gaussian_process",
    "huggingface",
    "idx",
    "idx_signals",
    "image_signals",
    "images",
    "in_float64",
    "load",
    "mat",
    "measure",
    "mesh",
    "npz",
    "pixel_grid",
    "polynomials",
    "quickdraw",
    "quickdraw_signals",
    "read_idx",
    "read_mat",
    "resize",
    "resized",
    "score",
    "score_regression",
    "score_signals",
    "sines",
    "sst2",
    "ucr",
    "ucr_signals",
]


def corrupted(
    data: Path | None,
    *,
    base: Mapping[str, Any],
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    severity: float = 0.5,
    seed: int = 0,
) -> Problem:
    """Load the problem ``base`` and corrupt copies of it: see :func:`corrupt`."""
    known = load(base, data=data)
    return corrupt(known, corruptions=corruptions, severity=severity, seed=seed)


def resized(data: Path | None, *, base: Mapping[str, Any], size: int = 0, crop: int = 0) -> Problem:
    """Load the problem ``base`` and change its images' size: see :func:`resize`."""
    return resize(load(base, data=data), size=size, crop=crop)


PROBLEMS: dict[str, Callable[..., Problem]] = {
    "digits": lambda _: digits(),
    "idx": idx,
    "images": images,
    "cifar10": cifar10,
    "digit-signals": lambda _: digit_signals(),
    "idx-signals": idx_signals,
    "cifar100": cifar100,
    "npz": npz,
    "csv": csv,
    **{name: partial(builtin, name) for name in ("iris", "wine", "breast-cancer", "diabetes")},
    "ucr": ucr,
    "quickdraw": quickdraw,
    "sst2": sst2,
    "ag-news": ag_news,
    "huggingface": huggingface,
    "mat": mat,
    "cifar10-signals": cifar10_signals,
    "image-signals": file_signals,
    "quickdraw-signals": quickdraw_signals,
    "ucr-signals": ucr_signals,
    "mesh": mesh,
    "sines": sines,
    "polynomials": polynomials,
    "gaussian-process": gaussian_process,
    "convection": convection,
    "burgers": burgers,
    "corrupted": corrupted,
    "resized": resized,
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
