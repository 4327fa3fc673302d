"""Activations by name: the one table that networks, recipes and engines share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import unknown_name

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "sin": torch.sin,
}


class Activation(nn.Module):
    """The elementwise function called ``name``."""

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in ACTIVATIONS:
            raise unknown_name("activation", name, ACTIVATIONS)
        self.name = name
        self._function = ACTIVATIONS[name]

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the function entry by entry."""
        return self._function(inputs)

    def extra_repr(self) -> str:
        """Show the name."""
        return self.name
