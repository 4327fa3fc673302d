"""Batched linear maps and convolutions, each member's rounding its own.

Activations lie in memory with their samples last, ``[N, features, batch]``: a flattened feature map
is then the map itself, a window of an image is a run of whole batches, and one product serves a
layer's samples and positions. Axes are in the usual order nevertheless, ``[N, batch, ...]``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_ALIGNED, _EDGE = 16, 4
"""Matrices of a multiple of 16 numbers start on 64-byte boundaries if the first does; edges that
are multiples of 4 make any so. Products round differently where they start elsewhere."""


class _Affine(torch.autograd.Function):
    """``W x + b`` per member: ``[N, out, in]``, ``[N, in, columns]`` to ``[N, out, columns]``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        if bias is None:
            return torch.bmm(weight, x)
        return torch.baddbmm(bias[:, :, None], weight, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        return (
            _input_slope(weight, gradient) if ctx.needs_input_grad[0] else None,
            _weight_slope(x, gradient),
            gradient.sum(2) if ctx.needs_input_grad[2] else None,
        )


def _input_slope(weight: Tensor, gradient: Tensor) -> Tensor:
    """Compute ``W^T g``; with one output that is no sum."""
    if weight.shape[1] == 1:
        return weight.transpose(1, 2) * gradient
    return torch.bmm(weight.transpose(1, 2), gradient)


def _weight_slope(x: Tensor, gradient: Tensor) -> Tensor:
    """Compute ``g x^T``, the smaller matrix first: products are faster that way round."""
    if x.shape[1] < gradient.shape[1]:
        return torch.bmm(x, gradient.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(gradient, x.transpose(1, 2))


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``W x + b``; matrices of odd sizes are padded so that each starts aligned."""
    width, columns, outputs = x.shape[1], x.shape[2], weight.shape[1]
    if all(size % _ALIGNED == 0 for size in (columns * width, columns * outputs, width * outputs)):
        return _Affine.apply(x, weight, bias)  # type: ignore[no-any-return, no-untyped-call]
    more_columns, more_width, more_outputs = -columns % _EDGE, -width % _EDGE, -outputs % _EDGE
    padded: Tensor = _Affine.apply(  # type: ignore[no-untyped-call]
        functional.pad(x, (0, more_columns, 0, more_width)),
        functional.pad(weight, (0, more_width, 0, more_outputs)),
        None if bias is None else functional.pad(bias, (0, more_outputs)),
    )
    return padded[:, :outputs, :columns]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map the last axis of ``[N, batch, ..., in]`` by ``[N, out, in]`` and ``[N, out]``."""
    columns = x.movedim(-1, 1).movedim(2, -1)
    output = _affine(columns.flatten(2), weight, bias)
    return output.reshape(x.shape[0], -1, *columns.shape[2:]).movedim(-1, 1).movedim(2, -1)


class _Patches(torch.autograd.Function):
    """Every window that a kernel sees: ``[N, C, y, x, B]`` to ``[N, C, ky, kx, y', x', B]``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], step: tuple[int, ...]
    ) -> Tensor:
        ctx.geometry, ctx.shape = (kernel, stride, step), x.shape
        sizes = [
            (length - reach * (width - 1) - 1) // jump + 1
            for length, width, jump, reach in zip(x.shape[2:4], kernel, stride, step, strict=True)
        ]
        n, c, y, x_, b = x.stride()
        windows = x.as_strided(
            (*x.shape[:2], *kernel, *sizes, x.shape[4]),
            (n, c, y * step[0], x_ * step[1], y * stride[0], x_ * stride[1], b),
        )
        return windows.contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kernel, stride, step = ctx.geometry
        total = gradient.new_zeros(ctx.shape)
        height, width = gradient.shape[4:6]
        for row in range(kernel[0]):
            for column in range(kernel[1]):
                top, left = row * step[0], column * step[1]
                seen = total[
                    :,
                    :,
                    top : top + (height - 1) * stride[0] + 1 : stride[0],
                    left : left + (width - 1) * stride[1] + 1 : stride[1],
                ]
                seen.add_(gradient[:, :, row, column])
        return total, None, None, None


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Convolve ``[N, batch, in, y, x]`` with ``[N, out, in, ky, kx]``: one product over windows."""
    if groups > 1:
        return _by_groups(x, weight, bias, stride, padding, dilation, groups)
    last = x.movedim(1, -1)
    if any(padding):
        last = functional.pad(last, (0, 0, *[padding[-1]] * 2, *[padding[0]] * 2))
    kernel = tuple(weight.shape[3:])
    windows = _Patches.apply(  # type: ignore[no-untyped-call]
        last.contiguous(), kernel, _pair(stride), _pair(dilation)
    )
    output = _affine(windows.flatten(1, 3).flatten(2), weight.flatten(2), bias)
    return output.reshape(*output.shape[:2], *windows.shape[4:]).movedim(-1, 1)


def _by_groups(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Convolve with every group of channels as a member of its own."""
    members = x.shape[0]
    apart = x.reshape(*x.shape[:2], groups, -1, *x.shape[3:]).transpose(1, 2).flatten(0, 1)
    output = conv2d(
        apart,
        weight.reshape(members * groups, -1, *weight.shape[2:]),
        None if bias is None else bias.reshape(members * groups, -1),
        stride,
        padding,
        dilation,
    )
    return output.reshape(members, groups, *output.shape[1:]).transpose(1, 2).flatten(2, 3)


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return values[0], values[-1]
