"""Convolutions as products of matrices, whose second derivatives are cheap on a CPU.

The library's convolution differentiates its backward pass into further convolutions, each with an
overhead that exceeds the arithmetic of a small network. Here a convolution is one matrix product
with patches of its input, channels last; patches and their transpose are the derivatives of each
other, so first and second derivatives are matrix products again. There are no third ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_Pair = tuple[int, int]
_MOST_COPIES = 4
"""How often patches may hold a pixel; beyond, moving them costs more than what is saved."""
_CONVOLUTIONS = (torch.conv2d, functional.conv2d)


@dataclass(frozen=True, kw_only=True)
class _Window:
    """How patches lie in images ``[n, y, x, channels]``."""

    shape: tuple[int, ...]
    kernel: _Pair
    stride: _Pair
    dilation: _Pair

    @property
    def positions(self) -> _Pair:
        """Number of patches along each axis."""
        y, x = (
            (size - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, dilation in zip(
                self.shape[1:3], self.kernel, self.stride, self.dilation, strict=True
            )
        )
        return y, x

    @property
    def full_shape(self) -> tuple[int, ...]:
        """``[n, y, x, kernel y, kernel x, channels]``."""
        return (self.shape[0], *self.positions, *self.kernel, self.shape[3])

    def slices(self, row: int, column: int) -> tuple[slice, ...]:
        """Pixels that one entry of the kernel meets."""
        starts = (row * self.dilation[0], column * self.dilation[1])
        return (
            slice(None),
            *(
                slice(start, start + stride * (count - 1) + 1, stride)
                for start, stride, count in zip(starts, self.stride, self.positions, strict=True)
            ),
        )


class _Gather(torch.autograd.Function):
    """Images ``[n, y, x, channels]`` to patches ``[n * positions, kernel * channels]``."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, window: _Window) -> Tensor:
        ctx.window = window
        images = images.contiguous()
        sample, y, x, channel = images.stride()
        strides = (
            sample,
            window.stride[0] * y,
            window.stride[1] * x,
            window.dilation[0] * y,
            window.dilation[1] * x,
            channel,
        )
        patches = images.as_strided(window.full_shape, strides, images.storage_offset())
        return patches.reshape(-1, window.kernel[0] * window.kernel[1] * window.shape[3])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _call(_Scatter, gradients[0], ctx.window), None


class _Scatter(torch.autograd.Function):
    """Transpose of :class:`_Gather`: add patches up into images."""

    @staticmethod
    def forward(ctx: Any, patches: Tensor, window: _Window) -> Tensor:
        ctx.window = window
        patches = patches.reshape(window.full_shape)
        images = patches.new_zeros(window.shape)
        for row in range(window.kernel[0]):
            for column in range(window.kernel[1]):
                images[window.slices(row, column)] += patches[:, :, :, row, column]
        return images

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _call(_Gather, gradients[0], ctx.window), None


class _Product(torch.autograd.Function):
    """Patches ``[m, k]`` times a matrix ``[k, out]`` plus a bias ``[out]``.

    The library's product does the same; here the sums of the second derivative are fused into its
    products, which saves passes over the largest arrays.
    """

    @staticmethod
    def forward(ctx: Any, patches: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(patches, matrix)
        return torch.addmm(bias, patches, matrix)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        patches, matrix = ctx.saved_tensors
        wanted = ctx.needs_input_grad[0]
        found: tuple[Tensor | None, ...] = _call(
            _ProductBackward, gradients[0], patches, matrix, wanted
        )
        return found


class _ProductBackward(torch.autograd.Function):
    """Gradients of :class:`_Product` by patches (where wanted), matrix and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        outer: Tensor,
        patches: Tensor,
        matrix: Tensor,
        wanted: bool,  # noqa: FBT001
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        ctx.save_for_backward(outer, patches, matrix)
        ctx.set_materialize_grads(False)
        return outer @ matrix.T if wanted else None, patches.T @ outer, outer.sum(0)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_patches: Tensor | None, by_matrix: Tensor | None, by_bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        outer, patches, matrix = ctx.saved_tensors
        if by_matrix is None:
            by_matrix = torch.zeros_like(matrix)
        if by_bias is None:
            by_bias = matrix.new_zeros(matrix.shape[1])
        to_outer = torch.addmm(by_bias, patches, by_matrix)
        to_patches = outer @ by_matrix.T if ctx.needs_input_grad[1] else None
        if by_patches is None:
            return to_outer, to_patches, None, None
        return to_outer.addmm_(by_patches, matrix), to_patches, by_patches.T @ outer, None


def convolve(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Compute what ``torch.conv2d`` does with one group.

    Parameters
    ----------
    images
        ``[n, in, y, x]``.
    weight, bias
        ``[out, in, kernel y, kernel x]`` and ``[out]``.
    stride, padding, dilation
        For both axes, or for ``y`` and ``x``.

    Returns
    -------
    Tensor
        ``[n, out, y, x]``, channels last in memory.
    """
    pad_y, pad_x = _pair(padding)
    last = images.permute(0, 2, 3, 1)
    if pad_y or pad_x:
        last = functional.pad(last, (0, 0, pad_x, pad_x, pad_y, pad_y))
    window = _Window(
        shape=tuple(last.shape),
        kernel=(weight.shape[2], weight.shape[3]),
        stride=_pair(stride),
        dilation=_pair(dilation),
    )
    patches = _call(_Gather, last, window)
    matrix = weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0])
    if bias is None:
        bias = patches.new_zeros(len(weight))
    product: Tensor = _call(_Product, patches, matrix, bias)
    found: Tensor = product.view(len(images), *window.positions, -1).permute(0, 3, 1, 2)
    return found


class PatchConvolutions(TorchFunctionMode):
    """While active, modules compute plain 2-D convolutions by :func:`convolve`.

    Those whose patches overlap a lot (3x3 with stride 1, say) stay with the library, which then is
    faster, as do grouped convolutions and padding given as a word.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Replace a convolution; pass everything else on."""
        if func in _CONVOLUTIONS and (call := _plain(*args, **(kwargs or {}))) is not None:
            return convolve(*call)
        return func(*args, **(kwargs or {}))


def _plain(
    input: Tensor,  # noqa: A002 - the library's names
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Any, ...] | None:
    """Return the arguments of :func:`convolve`, or nothing where it does not apply."""
    if groups != 1 or isinstance(padding, str) or input.ndim != 4:
        return None
    copies = weight.shape[2] * weight.shape[3] / (_pair(stride)[0] * _pair(stride)[1])
    if copies > _MOST_COPIES:
        return None
    return input, weight, bias, stride, padding, dilation


def _pair(value: int | Sequence[int]) -> _Pair:
    if isinstance(value, int):
        return value, value
    return int(value[0]), int(value[-1])


def _call(function: Any, *arguments: Any) -> Any:
    return function.apply(*arguments)
