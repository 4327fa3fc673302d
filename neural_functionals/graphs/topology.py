"""Where messages go: from nodes to edges and back.

Models see one interface. Where all networks of a batch share a graph, each of its blocks is a plain
tensor ``[batch, copies, targets, sources, channels]``: what edges read at their ends is a view, and
what nodes collect is a reduction of an axis. Where graphs differ, edges are rows of one tensor, see
:class:`~neural_functionals.graphs.MixedTopology`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from neural_functionals.graphs.blocks import NodeSet
from neural_functionals.graphs.template import GraphTemplate

Edges = list[Tensor]
_COMBINE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": torch.add,
    "amax": torch.maximum,
    "amin": torch.minimum,
}


class Topology(ABC):
    """Reads features of nodes at edges, and reduces features of edges to nodes.

    Features of nodes are ``[*nodes, channels]``, those of edges a list of tensors. What
    :meth:`sources` and :meth:`targets` return broadcasts to the shapes of the edges.

    Attributes
    ----------
    in_degree, out_degree
        Number of edges that end or start at each node, int64; broadcast to features of nodes.
    """

    in_degree: Tensor
    out_degree: Tensor

    @abstractmethod
    def sources(self, nodes: Tensor) -> Edges:
        """Read the features of each edge's source."""

    @abstractmethod
    def targets(self, nodes: Tensor) -> Edges:
        """Read the features of each edge's target."""

    @abstractmethod
    def sum(self, edges: Sequence[Tensor], *, back: bool = False) -> Tensor:
        """Add up the edges that end at each node, or with ``back`` those that start there."""

    @abstractmethod
    def extreme(
        self, edges: Sequence[Tensor], *, largest: bool, back: bool = False, fill: float = 0.0
    ) -> Tensor:
        """Find the largest or smallest edge at each node, as :meth:`sum`; ``fill`` without any."""

    @abstractmethod
    def pool(self, nodes: Tensor) -> Tensor:
        """Average the nodes of each graph, ``[batch, channels]``."""

    @abstractmethod
    def spread(self, graphs: Tensor) -> Tensor:
        """Read features ``[batch, channels]`` of graphs at their nodes."""

    @abstractmethod
    def pool_edges(self, edges: Sequence[Tensor]) -> Tensor:
        """Average the edges of each graph, ``[batch, channels]``; zero without any."""

    def mean(self, edges: Sequence[Tensor], *, back: bool = False) -> Tensor:
        """Average edges at each node, as :meth:`sum`; zero without any."""
        degree = self.out_degree if back else self.in_degree
        return self.sum(edges, back=back) / degree.clamp(min=1)


