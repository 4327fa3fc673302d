"""Convolutional networks whose members differ in depth, widths, kernels and skip connections."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from zoo.errors import InvalidConfigError
from zoo.networks.activation import Activation
from zoo.networks.dropout import Dropout


@dataclass(frozen=True, kw_only=True)
class WildCNNConfig:
    """A network of the CNN Wild Park [1]_ (App. C.2): every layer has its own size and function.

    Convolutions of stride 1 that keep the image's size, global average pooling, a linear layer. A
    layer may add an earlier layer's output to its own before the activation, on as many channels
    as the smaller of the two has.

    Parameters
    ----------
    in_channels, image_size, out_features
        Input planes, their side in pixels, number of outputs.
    channels, kernel_sizes
        One convolution per entry; kernel sizes are odd.
    residuals
        Per layer the earlier layer, counted from 0, whose output it adds, at least two back; -1
        for none. Empty for none at all.
    activations
        A name of :data:`zoo.networks.ACTIVATIONS` per layer; empty for ``activation`` everywhere.
    activation
        Of every layer, where ``activations`` is empty.
    dropout
        Probability after each activation (0 in the paper).

    References
    ----------
    .. [1] Kofinas et al., "Graph Neural Networks for Learning Equivariant Representations of
       Neural Networks", ICLR 2024.
    """

    name: ClassVar[str] = "wild_cnn"

    in_channels: int = 3
    image_size: int = 32
    out_features: int = 10
    channels: tuple[int, ...] = (8, 16)
    kernel_sizes: tuple[int, ...] = (3, 3)
    residuals: tuple[int, ...] = ()
    activations: tuple[str, ...] = ()
    activation: str = "relu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        layers = len(self.channels)
        lengths = {len(self.kernel_sizes)} | {
            len(values) for values in (self.residuals, self.activations) if values
        }
        if not layers or lengths != {layers}:
            raise InvalidConfigError(
                f"Expected kernel sizes, residuals, activations for {layers} layers, got {self}."
            )
        if min(self.in_channels, self.image_size, self.out_features, *self.channels) < 1:
            raise InvalidConfigError(f"Expected positive sizes, got {self}.")
        if any(size < 1 or size % 2 == 0 for size in self.kernel_sizes):
            raise InvalidConfigError(f"Expected odd kernel sizes, got {self.kernel_sizes}.")
        for layer, source in enumerate(self.residuals):
            if source != -1 and not 0 <= source <= layer - 2:
                raise InvalidConfigError(
                    f"Expected layer {layer} to add a layer at least two before it, or -1 for "
                    f"none, got {source} in residuals {self.residuals}."
                )

    @property
    def sources(self) -> tuple[int, ...]:
        """Per layer the layer that it adds, -1 for none."""
        return self.residuals or (-1,) * len(self.channels)

    def build(self) -> nn.Module:
        """Make the module, with torch's default initialisation."""
        return WildCNN(self)

    def example_input(self, batch: int) -> Tensor:
        """Zeros of shape ``[batch, in_channels, image_size, image_size]``."""
        return torch.zeros(batch, self.in_channels, self.image_size, self.image_size)


class WildCNN(nn.Module):
    """The network of a :class:`WildCNNConfig`: ``[batch, channel, y, x]`` to ``[batch, out]``."""

    def __init__(self, config: WildCNNConfig) -> None:
        super().__init__()
        planes = (config.in_channels, *config.channels)
        self.sources = config.sources
        self.convs = nn.ModuleList(
            nn.Conv2d(fan_in, fan_out, kernel, padding=kernel // 2)
            for fan_in, fan_out, kernel in zip(
                planes[:-1], planes[1:], config.kernel_sizes, strict=True
            )
        )
        names = config.activations or (config.activation,) * len(config.channels)
        self.activations = nn.ModuleList(map(Activation, names))
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(planes[-1], config.out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs (logits, where a classifier)."""
        maps, done = inputs, list[Tensor]()
        for conv, activation, source in zip(
            self.convs, self.activations, self.sources, strict=True
        ):
            maps = conv(maps)
            if source >= 0:
                maps = _add_shared(maps, done[source])
            maps = self.dropout(activation(maps))
            done.append(maps)
        output: Tensor = self.head(maps.mean((2, 3)))
        return output


def _add_shared(maps: Tensor, source: Tensor) -> Tensor:
    """Add ``source`` on the channels that both have; the others of ``maps`` stay as they are."""
    shared = min(maps.shape[1], source.shape[1])
    total = maps[:, :shared] + source[:, :shared]
    if shared == maps.shape[1]:
        return total
    return torch.cat([total, maps[:, shared:]], dim=1)
