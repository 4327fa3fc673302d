"""Mixers: perceptrons across tokens in place of attention."""

import torch
from torch import nn
from torch.nn import functional as F

from .inputs import Factory, noise
from .perceptrons import mlp


class TokenMixer(nn.Module):
    """MLP-Mixer, ResMLP or gMLP blocks, by ``kind``, over five tokens."""

    def __init__(self, kind: type[nn.Module]):
        super().__init__()
        self.embed, self.blocks = nn.Linear(4, 6), nn.Sequential(kind(6, 5, 7), kind(6, 5, 8))
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.embed(x))).mean(dim=1))


class MixerBlock(nn.Module):
    """A perceptron across tokens, then one across features."""

    def __init__(self, width: int, length: int, hidden: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens, self.features = mlp(length, 4, length), mlp(width, hidden, width)

    def forward(self, x):
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.features(self.norm2(x))


class ResMlpBlock(nn.Module):
    """Affine maps in place of norms; tokens mix linearly."""

    def __init__(self, width: int, length: int, hidden: int):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.tokens, self.features = nn.Conv1d(length, length, 1), mlp(width, hidden, width)
        self.layer_scale = nn.Parameter(torch.full((2, width), 0.1))

    def forward(self, x):
        x = x + self.layer_scale[0] * self.tokens(torch.addcmul(self.shift, self.scale, x))
        return x + self.layer_scale[1] * self.features(x)


class GmlpBlock(nn.Module):
    """Half of the features, mixed across tokens, gate the other half."""

    def __init__(self, width: int, length: int, hidden: int):
        super().__init__()
        self.norm, self.gate_norm = nn.LayerNorm(width), nn.LayerNorm(hidden)
        self.up, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)
        self.spatial = nn.Parameter(noise(length, length) / 10)
        self.bias = nn.Parameter(torch.ones(length, 1))

    def forward(self, x):
        value, gate = F.gelu(self.up(self.norm(x))).chunk(2, dim=-1)
        return x + self.down(value * (self.spatial @ self.gate_norm(gate) + self.bias))


ARCHITECTURES: dict[str, Factory] = {
    "mlp-mixer": lambda: (TokenMixer(MixerBlock), (noise(2, 5, 4),)),
    "resmlp": lambda: (TokenMixer(ResMlpBlock), (noise(2, 5, 4),)),
    "gmlp": lambda: (TokenMixer(GmlpBlock), (noise(2, 5, 4),)),
}
