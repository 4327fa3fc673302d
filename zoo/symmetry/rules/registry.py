"""The table of rules, and what rules share."""

from collections.abc import Callable, Iterable
from inspect import signature
from typing import Any

import torch
from torch.fx import Node

from zoo.symmetry.labels import Labelled

Rule = Callable[..., Any]

RULES: dict[str, Rule] = {}
"""Operator name without namespace and overload (``linear``) to its rule."""


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operators, named without namespace and overload."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            assert operator not in RULES, operator
            RULES[operator] = function
        return function

    return register


def accepts(function: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    """Whether a rule was written for a call like this: operators gain arguments over time."""
    try:
        signature(function).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def output_shape(node: Node, result: int = 0) -> tuple[int, ...]:
    """Shape of a tensor that a node makes; of several, the one at a position."""
    value = node.meta["val"]
    tensor = value if isinstance(value, torch.Tensor) else value[result]
    return tuple(int(length) for length in tensor.shape)


def normal_dims(dims: int | Iterable[int] | None, rank: int) -> list[int]:
    """Axes as non-negative numbers; all of them where none is named."""
    if dims is None:
        return list(range(rank))
    named = [dims] if isinstance(dims, int) else list(dims)
    return [dim % rank for dim in named] if named else list(range(rank))


def vector_labels(vector: Labelled | None) -> Any:
    """Units of a vector, ``[length]``, or ``None``."""
    return None if vector is None or vector.labels[0] is None else vector.labels[0].ravel()
