"""Batched linear maps and convolutions, each member's rounding its own.

Activations lie in memory with their samples last, ``[N, features, batch]``: a flattened feature map
is then the map itself, a window of an image is a run of whole batches, and one product serves a
layer's samples and positions. Axes are in the usual order nevertheless, ``[N, batch, ...]``. Where
each sample has many vectors, as tokens and steps, those lie with their features last, ``[N, batch,
length, features]``: rows that are normalised, split into heads and looked up.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

_ALIGNED, EDGE = 16, 4
"""Matrices of a multiple of 16 numbers start on 64-byte boundaries if the first does; edges that
are multiples of 4 make any so. Products round differently where they start elsewhere."""

MOST_WINDOWS, SOME_WINDOWS = 2**25, 2**22
"""Numbers that a member's windows may have in all (128 MiB); those made at a time beyond that."""
_ONE_VECTOR = 3
"""Axes of activations where each sample has one vector: member, sample, feature."""


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


def affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``W x + b`` per member: ``[N, in, columns]`` by ``[N, out, in]`` and ``[N, out]``.

    Matrices of odd sizes are padded so that each starts aligned.
    """
    width, columns, outputs = x.shape[1], x.shape[2], weight.shape[1]
    if all(size % _ALIGNED == 0 for size in (columns * width, columns * outputs, width * outputs)):
        return _Affine.apply(x, weight, bias)  # type: ignore[no-any-return, no-untyped-call]
    more_columns, more_width, more_outputs = -columns % EDGE, -width % EDGE, -outputs % EDGE
    padded: Tensor = _Affine.apply(  # type: ignore[no-untyped-call]
        functional.pad(x, (0, more_columns, 0, more_width)),
        functional.pad(weight, (0, more_width, 0, more_outputs)),
        None if bias is None else functional.pad(bias, (0, more_outputs)),
    )
    return padded[:, :outputs, :columns]


class _RowAffine(torch.autograd.Function):
    """``x W^T + b`` per member: ``[N, rows, in]``, ``[N, out, in]`` to ``[N, rows, out]``."""

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


def rows_affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``x W^T + b`` per member: ``[N, rows, in]`` by ``[N, out, in]`` and ``[N, out]``.

    Matrices of odd sizes are padded as in :func:`affine`.
    """
    rows, width, outputs = x.shape[1], x.shape[2], weight.shape[1]
    x = x.contiguous()
    if all(size % _ALIGNED == 0 for size in (rows * width, rows * outputs, width * outputs)):
        return _RowAffine.apply(x, weight, bias)  # type: ignore[no-any-return, no-untyped-call]
    more_rows, more_width, more_outputs = -rows % EDGE, -width % EDGE, -outputs % EDGE
    padded: Tensor = _RowAffine.apply(  # type: ignore[no-untyped-call]
        functional.pad(x, (0, more_width, 0, more_rows)),
        functional.pad(weight, (0, more_width, 0, more_outputs)),
        None if bias is None else functional.pad(bias, (0, more_outputs)),
    )
    return padded[:, :rows, :outputs]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map the last axis of ``[N, batch, ..., in]`` by ``[N, out, in]`` and ``[N, out]``."""
    if x.ndim > _ONE_VECTOR:
        rows = rows_affine(x.flatten(1, -2), weight, bias)
        return rows.reshape(*x.shape[:-1], weight.shape[1])
    return affine(x.transpose(1, 2), weight, bias).transpose(1, 2)


def product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply ``[N, ..., m, k]`` by ``[N, ..., k, n]``, each pair of matrices by itself."""
    rows, inner, columns = left.shape[-2], left.shape[-1], right.shape[-1]
    if any(size % _ALIGNED for size in (rows * inner, inner * columns, rows * columns)):
        more_rows, more_inner, more_columns = -rows % EDGE, -inner % EDGE, -columns % EDGE
        left = functional.pad(left, (0, more_inner, 0, more_rows))
        right = functional.pad(right, (0, more_columns, 0, more_inner))
    lead = left.shape[:-2]
    output = torch.bmm(left.flatten(0, -3).contiguous(), right.flatten(0, -3).contiguous())
    return output.view(*lead, *output.shape[1:])[..., :rows, :columns]


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
    """Convolve ``[N, batch, in, y, x]`` with ``[N, out, in, ky, kx]``: one product over windows.

    Windows that memory would not hold are made some samples at a time, and again on the way back.
    """
    if groups > 1:
        return _by_groups(x, weight, bias, stride, padding, dilation, groups)
    last = x.movedim(1, -1)
    if any(padding):
        last = functional.pad(last, (0, 0, *[padding[-1]] * 2, *[padding[0]] * 2))
    run = partial(_over_windows, stride=_pair(stride), step=_pair(dilation))
    size = _samples_at_once(last, weight, _pair(stride))
    if size >= last.shape[-1] or last.device.type != "cpu":
        return run(last, weight, bias).movedim(-1, 1)
    parts = [
        checkpoint(run, part, weight, bias, use_reentrant=False, preserve_rng_state=False)
        for part in torch.split(last, size, -1)
    ]
    return torch.cat(parts, dim=-1).movedim(-1, 1)


def _over_windows(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: tuple[int, int],
    step: tuple[int, int],
) -> Tensor:
    """Convolve ``[N, in, y, x, batch]`` to ``[N, out, y', x', batch]``."""
    windows = _Patches.apply(  # type: ignore[no-untyped-call]
        x.contiguous(), tuple(weight.shape[3:]), stride, step
    )
    output = affine(windows.flatten(1, 3).flatten(2), weight.flatten(2), bias)
    return output.reshape(*output.shape[:2], *windows.shape[4:])


def _samples_at_once(x: Tensor, weight: Tensor, stride: tuple[int, int]) -> int:
    """Return how many samples of ``[N, in, y, x, batch]`` a convolution should take at once."""
    positions = -(-x.shape[2] // stride[0]) * -(-x.shape[3] // stride[1])
    windows = positions * weight[0, 0].numel()
    if windows * x.shape[4] <= MOST_WINDOWS:
        return x.shape[4]
    return max(_ALIGNED, SOME_WINDOWS // windows // _ALIGNED * _ALIGNED)


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> Tensor:
    """Convolve ``[N, batch, in, steps]`` with ``[N, out, in, k]``, as images of one row."""
    image = conv2d(
        x[:, :, :, None],
        weight[:, :, :, None],
        bias,
        (1, stride[0]),
        (0, padding[0]),
        (1, dilation[0]),
        groups,
    )
    return image[:, :, :, 0]


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
