"""Dropout whose randomness can come from a member's own stream."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dropout(nn.Module):
    """Zero entries with probability ``p`` in training, scale the rest by ``1 / (1 - p)`` [1]_.

    ``draw``, where set, supplies uniform numbers in [0, 1) of a given shape; an entry stays where
    its number is at least ``p``. Without it torch's global generator decides.

    References
    ----------
    .. [1] Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
       JMLR 2014.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.draw: Callable[[torch.Size], Tensor] | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Drop entries of ``inputs`` (training mode only)."""
        if self.draw is None or not self.training:
            return functional.dropout(inputs, self.p, training=self.training)
        return inputs * (self.draw(inputs.shape) >= self.p) / (1 - self.p)

    def extra_repr(self) -> str:
        """Show the probability."""
        return f"p={self.p}"
