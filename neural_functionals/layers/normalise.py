"""Normalisation of inputs that cannot break the symmetry: statistics per orbit, never per entry."""

import torch
from torch import Tensor, nn

_CHUNK = 1024  # rows per pass in float64


class OrbitNormalisation(nn.Module):
    """Subtract a mean and divide by a standard deviation that each orbit of positions shares.

    An orbit is the set of positions that relabelling hidden units can carry into one another.
    Statistics per entry would differ inside an orbit and destroy the invariance of whatever
    follows. Before :meth:`fit` nothing changes.

    Parameters
    ----------
    orbit
        Orbit number of each position, ``[P]``, int64, from 0.
    """

    orbit: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, orbit: Tensor) -> None:
        super().__init__()
        num_orbits = int(orbit.max()) + 1 if orbit.numel() else 0
        self.register_buffer("orbit", orbit.clone(), persistent=False)
        self.register_buffer("mean", torch.zeros(num_orbits))
        self.register_buffer("std", torch.ones(num_orbits))

    def forward(self, weights: Tensor) -> Tensor:
        """Normalise ``[batch, P]``."""
        return (weights - self.mean[self.orbit]) / self.std[self.orbit]

    @torch.no_grad()
    def fit(self, weights: Tensor) -> None:
        """Measure the statistics over members and over the positions of each orbit.

        An orbit that hardly varies (standard deviation below 1e-6 of its mean, or 1e-12) is only
        centred.

        Parameters
        ----------
        weights
            ``[members, P]``, at least one member.
        """
        orbit = self.orbit.to(weights.device)
        mean = self._orbit_mean(weights, orbit, torch.zeros_like(weights[0], dtype=torch.float64))
        variance = self._orbit_mean(weights, orbit, mean[orbit], power=2)
        std = variance.sqrt()
        constant = std < (mean.abs() * 1e-6).clamp(min=1e-12)
        self.mean.copy_(mean)
        self.std.copy_(std.masked_fill(constant, 1.0))

    def _orbit_mean(
        self, weights: Tensor, orbit: Tensor, centre: Tensor, *, power: int = 1
    ) -> Tensor:
        """Mean of ``(weights - centre) ** power`` per orbit, float64."""
        total = sum(
            (chunk.double() - centre).pow_(power).sum(dim=0)
            for chunk in torch.split(weights, _CHUNK)
        )
        zeros = torch.zeros(self.mean.shape, dtype=torch.float64, device=weights.device)
        count = torch.bincount(orbit, minlength=zeros.numel()) * weights.shape[0]
        return zeros.index_add(0, orbit, torch.as_tensor(total)) / count


class Standardise(OrbitNormalisation):
    """Normalise plain columns, each by itself."""

    def __init__(self, num_columns: int) -> None:
        super().__init__(torch.arange(num_columns))
