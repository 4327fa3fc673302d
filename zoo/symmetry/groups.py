"""From merged unit ids to neuron groups.

Units that are no pairs are *atoms*: relabelling atoms determines everything else. Colour refinement
sorts them into classes of atoms found in the same places; a class whose atoms each occur with one
unit of another class is nested inside it (units inside heads), a class that occurs with all of
another is independent of it. Anything else is left in place, and says so.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
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
from zoo.symmetry.labels import Labelled
from zoo.symmetry.scene import Scene
from zoo.symmetry.units import Pin, Units

_LEFT_IN_PLACE = Pin("fixed", "structure without a rule")


def build_space(
    *,
    scene: Scene,
    kinds: Mapping[str, str],
    tied: Sequence[tuple[str, str]],
    unsupported: tuple[Unsupported, ...],
) -> WeightSpace:
    """Assemble the weight space of an interpreted graph."""
    scene.forget_views()
    groups: tuple[NeuronGroup, ...] | None = None
    while groups is None:
        scene.units.settle()
        groups = _Partition(scene).groups()
    return WeightSpace(
        tensors=tuple(
            _tensor_spec(scene, name, tensor, cast(TensorKind, kinds[name]))
            for name, tensor in scene.parameters.items()
        ),
        groups=groups,
        tied=tuple(tied),
        unsupported=unsupported,
    )


@dataclass(frozen=True)
class _Place:
    """An axis of a tensor, or, where its units depend on another axis, the entries of that grid."""

    tensor: str
    dim: int
    rows_dim: int | None = None


_Slots = dict[int, dict[int, list[tuple[tuple[Hashable, ...], int, int]]]]
"""Class number to atom to (where inside the atom, position, row)."""


@dataclass(eq=False)
class _Class:
    """Interchangeable atoms, in buckets that lie inside one unit of the parent class each."""

    atoms: list[int]
    parent: "_Class | None" = None
    buckets: np.ndarray | None = None  # [copies, size]
    name: str = ""

    def ancestors(self) -> "list[_Class]":
        """Classes that this one is nested inside, nearest first."""
        return [] if self.parent is None else [self.parent, *self.parent.ancestors()]


class _Partition:
    """One attempt to read groups off the units; units that do not fit are pinned for the next."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._units: Units = scene.units
        self._grids: dict[_Place, np.ndarray] = {}
        self._atoms: dict[int, frozenset[int]] = {}
        self._slots: dict[int, list[tuple[int, int, tuple[Hashable, ...]]]] = {}
        self._known_parts: dict[int, list[tuple[int, int]]] = {}
        self._free: list[int] | None = None
        self._again = False
        for name, tensor in scene.parameters.items():
            for dim, labels in enumerate(tensor.labels):
                if labels is not None:
                    self._add_grid(name, dim, scene.units.find(labels))

    def groups(self) -> tuple[NeuronGroup, ...] | None:
        """Return the groups, or ``None`` if units had to be pinned or merged on the way."""
        classes = self._classes()
        partners = self._partners()
        for one in classes:
            self._find_parent(one, classes, partners)
        if self._again:
            return None
        for one in sorted(classes, key=lambda c: len(c.ancestors())):
            self._fill_buckets(one, partners)
        if self._again:
            return None
        self._check_products(classes, partners)
        if self._again:
            return None
        touches = self._touches(classes)
        if self._again:
            return None
        return self._named(classes, touches)

    # ---- where units occur --------------------------------------------------------------------
    def _add_grid(self, name: str, dim: int, roots: np.ndarray) -> None:
        depends = [d for d in range(roots.ndim) if d != dim and roots.shape[d] > 1]
        if not depends:
            self._grids[_Place(name, dim)] = roots.ravel()[None]
        elif len(depends) == 1:
            grid = np.moveaxis(roots, (depends[0], dim), (0, 1)).reshape(
                roots.shape[depends[0]], roots.shape[dim]
            )
            self._grids[_Place(name, dim, depends[0])] = grid
        else:
            self._leave(roots.ravel())

    def _leave(self, units: np.ndarray | list[int]) -> None:
        """Pin units and start again."""
        self._units.pin(np.array(units, dtype=np.int64), _LEFT_IN_PLACE)
        self._again = True

    def _parts(self, unit: int) -> list[tuple[int, int]]:
        if unit not in self._known_parts:
            self._known_parts[unit] = self._units.parts(unit)
        return self._known_parts[unit]

    def _expand(self, unit: int) -> frozenset[int]:
        """Free atoms that a unit is made of."""
        if unit not in self._atoms:
            parts = self._parts(unit)
            if self._units.pin_of(unit) is not None:
                self._atoms[unit] = frozenset()
            elif not parts:
                self._atoms[unit] = frozenset([unit])
            else:
                self._atoms[unit] = frozenset().union(
                    *(self._expand(part) for pair in parts for part in pair)
                )
        return self._atoms[unit]

    def _everything(self) -> list[int]:
        """Free units that occur in parameters, and the parts of them."""
        if self._free is not None:
            return self._free
        seen: dict[int, None] = {}
        work = [int(u) for grid in self._grids.values() for u in np.unique(grid)]
        while work:
            unit = work.pop()
            if unit in seen or self._units.pin_of(unit) is not None:
                continue
            seen[unit] = None
            work += [part for pair in self._parts(unit) for part in pair]
        self._free = sorted(seen)
        return self._free

    # ---- classes ------------------------------------------------------------------------------
    def _classes(self) -> list[_Class]:
        units = self._everything()
        colours = self._refine(units)
        atoms: dict[int, list[int]] = defaultdict(list)
        for unit in units:
            if not self._parts(unit):
                atoms[colours[unit]].append(unit)
        return [_Class(found) for found in atoms.values() if len(found) > 1]

    def _refine(self, units: list[int]) -> dict[int, int]:
        """Colour units by where they occur, then by what they are made of and part of."""
        seen: dict[int, list[int]] = {unit: [] for unit in units}
        sources = [*self._grids.values(), *map(self._units.find, self._scene.marks)]
        for source, grid in enumerate(sources):
            found, counts = np.unique(grid, return_counts=True)
            for unit, count in zip(found.tolist(), counts.tolist(), strict=True):
                if unit in seen:
                    seen[unit] += (source, count)
        colours = _intern({unit: tuple(places) for unit, places in seen.items()})
        parts = {unit: pairs for unit in units if (pairs := self._parts(unit))}
        uses: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for unit, pairs in parts.items():
            for pair in pairs:
                for role, part in enumerate(pair):
                    uses[part].append((role, unit))
        structured = [unit for unit in units if unit in parts or unit in uses]
        while True:
            finer = _intern(
                {
                    unit: (
                        colours[unit],
                        tuple(
                            sorted(
                                tuple(_of(colours, p) for p in pair) for pair in parts.get(unit, ())
                            )
                        ),
                        tuple(sorted((role, colours[user]) for role, user in uses.get(unit, ()))),
                    )
                    for unit in structured
                },
                first=len(units),
            )
            before = len({colours[unit] for unit in structured})
            colours |= finer
            if len(set(finer.values())) == before:
                return colours

    # ---- nesting ------------------------------------------------------------------------------
    def _partners(self) -> dict[int, set[int]]:
        """Atoms that each atom occurs together with: in one unit, or in one row of a grid."""
        partners: dict[int, set[int]] = defaultdict(set)
        for unit in self._everything():
            self._meet(self._expand(unit), partners)
        for place, grid in self._grids.items():
            owners = self._grids.get(_Place(place.tensor, place.rows_dim or 0))
            if place.rows_dim is not None and owners is not None:
                for owner, row in zip(owners[0].tolist(), grid.tolist(), strict=True):
                    for unit in row:
                        self._meet(self._expand(owner) | self._expand(unit), partners)
        return partners

    def _meet(self, atoms: frozenset[int], partners: dict[int, set[int]]) -> None:
        if len(atoms) > 1:
            for atom in atoms:
                partners[atom] |= atoms - {atom}

    def _find_parent(
        self, one: _Class, classes: list[_Class], partners: Mapping[int, set[int]]
    ) -> None:
        """Find the smallest class that each atom of ``one`` occurs with exactly one unit of."""
        owners = []
        for other in self._met(one, classes, partners):
            members = set(other.atoms)
            if {len(partners[atom] & members) for atom in one.atoms} != {1}:
                continue
            if len(other.atoms) == len(one.atoms):
                self._join(one, other, partners)
            elif len(other.atoms) < len(one.atoms):
                owners.append(other)
        if owners:
            one.parent = max(owners, key=lambda owner: len(owner.atoms))

    def _met(
        self, one: _Class, classes: list[_Class], partners: Mapping[int, set[int]]
    ) -> list[_Class]:
        """Other classes that the first atom of ``one`` occurs with (all its atoms are alike)."""
        met = partners.get(one.atoms[0], set())
        return [other for other in classes if other is not one and not met.isdisjoint(other.atoms)]

    def _join(self, one: _Class, other: _Class, partners: Mapping[int, set[int]]) -> None:
        """Two classes that determine each other are one."""
        members = set(other.atoms)
        matches = [(partners[atom] & members).pop() for atom in one.atoms]
        if len(set(matches)) == len(matches):
            self._units.unify(np.array(one.atoms), np.array(matches))
            self._again = True

    def _fill_buckets(self, one: _Class, partners: Mapping[int, set[int]]) -> None:
        """Sort the atoms of a class by the unit of the parent that they lie inside."""
        if one.parent is None:
            one.buckets = np.array([one.atoms])
            return
        if one.parent.buckets is None:
            return
        buckets = [
            [atom for atom in one.atoms if owner in partners[atom]]
            for owner in one.parent.buckets.ravel().tolist()
        ]
        if len({len(bucket) for bucket in buckets}) != 1:
            self._leave(one.atoms)
            return
        one.buckets = np.array(buckets)

    def _check_products(self, classes: list[_Class], partners: Mapping[int, set[int]]) -> None:
        """Two classes that meet, neither inside the other, must meet completely."""
        for one in classes:
            for other in self._met(one, classes, partners):
                if other in one.ancestors() or one in other.ancestors():
                    continue
                members = set(other.atoms)
                shared = [a for a in one.ancestors() if a in other.ancestors()]
                common = {atom for ancestor in shared for atom in ancestor.atoms}
                for atom in one.atoms:
                    mine = partners[atom] & common
                    expected = {o for o in other.atoms if partners[o] & common == mine}
                    if partners[atom] & members != expected:
                        self._leave(one.atoms + other.atoms)
                        return

    # ---- touches ------------------------------------------------------------------------------
    def _touches(self, classes: list[_Class]) -> list[tuple[Touch, ...]]:
        """Axes that each class moves."""
        ranks = self._ranks(classes)
        touches: list[list[Touch]] = [[] for _ in classes]
        for place, grid in self._grids.items():
            slots: _Slots = defaultdict(lambda: defaultdict(list))
            for row, units in enumerate(grid.tolist()):
                for position, unit in enumerate(units):
                    for number, atom, slot in self._memberships(unit, classes, ranks):
                        slots[number][atom].append((slot, position, row))
            for number, found in slots.items():
                touch = self._touch(classes[number], place, found, len(grid))
                if touch is not None:
                    touches[number].append(touch)
        return [tuple(found) for found in touches]

    def _ranks(self, classes: list[_Class]) -> dict[int, tuple[int, int]]:
        """Class of each atom and its rank within its bucket."""
        return {
            atom: (number, at)
            for number, one in enumerate(classes)
            if one.buckets is not None
            for bucket in one.buckets.tolist()
            for at, atom in enumerate(bucket)
        }

    def _memberships(
        self, unit: int, classes: list[_Class], ranks: Mapping[int, tuple[int, int]]
    ) -> list[tuple[int, int, tuple[Hashable, ...]]]:
        """Classes that a unit belongs to, by which atom, and where it lies inside that atom."""
        if (known := self._slots.get(unit)) is not None:
            return known
        if not self._parts(unit):
            self._slots[unit] = [(ranks[unit][0], unit, ())] if unit in ranks else []
        else:
            mine = [(ranks[atom], atom) for atom in self._expand(unit) if atom in ranks]
            fixed = sorted(
                part
                for pair in self._parts(unit)
                for part in pair
                if self._units.pin_of(part) is not None
            )
            found = []
            for (number, _), atom in mine:
                skipped = [classes[number], *classes[number].ancestors()]
                others = sorted(rank for rank, _ in mine if classes[rank[0]] not in skipped)
                found.append((number, atom, (*others, *fixed)))
            self._slots[unit] = found
        return self._slots[unit]

    def _touch(
        self,
        one: _Class,
        place: _Place,
        found: Mapping[int, list[tuple[tuple[Hashable, ...], int, int]]],
        num_rows: int,
    ) -> Touch | None:
        """Positions of each atom on one axis, in an order that all atoms share."""
        assert one.buckets is not None
        order = []
        for atom in one.buckets.ravel().tolist():
            cells = found.get(atom, ())
            if len(cells) == 1:
                order.append([cells[0][1]])
                continue
            positions = {position: slot for slot, position, _ in cells}
            order.append(sorted(positions, key=lambda p: (positions[p], p)))
        if len({len(positions) for positions in order}) != 1:
            self._leave(one.atoms)
            return None
        if place.rows_dim is None:
            index = UnitIndex.from_array(np.array(order))
            return Touch(tensor=place.tensor, dim=place.dim, index=index)
        rows = {atom: {row for _, _, row in cells} for atom, cells in found.items()}
        return self._row_touch(one, place, np.array(order), rows, num_rows)

    def _row_touch(
        self,
        one: _Class,
        place: _Place,
        order: np.ndarray,
        rows: Mapping[int, set[int]],
        num_rows: int,
    ) -> Touch | None:
        """Touch of an axis whose units depend on the row: each copy has rows of its own."""
        assert one.buckets is not None
        per_copy = [{frozenset(rows[atom]) for atom in bucket} for bucket in one.buckets.tolist()]
        lengths = {len(next(iter(found))) for found in per_copy}
        copies = order.reshape(*one.buckets.shape, -1)
        aligned = bool((copies == copies[:1]).all())
        if any(len(found) != 1 for found in per_copy) or len(lengths) != 1 or not aligned:
            self._leave(one.atoms)
            return None
        own = np.array([sorted(next(iter(found))) for found in per_copy])
        if len(one.buckets) > 1 and own.size != num_rows:
            self._leave(one.atoms)
            return None
        return Touch(
            tensor=place.tensor,
            dim=place.dim,
            index=UnitIndex.from_array(order),
            rows_dim=place.rows_dim,
            rows=UnitIndex.from_array(own),
        )

    # ---- names --------------------------------------------------------------------------------
    def _named(
        self, classes: list[_Class], touches: list[tuple[Touch, ...]]
    ) -> tuple[NeuronGroup, ...]:
        """Name groups after the layers whose outputs their units are, outer ones first."""
        used: Counter[str] = Counter()
        groups = []
        order = sorted(range(len(classes)), key=lambda at: len(classes[at].ancestors()))
        for at in order:
            one = classes[at]
            assert one.buckets is not None
            base = self._maker(touches[at])
            if one.parent is not None:
                base = f"{one.parent.name}/units"
            used[base] += 1
            one.name = base if used[base] == 1 else f"{base}#{used[base]}"
            groups.append(
                NeuronGroup(
                    name=one.name,
                    size=one.buckets.shape[1],
                    touches=touches[at],
                    parent=None if one.parent is None else one.parent.name,
                    copies=one.buckets.shape[0],
                )
            )
        return tuple(groups)

    def _maker(self, touches: tuple[Touch, ...]) -> str:
        roles = self._scene.axis_roles
        makers = [t for t in touches if roles.get((t.tensor, t.dim)) == "out"]
        first = (makers or list(touches))[0].tensor
        return first.rpartition(".")[0] or first


def _intern(keys: Mapping[int, Hashable], *, first: int = 0) -> dict[int, int]:
    """Give equal keys equal numbers, from ``first`` on."""
    numbers: dict[Hashable, int] = {}
    return {unit: numbers.setdefault(key, first + len(numbers)) for unit, key in keys.items()}


def _of(colours: Mapping[int, int], unit: int) -> int:
    """Colour of a unit; a pinned one is like no other."""
    return colours.get(unit, -1 - unit)


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
    for unit in scene.units.find(labels).ravel().tolist():
        if (pin := scene.units.pin_of(unit)) is not None:
            return AxisSpec(role=role, pin=pin.kind, label=pin.label)
    return AxisSpec(role=role)
