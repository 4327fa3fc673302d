"""Where messages go in a batch of different graphs: edges are rows of one tensor."""

from collections.abc import Sequence

import torch
from torch import Tensor

from neural_functionals.graphs.topology import Edges, Topology


class MixedTopology(Topology):
    """Each network has a graph of its own.

    Features of nodes are ``[nodes of all graphs, channels]``, those of edges one tensor ``[edges of
    all graphs, channels]``.

    Parameters
    ----------
    edge_index
        Source and target of each edge, ``[2, edges]``, int64.
    graph
        Graph of each node, ``[nodes]``, int64, ascending.
    num_graphs
        Number of graphs.
    """

    def __init__(self, edge_index: Tensor, graph: Tensor, num_graphs: int) -> None:
        self.edge_index, self.graph, self.num_graphs = edge_index, graph, num_graphs
        self.edge_graph = graph[edge_index[0]]
        self.out_degree, self.in_degree = (_count(ends, len(graph)) for ends in edge_index)

    def sources(self, nodes: Tensor) -> Edges:
        """Gather rows."""
        return [nodes.index_select(0, self.edge_index[0])]

    def targets(self, nodes: Tensor) -> Edges:
        """Gather rows."""
        return [nodes.index_select(0, self.edge_index[1])]

    def sum(self, edges: Sequence[Tensor], *, back: bool = False) -> Tensor:
        """Scatter rows."""
        return _sum(edges[0], self.edge_index[0 if back else 1], len(self.graph))

    def extreme(
        self, edges: Sequence[Tensor], *, largest: bool, back: bool = False, fill: float = 0.0
    ) -> Tensor:
        """Scatter rows."""
        index = self.edge_index[0 if back else 1][:, None].expand_as(edges[0])
        empty = edges[0].new_full((len(self.graph), edges[0].shape[1]), fill)
        how = "amax" if largest else "amin"
        return empty.scatter_reduce(0, index, edges[0], how, include_self=False)

    def pool(self, nodes: Tensor) -> Tensor:
        """Scatter rows."""
        return _mean(nodes, self.graph, self.num_graphs)

    def spread(self, graphs: Tensor) -> Tensor:
        """Gather rows."""
        return graphs.index_select(0, self.graph)

    def pool_edges(self, edges: Sequence[Tensor]) -> Tensor:
        """Scatter rows."""
        return _mean(edges[0], self.edge_graph, self.num_graphs)


def _sum(rows: Tensor, index: Tensor, length: int) -> Tensor:
    return rows.new_zeros(length, rows.shape[1]).index_add(0, index, rows)


def _count(index: Tensor, length: int) -> Tensor:
    """Count occurrences, ``[length, 1]``."""
    return torch.bincount(index, minlength=length)[:, None]


def _mean(rows: Tensor, index: Tensor, length: int) -> Tensor:
    return _sum(rows, index, length) / _count(index, length).clamp(min=1)
