"""Operators that combine positions, and constants."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from .networks import TOKENS, Case, aten, calls, image, positive, through

REDUCTION: dict[str, Case] = {
    **{
        name: through(calls(name, [1]), TOKENS)
        for name in ("mean", "sum", "amax", "amin", "logsumexp", "var", "std")
    },
    **{name: through(calls(name, 1), TOKENS) for name in ("prod", "argmax", "argmin")},
    **{name: through(calls(name, 1, of=positive), TOKENS) for name in ("all", "any")},
    **{name: through(calls(name, 1, pick=0), TOKENS) for name in ("max", "min")},
    "linalg_vector_norm": through(lambda h: aten.linalg_vector_norm(h, 2, [1]), TOKENS),
    "norm": through(lambda h: aten.norm(h, 2, [1]), TOKENS),
    **{name: through(calls(name, -1)) for name in ("softmax", "log_softmax", "_safe_softmax")},
    **{name: through(calls(name, -1, False)) for name in ("_softmax", "_log_softmax")},
    **{name: through(calls(name, 1), TOKENS) for name in ("cumsum", "cumprod", "logcumsumexp")},
    "topk": through(lambda h: aten.topk(h, 2, 1)[0], TOKENS),
    "sort": through(lambda h: aten.sort(h, 1)[0], TOKENS),
    "scaled_dot_product_attention": Case(
        lambda p, x: F.linear(
            F.scaled_dot_product_attention(F.linear(x, p.q), F.linear(x, p.k), F.linear(x, p.v)),
            p.o,
        ),
        {"q": (3, 3), "k": (3, 3), "v": (5, 3), "o": (2, 5)},
        TOKENS,
        ((3, 1), (5, 1)),
    ),
}


def pools(rank: int) -> dict[str, Case]:
    """Pools and interpolations of images of some rank."""
    side, size = (4,) * rank, [2] * rank
    plain = [f"{kind}{rank}d" for kind in ("avg_pool", "max_pool", "adaptive_avg_pool")]
    plain += [f"_adaptive_avg_pool{rank}d"] * (rank > 1)
    with_positions = [f"adaptive_max_pool{rank}d", f"max_pool{rank}d_with_indices"]
    smooth = {1: ("linear1d",), 2: ("bilinear2d", "bicubic2d"), 3: ("trilinear3d",)}[rank]
    return {
        **{name: image(calls(name, size), side) for name in plain},
        **{name: image(calls(name, size, pick=0), side) for name in with_positions},
        f"upsample_nearest{rank}d": image(calls(f"upsample_nearest{rank}d", [6] * rank), side),
        **{
            f"upsample_{name}": image(calls(f"upsample_{name}", [6] * rank, False), side)
            for name in smooth
        },
    }


def adds(name: str, *, sized: bool = False) -> Callable[[Tensor], Tensor]:
    operator = getattr(aten, name)
    return lambda h: h + (operator(h, h.shape) if sized else operator(h))


FILLED: dict[str, Case] = {
    **{name: through(adds(name)) for name in ("zeros_like", "ones_like")},
    **{name: through(adds(name, sized=True)) for name in ("new_zeros", "new_ones")},
    "empty_like": through(lambda h: h + aten.empty_like(h).isnan() * 0),
    "new_empty": through(lambda h: h + aten.new_empty(h, h.shape).isnan() * 0),
    "full_like": through(lambda h: h + aten.full_like(h, 2.0)),
    "new_full": through(lambda h: h + aten.new_full(h, h.shape, 2.0)),
    "fill": through(lambda h: h + aten.fill(h, 2.0)),
}
"""Constants: a rule that labels them too freely does no harm."""
