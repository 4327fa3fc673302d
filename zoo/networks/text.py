"""What networks on tokens share: which tokens count, example inputs."""

import torch
from torch import Tensor

PADDING = 0
"""Token that fills texts up to a common length; it comes last, and no network looks at it."""


def is_word(tokens: Tensor) -> Tensor:
    """Say which of the tokens ``[batch, length]`` are no padding."""
    return tokens != PADDING


def mean_over(words: Tensor, states: Tensor) -> Tensor:
    """Average ``[batch, length, width]`` over words ``[batch, length]`` (0 or 1); 0 for no word."""
    count = words.sum(1, keepdim=True).clamp(min=1)
    return ((words / count)[:, :, None] * states).sum(1)


def last_of(words: Tensor, states: Tensor) -> Tensor:
    """Take the state of the last word: ``[batch, length, width]`` to ``[batch, width]``."""
    after = torch.cat([words[:, 1:], torch.zeros_like(words[:, :1])], dim=1)
    return ((words - words * after)[:, :, None] * states).sum(1)


def example_tokens(batch: int, length: int, vocabulary: int) -> Tensor:
    """Make texts ``[batch, length]`` of all lengths, int64: every second one ends in padding."""
    tokens = 1 + torch.arange(batch * length).view(batch, length) % (vocabulary - 1)
    tokens[1::2, max(length - 1, 1) :] = PADDING
    return tokens