class SharedTopology(nn.Module, Topology):
    """All networks of a batch have the graph of one template.

    Features of nodes are ``[batch, N, channels]``, those of edges one tensor ``[batch, copies,
    targets, sources, channels]`` per block.

    Parameters
    ----------
    template
        The graph.
    """

    in_degree: Tensor
    out_degree: Tensor

    def __init__(self, template: GraphTemplate) -> None:
        super().__init__()
        self.sizes = [each.size for each in template.node_sets]
        self.num_edges = template.num_edges
        blocks, sets = template.blocks, template.node_sets
        self._sources = [_Side(block.source, block.sources, sets[block.source]) for block in blocks]
        self._targets = [_Side(block.target, block.targets, sets[block.target]) for block in blocks]
        self.sides = nn.ModuleList([*self._sources, *self._targets])
        for name in ("in_degree", "out_degree"):
            degree = torch.from_numpy(getattr(template, name))[:, None]
            self.register_buffer(name, degree, persistent=False)

    def sources(self, nodes: Tensor) -> Edges:
        """Read views ``[batch, copies, 1, sources, channels]``, one per block."""
        sets = torch.split(nodes, self.sizes, dim=1)
        return [side.read(sets[side.at]).unsqueeze(2) for side in self._sources]

    def targets(self, nodes: Tensor) -> Edges:
        """Read views ``[batch, copies, targets, 1, channels]``, one per block."""
        sets = torch.split(nodes, self.sizes, dim=1)
        return [side.read(sets[side.at]).unsqueeze(3) for side in self._targets]

    def sum(self, edges: Sequence[Tensor], *, back: bool = False) -> Tensor:
        """Add up axes of blocks, ``[batch, N, channels]``."""
        sides, dim = (self._sources, 2) if back else (self._targets, 3)
        return self._collect([block.sum(dim=dim) for block in edges], sides, "sum", 0.0)

    def extreme(
        self, edges: Sequence[Tensor], *, largest: bool, back: bool = False, fill: float = 0.0
    ) -> Tensor:
        """Reduce axes of blocks, ``[batch, N, channels]``."""
        sides, dim = (self._sources, 2) if back else (self._targets, 3)
        reduced = [_extreme(block, dim=dim, largest=largest) for block in edges]
        return self._collect(reduced, sides, "amax" if largest else "amin", fill)

    def pool(self, nodes: Tensor) -> Tensor:
        """Average over nodes."""
        return nodes.mean(dim=1)

    def spread(self, graphs: Tensor) -> Tensor:
        """Read a view ``[batch, 1, channels]``."""
        return graphs.unsqueeze(1)

    def pool_edges(self, edges: Sequence[Tensor]) -> Tensor:
        """Average over the edges of all blocks."""
        total = torch.stack([block.flatten(1, 3).sum(dim=1) for block in edges]).sum(dim=0)
        return total / self.num_edges

    def _collect(
        self,
        reduced: Sequence[Tensor],
        sides: Sequence["_Side"],
        how: str,
        fill: float,
    ) -> Tensor:
        """Combine what blocks give to one set, and join sets; ``fill`` sets without blocks."""
        found: dict[int, Tensor] = {}
        for side, features in zip(sides, reduced, strict=True):
            own = side.reduce(features, how)
            found[side.at] = _COMBINE[how](found[side.at], own) if side.at in found else own
        batch, *_, channels = reduced[0].shape
        return torch.cat(
            [
                found[at] if at in found else reduced[0].new_full((batch, size, channels), fill)
                for at, size in enumerate(self.sizes)
            ],
            dim=1,
        )


class _Side(nn.Module):
    """One end of a block: nodes of set ``at``, seen as ``[copies, nodes per copy]``.

    Parallel edges see their sources several times.
    """

    order: Tensor | None

    def __init__(self, at: int, nodes: np.ndarray, owner: NodeSet) -> None:
        super().__init__()
        self.at, self.size, self.shape = at, owner.size, nodes.shape
        flat = nodes.ravel() - owner.start
        ordered = np.array_equal(flat, np.arange(owner.size))
        order = None if ordered else torch.from_numpy(flat)
        self.register_buffer("order", order, persistent=False)

    def read(self, nodes: Tensor) -> Tensor:
        """View a set ``[batch, size, channels]`` as ``[batch, copies, nodes, channels]``."""
        if self.order is not None:
            nodes = nodes.index_select(1, self.order)
        return nodes.reshape(len(nodes), *self.shape, nodes.shape[2])

    def reduce(self, features: Tensor, how: str) -> Tensor:
        """Undo :meth:`read`; features of one node are reduced to one."""
        flat = features.flatten(1, 2)
        if self.order is None:
            return flat
        empty = flat.new_zeros(len(flat), self.size, flat.shape[2])
        index = self.order[:, None].expand_as(flat)
        return empty.scatter_reduce(1, index, flat, how, include_self=False)


def _extreme(values: Tensor, *, dim: int, largest: bool) -> Tensor:
    """Find the largest or smallest values along an axis; equal ones share the gradient.

    As ``amax`` and ``amin``, whose gradients count equal values as integers, several times slower.
    """
    fixed = values.detach()
    found = fixed.amax(dim, keepdim=True) if largest else fixed.amin(dim, keepdim=True)
    share = (fixed == found).to(values.dtype)
    share /= share.sum(dim, keepdim=True)
    return (values * share).sum(dim)
