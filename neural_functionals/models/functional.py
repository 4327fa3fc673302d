"""What every network that reads a population member offers."""

from abc import ABC, abstractmethod
from dataclasses import fields, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from torch import Tensor, nn

from neural_functionals.runs import Loss
from zoo.errors import unknown_name
from zoo.space import Domain, WeightSpace

Reads = Literal["weights", "hyperparameters"]
Symmetry = Literal["permutation", "scale", "sign"]
EVERY_SYMMETRY: tuple[Symmetry, ...] = ("permutation", "scale", "sign")
DOMAINS: dict[Symmetry, Domain] = {"scale": "positive", "sign": "sign"}
"""Factors that symmetries but relabelling multiply hidden units by."""


class ModelConfig(Protocol):
    """A frozen dataclass of a model's options: plain values, with the paper's defaults."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Config = TypeVar("Config", bound=ModelConfig)


class NeuralFunctional(nn.Module, ABC):
    """A network whose input is a member of a population.

    Parameters
    ----------
    source
        What is read: the weight space, or the number of hyper-parameters.
    config
        The model's options.
    num_outputs
        Numbers to predict.

    Attributes
    ----------
    name
        Name in the registry.
    reads
        Which part of a batch ``forward`` takes.
    usual_loss
        What it is trained with where nothing else is asked for.
    symmetries
        What of a member's symmetries its output does not depend on: relabelling hidden units, their
        positive factors, their signs.
    reads_sets
        Whether it sees each tensor as a set of numbers, and so no more than that.
    """

    name: ClassVar[str]
    reads: ClassVar[Reads]
    usual_loss: ClassVar[Loss] = "bce"
    symmetries: tuple[Symmetry, ...] = ("permutation",)
    reads_sets: ClassVar[bool] = False

    def __init__(self, source: WeightSpace | int, config: ModelConfig, num_outputs: int) -> None:
        super().__init__()
        self.source = source
        self.config = config
        self.num_outputs = num_outputs

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Map weights ``[batch, P]`` or hyper-parameters ``[batch, H]`` to ``[batch, outputs]``.

        Outputs are unbounded: a task that wants fractions applies its own sigmoid.
        """

    @abstractmethod
    def fit_statistics(self, inputs: Tensor) -> None:
        """Measure the normalisation of inputs on training members, shaped as for ``forward``."""


class FittedFunctional(NeuralFunctional):
    """A model that is fitted to all training members at once and takes no gradient steps.

    What was fitted lies in buffers whose shapes follow from the options, so checkpoints hold it as
    they hold any model's weights.
    """

    usual_loss: ClassVar[Loss] = "mse"

    def forward(self, inputs: Tensor) -> Tensor:
        """Map weights ``[batch, P]`` or hyper-parameters ``[batch, H]`` to ``[batch, outputs]``."""
        return self.predict(self.features(inputs))

    def fit_statistics(self, inputs: Tensor) -> None:
        """Do nothing: :meth:`fit` measures what it needs."""

    @abstractmethod
    def features(self, inputs: Tensor) -> Tensor:
        """Reduce inputs, shaped as for ``forward``, to what is fitted on, ``[batch, F]``."""

    @abstractmethod
    def predict(self, features: Tensor) -> Tensor:
        """Map features ``[batch, F]`` to ``[batch, outputs]``."""

    @abstractmethod
    def fit(self, features: Tensor, targets: Tensor) -> None:
        """Minimise the squared error.

        Parameters
        ----------
        features
            Of all training members, ``[members, F]``.
        targets
            ``[members, outputs]``.
        """


def runs_members(config: ModelConfig) -> bool:
    """Tell whether a model runs members on probes, as the ``network`` in its configuration."""
    return bool(getattr(config, "num_probes", 0))


def configure(config: Config, overrides: dict[str, Any]) -> Config:
    """Return ``config`` with some fields replaced; lists become tuples.

    Raises
    ------
    UnknownNameError
        If a name is no field.
    """
    known = [field.name for field in fields(config)]
    for name in overrides:
        if name not in known:
            raise unknown_name(f"option of {type(config).__name__}", name, known)
    plain = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in overrides.items()
    }
    return replace(config, **plain)
