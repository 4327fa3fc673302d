r"""Messages between hidden units that keep what signs do.

A unit has *even* features, which no sign changes, and *odd* ones where its signs may flip; edges
are ``[batch, targets, sources, width]``. Every map keeps that: what is odd is multiplied by even
gates, and gates see the odd only through :math:`\phi(x) + \phi(-x)`. Maps of single units are
computed per unit, never per edge.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from neural_functionals.layers.sign_graph import EVEN, Sign, SignGraph

_EPSILON = 1e-6


State = dict[Sign, Tensor]
"""Features of one group's units, ``[batch, units, width]`` for each way that signs flip them."""


def normalised(state: State) -> State:
    """Divide each unit's features by their root mean square, which keeps signs."""
    return {sign: _unit_rms(features) for sign, features in state.items()}


def _unit_rms(features: Tensor) -> Tensor:
    return features * (features.square().mean(dim=-1, keepdim=True) + _EPSILON).rsqrt()


class SignInvariant(nn.Module):
    r"""What of a unit no sign changes: ``(silu(Ax + By + c) + silu(-Ax + By + c)) / 2``, y even.

    Where features of a unit flip in several ways, the mean over these.

    Parameters
    ----------
    in_features, width
        Features of each part of a state, and of the result.
    has_odd
        Whether any unit has odd features.
    """

    def __init__(self, in_features: int, width: int, *, has_odd: bool) -> None:
        super().__init__()
        self.even = nn.Linear(in_features, width)
        self.odd = nn.Linear(in_features, width, bias=False) if has_odd else None

    def forward(self, state: State) -> Tensor:
        """Map features ``[..., in_features]`` to ``[..., width]``."""
        base: Tensor = self.even(state[EVEN])
        flipped = [
            self.odd(features)
            for sign, features in state.items()
            if sign != EVEN and self.odd is not None
        ]
        if not flipped:
            return functional.silu(base)
        both = [functional.silu(base + x) + functional.silu(base - x) for x in flipped]
        return sum(both[1:], start=both[0]) / (2 * len(both))


class Gate(nn.Module):
    r"""A perceptron of one hidden layer, :math:`W \mathrm{silu}(Ax + c) + d`, made even if asked.

    Parameters
    ----------
    width
        Features of the argument, the hidden layer and the result.
    symmetric
        Average the hidden layers of ``x`` and ``-x``, so that no sign changes the result.
    """

    def __init__(self, width: int, *, symmetric: bool) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width, bias=False)
        self.shift = nn.Parameter(torch.randn(width) / width**0.5)
        self.out = nn.Linear(width, width)
        self.is_symmetric = symmetric

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``[..., width]`` to ``[..., width]``."""
        hidden: Tensor = self.hidden(features)
        active = functional.silu(self.shift + hidden)
        if self.is_symmetric:
            active = (active + functional.silu(self.shift - hidden)) / 2
        result: Tensor = self.out(active)
        return result


class GatedEdges(nn.Module):
    r"""Messages from the units at one end of edges to those at the other, averaged.

    .. math:: m_i = \mathrm{mean}_j\; y_{ij} \odot \rho(y_{ij}), \qquad
       y_{ij} = \Gamma_e e_{ij} \odot \Gamma_x x_j

    with :math:`\rho` a :class:`Gate`, symmetric where messages are odd. Only
    :math:`y` is computed per edge; :math:`\Gamma_x x` is computed per unit.

    Parameters
    ----------
    width
        Features per unit and edge.
    odd
        Whether messages are odd.
    """

    def __init__(self, width: int, *, odd: bool) -> None:
        super().__init__()
        self.unit = nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(width, width, bias=False)
        self.gate = Gate(width, symmetric=odd)

    def forward(self, edges: Tensor, senders: Tensor, *, dim: int) -> Tensor:
        """Average messages.

        Parameters
        ----------
        edges
            ``[batch, targets, sources, width]``.
        senders
            Features of the units on axis ``dim`` of the edges, ``[batch, units, width]``.
        dim
            2 to send from sources to targets, 1 to send back.

        Returns
        -------
        Tensor
            ``[batch, receiving units, width]``.
        """
        products = self.edge(edges) * self.unit(senders).unsqueeze(3 - dim)
        messages: Tensor = products * self.gate(products)
        return messages.mean(dim=dim)


class EdgeUpdate(nn.Module):
    r""":math:`e_{ij} + \Gamma e_{ij} \odot \phi(a_i + b_j)` from even features of both ends.

    Parameters
    ----------
    width
        Features per unit and edge.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ends = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width, bias=False)])
        self.edge = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, width)

    def forward(self, edges: Tensor, ends: Sequence[Tensor]) -> Tensor:
        """Map edges ``[batch, targets, sources, width]``; ends are ``[batch, units, width]``."""
        target, source = (map_(end) for map_, end in zip(self.ends, ends, strict=True))
        hidden = functional.silu(target.unsqueeze(2) + source.unsqueeze(1))
        return torch.addcmul(edges, self.edge(edges), self.gate(hidden))


class GatedUpdate(nn.Module):
    r""":math:`\Gamma x \odot \rho(a)` with ``a`` what no sign changes.

    Parameters
    ----------
    num_read, width
        Features of ``x``, and of the result.
    """

    def __init__(self, num_read: int, width: int) -> None:
        super().__init__()
        self.value = nn.Linear(num_read, width, bias=False)
        self.gate = nn.Linear(width, width)

    def forward(self, read: Tensor, invariant: Tensor) -> Tensor:
        """Map features ``[..., num_read]`` and ``[..., width]`` to ``[..., width]``."""
        update: Tensor = self.value(read) * self.gate(invariant)
        return update


class Embedding(nn.Module):
    """First states of units and edges; each kind has a linear map of its own.

    Parameters
    ----------
    graph
        Units and edges.
    width
        Features per unit and edge.
    """

    def __init__(self, graph: SignGraph, width: int) -> None:
        super().__init__()
        self.graph, self.width = graph, width
        self.types = nn.Parameter(torch.randn(len(graph.sizes), width))
        self.units = nn.ModuleList(
            nn.Linear(len(one.channels), width, bias=False) for one in graph.units
        )
        self.edges = nn.ModuleList(
            nn.Linear(len(one.channels), width, bias=one.signs == (EVEN, EVEN))
            for one in graph.edges
        )

    def forward(self, blocks: Sequence[Tensor]) -> tuple[list[State], list[Tensor]]:
        """Map blocks ``[batch, *sizes, channels]`` to states of units and edges."""
        states = [self._empty(len(blocks[0]), group) for group in range(len(self.graph.sizes))]
        for one, linear in zip(self.graph.units, self.units, strict=True):
            features = linear(_pick(blocks[one.block], one.channels))
            states[one.group][one.sign] = states[one.group][one.sign] + features
        edges = []
        for edge, linear in zip(self.graph.edges, self.edges, strict=True):
            features = _pick(blocks[edge.block], edge.channels)
            edges.append(linear(features.transpose(1, 2) if edge.transposed else features))
        return states, edges

    def _empty(self, batch: int, group: int) -> State:
        """Return the state of units without parameters: their type, and zeros that may flip."""
        size, kind = self.graph.sizes[group], self.types[group]
        zeros = kind.new_zeros(batch, size, self.width)
        return {EVEN: zeros + kind} | dict.fromkeys(self.graph.signs[group], zeros)


def _pick(block: Tensor, channels: tuple[int, ...]) -> Tensor:
    """Pick channels of a block; returns the block itself if all are wanted."""
    return block if len(channels) == block.shape[-1] else block[..., list(channels)]
