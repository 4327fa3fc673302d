"""Small transformers that classify texts."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from zoo.errors import InvalidConfigError
from zoo.networks.encoder import POSITIONS_STD, Encoder, check_encoder, sincos
from zoo.networks.text import example_tokens, is_word, mean_over

_BLOCKED = -1e9
"""Added to the scores of padding: their weights are exactly 0 after the softmax."""


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A transformer encoder [1]_ on tokens: pre-norm blocks, the mean over words, a linear head.

    Token 0 is padding: nothing attends to it and it does not enter the mean.

    Parameters
    ----------
    vocabulary, length, out_features
        Tokens, padding included; tokens of a text; number of outputs.
    width, depth, heads, hidden
        Features per token, blocks, heads of each attention, hidden width of each perceptron.
    positions
        ``"learned"`` ones, or fixed ``"sincos"``, which need an even width.
    activation
        A name of :data:`zoo.networks.ACTIVATIONS`.
    dropout
        Probability on the embedded tokens and after each branch.

    References
    ----------
    .. [1] Vaswani et al., "Attention Is All You Need", NeurIPS 2017.
    """

    name: ClassVar[str] = "transformer"

    vocabulary: int
    length: int
    out_features: int
    width: int = 64
    depth: int = 2
    heads: int = 4
    hidden: int = 128
    positions: Literal["learned", "sincos"] = "learned"
    activation: str = "gelu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_encoder(self)
        if self.vocabulary < 2 or min(self.length, self.out_features) < 1:
            raise InvalidConfigError(f"Expected positive sizes and two tokens, got {self}.")
        if self.positions not in ("learned", "sincos"):
            raise InvalidConfigError(f"Expected learned or sincos positions, got {self}.")
        if self.positions == "sincos" and self.width % 2:
            raise InvalidConfigError(
                f"Expected an even width for sincos positions, got {self.width}."
            )

    def build(self) -> nn.Module:
        """Make the module; embeddings are standard normal, positions have deviation 0.02."""
        return Transformer(self)

    def example_input(self, batch: int) -> Tensor:
        """Tokens ``[batch, length]``, int64; every second text ends in padding."""
        return example_tokens(batch, self.length, self.vocabulary)


class Transformer(nn.Module):
    """The network of a :class:`TransformerConfig`: ``[batch, length]`` to ``[batch, out]``."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        if config.positions == "learned":
            self.positions = nn.Parameter(torch.empty(1, config.length, config.width))
            nn.init.normal_(self.positions, std=POSITIONS_STD)
        else:
            table = sincos(torch.arange(config.length), config.width)
            self.register_buffer("positions", table[None], persistent=False)
        self.encoder = Encoder(config)
        self.head = nn.Linear(config.width, config.out_features)

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute the outputs (logits, where a classifier)."""
        stream = self.embedding(tokens) + self.positions
        words = is_word(tokens).to(stream.dtype)
        mask = ((1 - words) * _BLOCKED)[:, None, None, :]
        output: Tensor = self.head(mean_over(words, self.encoder(stream, mask)))
        return output
