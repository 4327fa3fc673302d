"""Operators with a leading member axis: what the stacked engine runs for each ATen operator.

Every tensor is ``[N, *shape]`` where ATen would have ``shape``: weights ``[N, out, in]``,
activations ``[N, batch, ...]``. In memory samples come last (see
:mod:`data_gen.engines.products`); the axes are in the usual order nevertheless.

A member's numbers must not depend on its neighbours. Kernels of ATen treat the last ``numel % 32``
entries of an elementwise pass by scalar code, which may round otherwise than its vector code; where
that can happen the pass is padded. Batched products compute each member by itself, given aligned
matrices, and a convolution is one product over all its windows: grouped convolutions are as fast,
yet round differently from slot to slot.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from data_gen.engines.products import conv2d, linear

EXAMPLE_BATCH = 7
"""Samples of the input that graphs are captured with; a leading 7 stands for the batch."""

_LANES = 32
"""Entries that the widest unrolled vector loop takes at once (two AVX-512 registers)."""

aten: Any = torch.ops.aten


@dataclass
class Stack:
    """What operators must know of the stack beside their tensors.

    Parameters
    ----------
    batch
        Samples per member.
    dropout
        Given a shape ``[N, batch, ...]``, what to multiply activations with; ``None`` where nobody
        drops.
    """

    batch: int
    dropout: Callable[[torch.Size], Tensor] | None = None


Operator = Callable[..., Any]


# ---- normalisation, pooling, dropout ------------------------------------------------------------
def _batch_norm_training(
    _: Stack,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    training: bool,  # noqa: FBT001 - ATen's order
    momentum: float,
    eps: float,
) -> tuple[Tensor, None, None, Tensor, Tensor]:
    """Normalise by the batch; the running variance is the unbiased one, as in ATen."""
    rows, restore = _channels_first(x)
    centre = rows.mean(2, keepdim=True)
    away = rows - centre
    spread = (away * away).mean(2, keepdim=True)
    count = rows.shape[2]
    with torch.no_grad():
        unbiased = spread[..., 0] * (count / (count - 1))
        new_mean = mean * (1 - momentum) + centre[..., 0] * momentum
        new_variance = variance * (1 - momentum) + unbiased * momentum
    output = restore(_scale(away / (spread + eps).sqrt(), weight, bias))
    return output, None, None, new_mean, new_variance


def _batch_norm_evaluation(
    _: Stack,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    momentum: float,  # noqa: ARG001 - ATen's order
    eps: float,
) -> tuple[Tensor, None, None]:
    rows, restore = _channels_first(x)
    normal = (rows - mean[..., None]) / (variance[..., None] + eps).sqrt()
    return restore(_scale(normal, weight, bias)), None, None


def _scale(rows: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = rows if weight is None else rows * weight[..., None]
    return scaled if bias is None else scaled + bias[..., None]


def _channels_first(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """View ``[N, batch, channel, ...]`` as ``[N, channel, entries]``; also the way back."""
    last = x.movedim(1, -1)
    shape = last.shape
    return last.flatten(2), lambda rows: rows.view(shape).movedim(-1, 1)


def _per_sample(function: Callable[..., Tensor]) -> Operator:
    """Run a function that treats samples alike on the samples of all members."""

    def run(_: Stack, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output = function(x.flatten(0, 1), *args, **kwargs)
        return output.view(*x.shape[:2], *output.shape[1:])

    return run


def _dropout(
    stack: Stack,
    x: Tensor,
    probability: float,
    train: bool | None = None,  # noqa: ARG001, FBT001
) -> tuple[Tensor, None]:
    return (x if stack.dropout is None else x * stack.dropout(x.shape)), None


# ---- elementwise --------------------------------------------------------------------------------
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


def _elementwise(function: Callable[..., Tensor], _: Stack, x: Tensor, *args: Any) -> Tensor:
    """Apply a function entry by entry so that the place of an entry cannot change its rounding."""
    plain, restore = in_memory_order(x)
    if plain.numel() % _LANES == 0:
        settled: Tensor = _Settle.apply(function(plain, *args))  # type: ignore[no-untyped-call]
        return restore(settled)
    flat = plain.flatten()
    padded = functional.pad(flat, (0, -flat.numel() % _LANES))
    return restore(function(padded, *args)[: flat.numel()].view(plain.shape))


class _SineFunction(torch.autograd.Function):
    """``sin``, whose gradient is formed in one new tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.sin(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.cos(x).mul_(gradient)


def _sine(x: Tensor) -> Tensor:
    output: Tensor = _SineFunction.apply(x)  # type: ignore[no-untyped-call]
    return output


def _exact(function: Callable[..., Tensor], stack: Stack, x: Tensor, *args: Any) -> Tensor:
    """Apply a function that rounds at most once, so that scalar and vector code agree."""
    plain, restore = in_memory_order(x)
    return restore(function(plain, *args))


def _binary(function: Callable[..., Tensor], stack: Stack, x: Any, y: Any, **kwargs: Any) -> Tensor:
    """Line up the axes behind the member axis, then combine."""
    rank = max(value.ndim for value in (x, y) if isinstance(value, Tensor))
    return function(_raise_rank(x, rank), _raise_rank(y, rank), **kwargs)


def _raise_rank(value: Any, rank: int) -> Any:
    if not isinstance(value, Tensor) or value.ndim in (0, rank):
        return value
    return value.reshape(value.shape[0], *[1] * (rank - value.ndim), *value.shape[1:])


# ---- shapes -------------------------------------------------------------------------------------
def _view(stack: Stack, x: Tensor, shape: Sequence[int]) -> Tensor:
    lead = stack.batch if shape[0] == EXAMPLE_BATCH else shape[0]
    return x.reshape(x.shape[0], lead, *shape[1:])


def _shift(dim: int) -> int:
    return dim + 1 if dim >= 0 else dim


def _mean(_: Stack, x: Tensor, dims: Sequence[int], keepdim: bool = False) -> Tensor:  # noqa: FBT001, FBT002
    return x.mean([_shift(dim) for dim in dims], keepdim)


def _global_average(_: Stack, x: Tensor, size: Sequence[int]) -> Tensor:
    """Average over all positions; other sizes are pooled sample by sample."""
    if tuple(size) == (1, 1):
        return x.mean((3, 4), keepdim=True)
    return _per_sample(functional.adaptive_avg_pool2d)(_, x, size)  # type: ignore[no-any-return]


def _permute(_: Stack, x: Tensor, dims: Sequence[int]) -> Tensor:
    return x.permute(0, *[dim % (x.ndim - 1) + 1 for dim in dims])


def _transpose(_: Stack, x: Tensor, first: int, second: int) -> Tensor:
    return x.transpose(_shift(first), _shift(second))


def _identity(_: Stack, x: Tensor, **__: Any) -> Tensor:
    return x


def _without_stack(function: Callable[..., Tensor]) -> Operator:
    return lambda _, *args, **kwargs: function(*args, **kwargs)


# ---- the table ----------------------------------------------------------------------------------
_EXACT = (aten.relu.default, aten.leaky_relu.default, aten.neg.default, aten.abs.default)
_ROUNDED = (
    aten.gelu.default,
    aten.tanh.default,
    aten.sigmoid.default,
    aten.silu.default,
    aten.cos.default,
    aten.exp.default,
    aten.elu.default,
    aten.softplus.default,
)
_BINARY = (
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.add.Scalar,
    aten.sub.Scalar,
    aten.mul.Scalar,
    aten.div.Scalar,
)

_TABLE: dict[Any, Operator] = {
    aten.linear.default: _without_stack(linear),
    aten.conv2d.default: _without_stack(conv2d),
    aten._native_batch_norm_legit_functional.default: _batch_norm_training,
    aten._native_batch_norm_legit_no_training.default: _batch_norm_evaluation,
    aten.adaptive_avg_pool2d.default: _global_average,
    aten.avg_pool2d.default: _per_sample(functional.avg_pool2d),
    aten.max_pool2d.default: _per_sample(functional.max_pool2d),
    aten.native_dropout.default: _dropout,
    aten.view.default: _view,
    aten.reshape.default: _view,
    aten._unsafe_view.default: _view,
    aten.mean.dim: _mean,
    aten.permute.default: _permute,
    aten.transpose.int: _transpose,
    aten.clone.default: _identity,
    aten.contiguous.default: _identity,
    aten.detach.default: _identity,
    aten.alias.default: _identity,
    **{target: partial(_exact, target) for target in _EXACT},
    **{target: partial(_elementwise, target) for target in _ROUNDED},
    aten.sin.default: partial(_elementwise, _sine),
    **{target: partial(_binary, target) for target in _BINARY},
}


def is_elementwise(target: Any) -> bool:
    """Whether an operator is a function of each entry alone."""
    return target in _EXACT or target in _ROUNDED or target is aten.sin.default


def is_batched(target: Any) -> bool:
    """Whether the table has a batched form, which treats each member by itself."""
    return target in _TABLE or "getitem" in str(target)


def find_operator(target: Any) -> Operator:
    """Return what runs an ATen operator for a stack: the table's, or ``torch.func.vmap`` of it."""
    return _TABLE.get(target) or partial(_mapped, target)


def _mapped(target: Any, _: Stack, *args: Any, **kwargs: Any) -> Any:
    dims = tuple(_map_dims(value) for value in args)
    return torch.func.vmap(partial(target, **kwargs), in_dims=dims)(*args)


def _map_dims(value: Any) -> Any:
    if isinstance(value, Tensor):
        return 0
    if isinstance(value, tuple):
        return tuple(_map_dims(item) for item in value)
    return None
