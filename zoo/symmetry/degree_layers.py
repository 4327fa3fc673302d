"""Operators with parameters of their own: contractions, convolutions, norms, attention."""

from typing import Any

import numpy as np
from torch.fx import Node

from zoo.symmetry.degree_moves import reshaped
from zoo.symmetry.degrees import Propagation, Scaled, constant_form, degree
from zoo.symmetry.forms import ZERO
from zoo.symmetry.labels import UnsupportedError
from zoo.symmetry.rules.registry import output_shape

_BATCH = "abcdefgh"


# ---- contractions -----------------------------------------------------------------------------
@degree("linear")
def linear(
    run: Propagation, node: Node, x: Scaled, weight: Scaled, bias: Scaled | None = None
) -> np.ndarray:
    """``y_o = sum_i x_i W_oi + b_o``."""
    batch = _BATCH[: x.rank - 1]
    output = run.contract([(x, batch + "i"), (weight, "oi")], batch + "o")
    return output if bias is None else run.forms.equal(output, bias.form)


@degree("matmul", "mm", "bmm", "mv", "dot")
def matmul(run: Propagation, node: Node, left: Scaled, right: Scaled) -> np.ndarray:
    """``C_ij = sum_k A_ik B_kj`` over leading batch axes."""
    rows = "i" if left.rank > 1 else ""
    columns = "j" if right.rank > 1 else ""
    batch = _BATCH[: max(left.rank, right.rank, 2) - 2]
    left_word = batch[len(batch) - max(0, left.rank - 2) :] + rows + "k"
    right_word = batch[len(batch) - max(0, right.rank - 2) :] + "k" + columns
    return run.contract([(left, left_word), (right, right_word)], batch + rows + columns)


@degree("addmm", "baddbmm", "addmv")
def addmm(
    run: Propagation, node: Node, bias: Scaled, left: Scaled, right: Scaled, **_: Any
) -> np.ndarray:
    """``C = bias + A B``."""
    return run.forms.equal(matmul(run, node, left, right), bias.form)


@degree("einsum")
def einsum(
    run: Propagation, node: Node, equation: str, operands: list[Scaled], **_: Any
) -> np.ndarray:
    """Any product of sums without repeated letters in one operand."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    words = inputs.split(",")
    if "." in equation or any(len(set(word)) < len(word) for word in words) or not arrow:
        raise UnsupportedError("einsum with a diagonal, an ellipsis or an implicit output")
    return run.contract(list(zip(operands, words, strict=True)), output)


@degree("outer")
def outer(run: Propagation, node: Node, left: Scaled, right: Scaled) -> np.ndarray:
    """``C_ij = a_i b_j``."""
    return run.contract([(left, "i"), (right, "j")], "ij")


@degree("conv1d", "conv2d", "conv3d")
def convolution(
    run: Propagation,
    node: Node,
    x: Scaled,
    weight: Scaled,
    bias: Scaled | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> np.ndarray:
    """Contract over input channels, within each group of channels."""
    return _convolution(run, node, x, weight, bias, groups, "goi")


@degree("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(
    run: Propagation,
    node: Node,
    x: Scaled,
    weight: Scaled,
    bias: Scaled | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> np.ndarray:
    """Do the same with the kernel's first axes exchanged."""
    return _convolution(run, node, x, weight, bias, groups, "gio")


@degree("convolution")
def general_convolution(
    run: Propagation,
    node: Node,
    x: Scaled,
    weight: Scaled,
    bias: Scaled | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: Any,
    output_padding: Any,
    groups: int,
) -> np.ndarray:
    """Either of the two."""
    return _convolution(run, node, x, weight, bias, groups, "gio" if transposed else "goi")


