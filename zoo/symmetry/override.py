"""Changing a traced space by hand, towards fewer relabellings only: so that it stays right."""

import dataclasses
from collections.abc import Iterable

from zoo.errors import WeightSpaceMismatchError
from zoo.space import AxisSpec, NeuronGroup, TensorSpec, WeightSpace


def override(
    space: WeightSpace, *, pin: Iterable[str] = (), merge: Iterable[tuple[str, str]] = ()
) -> WeightSpace:
    """Leave groups in place, or make two move together; see :meth:`WeightSpace.override`."""
    groups = list(space.groups)
    for first, second in merge:
        groups = _merged(_space(space, groups), first, second)
    for name in pin:
        present = _space(space, groups)
        gone = _inside(present, present.group(name).name)
        groups = [group for group in groups if group.name not in gone]
    changed = {group.name for group in space.groups if group not in groups}
    return dataclasses.replace(
        _space(space, groups),
        tensors=tuple(_repinned(tensor, groups) for tensor in space.tensors),
        scalings=tuple(each for each in space.scalings if each.group not in changed),
        gl_blocks=tuple(each for each in space.gl_blocks if each.group not in changed),
    )


def _space(space: WeightSpace, groups: list[NeuronGroup]) -> WeightSpace:
    return dataclasses.replace(space, groups=tuple(groups))


def _merged(space: WeightSpace, first: str, second: str) -> list[NeuronGroup]:
    """Give the first group what the second moves."""
    one, other = space.group(first), space.group(second)
    if first == second:
        raise WeightSpaceMismatchError(f"Expected two groups to merge, got {first!r} twice.")
    if (one.size, one.copies, one.parent) != (other.size, other.copies, other.parent):
        raise WeightSpaceMismatchError(
            f"Expected two groups of one size inside the same group, got {first!r} with "
            f"{one.size} units inside {one.parent or 'none'} and {second!r} with {other.size} "
            f"inside {other.parent or 'none'}."
        )
    both = dataclasses.replace(one, touches=one.touches + other.touches)
    adopted = [
        dataclasses.replace(group, parent=first) if group.parent == second else group
        for group in space.groups
        if group.name != second
    ]
    return [both if group.name == first else group for group in adopted]


def _inside(space: WeightSpace, name: str) -> set[str]:
    """Names of a group and of all that are nested in it."""
    children = (group.name for group in space.groups if group.parent == name)
    return {name}.union(*(_inside(space, child) for child in children))


def _repinned(tensor: TensorSpec, groups: list[NeuronGroup]) -> TensorSpec:
    """Say of axes that no group moves any more that they are pinned."""
    moved = {
        touch.dim for group in groups for touch in group.touches if touch.tensor == tensor.name
    }
    axes = tuple(
        AxisSpec(role=axis.role, pin="fixed", label="by hand")
        if axis.pin is None and dim not in moved
        else axis
        for dim, axis in enumerate(tensor.axes)
    )
    return dataclasses.replace(tensor, axes=axes)
