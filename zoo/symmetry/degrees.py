"""How every operator passes on the scale of its inputs: one small rule per ATen operator.

A hidden unit is multiplied by an unknown factor; every entry of every tensor then scales by that
factor to some power, a linear form in the unknown exponents. Operators add forms (products), demand
that they agree (sums), or demand that they vanish (whatever is not homogeneous). An operator that
is not listed demands the latter of everything it reads, which is always sound.

Three kinds of scaling are followed. ``positive``: by any positive factor. ``sign``: by minus one.
``linear``: by any factor, and, which is what makes it useful, with all units of a group mixed by
one matrix; products of two entries that both scale are excluded from it.
"""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree

from zoo.symmetry.export import operator_name
from zoo.symmetry.forms import ANYTHING, ZERO, Forms
from zoo.symmetry.labels import UnsupportedError
from zoo.symmetry.rules.registry import accepts

Mode = Literal["positive", "sign", "linear"]


@dataclass(frozen=True, eq=False)
class Recording:
    """The graph that was interpreted, its parameters by name and its constants by value."""

    graph: Graph
    parameters: Mapping[Node, str]
    constants: Mapping[Node, Tensor]

    @cached_property
    def order(self) -> dict[Node, int]:
        """Place of each node in the graph."""
        return {node: at for at, node in enumerate(self.graph.nodes)}

    @cached_property
    def data(self) -> set[Node]:
        """Nodes that depend on the network's inputs."""
        found: set[Node] = set()
        for node in self.graph.nodes:
            own = node.op == "placeholder" and node not in self.parameters
            if node not in self.constants and (own or not found.isdisjoint(node.all_input_nodes)):
                found.add(node)
        return found


@dataclass(frozen=True, eq=False)
class Scaled:
    """A tensor of the graph: its shape, how each entry scales, whether inputs determine it."""

    shape: tuple[int, ...]
    form: np.ndarray
    is_data: bool = False

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def scales(self) -> bool:
        """Whether any entry does."""
        return bool((self.form > ZERO).any())


Degree = Callable[..., Any]
DEGREES: dict[str, Degree] = {}
"""Operator name without namespace and overload to how it passes on scales."""


def degree(*operators: str) -> Callable[[Degree], Degree]:
    """Register how some operators pass on scales."""

    def register(function: Degree) -> Degree:
        for operator in operators:
            assert operator not in DEGREES, operator
            DEGREES[operator] = function
        return function

    return register


