"""Unit ids: one id per position of an axis, merged where positions must move together.

A *unit* is an equivalence class of positions. Pinned units never move; every pinned position keeps
an id of its own, so that two pinned axes are never mistaken for one another. Where an axis splits
into blocks (heads, channel groups) a unit is the *pair* of its block and its place inside, and
pairs obey two laws: equal parts make equal pairs (congruence), and equal pairs have equal parts
(injectivity).
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from zoo.space import PinKind


@dataclass(frozen=True)
class Pin:
    """Why a unit stays in place, and the name of the axis it lies on."""

    kind: PinKind
    label: str


class Units:
    """A union-find over unit ids that knows which classes are pinned and which are pairs."""

    def __init__(self) -> None:
        self._parent = np.zeros(1024, dtype=np.int64)
        self._is_pinned = np.zeros(1024, dtype=bool)
        self._is_part = np.zeros(1024, dtype=bool)  # of a pair, or a pair itself
        self._count = 0
        self._pins: dict[int, Pin] = {}
        self._pairs: dict[tuple[int, int], int] = {}
        self._parts: dict[int, set[tuple[int, int]]] = defaultdict(set)
        self._uses: dict[int, set[tuple[int, int]]] = defaultdict(set)

    # ---- making units -------------------------------------------------------------------------
    def fresh(self, *shape: int) -> np.ndarray:
        """Make new free units, ids of the given shape."""
        count = int(np.prod(shape))
        while self._count + count > len(self._parent):
            self._parent = np.concatenate([self._parent, np.zeros_like(self._parent)])
            self._is_pinned = np.concatenate([self._is_pinned, np.zeros_like(self._is_pinned)])
            self._is_part = np.concatenate([self._is_part, np.zeros_like(self._is_part)])
        ids = np.arange(self._count, self._count + count)
        self._parent[ids] = ids
        self._count += count
        return ids.reshape(shape)

    def pinned(self, count: int, pin: Pin) -> np.ndarray:
        """Make ``count`` new pinned units, all distinct."""
        ids = self.fresh(count)
        self._is_pinned[ids] = True
        self._pins.update(dict.fromkeys(ids.tolist(), pin))
        return ids

    def pair(self, block: np.ndarray, inner: np.ndarray) -> np.ndarray:
        """Units of positions given by block and place inside, elementwise; pairs are interned.

        The pair of two pinned units is pinned.
        """
        shape = np.broadcast_shapes(block.shape, inner.shape)
        blocks = self.find(np.broadcast_to(block, shape)).ravel().tolist()
        inners = self.find(np.broadcast_to(inner, shape)).ravel().tolist()
        units = [self._intern(b, i) for b, i in zip(blocks, inners, strict=True)]
        return np.array(units, dtype=np.int64).reshape(shape)

    def split(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Blocks ``[a, 1, ...]`` and places ``[a, b, ...]`` of units ``[a, b, ...]``.

        A decomposition that the units already have is used again; otherwise they get a new one,
        with places that belong to one block each.
        """
        roots = self.find(units)
        if (known := self._known_split(roots)) is not None:
            return known
        blocks = self.fresh(roots.shape[0], 1, *roots.shape[2:])
        inners = self.fresh(*roots.shape)
        everywhere = np.broadcast_to(blocks, roots.shape)
        for unit, block, inner in zip(
            roots.ravel().tolist(),
            everywhere.ravel().tolist(),
            inners.ravel().tolist(),
            strict=True,
        ):
            if self._is_pinned[unit]:
                self._pin_root(self.root(block), self._pins[unit])
                self._pin_root(self.root(inner), self._pins[unit])
            else:
                self._declare(self.root(unit), block, inner)
        return blocks, inners

    # ---- asking -------------------------------------------------------------------------------
    def root(self, unit: int) -> int:
        """Return the representative of one unit."""
        parent = self._parent
        while parent[unit] != unit:
            parent[unit] = parent[parent[unit]]
            unit = int(parent[unit])
        return unit

    def find(self, ids: np.ndarray) -> np.ndarray:
        """Return the representative of each id, same shape."""
        roots: np.ndarray = self._parent[ids]
        while not np.array_equal(roots, higher := self._parent[roots]):
            roots = higher
        self._parent[ids] = roots
        return roots

    def pin_of(self, unit: int) -> Pin | None:
        """Why the unit with this representative is pinned; ``None`` if it is free."""
        return self._pins.get(unit)

    def is_pinned(self, ids: np.ndarray) -> np.ndarray:
        """Whether each unit is pinned, bool, same shape."""
        pinned: np.ndarray = self._is_pinned[self.find(ids)]
        return pinned

    def is_untouched(self, ids: np.ndarray) -> bool:
        """Whether these units are still as made: free, apart, no pairs and in none."""
        flat = ids.ravel()
        return (
            bool((self._parent[flat] == flat).all())
            and not self._is_pinned[flat].any()
            and not self._is_part[flat].any()
        )

    def parts(self, unit: int) -> list[tuple[int, int]]:
        """Decompositions of the unit with this representative into (block, place inside)."""
        declared = self._parts.get(unit)
        if not declared:
            return []
        return sorted({(self.root(b), self.root(i)) for b, i in declared})

    # ---- merging ------------------------------------------------------------------------------
    def unify(self, left: np.ndarray, right: np.ndarray) -> None:
        """Make ``left[i]`` and ``right[i]`` move together; what meets a pinned unit is pinned.

        Two units that are both pinned stay distinct: neither moves, and their names are worth
        keeping.
        """
        left, right = np.broadcast_arrays(left, right)
        a, b = self.find(left).ravel(), self.find(right).ravel()
        differ = (a != b) & ~(self._is_pinned[a] & self._is_pinned[b])
        if not differ.any():
            return
        pairs = np.unique(np.stack([a[differ], b[differ]], axis=1), axis=0)
        if not (self._merge_plain(*pairs.T) or self._merge_plain(*pairs.T[::-1])):
            self._merge((int(x), int(y)) for x, y in pairs)

    def _merge_plain(self, keep: np.ndarray, drop: np.ndarray) -> bool:
        """Merge at once where nothing follows: each dropped class is free, no pair and in none."""
        simple = (
            not (self._is_part[drop] | self._is_pinned[drop]).any()
            and len(np.unique(drop)) == len(drop)
            and not np.isin(drop, keep).any()
        )
        if simple:
            self._parent[drop] = keep
        return simple

    def pin(self, ids: np.ndarray, pin: Pin) -> None:
        """Pin units that are still free."""
        for root in np.unique(self.find(ids)).tolist():
            self._pin_root(self.root(root), pin)

    def _merge(self, pairs: Iterable[tuple[int, int]]) -> None:
        work, stopped = list(pairs), []
        while work:
            first, second = work.pop()
            a, b = self.root(first), self.root(second)
            if a == b or (self._is_pinned[a] and self._is_pinned[b]):
                continue
            keep, drop = self._winner(a, b)
            self._parent[drop] = keep
            self._is_part[keep] |= self._is_part[drop]
            work += self._join_parts(keep, drop)
            work += self._rekey(drop)
            if self._is_pinned[keep]:
                stopped.append(keep)
        for unit in stopped:  # only now, so that parts that are equal have been merged before
            self._pin_made_of(unit)

    def _winner(self, a: int, b: int) -> tuple[int, int]:
        """Which of two classes survives a merge: the pinned one, else the one in more pairs."""
        if self._is_pinned[a] != self._is_pinned[b]:
            return (a, b) if self._is_pinned[a] else (b, a)
        return (a, b) if len(self._uses.get(a, ())) >= len(self._uses.get(b, ())) else (b, a)

    def _join_parts(self, keep: int, drop: int) -> list[tuple[int, int]]:
        """Give a merged unit the decompositions of both; one into the same blocks must agree."""
        moved = self._parts.pop(drop, set())
        mine = self._parts[keep]
        work = []
        for block, inner in moved:
            for other_block, other_inner in mine:
                if self._same_kind((block, inner), (other_block, other_inner)):
                    work += [(block, other_block), (inner, other_inner)]
        mine |= moved
        return work

    def _same_kind(self, one: tuple[int, int], two: tuple[int, int]) -> bool:
        """Whether two decompositions cut an axis alike: they share a part."""
        return self.root(one[0]) == self.root(two[0]) or self.root(one[1]) == self.root(two[1])

    def _rekey(self, drop: int) -> list[tuple[int, int]]:
        """After a merge, intern the pairs that used the dropped unit under their new parts."""
        work = []
        for key in list(self._uses.pop(drop, ())):
            unit = self._pairs.pop(key, None)
            if unit is None:
                continue
            for part in key:
                self._uses[part].discard(key)
            new = (self.root(key[0]), self.root(key[1]))
            if (other := self._pairs.get(new)) is not None:
                work.append((unit, other))
            else:
                self._register(new, unit)
        return work

    # ---- pairs --------------------------------------------------------------------------------
    def _intern(self, block: int, inner: int) -> int:
        key = (self.root(block), self.root(inner))
        for known in (key, key[::-1]):  # transposed, a grid still has the same units
            if known in self._pairs:
                return self.root(self._pairs[known])
        if self._is_pinned[key[0]] and self._is_pinned[key[1]]:
            unit = int(self.pinned(1, self._pins[key[1]])[0])
            self._pairs[key] = unit
            return unit
        unit = int(self.fresh(1)[0])
        self._declare(unit, block, inner)
        return unit

    def _declare(self, unit: int, block: int, inner: int) -> None:
        """State that ``unit`` is the pair of ``block`` and ``inner``."""
        key = (self.root(block), self.root(inner))
        self._register(key, unit)
        self._parts[unit].add(key)
        self._is_part[unit] = True

    def _register(self, key: tuple[int, int], unit: int) -> None:
        self._pairs[key] = unit
        for part in key:
            self._uses[part].add(key)
            self._is_part[part] = True

    def _pin_root(self, unit: int, pin: Pin) -> None:
        """Pin a class and what follows from it."""
        root = self.root(unit)
        if not self._is_pinned[root]:
            self._is_pinned[root] = True
            self._pins[root] = pin
            self._pin_made_of(root)

    def _pin_made_of(self, unit: int) -> None:
        """Pin the parts of a pinned unit, and pairs of which no part is free any more."""
        root = self.root(unit)
        pin = self._pins[root]
        for block, inner in list(self._parts.get(root, ())):
            self._pin_root(block, pin)
            self._pin_root(inner, pin)
        for key in list(self._uses.get(root, ())):
            if key in self._pairs and all(self._is_pinned[self.root(part)] for part in key):
                self._pin_root(self._pairs[key], pin)

    def _known_split(self, roots: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Find a decomposition that all units have and that has one block per row."""
        flat = roots.ravel().tolist()
        rows = np.broadcast_to(
            np.arange(roots.shape[0]).reshape(-1, *[1] * (roots.ndim - 1)), roots.shape
        ).ravel()
        for candidate in self.parts(flat[0]):
            blocks: dict[int, int] = {int(rows[0]): candidate[0]}
            chosen = self._match_rows(flat, rows.tolist(), blocks)
            if chosen is not None:
                grid = np.array(chosen, dtype=np.int64).reshape(*roots.shape, 2)
                return grid[:, :1, ..., 0], grid[..., 1]
        return None

    def _match_rows(
        self, flat: list[int], rows: list[int], blocks: dict[int, int]
    ) -> list[tuple[int, int]] | None:
        """Choose a decomposition of each unit so that every row has a block of its own."""
        chosen = []
        for unit, row in zip(flat, rows, strict=True):
            options = self.parts(unit)
            fitting = [o for o in options if row not in blocks or o[0] == blocks[row]]
            if not fitting:
                return None
            blocks.setdefault(row, fitting[0][0])
            chosen.append(fitting[0])
        return chosen if len(set(blocks.values())) == len(blocks) else None

    def forget(self, parts: set[int]) -> None:
        """Undo decompositions into these units, given that they occur in no others and are free."""
        keys = {key for part in parts for key in self._uses.get(part, ())}
        if any(self._is_pinned[part] for part in parts) or any(
            self.root(part) not in parts for key in keys for part in key
        ):
            return
        for key in keys:
            unit = self.root(self._pairs.pop(key))
            self._parts[unit] = {
                own for own in self._parts[unit] if parts.isdisjoint(map(self.root, own))
            }
        for part in parts:
            self._uses.pop(part, None)

    def settle(self) -> None:
        """Identify blocks, and places, that have the same members: they cut an axis alike."""
        changed = True
        while changed:
            merges: list[tuple[int, int]] = []
            for role in (0, 1):
                members: dict[int, set[int]] = defaultdict(set)
                for key, unit in self._pairs.items():
                    members[self.root(key[role])].add(self.root(unit))
                first: dict[frozenset[int], int] = {}
                for part, units in members.items():
                    other = first.setdefault(frozenset(units), part)
                    if other != part and not (self._is_pinned[other] and self._is_pinned[part]):
                        merges.append((other, part))
            changed = bool(merges)
            self._merge(merges)
