"""What a training run depends on: commands read their defaults here before torch is needed."""

from dataclasses import dataclass, field
from typing import Any, Literal

from zoo.errors import InvalidConfigError

Loss = Literal["bce", "mse"]
Metrics = dict[str, float | int | str | None]


@dataclass(frozen=True, kw_only=True)
class PropertyRun:
    """What a run of property prediction depends on.

    Parameters
    ----------
    model
        Name in :data:`neural_functionals.models.MODELS`.
    options
        Fields of the model's configuration that differ from the paper's.
    target
        Metric or numeric column to predict.
    population
        Name in the zoo; may be left out where there is only one.
    where
        SQL condition on members.
    split
        Name of the frozen split.
    seed
        Of the model's initial weights and the order of batches.
    max_epochs, patience
        Stop after so many epochs, or so many without a better Kendall tau on the validation part;
        models that are fitted at once have none.
    batch_size
        Members per step.
    learning_rate
        Of Adam.
    loss
        ``"bce"`` for targets in [0, 1], ``"mse"`` for any; None for the model's usual one.
    """

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    target: str = "test_accuracy"
    population: str | None = None
    where: str | None = None
    split: str = "default"
    seed: int = 0
    max_epochs: int = 50
    patience: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    loss: Loss | None = None

    def __post_init__(self) -> None:
        if min(self.max_epochs, self.patience, self.batch_size) < 1 or self.seed < 0:
            raise InvalidConfigError(
                "Expected max_epochs, patience, batch_size of at least 1 and seed of at least 0, "
                f"got {self.max_epochs}, {self.patience}, {self.batch_size} and {self.seed}."
            )
