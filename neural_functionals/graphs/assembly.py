"""Building the graph of a weight space from its fields."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from neural_functionals.graphs.blocks import (
    NODE_KINDS,
    Block,
    EdgeKind,
    NodeFeature,
    NodeSet,
)
from neural_functionals.graphs.ends import End, NodeKind, Part, cut, kernel_columns, side_of
from neural_functionals.graphs.template import GraphTemplate
from zoo.space import TensorRole, WeightSpace

_ROLES: tuple[TensorRole, ...] = ("bias", "gain", "shift", "mean", "variance", "weight", "other")
_Nodes = tuple[int, np.ndarray]  # a node set's position, and its nodes [copies, nodes per copy]
_NONE = np.empty(0, dtype=np.int64)


def graph_template(space: WeightSpace, *, kernel: Sequence[int] | None = None) -> GraphTemplate:
    """Build the graph that all members of a space share.

    Parameters
    ----------
    kernel
        Largest kernel that edges have room for, by default the largest one of the space: give it
        where spaces with different kernels share a model.

    Raises
    ------
    WeightSpaceMismatchError
        If a kernel of the space is larger.

    Examples
    --------
    >>> import torch, zoo
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> template = graph_template(zoo.trace(network, torch.zeros(1, 2)))
    >>> [(each.kind, each.size) for each in template.node_sets], template.num_edges
    ([('input', 2), ('hidden', 3), ('output', 1)], 9)
    """
    parts = cut(space)
    columns, largest = kernel_columns(space, parts, kernel)
    assembly = _Assembly(space, parts)
    for part, places in zip(parts, columns, strict=True):
        assembly.add(part, places)
    assembly.add_nesting()
    return GraphTemplate(
        num_parameters=space.num_parameters,
        node_sets=tuple(assembly.node_sets),
        blocks=tuple(assembly.blocks),
        node_features=tuple(assembly.node_features),
        graph_index=np.concatenate([*assembly.graph_index, _NONE]),
        kernel=largest,
    )


def parallel_edges(template: GraphTemplate) -> GraphTemplate:
    """Give every weight an edge of its own: as many between two nodes as kernels have entries.

    Edges have one feature; the column in which it lay becomes their *lane*.
    """
    blocks: list[Block] = []
    for block in template.blocks:
        copies, targets, sources, channels = block.index.shape
        if channels:  # edges without features stay as they are
            block = replace(
                block,
                sources=np.repeat(block.sources, channels, axis=1),
                index=block.index.reshape(copies, targets, sources * channels, 1),
                columns=np.zeros(1, dtype=np.int64),
                lanes=np.tile(block.columns, sources),
            )
        start = blocks[-1].start + blocks[-1].num_edges if blocks else 0
        blocks.append(replace(block, start=start))
    return replace(template, blocks=tuple(blocks))


class _Assembly:
    """Collects node sets, blocks and features, one part after the other."""

    def __init__(self, space: WeightSpace, parts: Sequence[Part]) -> None:
        self.node_sets = _node_sets(space, parts)
        self.blocks: list[Block] = []
        self.node_features: list[NodeFeature] = []
        self.graph_index: list[np.ndarray] = []
        self._at = {each.name: at for at, each in enumerate(self.node_sets)}
        self._taken: Counter[tuple[int, TensorRole]] = Counter()

    def add(self, part: Part, columns: np.ndarray) -> None:
        """Add a field: edges if it has two ends, features of nodes or of the network if fewer."""
        if not part.ends:
            self.graph_index.append(part.index.ravel())
        elif len(part.ends) == 1:
            (end,) = part.ends
            self._describe(self._at[end.name], part, _sorted(part.index, end.axes))
        elif len(part.ends) == 2:
            self._connect(part, columns)
        else:
            self._expand(part)

    def add_nesting(self) -> None:
        """Tie units of nested groups to the unit around them, in both directions."""
        for at, each in enumerate(self.node_sets):
            if each.outer is not None:
                outer = self.node_sets[each.outer]
                units, around = each.nodes.reshape(outer.size, -1), outer.nodes[:, None]
                self._tie((at, units), (each.outer, around))
                self._tie((each.outer, around), (at, units))

    def _describe(self, at: int, part: Part, index: np.ndarray) -> None:
        """Add features of the nodes of one set, ``[size, channels]``, in columns of their role."""
        role = part.tensor.role
        first = self._taken[at, role]
        self._taken[at, role] += index.shape[1]
        columns = (first + np.arange(index.shape[1])) * len(_ROLES) + _ROLES.index(role)
        self.node_features.append(NodeFeature(node_set=at, index=index, columns=columns))

    def _connect(self, part: Part, columns: np.ndarray) -> None:
        """Add the edges of a field with two ends."""
        target, source = part.ends
        shared = [axis for axis in target.axes if axis in source.axes]
        own = [[axis for axis in end.axes if axis not in shared] for end in part.ends]
        index = np.transpose(part.index, [*shared, *own[0], *own[1], len(part.sizes)])
        copies, targets, sources = (prod(part.sizes[a] for a in axes) for axes in (shared, *own))
        index = index.reshape(copies, targets, sources, -1)
        tail = self._at[source.name], self._nodes(source).reshape(copies, sources)
        head = self._at[target.name], self._nodes(target).reshape(copies, targets)
        self._add_block("weight", tail, head, index, columns)
        if side_of(source) == side_of(target):  # both ends must hear which weights are theirs
            self._add_block("weight", head, tail, index.swapaxes(1, 2), columns)

    def _expand(self, part: Part) -> None:
        """Make each entry of a field with more ends a node, tied to the units at its ends."""
        at = self._at[_entries_of(part)]
        entries = self.node_sets[at].nodes.reshape(part.sizes)
        self._describe(at, part, part.index.reshape(entries.size, -1))
        for end in part.ends:
            ours = at, _sorted(entries, end.axes)
            unit = self._at[end.name], self._nodes(end)[:, None]
            if side_of(end) >= 0:
                self._tie(unit, ours)
            if side_of(end) <= 0:
                self._tie(ours, unit)

    def _tie(self, source: _Nodes, target: _Nodes) -> None:
        """Add edges without features."""
        (copies, sources), (_, targets) = source[1].shape, target[1].shape
        index = np.empty((copies, targets, sources, 0), dtype=np.int64)
        self._add_block("nesting", source, target, index, _NONE)

    def _add_block(
        self,
        kind: EdgeKind,
        source: _Nodes,
        target: _Nodes,
        index: np.ndarray,
        columns: np.ndarray,
    ) -> None:
        start = self.blocks[-1].start + self.blocks[-1].num_edges if self.blocks else 0
        self.blocks.append(
            Block(
                kind=kind,
                source=source[0],
                target=target[0],
                start=start,
                sources=source[1],
                targets=target[1],
                index=index,
                columns=columns,
                lanes=np.zeros(index.shape[2], dtype=np.int64),
            )
        )

    def _nodes(self, end: End) -> np.ndarray:
        return self.node_sets[self._at[end.name]].nodes


def _sorted(index: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Bring axes to the front, outer ones first, and ravel them: ``[nodes, the rest]``."""
    front = np.moveaxis(index, axes, range(len(axes)))
    return front.reshape(prod(front.shape[: len(axes)]), -1)


