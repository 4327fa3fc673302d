"""Decoder-only language models that differ in positions, heads, norms and perceptrons."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .inputs import Factory, tokens

VOCABULARY = 11
LENGTH = 7


class Rotate(nn.Module):
    """Rotary positions: pairs of features turn with the place, [batch, heads, length, width]."""

    def __init__(self, head_width: int):
        super().__init__()
        rates = 100.0 ** (-torch.arange(0, head_width, 2) / head_width)
        angles = torch.outer(torch.arange(LENGTH), rates).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x):
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat([-second, first], dim=-1) * self.sin


class Causal(nn.Module):
    """Causal attention; ``adapt`` is made twice, for queries and for keys."""

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        *,
        groups: int | None = None,
        adapt: Callable[[int], nn.Module] | None = None,
        bias: bool = False,
    ):
        super().__init__()
        self.heads, self.groups = heads, groups or heads
        self.q = nn.Linear(width, heads * head_width, bias=bias)
        self.k = nn.Linear(width, self.groups * head_width, bias=bias)
        self.v = nn.Linear(width, self.groups * head_width, bias=bias)
        self.out = nn.Linear(heads * head_width, width, bias=bias)
        self.adapt_q = adapt(head_width) if adapt else nn.Identity()
        self.adapt_k = adapt(head_width) if adapt else nn.Identity()

    def forward(self, x):
        batch, length, _ = x.shape
        q = self.q(x).view(batch, length, self.heads, -1).transpose(1, 2)
        k = self.k(x).view(batch, length, self.groups, -1).transpose(1, 2)
        v = self.v(x).view(batch, length, self.groups, -1).transpose(1, 2)
        q, k, shared = self.adapt_q(q), self.adapt_k(k), self.heads != self.groups
        x = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared)
        return self.out(x.transpose(1, 2).reshape(batch, length, -1))


class MultiQuery(nn.Module):
    """One key and one value for all heads, from a matrix fused with the queries."""

    def __init__(self, width: int, heads: int, head_width: int):
        super().__init__()
        self.sizes, self.heads = (heads * head_width, head_width, head_width), heads
        self.qkv = nn.Linear(width, sum(self.sizes))
        self.out = nn.Linear(heads * head_width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).split(self.sizes, dim=-1)
        q = q.unflatten(-1, (self.heads, -1))
        scores = torch.einsum("blhd,bsd->bhls", q, k) / k.shape[-1] ** 0.5
        later = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(dim=-1)
        return self.out(torch.einsum("bhls,bsd->blhd", weights, v).flatten(2))


class Sloped(nn.Module):
    """ALiBi: no positions, but a penalty on distance, with a learned slope for each head."""

    def __init__(self, width: int, heads: int, head_width: int):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * heads * head_width)
        self.out, self.heads = nn.Linear(heads * head_width, width), heads
        self.slopes = nn.Parameter(2.0 ** -torch.arange(1, heads + 1))
        place = torch.arange(LENGTH)
        distance = (place - place[:, None]).masked_fill(place > place[:, None], -1000)
        self.register_buffer("distance", distance, persistent=False)

    def forward(self, x):
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        bias = self.slopes.abs()[:, None, None] * self.distance
        weights = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5 + bias, dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Perceptron(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class SwiGlu(nn.Module):
    """Gate and value from one matrix."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)


class Gpt(nn.Module):
    """Tokens, perhaps learned positions, pairs of attention and perceptron, perhaps a tied head."""

    def __init__(
        self,
        width: int,
        layers: Sequence[nn.Module],
        *,
        norm: Callable[[int], nn.Module] = nn.LayerNorm,
        positions: bool = False,
        tied: bool = False,
    ):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Embedding(LENGTH, width) if positions else None
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(norm(width) for _ in range(len(layers) + 1))
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor):
        x = self.tokens(ids)
        if self.positions is not None:
            x = x + self.positions(torch.arange(ids.shape[1]))
        for norm, layer in zip(self.norms, self.layers, strict=False):
            x = x + layer(norm(x))
        return self.head(self.norms[-1](x))


def gpt_learned(*, tied: bool) -> nn.Module:
    layers = [Causal(6, 2, 5, bias=True), Perceptron(6, 8), Causal(6, 3, 3), Perceptron(6, 5)]
    return Gpt(6, layers, positions=True, tied=tied)


def gpt_rotary() -> nn.Module:
    layers = [Causal(6, 2, 4, adapt=Rotate), Perceptron(6, 7), Causal(6, 3, 4, adapt=Rotate)]
    return Gpt(6, layers)


def gpt_swiglu() -> nn.Module:
    layers = [Causal(6, 3, 3), SwiGlu(6, 5), Causal(6, 2, 5), SwiGlu(6, 7)]
    return Gpt(6, layers, norm=nn.RMSNorm, tied=True)


def gpt_grouped_query() -> nn.Module:
    layers = [Causal(8, 6, 2, groups=3, bias=True), Perceptron(8, 9), Causal(8, 6, 5, groups=2)]
    return Gpt(8, layers, positions=True)


def gpt_multi_query() -> nn.Module:
    return Gpt(6, [MultiQuery(6, 3, 4), Perceptron(6, 8), MultiQuery(6, 2, 5)])


def gpt_qk_norm() -> nn.Module:
    layers = [Causal(6, 2, 5, adapt=nn.RMSNorm), SwiGlu(6, 7), Causal(6, 3, 4, adapt=nn.LayerNorm)]
    return Gpt(6, layers, norm=nn.RMSNorm)


def gpt_sloped() -> nn.Module:
    return Gpt(8, [Sloped(8, 2, 3), Perceptron(8, 5), Sloped(8, 3, 5)])


def reads(module: nn.Module) -> tuple[nn.Module, tuple[Tensor]]:
    return module, (tokens(2, LENGTH, VOCABULARY),)


ARCHITECTURES: dict[str, Factory] = {
    "gpt-learned-positions": lambda: reads(gpt_learned(tied=False)),
    "gpt-tied": lambda: reads(gpt_learned(tied=True)),
    "gpt-rotary": lambda: reads(gpt_rotary()),
    "gpt-rms-norm-swiglu": lambda: reads(gpt_swiglu()),
    "gpt-grouped-query": lambda: reads(gpt_grouped_query()),
    "gpt-multi-query": lambda: reads(gpt_multi_query()),
    "gpt-qk-norm": lambda: reads(gpt_qk_norm()),
    "gpt-alibi": lambda: reads(gpt_sloped()),
}
