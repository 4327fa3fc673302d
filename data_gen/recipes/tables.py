"""Populations of perceptrons on tabular data."""

from dataclasses import replace
from typing import Any

from data_gen.distributions import Choice, Distribution, LogUniform, Uniform
from data_gen.recipe import Recipe
from zoo.networks import FCNConfig, MLPConfig

_SPREAD: dict[str, Distribution] = {
    "learning_rate": LogUniform(3e-4, 1e-1),
    "optimizer": Choice(("sgd", "adam", "rmsprop")),
    "weight_decay": LogUniform(1e-6, 1e-1),
    "activation": Choice(("relu", "tanh", "gelu")),
    "init_scale": LogUniform(0.3, 3.0),
    "batch_size": Choice((16, 32)),
    "data_fraction": Choice((0.25, 0.5, 1.0)),
}


def tabular_wine(*, full: bool = False) -> Recipe:
    """Return perceptrons 13-16-16-3 on scikit-learn's wines: classes, no download."""
    return _perceptrons(
        full=full,
        name="tabular-wine",
        problem={"name": "wine"},
        network=MLPConfig(in_features=13, hidden=(16, 16), out_features=3),
        description="perceptrons that tell wines apart",
    )


def tabular_diabetes(*, full: bool = False) -> Recipe:
    """Return perceptrons 10-16-16-1 on scikit-learn's diabetes table: a regression, no download."""
    return _perceptrons(
        full=full,
        name="tabular-diabetes",
        problem={"name": "diabetes"},
        network=MLPConfig(in_features=10, hidden=(16, 16), out_features=1),
        description="perceptrons that predict a value",
    )


def tabular_csv(*, full: bool = False) -> Recipe:
    """Return perceptrons 11-32-32-1 on a CSV file, white wine's quality by default."""
    recipe = _perceptrons(
        full=full,
        name="tabular-csv",
        problem={"name": "csv", "file": "winequality-white.csv", "task": "regression"},
        network=MLPConfig(in_features=11, hidden=(32, 32), out_features=1),
        description="perceptrons on a CSV file, by default on white wine's quality",
    )
    return replace(recipe, num_members=recipe.num_members // 2)


def series_fcn(*, full: bool = False) -> Recipe:
    """Return convolutional networks on time series of a UCR set, GunPoint by default."""
    return Recipe(
        name="series-fcn",
        problem={"name": "ucr", "dataset": "GunPoint"},
        network=FCNConfig(
            in_channels=1,
            length=150,
            out_features=2,
            channels=(128, 256, 128) if full else (8, 16, 8),
        ),
        hyperparameters={
            "learning_rate": LogUniform(1e-4, 1e-1),
            "optimizer": Choice(("sgd", "adam")),
            "weight_decay": LogUniform(1e-6, 1e-2),
            "dropout": Uniform(0.0, 0.4),
            "batch_size": Choice((8, 16)),
        },
        num_members=256 if full else 64,
        epochs=200 if full else 20,
        checkpoints=(0, 10, 50, 100, 200) if full else (0, 1, 5, 10, 20),
        description="convolutional networks on time series",
    )


def _perceptrons(*, full: bool, **about: Any) -> Recipe:
    return Recipe(
        hyperparameters=_SPREAD,
        num_members=4096 if full else 256,
        epochs=40,
        checkpoints=(0, 1, 5, 10, 20, 40),
        **about,
    )
