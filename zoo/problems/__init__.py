"""What members are trained for: data, loss and metrics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import unknown_name
from zoo.problems.digits import digits
from zoo.problems.idx import IDXFormatError, idx, read_idx
from zoo.problems.problem import METRICS, Problem, decide_with, evaluate, score

__all__ = [
    "METRICS",
    "PROBLEMS",
    "IDXFormatError",
    "Problem",
    "decide_with",
    "digits",
    "evaluate",
    "idx",
    "load",
    "read_idx",
    "score",
]

PROBLEMS = {
    "digits": lambda _: digits(),
    "idx": idx,
}


def load(config: Mapping[str, Any], *, data: Path | None = None) -> Problem:
    """Load the problem that ``config`` names.

    Parameters
    ----------
    config
        ``{"name": ...}``, as recipes and populations carry it.
    data
        Folder with the files, for problems that read files.
    """
    name = config.get("name")
    if name not in PROBLEMS:
        raise unknown_name("problem", name, PROBLEMS)
    return PROBLEMS[name](data)
