"""Operators that multiply, rearrange, pick and join."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .networks import HIDDEN, TOKENS, Case, aten, image, joined, through

LINEAR: dict[str, Case] = {
    "linear": Case(lambda p, x: F.linear(F.linear(x, p.a, p.b).tanh(), p.o), HIDDEN),
    "matmul": Case(
        lambda p, x: torch.matmul(torch.matmul(x, p.a).tanh(), p.o), {"a": (3, 5), "o": (5, 2)}
    ),
    "mm": Case(lambda p, x: torch.mm(torch.mm(x, p.a).tanh(), p.o), {"a": (3, 5), "o": (5, 2)}),
    "bmm": Case(
        lambda p, x: torch.bmm(F.linear(x, p.a), F.linear(x, p.b).mT),
        {"a": (5, 3), "b": (5, 3)},
        TOKENS,
    ),
    "mv": Case(lambda p, x: torch.mv(F.linear(x, p.a).tanh(), p.v), {"a": (5, 3), "v": (5,)}),
    "dot": Case(
        lambda p, x: torch.dot(torch.mv(p.a, x).tanh(), p.v), {"a": (5, 3), "v": (5,)}, ((3,),)
    ),
    "addmm": Case(
        lambda p, x: torch.addmm(p.b, x, p.a).tanh() @ p.o,
        {"a": (3, 5), "b": (5,), "o": (5, 2)},
    ),
    "baddbmm": Case(
        lambda p, x: torch.baddbmm(p.c, F.linear(x, p.a), F.linear(x, p.b).mT),
        {"a": (5, 3), "b": (5, 3), "c": (2, 4, 4)},
        TOKENS,
    ),
    "addmv": Case(lambda p, x: torch.mv(p.o, torch.addmv(p.b, p.a, x).tanh()), HIDDEN, ((3,),)),
    "einsum": Case(
        lambda p, x: torch.einsum("oh,bh->bo", p.o, torch.einsum("bi,hi->bh", x, p.a).tanh()),
        {"a": (5, 3), "o": (2, 5)},
    ),
    "outer": Case(lambda p, x: p.o @ torch.outer(p.a, x).tanh(), {"a": (5,), "o": (2, 5)}, ((3,),)),
}

BLOCKS = {"a": (6, 3), "b": (6,), "o": (2, 3)}
IN_BLOCKS = ((3, 1), (2, 3))
COPIED = ((5, 1), (2, 5))
"""Columns that read the same unit may be swapped, as may those that read zeros."""


def blocks(view) -> Case:
    """Six units as three blocks of two, of which the larger counts."""
    return through(lambda h: view(h).amax(dim=-1), groups=IN_BLOCKS, **BLOCKS)


SHAPE: dict[str, Case] = {
    "permute": through(lambda h: h.permute(1, 0, 2), TOKENS),
    "transpose": through(lambda h: h.transpose(0, 1), TOKENS),
    "swapaxes": through(lambda h: aten.swapaxes(h, 0, 1), TOKENS),
    "t": Case(lambda p, x: p.o @ F.linear(x, p.a).tanh().t(), {"a": (5, 3), "o": (2, 5)}),
    "numpy_T": Case(
        lambda p, x: p.o @ aten.numpy_T(F.linear(x, p.a).tanh()), {"a": (5, 3), "o": (2, 5)}
    ),
    "mT": Case(lambda p, x: p.o @ F.linear(x, p.a).tanh().mT, {"a": (5, 3), "o": (2, 5)}, TOKENS),
    "movedim": through(lambda h: aten.movedim(h, 1, 0), TOKENS),
    "view": blocks(lambda h: h.view(-1, 3, 2)),
    "reshape": blocks(lambda h: h.reshape(-1, 3, 2)),
    "view_copy": blocks(lambda h: aten.view_copy(h, (-1, 3, 2))),
    "_unsafe_view": blocks(lambda h: aten._unsafe_view(h, (2, 3, 2))),
    "unflatten": blocks(lambda h: h.unflatten(1, (3, 2))),
    "flatten": Case(
        lambda p, x: F.linear(F.conv1d(x, p.a).flatten(1), p.o),
        {"a": (5, 3, 1), "o": (2, 20)},
        ((2, 3, 4),),
    ),
    "squeeze": through(lambda h: h[:, None].squeeze(1)),
    "unsqueeze": through(lambda h: h.unsqueeze(1)),
    "expand": through(lambda h: h[:, None].expand(-1, 4, -1)),
    "expand_as": through(lambda h: aten.expand_as(h, torch.zeros(4, 2, 5))),
    "broadcast_to": through(lambda h: aten.broadcast_to(h, (4, 2, 5))),
    "repeat": through(lambda h: h.repeat(1, 2), groups=COPIED, o=(2, 10)),
    "tile": through(lambda h: h.tile(1, 2), groups=COPIED, o=(2, 10)),
    "repeat_interleave": through(
        lambda h: aten.repeat_interleave(h, 2, 1), groups=COPIED, o=(2, 10)
    ),
    "pixel_shuffle": image(lambda h: F.pixel_shuffle(h, 2), width=20),
    "pixel_unshuffle": image(lambda h: F.pixel_unshuffle(h, 2), out=20),
    "channel_shuffle": Case(
        lambda p, x: F.conv1d(aten.channel_shuffle(F.conv1d(x, p.a), 2), p.o, groups=3),
        {"a": (6, 3, 1), "o": (3, 2, 1)},
        ((2, 3, 4),),
        ((2, 1), (2, 1), (2, 1)),
    ),
}


def write_rows(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    operator = getattr(aten, name)
    return lambda u, v: operator(u, 1, torch.tensor([0, 2]), v[:, :2])


def write_entries(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    operator = getattr(aten, name)
    return lambda u, v: operator(u, 1, torch.tensor([[[0], [2]]]).expand(2, 2, 5), v)


def side_by_side(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    operator = getattr(aten, name)
    return lambda u, v: operator([u, v], -1)


INDEXING: dict[str, Case] = {
    "select": through(lambda h: h.select(1, 2), TOKENS),
    "slice": through(lambda h: h[:, 1:3], TOKENS),
    "narrow": through(lambda h: h.narrow(1, 1, 2), TOKENS),
    "split": through(lambda h: torch.mul(*h.split(5, dim=-1)), a=(10, 3)),
    "split_with_sizes": through(lambda h: torch.mul(*h.split([5, 5], dim=-1)), a=(10, 3)),
    "tensor_split": through(lambda h: torch.mul(*h.tensor_split(2, dim=-1)), a=(10, 3)),
    "chunk": through(lambda h: torch.mul(*h.chunk(2, dim=-1)), a=(10, 3)),
    "unbind": through(lambda h: torch.mul(*h.view(-1, 2, 5).unbind(1)), a=(10, 3)),
    "glu": through(F.glu, a=(10, 3)),
    "flip": through(lambda h: h.flip(-1)),
    "roll": through(lambda h: h.roll(2, -1)),
    "embedding": Case(
        lambda p, x: F.linear(F.embedding(torch.tensor([[0, 2, 1], [6, 3, 5]]), p.e), p.o) * x,
        {"e": (7, 5), "o": (2, 5)},
        ((1,),),
    ),
    "index_select": through(lambda h: h.index_select(1, torch.tensor([0, 2])), TOKENS),
    "index": through(lambda h: h[:, torch.tensor([0, 2])], TOKENS),
    "gather": through(lambda h: h.gather(1, torch.tensor([[0], [2]]).expand(2, 2, 5)), TOKENS),
    "tril": Case(
        lambda p, x: torch.einsum("bhts,oh->bots", attend(p, x).tril(), p.o),
        {"a": (5, 3, 4), "o": (2, 5)},
        TOKENS,
    ),
    "triu": Case(
        lambda p, x: torch.einsum("bhts,oh->bots", attend(p, x).triu(), p.o),
        {"a": (5, 3, 4), "o": (2, 5)},
        TOKENS,
    ),
    **{
        name: joined(
            write_rows(name),
            TOKENS,
        )
        for name in ("index_add", "index_copy")
    },
    **{
        name: joined(
            write_entries(name),
            TOKENS,
        )
        for name in ("scatter", "scatter_add")
    },
}


def attend(p: Any, x: Tensor) -> Tensor:
    """Five maps of positions to positions."""
    return torch.einsum("bti,his->bhts", x, p.a)


JOINING: dict[str, Case] = {
    **{
        name: joined(
            side_by_side(name),
            groups=((5, 1), (3, 1)), b=(3, 3), o=(2, 8),
        )
        for name in ("cat", "concat", "concatenate")
    },
    "stack": joined(lambda u, v: torch.stack([u, v], 1)),
    "pad": through(lambda h: F.pad(h, (1, 2)), groups=((5, 1), (2, 1)), o=(2, 8)),
    "constant_pad_nd": through(
        lambda h: aten.constant_pad_nd(h, (1, 2)), groups=((5, 1), (2, 1)), o=(2, 8)
    ),
    "slice_scatter": joined(
        lambda u, v: aten.slice_scatter(u, v, 1, 0, 3), groups=((3, 1),) * 2 + ((2, 1),), b=(3, 3)
    ),
}  # fmt: skip
