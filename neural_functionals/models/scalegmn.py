"""Scale equivariant graph metanetworks: message passing that respects factors and signs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from neural_functionals.layers import WeightLayout, perceptron
from neural_functionals.layers.scale_normalise import ScaleNormalisation
from neural_functionals.layers.sign_graph import EVEN, Edges, Sign, SignGraph
from neural_functionals.layers.sign_messages import (
    EdgeUpdate,
    Embedding,
    GatedEdges,
    GatedUpdate,
    SignInvariant,
    State,
    normalised,
)
from neural_functionals.models.functional import (
    EVERY_SYMMETRY,
    NeuralFunctional,
    Reads,
    Symmetry,
    configure,
)
from zoo.errors import InvalidConfigError
from zoo.space import WeightSpace

_DIRECTIONS: dict[str, tuple[int, ...]] = {"forward": (2,), "bidirectional": (2, 1)}


@dataclass(frozen=True, kw_only=True)
class ScaleGMNConfig:
    """Options of :class:`ScaleGMN`; the defaults are the paper's for predicting generalisation.

    Parameters
    ----------
    direction
        ``"forward"``: messages go from a layer to the next (ScaleGMN). ``"bidirectional"``: back,
        too (ScaleGMN-B).
    width
        Features per unit and per edge.
    num_layers
        Rounds of messages.
    hidden
        Widths of the head.
    """

    direction: Literal["forward", "bidirectional"] = "forward"
    width: int = 128
    num_layers: int = 4
    hidden: tuple[int, ...] = (128,)

    def __post_init__(self) -> None:
        if self.direction not in _DIRECTIONS:
            raise InvalidConfigError(
                f"Expected direction 'forward' or 'bidirectional' for ScaleGMN, got "
                f"{self.direction!r}."
            )
        if min(self.width, self.num_layers, *self.hidden) < 1:
            raise InvalidConfigError(f"Expected positive widths and number of layers, got {self}.")


class ScaleGMN(NeuralFunctional):
    r"""Scale equivariant graph metanetwork of Kalogeropoulos et al. [1]_ on any layered space.

    Units are nodes, weights between hidden layers edges. Per round, with :math:`\Gamma` linear,

    .. math::

        m_i &= \sum_j \mathrm{ScaleEq}(\Gamma_e e_{ij} \odot \Gamma_x x_j) \\
        x_i &\leftarrow x_i + \Gamma[x_i, m_i] \odot \mathrm{ScaleInv}([x_i, m_i]) \\
        e_{ij} &\leftarrow e_{ij} + \Gamma e_{ij} \odot \mathrm{ScaleInv}(x_i, x_j)

    (Sec. 5: ReScaleEq is the product in the first line, ScaleEq(y) a product of :math:`\Gamma y`
    and ScaleInv(y)). ScaleInv of signs is :math:`\phi(x) + \phi(-x)` (Sec. 5, symmetrisation).

    Parameters
    ----------
    space
        Weight space of the members. Which units have factors or signs is read from it; without
        any this is a plain graph network.
    config
        Options; keyword arguments replace fields of it.
    num_outputs
        Numbers to predict.

    Notes
    -----
    Departures from the paper.

    Positive factors are divided out once, by a reference of each unit (the root mean square of its
    incoming weights and bias, see :class:`~neural_functionals.layers.scaling.ScaleReference`), not
    in each ScaleInv by the norm of its argument, which leaves only the sign of a scalar bias or
    weight. This is as exact, and complete: features times powers of the references are
    equivariant. It takes BatchNorm's further factors, too.

    Backward edges need entries that scale like :math:`1 / e_{ij}`. Reciprocals of small weights
    explode, so the reference makes them: :math:`e_{ij} r_j^2 / r_i^2` scales alike, and divided by
    its references it is the forward entry. The authors' code forgets its reciprocals.

    Inputs and outputs of the network are channels, not nodes: the first map has a matrix of their
    own, in place of a position embedding. Messages and pooled units are averaged, not added; rounds
    add to the state, and read it divided by its root mean square, so depth and width do not change
    its scale. ScaleEq of messages omits its matrix, for linear maps come before and after it. The
    head reads the mean over the units of every layer, beside the parameters that no unit owns.

    References
    ----------
    .. [1] Kalogeropoulos, Bouritsas, Panagakis, "Scale Equivariant Graph Metanetworks", NeurIPS
       2024.

    Examples
    --------
    >>> import torch, zoo
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> space = zoo.trace(network, torch.zeros(1, 2))
    >>> model = ScaleGMN(space, direction="bidirectional", width=8, num_layers=2)
    >>> weights = torch.randn(5, space.num_parameters)
    >>> scaled = zoo.symmetry.sample_scale(space, torch.Generator().manual_seed(0))(weights)
    >>> torch.allclose(model(weights), model(scaled), atol=1e-5)
    True
    """

    name: ClassVar[str] = "scalegmn"
    reads: ClassVar[Reads] = "weights"
    symmetries: tuple[Symmetry, ...] = EVERY_SYMMETRY
    config: ScaleGMNConfig

    def __init__(
        self,
        space: WeightSpace,
        config: ScaleGMNConfig | None = None,
        *,
        num_outputs: int = 1,
        **overrides: Any,
    ) -> None:
        config = configure(config or ScaleGMNConfig(), overrides)
        super().__init__(space, config, num_outputs)
        layout = WeightLayout(space)
        graph, width = SignGraph(space, layout), config.width
        self.plain = graph.plain
        self.normalise = ScaleNormalisation(space, layout)
        self.embed = Embedding(graph, width)
        dims = _DIRECTIONS[config.direction]
        self.rounds = nn.ModuleList(
            Round(graph, width, dims, last=depth == config.num_layers - 1)
            for depth in range(config.num_layers)
        )
        self.read = SignInvariant(width, width, has_odd=any(graph.signs))
        num_plain = sum(layout.blocks()[at].channels for at in graph.plain)
        self.head = perceptron(len(graph.sizes) * width + num_plain, config.hidden, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map weights ``[batch, P]`` to ``[batch, num_outputs]``."""
        blocks = self.normalise(inputs)
        units, edges = self.embed(blocks)
        for one in self.rounds:
            units, edges = one(units, edges)
        pooled = [self.read(state).mean(dim=1) for state in units]
        outputs: Tensor = self.head(torch.cat([*pooled, *(blocks[at] for at in self.plain)], dim=1))
        return outputs

    def fit_statistics(self, inputs: Tensor) -> None:
        """Measure the scale of each orbit, without the units' factors, on ``[members, P]``."""
        self.normalise.fit(inputs)


