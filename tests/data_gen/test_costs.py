"""Costs: estimated from the operations of networks, and recorded block by block."""

from dataclasses import replace

import pytest

import zoo
from data_gen import costs
from data_gen.architectures import FieldGrid
from data_gen.commands import generate
from data_gen.distributions import Constant
from data_gen.run import Run
from data_gen.runner import carry_out, prepare
from data_gen.testing import MLP, tiny_recipe
from zoo.commands import info
from zoo.networks import CNNConfig, to_dict
from zoo.store.costs import COSTS, Cost, record_cost, total_cost
from zoo.store.disk.place import LocalPlace

RECIPE = tiny_recipe(hyperparameters={"learning_rate": Constant(1e-3)}, num_members=20)


def _operations(network):
    return costs.forward_operations(costs.json.dumps(to_dict(network)))


def test_operations_are_those_of_products_and_convolutions():
    assert _operations(MLP) == 2 * (64 * 5 + 5 * 3 + 3 * 10) + 2 * (5 + 3 + 10)
    cnn = CNNConfig(
        in_channels=2, image_size=9, out_features=3, channels=(5,), kernel_size=3, stride=2
    )
    assert _operations(cnn) == 2 * (4 * 4 * 5 * 2 * 9 + 5 * 3)


def test_hours_grow_with_the_work():
    hours = costs.cpu_hours(RECIPE)
    assert hours == pytest.approx(3 * _operations(MLP) * 1437 * 2 * 20 / costs.RATE / 3600)
    half = {"learning_rate": Constant(1e-3), "data_fraction": Constant(0.5)}
    assert costs.cpu_hours(replace(RECIPE, hyperparameters=half)) == pytest.approx(hours / 2)
    wide = replace(RECIPE, architectures=FieldGrid.product(hidden=[(5, 3), (50, 30)]))
    assert costs.num_parameters(wide) == (383 + 5090) // 2
    assert costs.cpu_hours(wide) > 3 * hours


@pytest.mark.parametrize(
    ("problem", "samples", "needs"),
    [
        ({"name": "digits"}, 1437, "-"),
        ({"name": "idx"}, 60_000, "--data (idx)"),
        ({"name": "convection", "num_points": 31}, 31, "-"),
        ({"name": "corrupted", "base": {"name": "cifar10"}}, 50_000, "--data (cifar10)"),
    ],
)
def test_what_a_problem_needs(problem, samples, needs):
    assert (costs.samples_of(problem), costs.needs(problem)) == (samples, needs)


def test_every_block_records_its_cost_and_it_is_no_part_of_the_version(tmp_path, capsys):
    run = Run(recipe=RECIPE, out=tmp_path / "zoo", workers=1)
    carry_out(run, *prepare(run))
    store = zoo.open(run.out)
    total = total_cost(store.place, "tiny")
    lines = (run.out / COSTS / "tiny.jsonl").read_text().splitlines()
    assert len(lines) == store["tiny"].spec.num_blocks == 2
    assert 0 < total.seconds < 600
    version = store.version
    record_cost(run.out, "tiny", 0, Cost(seconds=3600.0, cpu_seconds=7200.0))
    with (run.out / COSTS / "tiny.jsonl").open("a") as file:
        file.write('{"block": 1, "sec')
    more = total_cost(store.place, "tiny")
    assert more.cpu_seconds == pytest.approx(total.cpu_seconds + 7200)
    assert zoo.open(run.out).version == version
    assert zoo.create(run.out, exist_ok=True).populations == ("tiny",)
    info(str(run.out))
    assert "training took           2" in capsys.readouterr().out
    (run.out / COSTS / "tiny.jsonl").unlink()
    info(str(run.out))
    assert "training took" not in capsys.readouterr().out


def test_costs_of_other_places_are_unknown(tmp_path):
    assert total_cost(LocalPlace(tmp_path), "tiny") is None


def test_a_command_derives_from_a_stored_population(tmp_path):
    out = tmp_path / "zoo"
    common = {"out": out, "members": 3, "epochs": 1, "workers": 1}
    generate("digits-mlp", **common)
    generate("digits-mlp", name="pruned", start=str(out), prune=0.5, **common)
    store = zoo.open(out)
    weights = store["pruned"].weights()
    assert ((weights == 0).mean(axis=1) > 0.4).all()
    assert store["pruned"].table["parent"].to_list() == [0, 1, 2]
    assert store["pruned"].recipe["start"]["zoo"] == str(out.resolve())
    with pytest.raises(zoo.errors.InvalidConfigError, match="Expected --start ZOO"):
        generate("digits-mlp", name="other", prune=0.5, **common)
    with pytest.raises(zoo.errors.InvalidConfigError, match="--start_population, one of: digits"):
        generate("digits-mlp", name="other", start=str(out), **common)
