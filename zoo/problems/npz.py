"""Arrays in one NumPy archive: images, tables and regressions of any origin."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zoo.errors import MissingDataError
from zoo.problems.parts import (
    DataFormatError,
    Samples,
    check_task,
    class_ids,
    classes_problem,
    config_of,
    held_out,
    values_problem,
)
from zoo.problems.pixels import HALF, scaled
from zoo.problems.problem import Problem

_NAMES = (
    ("train_inputs", "train_targets", "test_inputs", "test_targets"),
    ("x_train", "y_train", "x_test", "y_test"),  # Keras
    ("X_train", "y_train", "X_test", "y_test"),  # scikit-learn's usage
    ("train_images", "train_labels", "test_images", "test_labels"),  # MedMNIST
)
_WHOLE = (("inputs", "targets"), ("x", "y"), ("X", "y"), ("images", "labels"))
_WANTED = (
    "Wanted is one .npz file (numpy.savez) with train_inputs, train_targets, test_inputs and "
    "test_targets, or x_train, y_train, x_test and y_test, or train_images, train_labels, "
    "test_images and test_labels; or undivided with inputs and targets, x and y, or images and "
    "labels. Keras' MNIST and MedMNIST are had like this."
)


def npz(
    data: Path | None,
    *,
    task: str = "auto",
    tokens: bool = False,
    mean: Sequence[float] = HALF,
    std: Sequence[float] = HALF,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Problem:
    """Load inputs and targets from one ``.npz`` file; nothing in it is unpickled.

    Bytes of rank 3 are grey images ``[n, y, x]``; of rank 4, images with their channels last where
    that axis is at most 4 long, else first. They become ``[n, channel, y, x]``, float32. All other
    inputs are numbers, taken as they are.

    Parameters
    ----------
    data
        The file, or a folder with just that one.
    task
        ``"classes"``, ``"regression"``, or ``"auto"``: integers, booleans and text are classes,
        floating-point numbers are values.
    tokens
        Inputs are token ids ``[n, length]``, which stay int64.
    mean, std
        Normalisation of images; see :func:`zoo.problems.pixels.scaled`.
    test_fraction, seed
        The test part of an undivided file.

    Raises
    ------
    MissingDataError
        If there is no such file, or it lacks arrays.
    DataFormatError
        If it is damaged, or its arrays do not fit together.
    InvalidConfigError
        If the task is unknown.
    """
    check_task(task)
    path = _file(data)
    samples = _parts(path, test_fraction=test_fraction, seed=seed)
    options = {"task": task, "tokens": tokens, "mean": list(mean), "std": list(std)}
    options |= {"test_fraction": test_fraction, "seed": seed}
    about = {"name": path.stem, "config": config_of("npz", npz, options), "where": path}
    inputs = [_inputs(part[0], path, tokens=tokens, mean=mean, std=std) for part in samples]
    targets = [part[1].squeeze(1) if part[1].shape[1:] == (1,) else part[1] for part in samples]
    if task == "auto":
        task = "regression" if np.issubdtype(targets[0].dtype, np.floating) else "classes"
    if task == "regression":
        train, test = (_values(each, path) for each in targets)
        return values_problem((inputs[0], train), (inputs[1], test), **about)
    names, train, test = class_ids(*targets, where=path)
    return classes_problem((inputs[0], train), (inputs[1], test), classes=names, **about)


def _file(data: Path | None) -> Path:
    if data is not None and data.is_file():
        return data
    found = sorted(data.glob("*.npz")) if data is not None and data.is_dir() else []
    if len(found) != 1:
        raise MissingDataError(f"Expected one .npz file at {data}, got {len(found)}. {_WANTED}")
    return found[0]


def _parts(path: Path, *, test_fraction: float, seed: int) -> tuple[Samples, Samples]:
    arrays = _arrays(path)
    for names in _NAMES:
        if set(names) <= set(arrays):
            one, two, three, four = (arrays[name] for name in names)
            return (one, two), (three, four)
    for first, second in _WHOLE:
        if {first, second} <= set(arrays):
            inputs, targets = arrays[first], arrays[second]
            if len(inputs) != len(targets):
                raise DataFormatError(
                    f"Expected as many {first} as {second} in {path}, got {len(inputs)} and "
                    f"{len(targets)}."
                )
            train, test = held_out(len(inputs), test_fraction=test_fraction, seed=seed)
            return (inputs[train], targets[train]), (inputs[test], targets[test])
    raise MissingDataError(
        f"Expected inputs and targets in {path}, got {', '.join(arrays) or 'nothing'}. {_WANTED}"
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of rank 1 or more."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataFormatError(f"Expected an .npz archive, got {path}. {_WANTED}")
            arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, KeyError) as error:
        if isinstance(error, DataFormatError):
            raise
        raise DataFormatError(
            f"Cannot read {path}: {error}. Fetch the file again; arrays of Python objects are "
            "never read."
        ) from error
    return {name: array for name, array in arrays.items() if array.ndim}


def _inputs(
    values: np.ndarray, path: Path, *, tokens: bool, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    if values.dtype.kind not in "fiub" or values.ndim < 2:
        raise DataFormatError(
            f"Expected inputs of numbers [n, ...] in {path}, got {values.dtype} {values.shape}."
        )
    if tokens:
        if values.dtype.kind not in "iu" or values.min(initial=0) < 0:
            raise DataFormatError(f"Expected token ids from 0 in {path}, got {values.dtype}.")
        return values.astype(np.int64)
    if values.dtype == np.uint8 and values.ndim in (3, 4):
        planes = values[:, None] if values.ndim == 3 else values
        if values.ndim == 4 and values.shape[-1] <= 4:
            planes = values.transpose(0, 3, 1, 2)
        return np.asarray(scaled(planes, mean=mean, std=std))
    return values.astype(np.float32)


def _values(targets: np.ndarray, path: Path) -> np.ndarray:
    if targets.dtype.kind not in "fiub" or targets.ndim not in (1, 2):
        raise DataFormatError(
            f"Expected targets [n] or [n, values] of numbers in {path}, got {targets.dtype} "
            f"{targets.shape}."
        )
    return targets[:, None] if targets.ndim == 1 else targets
