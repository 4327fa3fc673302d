"""What the rules act on: the units, and how labelled axes merge, split, meet and are summed."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from zoo.space import AxisRole, TensorRole
from zoo.symmetry.labels import (
    Labelled,
    Labels,
    along,
    common_grid,
    grouped,
    matching_runs,
    merged_axes,
    split_axis,
    without,
)
from zoo.symmetry.units import Pin, Units


class Scene:
    """What the rules act on: the units, and the roles that operators give to parameters."""

    def __init__(self) -> None:
        self.units = Units()
        self.parameters: dict[str, Labelled] = {}
        self.layer = ""
        self.axis_roles: dict[tuple[str, int], AxisRole] = {}
        self.tensor_roles: dict[str, tuple[TensorRole, str]] = {}
        self.marks: list[np.ndarray] = []
        self.rearranging = False  # whether the present operation only moves axes about
        self._views: list[tuple[np.ndarray, np.ndarray]] = []
        self._read: list[np.ndarray] = []

    # ---- making labels ------------------------------------------------------------------------
    def pinned(self, length: int, pin: Pin, dim: int, rank: int) -> Labels:
        """Fresh pinned units along one axis; ``None`` for an axis of one position."""
        return None if length == 1 else along(self.units.pinned(length, pin), dim, rank)

    def fixed(self, length: int, dim: int, rank: int) -> Labels:
        """Fresh pinned units for an axis that the present operation makes."""
        return self.pinned(length, Pin("fixed", self.layer), dim, rank)

    def all_fixed(self, shape: Sequence[int]) -> Labelled:
        """Label a tensor of which nothing moves."""
        return Labelled(
            tuple(shape), tuple(self.fixed(n, dim, len(shape)) for dim, n in enumerate(shape))
        )

    def uniform(self, shape: Sequence[int]) -> Labelled:
        """Label a tensor that is constant along every axis."""
        return Labelled(tuple(shape), (None,) * len(shape))

    # ---- merging ------------------------------------------------------------------------------
    def unify(self, left: Labels, right: Labels) -> Labels:
        """Make two axes move together and return the units of the result."""
        if left is None or right is None:
            return right if left is None else left
        if left is not right:
            self.units.unify(left, right)
        return left if left.size <= right.size else right

    def pin(self, tensor: Labelled, dims: Iterable[int], pin: Pin) -> None:
        """Pin every free position on some axes; units at one position become one."""
        for dim in dims:
            labels = tensor.labels[dim]
            if not self.is_pinned(labels):
                self.unify(self.pinned(tensor.shape[dim], pin, dim, tensor.rank), labels)

    def is_pinned(self, labels: Labels) -> bool:
        """Whether no position of an axis moves."""
        return labels is None or bool(self.units.is_pinned(labels).all())

    def collapse(self, labels: Labels, dim: int) -> Labels:
        """Make the units of an axis independent of another axis."""
        if labels is None or labels.shape[dim] == 1:
            return labels
        first = np.take(labels, [0], dim)
        self.units.unify(first, labels)
        return first

    def mark(self, labels: Labels) -> None:
        """Remember that an operation tells these positions from the others of their axis."""
        if labels is not None:
            self.marks.append(labels)

    def read(self, tensor: Labelled) -> None:
        """Remember that an operation computes with a tensor's axes, and does not just move them."""
        self._read += [labels for labels in tensor.labels if labels is not None]

    def forget_views(self) -> None:
        """Undo splits that nothing ever read: a view, a transpose and a view are a re-indexing."""
        labels = [*self._read, *self.marks]
        labels += [
            own for each in self.parameters.values() for own in each.labels if own is not None
        ]
        read = {unit for each in labels for unit in np.unique(self.units.find(each)).tolist()}
        for blocks, places in self._views:
            parts = {*self.units.find(blocks).flat, *self.units.find(places).flat}
            if read.isdisjoint(parts):
                self.units.forget(parts)

    def depend(self, tensor: Labelled, dim: int, labels: np.ndarray) -> Labelled:
        """Give an axis of a parameter units that depend on its other axes.

        A parameter whose axis nothing has touched yet takes the labels as they are; any other is
        unified with them.
        """
        own = tensor.labels[dim]
        assert own is not None
        if tensor.name is None or not self.units.is_untouched(own):
            self.unify(own, labels)
            return tensor
        changed = replace(tensor.replace(dim, labels), name=tensor.name)
        self.parameters[tensor.name] = changed
        return changed

    def _is_fresh(self, tensor: Labelled, dim: int) -> bool:
        """Whether nothing has touched this axis of a parameter yet."""
        labels = tensor.labels[dim]
        return tensor.name is not None and labels is not None and self.units.is_untouched(labels)

    def role(self, tensor: Labelled | None, role: TensorRole, *axes: AxisRole) -> None:
        """Record what the present operation does with a parameter (the first use counts)."""
        if tensor is None or tensor.name is None:
            return
        self.tensor_roles.setdefault(tensor.name, (role, self.layer))
        for dim, axis in enumerate(axes):
            self.axis_roles.setdefault((tensor.name, dim), axis)

    # ---- axes ---------------------------------------------------------------------------------
    def unsqueeze(self, x: Labelled, dim: int) -> Labelled:
        """Insert an axis of one position."""
        labels = [None if each is None else np.expand_dims(each, dim) for each in x.labels]
        labels.insert(dim, None)
        return Labelled((*x.shape[:dim], 1, *x.shape[dim:]), tuple(labels))

    def squeeze(self, x: Labelled, dim: int) -> Labelled:
        """Remove an axis of one position, or one that was summed over."""
        kept = [self.collapse(each, dim) for at, each in enumerate(x.labels) if at != dim]
        labels = tuple(None if each is None else np.squeeze(each, dim) for each in kept)
        return Labelled(x.shape[:dim] + x.shape[dim + 1 :], labels)

    def reduce(self, x: Labelled, dims: Iterable[int], *, keepdim: bool) -> Labelled:
        """Combine the positions of some axes by a function that does not notice their order."""
        for dim in sorted({dim % x.rank for dim in dims}, reverse=True):
            x = self.squeeze(x, dim)
            if keepdim:
                x = self.unsqueeze(x, dim)
        return x

    def permute(self, x: Labelled, order: Sequence[int]) -> Labelled:
        """Reorder axes."""
        order = [dim % x.rank for dim in order]
        labels = [None if each is None else each.transpose(order) for each in x.labels]
        return Labelled(tuple(x.shape[dim] for dim in order), tuple(labels[dim] for dim in order))

    def expand(self, x: Labelled, shape: Sequence[int]) -> Labelled:
        """Broadcast to a shape; the tensor does not vary along axes that grow."""
        while x.rank < len(shape):
            x = self.unsqueeze(x, 0)
        full = tuple(old if new == -1 else new for old, new in zip(x.shape, shape, strict=True))
        return Labelled(full, x.labels)

    def take(self, x: Labelled, dim: int, index: np.ndarray) -> Labelled:
        """Pick positions of one axis, which tells them from the others."""
        if np.array_equal(index, np.arange(x.shape[dim])):
            return x
        labels = [
            each if each is None or each.shape[dim] == 1 else np.take(each, index, dim)
            for each in x.labels
        ]
        picked = labels[dim]
        if len(index) == 1:
            if picked is not None:
                self.units.pin(picked, Pin("fixed", f"picked by {self.layer}"))
            labels[dim] = None
        else:
            self.mark(picked)
        shape = (*x.shape[:dim], len(index), *x.shape[dim + 1 :])
        return Labelled(shape, tuple(labels))

    def concatenate(self, parts: Sequence[Labelled], dim: int) -> Labelled:
        """Put tensors one after another along an axis; their other axes move together."""
        rank = parts[0].rank
        shape = list(parts[0].shape)
        shape[dim] = sum(part.shape[dim] for part in parts)
        labels: list[Labels] = []
        for axis in range(rank):
            if axis == dim:
                labels.append(self._row(parts, dim))
                continue
            merged: Labels = None
            for part in parts:
                merged = self.unify(merged, self.collapse(part.labels[axis], dim))
            labels.append(merged)
        return Labelled(tuple(shape), tuple(labels))

    def _row(self, parts: Sequence[Labelled], dim: int) -> Labels:
        pieces = []
        for part in parts:
            labels = part.labels[dim]
            if labels is None:  # constant along the axis: as free as can be
                labels = along(self.units.fresh(part.shape[dim]), dim, part.rank)
            pieces.append(labels)
            self.mark(labels)
        shape = np.broadcast_shapes(*(without(piece.shape, dim) for piece in pieces))
        full = [
            np.broadcast_to(piece, (*shape[:dim], piece.shape[dim], *shape[dim + 1 :]))
            for piece in pieces
        ]
        row = np.concatenate(full, dim)
        return row if row.shape[dim] > 1 else None

    # ---- merging and splitting axes -----------------------------------------------------------
    def merge(self, x: Labelled, dim: int) -> Labelled:
        """Merge axes ``dim`` and ``dim + 1`` into one, in C order."""
        outer, inner = x.shape[dim : dim + 2]
        shape = (*x.shape[:dim], outer * inner, *x.shape[dim + 2 :])
        rest = [
            None if each is None else merged_axes(each, dim, outer, inner)
            for at, each in enumerate(x.labels)
            if at not in (dim, dim + 1)
        ]
        merged = self._merged(x.labels[dim], x.labels[dim + 1], dim, outer, inner)
        labels = None if merged is None else merged_axes(merged, dim, outer, inner)
        return Labelled(shape, (*rest[:dim], labels, *rest[dim:]))

    def _merged(
        self, block: Labels, inner: Labels, dim: int, num_blocks: int, length: int
    ) -> Labels:
        """Units of a merged axis, still as a grid of blocks and places inside."""
        if num_blocks == 1 or length == 1 or (block is None and inner is None):
            return inner if block is None else block
        if self.is_pinned(block) and self.is_pinned(inner):
            return self._merged_pins(block, inner, dim, num_blocks, length)
        if block is None or inner is None:
            known = block if inner is None else inner
            assert known is not None
            grown = list(known.shape)
            grown[dim], grown[dim + 1] = num_blocks, length
            repeated = self.units.fresh(*grown)
            return (
                self.units.pair(known, repeated)
                if inner is None
                else self.units.pair(repeated, known)
            )
        return self.units.pair(block, inner)

    def _merged_pins(
        self, block: Labels, inner: Labels, dim: int, num_blocks: int, length: int
    ) -> Labels:
        """Name a merged pinned axis after its parts: a flattened image is still the input."""
        pins = [
            pin
            for labels in (block, inner)
            if labels is not None
            and (pin := self.units.pin_of(int(self.units.find(labels).flat[0]))) is not None
        ]
        kinds = {pin.kind for pin in pins}
        label = " x ".join(dict.fromkeys(pin.label for pin in pins)) or self.layer
        pin = Pin(kinds.pop() if len(kinds) == 1 else "fixed", label)
        present = block if block is not None else inner
        assert present is not None
        grid = [1] * present.ndim
        grid[dim], grid[dim + 1] = num_blocks, length
        return self.units.pinned(num_blocks * length, pin).reshape(grid)

    def split(self, x: Labelled, dim: int, outer: int, inner: int) -> Labelled:
        """Split an axis into blocks and places inside."""
        shape = (*x.shape[:dim], outer, inner, *x.shape[dim + 1 :])
        rest = [
            None if each is None else split_axis(each, dim, outer, inner)
            for at, each in enumerate(x.labels)
            if at != dim
        ]
        labels = x.labels[dim]
        pair: tuple[Labels, Labels] = (None, None)
        if labels is not None:
            grid = split_axis(labels, dim, outer, inner)
            if outer == 1 or inner == 1:
                pair = (None, grid) if outer == 1 else (grid, None)
            else:
                pair = self._split_grid(grid, dim)
        return Labelled(shape, (*rest[:dim], *pair, *rest[dim:]))

    def _split_grid(self, grid: np.ndarray, dim: int) -> tuple[Labels, Labels]:
        outer, inner = grid.shape[dim : dim + 2]
        if self.units.is_pinned(grid).all():
            return self.fixed(outer, dim, grid.ndim), self.fixed(inner, dim + 1, grid.ndim)
        front = np.moveaxis(grid, (dim, dim + 1), (0, 1))
        blocks, places = self.units.split(front)
        if self.rearranging:
            self._views.append((blocks, places))
        else:
            self._read += [blocks, places]
        return tuple(  # type: ignore[return-value]
            self._independent(np.moveaxis(part, (0, 1), (dim, dim + 1)), own)
            for part, own in ((blocks, dim), (places, dim + 1))
        )

    def _independent(self, labels: np.ndarray, own: int) -> np.ndarray:
        """Drop the axes that labels do not really depend on."""
        roots = self.units.find(labels)
        for dim in range(labels.ndim):
            first = np.take(roots, [0], dim)
            if dim != own and (roots == first).all():
                roots = first
        return roots

    def reshape(self, x: Labelled, shape: Sequence[int]) -> Labelled:
        """View as another shape: merge and split runs of axes."""
        for dim in reversed(range(x.rank)):
            if x.shape[dim] == 1:
                x = self.squeeze(x, dim)
        wanted = [length for length in shape if length != 1]
        at = 0
        for sources, targets in matching_runs(list(x.shape), wanted):
            grid = common_grid(sources, targets)
            if grid is None:  # the two have no grid in common: through the flat axis
                x = self._join(x, at, [len(sources)])
                x = self._cut(x, at, [targets])
            else:
                x = self._cut(x, at, grouped(grid, sources))
                x = self._join(x, at, [len(group) for group in grouped(grid, targets)])
            at += len(targets)
        for dim, length in enumerate(shape):
            if length == 1:
                x = self.unsqueeze(x, dim)
        return x

    def _cut(self, x: Labelled, at: int, groups: Sequence[Sequence[int]]) -> Labelled:
        """Split neighbouring axes, from ``at`` on, into some lengths each."""
        for lengths in groups:
            rest = prod(lengths)
            for length in lengths[:-1]:
                rest //= length
                x = self.split(x, at, length, rest)
                at += 1
            at += 1
        return x

    def _join(self, x: Labelled, at: int, counts: Sequence[int]) -> Labelled:
        """Merge runs of neighbouring axes, from ``at`` on."""
        for count in counts:
            for _ in range(count - 1):
                x = self.merge(x, at)
            at += 1
        return x

    # ---- combining tensors --------------------------------------------------------------------
    def elementwise(self, *tensors: object) -> Labelled:
        """Labels of a broadcast elementwise result; axes that meet must move together."""
        terms = [term for term in tensors if isinstance(term, Labelled)]
        rank = max(term.rank for term in terms)
        letters = [chr(ord("a") + dim) for dim in range(rank)]
        words = [(term, "".join(letters[rank - term.rank :])) for term in terms]
        return self.contract(words, "".join(letters))

    def contract(self, terms: Sequence[tuple[Labelled, str]], output: str) -> Labelled:
        """Sum a product of tensors over every letter that the output lacks (``einsum``)."""
        letters = sorted({letter for _, word in terms for letter in word})
        size = dict.fromkeys(letters, 1)
        merged: dict[str, Labels] = dict.fromkeys(letters)
        for tensor, word in sorted(terms, key=lambda term: term[0].name is not None):
            for dim, letter in enumerate(word):
                size[letter] = max(size[letter], tensor.shape[dim])
                if self._is_fresh(tensor, dim):
                    tensor = self._adopt(tensor, word, dim, merged[letter], letters, output)
                grown = self._spread(tensor.labels[dim], word, letters)
                merged[letter] = self.unify(merged[letter], grown)
        result = Labelled(
            tuple(size[letter] for letter in letters),
            tuple(merged[letter] for letter in letters),
        )
        gone = [at for at, letter in enumerate(letters) if letter not in output]
        left = [letter for letter in letters if letter in output]
        result = self.reduce(result, gone, keepdim=False) if gone else result
        return self.permute(result, [left.index(letter) for letter in output])

    def _adopt(
        self,
        tensor: Labelled,
        word: str,
        dim: int,
        met: Labels,
        letters: list[str],
        output: str,
    ) -> Labelled:
        """Let an untouched axis of a parameter depend on its other axes, where the result may.

        It takes over what it meets; where it is the first of its letter, each slice along the axes
        before it that the output keeps (a batch of matrices) has units of its own.
        """
        if met is not None:
            inside = all(n == 1 for at, n in zip(letters, met.shape, strict=True) if at not in word)
            if not inside or sum(n > 1 for n in met.shape) < 2:
                return tensor
            order = [letters.index(letter) for letter in word]
            rest = [at for at in range(len(letters)) if at not in order]
            labels = met.transpose([*order, *rest]).reshape([met.shape[at] for at in order])
            fits = all(n in (1, own) for n, own in zip(labels.shape, tensor.shape, strict=True))
            return self.depend(tensor, dim, labels) if fits else tensor
        before = [at for at in range(dim) if word[at] in output and tensor.shape[at] > 1]
        if word[dim] not in output or not before or set(word) <= set(output):
            return tensor
        grid = [n if at in (*before, dim) else 1 for at, n in enumerate(tensor.shape)]
        return self.depend(tensor, dim, self.units.fresh(*grid))

    def _spread(self, labels: Labels, word: str, letters: list[str]) -> Labels:
        """Lay the labels of an axis out over all letters."""
        if labels is None:
            return None
        order = sorted(range(len(word)), key=lambda dim: letters.index(word[dim]))
        sorted_labels = labels.transpose(order)
        shape = dict(zip((word[dim] for dim in order), sorted_labels.shape, strict=True))
        return sorted_labels.reshape([shape.get(letter, 1) for letter in letters])
