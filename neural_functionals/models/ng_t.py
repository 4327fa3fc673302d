"""Neural graphs read by a relational transformer: attention that sees the edges."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from neural_functionals.graphs import (
    GraphEncoder,
    GraphReader,
    GraphRoom,
    Readout,
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
class NGTConfig:
    """Options of :class:`NGT`; defaults are the authors' for classifying implicit functions.

    Parameters
    ----------
    node_width, edge_width
        Features per node and per edge.
    attention_width, num_heads
        Width of queries, keys and values of all heads together, and number of heads.
    node_hidden, edge_hidden
        Widths of the hidden layers in updates.
    num_layers
        Rounds of attention.
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
    """

    node_width: int = 64
    edge_width: int = 32
    attention_width: int = 128
    num_heads: int = 8
    node_hidden: int = 128
    edge_hidden: int = 64
    num_layers: int = 4
    num_waves: int = 128
    sigma: float = 1.0
    hidden: tuple[int, ...] = (128,)
    readout: Literal["outputs", "mean"] = "outputs"
    room: GraphRoom | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "room", GraphRoom.from_plain(self.room))
        if self.readout not in ("outputs", "mean"):
            raise InvalidConfigError(
                f"Expected readout 'outputs' or 'mean' for NG-T, got {self.readout!r}."
            )
        widths = (self.node_width, self.edge_width, self.attention_width, self.num_heads)
        more = (self.node_hidden, self.edge_hidden, self.num_layers, *self.hidden)
        if min(*widths, *more) < 1 or self.num_waves < 0:
            raise InvalidConfigError(f"Expected positive widths and number of layers, got {self}.")
        if self.attention_width % self.num_heads:
            raise InvalidConfigError(
                f"Expected an attention width that {self.num_heads} heads divide, got "
                f"{self.attention_width}."
            )


class NGT(NeuralFunctional):
    r"""Relational transformer on neural graphs of Kofinas et al. [1]_, for any weight space.

    The relational transformer [2]_ adds features of edges to queries, keys and values of nodes;
    here they modulate values, too:

    .. math::

        q_{ij} &= W_q v_i + W'_q e_{ij}, \qquad k_{ij} = W_k v_j + W'_k e_{ij} \\
        u_{ij} &= W_m e_{ij} \odot W_v v_j + W'_v e_{ij} \\
        v_i &\leftarrow v_i + W \sum_j \mathrm{softmax}_j(q_{ij} \cdot k_{ij} / \sqrt{d})\, u_{ij}

    with :math:`d` the width of all heads together, as in the authors' code; followed by a
    perceptron per node, and by two per edge, of which the first sees both ends.

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
    Departures from the paper. A node attends to itself and to the nodes that it has edges to or
    from, not to all nodes. An edge has one state, which its two directions read through maps of
    their own, where the paper has a state for every ordered pair of nodes. Weights are normalised
    per orbit. Units that residual connections make one neuron group are one set of nodes. The mean
    over all nodes is read beside the outputs where some node is more than ``num_layers`` edges away
    from these. Weights start so that outputs have unit variance. Activation embeddings and probe
    features are left out.

    References
    ----------
    .. [1] Kofinas et al., "Graph Neural Networks for Learning Equivariant Representations of Neural
       Networks", ICLR 2024.
    .. [2] Diao, Loynd, "Relational Attention: Generalizing Transformers for Graph-Structured
       Tasks", ICLR 2023.

    Examples
    --------
    >>> import torch, zoo
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> space = zoo.trace(network, torch.zeros(1, 2))
    >>> model = NGT(space, node_width=8, edge_width=4, attention_width=8, num_heads=2)
    >>> weights = torch.randn(5, space.num_parameters)
    >>> relabelled = space.sample(torch.Generator().manual_seed(0))(weights)
    >>> torch.allclose(model(weights), model(relabelled), atol=1e-4)
    True
    """

    name: ClassVar[str] = "ng-t"
    reads: ClassVar[Reads] = "weights"
    config: NGTConfig

    def __init__(
        self,
        space: WeightSpace,
        config: NGTConfig | None = None,
        *,
        num_outputs: int = 1,
        **overrides: Any,
    ) -> None:
        config = configure(config or NGTConfig(), overrides)
        super().__init__(space, config, num_outputs)
        self.reader = GraphReader(space, config.room)
        self.encode = GraphEncoder(
            self.reader,
            node_width=config.node_width,
            edge_width=config.edge_width,
            num_waves=config.num_waves,
            sigma=config.sigma,
        )
        self.read = Readout(
            self.reader,
            config.node_width,
            num_rounds=config.num_layers,
            outputs=config.readout == "outputs",
            both_ways=True,
        )
        lasts = [depth == config.num_layers - 1 for depth in range(config.num_layers)]
        self.rounds = nn.ModuleList(
            Round(config, last=last, back=not last or self.read.reads_mean) for last in lasts
        )
        self.head = perceptron(self.read.num_features, config.hidden, num_outputs)
        draw_weights(self)

    def forward(self, inputs: "Tensor | Batch") -> Tensor:
        """Map weights ``[batch, P]``, or mixed graphs, to ``[batch, num_outputs]``."""
        graphs = self.reader(inputs)
        nodes, edges = self.encode(graphs)
        for one in self.rounds:
            nodes, edges = one(graphs.topology, nodes, edges)
        outputs: Tensor = self.head(self.read(graphs, nodes))
        return outputs

    def fit_statistics(self, inputs: Tensor) -> None:
        """Measure mean and standard deviation per orbit on weights ``[members, P]``."""
        self.reader.normalise.fit(inputs)


class Round(nn.Module):
    """One round: attention, a perceptron per node, and but for the last round new edges.

    Parameters
    ----------
    config
        Widths.
    last
        Whether edges are not needed any more.
    back
        Whether sources attend to targets, too: network outputs are no sources.
    """

    def __init__(self, config: NGTConfig, *, last: bool, back: bool) -> None:
        super().__init__()
        width = config.node_width
        self.attend = RelationalAttention(config, back=back)
        self.attended, self.thought = nn.LayerNorm(width), nn.LayerNorm(width)
        self.think = _perceptron(width, config.node_hidden)
        self.edge = None if last else EdgeUpdate(config)

    def forward(
        self, topology: Topology, nodes: Tensor, edges: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Map features of nodes and edges to new ones."""
        nodes = self.attended(nodes + self.attend(topology, nodes, edges))
        nodes = self.thought(nodes + self.think(nodes))
        return nodes, edges if self.edge is None else self.edge(topology, nodes, edges)


