"""Continuous and sign symmetries: what factors a hidden unit may be multiplied by.

For each neuron group one unit stands for all. Each tensor axis that moves with the unit gets an
unknown exponent (several, where the unit owns positions that play different parts: the gate and the
value of a gated unit), the graph says what equations they meet, and the integer solutions are the
group's scalings.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

import zoo.symmetry.degree_cells
import zoo.symmetry.degree_layers
import zoo.symmetry.degree_rules  # noqa: F401 - they fill the table of operators
from zoo.space import Exponent, GLBlock, GLKind, NeuronGroup, ScaleGroup, Touch, WeightSpace
from zoo.symmetry.act import depth
from zoo.symmetry.degrees import Mode, Propagation, Recording
from zoo.symmetry.forms import Echelon, Forms

_Key = tuple[str, int, int]
"""Tensor, axis, and which of the positions of a unit on it."""


@dataclass(frozen=True)
class _Unknown:
    """An exponent: of some positions (slots) that one unit owns on an axis."""

    tensor: str
    dim: int
    slots: tuple[int, ...]
    others: tuple[tuple[str, int], ...]  # other groups that move these positions, and as which slot


def with_scalings(space: WeightSpace, recording: Recording) -> WeightSpace:
    """Return the space with its scalings and general linear blocks, not yet verified."""
    return _Solver(space, recording).solve()


class _Solver:
    """Scalings of every group of a space, nested groups before those that they lie inside."""

    def __init__(self, space: WeightSpace, recording: Recording) -> None:
        self._space = space
        self._recording = recording
        self._owners = dict(_slots_of(space))
        self._solved: dict[tuple[str, Mode], list[dict[_Key, int]]] = {}

    def solve(self) -> WeightSpace:
        blocks: dict[str, GLBlock] = {}
        for group in sorted(self._space.groups, key=lambda one: -depth(self._space, one)):
            unknowns = list(self._unknowns(group))
            for mode in ("positive", "sign"):
                self._solve_group(group, unknowns, mode)
            block = self._block(group, unknowns)
            if block is not None:
                blocks[group.name] = block
        scalings = [scaling for group in self._space.groups for scaling in self._scalings_of(group)]
        return replace(
            self._space,
            scalings=tuple(scalings),
            gl_blocks=tuple(blocks[g.name] for g in self._space.groups if g.name in blocks),
        )

    # ---- unknowns -----------------------------------------------------------------------------
    def _unknowns(self, group: NeuronGroup) -> Iterator[_Unknown]:
        """One unknown for positions that the other groups, but for those around it, exchange."""
        around = set(_ancestors(self._space, group))
        for touch in group.touches:
            classes: dict[tuple[object, ...], list[int]] = {}
            for slot, position in enumerate(_first_unit(group, touch)):
                others = tuple(
                    (name, int(slots[position]))
                    for name, slots in self._owners.get((touch.tensor, touch.dim), {}).items()
                    if name != group.name and name not in around and slots[position] >= 0
                )
                classes.setdefault(others or (slot,), []).append(slot)
            for key, found in classes.items():
                shared = key if isinstance(key[0], tuple) else ()
                yield _Unknown(touch.tensor, touch.dim, tuple(found), shared)  # type: ignore[arg-type]

    def _seeds(
        self, group: NeuronGroup, unknowns: list[_Unknown], forms: Forms
    ) -> dict[str, np.ndarray]:
        """How the entries of each tensor scale when the first unit of the first copy does."""
        ids: dict[_Key, int] = {}
        for unknown in unknowns:
            form = forms.unknown()
            ids |= {(unknown.tensor, unknown.dim, slot): form for slot in unknown.slots}
        values = {
            touch: [ids[touch.tensor, touch.dim, slot] for slot in range(touch.index.block)]
            for touch in group.touches
        }
        return _laid_out(self._space, group, values, num_copies=None, join=forms.add)

    def _propagate(
        self, group: NeuronGroup, unknowns: list[_Unknown], forms: Forms, mode: Mode
    ) -> Propagation:
        seeds = self._seeds(group, unknowns, forms)
        run = Propagation(self._recording, seeds, forms, mode)
        run.run()
        return run

    # ---- solutions ----------------------------------------------------------------------------
    def _solve_group(self, group: NeuronGroup, unknowns: list[_Unknown], mode: Mode) -> None:
        """Find a basis of the scalings that do not come from groups inside this one."""
        modulus = 2 if mode == "sign" else None
        forms = Forms(modulus=modulus)
        self._propagate(group, unknowns, forms, mode)
        own = [
            {
                (unknown.tensor, unknown.dim, slot): value
                for unknown, value in zip(unknowns, solution, strict=True)
                for slot in unknown.slots
            }
            for solution in forms.solutions()
        ]
        inner = [
            self._pattern(one, exponents, one.copies // (group.copies * group.size))
            for one in self._space.groups
            if group.name in _ancestors(self._space, one)
            for exponents in self._solved[one.name, mode]
        ]
        if inner:
            rows = _as_rows([*inner, *(self._pattern(group, each, None) for each in own)])
            known = Echelon(modulus=modulus)
            is_new = [known.insert(row) for row in rows][len(inner) :]
            own = [one for one, new in zip(own, is_new, strict=True) if new]
        self._solved[group.name, mode] = own

    def _pattern(
        self, group: NeuronGroup, exponents: Mapping[_Key, int], num_copies: int | None
    ) -> dict[str, np.ndarray]:
        """Exponent of every entry when some units are multiplied by one factor."""
        values = {
            touch: [exponents[touch.tensor, touch.dim, slot] for slot in range(touch.index.block)]
            for touch in group.touches
        }
        return _laid_out(self._space, group, values, num_copies=num_copies, join=np.add)

    def _scalings_of(self, group: NeuronGroup) -> Iterator[ScaleGroup]:
        for mode, suffix in (("positive", "scale"), ("sign", "sign")):
            for at, solution in enumerate(self._solved[group.name, mode]):  # type: ignore[index]
                number = f"#{at + 1}" if at else ""
                yield ScaleGroup(
                    name=f"{group.name}/{suffix}{number}",
                    group=group.name,
                    domain=mode,  # type: ignore[arg-type]
                    exponents=_exponents(group, solution),
                )

    # ---- general linear blocks ----------------------------------------------------------------
    def _block(self, group: NeuronGroup, unknowns: list[_Unknown]) -> GLBlock | None:
        """All units may be mixed where they only ever meet as vectors and covectors."""
        is_outer = any(group.name in _ancestors(self._space, one) for one in self._space.groups)
        if len(self._solved[group.name, "positive"]) != 1 or is_outer:
            return None
        forms = Forms()
        run = self._propagate(group, unknowns, forms, "linear")
        solutions = forms.solutions()
        if len(solutions) != 1 or any(abs(value) != 1 for value in solutions[0]):
            return None
        kind: GLKind = "qk" if run.met_data else "vo" if run.was_mixed else "linear"
        exponents = {
            (unknown.tensor, unknown.dim, slot): value
            for unknown, value in zip(unknowns, solutions[0], strict=True)
            for slot in unknown.slots
        }
        return GLBlock(
            kind=kind,
            group=group.name,
            size=group.size,
            copies=group.copies,
            exponents=_exponents(group, exponents),
        )


def _slots_of(space: WeightSpace) -> Iterator[tuple[tuple[str, int], dict[str, np.ndarray]]]:
    """Per axis and group, which slot of its unit each position is; -1 where it is none's."""
    found: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for group in space.groups:
        for touch in group.touches:
            slots = np.full(space.tensor(touch.tensor).shape[touch.dim], -1)
            positions = touch.index.array()
            slots[positions] = np.arange(positions.shape[1])
            found.setdefault((touch.tensor, touch.dim), {})[group.name] = slots
    yield from found.items()


