"""Batched linear maps and convolutions, each member's rounding its own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_ALIGNED, _EDGE = 16, 4
"""Matrices of a multiple of 16 numbers start on 64-byte boundaries if the first does; edges that
are multiples of 4 make any so. Products round differently where they start elsewhere."""


class _Linear(torch.autograd.Function):
    """``x w^T + b`` per member, with gradients in the layout of the weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        if bias is None:
            return torch.bmm(x, weight.transpose(1, 2))
        return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        return (
            torch.bmm(gradient, weight) if ctx.needs_input_grad[0] else None,
            torch.bmm(gradient.transpose(1, 2), x),
            gradient.sum(1) if ctx.needs_input_grad[2] else None,
        )


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``[N, rows, out]``; matrices of odd sizes are padded so that each starts aligned."""
    rows, width, outputs = x.shape[1], x.shape[2], weight.shape[1]
    if all(size % _ALIGNED == 0 for size in (rows * width, rows * outputs, width * outputs)):
        return _Linear.apply(x.contiguous(), weight, bias)  # type: ignore[no-any-return, no-untyped-call]
    more_rows, more_width, more_outputs = -rows % _EDGE, -width % _EDGE, -outputs % _EDGE
    padded: Tensor = _Linear.apply(  # type: ignore[no-untyped-call]
        functional.pad(x, (0, more_width, 0, more_rows)),
        functional.pad(weight, (0, more_width, 0, more_outputs)),
        None if bias is None else functional.pad(bias, (0, more_outputs)),
    )
    return padded[:, :rows, :outputs]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map the last axis of ``[N, batch, ..., in]`` by ``[N, out, in]`` and ``[N, out]``."""
    output = _affine(x.flatten(1, -2), weight, bias)
    return output if x.ndim == 3 else output.reshape(*x.shape[:-1], output.shape[-1])


class _Patches(torch.autograd.Function):
    """Every window that a kernel sees: ``[N, B, y, x, C]`` to ``[N, B, y', x', ky, kx, C]``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], step: tuple[int, ...]
    ) -> Tensor:
        ctx.geometry, ctx.shape = (kernel, stride, step), x.shape
        sizes = [
            (length - reach * (width - 1) - 1) // jump + 1
            for length, width, jump, reach in zip(x.shape[2:4], kernel, stride, step, strict=True)
        ]
        n, b, y, x_, c = x.stride()
        windows = x.as_strided(
            (*x.shape[:2], *sizes, *kernel, x.shape[4]),
            (n, b, y * stride[0], x_ * stride[1], y * step[0], x_ * step[1], c),
        )
        return windows.contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kernel, stride, step = ctx.geometry
        total = gradient.new_zeros(ctx.shape)
        height, width = gradient.shape[2:4]
        for row in range(kernel[0]):
            for column in range(kernel[1]):
                top, left = row * step[0], column * step[1]
                seen = total[
                    :,
                    :,
                    top : top + (height - 1) * stride[0] + 1 : stride[0],
                    left : left + (width - 1) * stride[1] + 1 : stride[1],
                ]
                seen.add_(gradient[:, :, :, :, row, column])
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
    last = x.movedim(2, -1)
    if any(padding):
        last = functional.pad(last, (0, 0, *[padding[-1]] * 2, *[padding[0]] * 2))
    kernel = tuple(weight.shape[3:])
    windows = _Patches.apply(  # type: ignore[no-untyped-call]
        last.contiguous(), kernel, _pair(stride), _pair(dilation)
    )
    rows = weight.permute(0, 1, 3, 4, 2).flatten(2)
    output = _affine(windows.flatten(4).flatten(1, 3), rows, bias)
    shape = (*windows.shape[:4], output.shape[-1])
    return output.reshape(shape).movedim(-1, 2)


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
