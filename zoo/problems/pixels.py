"""Pixels as inputs: one scaling for every problem of images."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from zoo.errors import InvalidConfigError

HALF = (0.5,)


def scaled(
    images: np.ndarray, *, mean: Sequence[float] = HALF, std: Sequence[float] = HALF
) -> Tensor:
    """Scale bytes to [0, 1], subtract a mean and divide by a spread, channel by channel.

    Parameters
    ----------
    images
        ``[n, channel, y, x]``, uint8.
    mean, std
        One number for each channel, or one for all; by default pixels end in [-1, 1].

    Returns
    -------
    Tensor
        Of the same shape, float32.

    Raises
    ------
    InvalidConfigError
        If there are other numbers than channels, or a spread is not positive.

    Examples
    --------
    >>> image = np.array([0, 255], np.uint8).reshape(1, 2, 1, 1)
    >>> scaled(image, mean=(0, 0.5), std=(1, 0.25)).flatten()
    tensor([0., 2.])
    """
    channels = images.shape[1]
    if {len(mean), len(std)} - {1, channels} or min(std) <= 0:
        raise InvalidConfigError(
            f"Expected one mean and one positive std, or {channels} of each for images of "
            f"{channels} channels, got {list(mean)} and {list(std)}."
        )
    shape = (-1, 1, 1)
    values = torch.from_numpy(images.astype(np.float32)).div_(255)
    centred = values.sub_(torch.tensor(mean, dtype=torch.float32).view(shape))
    return centred.div_(torch.tensor(std, dtype=torch.float32).view(shape))
