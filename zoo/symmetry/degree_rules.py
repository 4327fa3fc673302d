"""Operators that change scales or compare them: functions of one entry, sums, products."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
from torch.fx import Node

from zoo.symmetry.degree_moves import expanded
from zoo.symmetry.degrees import (
    Mode,
    Propagation,
    Scaled,
    compress,
    constant_form,
    degree,
    form_of,
)
from zoo.symmetry.forms import ANYTHING, ZERO
from zoo.symmetry.labels import UnsupportedError
from zoo.symmetry.rules.registry import normal_dims, output_shape

# ---- functions of one entry -------------------------------------------------------------------
_POWERS: dict[Mode, dict[str, Fraction]] = {
    "positive": {
        "relu": Fraction(1), "leaky_relu": Fraction(1), "abs": Fraction(1), "square": Fraction(2),
        "sqrt": Fraction(1, 2), "rsqrt": Fraction(-1, 2), "reciprocal": Fraction(-1),
        "sign": Fraction(0),
    },
    "sign": dict.fromkeys(
        ("tanh", "sin", "tan", "asin", "atan", "sinh", "erf", "erfinv", "softsign", "round",
         "trunc", "sign", "reciprocal"), Fraction(1)
    ) | dict.fromkeys(("cos", "cosh", "abs", "square", "sinc"), Fraction(0)),
    "linear": {},
}  # fmt: skip
"""Degree of homogeneity, or parity, of functions of one entry."""


def _power(run: Propagation, node: Node, x: Scaled, *_: Any, **__: Any) -> np.ndarray:
    name = str(node.target).split(".")[1].rstrip("_")
    if name not in _POWERS[run.mode]:
        raise UnsupportedError(name)
    return _raised(run, x, _POWERS[run.mode][name])


def _raised(run: Propagation, x: Scaled, exponent: Fraction) -> np.ndarray:
    powers = run.forms.scale(x.form, exponent)
    return powers if exponent > 0 else np.where(powers == ANYTHING, ZERO, powers)


degree(*sorted({name for powers in _POWERS.values() for name in powers}))(_power)


@degree(
    "alias", "clone", "contiguous", "detach", "dropout", "feature_dropout", "lift_fresh_copy",
    "neg", "to", "_to_copy", "type_as",
)  # fmt: skip
def same(run: Propagation, node: Node, x: Scaled, *_: Any, **__: Any) -> np.ndarray:
    """Keep the scale."""
    if not node.meta["val"].is_floating_point():
        raise UnsupportedError(str(node.target))
    return x.form


@degree("native_dropout")
def native_dropout(run: Propagation, node: Node, x: Scaled, *_: Any) -> Any:
    """Keep the scale; the mask has none."""
    return x.form, None


@degree("prelu", "_prelu_kernel")
def prelu(run: Propagation, node: Node, x: Scaled, slope: Scaled) -> np.ndarray:
    """Positively homogeneous in its input."""
    run.only("positive")
    run.vanish(slope)
    return x.form


@degree("pow")
def power(run: Propagation, node: Node, x: Any, exponent: Any) -> np.ndarray:
    """Raise to a fixed power."""
    if not isinstance(x, Scaled) or isinstance(exponent, Scaled) or 2 * exponent % 1 != 0:
        raise UnsupportedError("power that is no multiple of a half")
    if run.mode == "linear" or (run.mode == "sign" and exponent % 1 != 0):
        raise UnsupportedError("power")
    return _raised(run, x, Fraction(exponent))


@degree("clamp", "clamp_min", "clamp_max", "hardtanh", "threshold")
def clamp(
    run: Propagation, node: Node, x: Scaled, low: Any = None, high: Any = None, **bounds: Any
) -> np.ndarray:
    """Homogeneous where the bounds are zero or absent, odd where they are opposite."""
    if "clamp_m" in str(node.target):
        low, high = (low, None) if "min" in str(node.target) else (None, low)
    if "hardtanh" in str(node.target):
        low, high = bounds.get("min_val", -1 if low is None else low), 1 if high is None else high
    low, high = bounds.get("min", low), bounds.get("max", bounds.get("max_val", high))
    if isinstance(low, Scaled) or isinstance(high, Scaled) or "threshold" in str(node.target):
        raise UnsupportedError("clamp to a tensor")
    homogeneous = {low, high} <= {None, 0, math.inf, -math.inf}
    odd = low is not None and high is not None and low == -high
    if not (run.mode == "positive" and homogeneous) and not (run.mode == "sign" and odd):
        raise UnsupportedError("clamp")
    return x.form


# ---- sums and products of entries -------------------------------------------------------------
@degree("add", "sub", "rsub")
def add(run: Propagation, node: Node, left: Any, right: Any, *_: Any, **__: Any) -> np.ndarray:
    """Terms must scale alike."""
    return run.forms.equal(form_of(left), form_of(right))


@degree("mul")
def mul(run: Propagation, node: Node, left: Any, right: Any) -> np.ndarray:
    """Scales multiply."""
    return run.product(form_of(left), form_of(right))


@degree("div")
def div(run: Propagation, node: Node, left: Any, right: Any, **more: Any) -> np.ndarray:
    """Scales divide."""
    if more.get("rounding_mode") is not None:
        raise UnsupportedError("rounded division")
    if run.mode == "linear":
        run.vanish(right)
    below = form_of(right)
    below = np.where(below == ANYTHING, ZERO, below)
    return run.product(form_of(left), run.forms.scale(below, -1))


@degree("addcmul")
def addcmul(
    run: Propagation, node: Node, x: Scaled, left: Scaled, right: Scaled, **_: Any
) -> np.ndarray:
    """``x + left right``."""
    return run.forms.equal(x.form, run.product(left.form, right.form))


@degree("lerp")
def lerp(run: Propagation, node: Node, start: Scaled, end: Scaled, weight: Any) -> np.ndarray:
    """``start + weight (end - start)``."""
    run.vanish(weight)
    return run.forms.equal(start.form, end.form, _nothing(weight))


@degree("maximum", "minimum")
def larger(run: Propagation, node: Node, left: Scaled, right: Scaled) -> np.ndarray:
    """Homogeneous in both together."""
    run.only("positive")
    return run.forms.equal(left.form, right.form)


@degree("where")
def where(run: Propagation, node: Node, mask: Scaled, left: Any, right: Any) -> np.ndarray:
    """One or the other."""
    run.vanish(mask)
    either = run.forms.equal(form_of(left), form_of(right))
    return run.forms.equal(either, _nothing(mask))


@degree("masked_fill")
def masked_fill(run: Propagation, node: Node, x: Scaled, mask: Scaled, value: Any) -> np.ndarray:
    """Replace entries by zero, or by infinity, which stays what it is times a positive number."""
    run.vanish(mask, value)
    infinite = not isinstance(value, Scaled) and math.isinf(value) and run.mode == "positive"
    filled = x.form if infinite else run.forms.equal(x.form, form_of(value))
    return run.forms.equal(filled, _nothing(mask))


@degree("glu")
def glu(run: Propagation, node: Node, x: Scaled, dim: int = -1) -> np.ndarray:
    """First half times the sigmoid of the second."""
    full = expanded(x, [dim % x.rank])
    first, second = np.split(full, 2, axis=dim % x.rank)
    run.forms.vanish(second)
    return compress(first)


# ---- over axes --------------------------------------------------------------------------------
@degree("sum", "mean", "amax", "amin", "max", "min", "var", "std", "cumsum")
def reduction(run: Propagation, node: Node, x: Scaled, *args: Any, **kwargs: Any) -> Any:
    """Entries that are combined must scale alike."""
    name = str(node.target).split(".")[1]
    if args and isinstance(args[0], Scaled):
        return larger(run, node, x, args[0])
    named = kwargs.get("dim", args[0] if args else None)
    dims = normal_dims(named if not isinstance(named, bool) else None, x.rank)
    if name not in ("sum", "mean", "cumsum"):
        run.only("positive", "sign") if name in ("var", "std") else run.only("positive")
    form = run.forms.equal_along(x.form, dims)
    if name in ("var", "std"):
        exponent = 2 if name == "var" else 1
        form = run.forms.scale(form, exponent if run.mode == "positive" else 0)
    several = isinstance(node.meta["val"], list | tuple)
    if name == "cumsum":
        return form
    result = _dropped(form, dims, len(output_shape(node)))
    return (result, None) if several else result


@degree("linalg_vector_norm", "norm")
def vector_norm(
    run: Propagation, node: Node, x: Scaled, order: Any = 2, dims: Any = None, *_: Any, **__: Any
) -> np.ndarray:
    """Homogeneous; signs do not matter."""
    run.only("positive", "sign")
    where = normal_dims(dims, x.rank)
    form = np.where(x.form == ANYTHING, ANYTHING, ZERO) if run.mode == "sign" else x.form
    return _dropped(run.forms.equal_along(form, where), where, len(output_shape(node)))


def _dropped(form: np.ndarray, dims: list[int], rank: int) -> np.ndarray:
    return form if form.ndim == rank else form.squeeze(tuple(dims))


_POOLS = {
    f"{kind}{rank}d": (rank, "max" in kind)
    for rank in (1, 2, 3)
    for kind in ("avg_pool", "adaptive_avg_pool", "_adaptive_avg_pool", "max_pool",
                 "adaptive_max_pool", "upsample_nearest", "upsample_linear", "upsample_bilinear")
} | {"max_pool2d_with_indices": (2, True)}  # fmt: skip


@degree(*_POOLS)
def pool(run: Propagation, node: Node, x: Scaled, *_: Any, **__: Any) -> Any:
    """Means and maxima over positions."""
    num_spatial, is_maximum = _POOLS[str(node.target).split(".")[1]]
    if is_maximum:
        run.only("positive")
    form = run.forms.equal_along(x.form, list(range(x.rank - num_spatial, x.rank)))
    return (form, None) if isinstance(node.meta["val"], list | tuple) else form


@degree("zeros_like", "new_zeros", "ones_like", "new_ones", "full_like", "new_full")
def uniform(run: Propagation, node: Node, *_: Any, **__: Any) -> np.ndarray:
    """Make one value everywhere; of the input only the shape counts."""
    is_zero = "zeros" in str(node.target)
    return constant_form(len(output_shape(node)), ANYTHING if is_zero else ZERO)


@degree("_assert_tensor_metadata", "_assert_scalar")
def nothing(run: Propagation, node: Node, *_: Any, **__: Any) -> None:
    """Make nothing: these are checks."""


def _nothing(term: Any) -> np.ndarray:
    """Forms that a sum does not notice, of a term's rank."""
    return constant_form(term.rank if isinstance(term, Scaled) else 0, ANYTHING)