class Propagation:
    """One pass over the part of a graph that some parameters reach.

    Parameters
    ----------
    seeds
        Per parameter how its entries scale; others do not.
    forms
        Collects the equations.
    """

    def __init__(
        self, recording: Recording, seeds: Mapping[str, np.ndarray], forms: Forms, mode: Mode
    ) -> None:
        self.forms = forms
        self.mode = mode
        self.met_data = False
        """Whether two tensors that both scale and depend on data were multiplied and summed."""
        self.was_mixed = False
        """Whether a tensor that scales was summed with weights that depend on data."""
        self._recording = recording
        self._seeds = seeds
        self._data = recording.data
        self._known: dict[Node, Any] = {}

    def run(self) -> None:
        """Follow the scales through the graph and collect what must hold."""
        order = self._recording.order
        reached: list[tuple[int, Node]] = []
        waiting: set[Node] = set()

        def reach(nodes: Any) -> None:
            for node in nodes:
                if node not in waiting:
                    waiting.add(node)
                    heapq.heappush(reached, (order[node], node))

        for node, name in self._recording.parameters.items():
            if name in self._seeds:
                reach(node.users)
        while reached:
            _, node = heapq.heappop(reached)
            result = self._visit(node)
            leaves = [leaf for leaf in pytree.tree_leaves(result) if leaf is not None]
            if any((leaf != ZERO).any() for leaf in leaves):
                self._known[node] = result
                reach(node.users)

    def _visit(self, node: Node) -> Any:
        args, kwargs = pytree.tree_map_only(Node, self._read, (node.args, node.kwargs))
        rule = DEGREES.get(operator_name(node)) if node.op == "call_function" else None
        try:
            if rule is None or not accepts(rule, self, node, *args, **kwargs):
                raise UnsupportedError(str(node.target))
            return rule(self, node, *args, **kwargs)
        except UnsupportedError:
            leaves = pytree.tree_leaves((args, kwargs))
            self.vanish(*(leaf for leaf in leaves if isinstance(leaf, Scaled)))
            return None

    def _read(self, node: Node) -> Any:
        value = node.meta.get("val")
        if node in self._recording.constants:
            constant = self._recording.constants[node]
            return Scaled(tuple(constant.shape), _of_constant(constant))
        form = self._known.get(node)
        if isinstance(value, list | tuple):
            forms = form if form is not None else [None] * len(value)
            return [self._scaled(node, one, two) for one, two in zip(value, forms, strict=True)]
        if node in self._recording.parameters:
            form = self._seeds.get(self._recording.parameters[node])
        return self._scaled(node, value, form) if isinstance(value, Tensor) else value

    def _scaled(self, node: Node, value: Any, form: np.ndarray | None) -> Any:
        if not isinstance(value, Tensor):
            return value
        shape = tuple(int(length) for length in value.shape)
        known = constant_form(len(shape)) if form is None else form
        assert known.ndim == len(shape), (node, known.shape, shape)
        return Scaled(shape, known, node in self._data)

    # ---- what the rules demand ----------------------------------------------------------------
    def vanish(self, *terms: Any) -> None:
        """Demand that tensors do not scale; anything else is ignored."""
        self.forms.vanish(*(term.form for term in terms if isinstance(term, Scaled)))

    def only(self, *modes: Mode) -> None:
        """Refuse an operator unless one of these kinds of scaling is followed."""
        if self.mode not in modes:
            raise UnsupportedError(self.mode)

    def product(self, *terms: np.ndarray) -> np.ndarray:
        """Multiply entry by entry."""
        total = self.forms.add(*terms)
        self._exclude_products(terms, total)
        return total

    def contract(self, words: list[tuple[Scaled, str]], output: str) -> np.ndarray:
        """Sum a product over the letters that the output lacks."""
        letters = output + "".join(sorted({c for _, word in words for c in word} - set(output)))
        terms = [_spread(tensor.form, word, letters) for tensor, word in words]
        total = self.forms.add(*terms)
        summed = self.forms.equal_along(total, list(range(len(output), len(letters))))
        self._exclude_products(terms, summed)
        if len(words) == 2:
            self._note(words[0][0], words[1][0])
        return summed.reshape(summed.shape[: len(output)])

    def _note(self, left: Scaled, right: Scaled) -> None:
        if left.is_data and right.is_data:
            self.met_data |= left.scales and right.scales
            self.was_mixed |= left.scales != right.scales

    def _exclude_products(self, terms: Any, total: np.ndarray) -> None:
        """Where all units are mixed by a matrix, entries that both scale have no product."""
        if self.mode != "linear":
            return
        full = np.broadcast_arrays(total, *terms)
        several = (np.stack(full[1:]) > ZERO).sum(axis=0) > 1
        self.forms.vanish(*(each[several & (full[0] > ZERO)] for each in full[1:]))


def constant_form(rank: int, form: int = ZERO) -> np.ndarray:
    """One form everywhere."""
    return np.full((1,) * rank, form, dtype=np.int64)


def compress(form: np.ndarray) -> np.ndarray:
    """Drop the axes that an array of forms does not depend on."""
    for dim in range(form.ndim):
        first = form.take([0], axis=dim)
        if form.shape[dim] > 1 and (form == first).all():
            form = first
    return form


def of_scalar(value: float) -> np.ndarray:
    """Treat a number: it does not scale, unless it is zero."""
    return np.array(ANYTHING if value == 0 else ZERO, dtype=np.int64)


def form_of(term: Any) -> np.ndarray:
    """Forms of a tensor or of a number."""
    return term.form if isinstance(term, Scaled) else of_scalar(term)


def _of_constant(value: Tensor) -> np.ndarray:
    zero = (value == 0).numpy()
    return compress(np.where(zero, ANYTHING, ZERO)) if value.numel() else constant_form(value.ndim)


def _spread(form: np.ndarray, word: str, letters: str) -> np.ndarray:
    """Lay an operand out over all letters."""
    order = sorted(range(len(word)), key=lambda dim: letters.index(word[dim]))
    lengths = dict(zip(word, form.shape, strict=True))
    return form.transpose(order).reshape([lengths.get(letter, 1) for letter in letters])


def real(node: Node) -> torch._ops.OpOverload:
    """Return the operator of a node, to be run on arrays of forms."""
    if not isinstance(node.target, torch._ops.OpOverload):
        raise UnsupportedError(str(node.target))
    return node.target
