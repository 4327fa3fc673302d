"""Networks computed channels last, as TensorFlow does: a reference that shares no code with torch.

Weights are TensorFlow's: convolution kernels ``[y, x, in, out]``, dense ``[in, out]``.
"""

import numpy as np


def conv2d(maps, kernel, bias=None, *, stride=1):
    """Convolve ``[n, y, x, in]`` without padding."""
    height, width = kernel.shape[:2]
    rows = (maps.shape[1] - height) // stride + 1
    columns = (maps.shape[2] - width) // stride + 1
    out = np.zeros((len(maps), rows, columns, kernel.shape[3]))
    for y in range(rows):
        for x in range(columns):
            patch = maps[:, y * stride : y * stride + height, x * stride : x * stride + width]
            out[:, y, x] = np.tensordot(patch, kernel, axes=3)
    return out if bias is None else out + bias


def dense(inputs, kernel, bias=None):
    """Map ``[n, in]`` to ``[n, out]``."""
    return inputs @ kernel if bias is None else inputs @ kernel + bias


def batch_norm(maps, gamma, beta, moving_mean, moving_variance, *, epsilon):
    """Normalise the last axis by what was estimated in training."""
    return gamma * (maps - moving_mean) / np.sqrt(moving_variance + epsilon) + beta


def flatten(maps):
    """Lay ``[n, y, x, c]`` out, positions first."""
    return maps.reshape(len(maps), -1)


def average(maps):
    """Average over positions: ``[n, y, x, c]`` to ``[n, c]``."""
    return maps.mean(axis=(1, 2))


def images(n, height, width, channels, *, seed=0):
    """Draw inputs ``[n, y, x, channels]``."""
    return np.random.default_rng(seed).normal(size=(n, height, width, channels))


def channels_first(maps):
    """Reorder images for torch."""
    return np.ascontiguousarray(maps.transpose(0, 3, 1, 2))
