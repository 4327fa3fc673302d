"""Operators with a leading member axis: what the stacked engine runs for each ATen operator.

Every tensor is ``[N, *shape]`` where ATen would have ``shape``: weights ``[N, out, in]``,
activations ``[N, batch, ...]``. In memory samples come last (see
:mod:`data_gen.engines.products`); the axes are in the usual order nevertheless.

A member's numbers must not depend on its neighbours: see :mod:`data_gen.engines.elementwise`.
Batched products compute each member by itself, given aligned matrices, and a convolution is one
product over all its windows: grouped convolutions are as fast, yet round differently from slot to
slot.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from data_gen.engines.elementwise import apply_exact, apply_rounded, sine
from data_gen.engines.products import conv1d, conv2d, linear
from data_gen.engines.recurrence import KINDS, recurrent
from data_gen.engines.sequences import attention, embedding, layer_norm, softmax

EXAMPLE_BATCH = 7
"""Samples of the input that graphs are captured with; a leading 7 stands for the batch."""

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


@dataclass(frozen=True)
class Table:
    """An operator without arguments: a tensor of the network that no member owns.

    Parameters
    ----------
    dtype, shape, data
        Of the tensor, as NumPy has them.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes = field(repr=False)

    @classmethod
    def from_tensor(cls, tensor: Tensor) -> Self:
        """Keep a tensor."""
        array = tensor.detach().cpu().numpy()
        return cls(str(array.dtype), array.shape, array.tobytes())

    def __call__(self, _: Stack, inputs: Tensor) -> Tensor:
        """Return the tensor for every member of the stack whose input is given."""
        value = _on_device(self, inputs.device)
        return value.expand(len(inputs), *value.shape)


@lru_cache
def _on_device(table: Table, device: torch.device) -> Tensor:
    array = np.frombuffer(table.data, dtype=table.dtype).reshape(table.shape)
    return torch.from_numpy(array.copy()).to(device)


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
def _elementwise(function: Callable[..., Tensor], _: Stack, x: Tensor, *args: Any) -> Tensor:
    return apply_rounded(function, x, *args)


def _exact(function: Callable[..., Tensor], _: Stack, x: Tensor, *args: Any) -> Tensor:
    return apply_exact(function, x, *args)


def _like(function: Callable[..., Tensor], _: Stack, x: Tensor, **kwargs: Any) -> Tensor:
    """Make or convert a tensor of the same shape."""
    return function(x, **kwargs)


def _binary(function: Callable[..., Tensor], stack: Stack, x: Any, y: Any, **kwargs: Any) -> Tensor:
    """Line up the axes behind the member axis, then combine."""
    rank = max(value.ndim for value in (x, y) if isinstance(value, Tensor))
    return function(_raise_rank(x, rank), _raise_rank(y, rank), **kwargs)


def _raise_rank(value: Any, rank: int) -> Any:
    if not isinstance(value, Tensor) or value.ndim in (0, rank):
        return value
    return value.reshape(value.shape[0], *[1] * (rank - value.ndim), *value.shape[1:])


_SAMPLES, _ROWS = 1, 4
"""Axis of the samples; axes where each sample has rows of features."""


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


def _sum(_: Stack, x: Tensor, dims: Sequence[int], keepdim: bool = False) -> Tensor:  # noqa: FBT001, FBT002
    return x.sum([_shift(dim) for dim in dims], keepdim)


