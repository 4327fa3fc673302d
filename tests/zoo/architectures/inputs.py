"""Example inputs; only their shapes and the range of token ids matter."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Inputs = tuple[Any, ...]
Factory = Callable[[], tuple[nn.Module, Inputs]]


def noise(*shape: int) -> Tensor:
    """Standard normal numbers, the same at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def tokens(batch: int, length: int, vocabulary: int) -> Tensor:
    """Token ids in which every word of the vocabulary occurs, [batch, length]."""
    assert batch * length >= vocabulary
    return (torch.arange(batch * length) * 3 % vocabulary).reshape(batch, length)


def count(module: nn.Module) -> int:
    """Number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in module.parameters())
