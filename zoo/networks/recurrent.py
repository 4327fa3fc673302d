"""Recurrent networks that classify texts or series."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from zoo.errors import InvalidConfigError
from zoo.networks.dropout import Dropout
from zoo.networks.text import example_tokens, is_word, last_of, mean_over

CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """Recurrent layers on embedded tokens or on a series, read at the end, then a linear head.

    Parameters
    ----------
    vocabulary
        Tokens, padding (token 0) included; 0 where inputs are series ``[batch, in_features,
        length]``.
    in_features
        Width of the embedding, or dimensions of the series.
    length, out_features
        Steps of an input, number of outputs.
    cell
        ``"lstm"`` [1]_, ``"gru"`` [2]_, or a plain layer, ``"rnn_tanh"`` or ``"rnn_relu"``.
    hidden, depth
        Units of each layer, layers.
    pool
        ``"last"`` reads the state at the last word (or step), ``"mean"`` averages over words.
    dropout
        Probability on the recurrent layers' inputs and on what the head reads.

    References
    ----------
    .. [1] Hochreiter & Schmidhuber, "Long Short-Term Memory", Neural Computation 1997.
    .. [2] Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", EMNLP 2014.
    """

    name: ClassVar[str] = "recurrent"

    vocabulary: int
    in_features: int
    length: int
    out_features: int
    cell: Literal["lstm", "gru", "rnn_tanh", "rnn_relu"] = "lstm"
    hidden: int = 32
    depth: int = 1
    pool: Literal["last", "mean"] = "last"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        sizes = (self.in_features, self.length, self.out_features, self.hidden, self.depth)
        if min(sizes) < 1 or self.vocabulary < 0 or self.vocabulary == 1:
            raise InvalidConfigError(
                f"Expected positive sizes and a vocabulary of 0 or at least 2, got {self}."
            )
        if self.cell not in CELLS or self.pool not in ("last", "mean"):
            raise InvalidConfigError(
                f"Expected a cell of {', '.join(CELLS)} and pool last or mean, got {self}."
            )

    def build(self) -> nn.Module:
        """Make the module, with torch's default initialisation."""
        return Recurrent(self)

    def example_input(self, batch: int) -> Tensor:
        """Tokens ``[batch, length]``, int64, or zeros ``[batch, in_features, length]``."""
        if self.vocabulary:
            return example_tokens(batch, self.length, self.vocabulary)
        return torch.zeros(batch, self.in_features, self.length)


class Recurrent(nn.Module):
    """The network of a :class:`RecurrentConfig`: a batch of texts or series to ``[batch, out]``."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.embedding: nn.Embedding | None = None
        if config.vocabulary:
            self.embedding = nn.Embedding(config.vocabulary, config.in_features)
        self.layers = _layers(config)
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(config.hidden, config.out_features)
        self._pool = last_of if config.pool == "last" else mean_over

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs (logits, where a classifier)."""
        if self.embedding is None:
            steps = inputs.transpose(1, 2)
            words = torch.ones_like(steps[:, :, 0])
        else:
            steps = self.embedding(inputs)
            words = is_word(inputs).to(steps.dtype)
        states, _ = self.layers(self.dropout(steps))
        output: Tensor = self.head(self.dropout(self._pool(words, states)))
        return output


def _layers(config: RecurrentConfig) -> nn.Module:
    if config.cell in ("lstm", "gru"):
        kind = nn.LSTM if config.cell == "lstm" else nn.GRU
        return kind(config.in_features, config.hidden, config.depth, batch_first=True)
    return nn.RNN(
        config.in_features,
        config.hidden,
        config.depth,
        nonlinearity=config.cell.removeprefix("rnn_"),
        batch_first=True,
    )
