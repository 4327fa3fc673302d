"""Normalisation of weights that knows about factors and signs: no statistic may break either."""

import numpy as np
import torch
from torch import Tensor, nn

from neural_functionals.layers.features import WeightLayout
from neural_functionals.layers.normalise import OrbitNormalisation
from neural_functionals.layers.scaling import ScaleReference, scale_degrees
from zoo.space import WeightSpace


@torch.no_grad()
def uncentre(normalise: OrbitNormalisation, orbits: Tensor) -> None:
    """Make a measured normalisation divide some orbits by their root mean square, uncentred.

    Parameters
    ----------
    orbits
        Which orbits, ``[orbits]``, bool.
    """
    rms = torch.hypot(normalise.mean, normalise.std)
    normalise.std.copy_(torch.where(orbits, rms, normalise.std))
    normalise.mean.masked_fill_(orbits, 0.0)


class ScaleNormalisation(nn.Module):
    """Weights without positive factors, normalised per orbit in a way that keeps signs.

    Channels that some sign multiplies are divided by their root mean square and not centred.

    Parameters
    ----------
    space
        The weight space.
    layout
        Its layout.
    """

    odd: Tensor

    def __init__(self, space: WeightSpace, layout: WeightLayout) -> None:
        super().__init__()
        self.layout = layout
        self.reference = ScaleReference(space, layout)
        self.normalise = OrbitNormalisation(layout.orbit)
        parities = scale_degrees(space, layout, "sign")
        odd = torch.from_numpy(np.concatenate([parity.any(axis=1) for parity in parities]))
        self.register_buffer("odd", odd, persistent=False)

    def forward(self, weights: Tensor) -> list[Tensor]:
        """Map weights ``[batch, P]`` to blocks ``[batch, *sizes, channels]``."""
        return self.layout.gather(self.normalise(self._divided(weights)))

    @torch.no_grad()
    def fit(self, weights: Tensor) -> None:
        """Measure the statistics on weights ``[members, P]``."""
        self.normalise.fit(self._divided(weights))
        uncentre(self.normalise, self.odd)

    def _divided(self, weights: Tensor) -> Tensor:
        return self.layout.scatter(self.reference(self.layout.gather(weights)))
