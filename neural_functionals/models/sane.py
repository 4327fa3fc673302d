"""Sequential neural embeddings: a transformer that reads a network token by token."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neural_functionals.layers import (
    AttentionBlock,
    OrbitNormalisation,
    TokenAttention,
    Tokeniser,
    perceptron,
)
from neural_functionals.models.functional import NeuralFunctional, Reads, Symmetry, configure
from zoo.errors import InvalidConfigError
from zoo.space import WeightSpace


@dataclass(frozen=True, kw_only=True)
class SANEConfig:
    """Options of :class:`SANE`; the defaults are the paper's encoder.

    Parameters
    ----------
    token_size
        Length of a token; 0 takes the longest row of weights that arrive at one unit.
    window
        Tokens that attend to each other.
    num_blocks, channels, num_heads
        Transformer blocks, features per token, heads.
    latent
        Length of a token's embedding, whose mean is a network's.
    dropout
        Probability, after each attention and perceptron.
    hidden
        Widths of the head on the mean embedding; none for the paper's linear probe.
    """

    token_size: int = 0
    window: int = 64
    num_blocks: int = 8
    channels: int = 1024
    num_heads: int = 8
    latent: int = 128
    dropout: float = 0.0
    hidden: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if min(self.window, self.num_blocks, self.channels, self.latent, *self.hidden) < 1:
            raise InvalidConfigError(
                f"Expected a window, blocks and widths of at least 1, got {self}."
            )
        if self.channels % 2 or not 0 <= self.dropout < 1:
            raise InvalidConfigError(
                "Expected an even number of channels and dropout in [0, 1), got "
                f"{self.channels} and {self.dropout}."
            )


class SANE(NeuralFunctional):
    """Encoder of Schürholt et al. [1]_ with a head on the mean of the tokens' embeddings.

    It is *not* invariant: tokens carry their positions, and units their order. The paper has it see
    relabelled members in training.

    Parameters
    ----------
    space
        Weight space of the members.
    config
        Options; keyword arguments replace fields of it.
    num_outputs
        Numbers to predict.

    Notes
    -----
    Departures from the paper. The encoder learns the task from the start, instead of first learning
    to reconstruct. Windows follow one another without overlap, the last one may be shorter. Each
    tensor is standardised as a whole. For the tokens themselves see
    :class:`~neural_functionals.layers.Tokeniser`.

    References
    ----------
    .. [1] Schürholt et al., "Towards Scalable and Versatile Weight Space Learning", ICML 2024.

    Examples
    --------
    >>> import torch, zoo
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> space = zoo.trace(network, torch.zeros(1, 2))
    >>> model = SANE(space, num_blocks=1, channels=8, num_heads=2, window=3)
    >>> model(torch.zeros(5, space.num_parameters)).shape
    torch.Size([5, 1])
    """

    name: ClassVar[str] = "sane"
    reads: ClassVar[Reads] = "weights"
    symmetries: tuple[Symmetry, ...] = ()
    config: SANEConfig

    def __init__(
        self,
        space: WeightSpace,
        config: SANEConfig | None = None,
        *,
        num_outputs: int = 1,
        **overrides: Any,
    ) -> None:
        config = configure(config or SANEConfig(), overrides)
        super().__init__(space, config, num_outputs)
        lengths = torch.tensor([tensor.numel for tensor in space.tensors])
        self.normalise = OrbitNormalisation(
            torch.arange(len(lengths)).repeat_interleave(lengths)  # one statistic per tensor
        )
        self.tokenise = Tokeniser(space, token_size=config.token_size)
        self.embed = TokenEmbedding(self.tokenise, config.channels)
        self.encoder = nn.Sequential(
            *(_block(config) for _ in range(config.num_blocks)),
            nn.Linear(config.channels, config.latent),
        )
        self.head = perceptron(config.latent, config.hidden, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map weights ``[batch, P]`` to ``[batch, num_outputs]``."""
        outputs: Tensor = self.head(self.encode(inputs).mean(dim=1))
        return outputs

    def encode(self, inputs: Tensor) -> Tensor:
        """Embed the tokens of weights ``[batch, P]``, as ``[batch, T, latent]``."""
        tokens = self.embed(self.tokenise(self.normalise(inputs)))
        window, (batch, count, channels) = self.config.window, tokens.shape
        whole = count - count % window
        full = tokens[:, :whole].reshape(batch * (whole // window), window, channels)
        parts = [self.encoder(full).reshape(batch, whole, self.config.latent)] if whole else []
        if whole < count:
            parts.append(self.encoder(tokens[:, whole:]))
        return torch.cat(parts, dim=1)

    def fit_statistics(self, inputs: Tensor) -> None:
        """Measure mean and standard deviation per tensor on weights ``[members, P]``."""
        self.normalise.fit(inputs)


def _block(config: SANEConfig) -> AttentionBlock:
    attention = TokenAttention(config.channels, config.num_heads, bias=False)
    return AttentionBlock(attention, config.channels, dropout=config.dropout, bias=False)


class TokenEmbedding(nn.Module):
    """A linear map of each token, with learned features of its three positions added.

    As in the authors' code, number and layer share one half of the channels, the row has the other.

    Parameters
    ----------
    tokeniser
        Where the tokens come from.
    channels
        Features per token, an even number.
    """

    def __init__(self, tokeniser: Tokeniser, channels: int) -> None:
        super().__init__()
        self.register_buffer("positions", tokeniser.positions, persistent=False)
        self.map = nn.Linear(tokeniser.token_size, channels)
        sizes = (tokeniser.positions.amax(dim=0) + 1).tolist()
        self.number, self.layer, self.row = (
            nn.Parameter(0.02 * torch.randn(size, channels // 2)) for size in sizes
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``[batch, T, S]`` to ``[batch, T, channels]``."""
        number, layer, row = self.get_buffer("positions").T
        place = torch.cat([self.number[number] + self.layer[layer], self.row[row]], dim=1)
        embedded: Tensor = self.map(tokens) + place
        return embedded
