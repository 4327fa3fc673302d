"""Batched forms of what networks on sequences and sets use: embeddings, normalisation, attention.

Tensors are ``[N, *shape]`` as in :mod:`data_gen.engines.operators`, and a member's numbers do not
depend on its neighbours: each matrix product is a member's and sample's own.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from data_gen.engines.products import product
from zoo.errors import InvalidConfigError


def embedding(weight: Tensor, tokens: Tensor, *_: Any) -> Tensor:
    """Look tokens ``[N, batch, ...]`` up in tables ``[N, vocabulary, width]``."""
    members, vocabulary = weight.shape[:2]
    first = torch.arange(members, device=tokens.device).mul_(vocabulary)
    rows = tokens + first.view(-1, *[1] * (tokens.ndim - 1))
    return functional.embedding(rows, weight.flatten(0, 1))


def layer_norm(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Normalise over the last axes [1]_ (Eq. 3), then scale by ``[N, *shape]`` and shift.

    References
    ----------
    .. [1] Ba et al., "Layer Normalization", arXiv 1607.06450, 2016.
    """
    output = functional.layer_norm(x.contiguous(), tuple(shape), eps=eps)
    lead = (len(x), *[1] * (x.ndim - 1 - len(shape)))
    if weight is not None:
        output = output * weight.reshape(*lead, *shape)
    return output if bias is None else output + bias.reshape(*lead, *shape)


def softmax(x: Tensor, dim: int, *_: Any) -> Tensor:
    """Normalise exponentials over an axis that is counted without the members'."""
    axis = dim + 1 if dim >= 0 else dim
    return torch.softmax(x.movedim(axis, -1).contiguous(), -1).movedim(-1, axis)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,  # noqa: FBT001, FBT002 - ATen's order
    *,
    scale: float | None = None,
    **_: Any,
) -> Tensor:
    """Attend [1]_ (Eq. 1): ``[N, batch, heads, length, width]`` each; a mask adds to the scores.

    References
    ----------
    .. [1] Vaswani et al., "Attention Is All You Need", NeurIPS 2017.
    """
    if dropout or is_causal or (mask is not None and mask.dtype == torch.bool):
        raise InvalidConfigError(
            "Attention of stacked members takes a mask that is added to the scores, and neither "
            "drops weights nor is causal by itself. Add a mask, and drop with zoo.networks.Dropout."
        )
    scaled = query * (1 / sqrt(query.shape[-1]) if scale is None else scale)
    scores = product(scaled, key.transpose(-2, -1))
    if mask is not None:
        scores = scores + mask
    return product(torch.softmax(scores.contiguous(), -1), value)