def _slice(
    _: Stack,
    x: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Tensor:
    index = [slice(None)] * x.ndim
    index[_shift(dim)] = slice(start, end, step)
    return x[tuple(index)]


def _select(_: Stack, x: Tensor, dim: int, index: int) -> Tensor:
    return x.select(_shift(dim), index)


def _unsqueeze(_: Stack, x: Tensor, dim: int) -> Tensor:
    return x.unsqueeze(_shift(dim))


def _expand(stack: Stack, x: Tensor, shape: Sequence[int], **_: Any) -> Tensor:
    lead = stack.batch if shape[0] == EXAMPLE_BATCH else shape[0]
    raised: Tensor = _raise_rank(x, len(shape) + 1)
    return raised.expand(x.shape[0], lead, *shape[1:])


def _cat(_: Stack, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors; samples stay last in memory where there is one vector or map for each."""
    axis = _shift(dim) % tensors[0].ndim
    if tensors[0].ndim == _ROWS:
        return torch.cat(list(tensors), axis)
    last = [tensor.movedim(_SAMPLES, -1) for tensor in tensors]
    return torch.cat(last, axis - 1 if axis > _SAMPLES else -1).movedim(-1, _SAMPLES)


def _pad(
    _: Stack, x: Tensor, widths: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Pad the last axes; samples stay last in memory."""
    if mode != "constant":
        return _mapped(aten.pad.default, _, x, widths, mode, value)  # type: ignore[no-any-return]
    return _constant_pad(_, x, widths, value or 0.0)


def _constant_pad(_: Stack, x: Tensor, widths: Sequence[int], value: float = 0.0) -> Tensor:
    last = x.movedim(_SAMPLES, -1)
    return functional.pad(last, (0, 0, *widths), value=value).movedim(-1, _SAMPLES)


def _permute(_: Stack, x: Tensor, dims: Sequence[int]) -> Tensor:
    return x.permute(0, *[dim % (x.ndim - 1) + 1 for dim in dims])


def _transpose(_: Stack, x: Tensor, first: int, second: int) -> Tensor:
    """Exchange axes; rows of features, as tokens, lie with their features last from here on."""
    output = x.transpose(_shift(first), _shift(second))
    return output.contiguous() if output.ndim == _ROWS else output


def _identity(_: Stack, x: Tensor, **__: Any) -> Tensor:
    return x


def _without_stack(function: Callable[..., Any]) -> Operator:
    return lambda _, *args, **kwargs: function(*args, **kwargs)


# ---- the table ----------------------------------------------------------------------------------
_EXACT = (
    aten.relu.default,
    aten.leaky_relu.default,
    aten.neg.default,
    aten.abs.default,
    aten.clamp.default,
    aten.sqrt.default,
    aten.eq.Scalar,
    aten.ne.Scalar,
    aten.rsub.Scalar,
)
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
_COPIES = (aten.zeros_like.default, aten.ones_like.default, aten._to_copy.default)
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

RECURRENT: dict[Any, str] = {getattr(aten, kind).input: kind for kind in KINDS}
"""Kind of cell of each recurrent operator."""

_TABLE: dict[Any, Operator] = {
    aten.linear.default: _without_stack(linear),
    aten.conv2d.default: _without_stack(conv2d),
    aten.conv1d.default: _without_stack(conv1d),
    aten.embedding.default: _without_stack(embedding),
    aten.layer_norm.default: _without_stack(layer_norm),
    aten.softmax.int: _without_stack(softmax),
    aten.scaled_dot_product_attention.default: _without_stack(attention),
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
    aten.sum.dim_IntList: _sum,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.unsqueeze.default: _unsqueeze,
    aten.expand.default: _expand,
    aten.cat.default: _cat,
    aten.pad.default: _pad,
    aten.constant_pad_nd.default: _constant_pad,
    aten.permute.default: _permute,
    aten.transpose.int: _transpose,
    aten.clone.default: _identity,
    aten.contiguous.default: _identity,
    aten.detach.default: _identity,
    aten.alias.default: _identity,
    **{target: partial(_exact, target) for target in _EXACT},
    **{target: partial(_elementwise, target) for target in _ROUNDED},
    aten.sin.default: partial(_elementwise, sine),
    **{target: partial(_like, target) for target in _COPIES},
    **{target: _without_stack(partial(recurrent, kind)) for target, kind in RECURRENT.items()},
    **{target: partial(_binary, target) for target in _BINARY},
}


def is_elementwise(target: Any) -> bool:
    """Whether an operator is a function of each entry alone."""
    return target in _EXACT or target in _ROUNDED or target is aten.sin.default


def is_batched(target: Any) -> bool:
    """Whether the table has a batched form, which treats each member by itself."""
    known = target in _TABLE or isinstance(target, Table)
    return known or "getitem" in str(target)


def find_operator(target: Any) -> Operator:
    """Return what runs an ATen operator for a stack: the table's, or ``torch.func.vmap`` of it."""
    if isinstance(target, Table):
        return target
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
