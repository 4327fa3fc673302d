"""From arrays of a file to a problem: checks, splits and configurations that formats share."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import InvalidConfigError, MissingDataError, ZooError
from zoo.problems.problem import Problem

Samples = tuple[np.ndarray, np.ndarray]
"""Inputs ``[n, ...]`` and targets ``[n]`` or ``[n, values]``."""


TASKS = ("auto", "classes", "regression")
"""What targets may be taken for; ``auto`` decides by their kind."""


class DataFormatError(ZooError, ValueError):
    """A data file that is damaged, of another format, or does not hold what a problem needs."""


def config_of(
    name: str, loader: Callable[..., Problem], options: Mapping[str, object]
) -> dict[str, Any]:
    """Name a problem together with those options that differ from the defaults of its loader."""
    defaults = inspect.signature(loader).parameters
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in options.items()}
    kept = {
        key: value
        for key, value in plain.items()
        if value != defaults[key].default and value != _plain(defaults[key].default)
    }
    return {"name": name} | kept


def folder_of(data: Path | None, wanted: str) -> Path:
    """Return the folder with the files, or say what is wanted there.

    Raises
    ------
    MissingDataError
        If there is none.
    """
    if data is None or not data.is_dir():
        raise MissingDataError(f"Expected a folder at --data, got {data}. {wanted}")
    return data


def held_out(count: int, *, test_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw which samples are for training and which for testing, each in their old order.

    Raises
    ------
    InvalidConfigError
        If one of the parts would be empty.

    Examples
    --------
    >>> train, test = held_out(5, test_fraction=0.4, seed=0)
    >>> len(train), len(test), sorted([*train, *test]) == list(range(5))
    (3, 2, True)
    """
    num_test = round(count * test_fraction)
    if not 0 < num_test < count:
        raise InvalidConfigError(
            f"Expected a test_fraction that leaves samples for both parts, got {test_fraction} of "
            f"{count} samples."
        )
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[num_test:]), np.sort(order[:num_test])


def check_task(task: str) -> None:
    """Refuse tasks that do not exist."""
    if task not in TASKS:
        raise InvalidConfigError(f"Expected a task of {', '.join(TASKS)}, got {task!r}.")


def is_number(text: str) -> bool:
    """Say whether a field is a finite number.

    >>> [is_number(text) for text in ("-1.5e3", "7", "M", "1_0")]
    [True, True, False, False]
    """
    try:
        return math.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False


def class_ids(
    train: np.ndarray, test: np.ndarray, *, where: object
) -> tuple[list[object], np.ndarray, np.ndarray]:
    """Give classes numbers by their order: their names, and the ids of both parts.

    Text that is all numbers goes by their values.

    Raises
    ------
    DataFormatError
        If targets are not ``[n]``, or of both text and numbers.
    """
    if train.ndim != 1 or test.ndim != 1:
        raise DataFormatError(
            f"Expected classes [n] in {where}, got {train.shape} and {test.shape}. If they are "
            "values, give task='regression'; if one-hot, their argmax."
        )
    if (train.dtype.kind in "US") != (test.dtype.kind in "US"):
        raise DataFormatError(
            f"Expected classes of one type in {where}, got {train.dtype} and {test.dtype}."
        )
    both = np.concatenate([train, test])
    if both.dtype.kind == "U" and all(map(is_number, both)):
        both = both.astype(np.float64)
    names, ids = np.unique(both, return_inverse=True)
    return names.tolist(), ids[: len(train)], ids[len(train) :]


