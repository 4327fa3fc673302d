"""A network that reads others through products of their weight matrices alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neural_functionals.layers import OrbitNormalisation, WeightLayout, perceptron
from neural_functionals.layers.matrix_product import Flow, MatrixProduct, UnitMap, flows, respects
from neural_functionals.layers.scale_normalise import uncentre
from neural_functionals.layers.sign_messages import Gate
from neural_functionals.models.functional import (
    DOMAINS,
    EVERY_SYMMETRY,
    NeuralFunctional,
    Reads,
    Symmetry,
    configure,
)
from zoo.errors import InvalidConfigError
from zoo.space import WeightSpace


@dataclass(frozen=True, kw_only=True)
class MatrixProductNetworkConfig:
    """Options of :class:`MatrixProductNetwork`.

    Parameters
    ----------
    width
        Features per hidden unit.
    hidden
        Widths of the head.
    """

    width: int = 64
    hidden: tuple[int, ...] = (128, 128)

    def __post_init__(self) -> None:
        if min(self.width, *self.hidden) < 1:
            raise InvalidConfigError(f"Expected positive widths, got {self}.")


class MatrixProductNetwork(NeuralFunctional):
    r"""Vectors forward, covectors back: unchanged when hidden units are duplicated.

    Copying a unit and splitting its outgoing weights between the copies keeps a network's function.
    Networks that read weights entry by entry, or average over units, notice it, and fail on wider
    networks than they were trained on. This one does not: what it computes of a member is the same
    for any such widening, relabelling, factors and signs. Per layer :math:`l` with weights
    :math:`W` and biases :math:`b`, over features :math:`\Gamma` mixes,

    .. math::

        x_l &= W_l\, \psi_l(x_{l-1})\, \Gamma_l + b_l\, \gamma_l^T \\
        y_l &= \phi_l(x_l) \odot W_{l+1}^T\, y_{l+1}\, \Gamma'_l, \qquad
        p_l = \sum_i \psi_l(x_l)_i \Gamma''_l \odot y_{l,i}

    Vectors :math:`x` may enter any function of one unit, covectors :math:`y` are linear in the
    weights that leave it, and the head sees the pairings :math:`p`, beside the parameters that no
    unit owns. Convolutions have one product per kernel position, flattened ones one per pixel.

    Parameters
    ----------
    space
        Weight space of the members: layers of units, each read by later ones. Parameters do not
        depend on the widths of hidden layers, so one state dict serves all widths.
    config
        Options; keyword arguments replace fields of it.
    num_outputs
        Numbers to predict.

    Raises
    ------
    WeightSpaceMismatchError
        If the space is not of that kind (attention, weights that share both axes).

    Notes
    -----
    Our own design: matrix-product variants of metanetworks are known to stay exact under widening
    forwards; linear covectors make both directions exact. Factors are respected where one acts on
    all that enters a unit (any ReLU, tanh or sine layer); others, as those of BatchNorm or of units
    that are products of layers, are not divided out, and then not claimed. Weights are divided by
    their root mean square per orbit and never centred, for that would not be linear. Pairings enter
    the head through an inverse hyperbolic sine, since they grow with the product of all layers.

    Examples
    --------
    >>> import torch, zoo
    >>> def space_of(width):
    ...     layers = torch.nn.Linear(2, width), torch.nn.ReLU(), torch.nn.Linear(width, 1)
    ...     return zoo.trace(torch.nn.Sequential(*layers), torch.zeros(1, 2))
    >>> narrow, wide = (MatrixProductNetwork(space_of(n), width=8, hidden=(8,)) for n in (3, 4))
    >>> wide.load_state_dict(narrow.state_dict())
    <All keys matched successfully>
    >>> weights = torch.randn(5, narrow.source.num_parameters)
    >>> w = narrow.source.unflatten(weights)
    >>> for name in ("0.weight", "0.bias"):  # the last unit twice
    ...     w[name] = torch.cat([w[name], w[name][:, 2:]], dim=1)
    >>> kept, shared = w["2.weight"].split([2, 1], dim=2)
    >>> w["2.weight"] = torch.cat([kept, 0.3 * shared, 0.7 * shared], dim=2)
    >>> torch.allclose(wide(wide.source.flatten(w)), narrow(weights), atol=1e-5)
    True
    """

    name: ClassVar[str] = "matrix-product"
    reads: ClassVar[Reads] = "weights"
    symmetries: tuple[Symmetry, ...] = EVERY_SYMMETRY
    config: MatrixProductNetworkConfig

    def __init__(
        self,
        space: WeightSpace,
        config: MatrixProductNetworkConfig | None = None,
        *,
        num_outputs: int = 1,
        **overrides: Any,
    ) -> None:
        config = configure(config or MatrixProductNetworkConfig(), overrides)
        super().__init__(space, config, num_outputs)
        self.layout = WeightLayout(space)
        self.normalise = OrbitNormalisation(self.layout.orbit)
        self.flows, self.plain = flows(space, self.layout)
        kinds = (kind for kind, domain in DOMAINS.items() if respects(space, self.flows, domain))
        self.symmetries = ("permutation", *kinds)
        channels = [block.channels for block in self.layout.blocks()]
        self.vectors = nn.ModuleList(Vectors(flow, channels, config.width) for flow in self.flows)
        self.covectors = nn.ModuleList(
            Covectors(self.flows, at, channels, config.width) for at in range(len(self.flows))
        )
        self.pairs = nn.ModuleList(
            nn.Linear(config.width, config.width, bias=False) for _ in self.flows
        )
        num_features = config.width * len(self.flows) + sum(channels[at] for at in self.plain)
        self.head = perceptron(num_features, config.hidden, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map weights ``[batch, P]`` to ``[batch, num_outputs]``."""
        outputs: Tensor = self.head(self.invariants(inputs))
        return outputs

    def fit_statistics(self, inputs: Tensor) -> None:
        """Measure the root mean square of each orbit on weights ``[members, P]``."""
        self.normalise.fit(inputs)
        uncentre(self.normalise, torch.ones_like(self.normalise.mean, dtype=torch.bool))

    def invariants(self, weights: Tensor) -> Tensor:
        """Compute what the head reads of weights ``[batch, P]``: ``[batch, features]``."""
        blocks = self.layout.gather(self.normalise(weights))
        sent: list[Tensor] = []
        seen: list[Tensor] = []
        for layer in self.vectors:
            message, invariant = layer(blocks, sent)
            sent.append(message)
            seen.append(invariant)
        covectors: dict[int, Tensor] = {}
        for at in reversed(range(len(sent))):
            covectors[at] = self.covectors[at](blocks, covectors, seen[at])
        pairings = [
            (pair(x) * covectors[at]).sum(dim=1)
            for at, (pair, x) in enumerate(zip(self.pairs, sent, strict=True))
        ]
        return torch.cat([*pairings, *(blocks[at] for at in self.plain)], dim=1).asinh()


