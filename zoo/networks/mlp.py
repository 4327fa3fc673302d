"""Multi-layer perceptrons."""

from dataclasses import dataclass
from math import pi
from typing import ClassVar

import torch
from torch import Tensor, nn

from zoo.errors import InvalidConfigError
from zoo.networks.activation import Activation
from zoo.networks.config_fields import added
from zoo.networks.dropout import Dropout


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """A perceptron: flattened input, hidden layers, linear output.

    Parameters
    ----------
    in_features, hidden, out_features
        Widths; ``hidden`` has one per hidden layer.
    activation
        A name of :data:`zoo.networks.ACTIVATIONS`.
    dropout
        Probability after each hidden activation.
    batch_norm
        Normalise each hidden layer before its activation.
    fourier_bands
        Frequencies that each input is encoded by before the first layer [1]_ (Eq. 4): sine and
        cosine of ``pi``, ``2 pi``, ``4 pi``, ... times it; 0 leaves inputs as they are.

    References
    ----------
    .. [1] Mildenhall et al., "NeRF: Representing Scenes as Neural Radiance Fields for View
       Synthesis", ECCV 2020.
    """

    name: ClassVar[str] = "mlp"

    in_features: int
    hidden: tuple[int, ...]
    out_features: int
    activation: str = "relu"
    dropout: float = 0.0
    batch_norm: bool = False
    fourier_bands: int = added(0)

    def __post_init__(self) -> None:
        widths = (self.in_features, self.out_features, *self.hidden)
        if min(widths) < 1 or self.fourier_bands < 0:
            raise InvalidConfigError(f"Expected positive widths, got {self}.")

    def build(self) -> nn.Module:
        """Make the module, with torch's default initialisation."""
        return MLP(self)

    def example_input(self, batch: int) -> Tensor:
        """Zeros of shape ``[batch, in_features]``."""
        return torch.zeros(batch, self.in_features)


class MLP(nn.Module):
    """The perceptron of an :class:`MLPConfig`: ``[batch, ...]`` to ``[batch, out_features]``."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        widths = [config.in_features, *config.hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        if config.fourier_bands:
            layers.append(FourierFeatures(config.fourier_bands))
            widths[0] *= 2 * config.fourier_bands
        for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True):
            layers.append(nn.Linear(fan_in, fan_out))
            if config.batch_norm:
                layers.append(nn.BatchNorm1d(fan_out))
            layers += [Activation(config.activation), Dropout(config.dropout)]
        layers.append(nn.Linear(widths[-1], config.out_features))
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs (logits, where a classifier)."""
        output: Tensor = self.layers(inputs)
        return output


class FourierFeatures(nn.Module):
    """Sines, then cosines, of each coordinate in octaves: ``[batch, d]`` to ``[batch, 2 d n]``."""

    rates: Tensor

    def __init__(self, num_bands: int) -> None:
        super().__init__()
        self.register_buffer("rates", pi * 2.0 ** torch.arange(num_bands), persistent=False)

    def forward(self, coordinates: Tensor) -> Tensor:
        """Encode coordinates."""
        angles = (coordinates[:, :, None] * self.rates).flatten(1)
        return torch.cat([angles.sin(), angles.cos()], dim=1)
