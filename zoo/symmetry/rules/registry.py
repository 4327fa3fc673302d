"""The table of rules."""

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from zoo.symmetry.labels import Labelled, Scene

Rule = Callable[..., Any]

RULES: dict[str, Rule] = {}
"""Operator name without overload (``aten::linear``) to its rule."""


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operators, named without namespace and overload."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            assert operator not in RULES, operator
            RULES[operator] = function
        return function

    return register


def output_shape(node: Node) -> tuple[int, ...]:
    """Shape of the (first) tensor that a node makes."""
    value = node.meta["val"]
    first = value if isinstance(value, torch.Tensor) else value[0]
    return tuple(int(length) for length in first.shape)


def unchanged(scene: Scene, node: Node, inputs: Labelled, *_: Any, **__: Any) -> Labelled:
    """Rule of an operator that keeps shape and labels."""
    return Labelled(inputs.shape, inputs.labels)