class Vectors(nn.Module):
    """Vectors of one group's units, from what enters them.

    Parameters
    ----------
    flow
        What enters.
    channels
        Features of each block.
    width
        Features of a vector.
    """

    def __init__(self, flow: Flow, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.flow = flow
        self.enter = nn.ModuleList(nn.Linear(channels[at], width, bias=False) for at in flow.enters)
        self.products = nn.ModuleList(
            MatrixProduct(channels[one.block], width) for one in flow.products
        )
        self.unit = UnitMap(flow, width)

    def forward(self, blocks: Sequence[Tensor], sent: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Map blocks and what earlier groups send, ``[batch, units, width]`` each."""
        terms = [
            linear(blocks[at]) for at, linear in zip(self.flow.enters, self.enter, strict=True)
        ]
        for one, product in zip(self.flow.products, self.products, strict=True):
            weights = blocks[one.block]
            weights = weights.transpose(1, 2) if one.transposed else weights
            terms.append(product(weights, sent[one.source]))
        result: tuple[Tensor, Tensor] = self.unit(sum(terms[1:], start=terms[0]))
        return result


class Covectors(nn.Module):
    """Covectors of one group's units, linear in what leaves them.

    Parameters
    ----------
    flows
        What enters and leaves each group.
    group
        Position of the group.
    channels
        Features of each block.
    width
        Features of a covector.
    """

    def __init__(
        self, flows: Sequence[Flow], group: int, channels: Sequence[int], width: int
    ) -> None:
        super().__init__()
        self.leaves = flows[group].leaves
        self.reads = [one for flow in flows for one in flow.products if one.source == group]
        self.leave = nn.ModuleList(nn.Linear(channels[at], width, bias=False) for at in self.leaves)
        self.products = nn.ModuleList(
            MatrixProduct(channels[one.block], width) for one in self.reads
        )
        self.gate = Gate(width, symmetric=flows[group].is_signed)

    def forward(
        self, blocks: Sequence[Tensor], later: dict[int, Tensor], invariant: Tensor
    ) -> Tensor:
        """Map blocks, covectors of later groups and what no factor of the units changes."""
        terms = [linear(blocks[at]) for at, linear in zip(self.leaves, self.leave, strict=True)]
        for one, product in zip(self.reads, self.products, strict=True):
            weights = blocks[one.block]
            weights = weights if one.transposed else weights.transpose(1, 2)
            terms.append(product(weights, later[one.target]))
        covectors: Tensor = sum(terms[1:], start=terms[0]) * self.gate(invariant)
        return covectors
