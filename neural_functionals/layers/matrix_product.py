"""Maps through products of weight matrices, which duplicating hidden units does not change.

Copy a unit with all that enters it, and split what leaves it between the copies: the network's
function stays, and so does every sum over units of something *linear* in their outgoing weights,
however it depends on their incoming ones. Two kinds of unit features follow. A *vector* is any
function of what enters a unit: copies have equal ones, and the next layer's pass through a product
with the weights between. A *covector* is linear in what leaves a unit: copies share it, and sums
over units of a vector times a covector are invariant.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neural_functionals.layers.features import WeightLayout
from neural_functionals.layers.scaling import scale_degrees
from neural_functionals.layers.sign_graph import axis_role
from neural_functionals.layers.sign_messages import Gate
from zoo.errors import WeightSpaceMismatchError
from zoo.space import Domain, WeightSpace

_EPSILON = 1e-24


@dataclass(frozen=True)
class Product:
    """Weights between two groups: a block, its source and target, and which is listed first."""

    block: int
    source: int
    target: int
    transposed: bool


@dataclass(frozen=True, kw_only=True)
class Flow:
    """What enters and leaves the units of one group.

    Parameters
    ----------
    enters, leaves
        Blocks of the group alone: biases, weights of the inputs and parameters of the units; and
        weights to the outputs.
    products
        Weights from earlier groups.
    is_scaled, is_signed
        Whether a positive factor, or a sign, multiplies all that enters.
    """

    enters: tuple[int, ...]
    leaves: tuple[int, ...]
    products: tuple[Product, ...]
    is_scaled: bool
    is_signed: bool


def flows(space: WeightSpace, layout: WeightLayout) -> tuple[list[Flow], list[int]]:
    """Order hidden units from the inputs to the outputs.

    Returns
    -------
    list of Flow
        Per group; products come from groups before it, whose positions they name.
    list of int
        Blocks that no group moves.

    Raises
    ------
    WeightSpaceMismatchError
        If weights do not lead from layers of units to later ones.
    """
    names = list(_ordered(space, layout))
    products: list[list[Product]] = [[] for _ in names]
    enters: list[list[int]] = [[] for _ in names]
    leaves: list[list[int]] = [[] for _ in names]
    plain = []
    for at, (block, field) in enumerate(zip(layout.blocks(), layout.fields, strict=True)):
        ends = [names.index(name) for name in block.groups]
        incoming = [axis_role(space, field.tensor, name) != "in" for name in block.groups]
        if len(ends) == 2:
            source, target = ends if incoming[1] else reversed(ends)
            products[target].append(Product(at, source, target, transposed=incoming[1]))
        elif len(ends) == 1:
            (enters if incoming[0] else leaves)[ends[0]].append(at)
        else:
            plain.append(at)
    read = {one.source for arriving in products for one in arriving}
    for at, name in enumerate(names):
        if not (enters[at] or products[at]) or not (leaves[at] or at in read):
            raise _unsuitable(space, f"nothing enters or nothing leaves {name!r}")
    return [
        Flow(
            enters=tuple(enters[at]),
            leaves=tuple(leaves[at]),
            products=tuple(products[at]),
            is_scaled=_is_common(space, layout, name, "positive"),
            is_signed=_is_common(space, layout, name, "sign"),
        )
        for at, name in enumerate(names)
    ], plain


def respects(space: WeightSpace, found: Sequence[Flow], domain: Domain) -> bool:
    """Tell whether every factor of a kind is one that multiplies all that enters its unit."""
    count = sum(flow.is_scaled if domain == "positive" else flow.is_signed for flow in found)
    return count == sum(one.domain == domain for one in space.scalings)


def _ordered(space: WeightSpace, layout: WeightLayout) -> Iterator[str]:
    """List groups, each after those that lead to it."""
    sources: dict[str, set[str]] = {group.name: set() for group in space.groups}
    for block, field in zip(layout.blocks(), layout.fields, strict=True):
        reads = [axis_role(space, field.tensor, name) == "in" for name in block.groups]
        if len(block.groups) > 2 or (len(block.groups) == 2 and sum(reads) != 1):
            raise _unsuitable(space, f"{field.tensor!r} does not lead from one group to another")
        if len(block.groups) == 2:
            source, target = block.groups if reads[0] else reversed(block.groups)
            sources[target].add(source)
    while sources:
        ready = next((name for name, needs in sources.items() if not needs & set(sources)), None)
        if ready is None:
            raise _unsuitable(space, f"{next(iter(sources))!r} leads to itself")
        del sources[ready]
        yield ready


def _unsuitable(space: WeightSpace, reason: str) -> WeightSpaceMismatchError:
    return WeightSpaceMismatchError(
        f"Expected a network whose weights lead from layers of units to later ones, but in weight "
        f"space {space.fingerprint} {reason}. Use a model of complete equivariant maps."
    )


def _is_common(space: WeightSpace, layout: WeightLayout, group: str, domain: Domain) -> bool:
    """Whether one factor of a group's units multiplies all that enters them, to the power 1."""
    owners = [one.group for one in space.scalings if one.domain == domain]
    own = [at for at, owner in enumerate(owners) if owner == group]
    degrees = scale_degrees(space, layout, domain)
    return len(own) == 1 and all(
        bool((degrees[at][:, own] == 1).all())
        for at, (block, field) in enumerate(zip(layout.blocks(), layout.fields, strict=True))
        if group in block.groups and axis_role(space, field.tensor, group) != "in"
    )


class UnitMap(nn.Module):
    r"""A function of a unit's vector that factors and signs of the unit multiply likewise.

    .. math:: \psi(x) = \Gamma z \odot \rho(\hat x)

    with :math:`\rho` a :class:`~neural_functionals.layers.sign_messages.Gate`. Where a positive
    factor acts, :math:`\hat x` is :math:`x` over its root mean square and :math:`z = x`; elsewhere
    both are :math:`x / \sqrt{1 + \mathrm{mean}\,x^2}`, which is bounded.

    Parameters
    ----------
    flow
        Which factors act on the units.
    width
        Features of a vector.
    """

    def __init__(self, flow: Flow, width: int) -> None:
        super().__init__()
        self.is_scaled = flow.is_scaled
        self.gate = Gate(width, symmetric=flow.is_signed)
        self.value = nn.Linear(width, width, bias=False)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Map vectors ``[batch, units, width]``; returns the result, and what no factor changes."""
        power = vectors.square().mean(dim=-1, keepdim=True)
        invariant = vectors * torch.rsqrt(power + (_EPSILON if self.is_scaled else 1.0))
        result: Tensor = self.value(vectors if self.is_scaled else invariant)
        return result * self.gate(invariant), invariant


class MatrixProduct(nn.Module):
    """Sums over units of their features times the weights between two groups, per channel of these.

    Parameters
    ----------
    channels
        Features of a weight.
    width
        Features of a unit.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, channels * width, bias=False)

    def forward(self, weights: Tensor, features: Tensor) -> Tensor:
        """Multiply.

        Parameters
        ----------
        weights
            ``[batch, results, units, channels]``.
        features
            ``[batch, units, width]``.

        Returns
        -------
        Tensor
            ``[batch, results, width]``.
        """
        batch, units, width = features.shape
        mixed = self.mix(features).view(batch, units * weights.shape[3], width)
        return torch.bmm(weights.flatten(2), mixed)
