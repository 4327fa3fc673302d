"""Measuring a trained task on members it may never have met."""

import json
from os import PathLike
from pathlib import Path

import torch

from neural_functionals.models import NeuralFunctional
from neural_functionals.runs import Metrics
from neural_functionals.tasks.checkpoint import load
from neural_functionals.tasks.networks import check_network
from neural_functionals.tasks.property import predict, score
from neural_functionals.tasks.training import select_population
from zoo.datasets import ZooDataset
from zoo.errors import InvalidConfigError, MissingDataError, WeightSpaceMismatchError
from zoo.space import WeightSpace
from zoo.store import Members


def evaluate_property(
    run: str | PathLike[str],
    data: str | PathLike[str] | Members,
    *,
    population: str | None = None,
    where: str | None = None,
    split: str = "default",
    part: str = "test",
) -> Metrics:
    """Score a trained run on one part of a population.

    Parameters
    ----------
    run
        Directory that ``zoo train`` wrote.
    data
        A zoo or a population, of the weight space (or hyper-parameters) that the model reads.

    Raises
    ------
    MissingDataError
        If the run is not finished.
    WeightSpaceMismatchError
        If the members are networks of another kind.
    """
    task, config = load(Path(run)), Path(run) / "config.json"
    if not config.is_file():
        raise MissingDataError(f"Expected a run of zoo train at '{run}', found no config.json.")
    settings = json.loads(config.read_text())
    members = select_population(data, name=population, where=where)
    parts = members.split(split)
    dataset = ZooDataset(members.select(parts[part]), target=settings["target"])
    _check_source(task.model, members, dataset)
    if not len(dataset):
        raise InvalidConfigError(f"No members in part {part!r} of split {split!r} to evaluate on.")
    check_network(task.model, members)
    result = predict(task, dataset)
    scores = score(torch.from_numpy(result.prediction), torch.from_numpy(result.target))
    return {
        "model": settings["model"],
        "target": settings["target"],
        "seed": settings["seed"],
        **{f"{part}_{name}": v if v == v else None for name, v in scores._asdict().items()},
    }


def _check_source(model: NeuralFunctional, members: Members, dataset: ZooDataset) -> None:
    """Raise unless the members are what the model was made for."""
    source = model.source
    if isinstance(source, WeightSpace):
        expected, came = source.fingerprint, members.space.fingerprint
    else:
        expected, came = f"{source} hyper-parameters", f"{dataset.num_hyperparameters} of them"
        came = expected if dataset.num_hyperparameters == source else came
    if expected != came:
        raise WeightSpaceMismatchError(
            f"Expected members of weight space {expected} for this model, got {came} in population "
            f"{members.name!r}. Train a model on that population."
        )
