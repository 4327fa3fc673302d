"""Neural functional transformers: attention along the neurons that weights share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from neural_functionals.layers import (
    AttentionBlock,
    AttentionPooling,
    FeatureBlock,
    OrbitNormalisation,
    WeightLayout,
    WeightSpaceAttention,
    perceptron,
)
from neural_functionals.models.functional import NeuralFunctional, Reads, configure
from zoo.errors import InvalidConfigError
from zoo.space import WeightSpace


@dataclass(frozen=True, kw_only=True)
class NFTConfig:
    """Options of :class:`NFT`.

    Parameters
    ----------
    num_blocks
        Transformer blocks (4 in the authors' configuration for classifying INRs).
    channels, num_heads
        Features per weight, and into how many heads attention cuts them.
    expansion
        Hidden width of the perceptron per weight, in channels.
    dropout
        Probability, after each attention and perceptron.
    pooling
        ``"mean"`` over neurons per tensor, or ``"attention"``: learned queries attend to all
        weights, as the encoder of INR2Array does.
    num_queries
        Vectors that ``"attention"`` leaves.
    hidden
        Widths of the head.
    """

    num_blocks: int = 4
    channels: int = 64
    num_heads: int = 8
    expansion: int = 4
    dropout: float = 0.1
    pooling: Literal["mean", "attention"] = "mean"
    num_queries: int = 16
    hidden: tuple[int, ...] = (1000, 1000)

    def __post_init__(self) -> None:
        if self.pooling not in ("mean", "attention"):
            raise InvalidConfigError(
                f"Expected pooling 'mean' or 'attention' for NFT, got {self.pooling!r}."
            )
        widths = (self.num_blocks, self.channels, self.expansion, self.num_queries, *self.hidden)
        if min(widths) < 1 or not 0 <= self.dropout < 1:
            raise InvalidConfigError(
                f"Expected at least one block, positive widths and dropout in [0, 1), got {self}."
            )


class NFT(NeuralFunctional):
    r"""Neural functional transformer of Zhou et al. [1]_ on any weight space.

    .. math::

        z = u + \mathrm{SA}(\mathrm{LN}(u)), \qquad u' = z + \mathrm{MLP}(\mathrm{LN}(z))

    per block, with :math:`\mathrm{SA}` the weight-space attention
    (:class:`~neural_functionals.layers.WeightSpaceAttention`); then invariant pooling and a head.

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
    Inputs and outputs are attended to like hidden neurons and told apart by learned features, as
    are tensors. Departures from the paper. Blocks come from the space; positions that no group
    moves (of a kernel, say) enter through a linear map per field and need no projections of their
    own inside the attention. Inputs are normalised per orbit. The width is ours.

    References
    ----------
    .. [1] Zhou et al., "Neural Functional Transformers", NeurIPS 2023.

    Examples
    --------
    >>> import torch, zoo
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> space = zoo.trace(network, torch.zeros(1, 2))
    >>> model = NFT(space, num_blocks=2, channels=8, num_heads=2, hidden=(8,))
    >>> model(torch.zeros(5, space.num_parameters)).shape
    torch.Size([5, 1])
    """

    name: ClassVar[str] = "nft"
    reads: ClassVar[Reads] = "weights"
    config: NFTConfig

    def __init__(
        self,
        space: WeightSpace,
        config: NFTConfig | None = None,
        *,
        num_outputs: int = 1,
        **overrides: Any,
    ) -> None:
        config = configure(config or NFTConfig(), overrides)
        super().__init__(space, config, num_outputs)
        self.layout = WeightLayout(space, free=("input", "output"))
        self.normalise = OrbitNormalisation(self.layout.orbit)
        hidden = {group.name for group in space.groups}
        self.embed = WeightEmbedding(self.layout, config.channels, known=hidden)
        self.blocks = nn.Sequential(
            *(self._block(config) for _ in range(config.num_blocks)), nn.LayerNorm(config.channels)
        )
        if config.pooling == "mean":
            self.pool: nn.Module = MeanPooling(self.embed.blocks)
            num_features = len(self.embed.blocks) * config.channels
        else:
            self.pool = AttentionPooling(config.channels, config.num_queries)
            num_features = config.num_queries * config.channels
        self.head = perceptron(num_features, config.hidden, num_outputs)

    def _block(self, config: NFTConfig) -> AttentionBlock:
        attention = WeightSpaceAttention(self.embed.blocks, config.channels, config.num_heads)
        return AttentionBlock(
            attention, config.channels, expansion=config.expansion, dropout=config.dropout
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map weights ``[batch, P]`` to ``[batch, num_outputs]``."""
        features = self.embed(self.layout.gather(self.normalise(inputs)))
        outputs: Tensor = self.head(self.pool(self.blocks(features)))
        return outputs

    def fit_statistics(self, inputs: Tensor) -> None:
        """Measure mean and standard deviation per orbit on weights ``[members, P]``."""
        self.normalise.fit(inputs)


class WeightEmbedding(nn.Module):
    """Features per position, all blocks one after the other; freed axes get learned ones added.

    Parameters
    ----------
    layout
        Cuts weights into blocks.
    channels
        Features per position.
    known
        Neuron groups of the space: any other group of the layout is a freed axis.

    Attributes
    ----------
    blocks
        Shapes of the features.
    """

    def __init__(self, layout: WeightLayout, channels: int, *, known: set[str]) -> None:
        super().__init__()
        given = layout.blocks()
        self.blocks = [replace(block, channels=channels) for block in given]
        self.maps = nn.ModuleList(nn.Linear(block.channels, channels) for block in given)
        sizes = {
            name: size
            for block in given
            for name, size in zip(block.groups, block.sizes, strict=True)
            if name not in known
        }
        self.freed = list(sizes)
        self.positions = nn.ParameterList(torch.randn(size, channels) for size in sizes.values())

    def forward(self, weights: Sequence[Tensor]) -> Tensor:
        """Map blocks ``[batch, *sizes, c]`` to ``[batch, positions, channels]``."""
        parts = []
        for block, shape, linear in zip(weights, self.blocks, self.maps, strict=True):
            features = linear(block)
            for axis, name in enumerate(shape.groups):
                if name in self.freed:
                    place = [1] * len(shape.groups)
                    place[axis] = shape.sizes[axis]
                    at = self.positions[self.freed.index(name)]
                    features = features + at.view(*place, shape.channels)
            parts.append(features.reshape(len(block), prod(shape.sizes), shape.channels))
        return torch.cat(parts, dim=1)


class MeanPooling(nn.Module):
    """Mean of each block over its positions, ``[batch, positions, c]`` to ``[batch, blocks * c]``.

    Parameters
    ----------
    blocks
        Shapes of the features, which come one after the other.
    """

    def __init__(self, blocks: Sequence[FeatureBlock]) -> None:
        super().__init__()
        self.lengths = [prod(block.sizes) for block in blocks]

    def forward(self, features: Tensor) -> Tensor:
        """Average."""
        parts = torch.split(features, self.lengths, dim=1)
        return torch.cat([part.mean(dim=1) for part in parts], dim=1)
