"""Operators that move data and leave its scale as it is."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from zoo.symmetry.degrees import Propagation, Scaled, compress, constant_form, degree, real
from zoo.symmetry.forms import ANYTHING, ZERO
from zoo.symmetry.labels import UnsupportedError
from zoo.symmetry.rules.registry import output_shape

_AS_IT_IS = ("permute", "transpose", "swapaxes", "t", "numpy_T", "mT", "movedim")
_ALONG = {
    "select": 1, "slice": 1, "narrow": 1, "unbind": 1, "flip": 1, "split": 2,
    "split_with_sizes": 2, "tensor_split": 2, "chunk": 2, "roll": 2, "repeat_interleave": 2,
}  # fmt: skip
"""Operators that move positions of some axes, and which argument names them."""
_WHOLE = ("repeat", "tile", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "slice_scatter")


@degree(*_AS_IT_IS)
def reorder(run: Propagation, node: Node, x: Scaled, *args: Any) -> np.ndarray:
    """Reorder axes."""
    return _moved(node, x.form, *args)  # type: ignore[no-any-return]


@degree(*_ALONG)
def along(run: Propagation, node: Node, x: Scaled, *args: Any, **kwargs: Any) -> Any:
    """Move positions of one axis."""
    place = _ALONG[str(node.target).split(".")[1]] - 1
    named = kwargs.get("dim", args[place] if len(args) > place else 0)
    if named is None or any(isinstance(arg, Scaled) for arg in args):
        raise UnsupportedError("axes by number")
    full = expanded(x, [dim % x.rank for dim in (named if isinstance(named, list) else [named])])
    return _moved(node, full, *args, **{k: v for k, v in kwargs.items() if k == "dim"})


@degree(*_WHOLE)
def whole(run: Propagation, node: Node, x: Scaled, *args: Any, **kwargs: Any) -> Any:
    """Move positions of several axes at once."""
    full = expanded(x, list(range(x.rank)))
    others = [
        torch.from_numpy(expanded(arg, list(range(arg.rank)))) if isinstance(arg, Scaled) else arg
        for arg in args
    ]
    return _moved(node, full, *others, **kwargs)


@degree("cat", "concat", "concatenate", "stack")
def cat(run: Propagation, node: Node, tensors: list[Scaled], dim: int = 0) -> np.ndarray:
    """One after another."""
    is_new = "stack" in str(node.target)
    parts = [part for part in tensors if part.shape != (0,)]
    dim %= parts[0].rank + is_new
    if is_new:
        forms = [np.expand_dims(part.form, dim) for part in parts]
    else:
        forms = [expanded(part, [dim]) for part in parts]
    lengths = np.broadcast_shapes(*((*f.shape[:dim], 1, *f.shape[dim + 1 :]) for f in forms))
    full = [np.broadcast_to(f, (*lengths[:dim], f.shape[dim], *lengths[dim + 1 :])) for f in forms]
    return compress(np.concatenate(full, axis=dim))


@degree("view", "reshape", "flatten", "unflatten", "_unsafe_view", "view_copy", "squeeze",
        "unsqueeze")  # fmt: skip
def reshape(run: Propagation, node: Node, x: Scaled, *_: Any) -> np.ndarray:
    """Lay out anew; what does not depend on a run of axes does not depend on what they become."""
    return reshaped(x.form, x.shape, output_shape(node))


def reshaped(form: np.ndarray, old: tuple[int, ...], new: tuple[int, ...]) -> np.ndarray:
    """Reshape an array that has length 1 along axes on which it does not depend."""
    if form.size == 1:
        return form.reshape((1,) * len(new))
    if 0 in old:
        return constant_form(len(new))
    lengths: list[int] = []
    i = j = 0
    full = list(form.shape)
    while i < len(old) or j < len(new):
        first_i, first_j = i, j
        left = right = 1
        while left != right or (first_i == i and first_j == j):
            if left <= right and i < len(old):
                left, i = left * old[i], i + 1
            else:
                right, j = right * new[j], j + 1
        varies = any(length > 1 for length in form.shape[first_i:i])
        full[first_i:i] = old[first_i:i] if varies else [1] * (i - first_i)
        lengths += new[first_j:j] if varies else [1] * (j - first_j)
    return compress(np.broadcast_to(form, full).reshape(lengths))


@degree("expand", "expand_as", "broadcast_to")
def expand(run: Propagation, node: Node, x: Scaled, *_: Any, **__: Any) -> np.ndarray:
    """Broadcast."""
    return x.form.reshape((1,) * (len(output_shape(node)) - x.rank) + x.form.shape)


@degree("copy")
def copy(run: Propagation, node: Node, target: Scaled, source: Scaled, *_: Any) -> np.ndarray:
    """Broadcast the source."""
    return expand(run, node, source)  # type: ignore[no-any-return]


@degree("constant_pad_nd", "pad")
def pad(
    run: Propagation,
    node: Node,
    x: Scaled,
    amounts: list[int],
    mode: Any = "constant",
    value: Any = None,
) -> np.ndarray:
    """Zeros around, or other constants; copies of positions around must scale alike."""
    dims = [x.rank - 1 - at for at in range(len(amounts) // 2)]
    if isinstance(mode, str) and mode != "constant":
        return run.forms.equal_along(x.form, dims)
    filler = mode if not isinstance(mode, str) else value
    widths = [(0, 0)] * x.rank
    for at, dim in enumerate(dims):
        widths[dim] = (amounts[2 * at], amounts[2 * at + 1])
    if any(min(width) < 0 for width in widths):
        raise UnsupportedError("negative padding")
    full = expanded(x, [dim for dim in dims if widths[dim] != (0, 0)])
    return compress(np.pad(full, widths, constant_values=ZERO if filler else ANYTHING))


@degree("embedding")
def embedding(run: Propagation, node: Node, weight: Scaled, index: Scaled, *_: Any) -> np.ndarray:
    """Rows of a table, which must scale alike."""
    row = run.forms.equal_along(weight.form, [0])
    return row.reshape((1,) * index.rank + row.shape[1:])


@degree("index")
def index_(run: Propagation, node: Node, x: Scaled, indices: list[Scaled | None]) -> np.ndarray:
    """Positions of neighbouring axes by numbers; those positions must scale alike."""
    indexed = [dim for dim, index in enumerate(indices) if index is not None]
    if len(indexed) != indexed[-1] - indexed[0] + 1:
        raise UnsupportedError("indexing of axes apart")
    form = run.forms.equal_along(x.form, indexed).squeeze(tuple(indexed))
    added = len(output_shape(node)) - form.ndim
    return np.expand_dims(form, tuple(range(indexed[0], indexed[0] + added)))


@degree("gather")
def gather(run: Propagation, node: Node, x: Scaled, dim: int, index: Scaled, **_: Any) -> Any:
    """Positions of one axis by numbers."""
    return compress(run.forms.equal_along(x.form, list(range(x.rank))))


@degree("index_select")
def index_select(run: Propagation, node: Node, x: Scaled, dim: int, index: Scaled) -> np.ndarray:
    """Positions of one axis by numbers; those positions must scale alike."""
    return run.forms.equal_along(x.form, [dim % x.rank])


@degree("index_add")
def index_add(
    run: Propagation, node: Node, x: Scaled, dim: int, index: Scaled, source: Scaled, **_: Any
) -> np.ndarray:
    """Rows added to rows."""
    dim %= x.rank
    return run.forms.equal(*(run.forms.equal_along(t.form, [dim]) for t in (x, source)))


@degree("getitem")
def getitem(run: Propagation, node: Node, values: Any, index: int) -> Any:
    """Pick one of several results."""
    return values[index].form if isinstance(values[index], Scaled) else None


def expanded(x: Scaled, dims: list[int]) -> np.ndarray:
    """Write the repetition along some axes out."""
    lengths = [x.shape[d] if d in dims else x.form.shape[d] for d in range(x.rank)]
    return np.array(np.broadcast_to(x.form, lengths))


def _moved(node: Node, form: np.ndarray, *args: Any, **kwargs: Any) -> Any:
    """Run the operator itself on an array of forms."""
    result = real(node)(torch.from_numpy(np.array(form)), *args, **kwargs)
    return pytree.tree_map_only(Tensor, lambda tensor: compress(tensor.numpy()), result)
