"""Foreign tensor names to ours: the one place where order and shapes may stand for names.

Everywhere else a tensor is known by its name. Here, at the border, other people's names for the
same network are translated; where more than one translation would fit, none is made.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from zoo.convert.source import Shapes
from zoo.errors import ZooError

Rule = Literal["names", "order and shapes"]

_LEAVES = {
    "w": "weight", "b": "bias", "kernel": "weight", "gamma": "weight", "beta": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip
"""Last parts of names that other libraries use, to torch's."""


class MatchingError(ZooError, ValueError):
    """Tensors that are not those of a network, or not unmistakably so."""


@dataclass(frozen=True)
class Matching:
    """A translation of names.

    Parameters
    ----------
    rule
        ``names`` where they are equal, else what stood for them.
    names
        ``(ours, theirs)`` for each tensor, in our order.
    """

    rule: Rule
    names: tuple[tuple[str, str], ...]


def match(theirs: Shapes, ours: Shapes) -> Matching:
    """Translate the names of foreign tensors into those of a network.

    Equal names and shapes match. Otherwise the shapes must be equal one by one in order, and every
    further sign must agree: the last parts of names (``weight``, ``bias``) where shapes repeat,
    which tensors share a layer, and that the numbers in names of equal tensors ascend.

    Raises
    ------
    MatchingError
        If the tensors are others, or order and shapes leave a choice.

    Examples
    --------
    >>> ours = (("head.weight", (2, 3)), ("head.bias", (2,)))
    >>> match((("fc.0.weight", (2, 3)), ("fc.0.bias", (2,))), ours).names
    (('head.weight', 'fc.0.weight'), ('head.bias', 'fc.0.bias'))
    """
    if dict(theirs) == dict(ours):
        return Matching("names", tuple((name, name) for name, _ in ours))
    _check_shapes(theirs, ours)
    pairs = tuple((mine, other) for (mine, _), (other, _) in zip(ours, theirs, strict=True))
    repeated = {shape for shape, count in Counter(s for _, s in ours).items() if count > 1}
    alike = [
        (mine, other) for (mine, other), (_, s) in zip(pairs, ours, strict=True) if s in repeated
    ]
    _check_leaves(alike)
    _check_layers(pairs)
    _check_numbers(theirs, repeated)
    return Matching("order and shapes", pairs)


def _check_shapes(theirs: Shapes, ours: Shapes) -> None:
    if len(theirs) != len(ours):
        raise MatchingError(f"expected {len(ours)} tensors, got {len(theirs)}")
    for (mine, wanted), (other, got) in zip(ours, theirs, strict=True):
        if wanted != got:
            raise MatchingError(f"expected shape {wanted} for {mine!r}, got {got} in {other!r}")


def _check_leaves(pairs: list[tuple[str, str]]) -> None:
    for mine, other in pairs:
        if _leaf(mine) != _leaf(other):
            raise MatchingError(
                f"ambiguous: {other!r} has the place and shape of {mine!r}, but other tensors have "
                "that shape, too, and the names do not say which is which"
            )


def _check_layers(pairs: tuple[tuple[str, str], ...]) -> None:
    """Tensors share a layer on one side if and only if they do on the other."""
    layers = {(_layer(mine), _layer(other)) for mine, other in pairs}
    for side in (0, 1):
        twice = [
            name for name, count in Counter(pair[side] for pair in layers).items() if count > 1
        ]
        if twice:
            raise MatchingError(f"ambiguous: layer {twice[0]!r} would be part of several")


def _check_numbers(theirs: Shapes, repeated: set[tuple[int, ...]]) -> None:
    """Numbers in names of equal shape, kind and wording must not run against the order."""
    last: dict[tuple[object, ...], tuple[int, ...]] = {}
    for name, shape in theirs:
        if shape not in repeated:
            continue
        key = (shape, re.sub(r"\d+", "#", name))
        numbers = tuple(int(digits) for digits in re.findall(r"\d+", name))
        if numbers < last.get(key, numbers):
            raise MatchingError(f"ambiguous: {name!r} comes after a layer of a higher number")
        last[key] = numbers


def _leaf(name: str) -> str:
    leaf = name.rpartition(".")[2]
    return _LEAVES.get(leaf, leaf)


def _layer(name: str) -> str:
    return name.rpartition(".")[0]
