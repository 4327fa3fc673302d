"""Invariant pooling of features that factors and signs of hidden units multiply."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neural_functionals.layers.monomial import MonomialBlock
from neural_functionals.layers.sign_graph import Sign


class MonomialPooling(nn.Module):
    r"""Invariants of features whose positive factors are divided out, ``[batch, num_features]``.

    What no sign flips is averaged over units. Of the rest, absolute values are averaged (Sec. 4.2
    of [1]_). These see each block by itself, and miss signs flipped on one side of a layer only. So
    products with flipped features of the units come beside them, for example, between two layers,

    .. math:: \mathrm{mean}_{ij}\; u_i x_{ij} v_j

    with :math:`u, v` learnt combinations of what flips with the units at either end.

    Parameters
    ----------
    blocks
        Types of features.
    width
        Features per channel.

    References
    ----------
    .. [1] Tran et al., "Monomial Matrix Group Equivariant Neural Functional Networks", NeurIPS
       2024.
    """

    def __init__(self, blocks: Sequence[MonomialBlock], width: int) -> None:
        super().__init__()
        self.blocks, self.width = tuple(blocks), width
        sources: dict[tuple[str, Sign], list[int]] = {}
        for at, block in enumerate(self.blocks):
            if len(block.shape.groups) == len(block.signs) == 1:
                sources.setdefault(block.signs[0], []).append(at)
        self._sources = sources
        self.units = nn.ModuleList(
            nn.Linear(sum(len(self.blocks[at].channels) for at in own) * width, width, bias=False)
            for own in sources.values()
        )
        self._paired = [
            at
            for at, block in enumerate(blocks)
            if block.signs and set(block.signs) <= set(sources)
        ]
        self.num_features = width * (
            sum(len(block.channels) for block in blocks)
            + sum(len(blocks[at].channels) for at in self._paired)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Pool features ``[batch, *sizes, channels * width]`` of each type."""
        units = {
            sign: linear(torch.cat([features[at] for at in own], dim=-1))
            for (sign, own), linear in zip(self._sources.items(), self.units, strict=True)
        }
        pooled = [
            _mean(x.abs() if block.signs else x)
            for x, block in zip(features, self.blocks, strict=True)
        ]
        for at in self._paired:
            pooled.append(self._paired_mean(features[at], self.blocks[at], units))
        return torch.cat(pooled, dim=1)

    def _paired_mean(
        self, features: Tensor, block: MonomialBlock, units: dict[tuple[str, Sign], Tensor]
    ) -> Tensor:
        """Average products with the features of the units on each axis that flips."""
        product = features.reshape(*features.shape[:-1], len(block.channels), self.width)
        for sign in block.signs:
            shape = [len(features), *[1] * len(block.shape.groups), 1, self.width]
            at = block.shape.groups.index(sign[0])
            shape[1 + at] = block.shape.sizes[at]
            product = product * units[sign].view(shape)
        return _mean(product.flatten(-2))


def _mean(features: Tensor) -> Tensor:
    """Average over all axes but the batch and the channels."""
    return features.unsqueeze(1).flatten(1, -2).mean(dim=1)
