"""Multi-layer perceptrons."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from zoo.errors import InvalidConfigError
from zoo.networks.activation import Activation
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
    """

    name: ClassVar[str] = "mlp"

    in_features: int
    hidden: tuple[int, ...]
    out_features: int
    activation: str = "relu"
    dropout: float = 0.0
    batch_norm: bool = False

    def __post_init__(self) -> None:
        if min(self.in_features, self.out_features, *self.hidden) < 1:
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
