"""Equivariant linear maps under monomial matrices: relabelling and scaling hidden units at once.

Features that a factor multiplies can only be mixed with features that the same powers of the same
factors multiply, unit by unit: averaging over a scaled axis, repeating along it or adding a bias
would not commute with the factors. So a space's channels fall into *types*, and a map is, per type,
the complete map of :class:`~neural_functionals.layers.EquivariantLinear` along the axes that no
factor scales.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from neural_functionals.layers.equivariant import EquivariantLinear
from neural_functionals.layers.features import FeatureBlock, WeightLayout
from neural_functionals.layers.scaling import scale_degrees
from neural_functionals.layers.sign_graph import EVEN, Sign
from zoo.space import Domain, WeightSpace

Powers = tuple[tuple[str, int], ...]
"""Names of scalings, and the powers of their factors."""


@dataclass(frozen=True, kw_only=True)
class MonomialBlock:
    """Channels of one block of a layout that the same powers of the same factors multiply.

    Parameters
    ----------
    block
        Position of the block in the layout.
    channels
        Positions of the channels in the block.
    shape
        The block with these channels only.
    powers
        Name of each scaling that multiplies them, and the power of its factor.
    scaled
        Groups whose units' factors these are, and those that such groups lie inside.
    signs
        Per group whose units' signs flip them, the group and the names of these signs.
    """

    block: int
    channels: tuple[int, ...]
    shape: FeatureBlock
    powers: Powers
    scaled: tuple[str, ...]
    signs: tuple[tuple[str, Sign], ...]

    def rest(self, width: int) -> FeatureBlock:
        """Axes that no factor scales, with ``width`` features per channel."""
        kept = [group not in self.scaled for group in self.shape.groups]
        groups = tuple(g for g, keep in zip(self.shape.groups, kept, strict=True) if keep)
        return replace(
            self.shape,
            groups=groups,
            sizes=tuple(n for n, keep in zip(self.shape.sizes, kept, strict=True) if keep),
            channels=len(self.channels) * width,
            inside=tuple(pair for pair in self.shape.inside if set(pair) <= set(groups)),
        )


def monomial_blocks(space: WeightSpace, layout: WeightLayout) -> list[MonomialBlock]:
    """Cut a layout's blocks by how factors multiply their channels."""
    return [
        MonomialBlock(
            block=at,
            channels=tuple(channels),
            shape=replace(shape, channels=len(channels)),
            powers=powers,
            scaled=_with_outer(shape, {space.scaling(name).group for name, _ in powers}),
            signs=_signs(space, powers),
        )
        for at, (shape, channel_powers) in enumerate(
            zip(layout.blocks(), _channel_powers(space, layout), strict=True)
        )
        for powers, channels in _alike(channel_powers).items()
    ]


def _channel_powers(space: WeightSpace, layout: WeightLayout) -> Iterator[list[Powers]]:
    """Yield, block by block, the scalings that multiply each channel."""
    domains: tuple[Domain, ...] = ("positive", "sign")
    ordered = [one for domain in domains for one in space.scalings if one.domain == domain]
    tables = zip(*(scale_degrees(space, layout, domain) for domain in domains), strict=True)
    for parts in tables:
        yield [
            tuple((one.name, int(power)) for one, power in zip(ordered, row, strict=True) if power)
            for row in np.concatenate(parts, axis=1)
        ]


def _alike(channel_powers: list[Powers]) -> dict[Powers, list[int]]:
    """Sort channels by what multiplies them."""
    classes: dict[Powers, list[int]] = {}
    for channel, powers in enumerate(channel_powers):
        classes.setdefault(powers, []).append(channel)
    return classes


def _signs(space: WeightSpace, powers: Powers) -> tuple[tuple[str, Sign], ...]:
    """Sort the signs among some scalings by group."""
    signs: dict[str, Sign] = {}
    for scaling in (space.scaling(name) for name, _ in powers):
        if scaling.domain == "sign":
            signs[scaling.group] = (*signs.get(scaling.group, EVEN), scaling.name)
    return tuple(signs.items())


