"""Operators that work entry by entry, with broadcasting."""

from typing import Any

from torch.fx import Node

from zoo.symmetry.labels import Labelled
from zoo.symmetry.rules.registry import rule, vector_labels
from zoo.symmetry.scene import Scene

_UNARY = (
    "abs", "acos", "alias", "asin", "atan", "bitwise_not", "ceil", "celu", "clamp", "clamp_max",
    "clamp_min", "clone", "contiguous", "cos", "cosh", "detach", "dropout", "elu", "erf",
    "erfinv", "exp", "expm1", "feature_dropout", "floor", "gelu", "hardsigmoid", "hardswish",
    "hardtanh", "isinf", "isnan", "leaky_relu", "lift_fresh_copy", "log", "log1p", "log2",
    "log_sigmoid", "logical_not", "logit", "mish", "nan_to_num", "neg", "reciprocal", "relu",
    "relu6", "round", "rsqrt", "selu", "sigmoid", "sign", "silu", "sin", "sinc", "sinh",
    "softplus", "sqrt", "square", "tan", "tanh", "threshold", "to", "_to_copy",
    "trunc",
)  # fmt: skip
_SEVERAL = (
    "add", "addcdiv", "addcmul", "atan2", "bitwise_and", "bitwise_or", "div", "eq",
    "floor_divide", "fmod", "ge", "gt", "le", "lerp", "logaddexp", "logical_and", "logical_or",
    "lt", "masked_fill", "maximum", "minimum", "mul", "ne", "pow", "remainder", "rsub", "sub",
    "type_as", "where", "xlogy",
)  # fmt: skip


@rule(*_UNARY, *_SEVERAL)
def elementwise(scene: Scene, node: Node, *args: Any, **kwargs: Any) -> Labelled:
    """Axes that meet by broadcasting move together."""
    return scene.elementwise(*args, *kwargs.values())


@rule("native_dropout")
def native_dropout(
    scene: Scene, node: Node, inputs: Labelled, *_: Any
) -> tuple[Labelled, Labelled]:
    """Output and mask are labelled like the input."""
    return inputs, inputs


@rule("copy")
def copy(scene: Scene, node: Node, target: Labelled, source: Labelled, *_: Any) -> Labelled:
    """Broadcast the source to the target's shape."""
    return scene.expand(source, target.shape)


@rule("prelu", "_prelu_kernel")
def prelu(scene: Scene, node: Node, inputs: Labelled, slope: Labelled) -> Labelled:
    """One slope for all, or one per channel (axis 1)."""
    scene.role(slope, "gain", "node")
    if slope.shape == (1,) or slope.rank == inputs.rank:
        return scene.elementwise(inputs, slope) if slope.rank == inputs.rank else inputs
    labels = vector_labels(slope)
    if labels is None:
        return inputs
    grown = labels.reshape([-1 if dim == 1 else 1 for dim in range(inputs.rank)])
    return inputs.replace(1, scene.unify(inputs.labels[1], grown))


@rule("getitem")
def getitem(scene: Scene, node: Node, values: Any, index: int) -> Any:
    """Pick one of several results."""
    return values[index]


@rule("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size", "sym_size")
def nothing(scene: Scene, node: Node, *_: Any, **__: Any) -> None:
    """Make nothing: these are checks."""
