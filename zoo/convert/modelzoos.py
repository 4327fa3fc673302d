"""ModelZoos: folders of Ray Tune trials, one per network [1]_.

Each trial's folder is as Ray leaves it (:mod:`zoo.convert.ray_trials`), a training iteration is an
epoch, and ``checkpoint_000012/checkpoints`` is the state dict after twelve.

References
----------
.. [1] Schürholt et al., "Model Zoos: A Dataset of Diverse Populations of Neural Network Models",
   NeurIPS Datasets and Benchmarks 2022.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zoo.convert.blueprint import shapes_of
from zoo.convert.ray_trials import PARAMS, PROGRESS, RESULTS, find_trials, read_trial
from zoo.convert.source import ColumnValue, Entry, Shapes, Skipped
from zoo.convert.torch_files import UnreadableFileError, read_checkpoint
from zoo.errors import MissingDataError
from zoo.networks import ACTIVATIONS, LeNetConfig, MLPConfig, build, to_dict
from zoo.schema import SEED, ColumnSpec

STATE = "checkpoints"

_METRIC = re.compile(r"(train|test|val|validation)_(loss|acc|accuracy)")
_MODULE = re.compile(r"module_list\.(\d+)\.(weight|bias)")
_NOT_MEASURED = -999
"""What the trainable reports as training loss and accuracy before the first epoch."""

_COLUMNS = {
    "model::nlin": "activation",
    "model::dropout": "dropout",
    "model::init_type": "init_type",
    "optim::optimizer": "optimizer",
    "optim::lr": "learning_rate",
    "optim::wd": "weight_decay",
    "optim::momentum": "momentum",
    "optim::scheduler": "scheduler",
    "training::batchsize": "batch_size",
    "training::epochs_train": "epochs_planned",
    SEED: SEED,
}
_WORDS = ("activation", "init_type", "optimizer", "scheduler")
_ACTIVATIONS = {"leakyrelu": "leaky_relu"}
_EACH, _LAST_NOT = (2, 2, 2), (2, 2, 1)
_SMALL: dict[str, Any] = {
    "image_size": 28,
    "kernel_sizes": (5, 5, 2),
    "pools": _LAST_NOT,
    "undropped": (2,),
}
_CNNS: dict[str, dict[str, Any]] = {
    "CNN": {"channels": (8, 6, 4), **_SMALL},
    "CNN2": {"channels": (6, 9, 6), **_SMALL},
    "CNN3": {"image_size": 32, "channels": (16, 32, 15), "kernel_sizes": (3, 3, 3), "pools": _EACH},
}
"""Model types: CNN and CNN3 are the paper's CNN-s and CNN-l."""


@dataclass
class _States:
    """The state dicts of one trial that can be read."""

    paths: dict[int, Path] = field(default_factory=dict)
    shapes: Shapes = ()
    dtypes: set[str] = field(default_factory=set)


class ModelZoos:
    """Source of a folder of Ray Tune trials.

    Parameters
    ----------
    path
        An experiment, or a folder of several, or one trial.
    epochs
        Convert these epochs only, and so trials that stopped after them, too.

    Raises
    ------
    MissingDataError
        If no trial is found.
    """

    format = "modelzoos"
    network_columns: Sequence[str] = ("activation", "dropout")

    def __init__(self, path: Path, *, epochs: Sequence[int] | None = None) -> None:
        self.path = path
        self.problem: dict[str, Any] = {"name": "unknown", "source": path.resolve().name}
        self.recipe: dict[str, Any] = {
            "source": "ModelZoos",
            "experiment": path.resolve().name,
            "training": "one Ray Tune trial per network",
        }
        self._wanted = None if epochs is None else set(epochs)
        self._paths: dict[str, dict[int, Path]] = {}
        self._words: dict[str, set[str]] = {}
        if not recognise(path):
            raise MissingDataError(
                f"Expected folders of Ray Tune trials below {path}, each with {PARAMS} and "
                f"checkpoint_000000/{STATE}, got none. Unpack the zoo there."
            )

    @property
    def column_specs(self) -> Sequence[ColumnSpec]:
        """What the columns of the networks scanned so far mean."""
        return [
            ColumnSpec(name="learning_rate", dtype="float64", scale="log", unit="1/step"),
            ColumnSpec(name="dropout", dtype="float64", description="after each activation"),
            *(
                ColumnSpec(
                    name=name,
                    dtype="category",
                    categories=tuple(sorted(words)),
                    scale="categorical",
                )
                for name, words in self._words.items()
            ),
        ]

    def scan(self) -> Iterator[Entry | Skipped]:
        """Read every trial, in the order of names; damaged checkpoints and lines are skipped."""
        for folder in find_trials(self.path):
            name = folder.relative_to(self.path).as_posix()
            yield from self._trial(folder, self.path.resolve().name if name == "." else name)

    def load(self, entry: Entry, epoch: int) -> Mapping[str, np.ndarray]:
        """Read one checkpoint again."""
        tensors = _ordered(read_checkpoint(self._paths[entry.name][epoch]).tensors)
        names = (name for name, _ in entry.shapes)
        return dict(zip(names, tensors.values(), strict=True))

    def _trial(self, folder: Path, name: str) -> Iterator[Entry | Skipped]:
        """Yield what is damaged in a trial, and the network if it still is one."""
        trial = read_trial(folder)
        yield from (Skipped(f"{name}/{file}", reason) for file, reason in trial.faults)
        if trial.config is None:
            yield Skipped(name, f"no configuration: {PARAMS} is absent or damaged")
            return
        if not trial.results:
            yield Skipped(name, f"no metric is known: {RESULTS} and {PROGRESS} are absent or empty")
            return
        states = _States()
        for epoch, place in trial.checkpoints.items():
            if self._wanted is None or epoch in self._wanted:
                try:
                    _add(states, epoch, place / STATE)
                except UnreadableFileError as error:
                    yield Skipped(f"{name}/{place.name}", str(error))
        if states.paths:
            self._paths[name] = states.paths
            yield self._entry(name, trial.config, trial.results, states)
        else:
            yield Skipped(name, "holds no checkpoint that can be read")

    def _entry(
        self,
        name: str,
        config: Mapping[str, Any],
        results: Mapping[int, Mapping[str, Any]],
        states: _States,
    ) -> Entry:
        columns = _columns(config)
        for word in _WORDS:
            if word in columns:
                self._words.setdefault(word, set()).add(str(columns[word]))
        network = _network(config, states.shapes)
        epochs = tuple(states.paths)
        measured = {epoch: _metrics(line) for epoch, line in results.items()}
        metrics = dict.fromkeys(key for values in measured.values() for key in values)
        return Entry(
            name=name,
            shapes=_named(states.shapes, network),
            epochs=epochs,
            network=network,
            columns=columns,
            metrics={
                metric: [measured.get(epoch, {}).get(metric, np.nan) for epoch in epochs]
                for metric in metrics
            },
            dtype="+".join(sorted(states.dtypes)),
        )