def _convolution(
    run: Propagation,
    node: Node,
    x: Scaled,
    weight: Scaled,
    bias: Scaled | None,
    groups: int,
    word: str,
) -> np.ndarray:
    if x.rank != weight.rank:
        raise UnsupportedError("convolution without a batch axis")
    shape = output_shape(node)
    spatial = list(range(2, x.rank))
    kernel = run.forms.equal_along(weight.form, spatial)
    image = run.forms.equal_along(x.form, spatial)
    split = (groups, weight.shape[0] // groups, weight.shape[1])
    kernel = reshaped(kernel.reshape(kernel.shape[:2]), weight.shape[:2], split)
    image = reshaped(
        image.reshape(image.shape[:2]), x.shape[:2], (x.shape[0], groups, x.shape[1] // groups)
    )
    batch = (x.shape[0], groups, x.shape[1] // groups)
    output = run.contract(
        [(Scaled(batch, image, x.is_data), "bgi"), (Scaled(split, kernel, weight.is_data), word)],
        "bgo",
    )
    output = reshaped(output, (shape[0], groups, shape[1] // groups), shape[:2])
    if bias is not None:
        output = run.forms.equal(output, bias.form)
    return output.reshape(*output.shape, *[1] * len(spatial))


@degree("scaled_dot_product_attention")
def attention(
    run: Propagation,
    node: Node,
    query: Scaled,
    key: Scaled,
    value: Scaled,
    mask: Scaled | None = None,
    *_: Any,
    enable_gqa: bool = False,
    **__: Any,
) -> np.ndarray:
    """``softmax(Q K^T) V``: scores and weights do not scale, values are averaged."""
    if enable_gqa:
        count = query.shape[-3] // key.shape[-3]
        key, value = _repeated(key, count), _repeated(value, count)
    batch = _BATCH[: query.rank - 2]
    scores = run.contract([(query, batch + "id"), (key, batch + "jd")], batch + "ij")
    run.forms.vanish(scores)
    run.vanish(mask)
    shape = (*query.shape[:-1], key.shape[-2])
    weights = Scaled(shape, constant_form(len(shape)), is_data=query.is_data)
    return run.contract([(weights, batch + "ij"), (value, batch + "jd")], batch + "id")


def _repeated(x: Scaled, count: int) -> Scaled:
    """Let several heads read the same keys."""
    form = x.form if x.form.shape[-3] == 1 else np.repeat(x.form, count, axis=-3)
    return Scaled((*x.shape[:-3], x.shape[-3] * count, *x.shape[-2:]), form, x.is_data)


# ---- norms ------------------------------------------------------------------------------------
def _column(vector: Any, rank: int) -> np.ndarray:
    """Forms of one number per channel (axis 1); of nothing, nothing."""
    if not isinstance(vector, Scaled):
        return constant_form(rank, ZERO)
    return vector.form.reshape([-1 if dim == 1 else 1 for dim in range(rank)])


def _affine(
    run: Propagation, form: np.ndarray, gain: np.ndarray, shift: np.ndarray | None
) -> np.ndarray:
    scaled = run.product(form, gain)
    return scaled if shift is None else run.forms.equal(scaled, shift)


@degree("_native_batch_norm_legit_no_training", "batch_norm", "instance_norm")
def batch_norm(
    run: Propagation,
    node: Node,
    x: Scaled,
    gain: Scaled | None,
    shift: Scaled | None,
    mean: Scaled | None,
    variance: Scaled | None,
    own_statistics: Any = None,
    *_: Any,
) -> Any:
    """Subtract the mean, which scales like the input; the variance, beside epsilon, does not."""
    several = isinstance(node.meta["val"], list | tuple)
    if mean is None or variance is None or (own_statistics is True and not several):
        form = _normalised(run, x, list(range(2, x.rank)))
    else:
        run.only("positive", "sign")
        run.vanish(variance)
        form = run.forms.equal(x.form, _column(mean, x.rank))
    output = _affine(
        run, form, _column(gain, x.rank), None if shift is None else _column(shift, x.rank)
    )
    return (output, None, None) if several else output


def _normalised(run: Propagation, x: Scaled, dims: list[int]) -> np.ndarray:
    """Subtract the mean over axes and divide by the spread: odd, but not homogeneous."""
    if run.mode != "sign":
        run.vanish(x)
        return constant_form(x.rank)
    return run.forms.equal_along(x.form, dims)


@degree("layer_norm", "native_layer_norm")
def layer_norm(
    run: Propagation, node: Node, x: Scaled, dims: list[int], gain: Any = None, shift: Any = None,
    *_: Any, **__: Any,
) -> Any:  # fmt: skip
    """Normalise over the last axes; gain and shift scale with what reads them."""
    form = _normalised(run, x, list(range(x.rank - len(dims), x.rank)))
    return _with_vectors(run, node, form, gain, shift)


@degree("rms_norm", "_fused_rms_norm")
def rms_norm(
    run: Propagation, node: Node, x: Scaled, dims: list[int], gain: Any = None, *_: Any, **__: Any
) -> Any:
    """Divide by the root mean square, which no sign changes."""
    if run.mode != "sign":
        run.vanish(x)
    form = x.form if run.mode == "sign" else constant_form(x.rank)
    return _with_vectors(run, node, form, gain, None)


def _with_vectors(run: Propagation, node: Node, form: np.ndarray, gain: Any, shift: Any) -> Any:
    gains = gain.form if isinstance(gain, Scaled) else constant_form(0)
    output = _affine(run, form, gains, shift.form if isinstance(shift, Scaled) else None)
    several = isinstance(node.meta["val"], list | tuple)
    return (output, *[None] * (len(node.meta["val"]) - 1)) if several else output


@degree("group_norm", "native_group_norm")
def group_norm(run: Propagation, node: Node, x: Scaled, *args: Any, **_: Any) -> Any:
    """Normalise over blocks of channels and all positions."""
    several = isinstance(node.meta["val"], list | tuple)
    gain, shift, groups = (args[0], args[1], args[5]) if several else (*args[1:3], args[0])
    split = (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    blocks = Scaled(split, reshaped(x.form, x.shape, split))
    form = _normalised(run, blocks, list(range(2, len(split))))
    full = np.broadcast_to(form, (*form.shape[:2], split[2], *form.shape[3:]))
    form = reshaped(full, (split[0], *split[1:3], *[1] * (x.rank - 2)),
                    (*x.shape[:2], *[1] * (x.rank - 2)))  # fmt: skip
    output = _affine(
        run, form, _column(gain, x.rank), None if shift is None else _column(shift, x.rank)
    )
    return (output, None, None) if several else output


@degree("_weight_norm", "_weight_norm_interface")
def weight_norm(run: Propagation, node: Node, direction: Scaled, gain: Scaled, dim: int = 0) -> Any:
    """``g v / ||v||``: the length of ``v`` does not matter, its sign does."""
    if run.mode == "linear":
        run.vanish(direction)
    others = [axis for axis in range(direction.rank) if axis != dim % direction.rank]
    if run.mode == "sign":
        output = run.forms.add(direction.form, gain.form)
    else:
        run.forms.equal_along(direction.form, others)
        output = gain.form
    return (output, None) if isinstance(node.meta["val"], list | tuple) else output
