"""One point for each orbit: all relabellings of a network, brought to the same bits.

Units are coloured by what they hold: a unit's colour is a hash of the multiset of its entries' bits
and of the colours of the units that these entries share, until colours no longer split. Hashes are
integers and their sums wrap, so that no order of summation shows. Units of one colour are told
apart by choosing one and colouring on; where they are exact copies, as they nearly always are, any
choice gives the same bits.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zoo.space import NeuronGroup, TensorSpec, Touch, WeightSpace
from zoo.symmetry.act import from_permutations

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_CHUNK = 256


def canonical(space: WeightSpace, vector: Tensor) -> Tensor:
    """Relabel weights so that every relabelling of a network gives the same bits.

    The order of units is arbitrary but fixed. It is not continuous: a small change of a weight may
    reorder units, so compare networks by it, and align them by matching.

    Parameters
    ----------
    vector
        ``[..., P]``, any floating-point dtype.

    Returns
    -------
    Tensor
        ``[..., P]``, a point of the same orbit, same dtype and device.

    Raises
    ------
    WeightSpaceMismatchError
        If the last axis has another length.
    """
    space.check_vector(vector)
    rows = vector.detach().reshape(-1, space.num_parameters)
    if not space.groups or not len(rows):
        return vector.clone()
    structure = _Structure(space)
    parts = []
    for part in torch.split(rows, _CHUNK):
        bits = part.cpu().contiguous().view(_BITS[part.element_size()]).numpy().astype(np.uint64)
        colours = structure.colours(bits)
        for row, colour in zip(part, colours, strict=True):
            action = from_permutations(space, structure.permutations(colour))
            parts.append(action(row))
    return torch.stack(parts).reshape(vector.shape)


def orbit_hash(space: WeightSpace, vector: Tensor) -> str:
    """Hash weights ``[P]``, 32 hexadecimal digits; networks that are relabellings share it."""
    point = canonical(space, vector).cpu().contiguous()
    digest = hashlib.sha256(f"{space.fingerprint} {point.dtype}".encode())
    digest.update(point.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


@dataclass(frozen=True, eq=False)
class _Incidence:
    """Entries that one touch moves, sorted by the unit that owns them.

    Parameters
    ----------
    entries, units
        Position in the flat vector, and the unit, of each pair.
    starts
        Where each unit's run begins.
    owned
        The unit of each run.
    """

    entries: np.ndarray
    units: np.ndarray
    starts: np.ndarray
    owned: np.ndarray


class _Structure:
    """What a space's entries and units have to do with each other, whatever the weights."""

    def __init__(self, space: WeightSpace) -> None:
        self._groups = space.groups
        counts = [group.copies * group.size for group in space.groups]
        starts = np.cumsum([0, *counts])
        self._first = {group.name: int(at) for group, at in zip(space.groups, starts, strict=False)}
        self._num_units = int(starts[-1])
        self._kinds = _mix(np.repeat(np.arange(len(counts), dtype=np.uint64), counts))
        self._places = np.zeros(space.num_parameters, dtype=np.uint64)
        self._incidences: list[_Incidence] = []
        for number, tensor in enumerate(space.tensors):
            self._add(number, tensor, space.offsets[tensor.name])
        self._parents = self._nesting()

    def colours(self, bits: np.ndarray) -> np.ndarray:
        """Colour the units of each network, ``[batch, P]`` bits to ``[batch, units]``, distinct."""
        values = _mix(bits ^ self._places)
        colours = self._refine(values, np.broadcast_to(self._kinds, (len(bits), self._num_units)))
        for row, own in enumerate(colours):
            while (tied := _first_tied(own)) is not None:
                own = own.copy()
                own[tied] = _mix(own[tied : tied + 1] + np.uint64(1))[0]
                own = self._refine(values[row : row + 1], own[None])[0]
            colours[row] = own
        return colours

    def permutations(self, colours: np.ndarray) -> dict[str, Tensor]:
        """Order the units of each group, in each of its copies, by colour ``[units]``."""
        found = {}
        for group in self._groups:
            first = self._first[group.name]
            own = colours[first : first + group.copies * group.size]
            order = np.argsort(own.reshape(group.copies, group.size), axis=1)
            found[group.name] = torch.from_numpy(order)
        return found

    def _refine(self, values: np.ndarray, colours: np.ndarray) -> np.ndarray:
        """Colour on until no class of any network splits."""
        count = -1
        while (found := _num_classes(colours)) > count:
            count, colours = found, self._round(values, colours)
        return colours

    def _round(self, values: np.ndarray, colours: np.ndarray) -> np.ndarray:
        """Colour units by their entries, and entries by the units that share them."""
        entries = values.copy()
        for salt, one in enumerate(self._incidences):
            seen = _mix(colours[:, one.units] + np.uint64(salt))
            entries[:, one.entries] = _mix(entries[:, one.entries] * _ODD + seen)
        result = _mix(colours)
        for salt, one in enumerate(self._incidences):
            held = _mix(entries[:, one.entries] + np.uint64(salt))
            result[:, one.owned] += np.add.reduceat(held, one.starts, axis=1)
        for children, parents in self._parents:
            inside = _mix(colours[:, children])
            result[:, children] += _mix(colours[:, parents] * _ODD)
            for child, parent in enumerate(parents):
                result[:, parent] += inside[:, child]
        return _mix(result)

    def _nesting(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Units of each nested group, and the unit that each lies inside."""
        nested = [group for group in self._groups if group.parent is not None]
        return [
            (
                self._first[group.name] + np.arange(group.copies * group.size),
                self._first[str(group.parent)] + np.repeat(np.arange(group.copies), group.size),
            )
            for group in nested
        ]

    def _add(self, number: int, tensor: TensorSpec, offset: int) -> None:
        """Find the unit and the place of each entry of a tensor."""
        positions = offset + np.arange(tensor.numel)
        units, slots = [], []
        for group in self._groups:
            for touch in group.touches:
                if touch.tensor == tensor.name:
                    owner, slot = _owners(tensor.shape, touch, group)
                    units.append(np.where(owner < 0, -1, owner + self._first[group.name]))
                    slots.append(slot)
        keys = [positions, *slots[::-1], *units[::-1]]
        order = np.lexsort(keys)
        owners = np.array([*units]).reshape(len(units), tensor.numel)[:, order]
        fresh = np.ones(tensor.numel, dtype=bool)
        if len(units):
            fresh[1:] = (owners[:, 1:] != owners[:, :-1]).any(0)
        else:
            fresh[1:] = False
        runs = np.maximum.accumulate(np.where(fresh, np.arange(tensor.numel), 0))
        rank = np.empty(tensor.numel, dtype=np.uint64)
        rank[order] = np.arange(tensor.numel) - runs
        self._places[positions] = _mix(_mix(rank) + np.uint64(number))
        self._incidences += [_incidence(positions, owner) for owner in units]


def _owners(
    shape: tuple[int, ...], touch: Touch, group: NeuronGroup
) -> tuple[np.ndarray, np.ndarray]:
    """Find the unit (copy after copy) and the slot in it of each entry; -1 for none."""
    positions = touch.index.array().reshape(group.copies, group.size, -1)
    length = shape[touch.dim]
    num_rows = 1 if touch.rows_dim is None else shape[touch.rows_dim]
    units, slots = (np.full((num_rows, length), -1) for _ in range(2))
    for copy, owned in enumerate(positions):
        rows = np.arange(1) if touch.rows is None else touch.rows.array()[copy]
        first = copy * group.size
        units[rows[:, None, None], owned] = first + np.arange(group.size)[:, None]
        slots[rows[:, None, None], owned] = np.arange(owned.shape[1])
    rank = len(shape)
    rows_dim = (touch.dim + 1) % max(rank, 2) if touch.rows_dim is None else touch.rows_dim
    if rank == 1:
        return units[0], slots[0]
    grown = (np.expand_dims(each, tuple(range(2, rank))) for each in (units, slots))
    laid = (np.moveaxis(each, (0, 1), (rows_dim, touch.dim)) for each in grown)
    found = [np.broadcast_to(each, shape).ravel() for each in laid]
    return found[0], found[1]


def _incidence(positions: np.ndarray, owner: np.ndarray) -> _Incidence:
    entries, units = positions[owner >= 0], owner[owner >= 0]
    order = np.argsort(units, kind="stable")
    owned, starts = np.unique(units[order], return_index=True)
    return _Incidence(entries[order], units[order], starts, owned)


# ---- hashing ----------------------------------------------------------------------------
_ODD = np.uint64(0x9E3779B97F4A7C15)


def _mix(values: np.ndarray) -> np.ndarray:
    """Scramble 64-bit integers one to one (SplitMix64's finaliser)."""
    mixed = values + _ODD
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scrambled: np.ndarray = mixed ^ (mixed >> np.uint64(31))
    return scrambled


def _num_classes(colours: np.ndarray) -> int:
    """Count distinct colours, summed over networks."""
    ordered = np.sort(colours, axis=1)
    return len(colours) + int((ordered[:, 1:] != ordered[:, :-1]).sum())


def _first_tied(colours: np.ndarray) -> int | None:
    """Return a unit of the smallest colour that several units have; ``None`` if all differ."""
    order = np.argsort(colours, kind="stable")
    same = np.flatnonzero(colours[order[1:]] == colours[order[:-1]])
    return int(order[same[0]]) if len(same) else None
