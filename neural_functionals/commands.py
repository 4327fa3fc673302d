"""Commands about networks that read weights: ``zoo train``, ``zoo evaluate``."""

import logging
from pathlib import Path
from typing import Any, Literal

from neural_functionals.runs import Loss, Metrics, PropertyRun


def train(
    task: Literal["property"],
    zoo: Path,
    *,
    model: str,
    out: Path,
    target: str = PropertyRun.target,
    population: str | None = PropertyRun.population,
    where: str | None = PropertyRun.where,
    split: str = PropertyRun.split,
    seed: int = PropertyRun.seed,
    max_epochs: int = PropertyRun.max_epochs,
    patience: int = PropertyRun.patience,
    batch_size: int = PropertyRun.batch_size,
    learning_rate: float = PropertyRun.learning_rate,
    loss: Loss | None = PropertyRun.loss,
    options: dict[str, Any] | None = None,
    trainer: dict[str, Any] | None = None,
) -> None:
    """Train a network that reads members of a zoo; goes on with what was interrupted.

    Parameters
    ----------
    task
        What to learn; property: predict one number per member.
    zoo
        A zoo.
    model
        Such as nfn, nft, statnn, boosted-statistics or hyperparameters; a wrong one lists them all.
    out
        Directory of the run.
    target
        Metric or numeric column to predict.
    population
        Name in the zoo; may be left out where there is only one.
    where
        SQL condition on members, such as "test_accuracy > 0.5".
    split
        Name of the frozen split.
    seed
        Of the initial weights and the order of batches.
    max_epochs
        Stop after so many epochs.
    patience
        Stop after so many epochs without a better Kendall tau on the validation part.
    batch_size
        Members per step.
    learning_rate
        Of Adam.
    loss
        bce for targets in [0, 1], mse for any; without it bce, and mse for models that are fitted
        at once.
    options
        Options of the model that differ from the paper's, as JSON or --options.NAME VALUE.
    trainer
        Arguments of lightning.Trainer, as JSON or --trainer.NAME VALUE.
    """
    from neural_functionals.tasks.training import train_property

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no hints about accelerators
    metrics = train_property(
        zoo,
        out=out,
        trainer=trainer,
        model=model,
        options=options or {},
        target=target,
        population=population,
        where=where,
        split=split,
        seed=seed,
        max_epochs=max_epochs,
        patience=patience,
        batch_size=batch_size,
        learning_rate=learning_rate,
        loss=loss,
    )
    _print_scores(metrics, ("train", "validation", "test"))


def evaluate(
    run: Path,
    zoo: Path,
    *,
    population: str | None = None,
    where: str | None = None,
    split: str = PropertyRun.split,
    part: Literal["train", "validation", "test"] = "test",
) -> None:
    """Measure a trained network on a part of a zoo, which may be another than it was trained on.

    Parameters
    ----------
    run
        Directory of a training run.
    zoo
        A zoo.
    population
        Name in the zoo; may be left out where there is only one.
    where
        SQL condition on members.
    split
        Name of the frozen split.
    part
        Which part of it.
    """
    from neural_functionals.tasks.evaluation import evaluate_property

    metrics = evaluate_property(
        run, zoo, population=population, where=where, split=split, part=part
    )
    _print_scores(metrics, (part,))


def _print_scores(metrics: Metrics, parts: tuple[str, ...]) -> None:
    """Print one line per part."""
    if not metrics:  # a process of a distributed run other than the first
        return
    print(f"{metrics['model']} on {metrics['target']}, seed {metrics['seed']}")
    print(f"{'part':<12}{'Kendall tau':>12}{'R2':>9}{'mean |error|':>14}")
    for part in parts:
        values = [metrics.get(f"{part}_{name}") for name in ("tau", "r2", "mae")]
        tau, r2, mae = ("-" if value is None else f"{value:.3f}" for value in values)
        print(f"{part:<12}{tau:>12}{r2:>9}{mae:>14}")
