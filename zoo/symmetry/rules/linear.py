"""Operators that sum over an axis shared by two tensors."""

from typing import Any, cast

from torch.fx import Node

from zoo.space import AxisRole
from zoo.symmetry.labels import Labelled, UnsupportedError
from zoo.symmetry.rules.registry import rule
from zoo.symmetry.scene import Scene

_BATCH = "abcdefgh"


@rule("linear")
def linear(
    scene: Scene, node: Node, inputs: Labelled, weight: Labelled, bias: Labelled | None = None
) -> Labelled:
    """``y_o = sum_i x_i W_oi + b_o``."""
    scene.role(weight, "weight", "out", "in")
    scene.role(bias, "bias", "out")
    batch = _BATCH[: inputs.rank - 1]
    output = scene.contract([(inputs, batch + "i"), (weight, "oi")], batch + "o")
    return output if bias is None else scene.elementwise(output, bias)


@rule("matmul", "mm", "bmm", "mv", "dot")
def matmul(scene: Scene, node: Node, left: Labelled, right: Labelled) -> Labelled:
    """``C_ij = sum_k A_ik B_kj`` over leading batch axes; vectors as in NumPy."""
    for term, last in ((right, ("in", "out")), (left, ("out", "in"))):
        axes: list[AxisRole] = ["other"] * max(0, term.rank - 2)
        scene.role(term, "weight", *axes, *cast(tuple[AxisRole, AxisRole], last))
    rows = "i" if left.rank > 1 else ""
    columns = "j" if right.rank > 1 else ""
    batch = _BATCH[: max(left.rank, right.rank, 2) - 2]
    left_word = batch[len(batch) - max(0, left.rank - 2) :] + rows + "k"
    right_word = batch[len(batch) - max(0, right.rank - 2) :] + "k" + columns
    return scene.contract([(left, left_word), (right, right_word)], batch + rows + columns)


@rule("addmm", "baddbmm", "addmv")
def addmm(
    scene: Scene, node: Node, bias: Labelled, left: Labelled, right: Labelled, **_: Any
) -> Labelled:
    """``C = bias + A B``."""
    product = matmul(scene, node, left, right)
    scene.role(bias, "bias", "out")
    return scene.elementwise(product, bias)


@rule("einsum")
def einsum(
    scene: Scene, node: Node, equation: str, operands: list[Labelled], **__: Any
) -> Labelled:
    """Any product of sums without repeated letters in one operand."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    words = inputs.split(",")
    if "." in equation or any(len(set(word)) < len(word) for word in words) or not arrow:
        raise UnsupportedError("einsum with a diagonal, an ellipsis or an implicit output")
    for operand, word in zip(operands, words, strict=True):
        scene.role(operand, "weight", *("out" if letter in output else "in" for letter in word))
    return scene.contract(list(zip(operands, words, strict=True)), output)


@rule("outer")
def outer(scene: Scene, node: Node, left: Labelled, right: Labelled) -> Labelled:
    """``C_ij = a_i b_j``."""
    return scene.contract([(left, "i"), (right, "j")], "ij")
