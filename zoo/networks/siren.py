"""Sinusoidal representation networks: one network per image, shape or signal."""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor, nn

from zoo.errors import InvalidConfigError


@dataclass(frozen=True, kw_only=True)
class SirenConfig:
    """A SIREN [1]_: hidden layers ``sin(omega (W x + b))``, linear output.

    Parameters
    ----------
    in_features, hidden, out_features
        Coordinates, hidden widths, values per coordinate.
    omega
        Frequency of every hidden layer (30 in the paper).

    References
    ----------
    .. [1] Sitzmann et al., "Implicit Neural Representations with Periodic Activation Functions",
       NeurIPS 2020, Sec. 3.2.
    """

    name: ClassVar[str] = "siren"

    in_features: int = 2
    hidden: tuple[int, ...] = (32, 32)
    out_features: int = 1
    omega: float = 30.0

    def __post_init__(self) -> None:
        if min(self.in_features, self.out_features, *self.hidden) < 1 or self.omega <= 0:
            raise InvalidConfigError(f"Expected positive widths and omega, got {self}.")

    def build(self) -> nn.Module:
        """Make the module, initialised as in the paper (Sec. 3.2)."""
        return Siren(self)

    def example_input(self, batch: int) -> Tensor:
        """Zeros of shape ``[batch, in_features]``."""
        return torch.zeros(batch, self.in_features)


class Siren(nn.Module):
    """The network of a :class:`SirenConfig`: coordinates ``[batch, in]`` to ``[batch, out]``."""

    def __init__(self, config: SirenConfig) -> None:
        super().__init__()
        widths = [config.in_features, *config.hidden, config.out_features]
        self.omega = config.omega
        self.layers = nn.ModuleList(
            nn.Linear(fan_in, fan_out)
            for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True)
        )
        for depth, fan_in in enumerate(widths[:-1]):
            bound = 1 / fan_in if depth == 0 else sqrt(6 / fan_in) / config.omega
            nn.init.uniform_(self.layers[depth].weight, -bound, bound)  # type: ignore[arg-type]

    def forward(self, coordinates: Tensor) -> Tensor:
        """Evaluate the signal."""
        hidden = coordinates
        for layer in self.layers[:-1]:
            hidden = torch.sin(self.omega * layer(hidden))
        output: Tensor = self.layers[-1](hidden)
        return output
