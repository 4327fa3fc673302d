"""Neural graphs read by a graph network: principal neighbourhood aggregation, edges that learn."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from neural_functionals.graphs import Topology, draw_weights
from neural_functionals.models.functional import configure
from neural_functionals.models.neural_graph import NeuralGraphConfig, NeuralGraphFunctional
from zoo.space import WeightSpace

_NUM_REDUCTIONS = 4  # mean, minimum, maximum, standard deviation
_FLAT = 1e-5  # variances up to this count as none


@dataclass(frozen=True, kw_only=True)
class NGGNNConfig(NeuralGraphConfig):
    """Options of :class:`NGGNN`; defaults are the authors' for classifying implicit functions.

    Parameters
    ----------
    width
        Features per node and per edge.
    """

    width: int = 32

    def widths(self) -> tuple[int, ...]:
        """All widths but the head's."""
        return (self.width,)


class NGGNN(NeuralGraphFunctional):
    r"""Graph network on neural graphs of Kofinas et al. [1]_, for any weight space.

    Nodes are units, inputs and outputs with biases as features, edges are weights. Each round sends
    messages that edges modulate, reduces them by principal neighbourhood aggregation [2]_ and
    updates the edges:

    .. math::

        m_{ij} &= \mathrm{scale}(e_{ij}) \odot W [v_i, v_j] + \mathrm{shift}(e_{ij}) \\
        v_i &\leftarrow \sigma(\mathrm{norm}(W [v_i, s_d \otimes \{\mathrm{mean}, \min, \max,
            \mathrm{std}\}_j\, m_{ij}])) \\
        e_{ij} &\leftarrow W \sigma(W_e e_{ij} + W_s v_j + W_t v_i)

    with :math:`s_d` one and :math:`\log(d + 1)` per its mean for in-degree ``d``, and
    :math:`\sigma` SiLU.

    Parameters
    ----------
    space
        Weight space of the members.
    config
        Options; keyword arguments replace fields of it.
    num_outputs
        Numbers to predict.

    Notes
    -----
    Departures from the paper. Edges are those of the network, in one tensor per layer; linear maps
    of nodes act on nodes, not on edges. Weights are normalised per orbit. Normalisation layers
    measure each network by itself; in the authors' code they measure the whole batch, so a
    network's output depends on the others. Units that residual connections make one neuron group
    are one set of nodes. The mean over all nodes is read beside the outputs where some node is more
    than ``num_layers`` edges away from these. Weights start so that outputs have the variance of
    inputs. Probe features (``num_probes``) are added to nodes. Activation embeddings
    are left out.

    References
    ----------
    .. [1] Kofinas et al., "Graph Neural Networks for Learning Equivariant Representations of Neural
       Networks", ICLR 2024.
    .. [2] Corso et al., "Principal Neighbourhood Aggregation for Graph Nets", NeurIPS 2020.

    Examples
    --------
    >>> import torch, zoo
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> space = zoo.trace(network, torch.zeros(1, 2))
    >>> model = NGGNN(space, width=8, num_layers=2, num_waves=4)
    >>> weights = torch.randn(5, space.num_parameters)
    >>> relabelled = space.sample(torch.Generator().manual_seed(0))(weights)
    >>> torch.allclose(model(weights), model(relabelled), atol=1e-5)
    True
    """

    name: ClassVar[str] = "ng-gnn"
    config: NGGNNConfig

    def __init__(
        self,
        space: WeightSpace,
        config: NGGNNConfig | None = None,
        *,
        num_outputs: int = 1,
        **overrides: Any,
    ) -> None:
        config = configure(config or NGGNNConfig(), overrides)
        width = config.width
        super().__init__(
            space, config, num_outputs, node_width=width, edge_width=width, both_ways=False
        )
        degrees = torch.from_numpy(self.reader.template.in_degree)
        scale = float(degrees.add(1).log().mean())
        lasts = [depth == config.num_layers - 1 for depth in range(config.num_layers)]
        self.rounds = nn.ModuleList(
            Round(width, mean_log_degree=scale, last=last) for last in lasts
        )
        draw_weights(self)