def classes_problem(
    train: Samples, test: Samples, *, classes: Sequence[object], where: object, **about: Any
) -> Problem:
    """Make a problem of classes.

    Parameters
    ----------
    train, test
        Inputs, float or int64 tokens, and the positions of their classes, ``[n]``.
    classes
        What the classes are called, for errors.
    where
        File or folder, for errors.
    **about
        ``name``, ``config`` and whatever else a :class:`~zoo.problems.Problem` has.

    Raises
    ------
    DataFormatError
        If a part is empty, inputs are not finite or differ in shape, there is one class only, or a
        class has no training samples.
    """
    _check(train, test, where)
    if len(classes) < 2:
        raise DataFormatError(f"Expected two classes or more in {where}, got {list(classes)}.")
    counts = np.bincount(train[1], minlength=len(classes))
    if (counts == 0).any():
        empty = [str(classes[k]) for k in np.flatnonzero(counts == 0)[:5]]
        raise DataFormatError(
            f"Expected training samples of all {len(classes)} classes in {where}, got none of "
            f"{', '.join(empty)}. Leave them out, or draw the test part with another seed."
        )
    targets = [torch.from_numpy(np.asarray(part[1], np.int64)) for part in (train, test)]
    return _problem(train, test, targets, num_classes=len(classes), **about)


def values_problem(train: Samples, test: Samples, *, where: object, **about: Any) -> Problem:
    """Make a regression of targets ``[n, values]``; see :func:`classes_problem`.

    Raises
    ------
    DataFormatError
        If a part is empty, numbers are not finite, or shapes differ between the parts.
    """
    _check(train, test, where)
    if train[1].shape[1:] != test[1].shape[1:]:
        raise DataFormatError(
            f"Expected train and test targets of as many values in {where}, got "
            f"{train[1].shape[1:]} and {test[1].shape[1:]}."
        )
    for _, values in (train, test):
        if not np.isfinite(values).all():
            raise DataFormatError(f"Expected finite targets in {where}, got NaN or infinity.")
    targets = [torch.from_numpy(np.asarray(part[1], np.float32)) for part in (train, test)]
    return _problem(train, test, targets, num_classes=0, **about)


def signals_problem(points: np.ndarray, values: np.ndarray, **about: Any) -> Problem:
    """Make a problem of signals ``[signals, n, values]`` at ``points`` ``[n, coordinates]``.

    ``peak`` is twice the largest magnitude, unless it is given.
    """
    targets = torch.from_numpy(np.asarray(values, np.float32))
    inputs = torch.from_numpy(np.asarray(points, np.float32))
    given = {"peak": 2 * float(targets.abs().max()) or 1.0} | about
    return Problem(
        train_inputs=inputs,
        train_targets=targets,
        test_inputs=inputs[:0],
        test_targets=targets.new_zeros(0),
        num_classes=0,
        **given,
    )


def middles(count: int) -> np.ndarray:
    """Return ``count`` evenly spaced places in (-1, 1), float64.

    >>> middles(2)
    array([-0.5,  0.5])
    """
    return (2 * np.arange(count) + 1 - count) / count


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _check(train: Samples, test: Samples, where: object) -> None:
    for part, (inputs, targets) in (("train", train), ("test", test)):
        if not len(inputs) or len(inputs) != len(targets):
            raise DataFormatError(
                f"Expected as many {part} inputs as targets, and some, in {where}, got "
                f"{len(inputs)} and {len(targets)}."
            )
        if not np.isfinite(inputs).all():
            raise DataFormatError(f"Expected finite {part} inputs in {where}, got NaN or infinity.")
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataFormatError(
            f"Expected train and test inputs of one shape in {where}, got {train[0].shape[1:]} and "
            f"{test[0].shape[1:]}."
        )


def _problem(train: Samples, test: Samples, targets: list[Tensor], **about: Any) -> Problem:
    return Problem(
        train_inputs=_inputs(train[0]),
        train_targets=targets[0],
        test_inputs=_inputs(test[0]),
        test_targets=targets[1],
        **about,
    )


def _inputs(values: np.ndarray) -> Tensor:
    kept = np.int64 if np.issubdtype(values.dtype, np.integer) else np.float32
    return torch.from_numpy(np.ascontiguousarray(values, kept))
