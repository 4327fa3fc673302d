"""Invariant pooling of features that factors and signs of hidden units multiply."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from neural_functionals.layers.monomial import MonomialBlock
from neural_functionals.layers.sign_graph import Sign


class MonomialPooling(nn.Module):
    r"""Invariants of features whose positive factors are divided out, ``[batch, num_features]``.

    What no sign flips is averaged over units. Of the rest, absolute values are averaged (Sec. 4.2
    of [1]_). These see each block by itself, and miss signs flipped on one side of a layer only. So
    products with flipped features of the units come beside them, for example, between two layers,

    .. math:: \mathrm{mean}_{ij}\; u_i x_{ij} v_j

    with :math:`u, v` learnt combinations of what flips with the units at either end. Means over
    units also lose which parameters are of one unit, where maps cannot mix their types. So each
    unit's averages of all that is its own go through a linear map and SiLU before the units are
    averaged, see :class:`UnitPooling`.

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
        self.own = UnitPooling(self.blocks, width)
        channels = [len(block.channels) for block in self.blocks]
        self.num_features = self.own.num_features + width * (
            sum(channels) + sum(channels[at] for at in self._paired)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Pool features ``[batch, *sizes, channels * width]`` of each type."""
        units = {
            sign: linear(torch.cat([features[at] for at in own], dim=-1))
            for (sign, own), linear in zip(self._sources.items(), self.units, strict=True)
        }
        even = [
            x.abs() if block.signs else x for x, block in zip(features, self.blocks, strict=True)
        ]
        pooled = [*map(_mean, even), *self.own(even)]
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


class UnitPooling(nn.Module):
    """Means over the units of each group of a map of all that each unit has.

    Averages of what is never negative hardly differ in sign, and where ReLU does not switch, the
    mean over units would be linear and tell nothing apart; SiLU is linear nowhere.

    Parameters
    ----------
    blocks
        Types of features.
    width
        Features per channel.

    Attributes
    ----------
    num_features
        Length of all results together.
    """

    def __init__(self, blocks: Sequence[MonomialBlock], width: int) -> None:
        super().__init__()
        seen: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
        for at, block in enumerate(blocks):
            for axis, group in enumerate(block.shape.groups):
                seen.setdefault(group, []).append((at, _chain(block.shape.outer, axis)))
        self._seen = [found for found in seen.values() if len(found) > 1]
        self.maps = nn.ModuleList(
            nn.Linear(width * sum(len(blocks[at].channels) for at, _ in found), width)
            for found in self._seen
        )
        self.num_features = width * len(self._seen)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Pool features ``[batch, *sizes, channels * width]`` that no factor or sign changes."""
        pooled = []
        for found, linear in zip(self._seen, self.maps, strict=True):
            units = torch.cat([_per_unit(features[at], axes) for at, axes in found], dim=-1)
            pooled.append(_mean(functional.silu(linear(units))))
        return pooled


def _chain(outer: Mapping[int, int], axis: int) -> tuple[int, ...]:
    """Axes from the outermost group around an axis to the axis itself."""
    return (*_chain(outer, outer[axis]), axis) if axis in outer else (axis,)


def _per_unit(features: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Average ``[batch, *sizes, channels]`` over all axes but some, which come first."""
    kept = list(range(1, 1 + len(axes)))
    moved = features.movedim([1 + axis for axis in axes], kept)
    return moved.unsqueeze(1 + len(axes)).flatten(1 + len(axes), -2).mean(dim=-2)


def _mean(features: Tensor) -> Tensor:
    """Average over all axes but the batch and the channels."""
    return features.unsqueeze(1).flatten(1, -2).mean(dim=1)
