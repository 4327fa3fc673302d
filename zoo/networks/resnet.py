"""Residual networks for small images."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InvalidConfigError
from zoo.networks.activation import Activation
from zoo.networks.config_fields import added

_EXPANSION = 4
"""Planes that a bottleneck ends with, for each plane inside."""


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """Residual networks of He et al. [1]_ with a 3x3 convolution as stem.

    By default that for CIFAR-10 (Sec. 4.2): three stages of ``(depth - 2) / 6`` blocks of two 3x3
    convolutions with batch normalisation; stages halve the image and double the planes. Shortcuts
    have no parameters (option A): where the shape changes they skip every other pixel and add
    planes of zeros, half before and half after.

    The ImageNet networks (Table 1) for small images, as zoos of them have it, are
    ``depth=18, blocks=(2, 2, 2, 2), width=64, shortcut="projection"`` and ``depth=50, blocks=(3,
    4, 6, 3), width=64, shortcut="projection", bottleneck=True``.

    Parameters
    ----------
    in_channels, image_size, out_features
        Input planes, their side in pixels, number of outputs.
    depth
        Layers with weights: 8, 14, 20, 26, 32, ...; with ``blocks``, what they add up to.
    width
        Planes of the first stage (16 in the paper).
    activation
        A name of :data:`zoo.networks.ACTIVATIONS`.
    blocks
        Per stage its blocks; empty for three equal stages.
    shortcut
        Where the shape changes: ``"pad"`` (option A), or ``"projection"`` (option B), a 1x1
        convolution with batch normalisation.
    bottleneck
        Blocks of 1x1, 3x3 and 1x1 convolutions, the last with four times the planes (Sec. 4.1).

    References
    ----------
    .. [1] He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
    """

    name: ClassVar[str] = "resnet"

    in_channels: int = 3
    image_size: int = 32
    out_features: int = 10
    depth: int = 20
    width: int = 16
    activation: str = "relu"
    blocks: tuple[int, ...] = added(())
    shortcut: Literal["pad", "projection"] = added("pad")
    bottleneck: bool = added(False)  # noqa: FBT003

    def __post_init__(self) -> None:
        if min(self.in_channels, self.image_size, self.out_features, self.width) < 1:
            raise InvalidConfigError(f"Expected positive sizes, got {self}.")
        if self.shortcut not in ("pad", "projection") or (self.bottleneck and not self.blocks):
            raise InvalidConfigError(
                f"Expected a shortcut pad or projection, and blocks where bottleneck, got {self}."
            )
        if self.blocks:
            layers = 2 + (3 if self.bottleneck else 2) * sum(self.blocks)
            if min(self.blocks) < 1 or layers != self.depth:
                raise InvalidConfigError(
                    f"Expected positive blocks and the depth that they have, {layers}, got {self}."
                )
        elif self.depth < 8 or self.depth % 6 != 2:
            raise InvalidConfigError(f"Expected a depth of 8, 14, 20, ..., got {self}.")

    @property
    def stages(self) -> tuple[int, ...]:
        """Per stage its blocks."""
        return self.blocks or ((self.depth - 2) // 6,) * 3

    def build(self) -> nn.Module:
        """Make the module, with torch's default initialisation."""
        return ResNet(self)

    def example_input(self, batch: int) -> Tensor:
        """Zeros of shape ``[batch, in_channels, image_size, image_size]``."""
        return torch.zeros(batch, self.in_channels, self.image_size, self.image_size)


class ResNet(nn.Module):
    """The network of a :class:`ResNetConfig`: ``[batch, channel, y, x]`` to ``[batch, out]``."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.stem = nn.Conv2d(config.in_channels, config.width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(config.width)
        self.activation = Activation(config.activation)
        planes, blocks = config.width, []
        for stage, count in enumerate(config.stages):
            for position in range(count):
                stride = 2 if stage > 0 and position == 0 else 1
                block = _Block(config, planes, config.width * 2**stage, stride)
                blocks.append(block)
                planes = block.fan_out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(planes, config.out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs (logits, where a classifier)."""
        maps = self.blocks(self.activation(self.norm(self.stem(inputs))))
        output: Tensor = self.head(functional.adaptive_avg_pool2d(maps, 1).flatten(1))
        return output


class _Block(nn.Module):
    """Two or three convolutions and a shortcut."""

    def __init__(self, config: ResNetConfig, fan_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.fan_out = planes * _EXPANSION if config.bottleneck else planes
        self.stride, self.added = stride, self.fan_out - fan_in
        if config.bottleneck:
            self.conv1, self.norm1 = _conv(fan_in, planes, 1)
            self.conv2, self.norm2 = _conv(planes, planes, 3, stride)
            self.conv3, self.norm3 = _conv(planes, self.fan_out, 1)
        else:
            self.conv1, self.norm1 = _conv(fan_in, planes, 3, stride)
            self.conv2, self.norm2 = _conv(planes, planes, 3)
        self.activation = Activation(config.activation)
        self.is_bottleneck = config.bottleneck
        self.projects = config.shortcut == "projection" and (stride > 1 or self.added > 0)
        if self.projects:
            self.shortcut_conv, self.shortcut_norm = _conv(fan_in, self.fan_out, 1, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.norm2(self.conv2(self.activation(self.norm1(self.conv1(inputs)))))
        if self.is_bottleneck:
            hidden = self.norm3(self.conv3(self.activation(hidden)))
        output: Tensor = self.activation(hidden + self._shortcut(inputs))
        return output

    def _shortcut(self, inputs: Tensor) -> Tensor:
        if self.projects:
            projected: Tensor = self.shortcut_norm(self.shortcut_conv(inputs))
            return projected
        if not self.added:
            return inputs
        before = self.added // 2
        smaller = inputs[:, :, :: self.stride, :: self.stride]
        return functional.pad(smaller, (0, 0, 0, 0, before, self.added - before))


def _conv(
    fan_in: int, fan_out: int, kernel: int, stride: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    conv = nn.Conv2d(fan_in, fan_out, kernel, stride, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(fan_out)
