"""Graph metanetworks: messages between nodes, edges and the whole of a parameter graph."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from neural_functionals.graphs import (
    GraphEncoder,
    GraphReader,
    GraphRoom,
    Graphs,
    Topology,
    draw_weights,
)
from neural_functionals.layers import perceptron
from neural_functionals.models.functional import NeuralFunctional, Reads, configure
from zoo.errors import InvalidConfigError
from zoo.space import WeightSpace

if TYPE_CHECKING:
    from torch_geometric.data import Batch


@dataclass(frozen=True, kw_only=True)
class GMNConfig:
    """Options of :class:`GMN`; widths and depth are a choice of ours, not the paper's.

    Parameters
    ----------
    width
        Features per node, per edge and of the whole.
    num_layers
        Rounds of messages.
    parallel_edges
        Whether every entry of a kernel has an edge of its own, as in the paper; if not, the entries
        of a kernel are features of one edge, which is as many times faster.
    hidden
        Widths of the head.
    room
        If given, the model also reads batches of mixed graphs that fit into it, see
        :func:`~neural_functionals.graphs.graph_room`.
    """

    width: int = 128
    num_layers: int = 4
    parallel_edges: bool = True
    hidden: tuple[int, ...] = (128,)
    room: GraphRoom | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "room", GraphRoom.from_plain(self.room))
        if min(self.width, self.num_layers, *self.hidden) < 1:
            raise InvalidConfigError(f"Expected positive widths and number of layers, got {self}.")


class GMN(NeuralFunctional):
    r"""Graph metanetwork in the style of Lim et al. [1]_, on any weight space.

    Units, inputs and outputs are nodes of the parameter graph, weights its edges; each entry of a
    kernel has an edge of its own, which knows its position. Rounds update edges, nodes and features
    ``u`` of the whole graph, as graph networks do [2]_:

    .. math::

        e_{ij} &\leftarrow e_{ij} + \mathrm{MLP}(v_i, v_j, e_{ij}, u) \\
        v_i &\leftarrow v_i + \mathrm{MLP}(v_i, \mathrm{mean}_j \mathrm{MLP}(v_i, v_j, e_{ij}, u),
            u) \\
        u &\leftarrow u + \mathrm{MLP}(\mathrm{mean}_i v_i, \mathrm{mean}_{ij} e_{ij}, u)

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
    Departures from the paper. Biases, gains, shifts and statistics of a unit are features of its
    node, not edges from a node that stands for the bias; they get to the same nodes. Units that
    residual connections make one neuron group are one node, so the connections need no edges.
    Messages also go backwards, by maps of their own, and are averaged. All updates are added to the
    state, which is normalised before it is read. Weights are normalised per orbit. Where messages
    end in linear maps, these act on their means.

    References
    ----------
    .. [1] Lim et al., "Graph Metanetworks for Processing Diverse Neural Architectures", ICLR 2024.
    .. [2] Battaglia et al., "Relational Inductive Biases, Deep Learning, and Graph Networks", arXiv
       1806.01261, 2018.

    Examples
    --------
    >>> import torch, zoo
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> space = zoo.trace(network, torch.zeros(1, 2))
    >>> model = GMN(space, width=8, num_layers=2)
    >>> weights = torch.randn(5, space.num_parameters)
    >>> relabelled = space.sample(torch.Generator().manual_seed(0))(weights)
    >>> torch.allclose(model(weights), model(relabelled), atol=1e-4)
    True
    """

    name: ClassVar[str] = "gmn"
    reads: ClassVar[Reads] = "weights"
    config: GMNConfig

    def __init__(
        self,
        space: WeightSpace,
        config: GMNConfig | None = None,
        *,
        num_outputs: int = 1,
        **overrides: Any,
    ) -> None:
        config = configure(config or GMNConfig(), overrides)
        super().__init__(space, config, num_outputs)
        self.reader = GraphReader(space, config.room, parallel=config.parallel_edges)
        self.encode = GraphEncoder(
            self.reader, node_width=config.width, edge_width=config.width, num_waves=0, sigma=1.0
        )
        self.start = nn.Parameter(torch.randn(config.width))
        num_plain = self.reader.room.graph_width
        self.plain = nn.Linear(num_plain, config.width, bias=False) if num_plain else None
        self.rounds = nn.ModuleList(Round(config.width) for _ in range(config.num_layers))
        self.head = perceptron(config.width, config.hidden, num_outputs)
        draw_weights(self)

    def forward(self, inputs: "Tensor | Batch") -> Tensor:
        """Map weights ``[batch, P]``, or mixed graphs, to ``[batch, num_outputs]``."""
        graphs = self.reader(inputs)
        nodes, edges = self.encode(graphs)
        state = State(nodes, edges, self._whole(graphs))
        for one in self.rounds:
            state = one(graphs.topology, state)
        outputs: Tensor = self.head(state.whole)
        return outputs

    def _whole(self, graphs: Graphs) -> Tensor:
        """First features of the whole: those of parameters that no node or edge has."""
        start = self.start.expand(len(graphs.whole), -1)
        return start if self.plain is None else start + self.plain(graphs.whole)

    def fit_statistics(self, inputs: Tensor) -> None:
        """Measure mean and standard deviation per orbit on weights ``[members, P]``."""
        self.reader.normalise.fit(inputs)


class State(NamedTuple):
    """Features of nodes, of edges, and of whole graphs ``[batch, width]``."""

    nodes: Tensor
    edges: list[Tensor]
    whole: Tensor


class Round(nn.Module):
    """One round: new edges, then new nodes, then a new whole.

    Parameters
    ----------
    width
        Features per node, per edge and of the whole.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.edge = nn.Sequential(Meeting(width), nn.Linear(width, width))
        self.messages = nn.ModuleList(Meeting(width) for _ in range(2))
        self.heard = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.node, self.whole = _perceptron(4 * width, width), _perceptron(3 * width, width)

    def forward(self, topology: Topology, state: State) -> State:
        """Map all features to new ones."""
        met = self.edge[0](topology, state)
        edges = [edge + self.edge[1](one) for edge, one in zip(state.edges, met, strict=True)]
        state = state._replace(edges=edges)
        nodes = state.nodes + self.node(torch.cat(self._read(topology, state), dim=-1))
        pooled = [topology.pool(nodes), topology.pool_edges(edges), state.whole]
        return State(nodes, edges, state.whole + self.whole(torch.cat(pooled, dim=-1)))

    def _read(self, topology: Topology, state: State) -> list[Tensor]:
        """Read a node's own features, what it hears both ways, and the whole."""
        parts = [state.nodes]
        for back, (message, linear) in enumerate(zip(self.messages, self.heard, strict=True)):
            parts.append(linear(topology.mean(message(topology, state), back=bool(back))))
        return [*parts, topology.spread(state.whole).expand_as(state.nodes)]


class Meeting(nn.Module):
    """The hidden layer of perceptrons that see an edge, both of its ends and the whole.

    Parameters
    ----------
    width
        Features per node, per edge and of the whole.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.Linear(width, width)
        self.source, self.target, self.whole = (
            nn.Linear(width, width, bias=False) for _ in range(3)
        )

    def forward(self, topology: Topology, state: State) -> list[Tensor]:
        """Map features to those of the hidden layer, per edge."""
        sources = topology.sources(self.source(state.nodes))
        targets = topology.targets(
            self.target(state.nodes) + topology.spread(self.whole(state.whole))
        )
        # Large new tensors are slow, but the first one must be new: what a linear map returns is a
        # view, and gradients of what is changed in place inside a view are copied at every step.
        return [
            (self.own(edge) + source).add_(target).relu_()
            for edge, source, target in zip(state.edges, sources, targets, strict=True)
        ]


def _perceptron(num_inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(num_inputs, width), nn.SiLU(), nn.Linear(width, width))