def _with_outer(shape: FeatureBlock, groups: set[str]) -> tuple[str, ...]:
    """Add the groups that some lie inside: each outer unit has inner ones of its own."""
    outer = dict(shape.inside)
    for group in list(groups):
        while (group := outer.get(group, "")) != "":
            groups.add(group)
    return tuple(sorted(groups))


class MonomialLinear(nn.Module):
    r"""Every linear map that commutes with relabelling and scaling hidden units [1]_.

    A block of weights between two scaled layers, say, only meets itself, and the weights and biases
    that enter the first hidden layer meet each other (Table 6 of [1]_, for MLPs and CNNs). Only
    what no factor multiplies gets a bias. Groups without scalings are relabelled only.

    Parameters
    ----------
    blocks
        Types of features, from :func:`monomial_blocks`.
    in_width, out_width
        Features per channel.
    gain
        Standard deviation of the outputs at the start, for inputs of unit variance.

    References
    ----------
    .. [1] Tran, Vo, Tran, Nguyen, Nguyen, "Monomial Matrix Group Equivariant Neural Functional
       Networks", NeurIPS 2024, Sec. 4 and Table 6.
    """

    def __init__(
        self,
        blocks: Sequence[MonomialBlock],
        in_width: int,
        out_width: int,
        *,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.blocks = tuple(blocks)
        members: dict[Powers, list[int]] = {}
        for at, block in enumerate(self.blocks):
            members.setdefault(block.powers, []).append(at)
        self._members = list(members.values())
        self.maps = nn.ModuleList(
            self._map(own, in_width, out_width, gain) for own in self._members
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map features ``[batch, *sizes, channels * in_width]`` of each type to ``out_width``."""
        outputs = list(features)
        for own, linear in zip(self._members, self.maps, strict=True):
            unfolded = [_unfold(features[at], self.blocks[at]) for at in own]
            for at, mixed in zip(own, linear(unfolded), strict=True):
                outputs[at] = _fold(mixed, self.blocks[at])
        return outputs

    def _map(self, own: list[int], in_width: int, out_width: int, gain: float) -> nn.Module:
        inputs, outputs = (
            [self.blocks[at].rest(width) for at in own] for width in (in_width, out_width)
        )
        linear = EquivariantLinear(inputs, outputs, gain=gain)
        if self.blocks[own[0]].powers:
            linear.register_parameter("bias", None)
        return linear


def _scaled_dims(block: MonomialBlock) -> list[int]:
    return [1 + dim for dim, name in enumerate(block.shape.groups) if name in block.scaled]


def _unfold(features: Tensor, block: MonomialBlock) -> Tensor:
    """Move scaled axes to the batch: ``[batch * units, *rest, channels]``."""
    dims = _scaled_dims(block)
    return features.movedim(dims, list(range(1, 1 + len(dims)))).flatten(0, len(dims))


def _fold(features: Tensor, block: MonomialBlock) -> Tensor:
    """Undo :func:`_unfold`."""
    dims = _scaled_dims(block)
    sizes = [block.shape.sizes[dim - 1] for dim in dims]
    batch = features.shape[0] // prod(sizes)
    whole = features.reshape(batch, *sizes, *features.shape[1:])
    return whole.movedim(list(range(1, 1 + len(dims))), dims)


def cut(features: Sequence[Tensor], blocks: Sequence[MonomialBlock]) -> Iterator[Tensor]:
    """Pick the channels of each type from a layout's blocks ``[batch, *sizes, channels]``."""
    for block in blocks:
        whole = features[block.block]
        if len(block.channels) == whole.shape[-1]:
            yield whole
        else:
            yield whole[..., torch.tensor(block.channels, device=whole.device)]
