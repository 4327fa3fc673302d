"""First features of nodes and edges: linear maps of weights, or of random waves of them."""

from functools import partial
from math import pi

import torch
from torch import Tensor, nn
from torch.nn import functional

from neural_functionals.graphs.reading import GraphReader, Graphs


class RandomWaves(nn.Module):
    r"""Random Fourier features [1]_, :math:`[\cos 2 \pi B x, \sin 2 \pi B x]`.

    Parameters
    ----------
    num_inputs
        Features of the argument.
    num_waves
        Rows of :math:`B`, drawn once; there are twice as many features.
    sigma
        Standard deviation of the entries of :math:`B`.

    References
    ----------
    .. [1] Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions in Low
       Dimensional Domains", NeurIPS 2020.
    """

    frequencies: Tensor

    def __init__(self, num_inputs: int, num_waves: int, sigma: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", sigma * torch.randn(num_waves, num_inputs))

    def forward(self, features: Tensor, columns: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map features ``[..., inputs]``, or only ``columns`` of them with zeros for the others."""
        frequencies = self.frequencies if columns is None else self.frequencies[:, columns]
        with torch.autocast(features.device.type, enabled=False):  # angles need their digits
            angles = functional.linear(features, 2 * pi * frequencies)
        return angles.cos(), angles.sin()


class WaveProjection(nn.Module):
    """Random waves of weights, then two linear maps in a row, multiplied out before they act.

    Parameters
    ----------
    num_inputs
        Features of the argument.
    width
        Features of the result.
    num_waves, sigma
        See :class:`RandomWaves`; no waves, but the features themselves, if ``num_waves`` is 0.
    """

    def __init__(self, num_inputs: int, width: int, *, num_waves: int, sigma: float) -> None:
        super().__init__()
        self.waves = RandomWaves(num_inputs, num_waves, sigma) if num_waves else None
        self.inner = nn.Linear(2 * num_waves or num_inputs, width)
        self.outer = nn.Linear(width, width)

    def forward(self, features: Tensor, columns: Tensor | None = None) -> Tensor:
        """Map features ``[..., inputs]``, or only ``columns`` of them with zeros for the others."""
        weight = self.outer.weight @ self.inner.weight
        bias = functional.linear(self.inner.bias, self.outer.weight, self.outer.bias)
        if self.waves is not None:
            even, odd = self.waves(features, columns)
            halves = weight.chunk(2, dim=1)
            return functional.linear(even, halves[0], bias) + functional.linear(odd, halves[1])
        return functional.linear(features, weight if columns is None else weight[:, columns], bias)


class GraphEncoder(nn.Module):
    """First features of nodes and edges [1]_.

    Nodes know their bias and which input, output or hidden layer they are (of). Edges know their
    weights; where there are units inside others, whether they have any; and where there are several
    between two nodes, which one they are.

    Parameters
    ----------
    reader
        Lays out the weights.
    node_width, edge_width
        Features per node and per edge.
    num_waves, sigma
        Random waves, see :class:`RandomWaves`.

    References
    ----------
    .. [1] Kofinas et al., "Graph Neural Networks for Learning Equivariant Representations of Neural
       Networks", ICLR 2024.
    """

    def __init__(
        self,
        reader: GraphReader,
        *,
        node_width: int,
        edge_width: int,
        num_waves: int,
        sigma: float,
    ) -> None:
        super().__init__()
        room = reader.room
        num_places = room.num_inputs + room.num_hidden + room.num_outputs
        waves = partial(WaveProjection, num_waves=num_waves, sigma=sigma)
        num_features = len(reader.node_columns)
        self.nodes = waves(num_features, node_width) if num_features else None
        self.edges = waves(len(reader.edge_columns), edge_width)
        self.places = nn.Parameter(torch.randn(num_places, node_width))
        self.kinds = nn.Parameter(torch.randn(2, edge_width)) if room.nesting else None
        self.lanes = (
            nn.Parameter(torch.randn(room.num_lanes, edge_width)) if room.num_lanes > 1 else None
        )

    def forward(self, graphs: Graphs) -> tuple[Tensor, list[Tensor]]:
        """Return features of nodes and edges."""
        nodes = self.places[graphs.places].expand(*graphs.nodes.shape[:-1], -1)
        if self.nodes is not None:
            nodes = nodes + self.nodes(graphs.nodes)
        edges = []
        for features, columns, (kind, lane) in zip(
            graphs.edges, graphs.columns, graphs.edge_types, strict=True
        ):
            edge = self.edges(features, columns)
            if self.kinds is not None:
                edge = edge + self.kinds[kind]
            if self.lanes is not None:
                edge = edge + self.lanes[lane]
            edges.append(edge)
        return nodes, edges


@torch.no_grad()
def draw_weights(module: nn.Module) -> None:
    """Draw the weights of all linear maps anew: outputs have the variance of inputs; no biases."""
    for each in module.modules():
        if isinstance(each, nn.Linear):
            each.weight.normal_(std=each.in_features**-0.5)
            if each.bias is not None:
                each.bias.zero_()
