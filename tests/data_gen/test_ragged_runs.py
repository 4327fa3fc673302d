"""Members of several architectures: planned, trained by architecture, resumed, the same alone."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_gen import architectures as arch
from data_gen import plan as planning
from data_gen import runner
from data_gen.architectures import FieldGrid, WildConvolutions
from data_gen.distributions import Choice, Constant, Grid, LogUniform
from data_gen.engines import LoopEngine, StackedEngine
from data_gen.ragged import plan_rows
from data_gen.recipe import Recipe
from data_gen.recipes import recipe as named_recipe
from data_gen.run import train_task
from data_gen.runner import Run, prepare
from data_gen.testing import generated, small_digits, tiny_recipe
from zoo.errors import InvalidConfigError, UnknownNameError
from zoo.networks import WildCNNConfig
from zoo.problems import digits, evaluate

WIDTHS = ((2, 2), (3, 5), (7, 7))
RECIPE = tiny_recipe(
    name="widths",
    hyperparameters={
        "batch_size": Grid((40, 70)),
        "learning_rate": LogUniform(1e-3, 1e-2),
        "activation": Choice(("relu", "tanh")),
    },
    architectures=FieldGrid.product(hidden=WIDTHS),
    num_members=34,
    epochs=1,
    checkpoints=(0, 1),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run: 34 members of three architectures in blocks of 16."""
    out = tmp_path_factory.mktemp("ragged") / "zoo"
    return generated(Run(recipe=RECIPE, out=out, workers=1))


def test_the_store_knows_every_architecture(whole):
    population = whole["widths"]
    listed = population.spec.space.architectures
    assert [each.network for each in listed] == [{"hidden": list(widths)} for widths in WIDTHS]
    assert "hidden" not in population.network
    assert population.table["architecture"].to_list() == [member % 3 for member in range(34)]
    assert population.network_of(4)["hidden"] == [3, 5]
    sizes = [len(vector) for vector in population.vectors([0, 1, 2])]
    assert sizes == [each.num_parameters for each in listed]
    assert Recipe.from_dict({key: population.recipe[key] for key in RECIPE.to_dict()}) == RECIPE


def test_every_member_reproduces_its_metrics(whole):
    population, problem = whole["widths"], digits()
    for member in range(0, 34, 5):
        measured = evaluate(problem, population.module(member))
        for name, value in measured.items():
            assert value == pytest.approx(population.metric(name)[member, -1], rel=1e-5, abs=1e-6)


def test_a_member_is_the_same_bit_for_bit_alone(whole):
    population, problem = whole["widths"], digits()
    for member in (1, 33):
        ids = np.array([member])
        own = RECIPE.of_architecture(RECIPE.network_fields(ids)[0])
        drawn, space = RECIPE.draw(ids), population.space_of(member)
        alone = StackedEngine().train(own, problem, space, ids, drawn)
        stored = population.vectors(ids)[0]
        np.testing.assert_array_equal(alone.weights[0, -1], stored)
        reference = LoopEngine().train(own, problem, space, ids, drawn)
        np.testing.assert_allclose(reference.weights[0, 0], alone.weights[0, 0], rtol=0, atol=0)


def test_a_partial_run_is_resumed_to_the_same_version(whole, tmp_path):
    run = Run(recipe=RECIPE, out=tmp_path / "zoo", workers=2)
    writer, plan, problem = prepare(run)
    assert "3 architectures" in str(plan)
    assert plan.num_architectures == 3
    train_task(RECIPE, StackedEngine(), problem, writer, planning.Task((1,), 16), lambda _: None)
    _, plan, _ = prepare(run)
    assert sorted(block for task in plan.tasks for block in task.blocks) == [0, 2]
    assert generated(replace(run, workers=1)).version == whole.version


_SCRIPT = """
from pathlib import Path
from data_gen.recipe import Recipe
from data_gen.recipes import recipe as named_recipe
from data_gen.runner import Run, carry_out, prepare
if __name__ == "__main__":
    recipe = Recipe.from_json(Path("{recipe}").read_text())
    run = Run(recipe=recipe, out=Path("{out}"), workers=1)
    carry_out(run, *prepare(run))
"""