def recognise(path: Path) -> bool:
    """Tell whether a folder is a trial or has trials below it."""
    return path.is_dir() and next(find_trials(path), None) is not None


def _add(states: _States, epoch: int, path: Path) -> None:
    """Read a state dict and add what it says."""
    if not path.is_file():
        raise UnreadableFileError(f"holds no file {STATE!r}")
    checkpoint = read_checkpoint(path)
    tensors = _ordered(checkpoint.tensors)
    shapes = tuple((name, values.shape) for name, values in tensors.items())
    if states.shapes and shapes != states.shapes:
        raise UnreadableFileError("has other tensors than earlier epochs of its trial")
    states.shapes = shapes
    states.dtypes.add(checkpoint.dtype)
    states.paths[epoch] = path


def _ordered(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Order tensors by the position of their layer in the network's list, weight before bias."""
    places = {name: _MODULE.fullmatch(name) for name in tensors}
    if not all(places.values()):
        return dict(tensors)

    def place(name: str) -> tuple[int, bool]:
        match = places[name]
        return (int(match[1]), match[2] == "bias") if match else (0, False)

    return {name: tensors[name] for name in sorted(tensors, key=place)}


# ---- configuration and results ------------------------------------------------------------------
def _metrics(line: Mapping[str, Any]) -> dict[str, float]:
    """Return losses and accuracies of one epoch, NaN where they were not measured."""
    found = {}
    for key, value in line.items():
        if match := _METRIC.fullmatch(key):
            kind = "loss" if match[2] == "loss" else "accuracy"
            try:
                number = float(value)
            except (TypeError, ValueError):  # None, or a number that was cut off
                number = np.nan
            found[f"{match[1]}_{kind}"] = np.nan if number == _NOT_MEASURED else number
    return found


def _columns(config: Mapping[str, Any]) -> dict[str, ColumnValue]:
    """Return hyper-parameters under our names; paths and settings of the run are left out."""
    columns = {
        ours: config[theirs]
        for theirs, ours in _COLUMNS.items()
        if isinstance(config.get(theirs), bool | int | float | str)
    }
    if "activation" in columns:
        columns["activation"] = _activation(config)
    return columns


def _activation(config: Mapping[str, Any]) -> str:
    name = str(config.get("model::nlin"))
    return _ACTIVATIONS.get(name, name)


# ---- architecture -------------------------------------------------------------------------------
def _network(config: Mapping[str, Any], shapes: Shapes) -> Any:
    """Return our configuration of a model type that the zoos document; ``None`` for others."""
    kind = config.get("model::type")
    activation, dropout = _activation(config), float(config.get("model::dropout") or 0)
    if activation not in ACTIVATIONS:
        return None
    if kind in _CNNS:
        return to_dict(
            LeNetConfig(
                in_channels=int(config["model::channels_in"]),
                out_features=10,  # whatever model::o_dim says
                hidden=(20,),
                activation=activation,
                dropout=dropout,
                **_CNNS[kind],
            )
        )
    weights = [shape for _, shape in shapes if len(shape) == 2]
    if kind == "MLP" and weights and len(weights) * 2 == len(shapes):
        return to_dict(
            MLPConfig(
                in_features=weights[0][1],
                hidden=tuple(shape[0] for shape in weights[:-1]),
                out_features=weights[-1][0],
                activation=activation,
                dropout=dropout,
            )
        )
    return None


def _named(shapes: Shapes, network: Mapping[str, Any] | None) -> Shapes:
    """Name tensors as our network does: layers correspond one by one, in order."""
    if network is None:
        return shapes
    names = [name for name, _ in shapes_of(build(network))]
    if len(names) != len(shapes):
        return shapes
    return tuple((name, shape) for name, (_, shape) in zip(names, shapes, strict=True))
