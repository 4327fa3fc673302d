"""The graph of a weight space: hidden units, inputs and outputs are nodes, weights are edges.

The graph is the same for all members of a space, so it is built once, from the space's fields: a
field with two ends is a *block*, a complete bipartite graph between two sets of nodes; a field with
one end describes nodes; a field without ends describes the whole network. What remains per member
is one gather from its flat vector.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from neural_functionals.graphs.blocks import (
    EDGE_KINDS,
    NODE_KINDS,
    Block,
    NodeFeature,
    NodeSet,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class GraphTemplate:
    """The graph that all members of a weight space share.

    Weights go from the axis that the operator reads ("in") to the one that it makes ("out"): edges
    follow the computation. Where the space does not tell, network inputs are sources and network
    outputs targets, and else each weight has an edge both ways, so that the units at either end can
    know which weights are theirs.

    Parameters
    ----------
    num_parameters
        Length ``P`` of the flat vector.
    node_sets
        Network inputs, hidden units, network outputs; nodes are numbered in this order.
    blocks
        Edges, numbered in this order.
    node_features
        Fields with one end: biases, gains, statistics.
    graph_index
        Positions in the flat vector that belong to no node and no edge, ``[G]``, int64.
    kernel
        Largest kernel, one length per dimension: where kernel entries lie among edge features.

    Notes
    -----
    An axis of one position ("single") of a weight has no name by which another tensor could share
    it, so each is a node set of its own, an input or output of its layer. A field with more than
    two ends (a bilinear map) is a set of nodes, one for each of its entries, tied to the units at
    its ends by edges without features. Units of a repeated group (recurrent weights) have edges to
    each other.
    """

    num_parameters: int
    node_sets: tuple[NodeSet, ...]
    blocks: tuple[Block, ...]
    node_features: tuple[NodeFeature, ...]
    graph_index: np.ndarray
    kernel: tuple[int, ...]

    # ---- sizes --------------------------------------------------------------------------------
    @property
    def num_nodes(self) -> int:
        """Number of nodes ``N``."""
        return sum(each.size for each in self.node_sets)

    @property
    def num_edges(self) -> int:
        """Number of edges ``E``."""
        return sum(block.num_edges for block in self.blocks)

    @cached_property
    def node_width(self) -> int:
        """Features per node: one more than the last column in use, at least one."""
        return max((int(each.columns.max()) + 1 for each in self.node_features), default=1)

    @cached_property
    def edge_width(self) -> int:
        """Features per edge: one more than the last column in use, at least one."""
        return max((int(b.columns.max()) + 1 for b in self.blocks if b.columns.size), default=1)

    # ---- arrays -------------------------------------------------------------------------------
    @cached_property
    def edge_index(self) -> np.ndarray:
        """Source and target of each edge, ``[2, E]``, int64."""
        return np.concatenate(
            [block.edge_index for block in self.blocks] or [np.empty((2, 0), dtype=np.int64)],
            axis=1,
        )

    @cached_property
    def node_gather(self) -> np.ndarray:
        """Position of each node feature in the flat vector, ``[N, node_width]``; ``P``: none."""
        gather = np.full((self.num_nodes, self.node_width), self.num_parameters)
        for each in self.node_features:
            gather[np.ix_(self.node_sets[each.node_set].nodes, each.columns)] = each.index
        return gather

    @cached_property
    def edge_gather(self) -> np.ndarray:
        """Position of each edge feature in the flat vector, ``[E, edge_width]``; ``P``: none."""
        gather = np.full((self.num_edges, self.edge_width), self.num_parameters)
        for block in self.blocks:
            rows = gather[block.start : block.start + block.num_edges]
            rows[:, block.columns] = block.index.reshape(block.num_edges, -1)
        return gather

    @cached_property
    def node_kind(self) -> np.ndarray:
        """Position of each node's kind in :data:`NODE_KINDS`, ``[N]``, int64."""
        kinds = [NODE_KINDS.index(each.kind) for each in self.node_sets]
        return np.repeat(kinds, [each.size for each in self.node_sets]).astype(np.int64)

    @cached_property
    def node_place(self) -> np.ndarray:
        """Number of each node's orbit among those of its kind, ``[N]``, int64.

        All units of one neuron group have one number; inputs and outputs have their own.
        """
        seen = dict.fromkeys(NODE_KINDS, 0)
        places = []
        for each in self.node_sets:
            own = np.zeros(each.size) if each.kind == "hidden" else np.arange(each.size)
            places.append(seen[each.kind] + own)
            seen[each.kind] += 1 if each.kind == "hidden" else each.size
        return np.concatenate([*places, np.empty(0)]).astype(np.int64)

    @cached_property
    def node_orbit(self) -> np.ndarray:
        """Number of each node's orbit, ``[N]``, int64: relabelling keeps it."""
        return _numbered(np.stack([self.node_kind, self.node_place], axis=1))

    @cached_property
    def edge_kind(self) -> np.ndarray:
        """Position of each edge's kind in :data:`EDGE_KINDS`, ``[E]``, int64."""
        kinds = [EDGE_KINDS.index(block.kind) for block in self.blocks]
        return np.repeat(kinds, [block.num_edges for block in self.blocks]).astype(np.int64)

    @cached_property
    def edge_lane(self) -> np.ndarray:
        """Lane of each edge, ``[E]``, int64."""
        lanes = [np.broadcast_to(block.lanes, block.shape).ravel() for block in self.blocks]
        return np.concatenate([*lanes, np.empty(0, dtype=np.int64)])

    @cached_property
    def edge_orbit(self) -> np.ndarray:
        """Number of each edge's orbit, ``[E]``, int64: relabelling keeps it.

        An orbit is told by block and lane, by the orbits of both ends and by which of the units
        around the ends, and the ends themselves, are the same.
        """
        source, target = self.edge_index
        of_block = np.repeat(np.arange(len(self.blocks)), [b.num_edges for b in self.blocks])
        same = [level[source] == level[target] for level in self._ancestry]
        ends = (self.node_orbit[source], self.node_orbit[target])
        rows = [of_block, self.edge_lane, *ends, *same]
        return _numbered(np.stack(rows, axis=1))

    @cached_property
    def orbit(self) -> np.ndarray:
        """Orbit of each position of the flat vector, ``[P]``, int64, numbered from 0."""
        keys = np.zeros((self.num_parameters + 1, 3), dtype=np.int64)  # a last row for padding
        for kind, gather, owner in (
            (1, self.node_gather, self.node_orbit),
            (2, self.edge_gather, self.edge_orbit),
        ):
            columns = np.broadcast_to(np.arange(gather.shape[1]), gather.shape)
            owners = np.broadcast_to(owner[:, None], gather.shape)
            keys[gather] = np.stack([np.full(gather.shape, kind), owners, columns], axis=-1)
        keys[self.graph_index, 1] = np.arange(len(self.graph_index))
        return _numbered(keys[:-1])

    @cached_property
    def in_degree(self) -> np.ndarray:
        """Number of edges that end at each node, ``[N]``, int64."""
        return np.bincount(self.edge_index[1], minlength=self.num_nodes)

    @cached_property
    def out_degree(self) -> np.ndarray:
        """Number of edges that start at each node, ``[N]``, int64."""
        return np.bincount(self.edge_index[0], minlength=self.num_nodes)

    @cached_property
    def _ancestry(self) -> list[np.ndarray]:
        """Outermost unit around each node, the next one, ..., the node itself; each ``[N]``."""
        rows: list[np.ndarray] = []
        for each in self.node_sets:
            levels, inside = [each.nodes], each
            while inside.outer is not None:
                outer = self.node_sets[inside.outer]
                levels.append(
                    outer.start + (levels[-1] - inside.start) // (inside.size // outer.size)
                )
                inside = outer
            rows.append(np.stack(levels[::-1]))
        depth = max((len(levels) for levels in rows), default=0)
        padded = [
            np.pad(levels, ((0, depth - len(levels)), (0, 0)), mode="edge") for levels in rows
        ]
        return list(np.concatenate(padded, axis=1)) if padded else []


def _numbered(rows: np.ndarray) -> np.ndarray:
    """Give equal rows of ``[n, k]`` one number, counting from 0, ``[n]``, int64."""
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
