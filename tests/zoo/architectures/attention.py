"""Attention on images and sets: vision transformers, Swin, Perceiver, torch's own layers."""

import torch
from torch import nn
from torch.nn import functional as F

from .inputs import Factory, noise


class FusedAttention(nn.Module):
    """Query, key and value from one matrix, laid out as [3, heads, width of a head]."""

    def __init__(self, width: int, heads: int, head_width: int):
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.qkv = nn.Linear(width, 3 * heads * head_width)
        self.proj = nn.Linear(heads * head_width, width)

    def forward(self, x):
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, self.head_width)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, length, -1))


class SeparateAttention(nn.Module):
    """Query, key and value from three matrices, the products written out; keys may be others'."""

    def __init__(self, width: int, heads: int, head_width: int, context_width: int | None = None):
        super().__init__()
        self.heads, inner = heads, heads * head_width
        self.q = nn.Linear(width, inner)
        self.k = nn.Linear(context_width or width, inner)
        self.v = nn.Linear(context_width or width, inner)
        self.out = nn.Linear(inner, width)

    def split(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x, context=None):
        context = x if context is None else context
        q, k, v = self.split(self.q(x)), self.split(self.k(context)), self.split(self.v(context))
        weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a perceptron, each normalised before and added to the stream."""

    def __init__(self, width: int, hidden: int, attention: nn.Module):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = attention
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class VisionTransformer(nn.Module):
    """Patches, extra tokens, learned positions; reads the extra tokens, else the mean patch."""

    def __init__(self, width: int, blocks: list[nn.Module], *, extra: int, patches: int = 4):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, stride=4)
        self.extra = nn.Parameter(noise(1, extra, width)) if extra else None
        self.positions = nn.Parameter(noise(1, patches + extra, width))
        self.blocks, self.norm = nn.Sequential(*blocks), nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, 3) for _ in range(max(extra, 1)))

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        if self.extra is not None:
            x = torch.cat([self.extra.expand(len(x), -1, -1), x], dim=1)
        x = self.norm(self.blocks(x + self.positions))
        if self.extra is None:
            return self.heads[0](x.mean(dim=1))
        return sum(head(x[:, i]) for i, head in enumerate(self.heads)) / len(self.heads)


def vit(*, fused: bool, extra: int) -> nn.Module:
    kind = FusedAttention if fused else SeparateAttention
    blocks: list[nn.Module] = [Block(6, 11, kind(6, 2, 5)), Block(6, 7, kind(6, 3, 4))]
    return VisionTransformer(6, blocks, extra=extra)


class Swin(nn.Module):
    """Attention in windows of two by two pixels, rolled by one, with a learned position bias."""

    def __init__(self, width: int, heads: int, head_width: int, *, shift: int):
        super().__init__()
        self.heads, self.shift = heads, shift
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * heads * head_width)
        self.proj = nn.Linear(heads * head_width, width)
        self.bias = nn.Parameter(noise(9, heads))
        row, column = torch.arange(4) // 2, torch.arange(4) % 2
        offset = 3 * (row[:, None] - row + 1) + column[:, None] - column + 1
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, x):
        batch, height, width, channels = x.shape
        windows = torch.roll(self.norm(x), (-self.shift, -self.shift), dims=(1, 2))
        windows = windows.view(batch, height // 2, 2, width // 2, 2, channels)
        windows = windows.permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, channels)
        qkv = self.qkv(windows).view(len(windows), 4, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = qkv[0] @ qkv[1].mT * qkv.shape[-1] ** -0.5
        scores = scores + self.bias[self.offset.flatten()].view(4, 4, -1).permute(2, 0, 1)
        merged = self.proj((scores.softmax(-1) @ qkv[2]).transpose(1, 2).flatten(2))
        merged = merged.view(batch, height // 2, width // 2, 2, 2, channels)
        merged = merged.permute(0, 1, 3, 2, 4, 5).reshape(x.shape)
        return x + torch.roll(merged, (self.shift, self.shift), dims=(1, 2))


class PatchMerging(nn.Module):
    """Four neighbours become one pixel."""

    def __init__(self, fan_in: int, fan_out: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * fan_in)
        self.reduce = nn.Linear(4 * fan_in, fan_out, bias=False)

    def forward(self, x):
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduce(self.norm(torch.cat(corners, dim=-1)))


class SwinTransformer(nn.Module):
    """Two windowed blocks, a merging, one more, the mean."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 2, stride=2)
        self.blocks = nn.Sequential(
            Swin(6, 3, 5, shift=0),
            Swin(6, 2, 7, shift=1),
            PatchMerging(6, 8),
            Swin(8, 2, 5, shift=0),
        )
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.blocks(self.patch(x).permute(0, 2, 3, 1))
        return self.head(self.norm(x).mean(dim=(1, 2)))


