"""From merged unit ids to neuron groups: units found in the same places are interchangeable."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from zoo.space import (
    AxisSpec,
    NeuronGroup,
    TensorKind,
    TensorSpec,
    Touch,
    UnitIndex,
    Unsupported,
    WeightSpace,
)
from zoo.symmetry.labels import Labelled, Scene

Place = tuple[str, int]
"""A tensor and one of its axes."""


def build_space(
    *,
    scene: Scene,
    parameters: Mapping[str, Labelled],
    kinds: Mapping[str, str],
    tied: Sequence[tuple[str, str]],
    unsupported: tuple[Unsupported, ...],
) -> WeightSpace:
    """Assemble the weight space of an interpreted graph."""
    return WeightSpace(
        tensors=tuple(
            _tensor_spec(scene, name, tensor, cast(TensorKind, kinds[name]))
            for name, tensor in parameters.items()
        ),
        groups=_groups(scene, parameters),
        tied=tuple(tied),
        unsupported=unsupported,
    )


def _groups(scene: Scene, parameters: Mapping[str, Labelled]) -> tuple[NeuronGroup, ...]:
    """Partition the free units by where, and how often, they occur."""
    positions: dict[int, dict[Place, list[int]]] = defaultdict(lambda: defaultdict(list))
    for name, tensor in parameters.items():
        for dim, labels in enumerate(tensor.labels):
            if labels is None:
                continue
            for position, unit in enumerate(scene.units.find(labels).tolist()):
                if scene.units.pin_of(unit) is None:
                    positions[unit][name, dim].append(position)
    classes: dict[tuple[tuple[Place, int], ...], list[int]] = defaultdict(list)
    for unit, places in positions.items():
        classes[tuple((place, len(owned)) for place, owned in places.items())].append(unit)
    named: dict[str, int] = defaultdict(int)
    groups = []
    for signature, units in classes.items():
        if len(units) == 1:
            continue
        touches = tuple(
            Touch(
                tensor=place[0],
                dim=place[1],
                index=UnitIndex.from_array(np.array([positions[unit][place] for unit in units])),
            )
            for place, _ in signature
        )
        name = _name(scene, touches)
        named[name] += 1
        suffix = f"#{named[name]}" if named[name] > 1 else ""
        groups.append(NeuronGroup(name=name + suffix, size=len(units), touches=touches))
    return tuple(groups)


def _name(scene: Scene, touches: tuple[Touch, ...]) -> str:
    """Name a group after the layer whose outputs its units are."""
    makers = [t for t in touches if scene.axis_roles.get((t.tensor, t.dim)) == "out"]
    return (makers or touches)[0].tensor.rpartition(".")[0] or (makers or touches)[0].tensor


def _tensor_spec(scene: Scene, name: str, tensor: Labelled, kind: TensorKind) -> TensorSpec:
    role, layer = scene.tensor_roles.get(name, ("other", ""))
    return TensorSpec(
        name=name,
        shape=tensor.shape,
        kind=kind,
        role=role,
        layer=layer,
        axes=tuple(_axis_spec(scene, name, tensor, dim) for dim in range(len(tensor.shape))),
    )


def _axis_spec(scene: Scene, name: str, tensor: Labelled, dim: int) -> AxisSpec:
    role = scene.axis_roles.get((name, dim), "other")
    labels = tensor.labels[dim]
    if labels is None:
        return AxisSpec(role=role, pin="single")
    for unit in scene.units.find(labels).tolist():
        if (pin := scene.units.pin_of(unit)) is not None:
            return AxisSpec(role=role, pin=pin.kind, label=pin.label)
    return AxisSpec(role=role)
