"""A network's hidden units and the weights between them as a graph whose features carry signs.

Units of a group are nodes of one kind. The weights between two groups are the edges of a complete
bipartite graph. At each end, signs of the units there flip a feature (*odd*) or none does (*even*).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from neural_functionals.layers.features import WeightLayout
from neural_functionals.layers.scaling import scale_degrees
from zoo.errors import WeightSpaceMismatchError
from zoo.space import WeightSpace

Sign = tuple[str, ...]
"""Names of the scalings of one group whose signs flip a feature together."""

EVEN: Sign = ()


@dataclass(frozen=True)
class UnitFeatures:
    """Channels of one block that describe the units of one group, all flipped alike."""

    block: int
    channels: tuple[int, ...]
    group: int
    sign: Sign


@dataclass(frozen=True)
class Edges:
    """Channels of one block that lie between two groups, all flipped alike at each end.

    ``ends`` are the positions of target and source among the space's groups; ``transposed`` tells
    that the block lists the source first.
    """

    block: int
    channels: tuple[int, ...]
    ends: tuple[int, int]
    signs: tuple[Sign, Sign]
    transposed: bool


class SignGraph:
    """Hidden units and the weights between them, with what flips their features.

    Parameters
    ----------
    space
        The weight space.
    layout
        Its layout.

    Attributes
    ----------
    sizes, signs
        Per group the number of units, and each way in which features there are flipped.
    units, edges
        Features of units and of edges.
    plain
        Blocks that no group moves.

    Raises
    ------
    WeightSpaceMismatchError
        If the space has no hidden units, nested groups or fields of more than two groups.
    """

    def __init__(self, space: WeightSpace, layout: WeightLayout) -> None:
        blocks = layout.blocks()
        nested = any(group.parent is not None for group in space.groups)
        if not space.groups or nested or max(len(block.groups) for block in blocks) > 2:
            raise WeightSpaceMismatchError(
                "Expected a network whose weights lie between two layers of units, got weight "
                f"space {space.fingerprint} with no hidden units, units inside others (heads) or "
                "weights between three groups. Use a model of complete equivariant maps."
            )
        names = [group.name for group in space.groups]
        self.sizes = [group.size for group in space.groups]
        self.plain: list[int] = []
        self.units: list[UnitFeatures] = []
        self.edges: list[Edges] = []
        parities = scale_degrees(space, layout, "sign")
        for at, (block, field) in enumerate(zip(blocks, layout.fields, strict=True)):
            order = list(block.groups)
            turned = len(order) == 2 and axis_role(space, field.tensor, order[0]) == "in"
            order = order[::-1] if turned else order
            ends = [names.index(name) for name in order]
            if not ends:
                self.plain.append(at)
            for signs, channels in _classes(space, parities[at], order):
                if len(ends) == 1:
                    self.units.append(UnitFeatures(at, channels, ends[0], signs[0]))
                elif ends:
                    both = (ends[0], ends[1]), (signs[0], signs[1])
                    self.edges.append(Edges(at, channels, *both, turned))
        self.signs = [self._signs_of(group) for group in range(len(names))]

    def _signs_of(self, group: int) -> list[Sign]:
        """List the ways in which features of a group are flipped."""
        found = [one.sign for one in self.units if one.group == group]
        for edge in self.edges:
            found += [s for s, end in zip(edge.signs, edge.ends, strict=True) if end == group]
        return [sign for sign in dict.fromkeys(found) if sign != EVEN]


def _classes(
    space: WeightSpace, parities: np.ndarray, groups: list[str]
) -> Iterator[tuple[tuple[Sign, ...], tuple[int, ...]]]:
    """Sort channels, with parities ``[channels, signs]``, by what flips them in each group."""
    scalings = [one for one in space.scalings if one.domain == "sign"]
    found: dict[tuple[Sign, ...], list[int]] = {}
    for channel, row in enumerate(parities):
        flipping = [one for one, flips in zip(scalings, row, strict=True) if flips]
        signs = tuple(tuple(one.name for one in flipping if one.group == group) for group in groups)
        found.setdefault(signs, []).append(channel)
    for signs, channels in found.items():
        yield signs, tuple(channels)


def axis_role(space: WeightSpace, tensor: str, group: str) -> str:
    """Tell what the operator that reads a tensor does with the axis that a group moves."""
    dims = [touch.dim for touch in space.group(group).touches if touch.tensor == tensor]
    return space.tensor(tensor).axes[dims[0]].role