def _first_unit(group: NeuronGroup, touch: Touch) -> list[int]:
    """Positions that the first unit of the first copy owns."""
    return [int(position) for position in touch.index.array()[0]]


def _ancestors(space: WeightSpace, group: NeuronGroup) -> list[str]:
    if group.parent is None:
        return []
    return [group.parent, *_ancestors(space, space.group(group.parent))]


def _laid_out(
    space: WeightSpace,
    group: NeuronGroup,
    values: Mapping[Touch, list[int]],
    *,
    num_copies: int | None,
    join: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> dict[str, np.ndarray]:
    """Write values, one per slot, to the entries that some units own.

    The units are those of the first ``num_copies`` copies, or the very first unit. Arrays have the
    tensors' ranks, and length 1 along axes on which they do not depend.
    """
    arrays: dict[str, np.ndarray] = {}
    for touch, slots in values.items():
        positions = touch.index.array().reshape(group.copies, group.size, -1)
        positions = positions[:1, :1] if num_copies is None else positions[:num_copies]
        array = _laid_out_touch(space.tensor(touch.tensor).shape, touch, positions, slots)
        known = arrays.get(touch.tensor)
        arrays[touch.tensor] = array if known is None else join(known, array)
    return arrays


def _laid_out_touch(
    shape: tuple[int, ...], touch: Touch, positions: np.ndarray, slots: list[int]
) -> np.ndarray:
    grid = np.zeros((shape[touch.rows_dim] if touch.rows_dim is not None else 1, shape[touch.dim]))
    grid = grid.astype(np.int64)
    for copy, units in enumerate(positions):
        rows = [0] if touch.rows is None else touch.rows.array()[copy]
        for row in rows:
            grid[row, units] = slots
    if touch.rows_dim is None:
        return grid.reshape([-1 if d == touch.dim else 1 for d in range(len(shape))])
    grown = np.expand_dims(grid, tuple(range(2, len(shape))))
    return np.moveaxis(grown, (0, 1), (touch.rows_dim, touch.dim))


def _as_rows(patterns: list[dict[str, np.ndarray]]) -> list[dict[int, Fraction]]:
    """Write each pattern as a row over the entries, equal columns once."""
    rows: list[dict[int, Fraction]] = [{} for _ in patterns]
    first = 0
    for name in dict.fromkeys(name for pattern in patterns for name in pattern):
        rank = next(pattern[name].ndim for pattern in patterns if name in pattern)
        nothing = np.zeros((1,) * rank, dtype=np.int64)
        arrays = np.broadcast_arrays(*(pattern.get(name, nothing) for pattern in patterns))
        columns = np.unique(np.stack([array.ravel() for array in arrays]), axis=1)
        for row, values in zip(rows, columns.tolist(), strict=True):
            row |= {first + at: Fraction(value) for at, value in enumerate(values)}
        first += columns.shape[1]
    return rows


def _exponents(group: NeuronGroup, solution: Mapping[_Key, int]) -> tuple[Exponent, ...]:
    """Collect the slots of each axis that share an exponent."""
    merged: dict[tuple[str, int, int], list[int]] = {}
    for (tensor, dim, slot), value in solution.items():
        if value:
            merged.setdefault((tensor, dim, value), []).append(slot)
    blocks = {(touch.tensor, touch.dim): touch.index.block for touch in group.touches}
    return tuple(
        Exponent(
            tensor=tensor,
            dim=dim,
            exponent=value,
            slots=None if len(slots) == blocks[tensor, dim] else tuple(sorted(slots)),
        )
        for (tensor, dim, value), slots in merged.items()
    )
