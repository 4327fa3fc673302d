"""Two perceptrons in a row: an inverse model, judged by a forward model."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from zoo.errors import InvalidConfigError
from zoo.networks.mlp import MLP, MLPConfig


@dataclass(frozen=True, kw_only=True)
class TandemConfig:
    """A tandem network [1]_: wanted performance to a design, the design to its performance.

    Parameters
    ----------
    num_fractions, num_choices
        A design is fractions in [0, 1], then one choice as probabilities.
    num_outputs
        Numbers that describe the performance.
    hidden
        Hidden widths of each perceptron.
    activation
        A name of :data:`zoo.networks.ACTIVATIONS`.

    References
    ----------
    .. [1] Liu et al., "Training Deep Neural Networks for the Inverse Design of Nanophotonic
       Structures", ACS Photonics 2018.
    """

    name: ClassVar[str] = "tandem"

    num_fractions: int
    num_choices: int
    num_outputs: int
    hidden: tuple[int, ...] = (64, 64, 64)
    activation: str = "relu"

    def __post_init__(self) -> None:
        if min(self.num_fractions, self.num_choices, self.num_outputs, *self.hidden) < 1:
            raise InvalidConfigError(f"Expected positive widths, got {self}.")

    def build(self) -> nn.Module:
        """Make the module, with torch's default initialisation."""
        return Tandem(self)

    def example_input(self, batch: int) -> Tensor:
        """Zeros of shape ``[batch, num_outputs]``."""
        return torch.zeros(batch, self.num_outputs)


class Tandem(nn.Module):
    """The network of a :class:`TandemConfig`: performance to the design and its performance."""

    def __init__(self, config: TandemConfig) -> None:
        super().__init__()
        size = config.num_fractions + config.num_choices
        self.num_fractions = config.num_fractions
        self.forward_model = _perceptron(config, size, config.num_outputs)
        self.inverse_model = _perceptron(config, config.num_outputs, size)

    def forward(self, performance: Tensor) -> tuple[Tensor, Tensor]:
        """Compute designs ``[batch, fractions + choices]`` and their performance."""
        raw = self.inverse_model(performance)
        fractions, choices = raw[:, : self.num_fractions], raw[:, self.num_fractions :]
        design = torch.cat([fractions.sigmoid(), choices.softmax(-1)], dim=-1)
        return design, self.forward_model(design)


def _perceptron(config: TandemConfig, fan_in: int, fan_out: int) -> MLP:
    return MLP(
        MLPConfig(
            in_features=fan_in,
            hidden=config.hidden,
            out_features=fan_out,
            activation=config.activation,
        )
    )
