"""The complete equivariant linear map between features on a weight space.

For a product of symmetric groups that act on distinct axes, every equivariant linear map from a
block with groups ``G`` to a block with groups ``H`` is a sum over subsets ``S`` of ``G`` and ``H``:
average over ``G - S``, mix channels by a free matrix, repeat along ``H - S`` [1]_ [2]_. Terms with
one ``S`` share their pooled inputs, so all of them are one matrix product on concatenated channels.
Of a nested group (units inside heads) each outer unit has its own copy, so that units of two outer
ones have nothing in common: ``S`` holds a nested group only together with the group around it. A
group that moves several axes of one block is several names there
(:mod:`neural_functionals.layers.partitions`).
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from neural_functionals.layers.features import FeatureBlock
from neural_functionals.layers.partitions import (
    Subset,
    View,
    count_repeats,
    input_views,
    output_views,
    subsets_of,
    take,
)


class _Pool(NamedTuple):
    """Average block ``block``, already pooled to ``source``, over one more set of axes."""

    block: int
    source: Subset
    target: Subset
    dims: tuple[int, ...]
    scale: float


class _Fold(NamedTuple):
    """Add output ``block``'s term of subset ``source`` to its term of the larger subset ``target``.

    ``owned``: nothing else uses the target, so it may change in place. ``sizes`` of the target if
    it must be made first.
    """

    block: int
    source: Subset
    target: Subset
    shape: tuple[int, ...]
    owned: bool
    sizes: tuple[int, ...] | None


class EquivariantLinear(nn.Module):
    r"""Every equivariant linear map, with bias, from one list of blocks to another.

    .. math::

        y_h = b_h + \sum_f \sum_{S \subseteq G_f \cap G_h} W_{h,f,S}\, \mathrm{mean}_{G_f - S}\, x_f

    Means, not sums, keep the scale independent of widths, as in [2]_. At the start, outputs have
    unit variance for inputs of unit variance half of which the positions of one network share.

    Parameters
    ----------
    inputs, outputs
        Shapes of the blocks; the two lists may differ in number, groups and channels.
    gain
        Standard deviation of the outputs at the start, for such inputs.

    Attributes
    ----------
    subsets
        Sets of groups, small ones first.
    weights
        One matrix ``[out channels, in channels]`` per subset.
    bias
        ``[out channels]``, of all outputs.

    References
    ----------
    .. [1] Zhou et al., "Permutation Equivariant Neural Functionals", NeurIPS 2023, Eq. (3), (4).
    .. [2] Zhou et al., "Universal Neural Functionals", NeurIPS 2024, section 3.
    """

    def __init__(
        self,
        inputs: Sequence[FeatureBlock],
        outputs: Sequence[FeatureBlock],
        *,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        repeats = count_repeats(self.inputs, self.outputs)
        self._seen, self._made = input_views(self.inputs, repeats), output_views(outputs, repeats)
        self.subsets = [each for each in _subsets(self._seen) if each in set(_subsets(self._made))]
        self._sources = {
            s: [f for f, view in enumerate(self._seen) if s in view.subsets] for s in self.subsets
        }
        self._targets = {
            s: [h for h, view in enumerate(self._made) if s in view.subsets] for s in self.subsets
        }
        self._splits = {
            s: [self._made[h].shape.channels for h in self._targets[s]] for s in self.subsets
        }
        self._pools = [pool for f in range(len(self._seen)) for pool in self._plan_pools(f)]
        self._folds = [fold for h in range(len(self._made)) for fold in self._plan_folds(h)]
        self.weights = nn.ParameterList(
            torch.empty(
                sum(self._splits[s]), sum(self._seen[f].shape.channels for f in self._sources[s])
            )
            for s in self.subsets
        )
        self.bias = nn.Parameter(torch.empty(sum(view.shape.channels for view in self._made)))
        self.reset_parameters(gain)

    @torch.no_grad()
    def reset_parameters(self, gain: float = 1.0) -> None:
        """Draw the weights anew from torch's current generator and zero the bias."""
        for subset, weight in zip(self.subsets, self.weights, strict=True):
            power = sum(
                self._seen[f].shape.channels
                * (0.5 + 0.5 / _num_pooled(self._seen[f].shape, subset))
                for f in self._sources[subset]
            )
            rows = torch.split(weight, self._splits[subset])
            for h, part in zip(self._targets[subset], rows, strict=True):
                part.normal_(std=gain * (power * len(self._own(self._made[h].shape))) ** -0.5)
        self.bias.zero_()

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map blocks ``[batch, *sizes, channels]``, ordered as ``inputs``, to those of ``outputs``.

        Outputs of blocks that groups move are tensors of their own, which the caller may change in
        place.
        """
        pooled = {
            (f, view.shape.groups): take(features[view.block], view.parts)
            for f, view in enumerate(self._seen)
        }
        for pool in self._pools:
            source = pooled[pool.block, pool.source]
            # A scaled sum, for the gradient of a sum is a view and that of a mean a new tensor.
            pooled[pool.block, pool.target] = source.sum(dim=pool.dims) * pool.scale
        terms = self._terms(pooled)
        for fold in self._folds:
            _add(terms, fold)
        return self._joined([terms[h, view.shape.groups] for h, view in enumerate(self._made)])

    def _joined(self, terms: list[Tensor]) -> list[Tensor]:
        """Add what was made for diagonals to the blocks themselves, the first views."""
        whole: list[Tensor] = []
        for view, term in zip(self._made, terms, strict=True):
            if view.block == len(whole):
                whole.append(term)
            else:
                take(whole[view.block], view.parts).add_(term)
        return whole

    def _terms(self, pooled: dict[tuple[int, Subset], Tensor]) -> dict[tuple[int, Subset], Tensor]:
        """Mix channels: per output block and subset ``[batch, *sizes of the subset, channels]``."""
        terms = {}
        for subset, weight in zip(self.subsets, self.weights, strict=True):
            parts = [pooled[f, subset] for f in self._sources[subset]]
            joined = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
            mixed = functional.linear(joined, weight, None if subset else self.bias)
            targets = self._targets[subset]
            if len(targets) == 1:  # split would copy the whole gradient
                terms[targets[0], subset] = mixed
                continue
            for h, part in zip(
                targets, torch.split(mixed, self._splits[subset], dim=-1), strict=True
            ):
                terms[h, subset] = part
        return terms

    # ---- planning -----------------------------------------------------------------------------
    def _own(self, block: FeatureBlock) -> list[Subset]:
        """Subsets that reach an output block, small ones first."""
        return [subset for subset in self.subsets if set(subset) <= set(block.groups)]

    def _plan_pools(self, f: int) -> list[_Pool]:
        """Pool one view of an input to each of its subsets, from the smallest one at hand."""
        block, own = self._seen[f].shape, self._seen[f].subsets
        sizes = dict(zip(block.groups, block.sizes, strict=True))
        at_hand, plan = [block.groups], []
        for subset in reversed(self.subsets):
            if subset == block.groups or subset not in own:
                continue
            source = min((s for s in at_hand if set(subset) <= set(s)), key=len)
            dims = tuple(1 + i for i, name in enumerate(source) if name not in subset)
            scale = 1.0 / prod(sizes[name] for name in source if name not in subset)
            plan.append(_Pool(f, source, subset, dims, scale))
            at_hand.append(subset)
        return plan

    def _plan_folds(self, h: int) -> list[_Fold]:
        """Add each term of an output block to the next larger one that contains its subset."""
        block = self._made[h].shape
        own = self._own(block)
        sizes = dict(zip(block.groups, block.sizes, strict=True))
        owned = {subset for subset in own if len(self._targets[subset]) == 1}
        made, plan = set(own), []
        for i, subset in enumerate(own):
            if subset == block.groups:
                continue
            target = next((s for s in own[i + 1 :] if set(subset) < set(s)), block.groups)
            shape = (*(sizes[name] if name in subset else 1 for name in target), block.channels)
            missing = None if target in made else block.sizes
            plan.append(_Fold(h, subset, target, shape, target in owned, missing))
            made.add(target)
            owned.add(target)
        return plan


def _add(terms: dict[tuple[int, Subset], Tensor], fold: _Fold) -> None:
    """Carry out one fold; in place where that is safe, for large new tensors are slow."""
    small = terms.pop((fold.block, fold.source))
    small = small.reshape(small.shape[0], *fold.shape)
    key = fold.block, fold.target
    if fold.sizes is not None:
        terms[key] = small.expand(-1, *fold.sizes, -1).clone()
    else:
        terms[key] = terms[key].add_(small) if fold.owned else terms[key] + small


def _subsets(views: Sequence[View]) -> list[Subset]:
    """List the sets of names that some view is pooled to, small ones first."""
    found = {subset for view in views for subset in subsets_of(view.shape)}
    return sorted(found, key=lambda subset: (len(subset), subset))


def _num_pooled(block: FeatureBlock, subset: Subset) -> int:
    """Return how many positions of a block are averaged into one entry of ``subset``."""
    sizes = zip(block.groups, block.sizes, strict=True)
    return prod(size for name, size in sizes if name not in subset)
