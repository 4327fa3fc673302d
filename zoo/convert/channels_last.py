"""TensorFlow's layout of weights, channels last, to torch's, channels first."""

import numpy as np

from zoo.errors import InvalidConfigError


def torch_kernel(kernel: np.ndarray) -> np.ndarray:
    """Reorder a dense or convolution kernel.

    Parameters
    ----------
    kernel
        ``[in, out]`` of a dense layer or ``[*size, in, out]`` of a convolution (HWIO for two
        dimensions).

    Returns
    -------
    np.ndarray
        ``[out, in]`` or ``[out, in, *size]``, contiguous.

    Examples
    --------
    >>> torch_kernel(np.zeros((3, 2, 5, 7))).shape
    (7, 5, 3, 2)
    """
    if kernel.ndim < 2:
        raise InvalidConfigError(
            f"Expected a kernel [..., in, out] of two axes or more, got shape {kernel.shape}."
        )
    rank = kernel.ndim
    return np.ascontiguousarray(kernel.transpose(rank - 1, rank - 2, *range(rank - 2)))


def keras_kernel(weight: np.ndarray) -> np.ndarray:
    """Undo :func:`torch_kernel`."""
    return np.ascontiguousarray(weight.transpose(*range(2, weight.ndim), 1, 0))


def torch_flattened(kernel: np.ndarray, maps: tuple[int, ...]) -> np.ndarray:
    """Reorder a dense kernel that reads flattened feature maps.

    Parameters
    ----------
    kernel
        ``[height * width * channels, out]``, positions before channels.
    maps
        Height and width of the feature maps.

    Returns
    -------
    np.ndarray
        ``[out, channels * height * width]``, channels before positions as torch flattens.

    Raises
    ------
    InvalidConfigError
        If the inputs are no whole number of maps of that size.
    """
    inputs, outputs = kernel.shape
    positions = int(np.prod(maps))
    if inputs % positions:
        raise InvalidConfigError(
            f"Expected a dense kernel over maps of {' x '.join(map(str, maps))} positions, got "
            f"{inputs} inputs, which is no multiple of {positions}."
        )
    grid = kernel.reshape(positions, inputs // positions, outputs)
    return np.ascontiguousarray(grid.transpose(2, 1, 0).reshape(outputs, inputs))