class Round(nn.Module):
    """One round: messages along edges, then new states of units and, but for the last, of edges.

    Parameters
    ----------
    graph
        Units and edges.
    width
        Features per unit and edge.
    dims
        Axes of the edges from which messages are sent: 2 for sources, 1 for targets.
    last
        Whether edges are not read any more.
    """

    def __init__(self, graph: SignGraph, width: int, dims: tuple[int, ...], *, last: bool) -> None:
        super().__init__()
        self.graph, self.dims = graph, dims
        kinds = sorted({_kind(dim, edges) for dim in dims for edges in graph.edges})
        self.messages = nn.ModuleDict(
            {kind: GatedEdges(width, odd=kind.endswith("odd")) for kind in kinds}
        )
        num_read = width * (1 + len(dims))
        has_odd = any(graph.signs)
        self.invariant = SignInvariant(num_read, width, has_odd=has_odd)
        self.updates = nn.ModuleList(GatedUpdate(num_read, width) for _ in range(1 + has_odd))
        self.edge = EdgeUpdate(width) if graph.edges and not last else None

    def forward(
        self, units: Sequence[State], edges: Sequence[Tensor]
    ) -> tuple[list[State], list[Tensor]]:
        """Map states of units, one per group, and of edges to new ones."""
        read = self._listen([normalised(state) for state in units], edges)
        invariants = [self.invariant(one) for one in read]
        updated = [
            {
                sign: features + self.updates[int(sign != EVEN)](heard[sign], invariant)
                for sign, features in state.items()
            }
            for state, heard, invariant in zip(units, read, invariants, strict=True)
        ]
        if self.edge is None:
            return updated, list(edges)
        return updated, [
            self.edge(features, [invariants[end] for end in one.ends])
            for one, features in zip(self.graph.edges, edges, strict=True)
        ]

    def _listen(self, states: Sequence[State], edges: Sequence[Tensor]) -> list[State]:
        """Append to each state the messages from each direction, or zeros."""
        heard: dict[tuple[int, int, Sign], Tensor] = {}
        for one, features in zip(self.graph.edges, edges, strict=True):
            for dim in self.dims:
                senders = states[one.ends[dim - 1]][one.signs[dim - 1]]
                message = self.messages[_kind(dim, one)](features, senders, dim=dim)
                key = dim, one.ends[2 - dim], one.signs[2 - dim]
                heard[key] = heard[key] + message if key in heard else message
        return [
            {
                sign: torch.cat(
                    [
                        own,
                        *(heard.get((dim, at, sign), torch.zeros_like(own)) for dim in self.dims),
                    ],
                    dim=-1,
                )
                for sign, own in state.items()
            }
            for at, state in enumerate(states)
        ]


def _kind(dim: int, edges: Edges) -> str:
    """Name the messages of one direction that flip, or not, with senders and receivers."""
    senders, receivers = (
        "even" if edges.signs[end] == EVEN else "odd" for end in (dim - 1, 2 - dim)
    )
    return f"{'on' if dim == 2 else 'back'}-{senders}-{receivers}"
