"""Residual networks for small images."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InvalidConfigError
from zoo.networks.activation import Activation


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """The residual network of He et al. for CIFAR-10 [1]_ (Sec. 4.2), with shortcuts of option A.

    Three stages of ``(depth - 2) / 6`` blocks of two 3x3 convolutions with batch normalisation;
    stages halve the image and double the planes. Shortcuts have no parameters: where the shape
    changes they skip every other pixel and add planes of zeros, half before and half after.

    Parameters
    ----------
    in_channels, image_size, out_features
        Input planes, their side in pixels, number of outputs.
    depth
        Layers with weights: 8, 14, 20, 26, 32, ...
    width
        Planes of the first stage (16 in the paper).
    activation
        A name of :data:`zoo.networks.ACTIVATIONS`.

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

    def __post_init__(self) -> None:
        if self.depth < 8 or self.depth % 6 != 2 or self.width < 1 or self.image_size < 1:
            raise InvalidConfigError(
                f"Expected a depth of 8, 14, 20, ... and a positive width and size, got {self}."
            )

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
        for stage in range(3):
            for position in range((config.depth - 2) // 6):
                grows = stage > 0 and position == 0
                wider = 2 * planes if grows else planes
                blocks.append(_Block(planes, wider, config.activation))
                planes = wider
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(planes, config.out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs (logits, where a classifier)."""
        maps = self.blocks(self.activation(self.norm(self.stem(inputs))))
        output: Tensor = self.head(functional.adaptive_avg_pool2d(maps, 1).flatten(1))
        return output


class _Block(nn.Module):
    """Two convolutions and a shortcut; where it is wider than its input it halves the image."""

    def __init__(self, fan_in: int, fan_out: int, activation: str) -> None:
        super().__init__()
        self.stride = 1 if fan_in == fan_out else 2
        self.added = fan_out - fan_in
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride=self.stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(fan_out)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(fan_out)
        self.activation = Activation(activation)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.activation(self.norm1(self.conv1(inputs)))
        output: Tensor = self.activation(self.norm2(self.conv2(hidden)) + self._shortcut(inputs))
        return output

    def _shortcut(self, inputs: Tensor) -> Tensor:
        if not self.added:
            return inputs
        before = self.added // 2
        smaller = inputs[:, :, :: self.stride, :: self.stride]
        return functional.pad(smaller, (0, 0, 0, 0, before, self.added - before))
