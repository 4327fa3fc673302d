"""Residual convolutional nets, and DenseNet, where the stream is concatenated instead."""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from .inputs import Factory, noise

Norm = Callable[[int], nn.Module]


def conv(fan_in: int, fan_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    padding = kernel // 2
    return nn.Conv2d(fan_in, fan_out, kernel, stride, padding, groups=groups, bias=False)


class Block(nn.Module):
    """Convolutions, each with a norm, beside a shortcut; one strides and may be grouped."""

    def __init__(
        self,
        widths: Sequence[int],
        kernels: Sequence[int],
        shortcut: nn.Module,
        *,
        stride: int = 1,
        groups: int = 1,
        norm: Norm = nn.BatchNorm2d,
    ):
        super().__init__()
        special = kernels.index(3)
        self.convs = nn.ModuleList(
            conv(a, b, k, *((stride, groups) if i == special else ()))
            for i, (a, b, k) in enumerate(zip(widths[:-1], widths[1:], kernels, strict=True))
        )
        self.norms = nn.ModuleList(norm(width) for width in widths[1:])
        self.shortcut = shortcut

    def forward(self, x):
        new = x
        for i, (convolve, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            new = norm(convolve(F.relu(new) if i else new))
        return F.relu(new + self.shortcut(x))


class Padded(nn.Module):
    """Option A: every second pixel, zeros for the channels that are missing."""

    def __init__(self, extra: int):
        super().__init__()
        self.extra = extra

    def forward(self, x):
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))


class ResNet(nn.Module):
    """A stem, blocks, the mean over pixels, a linear layer."""

    def __init__(self, stem: nn.Module, blocks: Sequence[nn.Module], out: int, classes: int):
        super().__init__()
        self.stem, self.blocks = stem, nn.Sequential(*blocks)
        self.head = nn.Linear(out, classes)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))


def projection(fan_in: int, fan_out: int, stride: int, norm: Norm = nn.BatchNorm2d) -> nn.Module:
    return nn.Sequential(conv(fan_in, fan_out, 1, stride), norm(fan_out))


def stem(width: int, norm: Norm = nn.BatchNorm2d) -> nn.Module:
    return nn.Sequential(conv(3, width, 3), norm(width), nn.ReLU())


def basic_resnet(
    widths: Sequence[int], *, padded: bool, repeats: int = 3, classes: int = 5
) -> nn.Module:
    """A stage of basic blocks for each width; three of three make ResNet-20."""
    blocks, fan_in = [], widths[0]
    for width in widths:
        for _ in range(repeats):
            stride, shortcut = 1, nn.Identity()
            if fan_in != width:
                stride = 2
                shortcut = Padded(width - fan_in) if padded else projection(fan_in, width, 2)
            blocks.append(Block((fan_in, width, width), (3, 3), shortcut, stride=stride))
            fan_in = width
    return ResNet(stem(widths[0]), blocks, widths[-1], classes)


def resnet50(widths: Sequence[int] = (3, 4, 5, 6)) -> nn.Module:
    """Stages of 3, 4, 6 and 3 bottlenecks that widen by four."""
    first = nn.Sequential(conv(3, 7, 7, 2), nn.BatchNorm2d(7), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    blocks, fan_in = [], 7
    for stage, (width, repeats) in enumerate(zip(widths, (3, 4, 6, 3), strict=True)):
        for repeat in range(repeats):
            stride = 2 if stage and not repeat else 1
            shortcut = nn.Identity() if repeat else projection(fan_in, 4 * width, stride)
            inner = (fan_in, width, width, 4 * width)
            blocks.append(Block(inner, (1, 3, 1), shortcut, stride=stride))
            fan_in = 4 * width
    return ResNet(first, blocks, fan_in, 11)


def resnext(norm: Norm) -> nn.Module:
    """Bottlenecks whose middle convolution has two or three groups."""
    shapes = (((5, 6, 6, 8), 1, 2), ((8, 12, 12, 8), 1, 3), ((8, 10, 10, 14), 2, 2))
    blocks = []
    for widths, stride, groups in shapes:
        ends = widths[0], widths[-1]
        shortcut = nn.Identity() if ends == (8, 8) else projection(*ends, stride, norm)
        options = {"stride": stride, "groups": groups, "norm": norm}
        blocks.append(Block(widths, (1, 3, 1), shortcut, **options))
    return ResNet(stem(5, nn.BatchNorm2d), blocks, 14, 3)


def groups_of_two(width: int) -> nn.Module:
    return nn.GroupNorm(2, width)


class PreActivation(nn.Module):
    """Norm and ReLU before each convolution; the shortcut stays clean."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, dropout: float):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(fan_in), nn.BatchNorm2d(fan_out)
        self.conv1, self.conv2 = conv(fan_in, fan_out, 3, stride), conv(fan_out, fan_out, 3)
        self.project = conv(fan_in, fan_out, 1, stride) if fan_in != fan_out else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        hidden = F.relu(self.norm1(x))
        shortcut = x if self.project is None else self.project(hidden)
        hidden = self.dropout(F.relu(self.norm2(self.conv1(hidden))))
        return shortcut + self.conv2(hidden)


def preactivation(widths: Sequence[int], repeats: int, dropout: float) -> nn.Module:
    blocks: list[nn.Module] = []
    fan_in = widths[0]
    for stage, width in enumerate(widths[1:]):
        for repeat in range(repeats):
            blocks.append(PreActivation(fan_in, width, 2 if stage and not repeat else 1, dropout))
            fan_in = width
    blocks += [nn.BatchNorm2d(fan_in), nn.ReLU()]
    return ResNet(conv(3, widths[0], 3), blocks, fan_in, 5)


class DenseLayer(nn.Module):
    """Appends what it computes to its input."""

    def __init__(self, fan_in: int, growth: int, bottleneck: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(fan_in), nn.BatchNorm2d(bottleneck)
        self.conv1, self.conv2 = conv(fan_in, bottleneck, 1), conv(bottleneck, growth, 3)

    def forward(self, x):
        hidden = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(hidden)))], dim=1)


def densenet() -> nn.Module:
    transition = [nn.BatchNorm2d(11), nn.ReLU(), conv(11, 6, 1), nn.AvgPool2d(2)]
    blocks = [DenseLayer(5, 3, 7), DenseLayer(8, 3, 4), *transition]
    blocks += [DenseLayer(6, 2, 5), DenseLayer(8, 2, 3), nn.BatchNorm2d(10), nn.ReLU()]
    return ResNet(stem(5), blocks, 10, 4)


ARCHITECTURES: dict[str, Factory] = {
    "resnet20-projection": lambda: (basic_resnet((4, 6, 7), padded=False), (noise(2, 3, 8, 8),)),
    "resnet20-padded": lambda: (basic_resnet((4, 7, 12), padded=True), (noise(2, 3, 8, 8),)),
    "resnet50": lambda: (resnet50(), (noise(2, 3, 32, 32),)),
    "preactivation-resnet": lambda: (preactivation((4, 5, 7), 2, 0.0), (noise(2, 3, 8, 8),)),
    "wide-resnet": lambda: (preactivation((3, 12, 18), 1, 0.3), (noise(2, 3, 6, 6),)),
    "resnext-batch-norm": lambda: (resnext(nn.BatchNorm2d), (noise(2, 3, 6, 6),)),
    "resnext-group-norm": lambda: (resnext(groups_of_two), (noise(2, 3, 6, 6),)),
    "densenet": lambda: (densenet(), (noise(2, 3, 6, 6),)),
}
