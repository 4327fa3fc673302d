"""What the graph of a weight space is made of: sets of nodes, their features, blocks of edges."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from neural_functionals.graphs.ends import NodeKind

EdgeKind = Literal["weight", "nesting"]
NODE_KINDS: tuple[NodeKind, ...] = ("input", "hidden", "output")
EDGE_KINDS: tuple[EdgeKind, ...] = ("weight", "nesting")


@dataclass(frozen=True, kw_only=True)
class NodeSet:
    """Nodes that follow each other: the units of one neuron group, or the positions of one axis.

    Parameters
    ----------
    name
        Name of the neuron group, or label of the pinned axis.
    kind
        ``"hidden"`` where relabelling moves the nodes; other nodes stay where they are.
    start, size
        First node and number of nodes. Units of a nested group: copy after copy.
    outer
        For a nested group, position in the template of the set of the group around it.
    """

    name: str
    kind: NodeKind
    start: int
    size: int
    outer: int | None = None

    @property
    def nodes(self) -> np.ndarray:
        """The nodes, ``[size]``, int64."""
        return np.arange(self.start, self.start + self.size)


@dataclass(frozen=True, kw_only=True, eq=False)
class NodeFeature:
    """A field that describes the nodes of one set.

    Parameters
    ----------
    node_set
        Position of the set in the template.
    index
        Positions in the flat vector, ``[size, channels]``, int64.
    columns
        Where the channels lie among a node's features, ``[channels]``; a column holds one role
        (bias, gain, ...) for nodes of all sets.
    """

    node_set: int
    index: np.ndarray = field(repr=False)
    columns: np.ndarray = field(repr=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Edges between two sets of nodes, of all sources to all targets (within each of ``copies``).

    Parameters
    ----------
    kind
        ``"weight"``, or ``"nesting"`` for edges without features that tie the units of a nested
        group to the unit around them (units to their head), one block per direction.
    source, target
        Positions of the node sets in the template.
    start
        Number of the first edge; edges follow in C order of ``(copies, targets, sources)``.
    sources, targets
        Nodes at the ends, ``[copies, sources]`` and ``[copies, targets]``, int64. There is more
        than one copy where both ends lie inside the same outer units, as in a grouped convolution.
    index
        Positions in the flat vector, ``[copies, targets, sources, channels]``, int64.
    columns
        Where the channels lie among an edge's features, ``[channels]``; kernels are centred.
    lanes
        Tells edges between the same two nodes apart, ``[sources]``; all 0 where there is one.
    """

    kind: EdgeKind
    source: int
    target: int
    start: int
    sources: np.ndarray = field(repr=False)
    targets: np.ndarray = field(repr=False)
    index: np.ndarray = field(repr=False)
    columns: np.ndarray = field(repr=False)
    lanes: np.ndarray = field(repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Copies, targets per copy, sources per copy."""
        copies, targets, sources, _ = self.index.shape
        return copies, targets, sources

    @property
    def num_edges(self) -> int:
        """Number of edges."""
        copies, targets, sources = self.shape
        return copies * targets * sources

    @property
    def edge_index(self) -> np.ndarray:
        """Source and target of each edge, ``[2, num_edges]``, int64."""
        sources = np.broadcast_to(self.sources[:, None, :], self.shape)
        targets = np.broadcast_to(self.targets[:, :, None], self.shape)
        return np.stack([sources.ravel(), targets.ravel()])
