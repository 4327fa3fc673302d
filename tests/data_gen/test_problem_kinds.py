"""Engines on regression and on differential equations: as exact as on classes and signals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data_gen.assignment import columns_of, settings_of
from data_gen.distributions import Choice, Constant, LogUniform
from data_gen.engines import LoopEngine, NativeEngine, StackedEngine, make
from data_gen.plan import space_of
from data_gen.testing import assert_same_bits, small_digits, small_values, tiny_recipe
from zoo.errors import InvalidConfigError
from zoo.networks import MLPConfig, build
from zoo.problems import PDE_METRICS, REGRESSION_METRICS, evaluate, load

VALUES = tiny_recipe(
    MLPConfig(in_features=64, hidden=(5, 3), out_features=2),
    problem={"name": "pixels"},
    num_members=6,
    hyperparameters={
        "learning_rate": LogUniform(1e-3, 1e-2),
        "optimizer": Choice(("sgd", "adam")),
        "activation": Choice(("tanh", "relu")),
        "batch_size": Choice((7, 10)),
    },
)
EQUATION = replace(
    VALUES,
    problem={"name": "convection", "coefficients": [1.0, 5.0], "num_points": 31},
    network=MLPConfig(in_features=2, hidden=(5, 3), out_features=1, activation="tanh"),
    hyperparameters={
        "learning_rate": LogUniform(1e-3, 1e-2),
        "optimizer": Choice(("sgd", "adam")),
        "batch_size": Choice((31, 8)),
        "clip_norm": Choice((0.0, 0.5)),
    },
)
BURGERS = replace(EQUATION, problem={"name": "burgers", "num_points": 31})


def problem_of(recipe):
    return small_values() if recipe.problem["name"] == "pixels" else load(recipe.problem)


def train(engine, recipe, members=None):
    ids = np.arange(recipe.num_members) if members is None else members
    problem = problem_of(recipe)
    drawn = recipe.draw(ids) | problem.assign(ids)
    return engine.train(recipe, problem, space_of(recipe), ids, drawn)


CASES = [
    pytest.param(VALUES, StackedEngine(), id="values-stacked"),
    pytest.param(VALUES, NativeEngine(), id="values-native"),
    pytest.param(EQUATION, StackedEngine(), id="convection-stacked"),
    pytest.param(BURGERS, StackedEngine(), id="burgers-stacked"),
]


@pytest.mark.parametrize(("recipe", "engine"), CASES)
def test_engines_agree_with_the_loop_and_company_never_shows(recipe, engine):
    whole, loop = train(engine, recipe), train(LoopEngine(), recipe)
    assert tuple(whole.metrics) == problem_of(recipe).metrics
    assert np.isfinite(whole.weights).all()
    assert np.median(np.abs(whole.weights - loop.weights)) < 1e-6
    for name, values in whole.metrics.items():
        np.testing.assert_allclose(values, loop.metrics[name], rtol=2e-3, atol=1e-5, err_msg=name)
    alone = train(engine, recipe, np.array([3]))
    assert_same_bits(alone, np.array([3]), whole)


@pytest.mark.parametrize(("recipe", "engine"), CASES)
def test_one_sgd_step_agrees_with_the_loop(recipe, engine):
    plain = {"learning_rate": Constant(1e-2), "optimizer": Constant("sgd")}
    one = replace(
        recipe, hyperparameters=plain | {"batch_size": Constant(64)}, epochs=1, checkpoints=(0, 1)
    )
    own, loop = train(engine, one), train(LoopEngine(), one)
    assert (own.weights[:, 1] != own.weights[:, 0]).any(axis=1).all()
    np.testing.assert_allclose(own.weights, loop.weights, rtol=0, atol=1e-6)


@pytest.mark.parametrize("recipe", [VALUES, EQUATION], ids=["values", "equation"])
def test_training_lowers_the_loss(recipe):
    trained = train(
        StackedEngine(),
        replace(
            recipe,
            hyperparameters={"learning_rate": Constant(5e-3), "batch_size": Constant(31)},
            epochs=30,
            checkpoints=(0, 30),
        ),
    )
    losses = trained.metrics["train_loss"]
    assert (losses[:, 1] < 0.9 * losses[:, 0]).all()


def test_metrics_are_those_of_the_rebuilt_module():
    for recipe, names in ((VALUES, REGRESSION_METRICS), (EQUATION, PDE_METRICS)):
        result, problem, space = (
            train(StackedEngine(), recipe),
            problem_of(recipe),
            space_of(recipe),
        )
        drawn = recipe.draw(np.arange(6)) | problem.assign(np.arange(6))
        for member in (0, 5):
            own = {"activation": drawn["activation"][member]} if "activation" in drawn else {}
            module = build({**_network(recipe), **own})
            module.load_state_dict(space.state_dict(torch.from_numpy(result.weights[member, -1])))
            signal = int(drawn["signal"][member]) if "signal" in drawn else None
            measured = evaluate(problem, module, signal=signal)
            assert tuple(measured) == names
            for name, value in measured.items():
                assert value == pytest.approx(result.metrics[name][member, -1], rel=1e-4, abs=1e-6)


def _network(recipe):
    return recipe.to_dict()["network"]


def test_settings_of_classes_are_refused_for_values():
    recipe = replace(VALUES, hyperparameters={"label_noise": Constant(0.1)})
    with pytest.raises(InvalidConfigError, match="'label_noise' is about classes"):
        train(LoopEngine(), recipe)


def test_equations_are_not_for_kernels():
    assert make("auto", recipe=EQUATION).name == "stacked"
    assert "equations" in make("auto", recipe=EQUATION).reason


@pytest.mark.parametrize("engine", [LoopEngine(), StackedEngine(), NativeEngine()])
def test_a_member_of_a_domain_trains_on_that_part_alone(engine):
    """As if the rest of the data were not there, bit for bit."""
    whole = small_digits(num_train=60)
    domains = torch.arange(60) % 3
    problem = replace(whole, domains=domains)
    recipe = tiny_recipe(num_members=4, hyperparameters={"batch_size": Constant(6)})
    ids = np.arange(4)
    drawn = recipe.draw(ids) | {"domain": np.array([2, -1, 0, 2])}
    result = engine.train(recipe, problem, space_of(recipe), ids, drawn)
    part = replace(
        whole,
        train_inputs=whole.train_inputs[domains == 2],
        train_targets=whole.train_targets[domains == 2],
    )
    alone = engine.train(recipe, part, space_of(recipe), ids, recipe.draw(ids))
    np.testing.assert_array_equal(result.weights[[0, 3]], alone.weights[[0, 3]])
    assert not np.array_equal(result.weights[2, -1], alone.weights[2, -1])


def test_a_domain_without_samples_is_refused():
    recipe = tiny_recipe(hyperparameters={"domain": Constant(7)})
    ids = np.arange(2)
    with pytest.raises(InvalidConfigError, match="Expected a domain"):
        LoopEngine().train(recipe, small_digits(), space_of(recipe), ids, recipe.draw(ids))


def test_solutions_of_one_equation_are_no_relatives():
    problem, ids = load(BURGERS.problem), np.arange(6)
    columns = columns_of(BURGERS, problem, ids, settings_of(BURGERS, problem, ids))
    assert columns["lineage"].tolist() == [0, 1, 2, 3, 4, 5]
    assert columns["signal"].tolist() == [0] * 6