@pytest.mark.slow
def test_a_killed_run_is_resumed_to_the_same_version(whole, tmp_path):
    out, script = tmp_path / "zoo", tmp_path / "run.py"
    (tmp_path / "recipe.json").write_text(RECIPE.to_json())
    script.write_text(_SCRIPT.format(out=out, recipe=tmp_path / "recipe.json"))
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen([sys.executable, str(script)], env=environment)
    deadline = time.monotonic() + 240
    while not list(out.glob("populations/*/weights/c/*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert generated(Run(recipe=RECIPE, out=out, workers=1)).version == whole.version


@pytest.mark.slow
def test_processes_give_the_same_version(whole, tmp_path):
    run = Run(recipe=RECIPE, out=tmp_path / "zoo", workers=2)
    assert len(prepare(run)[1].tasks) == 2
    assert generated(run).version == whole.version


# ---- wild architectures -------------------------------------------------------------------------
WILD = WildConvolutions(num_layers=(2, 3), channels=(2, 3), kernel_sizes=(1, 3))


def test_wild_architectures_are_members_own_and_buildable():
    recipe = tiny_recipe(
        WildCNNConfig(in_channels=1, image_size=8),
        hyperparameters={"learning_rate": Constant(1e-2)},
        architectures=WildConvolutions(),
        num_members=200,
    )
    fields = recipe.network_fields(np.arange(200))
    assert fields == [recipe.network_fields(np.array([m]))[0] for m in range(200)]
    assert {len(each["channels"]) for each in fields} == {2, 3, 4, 5}
    for name, values in (("channels", {4, 8, 16, 32}), ("kernel_sizes", {3, 5, 7})):
        assert {value for each in fields for value in each[name]} == values
    assert {source for each in fields for source in each["residuals"]} == {-1, 0, 1, 2}
    for each in fields[:20]:
        assert recipe.of_architecture(each).network.sources == tuple(each["residuals"])
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_a_wild_population_is_trained(tmp_path, monkeypatch):
    recipe = tiny_recipe(
        WildCNNConfig(in_channels=1, image_size=8),
        hyperparameters={"learning_rate": Constant(1e-2), "batch_size": Constant(40)},
        architectures=WILD,
        num_members=2,
        epochs=1,
        checkpoints=(0, 1),
    )
    problem = small_digits(images=True)
    monkeypatch.setattr(runner.problems, "load", lambda *_, **__: problem)
    population = generated(Run(recipe=recipe, out=tmp_path / "zoo", workers=1))["tiny"]
    depths = [len(each["channels"]) for each in recipe.network_fields(np.arange(2))]
    assert population.table["num_layers"].to_list() == depths
    for member in range(2):
        measured = evaluate(problem, population.module(member))["test_loss"]
        assert measured == pytest.approx(population.metric("test_loss")[member, -1], rel=1e-5)


def test_architectures_of_one_space_keep_the_rescalings_that_all_allow():
    recipe = tiny_recipe(
        hyperparameters={},
        architectures=FieldGrid.product(activation=("relu", "tanh")),
    )
    ragged, (space,) = plan_rows(recipe)
    relu, tanh = (
        planning.space_of(recipe.of_architecture(each.network)) for each in ragged.architectures
    )
    assert relu.scalings != tanh.scalings
    assert space.fingerprint == relu.fingerprint == tanh.fingerprint
    assert set(space.scalings) == set(relu.scalings) & set(tanh.scalings)


# ---- refusals -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("networks", "words"),
    [
        (({"width": 3}, {"width": 5}), "width, which its network 'mlp' does not have"),
        (({"hidden": [0]}, {"hidden": [3]}), r'\{"hidden": \[0\]\} of recipe .* cannot be built'),
    ],
)
def test_architectures_that_cannot_be_built_are_named_before_training(tmp_path, networks, words):
    recipe = replace(RECIPE, architectures=FieldGrid(networks=networks))
    with pytest.raises(InvalidConfigError, match=words):
        prepare(Run(recipe=recipe, out=tmp_path / "zoo", workers=1))
    assert not (tmp_path / "zoo" / "populations" / "widths").exists()


def test_contradictions_are_named():
    with pytest.raises(InvalidConfigError, match="the same fields"):
        FieldGrid(networks=({"hidden": [2]}, {"dropout": 0.5}))
    with pytest.raises(InvalidConfigError, match="fewest and a most"):
        WildConvolutions(num_layers=(3, 2))
    with pytest.raises(UnknownNameError, match="Known: field_grid, wild_convolutions"):
        arch.from_json({"architectures": "wilder"})


def test_auto_trains_members_of_drawn_architectures_one_by_one(tmp_path):
    """Wherever a skip connection first appears, no engine stops at it."""
    wild = named_recipe("wild-park", num_members=9)
    run = Run(recipe=wild, out=tmp_path / "wild.zarr", engine="auto")
    engine = run.make_engine()
    assert engine.name == "loop"
    assert "drawn" in engine.reason
