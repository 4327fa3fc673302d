"""Self-attention along the neuron groups of a weight space."""

from collections.abc import Sequence
from itertools import chain
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from neural_functionals.layers.features import FeatureBlock
from neural_functionals.layers.transformer import attend, head_shape


class _Tokens(NamedTuple):
    """How a block is cut into tokens of one group.

    A token is what one position on the axes ``across`` holds of all units on the axes ``along``;
    the axes ``within`` are averaged. There are ``num_tokens`` of ``num_units`` each.
    """

    block: int
    sizes: tuple[int, ...]
    within: tuple[int, ...]
    across: tuple[int, ...]
    along: tuple[int, ...]
    num_tokens: int
    num_units: int

    def cut(self, block: Tensor) -> Tensor:
        """Cut ``[batch, *sizes, 3, heads, c]`` into ``[3, batch, heads, tokens, units * c]``."""
        if self.within:
            block = block.mean(dim=[1 + axis for axis in self.within], keepdim=True)
        axes = [1 + axis for axis in (*self.within, *self.across, *self.along)]
        last = block.dim() - 1
        ordered = block.permute(last - 2, 0, last - 1, *axes, last)
        return ordered.reshape(
            *ordered.shape[:3], self.num_tokens, self.num_units * block.shape[-1]
        )

    def paste(self, tokens: Tensor) -> Tensor:
        """Turn ``[batch, heads, tokens, units * c]`` back: ``[batch, *sizes or 1, heads * c]``."""
        axes = (*self.within, *self.across, *self.along)
        lengths = [1 if axis in self.within else self.sizes[axis] for axis in axes]
        width = tokens.shape[-1] // self.num_units
        spread = tokens.reshape(*tokens.shape[:2], *lengths, width)
        places = [2 + axes.index(axis) for axis in range(len(axes))]
        return spread.permute(0, *places, 1, 2 + len(axes)).flatten(-2)


class WeightSpaceAttention(nn.Module):
    r"""Self-attention on a weight space that commutes with every relabelling [1]_.

    For each neuron group, every block that the group moves is cut into tokens: a row, a column or a
    bias, each a vector over the group's units and channels. These attend to each other, so neurons
    are compared by what they are connected to. All blocks attend to each other once more through
    their means. A position's output is the sum of these terms.

    Relabelling a group moves the entries of all its tokens alike, which leaves their inner products
    as they are, and tokens of other groups among themselves. Units of a nested group are told apart
    only within the unit that they lie in: its tokens run over both groups, and where they would
    themselves be counted by it they are averaged first.

    Parameters
    ----------
    blocks
        Shapes of the features, with ``channels`` each.
    channels, num_heads
        Features per position, and into how many heads they are cut.

    References
    ----------
    .. [1] Zhou et al., "Neural Functional Transformers", NeurIPS 2023. The attention
       among all entries is among the blocks' means, as in the authors' code.
    """

    def __init__(self, blocks: Sequence[FeatureBlock], channels: int, num_heads: int) -> None:
        super().__init__()
        self.head_shape = head_shape(channels, num_heads)
        self.sizes = [block.sizes for block in blocks]
        self.lengths = [prod(sizes) for sizes in self.sizes]
        self.passes = _passes(blocks)
        self.project = nn.Linear(channels, 3 * channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``[batch, positions, channels]`` of all blocks, one after the other."""
        parts = torch.split(self.project(features), self.lengths, dim=1)
        blocks = [
            part.view(len(features), *sizes, *self.head_shape)
            for part, sizes in zip(parts, self.sizes, strict=True)
        ]
        terms = [[term] for term in self._attend_means(features)]
        for tokens in self.passes:
            for each, term in zip(tokens, self._attend_along(blocks, tokens), strict=True):
                terms[each.block].append(term)
        sums = [_add_up(each).flatten(1, -2) for each in terms]
        return torch.cat(sums, dim=1)

    def _attend_means(self, features: Tensor) -> list[Tensor]:
        """Attention among the blocks' means; per block ``[batch, 1, ..., 1, channels]``."""
        parts = torch.split(features, self.lengths, dim=1)
        means = self.project(torch.stack([part.mean(dim=1) for part in parts], dim=1))
        heads = means.unflatten(2, self.head_shape).permute(2, 0, 3, 1, 4)
        rows = attend(heads).transpose(1, 2).flatten(2).unbind(dim=1)
        return [
            row.reshape(len(features), *[1] * max(1, len(sizes)), row.shape[-1])
            for row, sizes in zip(rows, self.sizes, strict=True)
        ]

    def _attend_along(self, blocks: Sequence[Tensor], tokens: Sequence[_Tokens]) -> list[Tensor]:
        """Attention among the tokens of one group; per block ``[batch, *sizes or 1, channels]``."""
        heads = torch.cat([each.cut(blocks[each.block]) for each in tokens], dim=3)
        parts = torch.split(attend(heads), [each.num_tokens for each in tokens], dim=2)
        return [each.paste(part) for each, part in zip(tokens, parts, strict=True)]


def _passes(blocks: Sequence[FeatureBlock]) -> list[list[_Tokens]]:
    """Cut the blocks of each group into its tokens, one list per group."""
    parents = dict(chain.from_iterable(block.inside for block in blocks))
    names = sorted({name for block in blocks for name in block.groups})
    return [
        [
            _tokens(at, block, axis, parents)
            for at, block in enumerate(blocks)
            for axis, group in enumerate(block.groups)
            if group == name
        ]
        for name in names
    ]


def _tokens(at: int, block: FeatureBlock, chosen: int, parents: dict[str, str]) -> _Tokens:
    """Sort a block's axes into those that are averaged, that count tokens and that join in one."""
    outer = set(_ancestors(block.groups[chosen], parents))
    along = [axis for axis, group in enumerate(block.groups) if axis == chosen or group in outer]
    joined = {block.groups[axis] for axis in along}
    within = [
        axis
        for axis, group in enumerate(block.groups)
        if axis not in along and joined & set(_ancestors(group, parents))
    ]
    across = [axis for axis in range(len(block.groups)) if axis not in (*along, *within)]
    return _Tokens(
        block=at,
        sizes=block.sizes,
        within=tuple(within),
        across=tuple(across),
        along=tuple(along),
        num_tokens=prod(block.sizes[axis] for axis in across),
        num_units=prod(block.sizes[axis] for axis in along),
    )


def _ancestors(name: str, parents: dict[str, str]) -> list[str]:
    """List the groups that a group is nested inside."""
    found = []
    while (parent := parents.get(name)) is not None:
        found.append(parent)
        name = parent
    return found


def _add_up(terms: Sequence[Tensor]) -> Tensor:
    """Sum terms that broadcast to the largest of them."""
    first, *rest = sorted(terms, key=lambda term: prod(term.shape[1:]), reverse=True)
    if not rest:
        return first
    total = first + rest[0]
    for term in rest[1:]:
        total.add_(term)  # in place: large new tensors are slow
    return total
