import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import zoo
from data_gen import plan as planning
from data_gen import resources
from data_gen.commands import generate, recipes
from data_gen.engines import LoopEngine, StackedEngine
from data_gen.recipes import recipe as find_recipe
from data_gen.run import train_task
from data_gen.runner import Run, prepare
from data_gen.testing import generated, tiny_recipe
from zoo.errors import InvalidConfigError, MissingDataError, StoreError, UnknownNameError
from zoo.problems import digit_signals, digits, evaluate

_RECIPE = find_recipe("digits-mlp", num_members=40, epochs=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run in one process: 40 members in blocks of 16."""
    out = tmp_path_factory.mktemp("whole") / "zoo"
    return generated(Run(recipe=_RECIPE, out=out, workers=1))


def test_population_holds_what_the_recipe_says(whole):
    population = whole["digits-mlp"]
    assert population.is_complete
    assert population.num_members == 40
    assert population.epochs.tolist() == list(_RECIPE.checkpoints)
    assert population.table["lineage"].to_list() == list(range(40))
    drawn = _RECIPE.draw(np.arange(40))
    for name, values in drawn.items():
        assert population.table[name].to_list() == values.tolist()
    assert population.recipe["sha256"] == _RECIPE.sha256
    assert population.environment["engine"] == "stacked"
    assert population.environment["engine_reason"] == "--engine stacked"
    assert int(population.environment["processors"]) >= 1
    parts = population.split()
    assert sorted(np.concatenate(list(parts.values()))) == list(range(40))
    assert whole.path.joinpath("table.parquet").stat().st_size > 0


def test_every_stored_member_reproduces_its_metrics(whole):
    population, problem = whole["digits-mlp"], digits()
    for member in population.member_ids:
        for checkpoint in (0, -1):
            measured = evaluate(problem, population.module(member, checkpoint=checkpoint))
            for name, value in measured.items():
                stored = population.metric(name)[member, checkpoint]
                if name.endswith("accuracy"):
                    assert np.float32(value) == stored
                else:
                    assert value == pytest.approx(stored, rel=1e-5, abs=1e-6)


def test_running_again_trains_nothing(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.path.rglob("c/**/*")}
    writer, plan, _ = prepare(Run(recipe=_RECIPE, out=whole.path, workers=1))
    assert (plan.tasks, plan.num_done, plan.member_epochs) == ((), 40, 0)
    assert plan.bytes_needed == writer.bytes_needed() == 0
    assert {path: path.stat().st_mtime_ns for path in whole.path.rglob("c/**/*")} == before


def test_a_partial_run_is_resumed_to_the_same_version(whole, tmp_path):
    run = Run(recipe=_RECIPE, out=tmp_path / "zoo", workers=1)
    writer, _, problem = prepare(run)
    task = planning.Task((1,), 16)
    train_task(_RECIPE, StackedEngine(), problem, writer, task, lambda _: None)
    _, plan, _ = prepare(run)
    assert sorted(block for task in plan.tasks for block in task.blocks) == [0, 2]
    assert (plan.num_done, plan.member_epochs) == (16, 48)
    assert generated(run).version == whole.version


def test_processes_give_the_same_version(whole, tmp_path):
    run = Run(recipe=_RECIPE, out=tmp_path / "zoo", workers=2)
    assert len(prepare(run)[1].tasks) == 2
    assert generated(run).version == whole.version


_SCRIPT = """
from pathlib import Path
from data_gen.commands import generate
if __name__ == "__main__":
    generate("digits-mlp", out=Path("{out}"), members=40, epochs=2, workers={workers})
"""


@pytest.mark.parametrize("workers", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_killed_run_is_resumed_to_the_same_version(whole, tmp_path, workers):
    out = tmp_path / "zoo"
    script = tmp_path / "run.py"
    script.write_text(_SCRIPT.format(out=out, workers=workers))
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 240
    while not list(out.glob("populations/*/weights/c/*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert generated(Run(recipe=_RECIPE, out=out, workers=1)).version == whole.version


def test_divergence_is_stored(tmp_path):
    sound = tiny_recipe(num_members=20)
    run = Run(recipe=sound, out=tmp_path / "zoo", workers=1)
    writer, plan, problem = prepare(run)

    class Wild(StackedEngine):
        def train(self, recipe, problem, space, members, drawn, *, progress=None):
            wild = drawn | {"learning_rate": np.where(members == 3, 1e30, drawn["learning_rate"])}
            return super().train(recipe, problem, space, members, wild, progress=progress)

    for task in plan.tasks:
        train_task(sound, Wild(), problem, writer, task, lambda _: None)
    writer.finish()
    table = zoo.open(run.out)["tiny"].table
    assert table["diverged"].to_list() == [member == 3 for member in range(20)]
    assert table["diverged_epoch"].to_list() == [1 if member == 3 else -1 for member in range(20)]


def test_one_network_per_image_is_stored_with_what_it_shows(tmp_path):
    recipe = find_recipe("siren-digits", num_members=18, epochs=2)
    store = generated(Run(recipe=recipe, out=tmp_path / "zoo", workers=1))
    population, problem = store["siren-digits"], digit_signals()
    table = population.table
    assert table["signal"].to_list() == table["lineage"].to_list() == list(range(18))
    assert table["label"].to_list() == problem.labels[:18].tolist()
    assert population.metrics == ("train_loss", "psnr")
    for member in (0, 17):
        measured = evaluate(problem, population.module(member), signal=member)
        assert measured["psnr"] == pytest.approx(population.metric("psnr")[member, -1], abs=1e-3)


def test_members_of_one_signal_are_relatives(tmp_path):
    recipe = find_recipe("siren-digits", num_members=5, epochs=1)
    run = Run(recipe=recipe, out=tmp_path / "zoo", workers=1)
    writer, plan, problem = prepare(run)
    few = replace(problem, train_targets=problem.train_targets[:2], labels=problem.labels[:2])
    train_task(recipe, StackedEngine(), few, writer, plan.tasks[0], lambda _: None)
    writer.finish()
    assert zoo.open(run.out)["siren-digits"].table["lineage"].to_list() == [0, 1, 0, 1, 0]


# ---- refusals -----------------------------------------------------------------------------------
def test_another_recipe_under_the_name_is_refused(whole):
    with pytest.raises(StoreError, match=r"num_members was 40, is 41.*--name"):
        prepare(Run(recipe=replace(_RECIPE, num_members=41), out=whole.path, workers=1))
    with pytest.raises(StoreError, match="seed was 0, is 1"):
        prepare(Run(recipe=replace(_RECIPE, seed=1), out=whole.path, workers=1))
    with pytest.raises(StoreError, match="Resume it with --engine stacked"):
        prepare(Run(recipe=_RECIPE, out=whole.path, engine="loop", workers=1))


def test_a_second_population_may_stand_beside(tmp_path):
    out = tmp_path / "zoo"
    generated(Run(recipe=tiny_recipe(num_members=2), out=out, workers=1))
    store = generated(Run(recipe=tiny_recipe(num_members=3, name="b"), out=out, workers=1))
    assert store.populations == ("b", "tiny")


def test_a_full_disk_is_noticed_before_the_first_block(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=2**10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StoreError, match=r"MiB of free disk space .* got 0\.0 MiB"):
        prepare(Run(recipe=tiny_recipe(), out=tmp_path / "zoo", workers=1))


def test_a_lack_of_memory_is_noticed_before_the_first_block(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "free_memory", lambda: 2**20)
    with pytest.raises(resources.MemoryNeededError, match=r"got 1 MiB\. Use fewer --workers"):
        prepare(Run(recipe=tiny_recipe(), out=tmp_path / "zoo", workers=1))


def test_unknown_names_and_missing_data(tmp_path):
    with pytest.raises(UnknownNameError, match="Known: digits-mlp, small-cnn"):
        generate("small-cnm", out=tmp_path / "zoo")
    with pytest.raises(UnknownNameError, match="Known: loop, stacked"):
        generate("digits-mlp", out=tmp_path / "zoo", engine="stack")
    with pytest.raises(InvalidConfigError, match="device"):
        generate("digits-mlp", out=tmp_path / "zoo", device="tpu")
    with pytest.raises(InvalidConfigError, match="cpu"):
        LoopEngine(device="cuda")
    with pytest.raises(MissingDataError, match="--data DIR"):
        generate("small-cnn", out=tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_commands_print_what_they_did(whole, capsys):
    generate("digits-mlp", out=whole.path, members=40, epochs=2, workers=1)
    printed = capsys.readouterr().out
    assert "40 are stored already" in printed
    assert f"Dataset version {whole.version}" in printed
    recipes()
    listing = capsys.readouterr().out
    assert re.search(r"^digits-mlp +512 +20 ", listing, re.MULTILINE)
    assert re.search(r"^small-cnn +\d+ / \d[\d,]* ", listing, re.MULTILINE)
    assert "CPU hours are rough" in listing
    assert "4,970" in listing


@pytest.mark.slow
def test_small_cnn_on_real_images(tmp_path, shared_data):
    recipe = find_recipe("small-cnn", num_members=2, epochs=1)
    data = shared_data("fashion-mnist")
    population = generated(Run(recipe=recipe, out=tmp_path / "zoo", data=data, workers=1))[
        "small-cnn"
    ]
    accuracy = population.table["test_accuracy"]
    assert population.space.num_parameters == 4970
    assert (accuracy > 0.05).all()
