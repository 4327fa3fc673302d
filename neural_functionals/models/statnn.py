"""Statistics of each tensor, then a fully connected network: the baseline that is hard to beat."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from neural_functionals.layers import Standardise, TensorStatistics, perceptron
from neural_functionals.models.functional import NeuralFunctional, Reads, configure
from zoo.space import WeightSpace


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
    Departures from the paper. Variances are without Bessel's correction, so that no tensor gives
    NaN. Statistics are standardised. Floating-point buffers (running statistics) count as tensors.
    The network's widths are fixed, not searched.

    References
    ----------
    .. [1] Unterthiner et al., "Predicting Neural Network Accuracy from Weights", arXiv 2002.11448,
       2020.

    Examples
    --------
    >>> import torch, zoo
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> space = zoo.trace(network, torch.zeros(1, 2))
    >>> StatNN(space, hidden=(8,))(torch.zeros(5, space.num_parameters)).shape
    torch.Size([5, 1])
    """

    name: ClassVar[str] = "statnn"
    reads: ClassVar[Reads] = "weights"
    reads_sets: ClassVar[bool] = True
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
        self.statistics = TensorStatistics(space)
        self.normalise = Standardise(self.statistics.num_features)
        self.head = perceptron(self.statistics.num_features, config.hidden, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map weights ``[batch, P]`` to ``[batch, num_outputs]``."""
        outputs: Tensor = self.head(self.normalise(self.statistics(inputs)))
        return outputs

    def fit_statistics(self, inputs: Tensor) -> None:
        """Measure mean and standard deviation of each statistic on weights ``[members, P]``."""
        self.normalise.fit(self.statistics(inputs))
