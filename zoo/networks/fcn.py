"""Fully convolutional networks for series."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InvalidConfigError
from zoo.networks.activation import Activation
from zoo.networks.dropout import Dropout


@dataclass(frozen=True, kw_only=True)
class FCNConfig:
    """Convolutions over time that keep the length, the mean over time, a linear head [1]_.

    The paper's has 128, 256 and 128 channels.

    Parameters
    ----------
    in_channels, length, out_features
        Dimensions of a series, its steps, number of outputs.
    channels, kernel_sizes
        One convolution per entry; 8, 5 and 3 steps wide in the paper.
    activation, dropout, batch_norm
        As in :class:`zoo.networks.MLPConfig`, after each convolution.

    References
    ----------
    .. [1] Wang et al., "Time Series Classification from Scratch with Deep Neural Networks",
       IJCNN 2017, Sec. II-B.
    """

    name: ClassVar[str] = "fcn"

    in_channels: int
    length: int
    out_features: int
    channels: tuple[int, ...] = (16, 32, 16)
    kernel_sizes: tuple[int, ...] = (8, 5, 3)
    activation: str = "relu"
    dropout: float = 0.0
    batch_norm: bool = True

    def __post_init__(self) -> None:
        sizes = (*self.channels, *self.kernel_sizes)
        if not self.channels or len(self.channels) != len(self.kernel_sizes):
            raise InvalidConfigError(
                f"Expected one kernel size per convolution, got {self.channels} and "
                f"{self.kernel_sizes}."
            )
        if min(self.in_channels, self.length, self.out_features, *sizes) < 1:
            raise InvalidConfigError(f"Expected positive sizes, got {self}.")

    def build(self) -> nn.Module:
        """Make the module, with torch's default initialisation."""
        return FCN(self)

    def example_input(self, batch: int) -> Tensor:
        """Zeros of shape ``[batch, in_channels, length]``."""
        return torch.zeros(batch, self.in_channels, self.length)


class FCN(nn.Module):
    """The network of an :class:`FCNConfig`: ``[batch, channel, step]`` to ``[batch, out]``."""

    def __init__(self, config: FCNConfig) -> None:
        super().__init__()
        widths = (config.in_channels, *config.channels)
        self.kernel_sizes = config.kernel_sizes
        self.convs = nn.ModuleList(
            nn.Conv1d(fan_in, fan_out, kernel)
            for fan_in, fan_out, kernel in zip(
                widths[:-1], widths[1:], config.kernel_sizes, strict=True
            )
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(width) if config.batch_norm else nn.Identity()
            for width in config.channels
        )
        self.activation, self.dropout = Activation(config.activation), Dropout(config.dropout)
        self.head = nn.Linear(widths[-1], config.out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs (logits, where a classifier)."""
        steps = inputs
        for conv, norm, kernel in zip(self.convs, self.norms, self.kernel_sizes, strict=True):
            padded = functional.pad(steps, ((kernel - 1) // 2, kernel // 2))
            steps = self.dropout(self.activation(norm(conv(padded))))
        output: Tensor = self.head(steps.mean(2))
        return output
