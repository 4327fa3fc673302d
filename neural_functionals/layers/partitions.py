"""Blocks that one group moves along several axes, seen as blocks of distinct axes.

Where a group moves two axes of a tensor (a recurrent matrix, a map of the residual stream), pairs
of positions have an orbit for every way in which their indices may agree: one equivariant map per
set partition of the axes [1]_ [2]_. Here that becomes a matter of names. A *view* of a block picks
a partition of its axes, takes the diagonal of each part, and gives each part a name of its own: the
group and a number. Of an input all ways of naming are listed, of an output one; maps between views
that share names are then those between blocks of distinct groups.

Units of a nested group agree only where the units around them do: its axes form a part only if
those that they lie inside do, and the name of a part tells what it lies inside.

A group with fewer units than input and output have axes of it cannot tell all partitions apart:
some maps then coincide. They are complete as ever, but have more parameters than they need.

References
----------
.. [1] Maron et al., "Invariant and Equivariant Graph Networks", ICLR 2019.
.. [2] Zhou et al., "Universal Neural Functionals", NeurIPS 2024.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from torch import Tensor

from neural_functionals.layers.features import FeatureBlock

Subset = tuple[str, ...]
Part = tuple[int, ...]

_MARK = "\0"  # in no group's name, and smaller than any letter: names sort as their groups do


@dataclass(frozen=True)
class View:
    """One way to see a block.

    Parameters
    ----------
    block
        Position of the block in its list.
    parts
        Axes of the block (the first one is 0) that are taken as one, per axis of ``shape``.
    shape
        What is seen: distinct names, sorted.
    subsets
        Sets of names that this view is pooled to; no other view gives the same.
    """

    block: int
    parts: tuple[Part, ...]
    shape: FeatureBlock
    subsets: frozenset[Subset]


def take(features: Tensor, parts: Sequence[Part]) -> Tensor:
    """View features ``[batch, *sizes, channels]`` with the axes of each part as one."""
    last = features.ndim - 1
    if all(part == (axis,) for axis, part in enumerate(parts)) and len(parts) == last - 1:
        return features
    axes = list(range(features.ndim))
    for first, *others in parts:
        for other in others:
            features = features.diagonal(dim1=axes.index(first + 1), dim2=axes.index(other + 1))
            axes = [axis for axis in axes if axis not in (first + 1, other + 1)] + [first + 1]
    order = [0, *(axes.index(part[0] + 1) for part in parts), axes.index(last)]
    return features.permute(order)


def input_views(blocks: Sequence[FeatureBlock], repeats: Counter[str]) -> list[View]:
    """List all namings of all partitions of the blocks' axes."""
    return [view for at, block in enumerate(blocks) for view in _named(at, block, repeats)]


def output_views(blocks: Sequence[FeatureBlock], repeats: Counter[str]) -> list[View]:
    """List one naming of each partition; a block's first view is the block itself."""
    views = []
    for at, block in enumerate(blocks):
        for parts in _partitions(block):
            views.append(_view(at, block, _namings(block, parts, repeats)[0], set()))
    return views


def count_repeats(*lists: Sequence[FeatureBlock]) -> Counter[str]:
    """Return on how many axes of one block each group occurs, at most."""
    repeats: Counter[str] = Counter()
    for blocks in lists:
        for block in blocks:
            repeats |= Counter(block.groups)
    return repeats


def _named(at: int, block: FeatureBlock, repeats: Counter[str]) -> Iterator[View]:
    for parts in _partitions(block):
        seen: set[frozenset[tuple[Part, str]]] = set()
        for named in _namings(block, parts, repeats):
            yield _view(at, block, named, seen)


def _view(
    at: int,
    block: FeatureBlock,
    named: dict[Part, str],
    seen: set[frozenset[tuple[Part, str]]],
) -> View:
    ordered = sorted((name, part) for part, name in named.items())
    around = _around(block, named)
    shape = FeatureBlock(
        groups=tuple(name for name, _ in ordered),
        sizes=tuple(block.sizes[part[0]] for _, part in ordered),
        channels=block.channels,
        inside=tuple((named[part], named[outer]) for part, outer in around.items()),
    )
    part_of = dict(ordered)
    subsets = set()
    for subset in subsets_of(shape):
        pooled = frozenset((part_of[name], name) for name in subset)
        if pooled not in seen:
            subsets.add(subset)
            seen.add(pooled)
    return View(at, tuple(part for _, part in ordered), shape, frozenset(subsets))


def _partitions(block: FeatureBlock) -> Iterator[tuple[Part, ...]]:
    """List the partitions of a block's axes into parts of one group, the finest first."""
    axes = {group: [] for group in block.groups}  # type: dict[str, list[int]]
    for axis, group in enumerate(block.groups):
        axes[group].append(axis)
    for choice in product(*(list(set_partitions(own)) for own in axes.values())):
        parts = tuple(part for parts in choice for part in parts)
        if _agree(block, parts):
            yield parts


def _agree(block: FeatureBlock, parts: Sequence[Part]) -> bool:
    """Whether axes of one part lie inside axes of one part, too."""
    part_of = {axis: part for part in parts for axis in part}
    return all(
        len({part_of[block.outer[axis]] for axis in part if axis in block.outer}) <= 1
        for part in parts
    )


def _around(block: FeatureBlock, parts: Iterable[Part]) -> dict[Part, Part]:
    """Find the part that each nested part lies inside."""
    part_of = {axis: part for part in parts for axis in part}
    outer = block.outer
    return {part: part_of[outer[part[0]]] for part in part_of.values() if part[0] in outer}


def set_partitions(items: Sequence[int]) -> Iterator[list[Part]]:
    """List all set partitions, the finest first.

    >>> [len(list(set_partitions(range(n)))) for n in range(5)]
    [1, 1, 2, 5, 15]
    """
    if not items:
        yield []
        return
    *rest, last = items
    for parts in set_partitions(rest):
        yield [*parts, (last,)]
    for parts in set_partitions(rest):
        for at, part in enumerate(parts):
            yield [*parts[:at], (*part, last), *parts[at + 1 :]]


def _namings(
    block: FeatureBlock, parts: Sequence[Part], repeats: Counter[str]
) -> list[dict[Part, str]]:
    """List the ways to give all parts different names, numbers in the parts' order first."""
    around = _around(block, parts)
    namings: list[dict[Part, str]] = [{}]
    for part in sorted(parts, key=lambda part: _depth(part, around)):
        namings = [
            named | {part: name}
            for named in namings
            for name in _names(block.groups[part[0]], repeats, named.get(around.get(part, ())))
            if name not in named.values()
        ]
    return namings


def _depth(part: Part, around: dict[Part, Part]) -> int:
    """Count the parts around a part, which are named before it."""
    return 1 + _depth(around[part], around) if part in around else 0


def _names(group: str, repeats: Counter[str], around: str | None) -> list[str]:
    """List the names of parts of a group; of a nested one, of those in the part called so."""
    inside = group if around is None or _MARK not in around else f"{group}{_MARK}{around}"
    count = repeats[group]
    return [inside] if count == 1 else [f"{inside}{_MARK}{number}" for number in range(count)]


def subsets_of(block: FeatureBlock) -> Iterator[Subset]:
    """List the sets of a block's groups that share units: a nested group only with its parent."""
    for length in range(len(block.groups) + 1):
        for subset in combinations(block.groups, length):
            if all(parent in subset for child, parent in block.inside if child in subset):
                yield subset
