"""One training run: from a population to a directory with checkpoints, predictions and metrics.

A run is a function of its configuration, the population's version and its seed. A finished run is
not repeated, a broken one goes on from its last checkpoint.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import lightning
import polars as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from neural_functionals.models import FittedFunctional, build_model, needs_network
from neural_functionals.runs import Metrics, PropertyRun
from neural_functionals.tasks.checkpoint import BEST, CHECKPOINTS, LAST, save
from neural_functionals.tasks.networks import common_network
from neural_functionals.tasks.property import PropertyRegression, predict, score
from zoo.datamodule import ZooDataModule
from zoo.errors import InvalidConfigError, unknown_name
from zoo.schema import PARTS
from zoo.store import Members
from zoo.store import open as open_zoo

logger = logging.getLogger(__name__)


def select_population(
    data: str | PathLike[str] | Members, *, name: str | None = None, where: str | None = None
) -> Members:
    """Open a population of a zoo and keep the members that a condition holds for.

    Raises
    ------
    UnknownNameError
        If the zoo has no population of that name, or several and none was named.
    """
    if not isinstance(data, Members):
        zoo = open_zoo(data)
        if name is None and len(zoo.populations) != 1:
            raise unknown_name("population (name one with --population)", name, zoo.populations)
        data = zoo[name or zoo.populations[0]]
    return data if where is None else data.where(where)


def train_property(
    data: str | PathLike[str] | Members,
    *,
    out: str | PathLike[str],
    trainer: Mapping[str, Any] | None = None,
    **options: Any,
) -> Metrics:
    """Train a model to predict a property of members.

    Writes ``config.json``, ``checkpoints/best.ckpt`` (best validation tau), ``predictions.parquet``
    of all parts, logs, and last ``metrics.json``.

    Parameters
    ----------
    data
        A zoo or a population.
    out
        Directory of the run.
    trainer
        Arguments of :class:`lightning.Trainer` in place of the usual ones.
    **options
        Fields of :class:`PropertyRun`.

    Returns
    -------
    dict
        Contents of ``metrics.json``: tau, R2 and mean absolute error of every part, epochs,
        parameters.

    Raises
    ------
    InvalidConfigError
        If ``out`` holds another run, or a part that is needed has no members.
    UnknownNameError
        If the model, target, split or population does not exist.
    """
    run, folder = PropertyRun(**options), Path(out)
    population = select_population(data, name=run.population, where=run.where)
    config = _plain_config(run, population, trainer or {})
    if (metrics := _finished(folder, config)) is not None:
        logger.info("%s is finished: nothing to do", folder)
        return metrics
    module = ZooDataModule(
        population, target=run.target, batch_size=run.batch_size, split=run.split, seed=run.seed
    )
    if not len(module.validation):
        raise InvalidConfigError(
            f"Expected members in part 'validation' of split {run.split!r}, on which the best "
            "epoch is selected, got none. Select more members."
        )
    with _seeded(run.seed):
        task = make_task(run, module)
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / "config.json", config)
        if isinstance(task.model, FittedFunctional):
            task.fit_at_once(module.train)
            save(task, folder / CHECKPOINTS / BEST)
            return _write_results(task, module, folder, run, epochs=0)
        fitted = fit(task, module, folder, run, trainer or {})
    if not fitted.is_global_zero:
        return {}
    return _write_results(task, module, folder, run, epochs=fitted.current_epoch)


def make_task(run: PropertyRun, module: ZooDataModule) -> PropertyRegression:
    """Make the task with fresh weights, drawn from torch's current generator."""
    options = run.options
    if needs_network(run.model, options) and "network" not in options:
        options = options | {"network": common_network(module.population)}
    model = build_model(
        run.model,
        space=module.population.space,
        num_hyperparameters=module.num_hyperparameters,
        **options,
    )
    return PropertyRegression(model, loss=run.loss, learning_rate=run.learning_rate)


