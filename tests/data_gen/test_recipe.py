import json
from dataclasses import replace

import numpy as np
import pytest

from data_gen import distributions as dist
from data_gen import hyperparameters as hp
from data_gen.recipe import Recipe
from data_gen.recipes import RECIPES, recipe
from data_gen.testing import tiny_recipe
from zoo.errors import InvalidConfigError, UnknownNameError
from zoo.networks import SirenConfig


@pytest.mark.parametrize("name", RECIPES)
def test_named_recipes_round_trip_and_vary(name):
    made = recipe(name, num_members=5, epochs=4, seed=3, population="mine")
    assert Recipe.from_json(made.to_json()) == made
    assert Recipe.from_json(made.to_json()).sha256 == made.sha256
    assert json.loads(made.to_json()) == made.to_dict()
    assert (made.name, made.num_members, made.seed) == ("mine", 5, 3)
    assert made.checkpoints[0] == 0
    assert made.checkpoints[-1] == made.epochs == 4


def test_hash_counts_what_determines_members_only():
    base = tiny_recipe()
    assert replace(base, description="other", source="other").sha256 == base.sha256
    for change in ({"seed": 1}, {"epochs": 3, "checkpoints": (0, 3)}, {"num_members": 13}):
        assert replace(base, **change).sha256 != base.sha256


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpoints": (0, 1)}, "last checkpoint"),
        ({"checkpoints": (1, 0, 2)}, "ascending"),
        ({"checkpoints": ()}, "ascending"),
        ({"num_members": 0}, "members >= 1"),
        ({"seed": -1}, "seed"),
        (
            {"hyperparameters": {"dropout": dist.Constant(1.5)}},
            r"'dropout' to be float in \[0, 0.99\]",
        ),
        ({"hyperparameters": {"batch_size": dist.Choice((2.5,))}}, "'batch_size' to be int"),
        ({"hyperparameters": {"batch_size": dist.LogUniform(2, 8)}}, "whole numbers"),
        ({"network": SirenConfig(), "hyperparameters": {"dropout": dist.Constant(0.1)}}, "siren"),
    ],
)
def test_contradictions_are_named(changes, words):
    with pytest.raises((InvalidConfigError, UnknownNameError), match=words):
        tiny_recipe(**changes)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(UnknownNameError, match="Known: learning_rate, weight_decay"):
        tiny_recipe(hyperparameters={"lerning_rate": dist.Constant(1.0)})
    with pytest.raises(UnknownNameError, match="Known: sgd, nesterov, adam"):
        tiny_recipe(hyperparameters={"optimizer": dist.Choice(("sgd", "lion"))})
    with pytest.raises(UnknownNameError, match="Known: digits-mlp, small-cnn"):
        recipe("digits")


def test_a_member_draws_the_same_in_any_population_and_beside_any_other_hyperparameter():
    few, many = tiny_recipe(num_members=3), tiny_recipe(num_members=50)
    drawn = many.draw(np.arange(50))
    alone = few.draw(np.array([2]))
    assert all(alone[name][0] == drawn[name][2] for name in drawn)
    only = tiny_recipe(hyperparameters={"learning_rate": dist.LogUniform(1e-3, 1e-1)})
    np.testing.assert_array_equal(only.draw(np.arange(50))["learning_rate"], drawn["learning_rate"])


@pytest.mark.parametrize(
    ("distribution", "low", "high", "mean"),
    [
        (dist.Uniform(2.0, 3.0), 2.0, 3.0, 2.5),
        (dist.LogUniform(1e-2, 1.0), 1e-2, 1.0, 0.99 / np.log(100)),
        (dist.IntUniform(2, 5), 2, 5, 3.5),
        (dist.Choice((2, 3, 7)), 2, 7, 4.0),
        (dist.Constant(4.0), 4.0, 4.0, 4.0),
    ],
)
def test_distributions(distribution, low, high, mean):
    rng = np.random.default_rng(0)
    values = np.array([distribution.sample(rng) for _ in range(4000)])
    assert low <= values.min() <= values.max() <= high
    assert values.mean() == pytest.approx(mean, rel=0.05)
    assert dist.from_json(json.loads(json.dumps(dist.to_json(distribution)))) == distribution


def test_columns_follow_the_distributions():
    rate = hp.column_spec("learning_rate", dist.LogUniform(1e-3, 1e-1))
    assert (rate.dtype, rate.scale) == ("float64", "log")
    momentum = hp.column_spec("momentum", dist.Choice((0.0, 0.9)))
    assert (momentum.dtype, momentum.scale) == ("float64", "linear")
    activation = hp.column_spec("activation", dist.Choice(("tanh", "relu")))
    assert (activation.dtype, activation.categories) == ("category", ("tanh", "relu"))
    assert hp.column_spec("batch_size", dist.Choice((32, 64))).dtype == "int64"
