"""Convolutional networks with pooling and hidden linear layers, after LeNet."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InvalidConfigError
from zoo.networks.activation import Activation
from zoo.networks.config_fields import added
from zoo.networks.dropout import Dropout


@dataclass(frozen=True, kw_only=True)
class LeNetConfig:
    """Convolutions, each with its own size and max-pooling, then linear layers [1]_.

    Parameters
    ----------
    in_channels, image_size, out_features
        Input planes, their side in pixels, number of outputs.
    channels, kernel_sizes
        One convolution per entry.
    strides, paddings, pools
        Of each convolution, and the side of the max-pooling after it (1 for none); empty for
        strides of 1, no padding, no pooling.
    hidden
        Widths of the hidden linear layers.
    head
        ``"flatten"`` keeps the positions of the last feature map; ``"pool"`` averages over them.
    activation
        A name of :data:`zoo.networks.ACTIVATIONS`, after each pooling and each hidden layer.
    dropout
        Probability after each activation.
    conv_bias
        Whether convolutions have a bias.
    undropped
        Layers whose activation no dropout follows, counted from 0, hidden linear layers after
        convolutions.

    References
    ----------
    .. [1] LeCun et al., "Gradient-based Learning Applied to Document Recognition",
       Proc. IEEE 1998.
    """

    name: ClassVar[str] = "lenet"

    in_channels: int
    image_size: int
    out_features: int
    channels: tuple[int, ...] = (6, 16)
    kernel_sizes: tuple[int, ...] = (5, 5)
    strides: tuple[int, ...] = ()
    paddings: tuple[int, ...] = ()
    pools: tuple[int, ...] = (2, 2)
    hidden: tuple[int, ...] = (120, 84)
    head: Literal["flatten", "pool"] = "flatten"
    activation: str = "relu"
    dropout: float = 0.0
    conv_bias: bool = True
    undropped: tuple[int, ...] = added(())

    def __post_init__(self) -> None:
        layers = len(self.channels)
        given = (self.kernel_sizes, self.strides, self.paddings, self.pools)
        if len(self.kernel_sizes) != layers or any(len(each) not in (0, layers) for each in given):
            raise InvalidConfigError(
                f"Expected sizes, strides, paddings, pools for {layers} convolutions, got {self}."
            )
        if min(self.sizes) < 1:
            raise InvalidConfigError(
                f"Images of {self.image_size} pixels are too small: the feature maps would have "
                f"sides of {', '.join(map(str, self.sizes))}. Use fewer layers or padding."
            )

        if not set(self.undropped) <= set(range(layers + len(self.hidden))):
            raise InvalidConfigError(
                f"Expected layers below {layers + len(self.hidden)} in undropped, "
                f"got {self.undropped}."
            )

    @property
    def layers(self) -> tuple[tuple[int, int, int, int, int], ...]:
        """Per convolution its channels, kernel size, stride, padding and pooling."""
        count = len(self.channels)
        return tuple(
            zip(
                self.channels,
                self.kernel_sizes,
                self.strides or (1,) * count,
                self.paddings or (0,) * count,
                self.pools or (1,) * count,
                strict=True,
            )
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Side of the input and of each feature map after pooling, in pixels."""
        found = [self.image_size]
        for _, kernel, stride, padding, pool in self.layers:
            found.append(((found[-1] + 2 * padding - kernel) // stride + 1) // pool)
        return tuple(found)

    def build(self) -> nn.Module:
        """Make the module, with torch's default initialisation."""
        return LeNet(self)

    def example_input(self, batch: int) -> Tensor:
        """Zeros of shape ``[batch, in_channels, image_size, image_size]``."""
        return torch.zeros(batch, self.in_channels, self.image_size, self.image_size)


class LeNet(nn.Module):
    """The network of a :class:`LeNetConfig`: ``[batch, channel, y, x]`` to ``[batch, out]``."""

    def __init__(self, config: LeNetConfig) -> None:
        super().__init__()
        planes = (config.in_channels, *config.channels)
        self.convs = nn.ModuleList(
            nn.Conv2d(fan_in, fan_out, kernel, stride, padding, bias=config.conv_bias)
            for fan_in, (fan_out, kernel, stride, padding, _) in zip(
                planes, config.layers, strict=False
            )
        )
        positions = config.sizes[-1] ** 2 if config.head == "flatten" else 1
        widths = (planes[-1] * positions, *config.hidden, config.out_features)
        self.linears = nn.ModuleList(
            nn.Linear(fan_in, fan_out)
            for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True)
        )
        self.pools = tuple(pool for *_, pool in config.layers)
        self.averages = config.head == "pool"
        self.activation = Activation(config.activation)
        self.dropout = Dropout(config.dropout)
        self.undropped = config.undropped

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs (logits, where a classifier)."""
        maps = inputs
        for layer, (conv, pool) in enumerate(zip(self.convs, self.pools, strict=True)):
            maps = conv(maps)
            if pool > 1:
                maps = functional.max_pool2d(maps, pool)
            maps = self._activate(layer, maps)
        if self.averages:
            maps = functional.adaptive_avg_pool2d(maps, 1)
        hidden = maps.flatten(1)
        for layer, linear in enumerate(self.linears[:-1], start=len(self.convs)):
            hidden = self._activate(layer, linear(hidden))
        output: Tensor = self.linears[-1](hidden)
        return output

    def _activate(self, layer: int, values: Tensor) -> Tensor:
        active: Tensor = self.activation(values)
        return active if layer in self.undropped else self.dropout(active)
