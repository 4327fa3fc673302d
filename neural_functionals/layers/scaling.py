"""Scale and sign symmetries of features: what multiplies them, and how to divide it out.

Every block of a :class:`~neural_functionals.layers.WeightLayout` has *degrees*: with which power of
a unit's factor each channel is multiplied, per scaling of the space. Positive factors are divided
out once, by a positive *reference* of every unit that the same factor multiplies. Signs have no
such reference that varies continuously; what is left of them is the *parity* of each channel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from neural_functionals.layers.features import WeightLayout
from zoo.errors import WeightSpaceMismatchError
from zoo.space import Domain, ScaleGroup, WeightSpace
from zoo.symmetry import from_factors

_TINY = 1e-24  # squares below are those of a dead unit


def scale_degrees(space: WeightSpace, layout: WeightLayout, domain: Domain) -> list[np.ndarray]:
    """Powers of the factors of one domain that multiply features of a space.

    Returns
    -------
    list of numpy.ndarray
        Per block ``[channels, scalings]``, int64, with the scalings of ``domain`` in the space's
        order; signs have powers 0 and 1.

    Raises
    ------
    WeightSpaceMismatchError
        If units of a block have different powers.
    """
    powers = [_powers(space, one) for one in space.scalings if one.domain == domain]
    rows = torch.stack(powers) if powers else torch.zeros(0, space.num_parameters)
    degrees = []
    for block in layout.gather(rows):
        flat = block.unsqueeze(1).flatten(1, -2)
        if not torch.equal(flat, flat[:, :1].expand_as(flat)):
            raise WeightSpaceMismatchError(
                f"Expected all units of a field to scale alike in weight space "
                f"{space.fingerprint}, got powers that differ between them."
            )
        degrees.append(flat[:, 0].T.long().numpy())
    return degrees


def _powers(space: WeightSpace, scaling: ScaleGroup) -> Tensor:
    """Power of a scaling's factor that multiplies each entry of the flat vector, ``[P]``."""
    group = space.group(scaling.group)
    base = 2.0 if scaling.domain == "positive" else -1.0
    action = from_factors(space, {scaling.name: torch.full((group.copies, group.size), base)})
    assert action.multiplier is not None
    return action.multiplier.log2() if base > 0 else (action.multiplier < 0).double()


@dataclass(frozen=True)
class _Norm:
    """Entries whose mean square is multiplied by one power of a unit's factors."""

    block: int
    channels: tuple[int, ...]
    dims: tuple[int, ...]  # axes to average over, but for the channels


class _Division(nn.Module):
    """Divide every block that moves with one group by powers of the group's reference.

    Parameters
    ----------
    norms
        Entries of each root mean square.
    targets
        Per block its position, the shape of the reference beside it, ``[*sizes or 1]``, and by
        which powers of the root mean squares its channels are multiplied, ``[norms, channels]``.
    """

    def __init__(
        self,
        norms: tuple[tuple[_Norm, ...], ...],
        targets: Sequence[tuple[int, tuple[int, ...], np.ndarray]],
    ) -> None:
        super().__init__()
        self.norms = norms
        self.targets = [(at, shape) for at, shape, _ in targets]
        for at, _, powers in targets:
            self.register_buffer(f"powers_{at}", torch.from_numpy(powers), persistent=False)

    def forward(self, blocks: list[Tensor]) -> None:
        """Replace blocks ``[batch, *sizes, channels]`` in the list."""
        logs = torch.stack([_log_norm(blocks, norms) for norms in self.norms], dim=-1)
        for at, shape in self.targets:
            factors = torch.exp(logs @ self.get_buffer(f"powers_{at}").to(logs))
            blocks[at] = blocks[at] * factors.view(len(factors), *shape, factors.shape[-1])


