"""Images as signals: one network per image maps a pixel's place to its value."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.problems.cifar import cifar10
from zoo.problems.digits import digits
from zoo.problems.idx import idx
from zoo.problems.images import images
from zoo.problems.problem import Problem


def pixel_grid(height: int, width: int) -> Tensor:
    """Return the middles of pixels, ``[height * width, 2]`` as (y, x) in (-1, 1), row by row.

    >>> pixel_grid(2, 1)
    tensor([[-0.5000,  0.0000],
            [ 0.5000,  0.0000]])
    """
    rows, columns = (
        torch.from_numpy((2 * np.arange(size) + 1 - size) / size) for size in (height, width)
    )
    return torch.cartesian_prod(rows, columns).to(torch.float32)


def image_signals(
    images: Tensor,
    labels: Tensor,
    *,
    name: str,
    config: dict[str, Any],
    peak: float,
    licence: str = "",
    source: str = "",
) -> Problem:
    """Make the problem of fitting every image by a network of its own.

    Parameters
    ----------
    images
        ``[signals, y, x]`` or ``[signals, values, y, x]``, float32.
    labels
        What they show, ``[signals]`` int64.
    name, config, peak, licence, source
        As in :class:`~zoo.problems.Problem`.
    """
    planes = images if images.ndim == 4 else images[:, None]
    grid = pixel_grid(*planes.shape[2:])
    return Problem(
        name=name,
        config=config,
        train_inputs=grid,
        train_targets=planes.flatten(2).transpose(1, 2).contiguous(),
        test_inputs=grid[:0],
        test_targets=planes.new_zeros(0),
        num_classes=0,
        peak=peak,
        labels=labels,
        licence=licence,
        source=source,
    )


def pixel_signals(known: Problem) -> Problem:
    """Take all images of a problem of classes, in [-1, 1], as signals: training images first.

    Parameters
    ----------
    known
        Its config's name, with ``-signals`` behind it, names the problem.
    """
    return image_signals(
        torch.cat([known.train_inputs, known.test_inputs]),
        torch.cat([known.train_targets, known.test_targets]),
        name=known.name,
        config=known.config | {"name": f"{known.config['name']}-signals"},
        peak=2.0,
        licence=known.licence,
        source=known.source,
    )


def digit_signals() -> Problem:
    """Take scikit-learn's 1,797 digits as signals: 64 pixels in [-1, 1] each."""
    known = digits()
    pixels = torch.cat([known.train_inputs, known.test_inputs]).view(-1, 8, 8) * 2 - 1
    labels = torch.cat([known.train_targets, known.test_targets])
    config = {"name": "digit-signals"}
    return image_signals(pixels, labels, name="digits", config=config, peak=2.0)


def idx_signals(data: Path | None) -> Problem:
    """Take all images of IDX files as signals in [-1, 1], training images first.

    Raises
    ------
    MissingDataError, IDXFormatError
        As :func:`zoo.problems.idx` does.
    """
    return pixel_signals(idx(data))


def cifar10_signals(data: Path | None, *, num_test: int = 0) -> Problem:
    """Take all images of CIFAR-10 as signals in [-1, 1] of three values, training images first.

    Parameters
    ----------
    num_test
        As in :func:`zoo.problems.cifar10`; without a test batch, 1 or more takes all images.

    Raises
    ------
    MissingDataError, CIFARFormatError
        As :func:`zoo.problems.cifar10` does.
    """
    config = {"name": "cifar10-signals"} | ({"num_test": num_test} if num_test else {})
    return replace(pixel_signals(cifar10(data, num_test=num_test)), config=config)


def file_signals(
    data: Path | None, *, grey: bool = False, train_every: int = 1, test_every: int = 1
) -> Problem:
    """Take classified image files as signals in [-1, 1], of three values or, if grey, of one.

    Parameters and errors are those of :func:`zoo.problems.images`.
    """
    known = images(data, grey=grey, train_every=train_every, test_every=test_every)
    options = {"grey": grey, "train_every": train_every, "test_every": test_every}
    return replace(pixel_signals(known), config={"name": "image-signals"} | options)
