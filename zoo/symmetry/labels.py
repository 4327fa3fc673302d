"""Labelled tensors: a shape and, per axis, the unit that each position belongs to."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from zoo.space import AxisRole, TensorRole
from zoo.symmetry.units import Pin, Units

Labels = np.ndarray | None
"""Unit ids of one axis, ``[length]``, or ``None`` where the tensor does not vary along the axis."""


class UnsupportedError(Exception):
    """A rule meets a case that it does not cover; what the operator touches is pinned."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """What is known of one tensor of the graph.

    Parameters
    ----------
    shape, labels
        Per axis its length and its units.
    name
        Name in the weight space, for the network's own parameters and buffers.
    """

    shape: tuple[int, ...]
    labels: tuple[Labels, ...]
    name: str | None = None

    def __post_init__(self) -> None:
        assert len(self.shape) == len(self.labels), (self.shape, len(self.labels))

    def replace(self, dim: int, labels: Labels) -> "Labelled":
        """Return a copy with other units on one axis."""
        changed = list(self.labels)
        changed[dim] = labels
        return Labelled(self.shape, tuple(changed))


class Scene:
    """What the rules act on: the units, and the roles that operators give to parameters."""

    def __init__(self) -> None:
        self.units = Units()
        self.layer = ""
        self.axis_roles: dict[tuple[str, int], AxisRole] = {}
        self.tensor_roles: dict[str, tuple[TensorRole, str]] = {}

    def pinned(self, length: int, pin: Pin) -> Labels:
        """Fresh pinned units for an axis; ``None`` for an axis of one position."""
        return None if length == 1 else self.units.pinned(length, pin)

    def fixed(self, length: int) -> Labels:
        """Fresh pinned units for an axis that the present operation makes."""
        return self.pinned(length, Pin("fixed", self.layer))

    def unify(self, left: Labels, right: Labels) -> Labels:
        """Make two axes move together and return the units of the result."""
        if left is None or right is None:
            return right if left is None else left
        self.units.unify(left, right)
        return left

    def pin(self, tensor: Labelled, dims: range | list[int], pin: Pin) -> None:
        """Pin every free position on some axes."""
        for dim in dims:
            labels = tensor.labels[dim]
            if labels is not None:
                self.units.pin(labels, pin)

    def is_pinned(self, labels: Labels) -> bool:
        """Whether no position of an axis moves."""
        return labels is None or bool(self.units.is_pinned(labels).all())

    def elementwise(self, *tensors: Labelled | Tensor | float | None) -> Labelled:
        """Labels of a broadcast elementwise result; axes that meet must move together."""
        terms = [term for term in tensors if isinstance(term, Labelled)]
        rank = max(len(term.shape) for term in terms)
        shape, labels = [1] * rank, list[Labels]([None] * rank)
        for term in terms:
            lead = rank - len(term.shape)
            for dim, length in enumerate(term.shape):
                shape[lead + dim] = max(shape[lead + dim], length)
                if length > 1:
                    labels[lead + dim] = self.unify(labels[lead + dim], term.labels[dim])
        return Labelled(tuple(shape), tuple(labels))

    def role(self, tensor: Labelled | None, role: TensorRole, *axes: AxisRole) -> None:
        """Record what the present operation does with a parameter (the first use counts)."""
        if tensor is None or tensor.name is None:
            return
        self.tensor_roles.setdefault(tensor.name, (role, self.layer))
        for dim, axis in enumerate(axes):
            self.axis_roles.setdefault((tensor.name, dim), axis)
