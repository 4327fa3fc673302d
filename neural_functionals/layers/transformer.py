"""Parts of transformers that know nothing of weights: blocks, attention among tokens, pooling."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InvalidConfigError


class AttentionBlock(nn.Module):
    """A pre-norm transformer block: attention, then a perceptron per position, both residual.

    Parameters
    ----------
    attention
        Maps ``[batch, positions, channels]`` to the same shape.
    channels
        Features per position.
    expansion
        Width of the perceptron's hidden layer, in channels.
    dropout
        Probability, after attention and perceptron.
    bias
        Whether normalisation and perceptron have biases.
    """

    def __init__(
        self,
        attention: nn.Module,
        channels: int,
        *,
        expansion: int = 4,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.attend = nn.Sequential(
            nn.LayerNorm(channels, bias=bias), attention, nn.Dropout(dropout)
        )
        self.think = nn.Sequential(
            nn.LayerNorm(channels, bias=bias),
            nn.Linear(channels, expansion * channels, bias=bias),
            nn.GELU(),
            nn.Linear(expansion * channels, channels, bias=bias),
            nn.Dropout(dropout),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[batch, positions, channels]`` to the same shape."""
        features = features + self.attend(features)
        updated: Tensor = features + self.think(features)
        return updated


class TokenAttention(nn.Module):
    """Multi-head self-attention among all positions of ``[batch, positions, channels]`` [1]_.

    Parameters
    ----------
    channels, num_heads
        Features per position, and into how many heads they are cut.
    bias
        Whether projections have biases.

    References
    ----------
    .. [1] Vaswani et al., "Attention Is All You Need", NeurIPS 2017, Sec. 3.2.
    """

    def __init__(self, channels: int, num_heads: int, *, bias: bool = True) -> None:
        super().__init__()
        self.head_shape = head_shape(channels, num_heads)
        self.project = nn.Linear(channels, 3 * channels, bias=bias)
        self.mix = nn.Linear(channels, channels, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[batch, positions, channels]`` to the same shape."""
        heads = self.project(features).unflatten(2, self.head_shape).permute(2, 0, 3, 1, 4)
        attended = attend(heads)
        mixed: Tensor = self.mix(attended.transpose(1, 2).flatten(2))
        return mixed


class AttentionPooling(nn.Module):
    """Learned queries, each of which collects its own weighted mean over positions.

    Parameters
    ----------
    channels
        Features per position.
    num_queries
        Number ``M`` of vectors that remain.
    """

    def __init__(self, channels: int, num_queries: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_queries, channels))
        self.project = nn.Linear(channels, 2 * channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[batch, positions, channels]`` to ``[batch, M * channels]``."""
        keys, values = self.project(features).chunk(2, dim=2)
        queries = self.queries.expand(len(features), -1, -1)
        pooled = functional.scaled_dot_product_attention(queries, keys, values)
        return pooled.flatten(1)


def attend(heads: Tensor) -> Tensor:
    """Attention with queries, keys and values ``[3, batch, heads, tokens, features]``."""
    queries, keys, values = heads.unbind()
    return functional.scaled_dot_product_attention(queries, keys, values)


def head_shape(channels: int, num_heads: int) -> tuple[int, int, int]:
    """Shape of queries, keys and values: 3, heads, channels of each."""
    if num_heads < 1 or channels % num_heads:
        raise InvalidConfigError(
            f"Expected a number of heads that divides {channels} channels, got {num_heads}."
        )
    return 3, num_heads, channels // num_heads