def fit(
    task: PropertyRegression,
    module: ZooDataModule,
    folder: Path,
    run: PropertyRun,
    options: Mapping[str, Any],
) -> lightning.Trainer:
    """Train from the last checkpoint in ``folder``, if there is one, and keep the best weights."""
    checkpoints = folder / CHECKPOINTS
    best = ModelCheckpoint(
        dirpath=checkpoints,
        filename=Path(BEST).stem,
        monitor="validation_tau",
        mode="max",
        save_weights_only=True,
        enable_version_counter=False,
    )
    last = ModelCheckpoint(
        dirpath=checkpoints, filename=Path(LAST).stem, enable_version_counter=False
    )
    stop = EarlyStopping("validation_tau", mode="max", patience=run.patience, check_finite=False)
    usual: dict[str, Any] = {
        "max_epochs": run.max_epochs,
        "callbacks": [best, stop, last],
        "logger": CSVLogger(folder, name="logs"),
        "log_every_n_steps": max(1, min(50, len(module.train) // run.batch_size)),
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(**(usual | dict(options)))
    resume = checkpoints / LAST
    with warnings.catch_warnings():
        # A run that resumes finds its own checkpoints, as it should.
        warnings.filterwarnings("ignore", message="Checkpoint directory .* is not empty")
        # Lightning's own use of a class that newer torch deprecates.
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        trainer.fit(
            task,
            datamodule=module,
            ckpt_path=resume if resume.is_file() else None,
            weights_only=True,
        )
    return trainer


# ---- records ----------------------------------------------------------------------------------
def _plain_config(
    run: PropertyRun, population: Members, trainer: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything the result depends on, as JSON would return it."""
    config = asdict(run) | {
        "population": population.name,
        "version": population.version,
        "selection": population.selection,
        "space": population.space.fingerprint,
        "trainer": dict(trainer),
    }
    plain: dict[str, Any] = json.loads(json.dumps(config, default=str))
    return plain


def _finished(folder: Path, config: dict[str, Any]) -> Metrics | None:
    """Metrics of a finished run with this configuration, or None if there is work left."""
    results, started = folder / "metrics.json", folder / CHECKPOINTS
    if not (results.is_file() or started.is_dir()):
        return None
    before = json.loads((folder / "config.json").read_text())
    if before != config:
        differing = [key for key in config if before.get(key) != config[key]]
        raise InvalidConfigError(
            f"'{folder}' holds another run, which differs in {', '.join(differing)}. "
            "Choose another --out, or remove it."
        )
    metrics: Metrics | None = json.loads(results.read_text()) if results.is_file() else None
    return metrics


def _write_results(
    task: PropertyRegression, module: ZooDataModule, folder: Path, run: PropertyRun, *, epochs: int
) -> Metrics:
    """Predict every part with the best weights; write predictions, then metrics."""
    checkpoint = torch.load(folder / CHECKPOINTS / BEST, map_location="cpu", weights_only=True)
    task.load_state_dict(checkpoint["state_dict"])
    metrics: Metrics = {"model": run.model, "target": run.target, "seed": run.seed}
    tables = []
    for part in PARTS:
        dataset = getattr(module, part)
        if not len(dataset):
            continue
        result = predict(task, dataset)
        scores = score(torch.from_numpy(result.prediction), torch.from_numpy(result.target))
        metrics |= {f"{part}_{name}": _finite(v) for name, v in scores._asdict().items()}
        tables.append(pl.DataFrame(result._asdict()).with_columns(pl.lit(part).alias("split")))
    metrics["epochs"] = epochs
    metrics["num_parameters"] = sum(p.numel() for p in task.model.parameters())
    labels = {"model": pl.lit(run.model), "seed": pl.lit(run.seed, dtype=pl.Int64)}
    table = pl.concat(tables).with_columns(**labels)
    table.select("member", "split", "target", "prediction", "model", "seed").write_parquet(
        folder / "predictions.parquet"
    )
    _write_json(folder / "metrics.json", metrics)
    return metrics


def _finite(value: float) -> float | None:
    """NaN has no place in JSON."""
    return value if value == value else None


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write at once or not at all."""
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(values, indent=2) + "\n")
    partial.replace(path)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch inside the block only."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