class RelationalAttention(nn.Module):
    """Attention of each node to itself and to the nodes at the other ends of its edges.

    Parameters
    ----------
    config
        Widths.
    back
        Whether sources attend to targets, too.
    """

    def __init__(self, config: NGTConfig, *, back: bool) -> None:
        super().__init__()
        width = config.attention_width
        self.head_shape = (config.num_heads, width // config.num_heads)
        self.project = nn.Linear(config.node_width, 3 * width, bias=False)
        ways = (False, True) if back else (False,)
        self.directions = nn.ModuleList(Direction(config, back=way) for way in ways)
        self.out = nn.Sequential(
            nn.Linear(width, config.node_width), nn.Linear(config.node_width, config.node_width)
        )

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
    config
        Widths.
    back
        Whether sources attend to targets, in place of targets to sources.
    """

    def __init__(self, config: NGTConfig, *, back: bool) -> None:
        super().__init__()
        width = config.attention_width
        self.back = back
        self.head_shape = (config.num_heads, width // config.num_heads)
        self.query, self.key, self.factor, self.shift = (
            nn.Linear(config.edge_width, width, bias=False) for _ in range(4)
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


class EdgeUpdate(nn.Module):
    """New features of edges from their own and those of both ends.

    Parameters
    ----------
    config
        Widths.
    """

    def __init__(self, config: NGTConfig) -> None:
        super().__init__()
        width, hidden = config.edge_width, config.edge_hidden
        self.own = nn.Linear(width, hidden)
        self.source = nn.Linear(config.node_width, hidden, bias=False)
        self.target = nn.Linear(config.node_width, hidden, bias=False)
        self.out = nn.Linear(hidden, width)
        self.met, self.thought = nn.LayerNorm(width), nn.LayerNorm(width)
        self.think = _perceptron(width, hidden)

    def forward(self, topology: Topology, nodes: Tensor, edges: list[Tensor]) -> list[Tensor]:
        """Map features of edges to new ones."""
        sources, targets = (
            topology.sources(self.source(nodes)),
            topology.targets(self.target(nodes)),
        )
        updated = []
        for edge, source, target in zip(edges, sources, targets, strict=True):
            met = self.met(edge + self.out(functional.gelu(self.own(edge) + source + target)))
            updated.append(self.thought(met + self.think(met)))
        return updated


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


def _perceptron(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, width))
