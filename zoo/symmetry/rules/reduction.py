"""Operators that combine the positions of an axis."""

from typing import Any

from torch.fx import Node

from zoo.symmetry.labels import Labelled
from zoo.symmetry.rules.registry import normal_dims, output_shape, rule
from zoo.symmetry.scene import Scene
from zoo.symmetry.units import Pin

_REDUCTIONS = (
    "mean", "sum", "amax", "amin", "logsumexp", "all", "any", "prod", "var", "std", "norm",
    "linalg_vector_norm", "argmax", "argmin",
)  # fmt: skip
_POOLS = (
    "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
    "max_pool1d", "max_pool2d", "max_pool3d",
    "max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
    "upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d",
)  # fmt: skip


@rule(*(name for name in _REDUCTIONS if name not in ("norm", "linalg_vector_norm")))
def reduction(scene: Scene, node: Node, inputs: Labelled, *args: Any, **kwargs: Any) -> Labelled:
    """Drop axes: a symmetric function over an axis does not notice its order."""
    named = kwargs.get("dim", args[0] if args else None)
    dims = normal_dims(named if not isinstance(named, bool) else None, inputs.rank)
    if "arg" in str(node.target):  # the answer is a position, which must not move
        scene.pin(inputs, dims, Pin("fixed", str(node.target)))
    return scene.reduce(inputs, dims, keepdim=len(output_shape(node)) == inputs.rank)


@rule("linalg_vector_norm", "norm")
def vector_norm(
    scene: Scene, node: Node, inputs: Labelled, order: Any = 2, dims: Any = None, *_: Any, **__: Any
) -> Labelled:
    """As the other reductions, with the order of the norm before the axes."""
    keepdim = len(output_shape(node)) == inputs.rank
    return scene.reduce(inputs, normal_dims(dims, inputs.rank), keepdim=keepdim)


@rule("max", "min")
def extremum(scene: Scene, node: Node, inputs: Labelled, *args: Any, **_: Any) -> Any:
    """Over everything, over one axis (values and positions), or of two tensors."""
    if args and isinstance(args[0], Labelled):
        return scene.elementwise(inputs, args[0])
    dims = normal_dims(args[0] if args else None, inputs.rank)
    keepdim = len(output_shape(node)) == inputs.rank
    output = scene.reduce(inputs, dims, keepdim=keepdim)
    return (output, output) if args else output


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax")
def softmax(scene: Scene, node: Node, inputs: Labelled, dim: int, *_: Any, **__: Any) -> Labelled:
    """Equivariant along its axis."""
    for other in range(inputs.rank):
        if other != dim % inputs.rank:
            labels = scene.collapse(inputs.labels[other], dim % inputs.rank)
            inputs = inputs.replace(other, labels)
    return inputs


@rule(*_POOLS)
def pool(scene: Scene, node: Node, inputs: Labelled, *_: Any, **__: Any) -> Any:
    """Positions are combined in place; channels keep their labels."""
    name = str(node.target)
    num_spatial = next(rank for rank in (1, 2, 3) if f"{rank}d" in name)
    first = inputs.rank - num_spatial
    scene.pin(inputs, range(first, inputs.rank), Pin("fixed", "image position"))
    shape = output_shape(node)
    positions = tuple(scene.fixed(shape[dim], dim, len(shape)) for dim in range(first, len(shape)))
    output = Labelled(shape, inputs.labels[:first] + positions)
    return (output, output) if isinstance(node.meta["val"], list | tuple) else output


@rule("cumsum", "cumprod", "logcumsumexp")
def cumulative(scene: Scene, node: Node, inputs: Labelled, dim: int, **_: Any) -> Labelled:
    """Order matters along the axis."""
    scene.pin(inputs, [dim % inputs.rank], Pin("fixed", "cumulative"))
    return inputs


@rule("topk", "sort")
def ranking(scene: Scene, node: Node, inputs: Labelled, *args: Any, **kwargs: Any) -> Any:
    """Positions of the result are ranks; the input's positions must not move, they are returned."""
    named = kwargs.get("dim", args[1] if "topk" in str(node.target) and len(args) > 1 else None)
    if "sort" in str(node.target):
        named = kwargs.get("dim", args[0] if args else -1)
    dim = (-1 if named is None else named) % inputs.rank
    scene.pin(inputs, [dim], Pin("fixed", "ranked"))
    labels = list(inputs.labels)
    shape = output_shape(node)
    labels[dim] = scene.fixed(shape[dim], dim, len(shape))
    output = Labelled(shape, tuple(labels))
    return output, output
