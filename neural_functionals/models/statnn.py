"""Statistics of each tensor, then a fully connected network: the baseline that is hard to beat."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from neural_functionals.layers import Standardise, perceptron
from neural_functionals.models.functional import NeuralFunctional, Reads, configure
from zoo.space import WeightSpace

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_CHUNK = 512  # members whose statistics are computed at once


@dataclass(frozen=True, kw_only=True)
class StatNNConfig:
    """Options of :class:`StatNN`.

    Parameters
    ----------
    hidden
        Widths of the fully connected layers.
    """

    hidden: tuple[int, ...] = (1000, 1000)


class StatNN(NeuralFunctional):
    """Network of Unterthiner et al. [1]_: seven statistics per tensor, then a perceptron.

    The statistics are mean, variance and the quantiles 0, 0.25, 0.5, 0.75 and 1 of all entries
    (Sec. 3.2).

    Parameters
    ----------
    space
        Weight space of the members.
    config
        Options; keyword arguments replace fields of it.
    num_outputs
        Numbers to predict.

    Notes
    -----
    Departures from the paper. The variance is that of the entries themselves, without Bessel's
    correction, so tensors of one entry give 0 and not NaN. Statistics are standardised.
    Floating-point buffers (running statistics) count as tensors. The network's widths are fixed,
    not searched.

    References
    ----------
    .. [1] Unterthiner et al., "Predicting Neural Network Accuracy from Weights", arXiv 2002.11448,
       2020.
    """

    name: ClassVar[str] = "statnn"
    reads: ClassVar[Reads] = "weights"
    config: StatNNConfig

    def __init__(
        self,
        space: WeightSpace,
        config: StatNNConfig | None = None,
        *,
        num_outputs: int = 1,
        **overrides: Any,
    ) -> None:
        config = configure(config or StatNNConfig(), overrides)
        super().__init__(space, config, num_outputs)
        self.lengths = [tensor.numel for tensor in space.tensors]
        num_features = len(self.lengths) * (2 + len(_QUANTILES))
        self.normalise = Standardise(num_features)
        self.head = perceptron(num_features, config.hidden, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map weights ``[batch, P]`` to ``[batch, num_outputs]``."""
        outputs: Tensor = self.head(self.normalise(self.statistics(inputs)))
        return outputs

    def fit_statistics(self, inputs: Tensor) -> None:
        """Measure mean and standard deviation of each statistic on weights ``[members, P]``."""
        chunks = [self.statistics(chunk) for chunk in torch.split(inputs, _CHUNK)]
        self.normalise.fit(torch.cat(chunks))

    def statistics(self, weights: Tensor) -> Tensor:
        """Describe weights ``[batch, P]`` by seven numbers per tensor, ``[batch, 7 * tensors]``."""
        tensors = torch.split(weights, self.lengths, dim=1)
        return torch.cat([_describe(entries) for entries in tensors], dim=1)


def _describe(entries: Tensor) -> Tensor:
    """Mean, variance and quantiles of ``[batch, n]``, as ``[batch, 7]``."""
    mean = entries.mean(dim=1, keepdim=True)
    variance = (entries - mean).square().mean(dim=1, keepdim=True)
    place = entries.new_tensor(_QUANTILES) * (entries.shape[1] - 1)
    below = place.floor().long()
    above = place.ceil().long()
    ordered = entries.sort(dim=1).values
    # torch.quantile refuses large batches; linear interpolation between sorted entries is the same.
    quantiles = ordered[:, below].lerp(ordered[:, above], place - below)
    return torch.cat([mean, variance, quantiles], dim=1)
