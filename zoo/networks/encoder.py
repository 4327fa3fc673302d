"""What vision and text transformers share: attention, pre-norm blocks, fixed positions."""

from math import log
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InvalidConfigError
from zoo.networks.activation import Activation
from zoo.networks.dropout import Dropout

POSITIONS_STD = 0.02
"""Standard deviation of learned positions and extra tokens when they are made."""
_LONGEST = 10_000.0


class EncoderConfig(Protocol):
    """What the blocks ask of a transformer's configuration."""

    @property
    def width(self) -> int:
        """Features of the stream."""

    @property
    def depth(self) -> int:
        """Blocks."""

    @property
    def heads(self) -> int:
        """Heads of each attention."""

    @property
    def hidden(self) -> int:
        """Hidden width of each perceptron."""

    @property
    def activation(self) -> str:
        """Name of the perceptron's activation."""

    @property
    def dropout(self) -> float:
        """Probability after each branch."""


class Attention(nn.Module):
    """Multi-head self-attention [1]_ (Sec. 3.2): ``[batch, length, width]`` to the same.

    References
    ----------
    .. [1] Vaswani et al., "Attention Is All You Need", NeurIPS 2017.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, stream: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend; ``mask`` is added to the scores, ``[batch, 1, 1, length]``."""
        query, key, value = (
            self._split(project(stream)) for project in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        output: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return output

    def _split(self, features: Tensor) -> Tensor:
        return features.reshape(*features.shape[:2], self.heads, -1).transpose(1, 2)


class Block(nn.Module):
    """Attention, then a perceptron, each normalised before and added to the stream [1]_.

    References
    ----------
    .. [1] Xiong et al., "On Layer Normalization in the Transformer Architecture", ICML 2020.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.heads)
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)
        self.activation, self.dropout = Activation(config.activation), Dropout(config.dropout)

    def forward(self, stream: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the stream after this block."""
        stream = stream + self.dropout(self.attention(self.norm1(stream), mask))
        hidden = self.activation(self.up(self.norm2(stream)))
        output: Tensor = stream + self.dropout(self.down(hidden))
        return output


class Encoder(nn.Module):
    """Blocks and a last normalisation."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, stream: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode ``[batch, length, width]``."""
        stream = self.dropout(stream)
        for block in self.blocks:
            stream = block(stream, mask)
        output: Tensor = self.norm(stream)
        return output


def check_encoder(config: EncoderConfig) -> None:
    """Raise :class:`InvalidConfigError` unless the blocks can be built."""
    if min(config.width, config.depth, config.heads, config.hidden) < 1:
        raise InvalidConfigError(f"Expected positive sizes, got {config}.")
    if config.width % config.heads:
        raise InvalidConfigError(
            f"Expected a width that {config.heads} heads divide, got {config.width} in {config}."
        )


def sincos(positions: Tensor, width: int) -> Tensor:
    """Encode positions ``[n]`` by sines and cosines ``[n, width]``, wavelengths from 1 to 10,000.

    References
    ----------
    .. [1] Vaswani et al., "Attention Is All You Need", NeurIPS 2017, Sec. 3.5. Sines come first,
       then cosines, as the vision transformers have it.
    """
    half = width // 2
    rates = torch.exp(-log(_LONGEST) * torch.arange(half) / max(half - 1, 1))
    angles = positions[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sincos_2d(rows: int, width: int) -> Tensor:
    """Encode the cells of a square grid, row by row: ``[rows**2, width]``, half per axis.

    References
    ----------
    .. [1] Beyer et al., "Better plain ViT baselines for ImageNet-1k", arXiv 2205.01580, 2022.
    """
    places = torch.arange(rows)
    y, x = places.repeat_interleave(rows), places.repeat(rows)
    return torch.cat([sincos(y, width // 2), sincos(x, width // 2)], dim=1)
