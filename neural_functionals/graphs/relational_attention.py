"""Attention along the edges of a graph, which features of the edges take part in."""

from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from neural_functionals.graphs.topology import Topology
from zoo.errors import InvalidConfigError


class RelationalAttention(nn.Module):
    """Attention [1]_ of each node to itself and to the nodes at the other ends of its edges.

    Parameters
    ----------
    node_width, edge_width
        Features per node and per edge.
    width, num_heads
        Width of queries, keys and values of all heads together, and number of heads.
    back
        Whether sources attend to targets, too.

    Raises
    ------
    InvalidConfigError
        If the heads do not divide the width.

    References
    ----------
    .. [1] Diao, Loynd, "Relational Attention: Generalizing Transformers for Graph-Structured
       Tasks", ICLR 2023.
    """

    def __init__(
        self, node_width: int, edge_width: int, *, width: int, num_heads: int, back: bool
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise InvalidConfigError(
                f"Expected an attention width that {num_heads} heads divide, got {width}."
            )
        self.head_shape = (num_heads, width // num_heads)
        self.project = nn.Linear(node_width, 3 * width, bias=False)
        ways = (False, True) if back else (False,)
        self.directions = nn.ModuleList(
            Direction(edge_width, self.head_shape, back=way) for way in ways
        )
        self.out = nn.Sequential(nn.Linear(width, node_width), nn.Linear(node_width, node_width))

    def forward(self, topology: Topology, nodes: Tensor, edges: list[Tensor]) -> Tensor:
        """Map features of nodes to what they attend to, of the same shape."""
        query, key, value = self.project(nodes).chunk(3, dim=-1)
        own = _dot(query, key, self.head_shape)
        read = [one(topology, query, key, value, edges) for one in self.directions]
        largest = own.detach()
        for scores, _, back in read:
            near = [score.detach() for score in scores]
            found = topology.extreme(near, largest=True, back=back, fill=float("-inf"))
            largest = torch.maximum(largest, found)
        total = (own - largest).exp()
        result = _weighted(value, total)
        for scores, values, back in read:
            at = topology.sources(largest) if back else topology.targets(largest)
            weights = [(score - top).exp() for score, top in zip(scores, at, strict=True)]
            parts = [_weighted(*both) for both in zip(values, weights, strict=True)]
            total = total + topology.sum(weights, back=back)
            result = result + topology.sum(parts, back=back)
        attended: Tensor = self.out(_weighted(result, 1 / total))
        return attended


class Attention(NamedTuple):
    """Scores ``[..., heads]`` and values ``[..., channels]`` of edges, and which way they go."""

    scores: list[Tensor]
    values: list[Tensor]
    back: bool


class Direction(nn.Module):
    """Scores and values of edges for the nodes at one of their ends.

    Parameters
    ----------
    edge_width
        Features per edge.
    head_shape
        Number of heads, and width of each.
    back
        Whether sources attend to targets, in place of targets to sources.
    """

    def __init__(self, edge_width: int, head_shape: tuple[int, int], *, back: bool) -> None:
        super().__init__()
        self.back, self.head_shape = back, head_shape
        self.query, self.key, self.factor, self.shift = (
            nn.Linear(edge_width, prod(head_shape), bias=False) for _ in range(4)
        )

    def forward(
        self, topology: Topology, query: Tensor, key: Tensor, value: Tensor, edges: list[Tensor]
    ) -> Attention:
        """Read queries, keys and values of nodes, and features of edges."""
        here, there = topology.targets, topology.sources
        if self.back:
            here, there = there, here
        scores, values = [], []
        for edge, q, k, v in zip(edges, here(query), there(key), there(value), strict=True):
            scores.append(_dot(self.query(edge) + q, self.key(edge) + k, self.head_shape))
            values.append(torch.addcmul(self.shift(edge), self.factor(edge), v))
        return Attention(scores, values, self.back)


def _dot(queries: Tensor, keys: Tensor, head_shape: tuple[int, int]) -> Tensor:
    """Multiply queries with keys ``[..., channels]``: scores ``[..., heads]``."""
    products = queries * keys
    scores = products.view(*products.shape[:-1], *head_shape).sum(dim=-1)
    scaled: Tensor = scores * prod(head_shape) ** -0.5
    return scaled


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    """Multiply the channels of each head, ``[..., channels]``, by weights ``[..., heads]``."""
    heads = values.reshape(*weights.shape, values.shape[-1] // weights.shape[-1])
    result: Tensor = (heads * weights.unsqueeze(-1)).flatten(-2)
    return result