class Round(nn.Module):
    """One round: messages, aggregation, new nodes, and but for the last round new edges.

    Parameters
    ----------
    width
        Features per node and per edge.
    mean_log_degree
        Mean over nodes of the logarithm of one more than the in-degree.
    last
        Whether neither edges nor normalised nodes are needed any more.
    """

    mean_log_degree: Tensor

    def __init__(self, width: int, *, mean_log_degree: float, last: bool) -> None:
        super().__init__()
        self.register_buffer("mean_log_degree", torch.tensor(mean_log_degree))
        self.scale, self.shift = nn.Linear(width, width), nn.Linear(width, width)
        self.source = nn.Linear(width, width, bias=False)
        self.target = nn.Linear(width, width)
        self.update = nn.Sequential(
            nn.Linear((1 + 2 * _NUM_REDUCTIONS) * width, width), nn.Linear(width, width)
        )
        self.norm = None if last else NetworkNorm(width)
        self.edge = None if last else EdgeUpdate(width)

    def forward(
        self, topology: Topology, nodes: Tensor, edges: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Map features of nodes and edges to new ones."""
        ends = zip(
            edges,
            topology.sources(self.source(nodes)),
            topology.targets(self.target(nodes)),
            strict=True,
        )
        messages = [
            torch.addcmul(self.shift(edge), self.scale(edge), source + target)
            for edge, source, target in ends
        ]
        heard = self._aggregate(topology, messages)
        amplified = heard * (topology.in_degree.to(heard.dtype).log1p() / self.mean_log_degree)
        nodes = self.update(torch.cat([nodes, heard, amplified], dim=-1))
        if self.norm is None or self.edge is None:
            return nodes, edges
        nodes = functional.silu(self.norm(topology, nodes))
        return nodes, self.edge(topology, nodes, edges)

    @staticmethod
    def _aggregate(topology: Topology, messages: list[Tensor]) -> Tensor:
        """Reduce messages to their mean, minimum, maximum and standard deviation."""
        mean = topology.mean(messages)
        centres = topology.targets(mean.detach())  # deviations add up to zero: no gradient
        variance = topology.mean(
            [(message - centre).square() for message, centre in zip(messages, centres, strict=True)]
        )
        std = variance.clamp(min=_FLAT).sqrt().masked_fill(variance <= _FLAT, 0.0)
        smallest, largest = (topology.extreme(messages, largest=which) for which in (False, True))
        return torch.cat([mean, smallest, largest, std], dim=-1)


class EdgeUpdate(nn.Module):
    """New features of edges from their own and those of both ends.

    Parameters
    ----------
    width
        Features per node and per edge.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.Linear(width, width)
        self.source, self.target = nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, topology: Topology, nodes: Tensor, edges: list[Tensor]) -> list[Tensor]:
        """Map features of edges to new ones."""
        ends = zip(
            edges,
            topology.sources(self.source(nodes)),
            topology.targets(self.target(nodes)),
            strict=True,
        )
        return [
            self.out(functional.silu(self.own(edge) + source + target))
            for edge, source, target in ends
        ]


class NetworkNorm(nn.Module):
    """Normalises all features of all nodes of a network to mean 0 and variance 1 together.

    Parameters
    ----------
    width
        Features per node; each has a factor and a shift of its own.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, topology: Topology, nodes: Tensor) -> Tensor:
        """Map features of nodes to new ones."""
        mean = topology.pool(nodes).mean(dim=1, keepdim=True)
        centred = nodes - topology.spread(mean)
        variance = topology.pool(centred.square()).mean(dim=1, keepdim=True)
        factor = topology.spread(1 / (variance.sqrt() + _FLAT))
        return centred * factor * self.weight + self.bias
