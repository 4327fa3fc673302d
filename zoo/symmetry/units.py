"""Unit ids: one id per position of an axis, merged where positions must move together.

A *unit* is an equivalence class of positions. Pinned units never move; every pinned position keeps
an id of its own, so that two pinned axes are never mistaken for one another.
"""

from dataclasses import dataclass

import numpy as np

from zoo.space import PinKind


@dataclass(frozen=True)
class Pin:
    """Why a unit stays in place, and the name of the axis it lies on."""

    kind: PinKind
    label: str


class Units:
    """A union-find over unit ids that knows which classes are pinned."""

    def __init__(self) -> None:
        self._parent = np.zeros(0, dtype=np.int64)
        self._pins: dict[int, Pin] = {}

    def fresh(self, count: int) -> np.ndarray:
        """Make ``count`` new free units, ids of shape ``[count]``."""
        start = len(self._parent)
        ids = np.arange(start, start + count)
        self._parent = np.concatenate([self._parent, ids])
        return ids

    def pinned(self, count: int, pin: Pin) -> np.ndarray:
        """Make ``count`` new pinned units, all distinct."""
        ids = self.fresh(count)
        self._pins.update((int(unit), pin) for unit in ids)
        return ids

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
        roots = self.find(ids)
        return np.array([int(root) in self._pins for root in roots.ravel()]).reshape(roots.shape)

    def unify(self, left: np.ndarray, right: np.ndarray) -> None:
        """Make ``left[i]`` and ``right[i]`` move together; what meets a pinned unit is pinned.

        Two units that are both pinned stay distinct: neither moves, and their names are worth
        keeping.
        """
        pairs = np.unique(np.stack([self.find(left), self.find(right)], axis=1), axis=0)
        for first, second in pairs:
            a, b = int(self.find(first[None])[0]), int(self.find(second[None])[0])
            if a == b or (a in self._pins and b in self._pins):
                continue
            keep, drop = (a, b) if a in self._pins or (b not in self._pins and a < b) else (b, a)
            self._parent[drop] = keep

    def pin(self, ids: np.ndarray, pin: Pin) -> None:
        """Pin units that are still free."""
        for root in np.unique(self.find(ids)):
            self._pins.setdefault(int(root), pin)
