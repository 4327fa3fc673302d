"""What readers of neural graphs share: graph in, rounds, features of outputs, head."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor, nn

from neural_functionals.graphs import GraphEncoder, GraphReader, GraphRoom, ProbeFeatures, Readout
from neural_functionals.layers import perceptron
from neural_functionals.models.functional import NeuralFunctional, Reads
from zoo.errors import InvalidConfigError
from zoo.space import WeightSpace

if TYPE_CHECKING:
    from torch_geometric.data import Batch


@dataclass(frozen=True, kw_only=True)
class NeuralGraphConfig(ABC):
    """Options of every reader of neural graphs; defaults are the authors'.

    Parameters
    ----------
    num_layers
        Rounds of messages.
    num_waves, sigma
        Random Fourier features of weights and biases; none, but the weights themselves, if
        ``num_waves`` is 0.
    hidden
        Widths of the head.
    readout
        ``"outputs"``: the features of all network outputs; ``"mean"``: the mean over all nodes.
    room
        If given, the model also reads batches of mixed graphs that fit into it, see
        :func:`~neural_functionals.graphs.graph_room`.
    num_probes
        Learned inputs on which members are run; what units compute on them become features of
        nodes, see :class:`~neural_functionals.graphs.probing.ProbeFeatures`. The paper uses 64 for
        some results.
    network
        With probes, the network of the members, as :func:`zoo.networks.build` takes it; training
        fills it in.
    """

    num_layers: int = 4
    num_waves: int = 128
    sigma: float = 3.0
    hidden: tuple[int, ...] = (32, 32)
    readout: Literal["outputs", "mean"] = "outputs"
    room: GraphRoom | None = None
    num_probes: int = 0
    network: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "room", GraphRoom.from_plain(self.room))
        if self.readout not in ("outputs", "mean"):
            raise InvalidConfigError(
                f"Expected readout 'outputs' or 'mean' for neural graphs, got {self.readout!r}."
            )
        widths = (self.num_layers, *self.widths(), *self.hidden)
        if min(widths) < 1 or min(self.num_waves, self.num_probes) < 0:
            raise InvalidConfigError(f"Expected positive widths and number of layers, got {self}.")
        if self.num_probes and self.room is not None:
            raise InvalidConfigError(
                f"Expected either probes, which run members of one network, or room for mixed "
                f"graphs, got num_probes={self.num_probes} and {self.room}."
            )

    @abstractmethod
    def widths(self) -> tuple[int, ...]:
        """All widths but the head's."""


class NeuralGraphFunctional(NeuralFunctional):
    """A network that passes messages along the graph of a weight space.

    Weights become features of nodes and edges; ``rounds``, which subclasses make, map these to new
    ones; a perceptron reads the nodes that are network outputs.

    Parameters
    ----------
    space, config, num_outputs
        As of the model.
    node_width, edge_width
        Features per node and per edge.
    both_ways
        Whether rounds send messages against the edges, too.
    """

    reads: ClassVar[Reads] = "weights"
    config: NeuralGraphConfig
    rounds: nn.ModuleList

    def __init__(
        self,
        space: WeightSpace,
        config: NeuralGraphConfig,
        num_outputs: int,
        *,
        node_width: int,
        edge_width: int,
        both_ways: bool,
    ) -> None:
        super().__init__(space, config, num_outputs)
        self.reader = GraphReader(space, config.room)
        self.encode = GraphEncoder(
            self.reader,
            node_width=node_width,
            edge_width=edge_width,
            num_waves=config.num_waves,
            sigma=config.sigma,
        )
        self.probe = self._probes(space, config, node_width) if config.num_probes else None
        self.read = Readout(
            self.reader,
            node_width,
            num_rounds=config.num_layers,
            outputs=config.readout == "outputs",
            both_ways=both_ways,
        )
        self.head = perceptron(self.read.num_features, config.hidden, num_outputs)

    def _probes(self, space: WeightSpace, config: NeuralGraphConfig, width: int) -> ProbeFeatures:
        return ProbeFeatures(
            self.reader.template,
            space,
            network=config.network,
            num_probes=config.num_probes,
            width=width,
        )

    def forward(self, inputs: "Tensor | Batch") -> Tensor:
        """Map weights ``[batch, P]``, or mixed graphs, to ``[batch, num_outputs]``."""
        graphs = self.reader(inputs)
        nodes, edges = self.encode(graphs)
        if self.probe is not None:
            nodes = nodes + self.probe(inputs)
        for one in self.rounds:
            nodes, edges = one(graphs.topology, nodes, edges)
        outputs: Tensor = self.head(self.read(graphs, nodes))
        return outputs

    def fit_statistics(self, inputs: Tensor) -> None:
        """Measure mean and standard deviation per orbit on weights ``[members, P]``."""
        self.reader.normalise.fit(inputs)
