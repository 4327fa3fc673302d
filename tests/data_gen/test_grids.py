"""Grids of hyper-parameters: who has which value and which seed, and what recipes had before."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from data_gen import distributions as dist
from data_gen import hyperparameters as hp
from data_gen.architectures import FieldGrid
from data_gen.recipe import Recipe
from data_gen.runner import Run, prepare
from data_gen.testing import MLP, tiny_recipe
from zoo.errors import InvalidConfigError

RATES, RULES = (1e-2, 1e-3, 1e-4), ("sgd", "adam")
GRID = tiny_recipe(
    hyperparameters={
        "learning_rate": dist.Grid(RATES),
        "dropout": dist.Uniform(0.0, 0.5),
        "optimizer": dist.Grid(RULES),
    },
    num_members=14,
)


def test_members_enumerate_the_product_in_the_order_of_the_recipe():
    drawn = GRID.draw(np.arange(14))
    found = list(zip(drawn["learning_rate"].tolist(), drawn["optimizer"].tolist(), strict=True))
    every = list(product(RATES, RULES))
    assert GRID.grid_size == len(every) == 6
    assert found == [*every, *every, *every[:2]]
    assert len(set(drawn["seed"].tolist())) == len(set(drawn["dropout"].tolist())) == 14


def test_shared_seeds_depend_on_the_repeat_alone():
    shared = replace(GRID, shared_seeds=True)
    drawn = shared.draw(np.arange(14))
    seeds = drawn["seed"]
    assert [len(set(seeds[start : start + 6].tolist())) for start in (0, 6)] == [1, 1]
    assert len(set(seeds.tolist())) == len(set(drawn["dropout"].tolist())) == 3
    alone = shared.draw(np.array([13]))
    assert all(alone[name][0] == drawn[name][13] for name in drawn)


def test_architectures_are_the_last_axis():
    recipe = replace(GRID, architectures=FieldGrid.product(hidden=[(2, 3), (5, 7)]))
    assert recipe.grid_size == 12
    widths = [each["hidden"][0] for each in recipe.network_fields(np.arange(12))]
    rates = recipe.draw(np.arange(12))["learning_rate"]
    assert widths == [2, 5] * 6
    assert rates.tolist() == [rate for rate in RATES for _ in range(4)]


def test_grids_round_trip_and_count():
    recipe = replace(
        GRID, shared_seeds=True, architectures=FieldGrid.product(hidden=[(2, 3), (5, 7)])
    )
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert again.sha256 == recipe.sha256
    others = [
        replace(recipe, shared_seeds=False),
        replace(recipe, architectures=FieldGrid.product(hidden=[(2, 3), (5, 8)])),
        replace(recipe, architectures=None),
    ]
    assert len({each.sha256 for each in (recipe, *others)}) == 4


def test_columns_of_grids():
    assert hp.column_spec("learning_rate", dist.Grid(RATES)).scale == "log"
    assert hp.column_spec("weight_decay", dist.Grid((0.0, 1e-3))).scale == "linear"
    assert hp.column_spec("optimizer", dist.Grid(RULES)).categories == RULES


def _digits_mlp():
    return {
        "name": "digits-mlp",
        "problem": {"name": "digits"},
        "network": {
            "name": "mlp",
            "in_features": 64,
            "hidden": [32, 32],
            "out_features": 10,
            "activation": "relu",
            "dropout": 0.0,
            "batch_norm": False,
        },
        "hyperparameters": {
            "learning_rate": {"distribution": "log_uniform", "low": 3e-4, "high": 1e-1},
            "optimizer": {"distribution": "choice", "values": ["sgd", "adam", "rmsprop"]},
            "momentum": {"distribution": "choice", "values": [0.0, 0.9]},
            "weight_decay": {"distribution": "log_uniform", "low": 1e-6, "high": 3e-2},
            "activation": {
                "distribution": "choice",
                "values": ["relu", "tanh", "gelu", "sigmoid"],
            },
            "dropout": {"distribution": "uniform", "low": 0.0, "high": 0.5},
            "init": {
                "distribution": "choice",
                "values": ["default", "kaiming_normal", "xavier_uniform", "orthogonal"],
            },
            "init_scale": {"distribution": "log_uniform", "low": 0.2, "high": 3.0},
            "batch_size": {"distribution": "choice", "values": [32, 64]},
            "data_fraction": {"distribution": "choice", "values": [0.1, 0.25, 0.5, 1.0]},
        },
        "num_members": 512,
        "epochs": 20,
        "checkpoints": [0, 1, 2, 3, 5, 8, 12, 16, 20],
        "seed": 0,
        "description": "",
        "source": "",
    }


def _small_cnn():
    return _digits_mlp() | {
        "name": "small-cnn",
        "problem": {"name": "idx"},
        "network": {
            "name": "cnn",
            "in_channels": 1,
            "image_size": 28,
            "out_features": 10,
            "channels": [16, 16, 16],
            "kernel_size": 3,
            "stride": 2,
            "padding": 0,
            "head": "pool",
            "activation": "relu",
            "dropout": 0.0,
            "batch_norm": False,
        },
        "hyperparameters": {
            "learning_rate": {"distribution": "log_uniform", "low": 5e-4, "high": 5e-2},
            "weight_decay": {"distribution": "log_uniform", "low": 1e-8, "high": 1e-2},
            "dropout": {"distribution": "uniform", "low": 0.0, "high": 0.7},
            "init_std": {"distribution": "log_uniform", "low": 1e-3, "high": 0.5},
            "optimizer": {"distribution": "choice", "values": ["sgd", "adam", "rmsprop"]},
            "activation": {"distribution": "choice", "values": ["relu", "tanh"]},
            "init": {
                "distribution": "choice",
                "values": [
                    "xavier_normal",
                    "kaiming_normal",
                    "orthogonal",
                    "normal",
                    "truncated_normal",
                ],
            },
            "data_fraction": {"distribution": "choice", "values": [0.1, 0.25, 0.5, 1.0]},
            "batch_size": {"distribution": "choice", "values": [512]},
        },
        "num_members": 1024,
        "epochs": 86,
        "checkpoints": [0, 1, 2, 3, 20, 40, 60, 80, 86],
    }


def _siren(name, problem, **changes):
    return (
        _digits_mlp()
        | {
            "name": name,
            "problem": {"name": problem},
            "network": {
                "name": "siren",
                "in_features": 2,
                "hidden": [32, 32],
                "out_features": 1,
                "omega": 30.0,
            },
        }
        | changes
    )


def _sirens(batch_size):
    return {
        "learning_rate": {"distribution": "log_uniform", "low": 3e-4, "high": 3e-3},
        "init": {"distribution": "constant", "value": "siren"},
        "batch_size": {"distribution": "constant", "value": batch_size},
    }


STORED = [
    (_digits_mlp(), "37bbc427177ab0c5", 0.03310646823280776),
    (_small_cnn(), "a86d2f0b98c70685", 0.020815326431275444),
    (
        _siren(
            "siren-digits",
            "digit-signals",
            hyperparameters=_sirens(64),
            num_members=1797,
            epochs=60,
            checkpoints=[0, 5, 20, 60],
        ),
        "a134da8f553a7d78",
        0.0019356546070075562,
    ),
    (
        _siren(
            "siren-images",
            "idx-signals",
            hyperparameters=_sirens(784),
            num_members=70_000,
            epochs=1000,
            checkpoints=[0, 10, 100, 1000],
        ),
        "586ccb6ec03df05b",
        0.0019356546070075562,
    ),
]


@pytest.mark.parametrize(("stored", "sha256", "rate"), STORED, ids=lambda value: str(value)[:20])
def test_recipes_that_were_stored_before_keep_hash_and_members(stored, sha256, rate):
    recipe = Recipe.from_json(json.dumps(stored))
    assert recipe.sha256.startswith(sha256)
    assert recipe.to_dict() == stored
    drawn = recipe.draw(np.array([0, 7]))
    assert drawn["seed"].tolist() == [7501867102099269819, 7822114910501705857]
    assert drawn["learning_rate"][1] == rate


# ---- refusals -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shared_seeds": True, "hyperparameters": {}}, "has no grid"),
        ({"hyperparameters": {"learning_rate": dist.Grid((-1.0,))}}, "learning_rate"),
    ],
)
def test_wrong_grids_are_named(changes, words):
    with pytest.raises(InvalidConfigError, match=words):
        tiny_recipe(**changes)


@pytest.mark.parametrize("values", [(), (1.0, 1.0)])
def test_empty_and_repeated_values_are_refused(values):
    with pytest.raises(InvalidConfigError, match="at least one value in a grid, and none twice"):
        dist.Grid(values)
    with pytest.raises(InvalidConfigError, match="at least one architecture"):
        FieldGrid.product(hidden=values)


def test_grids_are_not_drawn_from():
    with pytest.raises(InvalidConfigError, match="enumerated, not drawn"):
        dist.Grid((1.0,)).sample(np.random.default_rng(0))


def test_a_signal_that_the_problem_lacks_is_named_before_training(tmp_path):
    recipe = replace(GRID, hyperparameters={"signal": dist.Grid((0, 3))})
    with pytest.raises(InvalidConfigError, match=r"up to 3, and problem 'digits' has no signals"):
        prepare(Run(recipe=recipe, out=tmp_path / "zoo", workers=1))
    assert not (tmp_path / "zoo").exists()


def test_a_field_is_spread_once():
    with pytest.raises(InvalidConfigError, match="spreads activation both"):
        tiny_recipe(MLP, architectures=FieldGrid.product(activation=("relu", "tanh")))
