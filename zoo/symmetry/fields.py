"""Fields: the weight space cut into blocks that have one axis per neuron group.

A tensor whose axis holds a run of positions per unit (a flattened convolution), several groups side
by side (a concatenation) or pinned positions (inputs, kernels) is not a plain array over groups.
Its fields are: each is indexed by neuron groups and a channel axis that no relabelling moves.
Equivariant layers, statistics and matching work on fields and never ask where they come from.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from zoo.space import PinKind, TensorSpec, WeightSpace


@dataclass(frozen=True, eq=False)
class Field:
    """One block of the flat vector.

    Parameters
    ----------
    tensor
        Name of the tensor that it lies in.
    groups
        Neuron group of each axis but the last, in the tensor's order of axes.
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
class _Segment:
    """Part of one axis: a group's units with the positions each owns, or positions that stay."""

    group: str | None
    positions: np.ndarray  # [size, block], or [1, length] where nothing moves


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
    touches: dict[tuple[str, int], list[_Segment]] = defaultdict(list)
    for group in space.groups:
        for touch in group.touches:
            touches[touch.tensor, touch.dim].append(_Segment(group.name, touch.index.array()))
    return tuple(
        piece
        for tensor in space.tensors
        for piece in _tensor_fields(
            tensor,
            space.offsets[tensor.name],
            [
                list(_segments(tensor, dim, touches[tensor.name, dim], free))
                for dim in range(len(tensor.shape))
            ],
        )
    )


def _segments(
    tensor: TensorSpec, dim: int, moving: list[_Segment], free: tuple[PinKind, ...]
) -> Iterator[_Segment]:
    """Cut one axis into the parts that groups move and the part that stays."""
    yield from moving
    stays = np.ones(tensor.shape[dim], dtype=bool)
    for segment in moving:
        stays[segment.positions] = False
    positions = np.flatnonzero(stays)
    axis = tensor.axes[dim]
    if len(positions) and axis.pin in free and not moving:
        yield _Segment(axis.label, positions[:, None])
    elif len(positions):
        yield _Segment(None, positions[None])


def _tensor_fields(tensor: TensorSpec, offset: int, axes: list[list[_Segment]]) -> Iterator[Field]:
    """Combine one part of every axis into a field, for all combinations."""
    for parts in product(*axes):
        moving = [dim for dim, part in enumerate(parts) if part.group is not None]
        grids = np.ix_(*(part.positions.ravel() for part in parts))
        flat = offset + (
            np.ravel_multi_index(grids, tensor.shape) if tensor.shape else np.zeros((), np.int64)
        )
        split = flat.reshape([length for part in parts for length in part.positions.shape])
        units = [2 * dim for dim in moving]
        rest = [axis for axis in range(split.ndim) if axis not in units]
        sizes = [split.shape[axis] for axis in units]
        yield Field(
            tensor=tensor.name,
            groups=tuple(str(parts[dim].group) for dim in moving),
            index=split.transpose(units + rest).reshape([*sizes, -1]),
        )
