"""Operators that work entry by entry, with broadcasting."""

from typing import Any

from torch.fx import Node

from zoo.symmetry.labels import Labelled, Scene
from zoo.symmetry.rules.registry import rule

_UNARY = (
    "abs", "alias", "atan", "celu", "clamp", "clamp_max", "clamp_min", "clone", "contiguous", "cos",
    "cosh", "detach", "dropout", "elu", "erf", "exp", "gelu", "hardsigmoid", "hardswish",
    "hardtanh",
    "leaky_relu", "log", "log1p", "mish", "neg", "reciprocal", "relu", "relu6", "rsqrt", "selu",
    "sigmoid", "sign", "silu", "sin", "sinh", "softplus", "softsign", "sqrt", "square",
    "tan", "tanh",
    "_to_copy", "to",
)  # fmt: skip
_BINARY = ("add", "div", "maximum", "minimum", "mul", "pow", "rsub", "sub")


@rule(*_UNARY, *_BINARY)
def elementwise(scene: Scene, node: Node, *args: Any, **_: Any) -> Labelled:
    """Axes that meet by broadcasting move together."""
    return scene.elementwise(*args)


@rule("native_dropout")
def native_dropout(
    scene: Scene, node: Node, inputs: Labelled, *_: Any
) -> tuple[Labelled, Labelled]:
    """Output and mask are labelled like the input."""
    return inputs, inputs


@rule("getitem")
def getitem(scene: Scene, node: Node, values: Any, index: int) -> Any:
    """Pick one of several results."""
    return values[index]
