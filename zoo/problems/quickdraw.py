"""Quick, Draw! bitmaps: one file of 28x28 drawings for each class."""

from pathlib import Path

import numpy as np
import torch

from zoo.errors import InvalidConfigError, MissingDataError
from zoo.problems.parts import DataFormatError, classes_problem, config_of, folder_of, held_out
from zoo.problems.pixels import scaled
from zoo.problems.problem import Problem
from zoo.problems.signals import image_signals

_SIDE = 28
_SUFFIXES = (".bin", ".npy")
_LICENCE = "CC BY 4.0"
_SOURCE = "The Quick, Draw! Dataset, Google: Ha and Eck, ICLR 2018"
_WANTED = (
    "Wanted is a folder with one file for each class, named after it: CLASS.npy of bytes [n, 784], "
    "or CLASS.bin of the bytes alone. They are usually had from "
    "github.com/googlecreativelab/quickdraw-dataset as 'numpy bitmaps'."
)


def quickdraw(
    data: Path | None, *, per_class: int = 0, test_fraction: float = 0.2, seed: int = 0
) -> Problem:
    """Load drawings [1]_ as ``[n, 1, 28, 28]`` in [-1, 1]; class ids follow the alphabet.

    Parameters
    ----------
    data
        The folder.
    per_class
        Take only the first drawings of each class; 0 takes all.
    test_fraction, seed
        The test part, drawn from all classes together.

    Raises
    ------
    MissingDataError
        If there are no such files.
    DataFormatError
        If a file is damaged, or holds fewer drawings than asked for.
    InvalidConfigError
        If ``per_class`` is negative.

    References
    ----------
    .. [1] Ha and Eck, "A neural representation of sketch drawings", ICLR 2018.
    """
    folder = folder_of(data, _WANTED)
    names, inputs, labels = _read(folder, per_class)
    train, test = held_out(len(labels), test_fraction=test_fraction, seed=seed)
    options = {"per_class": per_class, "test_fraction": test_fraction, "seed": seed}
    return classes_problem(
        (inputs[train], labels[train]),
        (inputs[test], labels[test]),
        classes=names,
        where=folder,
        name=folder.resolve().name,
        config=config_of("quickdraw", quickdraw, options),
        licence=_LICENCE,
        source=_SOURCE,
    )


def quickdraw_signals(data: Path | None, *, per_class: int = 0) -> Problem:
    """Take drawings as signals in [-1, 1], class by class; labels are the classes.

    Parameters and errors are those of :func:`quickdraw`.
    """
    folder = folder_of(data, _WANTED)
    _, inputs, labels = _read(folder, per_class)
    return image_signals(
        torch.from_numpy(inputs),
        torch.from_numpy(labels),
        name=folder.resolve().name,
        config=config_of("quickdraw-signals", quickdraw_signals, {"per_class": per_class}),
        peak=2.0,
        licence=_LICENCE,
        source=_SOURCE,
    )


def _read(folder: Path, per_class: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Read the names of classes, images ``[n, 1, 28, 28]`` and labels ``[n]``."""
    if per_class < 0:
        raise InvalidConfigError(f"Expected drawings per class from 0, got {per_class}.")
    paths = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    names = [path.stem for path in paths]
    if not paths or len(set(names)) < len(names):
        raise MissingDataError(
            f"Expected one file for each class in {folder}, got {', '.join(names) or 'none'}. "
            f"{_WANTED}"
        )
    drawings = [_drawings(path, per_class) for path in paths]
    labels = np.repeat(np.arange(len(paths)), [len(each) for each in drawings])
    inputs = scaled(np.concatenate(drawings).reshape(-1, 1, _SIDE, _SIDE)).numpy()
    return names, inputs, labels


def _drawings(path: Path, per_class: int) -> np.ndarray:
    """Read bytes ``[n, 784]``."""
    try:
        if path.suffix == ".npy":
            drawings = np.load(path, allow_pickle=False)
        else:
            drawings = np.frombuffer(path.read_bytes(), np.uint8)
    except (OSError, EOFError, ValueError) as error:
        raise DataFormatError(f"Cannot read {path}: {error}. Fetch the file again.") from error
    if drawings.dtype != np.uint8 or not drawings.size or drawings.size % _SIDE**2:
        raise DataFormatError(
            f"Expected drawings of {_SIDE**2} bytes in {path}, got {drawings.dtype} "
            f"{drawings.shape}. Are they {_SIDE}x{_SIDE} bitmaps, and all of the file?"
        )
    flat: np.ndarray = drawings.reshape(-1, _SIDE**2)
    if len(flat) < per_class:
        raise DataFormatError(
            f"Expected {per_class} drawings in {path}, got {len(flat)}. Ask for fewer by the "
            "option per_class."
        )
    return flat[: per_class or None]