class ScaleReference(nn.Module):
    r"""Divides all positive factors of hidden units out of features, exactly.

    Groups are visited in an order in which each has fields whose other groups were visited before:
    from the inputs on, in a chain. The reference of a unit is the root mean square of such entries
    (the incoming weights, already divided by the references of the units that they come from, and
    the bias); where several factors act on a unit (before and after a BatchNorm) there is one root
    mean square per independent power. With powers :math:`E` of the factors :math:`q`,

    .. math:: n_c \to n_c \prod_s q_s^{E_{cs}}, \qquad r_s = \prod_c n_c^{(E^{-1})_{sc}} \to q_s r_s

    and every entry is divided by its powers of :math:`r`. No single weight is ever inverted, so
    small ones do no harm; a unit without any incoming weight keeps zeros and stops being read.

    Parameters
    ----------
    space
        The weight space.
    layout
        Its layout; blocks come in its order.

    Raises
    ------
    WeightSpaceMismatchError
        If no order of groups determines all references.
    """

    def __init__(self, space: WeightSpace, layout: WeightLayout) -> None:
        super().__init__()
        self._space = space
        self._blocks = layout.blocks()
        self._degrees = scale_degrees(space, layout, "positive")
        self._owners = [one.group for one in space.scalings if one.domain == "positive"]
        self.divisions = nn.ModuleList(self._order())

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Divide blocks ``[batch, *sizes, channels]``; returns new ones of the same shapes."""
        blocks = list(features)
        with torch.autocast(blocks[0].device.type, enabled=False):  # half precision is not exact
            for divide in self.divisions:
                divide(blocks)
        return blocks

    # ---- planning -----------------------------------------------------------------------------
    def _order(self) -> Iterator[_Division]:
        """Visit groups, each when what its reference needs is there."""
        waiting = list(dict.fromkeys(self._owners))
        while waiting:
            for group in waiting:
                step = self._division(group, frozenset(waiting) - {group})
                if step is not None:
                    yield step
                    waiting.remove(group)
                    break
            else:
                raise WeightSpaceMismatchError(
                    f"Expected fields that tell the factors of neuron group {waiting[0]!r} apart "
                    f"in weight space {self._space.fingerprint}, got none that do not depend on "
                    f"the factors of others ({', '.join(waiting[1:])})."
                )

    def _division(self, group: str, unknown: frozenset[str]) -> _Division | None:
        """Choose norms whose powers are independent, of many entries first; ``None`` if too few."""
        own = [at for at, owner in enumerate(self._owners) if owner == group]
        found = self._norms(group, own, unknown)
        chosen: list[tuple[int, ...]] = []
        for power in sorted(found, key=lambda power: -sum(map(self._count, found[power]))):
            if np.linalg.matrix_rank(np.array([*chosen, power])) == len(chosen) + 1:
                chosen.append(power)
        if len(chosen) < len(own):
            return None
        solution = np.linalg.inv(np.array(chosen, dtype=float)).T
        norms = tuple(tuple(found[power]) for power in chosen)
        return _Division(norms, list(self._targets(group, own, solution)))

    def _norms(
        self, group: str, own: list[int], unknown: frozenset[str]
    ) -> dict[tuple[int, ...], list[_Norm]]:
        """List entries that no factor of unknown groups multiplies, by the powers of a group's."""
        others = [at for at, owner in enumerate(self._owners) if owner in unknown]
        found: dict[tuple[int, ...], list[_Norm]] = {}
        for at, degrees in enumerate(self._degrees):
            usable = (degrees[:, own] != 0).any(1) & (degrees[:, others] == 0).all(1)
            for power in np.unique(degrees[usable][:, own], axis=0):
                channels = usable & (degrees[:, own] == power).all(1)
                norm = _Norm(at, tuple(np.flatnonzero(channels).tolist()), self._around(at, group))
                found.setdefault(tuple(power.tolist()), []).append(norm)
        return found

    def _targets(
        self, group: str, own: list[int], solution: np.ndarray
    ) -> Iterator[tuple[int, tuple[int, ...], np.ndarray]]:
        """List blocks that a group's factors multiply; ``solution`` is ``[norms, scalings]``."""
        for at, (block, degrees) in enumerate(zip(self._blocks, self._degrees, strict=True)):
            if (degrees[:, own] != 0).any():
                around = self._around(at, group)
                shape = tuple(1 if dim + 1 in around else n for dim, n in enumerate(block.sizes))
                yield at, shape, -solution @ degrees[:, own].T

    def _around(self, at: int, group: str) -> tuple[int, ...]:
        """Axes of a block that are neither a group's nor those of groups that it lies inside."""
        own, parents = [group], {g.name: g.parent for g in self._space.groups}
        while (parent := parents[own[-1]]) is not None:
            own.append(parent)
        return tuple(1 + dim for dim, name in enumerate(self._blocks[at].groups) if name not in own)

    def _count(self, norm: _Norm) -> int:
        """Count the entries per unit in a norm."""
        sizes = [self._blocks[norm.block].sizes[dim - 1] for dim in norm.dims]
        return len(norm.channels) * int(np.prod(sizes, dtype=int))


def _log_norm(blocks: Sequence[Tensor], norms: Sequence[_Norm]) -> Tensor:
    """Natural logarithm of the root mean square of some entries per unit, ``[batch, *units]``."""
    squares: list[Tensor] = []
    for norm in norms:
        block = blocks[norm.block]
        whole = len(norm.channels) == block.shape[-1]
        chosen = block if whole else block[..., list(norm.channels)]
        squares.append(chosen.square().mean(dim=(*norm.dims, -1)))
    return torch.stack(squares).mean(dim=0).clamp(min=_TINY).log() / 2
