"""Which units, inputs and outputs of a network each of its weights lies between."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from zoo.errors import WeightSpaceMismatchError
from zoo.space import AxisRole, AxisSpec, TensorSpec, WeightSpace
from zoo.symmetry.fields import Field, fields

NodeKind = Literal["input", "hidden", "output"]


@dataclass(frozen=True, kw_only=True)
class End:
    """Where one end of a part's entries lies.

    Parameters
    ----------
    name
        Neuron group, or label of a pinned axis.
    kind
        ``"hidden"`` for a neuron group.
    axes
        Axes of the part that give the node: outer groups before the one nested inside them.
    role
        What the operator that reads the tensor does with the axis.
    """

    name: str
    kind: NodeKind
    axes: tuple[int, ...]
    role: AxisRole


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A field with its ends: targets before sources.

    ``index`` holds positions in the flat vector, ``[*sizes, channels]``.
    """

    tensor: TensorSpec
    ends: tuple[End, ...]
    index: np.ndarray

    @property
    def sizes(self) -> tuple[int, ...]:
        """Length of each axis but the last."""
        return self.index.shape[:-1]


def cut(space: WeightSpace) -> list[Part]:
    """Cut a space into fields over groups, network inputs and network outputs."""
    named = replace(space, tensors=tuple(map(_name_singles, space.tensors)))
    return [_part(named, each) for each in fields(named, free=("input", "output"))]


def _name_singles(tensor: TensorSpec) -> TensorSpec:
    """Make input and output axes of one position an input and an output of their layer."""
    sides: dict[AxisRole, Literal["input", "output"]] = {"in": "input", "out": "output"}
    axes = tuple(
        AxisSpec(role=axis.role, pin=sides[axis.role], label=f"{tensor.layer} {axis.role}")
        if axis.pin == "single" and axis.role in sides
        else axis
        for axis in tensor.axes
    )
    return replace(tensor, axes=axes)


def _part(space: WeightSpace, field: Field) -> Part:
    """Find the ends of a field, targets before sources."""
    tensor = space.tensor(field.tensor)
    outer = _outer_axes(space, field.groups)
    leaves = [axis for axis in range(len(outer)) if axis not in outer]
    ends = [_end(space, tensor, field, _chain(outer, axis)) for axis in leaves]
    return Part(tensor=tensor, ends=tuple(sorted(ends, key=side_of)), index=field.index)


def _outer_axes(space: WeightSpace, groups: Sequence[str]) -> list[int | None]:
    """For each axis of a field that of the group around it: the last one before it, if any."""
    parents = {group.name: group.parent for group in space.groups}
    outer: list[int | None] = []
    for axis, name in enumerate(groups):
        around = [at for at, other in enumerate(groups) if other == parents.get(name)]
        before = [at for at in around if at < axis]
        outer.append(before[-1] if before else around[0] if around else None)
    return outer


def _chain(outer: Sequence[int | None], axis: int) -> tuple[int, ...]:
    """Axes from the outermost group around an axis to the axis itself."""
    around = outer[axis]
    return (axis,) if around is None else (*_chain(outer, around), axis)


def _end(space: WeightSpace, tensor: TensorSpec, field: Field, axes: tuple[int, ...]) -> End:
    name = field.groups[axes[-1]]
    dims = list(_dims(space, tensor, field, axes[-1]))
    kind = tensor.axes[dims[0]].pin
    known: NodeKind = "input" if kind == "input" else "output" if kind == "output" else "hidden"
    roles = [tensor.axes[dim].role for dim in dims]
    role = next((role for role in roles if role in ("in", "out")), roles[0])
    return End(name=name, kind=known, axes=axes, role=role)


def _dims(space: WeightSpace, tensor: TensorSpec, field: Field, axis: int) -> Iterator[int]:
    """Axes of the tensor that a field's axis runs along; of one unit, those that it may."""
    places = np.unravel_index(field.index - space.offsets[tensor.name], tensor.shape)
    if field.sizes[axis] > 1:
        yield from (dim for dim, at in enumerate(places) if np.diff(at, axis=axis).any())
        return
    name = field.groups[axis]
    yield from (dim for dim, spec in enumerate(tensor.axes) if spec.label == name)
    touches = [touch for group in space.groups if group.name == name for touch in group.touches]
    yield from (touch.dim for touch in touches if touch.tensor == tensor.name)


def side_of(end: End) -> int:
    """Tell targets (negative) from sources (positive); 0 where the space does not say."""
    roles = {"out": -2, "in": 2}
    kinds = {"output": -1, "input": 1}
    return roles.get(end.role, 0) or kinds.get(end.kind, 0)


def kernel_columns(
    space: WeightSpace, parts: Sequence[Part], kernel: Sequence[int] | None
) -> tuple[list[np.ndarray], tuple[int, ...]]:
    """Place the channels of each part among the features of an edge, kernels centred.

    Parameters
    ----------
    kernel
        Largest kernel, by default that of the space.

    Returns
    -------
    columns
        Per part ``[channels]``, int64.
    kernel
        The largest kernel. Fewer dimensions are the last ones.

    Raises
    ------
    WeightSpaceMismatchError
        If a kernel is larger.
    """
    shapes = [_kernel_shape(part.tensor) for part in parts]
    rank = max(map(len, [*shapes, tuple(kernel or ())]), default=0)
    full = np.array([_grown(shape, rank) for shape in shapes], dtype=np.int64)
    full = full.reshape(len(shapes), rank)
    largest = (
        full.max(axis=0, initial=1)
        if kernel is None
        else np.array(_grown(kernel, rank), dtype=np.int64)
    )
    if len(largest) < rank or (full > largest).any():
        raise WeightSpaceMismatchError(
            f"Expected kernels of at most {tuple(largest.tolist())}, got one of "
            f"{tuple(full.max(axis=0).tolist())} in weight space {space.fingerprint}. "
            "Give the largest kernel of all spaces."
        )
    columns = [_columns(space, part, own, largest) for part, own in zip(parts, full, strict=True)]
    return columns, tuple(largest.tolist())


def _kernel_shape(tensor: TensorSpec) -> tuple[int, ...]:
    sizes = zip(tensor.axes, tensor.shape, strict=True)
    return tuple(size for axis, size in sizes if axis.role == "kernel")


def _grown(shape: Sequence[int], rank: int) -> tuple[int, ...]:
    """Add leading dimensions of length one."""
    return (1,) * (rank - len(shape)) + tuple(shape)


def _columns(space: WeightSpace, part: Part, own: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Kernel position in the largest kernel, then number among channels of one position."""
    positions = part.index.reshape(-1, part.index.shape[-1])[0]
    if not part.tensor.shape:  # one number, of no axes
        return np.zeros(len(positions), dtype=np.int64)
    places = np.unravel_index(positions - space.offsets[part.tensor.name], part.tensor.shape)
    dims = [dim for dim, axis in enumerate(part.tensor.axes) if axis.role == "kernel"]
    at = np.zeros((len(positions), len(largest)), dtype=np.int64)
    at[:, len(largest) - len(dims) :] = (
        np.stack([places[dim] for dim in dims], axis=1) if dims else 0
    )
    flat = np.zeros(len(positions), dtype=np.int64)
    for coordinate, size, length in zip(at.T, largest, own, strict=True):
        flat = flat * size + coordinate + (size - length) // 2
    repeats = [int((flat[:i] == here).sum()) for i, here in enumerate(flat)]
    return flat + np.array(repeats, dtype=np.int64) * int(largest.prod())
