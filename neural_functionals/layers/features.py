"""Features on a weight space, one block per field, and the road from flat vectors and back.

A *block* has one axis per neuron group that moves it, then channels: ``[batch, *sizes, channels]``.
Blocks list their groups in one order (by name), so pooled blocks of one set of groups always line
up.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from zoo.errors import WeightSpaceMismatchError
from zoo.space import PinKind, WeightSpace
from zoo.symmetry.fields import Field, fields


@dataclass(frozen=True, kw_only=True)
class FeatureBlock:
    """Shape of one block of features, ``[batch, *sizes, channels]``.

    Parameters
    ----------
    groups
        Neuron groups that move the block, one per axis, sorted by name; one may move several.
    sizes
        Number of units of each group.
    channels
        Features per position.
    inside
        For each group that is nested, its name and the group that it lies inside.
    nesting
        For each axis of a nested group whose outer group moves several axes, that axis and the one
        that it lies inside; of one group, both ascend.

    Raises
    ------
    WeightSpaceMismatchError
        If groups are not sorted, or nested axes not placed.
    """

    groups: tuple[str, ...]
    sizes: tuple[int, ...]
    channels: int
    inside: tuple[tuple[str, str], ...] = ()
    nesting: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if list(self.groups) != sorted(self.groups) or len(self.sizes) != len(self.groups):
            raise WeightSpaceMismatchError(
                f"Expected groups sorted by name with one size each, got groups {self.groups} and "
                f"sizes {self.sizes}."
            )
        parents = dict(self.inside)
        known = [(n, self.outer.get(at, -1)) for at, n in enumerate(self.groups) if n in parents]
        found = all(at >= 0 and self.groups[at] == parents[name] for name, at in known)
        if not found or known != sorted(known):
            raise WeightSpaceMismatchError(
                f"Expected each nested axis of groups {self.groups} inside an axis of its outer "
                f"group, in ascending order, got inside {self.inside} and nesting {self.nesting}."
            )

    @cached_property
    def outer(self) -> dict[int, int]:
        """For each axis of a nested group, the axis that it lies inside."""
        parents = dict(self.inside)
        alone = {name: at for at, name in enumerate(self.groups) if self.groups.count(name) == 1}
        found = {
            axis: alone[parents[name]]
            for axis, name in enumerate(self.groups)
            if parents.get(name) in alone
        }
        return found | dict(self.nesting)


class WeightLayout(nn.Module):
    """Cuts flat weights into blocks, one per field of the space, and joins blocks again.

    Parameters
    ----------
    space
        The weight space.
    free
        Kinds of pinned axes to treat as further groups: ``("input", "output")`` gives the setting
        in which the network's inputs and outputs may be relabelled too.
    repeated
        Whether one group may move two axes of a tensor.

    Raises
    ------
    WeightSpaceMismatchError
        If one group moves two axes of a tensor, and may not.
    """

    index: Tensor
    inverse: Tensor
    orbit: Tensor

    def __init__(
        self, space: WeightSpace, *, free: tuple[PinKind, ...] = (), repeated: bool = False
    ) -> None:
        super().__init__()
        self.num_parameters = space.num_parameters
        self.fields = fields(space, free=free)
        if not repeated:
            _refuse_repeats(self.fields)
        indices = [_sorted_index(field) for field in self.fields]
        self.shapes = [index.shape for index in indices]
        self._groups = [tuple(sorted(field.groups)) for field in self.fields]
        self._parents = {g.name: g.parent for g in space.groups if g.parent is not None}
        self._nesting = [_nesting(space, field) for field in self.fields]
        flat = np.concatenate([index.ravel() for index in indices])
        buffers = {"index": flat, "inverse": np.argsort(flat), "orbit": _orbits(indices)}
        for name, value in buffers.items():
            self.register_buffer(name, torch.from_numpy(value), persistent=False)

    @property
    def num_orbits(self) -> int:
        """Number of orbits: one per field and channel."""
        return sum(shape[-1] for shape in self.shapes)

    def blocks(
        self, channels: int = 1, *, extra: Sequence[int] | None = None
    ) -> list[FeatureBlock]:
        """Shapes of features with ``channels`` features per weight and ``extra`` ones per field."""
        more = [0] * len(self.shapes) if extra is None else extra
        return [
            FeatureBlock(
                groups=groups,
                sizes=shape[:-1],
                channels=shape[-1] * channels + added,
                inside=tuple((g, self._parents[g]) for g in groups if g in self._parents),
                nesting=nesting,
            )
            for groups, shape, added, nesting in zip(
                self._groups, self.shapes, more, self._nesting, strict=True
            )
        ]

    def gather(self, weights: Tensor) -> list[Tensor]:
        """Cut weights ``[batch, P]`` into blocks ``[batch, *sizes, channels]``, views of a copy."""
        if weights.ndim != 2 or weights.shape[1] != self.num_parameters:
            raise WeightSpaceMismatchError(
                f"Expected weights of shape [batch, {self.num_parameters}], got "
                f"{list(weights.shape)}. Do they come from another population?"
            )
        chosen = weights.index_select(1, self.index)
        parts = torch.split(chosen, [prod(shape) for shape in self.shapes], dim=1)
        return [
            part.view(len(weights), *shape) for part, shape in zip(parts, self.shapes, strict=True)
        ]

    def scatter(self, features: Sequence[Tensor]) -> Tensor:
        """Join blocks of one feature per weight into weights ``[batch, P]``; undoes ``gather``."""
        flat = torch.cat([block.flatten(1) for block in features], dim=1)
        return flat.index_select(1, self.inverse)


def _refuse_repeats(found: Sequence[Field]) -> None:
    for field in found:
        twice = [name for name, count in Counter(field.groups).items() if count > 1]
        if twice:
            raise WeightSpaceMismatchError(
                f"Expected every neuron group on at most one axis of a tensor, but {twice[0]!r} "
                f"moves several axes of {field.tensor!r}. Use a model with maps for that: unf, nfn."
            )


def _sorted_index(field: Field) -> np.ndarray:
    """Positions of a field with its group axes sorted by name, ``[*sizes, channels]``."""
    order = _sorted_axes(field)
    return np.transpose(field.index, [*order, len(order)])


def _sorted_axes(field: Field) -> list[int]:
    """Axes of a field by the name of their group, those of one group in the field's order."""
    return sorted(range(len(field.groups)), key=lambda axis: field.groups[axis])


