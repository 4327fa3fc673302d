"""Images as signals: one network per image maps a pixel's place to its value."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.problems.digits import digits
from zoo.problems.idx import idx
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
    images: Tensor, labels: Tensor, *, name: str, config: dict[str, str], peak: float
) -> Problem:
    """Make the problem of fitting every image by a network of its own.

    Parameters
    ----------
    images
        ``[signals, y, x]`` or ``[signals, values, y, x]``, float32.
    labels
        What they show, ``[signals]`` int64.
    name, config, peak
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
    known = idx(data)
    pixels = torch.cat([known.train_inputs, known.test_inputs])
    labels = torch.cat([known.train_targets, known.test_targets])
    config = {"name": "idx-signals"}
    return image_signals(pixels, labels, name=known.name, config=config, peak=2.0)