class Perceiver(nn.Module):
    """Learned latents attend to the input, then to each other, with shared weights, twice."""

    def __init__(self):
        super().__init__()
        self.latents = nn.Parameter(noise(4, 6))
        self.read = SeparateAttention(6, 2, 4, context_width=5)
        self.think = Block(6, 9, SeparateAttention(6, 3, 5))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        latents = self.latents.repeat(len(x), 1, 1)
        for _ in range(2):
            latents = self.think(latents + self.read(latents, x))
        return self.head(latents.mean(dim=1))


class LinearAttention(nn.Module):
    """A feature map instead of a softmax: queries meet a summary of keys and values."""

    def __init__(self, width: int, heads: int, head_width: int):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.out, self.heads = nn.Linear(heads * head_width, width), heads

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in self.qkv(x).chunk(3, dim=-1))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        summary = torch.einsum("bshd,bshe->bhde", k, v)
        scale = torch.einsum("blhd,bhd->blh", q, k.sum(dim=1))
        return self.out((torch.einsum("blhd,bhde->blhe", q, summary) / scale[..., None]).flatten(2))


def around(width: int, middle: nn.Module, fan_in: int = 4, fan_out: int = 3) -> nn.Module:
    """A linear layer before and one after, so that the width between them is free."""
    return nn.Sequential(nn.Linear(fan_in, width), middle, nn.Linear(width, fan_out))


class SelfAttention(nn.Module):
    """torch's attention on its own, with its averaged weights as a second output."""

    def __init__(self):
        super().__init__()
        self.embed, self.attention = nn.Linear(4, 6), nn.MultiheadAttention(6, 3, batch_first=True)

    def forward(self, x):
        return self.attention(*[self.embed(x)] * 3)


class Translator(nn.Module):
    """torch's encoder and decoder between linear layers."""

    def __init__(self):
        super().__init__()
        self.source, self.target, self.head = nn.Linear(4, 6), nn.Linear(3, 6), nn.Linear(6, 5)
        sizes = {"dim_feedforward": 7, "num_encoder_layers": 1, "num_decoder_layers": 2}
        self.transformer = nn.Transformer(6, 2, batch_first=True, dropout=0.0, **sizes)
        mask = torch.triu(torch.full((4, 4), -torch.inf), diagonal=1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, source, target):
        streams = self.source(source), self.target(target)
        return self.head(self.transformer(*streams, tgt_mask=self.mask, tgt_is_causal=True))


def encoder(heads: int, *, norm_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        6, heads, dim_feedforward=9, batch_first=True, norm_first=norm_first, activation="gelu"
    )
    last = nn.LayerNorm(6) if norm_first else None
    return around(6, nn.TransformerEncoder(layer, 2, last, enable_nested_tensor=False))


ARCHITECTURES: dict[str, Factory] = {
    "vit-fused": lambda: (vit(fused=True, extra=1), (noise(2, 3, 8, 8),)),
    "vit-separate": lambda: (vit(fused=False, extra=1), (noise(2, 3, 8, 8),)),
    "vit-mean-pool": lambda: (vit(fused=True, extra=0), (noise(2, 3, 8, 8),)),
    "deit-two-tokens": lambda: (vit(fused=False, extra=2), (noise(2, 3, 8, 8),)),
    "swin": lambda: (SwinTransformer(), (noise(2, 3, 8, 8),)),
    "perceiver": lambda: (Perceiver(), (noise(2, 7, 5),)),
    "linear-attention": lambda: (around(6, LinearAttention(6, 2, 5)), (noise(2, 7, 4),)),
    "multihead-attention": lambda: (SelfAttention(), (noise(2, 5, 4),)),
    "transformer-encoder-pre-norm": lambda: (encoder(3, norm_first=True), (noise(2, 5, 4),)),
    "transformer-encoder-post-norm": lambda: (
        encoder(2, norm_first=False),
        (noise(2, 5, 4),),
    ),
    "transformer-encoder-decoder": lambda: (Translator(), (noise(2, 5, 4), noise(2, 4, 3))),
}