def _nesting(space: WeightSpace, field: Field) -> tuple[tuple[int, int], ...]:
    """Place nested axes where their outer group moves several axes, as in :class:`FeatureBlock`.

    Fields list outer groups before those inside: it is the last such axis before the nested one.
    """
    place = {axis: at for at, axis in enumerate(_sorted_axes(field))}
    parents = {group.name: group.parent for group in space.groups}
    pairs = []
    for axis, name in enumerate(field.groups):
        around = [at for at, other in enumerate(field.groups) if other == parents.get(name)]
        if len(around) > 1:
            _refuse_rows(space, field, name)
            pairs.append((place[axis], place[max(at for at in around if at < axis)]))
    return tuple(sorted(pairs))


def _refuse_rows(space: WeightSpace, field: Field, name: str) -> None:
    """Refuse nested axes that may lie inside one of another axis of the tensor."""
    touches = [touch for touch in space.group(name).touches if touch.tensor == field.tensor]
    if any(touch.rows is not None for touch in touches):
        raise WeightSpaceMismatchError(
            f"Group {name!r} moves rows of {field.tensor!r}, and the group around it several axes: "
            "there are no maps for that. Use a model of statistics, such as statnn."
        )


def _orbits(indices: Sequence[np.ndarray]) -> np.ndarray:
    """Return the orbit (a number per field and channel) of each position, ``[P]``."""
    orbit = np.empty(sum(index.size for index in indices), dtype=np.int64)
    start = 0
    for index in indices:
        channels = index.shape[-1]
        orbit[index] = start + np.arange(channels)
        start += channels
    return orbit
