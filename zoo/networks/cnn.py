"""Small convolutional networks."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from zoo.errors import InvalidConfigError
from zoo.networks.activation import Activation
from zoo.networks.dropout import Dropout


@dataclass(frozen=True, kw_only=True)
class CNNConfig:
    """Convolutions, then a linear head on pooled or flattened features.

    The defaults are the network of the Small CNN Zoo [1]_: three 3x3 convolutions with stride 2 and
    no padding, 16 channels each, global average pooling, a linear layer; 4,970 parameters on one
    channel.

    Parameters
    ----------
    in_channels, image_size, out_features
        Input planes, their side in pixels, number of outputs.
    channels, kernel_size, stride, padding
        One convolution per entry of ``channels``.
    head
        ``"pool"`` averages over positions; ``"flatten"`` keeps them.
    activation, dropout, batch_norm
        As in :class:`zoo.networks.MLPConfig`, after each convolution.

    References
    ----------
    .. [1] Unterthiner et al., "Predicting Neural Network Accuracy from Weights",
       arXiv 2002.11448, 2020.
    """

    name: ClassVar[str] = "cnn"

    in_channels: int
    image_size: int
    out_features: int
    channels: tuple[int, ...] = (16, 16, 16)
    kernel_size: int = 3
    stride: int = 2
    padding: int = 0
    head: Literal["pool", "flatten"] = "pool"
    activation: str = "relu"
    dropout: float = 0.0
    batch_norm: bool = False

    def __post_init__(self) -> None:
        if self.final_size < 1:
            raise InvalidConfigError(
                f"Images of {self.image_size} pixels are too small for {len(self.channels)} "
                f"convolutions of size {self.kernel_size} and stride {self.stride}; "
                "use fewer layers, a smaller stride or padding."
            )

    @property
    def final_size(self) -> int:
        """Side of the last feature map, in pixels."""
        size = self.image_size
        for _ in self.channels:
            size = (size + 2 * self.padding - self.kernel_size) // self.stride + 1
        return size

    def build(self) -> nn.Module:
        """Make the module, with torch's default initialisation."""
        return CNN(self)

    def example_input(self, batch: int) -> Tensor:
        """Zeros of shape ``[batch, in_channels, image_size, image_size]``."""
        return torch.zeros(batch, self.in_channels, self.image_size, self.image_size)


class CNN(nn.Module):
    """The network of a :class:`CNNConfig`: ``[batch, channel, y, x]`` to ``[batch, out]``."""

    def __init__(self, config: CNNConfig) -> None:
        super().__init__()
        widths = [config.in_channels, *config.channels]
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True):
            layers.append(
                nn.Conv2d(
                    fan_in,
                    fan_out,
                    config.kernel_size,
                    stride=config.stride,
                    padding=config.padding,
                )
            )
            if config.batch_norm:
                layers.append(nn.BatchNorm2d(fan_out))
            layers += [Activation(config.activation), Dropout(config.dropout)]
        positions = config.final_size**2 if config.head == "flatten" else 1
        if config.head == "pool":
            layers.append(nn.AdaptiveAvgPool2d(1))
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(widths[-1] * positions, config.out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs (logits, where a classifier)."""
        output: Tensor = self.head(self.layers(inputs))
        return output
