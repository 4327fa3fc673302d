"""Elementwise passes over stacks, in which the place of an entry cannot change its rounding.

Kernels of ATen treat the last ``numel % 32`` entries of an elementwise pass by scalar code, which
may round otherwise than its vector code; where that can happen the pass is padded.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_LANES = 32
"""Entries that the widest unrolled vector loop takes at once (two AVX-512 registers)."""


def in_memory_order(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return ``x`` contiguous, its axes as they lie in memory; also the way back."""
    strides = x.stride()
    axes = [0, *sorted(range(1, x.ndim), key=lambda axis: -strides[axis])]
    back = [axes.index(axis) for axis in range(x.ndim)]
    return x.permute(axes).contiguous(), lambda y: y.permute(back)


class _Settle(torch.autograd.Function):
    """Identity; its gradient is contiguous, so that what follows runs the same code everywhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous()


def apply_rounded(function: Callable[..., Tensor], x: Tensor, *args: Any) -> Tensor:
    """Apply a function entry by entry so that the place of an entry cannot change its rounding."""
    plain, restore = in_memory_order(x)
    if plain.numel() % _LANES == 0:
        settled: Tensor = _Settle.apply(function(plain, *args))  # type: ignore[no-untyped-call]
        return restore(settled)
    flat = plain.flatten()
    padded = functional.pad(flat, (0, -flat.numel() % _LANES))
    return restore(function(padded, *args)[: flat.numel()].view(plain.shape))


def apply_exact(function: Callable[..., Tensor], x: Tensor, *args: Any) -> Tensor:
    """Apply a function that rounds at most once, so that scalar and vector code agree."""
    plain, restore = in_memory_order(x)
    return restore(function(plain, *args))


class _Sine(torch.autograd.Function):
    """``sin``, whose gradient is formed in one new tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.sin(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.cos(x).mul_(gradient)


def sine(x: Tensor) -> Tensor:
    """Take the sine of each entry."""
    output: Tensor = _Sine.apply(x)  # type: ignore[no-untyped-call]
    return output
