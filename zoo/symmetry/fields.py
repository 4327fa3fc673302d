"""Fields: the weight space cut into blocks that have one axis per neuron group.

A tensor whose axis holds a run of positions per unit (a flattened convolution), several groups side
by side (a concatenation), nested groups (heads) or pinned positions (inputs, kernels) is not a
plain array over groups. Its fields are: each is indexed by neuron groups and a channel axis that no
relabelling moves. Equivariant layers, statistics and matching work on fields and never ask where
they come from.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from zoo.space import PinKind, TensorSpec, Touch, WeightSpace
from zoo.symmetry.act import depth


@dataclass(frozen=True, eq=False)
class Field:
    """One block of the flat vector.

    Parameters
    ----------
    tensor
        Name of the tensor that it lies in.
    groups
        Neuron group of each axis but the last: in the tensor's order of axes, outer groups before
        those nested inside them. The axis of a nested group counts units within the outer unit.
    index
        Positions in the flat vector, ``[*group_sizes, num_channels]``, int64.
    """

    tensor: str
    groups: tuple[str, ...]
    index: np.ndarray = field(repr=False)

    @property
    def num_channels(self) -> int:
        """Length of the last axis: positions that no group moves, in C order."""
        return int(self.index.shape[-1])

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of units on each group axis."""
        return tuple(int(length) for length in self.index.shape[:-1])


@dataclass(frozen=True, eq=False)
class _Member:
    """Which unit of a group each entry of a tensor belongs to through one axis, and where in it.

    Both arrays broadcast to the tensor's shape; ``-1`` marks entries that the group does not move.
    """

    group: str
    units: np.ndarray
    slots: np.ndarray


def fields(space: WeightSpace, *, free: tuple[PinKind, ...] = ()) -> tuple[Field, ...]:
    """Cut a weight space into fields; every position of the flat vector lies in exactly one.

    Parameters
    ----------
    free
        Kinds of pinned axes to treat as if their positions could be relabelled, each label a group
        of its own: ``("input", "output")`` is the neuron permutation (NP) setting of [1]_.

    References
    ----------
    .. [1] Zhou et al., "Permutation Equivariant Neural Functionals", NeurIPS 2023, Sec. 2.
    """
    touches: dict[tuple[str, int], list[tuple[int, str, int, Touch]]] = defaultdict(list)
    for group in space.groups:
        for touch in group.touches:
            entry = (depth(space, group), group.name, group.size, touch)
            touches[touch.tensor, touch.dim].append(entry)
    return tuple(
        piece
        for tensor in space.tensors
        for piece in _cut(tensor, space.offsets[tensor.name], list(_members(tensor, touches, free)))
    )


def _members(
    tensor: TensorSpec,
    touches: dict[tuple[str, int], list[tuple[int, str, int, Touch]]],
    free: tuple[PinKind, ...],
) -> Iterator[_Member]:
    """List the groups that move a tensor in the order of its axes, outer ones first."""
    for dim, axis in enumerate(tensor.axes):
        moving = sorted(touches[tensor.name, dim], key=lambda entry: entry[:2])
        for _, name, size, touch in moving:
            yield _Member(name, *_entries(tensor.shape, touch, size))
        if not moving and axis.pin in free:
            positions = _along(np.arange(tensor.shape[dim]), dim, len(tensor.shape))
            yield _Member(axis.label, positions, np.zeros_like(positions))


def _entries(shape: tuple[int, ...], touch: Touch, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Find unit and slot of each entry of a tensor under one touch."""
    positions = touch.index.array()
    copies = positions.reshape(-1, size, positions.shape[1])
    units, slots = (np.full((len(copies), shape[touch.dim]), -1) for _ in range(2))
    for copy, owned in enumerate(copies):
        units[copy, owned] = np.arange(size)[:, None]
        slots[copy, owned] = np.arange(owned.shape[1])
    if touch.rows is None:
        rank = len(shape)
        return _along(units.max(0), touch.dim, rank), _along(slots.max(0), touch.dim, rank)
    assert touch.rows_dim is not None
    of_row = np.full(shape[touch.rows_dim], -1)
    of_row[touch.rows.array()] = np.arange(len(copies))[:, None]
    here = (of_row >= 0)[:, None]
    return tuple(  # type: ignore[return-value]
        _over(np.where(here, part[of_row], -1), touch, len(shape)) for part in (units, slots)
    )


def _over(grid: np.ndarray, touch: Touch, rank: int) -> np.ndarray:
    """Lay a grid of (row, position) along the two axes of a row touch."""
    assert touch.rows_dim is not None
    grown = np.expand_dims(grid, tuple(range(2, rank)))
    return np.moveaxis(grown, (0, 1), (touch.rows_dim, touch.dim))


def _along(values: np.ndarray, dim: int, rank: int) -> np.ndarray:
    return values.reshape([-1 if at == dim else 1 for at in range(rank)])


def _cut(tensor: TensorSpec, offset: int, members: list[_Member]) -> Iterator[Field]:
    """Sort a tensor's entries by the groups that move them, then by unit, then by place."""
    positions = offset + np.arange(tensor.numel)
    units = [np.broadcast_to(member.units, tensor.shape).ravel() for member in members]
    slots = [np.broadcast_to(member.slots, tensor.shape).ravel() for member in members]
    moved = np.array([each >= 0 for each in units]).reshape(len(members), tensor.numel)
    for pattern in dict.fromkeys(map(tuple, moved.T.tolist())):
        chosen = np.all(np.asarray(pattern) == moved.T, axis=1)
        present = [at for at, is_moved in enumerate(pattern) if is_moved]
        keys = [positions[chosen], *(slots[at][chosen] for at in reversed(present))]
        keys += [units[at][chosen] for at in reversed(present)]
        sizes = [int(units[at][chosen].max()) + 1 for at in present]
        yield Field(
            tensor=tensor.name,
            groups=tuple(members[at].group for at in present),
            index=positions[chosen][np.lexsort(keys)].reshape(*sizes, -1),
        )
