"""Scaled dot-product attention [1]_.

References
----------
.. [1] Vaswani et al., "Attention Is All You Need", NeurIPS 2017, Eq. (1).
"""

from typing import Any

from torch.fx import Node

from zoo.symmetry.labels import Labelled
from zoo.symmetry.rules.linear import matmul
from zoo.symmetry.rules.registry import rule
from zoo.symmetry.rules.shape import repeat_interleave
from zoo.symmetry.scene import Scene
from zoo.symmetry.units import Pin


@rule("scaled_dot_product_attention")
def attention(
    scene: Scene,
    node: Node,
    query: Labelled,
    key: Labelled,
    value: Labelled,
    mask: Labelled | None = None,
    *args: Any,
    is_causal: Any = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    **_: Any,
) -> Labelled:
    """``softmax(Q K^T) V``, heads and batch as leading axes."""
    if enable_gqa and query.shape[-3] != key.shape[-3]:
        count = query.shape[-3] // key.shape[-3]
        key = repeat_interleave(scene, node, key, count, -3)
        value = repeat_interleave(scene, node, value, count, -3)
    order = [*range(key.rank - 2), key.rank - 1, key.rank - 2]
    scores: Labelled = matmul(scene, node, query, scene.permute(key, order))
    causal = args[1] if len(args) > 1 else is_causal
    if causal:
        scene.pin(scores, [scores.rank - 2, scores.rank - 1], Pin("fixed", "causal"))
    if mask is not None:
        scores = scene.elementwise(scores, mask)
    output: Labelled = matmul(scene, node, scores, value)
    return output
