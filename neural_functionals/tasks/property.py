"""Predicting a number per member (its test accuracy, say) from what a neural functional reads."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import CatMetric
from torchmetrics.functional import kendall_rank_corrcoef, r2_score

from neural_functionals.models import (
    FittedFunctional,
    NeuralFunctional,
    describe_model,
    restore_model,
)
from neural_functionals.runs import Loss
from zoo.datasets import WeightBatch, ZooDataset
from zoo.errors import InvalidConfigError

NUM_STATISTICS_MEMBERS = 4096  # training members that normalisation is measured on, at most


class Scores(NamedTuple):
    """How well predictions agree with targets.

    ``tau``: Kendall's rank correlation (variant b); ``r2``: coefficient of determination; ``mae``:
    mean absolute error in the target's unit. NaN where undefined (fewer than two members, no
    variation).
    """

    tau: float
    r2: float
    mae: float


def score(predictions: Tensor, targets: Tensor) -> Scores:
    """Compare predictions with targets, both ``[members]``."""
    mae = float((predictions - targets).abs().mean()) if targets.numel() else float("nan")
    if targets.numel() < 2 or bool((targets == targets[0]).all()):
        return Scores(tau=float("nan"), r2=float("nan"), mae=mae)
    r2 = r2_score(predictions, targets).item()
    if bool((predictions == predictions[0]).all()):
        return Scores(tau=float("nan"), r2=r2, mae=mae)
    tau = torch.as_tensor(kendall_rank_corrcoef(predictions, targets)).item()
    return Scores(tau=tau, r2=r2, mae=mae)


class PropertyRegression(lightning.LightningModule):
    """Train a neural functional to predict one number per member.

    Needs a :class:`zoo.ZooDataModule`: normalisation is measured on its training members when
    fitting starts.

    Parameters
    ----------
    model
        Network with one output.
    loss
        ``"bce"``: sigmoid output and binary cross-entropy, for fractions such as accuracies.
        ``"mse"``: squared error on standardised targets, for any number. By default the model's
        usual one.
    learning_rate
        Of Adam; the default is that of [1]_.

    References
    ----------
    .. [1] Zhou et al., "Permutation Equivariant Neural Functionals", NeurIPS 2023, appendix.
    """

    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self, model: NeuralFunctional, *, loss: Loss | None = None, learning_rate: float = 1e-3
    ) -> None:
        super().__init__()
        loss = model.usual_loss if loss is None else loss
        if loss != "mse" and isinstance(model, FittedFunctional):
            raise InvalidConfigError(
                f"Expected loss 'mse' for {model.name}, which is fitted at once by least squares, "
                f"got {loss!r}. Leave the loss out."
            )
        if loss not in ("bce", "mse") or learning_rate <= 0 or model.num_outputs != 1:
            raise InvalidConfigError(
                "Expected loss 'bce' or 'mse', a positive learning rate and a model with 1 output, "
                f"got {loss!r}, {learning_rate} and {model.num_outputs}."
            )
        self.model = model
        self.loss = loss
        self.learning_rate = learning_rate
        self.register_buffer("target_mean", torch.zeros(()))
        self.register_buffer("target_std", torch.ones(()))
        self.predicted, self.expected = CatMetric(), CatMetric()

    def forward(self, batch: WeightBatch) -> Tensor:
        """Predict the target of each member, ``[batch]``, in the target's unit."""
        output = self._output(batch)
        if self.loss == "bce":
            return output.sigmoid()
        return output * self.target_std + self.target_mean

    def _output(self, batch: WeightBatch) -> Tensor:
        """Run the model on what it reads, ``[batch]``, before any sigmoid."""
        outputs: Tensor = self.model(getattr(batch, self.model.reads))
        return outputs.squeeze(1)

    # ---- fitting ------------------------------------------------------------------------------
    def on_fit_start(self) -> None:
        """Measure normalisation on the training members."""
        train = getattr(getattr(self.trainer, "datamodule", None), "train", None)
        if train is None:
            raise InvalidConfigError(
                "Expected the trainer to be given a zoo.ZooDataModule, whose training members "
                "normalisation is measured on; use trainer.fit(task, ZooDataModule(...))."
            )
        self.fit_statistics(train)

    def fit_statistics(self, train: ZooDataset) -> None:
        """Measure normalisation of inputs and targets on a training set, and check the targets.

        Raises
        ------
        InvalidConfigError
            If the loss is ``"bce"`` and a target lies outside [0, 1].
        """
        count = min(len(train), NUM_STATISTICS_MEMBERS)
        batch = train[np.linspace(0, len(train) - 1, count).astype(np.int64)]
        low, high = float(batch.target.min()), float(batch.target.max())
        if self.loss == "bce" and not (low >= 0 and high <= 1):
            raise InvalidConfigError(
                f"Expected targets in [0, 1] for loss 'bce', got {low:g} to {high:g}. "
                "Use --loss mse."
            )
        self.model.fit_statistics(getattr(batch, self.model.reads).to(self.device))
        std, mean = torch.std_mean(batch.target, correction=0)
        self.target_mean.copy_(mean)
        self.target_std.copy_(std if std > 0 else torch.ones(()))

    @torch.no_grad()
    def fit_at_once(self, train: ZooDataset) -> None:
        """Fit a model that takes no gradient steps to a training set.

        Raises
        ------
        InvalidConfigError
            If the model is trained by gradient steps.
        """
        model = self.model
        if not isinstance(model, FittedFunctional):
            raise InvalidConfigError(
                f"Expected a model that is fitted at once, got {model.name}: train it with a "
                "lightning.Trainer."
            )
        self.fit_statistics(train)
        batches = (_to(batch, self.device) for batch in _batches(train, NUM_STATISTICS_MEMBERS))
        parts = [(model.features(getattr(each, model.reads)), each.target) for each in batches]
        features, targets = (torch.cat(column) for column in zip(*parts, strict=True))
        model.fit(features, ((targets - self.target_mean) / self.target_std)[:, None])

    def training_step(self, batch: WeightBatch, batch_index: int) -> Tensor:
        """Compute the loss of one batch."""
        output = self._output(batch)
        if self.loss == "bce":
            loss = functional.binary_cross_entropy_with_logits(output, batch.target)
        else:
            loss = functional.mse_loss(output, (batch.target - self.target_mean) / self.target_std)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.target))
        return loss

    def validation_step(self, batch: WeightBatch, batch_index: int) -> None:
        """Collect the predictions of one batch."""
        self._collect(batch)

    def test_step(self, batch: WeightBatch, batch_index: int) -> None:
        """Collect the predictions of one batch."""
        self._collect(batch)

    def on_validation_epoch_end(self) -> None:
        """Log ``validation_tau``, ``validation_r2``, ``validation_mae``."""
        self._log_scores("validation")

    def on_test_epoch_end(self) -> None:
        """Log ``test_tau``, ``test_r2``, ``test_mae``."""
        self._log_scores("test")

    def _collect(self, batch: WeightBatch) -> None:
        self.predicted.update(self(batch))
        self.expected.update(batch.target)

    def _log_scores(self, part: str) -> None:
        predictions = torch.as_tensor(self.predicted.compute())
        scores = score(predictions, torch.as_tensor(self.expected.compute()))
        self.predicted.reset()
        self.expected.reset()
        for name, value in scores._asdict().items():
            self.log(f"{part}_{name}", value, prog_bar=name == "tau")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        if isinstance(self.model, FittedFunctional):
            raise InvalidConfigError(
                f"Expected a model that is trained by gradient steps, got {self.model.name}: use "
                "task.fit_at_once(datamodule.train) instead of a trainer."
            )
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate, fused=True)

    # ---- checkpoints --------------------------------------------------------------------------
    def describe(self) -> dict[str, Any]:
        """Plain values from which :meth:`restore` makes the task again, without its weights."""
        return {
            "task": "property",
            "loss": self.loss,
            "learning_rate": self.learning_rate,
            "model": describe_model(self.model),
        }

    @classmethod
    def restore(cls, description: dict[str, Any]) -> Self:
        """Make the task that :meth:`describe` described, with fresh weights."""
        return cls(
            restore_model(description["model"]),
            loss=description["loss"],
            learning_rate=description["learning_rate"],
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write the description into the checkpoint, so that loading needs nothing else."""
        try:
            checkpoint["neural_functional"] = self.describe()
        except InvalidConfigError:
            checkpoint["neural_functional"] = (
                None  # somebody's own model: it knows how to load itself
            )


class Predictions(NamedTuple):
    """Per member: its id, target and prediction, each ``[members]``."""

    member: np.ndarray
    target: np.ndarray
    prediction: np.ndarray


@torch.no_grad()
def predict(task: PropertyRegression, dataset: ZooDataset, *, batch_size: int = 256) -> Predictions:
    """Predict every member of a dataset, in its order."""
    task.eval()
    parts = [
        (batch.member.cpu(), batch.target.cpu(), task(_to(batch, task.device)).cpu())
        for batch in _batches(dataset, batch_size)
    ]
    member, target, prediction = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return Predictions(member=member, target=target, prediction=prediction)


def _batches(dataset: ZooDataset, batch_size: int) -> Iterator[WeightBatch]:
    for start in range(0, len(dataset), batch_size):
        yield dataset[np.arange(start, min(start + batch_size, len(dataset)))]


def _to(batch: WeightBatch, device: torch.device) -> WeightBatch:
    return WeightBatch(*(column.to(device) for column in batch))
