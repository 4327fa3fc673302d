"""Nets for small devices, with depthwise and grouped convolutions, and ConvNeXt."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from .inputs import Factory, noise
from .residual import Block, ResNet, conv, projection, stem


def unit(fan_in, fan_out, kernel, stride=1, groups=1, activation=nn.ReLU6) -> nn.Sequential:
    parts = [conv(fan_in, fan_out, kernel, stride, groups), nn.BatchNorm2d(fan_out)]
    return nn.Sequential(*parts, *([activation()] if activation else []))


class SqueezeExcite(nn.Module):
    """Scales channels by a small perceptron of their means."""

    def __init__(self, width: int, squeezed: int, gate: type[nn.Module] = nn.Sigmoid):
        super().__init__()
        self.down, self.up = nn.Conv2d(width, squeezed, 1), nn.Conv2d(squeezed, width, 1)
        self.gate = gate()

    def forward(self, x):
        means = F.adaptive_avg_pool2d(x, 1)
        return x * self.gate(self.up(F.relu(self.down(means))))


class InvertedResidual(nn.Module):
    """Expand, convolve each channel alone, perhaps excite, project."""

    def __init__(
        self,
        widths: tuple[int, int, int],
        *,
        kernel: int = 3,
        stride: int = 1,
        activation: type[nn.Module] = nn.ReLU6,
        excite: nn.Module | None = None,
    ):
        super().__init__()
        fan_in, wide, fan_out = widths
        self.layers = nn.Sequential(
            unit(fan_in, wide, 1, activation=activation),
            unit(wide, wide, kernel, stride, wide, activation),
            excite or nn.Identity(),
            unit(wide, fan_out, 1, activation=None),
        )
        self.residual = stride == 1 and fan_in == fan_out

    def forward(self, x):
        new = self.layers(x)
        return x + new if self.residual else new


def mobilenet_v2() -> nn.Module:
    shapes: Sequence[tuple[int, int, int]] = ((4, 8, 6), (6, 9, 6), (6, 10, 7), (7, 11, 7))
    blocks = [InvertedResidual(s, stride=2 if i == 2 else 1) for i, s in enumerate(shapes)]
    return ResNet(unit(3, 4, 3, 2), [*blocks, unit(7, 13, 1)], 13, 5)


def mobilenet_v3() -> nn.Module:
    excite = [SqueezeExcite(8, 3, nn.Hardsigmoid), SqueezeExcite(9, 2, nn.Hardsigmoid)]
    blocks = [
        InvertedResidual((4, 8, 4), activation=nn.ReLU, excite=excite[0]),
        InvertedResidual((4, 10, 6), stride=2, activation=nn.Hardswish),
        InvertedResidual((6, 9, 6), kernel=5, activation=nn.Hardswish, excite=excite[1]),
    ]
    features = ResNet(unit(3, 4, 3, 2, activation=nn.Hardswish), blocks, 6, 11)
    return nn.Sequential(features, nn.Hardswish(), nn.Dropout(), nn.Linear(11, 5))


def efficientnet() -> nn.Module:
    shapes: Sequence[tuple[int, int, int]] = ((5, 9, 6), (6, 11, 6), (6, 8, 7))
    blocks = [
        InvertedResidual(s, kernel=k, stride=t, activation=nn.SiLU, excite=SqueezeExcite(s[1], 3))
        for s, k, t in zip(shapes, (3, 5, 3), (1, 1, 2), strict=True)
    ]
    return ResNet(unit(3, 5, 3, activation=nn.SiLU), blocks, 7, 4)


def regnet() -> nn.Module:
    """RegNetY: grouped bottlenecks of constant group width, each block excited."""
    blocks = [
        nn.Sequential(
            Block((5, 8, 8, 6), (1, 3, 1), projection(5, 6, 2), stride=2, groups=4),
            SqueezeExcite(6, 3),
        ),
        Block((6, 6, 6, 6), (1, 3, 1), nn.Identity(), groups=3),
    ]
    return ResNet(stem(5), blocks, 6, 4)


class ConvNextBlock(nn.Module):
    """A depthwise convolution, then a perceptron per pixel with channels last, layer scale."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-2))

    def forward(self, x):
        hidden = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        hidden = self.scale * self.down(F.gelu(self.up(hidden)))
        return x + hidden.permute(0, 3, 1, 2)


class ChannelNorm(nn.Module):
    """LayerNorm over channels, written out."""

    def __init__(self, width: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x):
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


def convnext() -> nn.Module:
    first = nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), ChannelNorm(4))
    between = [ChannelNorm(4), nn.Conv2d(4, 7, 2, stride=2)]
    blocks = [ConvNextBlock(4, 9), ConvNextBlock(4, 8), *between, ConvNextBlock(7, 10)]
    return ResNet(first, blocks, 7, 5)


def shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Interleave groups of channels."""
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(batch, channels, height, width)


class ShuffleV1(nn.Module):
    """Grouped one by one convolutions with a channel shuffle between them."""

    def __init__(self, width: int, hidden: int, groups: int):
        super().__init__()
        self.groups = groups
        self.expand = unit(width, hidden, 1, groups=groups)
        self.depthwise = unit(hidden, hidden, 3, groups=hidden, activation=None)
        self.project = unit(hidden, width, 1, groups=groups, activation=None)

    def forward(self, x):
        hidden = self.depthwise(shuffle(self.expand(x), self.groups))
        return F.relu(x + self.project(hidden))


class ShuffleV2(nn.Module):
    """Half of the channels pass by, then both halves are shuffled."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(
            unit(half, hidden, 1, activation=nn.ReLU),
            unit(hidden, hidden, 3, groups=hidden, activation=None),
            unit(hidden, half, 1, activation=nn.ReLU),
        )

    def forward(self, x):
        kept, changed = x.chunk(2, dim=1)
        return shuffle(torch.cat([kept, self.branch(changed)], dim=1), 2)


def shufflenet_v1() -> nn.Module:
    return ResNet(stem(6), [ShuffleV1(6, 9, 3), ShuffleV1(6, 12, 3)], 6, 5)


def shufflenet_v2() -> nn.Module:
    return ResNet(stem(8), [ShuffleV2(8, 5), ShuffleV2(8, 7), unit(8, 9, 1)], 9, 5)


ARCHITECTURES: dict[str, Factory] = {
    "mobilenet-v2": lambda: (mobilenet_v2(), (noise(2, 3, 8, 8),)),
    "mobilenet-v3": lambda: (mobilenet_v3(), (noise(2, 3, 8, 8),)),
    "efficientnet": lambda: (efficientnet(), (noise(2, 3, 6, 6),)),
    "regnet": lambda: (regnet(), (noise(2, 3, 6, 6),)),
    "convnext": lambda: (convnext(), (noise(2, 3, 8, 8),)),
    "shufflenet-v1": lambda: (shufflenet_v1(), (noise(2, 3, 6, 6),)),
    "shufflenet-v2": lambda: (shufflenet_v2(), (noise(2, 3, 6, 6),)),
}
