"""Statistics of each tensor's entries: what remains when nothing is known of their places."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.space import WeightSpace

FIVE_NUMBERS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Minimum, quartiles and maximum, as fractions."""
_CHUNK = 512  # members whose statistics are computed at once


class TensorStatistics(nn.Module):
    """Mean, variance and quantiles of each tensor's entries.

    The variance is that of the entries themselves, without Bessel's correction, so tensors of one
    entry give 0 and not NaN.

    Parameters
    ----------
    space
        Weight space of the members.
    quantiles
        Fractions in [0, 1]; between two entries they are interpolated linearly.

    Attributes
    ----------
    num_features
        Numbers per member, those of one tensor after those of another.
    """

    def __init__(self, space: WeightSpace, *, quantiles: Sequence[float] = FIVE_NUMBERS) -> None:
        super().__init__()
        self.quantiles = tuple(quantiles)
        self.lengths = [tensor.numel for tensor in space.tensors]
        self.num_features = len(self.lengths) * (2 + len(self.quantiles))

    def forward(self, weights: Tensor) -> Tensor:
        """Describe weights ``[batch, P]``, as ``[batch, num_features]``."""
        chunks = [self._describe(chunk) for chunk in torch.split(weights, _CHUNK)]
        return torch.cat(chunks) if len(chunks) > 1 else chunks[0]

    def _describe(self, weights: Tensor) -> Tensor:
        tensors = torch.split(weights, self.lengths, dim=1)
        return torch.cat([_statistics(entries, self.quantiles) for entries in tensors], dim=1)


def _statistics(entries: Tensor, quantiles: tuple[float, ...]) -> Tensor:
    """Mean, variance and quantiles of ``[batch, n]``, as ``[batch, 2 + quantiles]``."""
    mean = entries.mean(dim=1, keepdim=True)
    variance = (entries - mean).square().mean(dim=1, keepdim=True)
    place = entries.new_tensor(quantiles) * (entries.shape[1] - 1)
    below = place.floor().long()
    above = place.ceil().long()
    ordered = entries.sort(dim=1).values
    # torch.quantile refuses large batches; linear interpolation between sorted entries is the same.
    between = ordered[:, below].lerp(ordered[:, above], place - below)
    return torch.cat([mean, variance, between], dim=1)
