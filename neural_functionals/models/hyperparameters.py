"""A baseline that never sees the weights: what the hyper-parameters alone tell."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from neural_functionals.layers import Standardise, perceptron
from neural_functionals.models.functional import NeuralFunctional, Reads, Symmetry, configure
from zoo.errors import InvalidConfigError


@dataclass(frozen=True, kw_only=True)
class HyperparametersOnlyConfig:
    """Options of :class:`HyperparametersOnly`.

    Parameters
    ----------
    hidden
        Widths of the fully connected layers.
    """

    hidden: tuple[int, ...] = (256, 256)


class HyperparametersOnly(NeuralFunctional):
    """A perceptron on standardised hyper-parameters, the first baseline of Unterthiner et al. [1]_.

    A network that reads weights has learnt something only where it beats this.

    Parameters
    ----------
    num_hyperparameters
        Columns of the encoded hyper-parameters (categories one-hot).
    config
        Options; keyword arguments replace fields of it.
    num_outputs
        Numbers to predict.

    References
    ----------
    .. [1] Unterthiner et al., "Predicting Neural Network Accuracy from Weights", arXiv 2002.11448,
       2020, Sec. 4.

    Examples
    --------
    >>> import torch
    >>> HyperparametersOnly(3, hidden=(8,))(torch.zeros(5, 3)).shape
    torch.Size([5, 1])
    """

    name: ClassVar[str] = "hyperparameters"
    reads: ClassVar[Reads] = "hyperparameters"
    symmetries: tuple[Symmetry, ...] = ()
    config: HyperparametersOnlyConfig

    def __init__(
        self,
        num_hyperparameters: int,
        config: HyperparametersOnlyConfig | None = None,
        *,
        num_outputs: int = 1,
        **overrides: Any,
    ) -> None:
        if num_hyperparameters < 1:
            raise InvalidConfigError(
                "Expected at least one hyper-parameter to read, got none: the population varies "
                "nothing. Use a model that reads weights."
            )
        config = configure(config or HyperparametersOnlyConfig(), overrides)
        super().__init__(num_hyperparameters, config, num_outputs)
        self.normalise = Standardise(num_hyperparameters)
        self.head = perceptron(num_hyperparameters, config.hidden, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map hyper-parameters ``[batch, H]`` to ``[batch, num_outputs]``."""
        outputs: Tensor = self.head(self.normalise(inputs))
        return outputs

    def fit_statistics(self, inputs: Tensor) -> None:
        """Measure mean and standard deviation of each column of ``[members, H]``."""
        self.normalise.fit(inputs)