def _entries_of(part: Part) -> str:
    """Name the nodes that stand for entries: groups and axes have other names."""
    return f"entries {part.index.min()} to {part.index.max()} of {part.tensor.name}"


def _node_sets(space: WeightSpace, parts: Sequence[Part]) -> list[NodeSet]:
    """List network inputs, units of neuron groups and entries that are nodes, network outputs."""
    sizes: dict[NodeKind, dict[str, int]] = {kind: {} for kind in NODE_KINDS}
    parents = {group.name: group.parent for group in space.groups}
    sizes["hidden"] = {group.name: group.size * group.copies for group in space.groups}
    for part in parts:
        for end in part.ends:
            if end.kind != "hidden":
                sizes[end.kind].setdefault(end.name, prod(part.sizes[axis] for axis in end.axes))
        if len(part.ends) > 2:
            sizes["hidden"][_entries_of(part)] = prod(part.sizes)
    order = [(kind, name) for kind in NODE_KINDS for name in sizes[kind]]
    at = {name: position for position, (_, name) in enumerate(order)}
    sets: list[NodeSet] = []
    for kind, name in order:
        start = sets[-1].start + sets[-1].size if sets else 0
        outer = parents.get(name)
        sets.append(
            NodeSet(
                name=name,
                kind=kind,
                start=start,
                size=sizes[kind][name],
                outer=None if outer is None else at[outer],
            )
        )
    return sets
