"""Neural graphs read by a relational transformer: attention that sees the edges."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from neural_functionals.graphs import RelationalAttention, Topology, draw_weights
from neural_functionals.models.functional import configure
from neural_functionals.models.neural_graph import NeuralGraphConfig, NeuralGraphFunctional
from zoo.space import WeightSpace


@dataclass(frozen=True, kw_only=True)
class NGTConfig(NeuralGraphConfig):
    """Options of :class:`NGT`; defaults are the authors' for classifying implicit functions.

    Parameters
    ----------
    node_width, edge_width
        Features per node and per edge.
    attention_width, num_heads
        Width of queries, keys and values of all heads together, and number of heads.
    node_hidden, edge_hidden
        Widths of the hidden layers in updates.
    """

    node_width: int = 64
    edge_width: int = 32
    attention_width: int = 128
    num_heads: int = 8
    node_hidden: int = 128
    edge_hidden: int = 64
    sigma: float = 1.0
    hidden: tuple[int, ...] = (128,)

    def widths(self) -> tuple[int, ...]:
        """All widths but the head's."""
        node = (self.node_width, self.node_hidden, self.attention_width, self.num_heads)
        return *node, self.edge_width, self.edge_hidden


class NGT(NeuralGraphFunctional):
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
    from these. Weights start so that outputs have unit variance. Probe features (``num_probes``)
    are added to nodes. Activation embeddings are left out.

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
        super().__init__(
            space,
            config,
            num_outputs,
            node_width=config.node_width,
            edge_width=config.edge_width,
            both_ways=True,
        )
        lasts = [depth == config.num_layers - 1 for depth in range(config.num_layers)]
        self.rounds = nn.ModuleList(
            Round(config, last=last, back=not last or self.read.reads_mean) for last in lasts
        )
        draw_weights(self)


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
        self.attend = RelationalAttention(
            config.node_width,
            config.edge_width,
            width=config.attention_width,
            num_heads=config.num_heads,
            back=back,
        )
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


def _perceptron(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, width))
