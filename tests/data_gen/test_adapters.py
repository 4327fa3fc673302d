"""Populations of adapters: engines, and runs that begin from one stored network."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import zoo
from data_gen.adapters import BASES, with_base
from data_gen.commands import generate
from data_gen.distributions import Choice, Constant, Grid, LogUniform
from data_gen.engines import LoopEngine, StackedEngine, make
from data_gen.engines.native import obstacle_of
from data_gen.plan import space_of
from data_gen.run import Run
from data_gen.runner import carry_out, prepare
from data_gen.starts import Prune, Start
from data_gen.testing import MLP, assert_same_bits, pick, small_digits, tiny_recipe
from zoo.errors import InvalidConfigError, MissingDataError, StoreError, UnknownNameError
from zoo.networks import LoRAConfig, ViTConfig, build
from zoo.networks.frozen import save_base
from zoo.networks.lora import merge
from zoo.store.upkeep.publish import publish
from zoo.store.upkeep.repack import repack

VARIED = {
    "learning_rate": LogUniform(1e-2, 1e-1),
    "optimizer": Choice(("sgd", "adam")),
    "batch_size": Choice((7, 16)),
    "weight_decay": LogUniform(1e-5, 1e-2),
}
SOURCE = tiny_recipe(
    name="source",
    hyperparameters={
        "learning_rate": LogUniform(1e-3, 1e-2),
        "activation": Choice(("relu", "tanh")),
        "dropout": Constant(0.2),
    },
    num_members=5,
    epochs=1,
    checkpoints=(0, 1),
)


ALIGNED = replace(MLP, hidden=(16, 16))
VIT = ViTConfig(
    in_channels=1, image_size=8, patch_size=4, width=8, depth=1, heads=2, hidden=16, out_features=10
)


def _recipe(base, folder):
    """Twelve members beside one base."""
    torch.manual_seed(0)
    data, sha256 = save_base(base.build().state_dict())
    path = folder / "base.npz"
    path.write_bytes(data)
    network = LoRAConfig(base=base, weights=str(path), sha256=sha256, rank=2)
    return tiny_recipe(network, hyperparameters=VARIED)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return _recipe(MLP, tmp_path_factory.mktemp("base"))


def _train(engine, recipe, members=None):
    ids = np.arange(recipe.num_members) if members is None else members
    drawn = pick(recipe.draw(np.arange(recipe.num_members)), ids)
    problem = small_digits(images=recipe.network.base.name != "mlp")
    return engine.train(recipe, problem, space_of(recipe), ids, drawn)


def test_members_begin_as_the_base(recipe):
    space, result = space_of(recipe), _train(LoopEngine(), recipe)
    tensors = space.unflatten(torch.from_numpy(result.weights[:, 0]))
    fan_in = {"layers.1": 64, "layers.4": 5, "layers.7": 3}
    for name, fan in fan_in.items():
        assert not tensors[f"{name}.lora_B.weight"].any()
        down = tensors[f"{name}.lora_A.weight"]
        assert 0.5 / fan**0.5 < down.abs().max() <= 1 / fan**0.5
        assert len(down.unique(dim=0)) == 12
    assert len(np.unique(result.metrics["test_loss"][:, 0])) == 1, "all are the base"
    assert len(np.unique(result.metrics["test_loss"][:, 2])) == 12


@pytest.mark.parametrize("base", [MLP, ALIGNED, VIT], ids=["mlp", "aligned", "vit"])
def test_a_member_is_the_same_bit_for_bit_alone_and_in_company(base, tmp_path):
    engine, recipe = StackedEngine(), _recipe(base, tmp_path)
    whole = _train(engine, recipe)
    order = np.random.default_rng(0).permutation(12)
    assert_same_bits(_train(engine, recipe, order), order, whole)
    for member in (0, 11):
        assert_same_bits(_train(engine, recipe, np.array([member])), np.array([member]), whole)


def test_stacked_agrees_with_the_loop(recipe):
    one_step = replace(
        recipe,
        hyperparameters=VARIED | {"optimizer": Constant("sgd"), "batch_size": Constant(64)},
        epochs=1,
        checkpoints=(0, 1),
    )
    own, loop = _train(StackedEngine(), one_step), _train(LoopEngine(), one_step)
    np.testing.assert_array_equal(own.weights[:, 0], loop.weights[:, 0])
    assert (own.weights[:, 1] != own.weights[:, 0]).any(axis=1).all()
    np.testing.assert_allclose(own.weights, loop.weights, rtol=0, atol=1e-6)
    longer = replace(recipe, hyperparameters=VARIED | {"optimizer": Constant("sgd")})
    own, loop = _train(StackedEngine(), longer), _train(LoopEngine(), longer)
    np.testing.assert_allclose(own.weights, loop.weights, rtol=0, atol=5e-6)


def test_native_kernels_do_not_know_them(recipe):
    assert obstacle_of(recipe, device="cpu")
    assert make("auto", recipe=recipe).name == "stacked"


# ---- runs ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def source(tmp_path_factory):
    out = tmp_path_factory.mktemp("source") / "zoo"
    run = Run(recipe=SOURCE, out=out, workers=1)
    carry_out(run, *prepare(run))
    return zoo.open(out)["source"]


def _run(source, out, **changes):
    recipe = tiny_recipe(
        LoRAConfig(base=MLP, rank=2),
        problem={"name": "corrupted", "base": {"name": "digits"}},
        hyperparameters={"learning_rate": Constant(1e-2), "domain": Grid((1, 2, 3))},
        start=Start(zoo=source.location, population="source", where="activation == 'tanh'"),
        num_members=18,
        epochs=1,
        checkpoints=(0, 1),
    )
    return Run(recipe=replace(recipe, **changes), out=out, workers=1)


@pytest.fixture(scope="module")
def population(source, tmp_path_factory):
    run = with_base(_run(source, tmp_path_factory.mktemp("adapted") / "zoo"))
    carry_out(run, *prepare(run))
    return zoo.open(run.out)["tiny"]


def test_all_members_adapt_the_first_network_that_was_chosen(source, population):
    parent = int(source.where("activation == 'tanh'").member_ids[0])
    base = source.module(parent)
    inputs = small_digits().test_inputs
    for member in (0, 17):
        torch.testing.assert_close(population.module(member, checkpoint=0)(inputs), base(inputs))
    assert population.network["base"]["activation"] == "tanh"
    assert population.network["base"]["dropout"] == 0
    assert (
        f"member {parent} of source, version {source.version}" in population.recipe["description"]
    )
    assert population.table["domain"].to_list() == [1, 2, 3] * 6
    assert population.table["lineage"].to_list() == list(range(18))
    assert all(len(ids) for ids in population.split().values())


def test_members_reproduce_their_accuracy_and_merge_into_the_base(population):
    accuracy = population.metric("test_accuracy")[:, -1]
    problem = zoo.problems.load(population.problem)
    config = zoo.networks.from_dict(population.network_of(7))
    plain = build(config.base).eval()
    plain.load_state_dict(merge(config, torch.from_numpy(population.weights([7])[0])))
    measured = zoo.problems.evaluate(problem, population.module(7))
    assert measured["test_accuracy"] == pytest.approx(accuracy[7], abs=0)
    torch.testing.assert_close(
        plain(problem.test_inputs), population.module(7)(problem.test_inputs)
    )


def test_a_zoo_takes_its_base_along_and_says_when_it_is_lost(population, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(population.location, moved)
    inputs, there = small_digits().test_inputs, zoo.open(moved)["tiny"]
    assert there.network["weights"].startswith(f"{BASES}/")
    assert there.network_of(3)["weights"].startswith(str(moved))
    torch.testing.assert_close(there.module(3)(inputs), population.module(3)(inputs))
    shutil.rmtree(moved / BASES)
    with pytest.raises(MissingDataError, match=there.network["sha256"]):
        there.module(3)


def test_copies_of_a_zoo_take_its_base_along(population, tmp_path):
    inputs = small_digits().test_inputs
    repack(population.location, tmp_path / "archive", tier="archive")
    publish(population.location, str(tmp_path / "published"))
    for copy in ("archive", "published"):
        there = zoo.open(tmp_path / copy)[population.name]
        assert there.network_of(3)["weights"].startswith(str(tmp_path / copy))
        torch.testing.assert_close(there.module(3)(inputs), population.module(3)(inputs))


def test_runs_are_resumed_with_the_same_base_and_refuse_another(source, population, tmp_path):
    out = tmp_path / "zoo"
    shutil.copytree(population.location, out)
    _, plan, _ = prepare(with_base(_run(source, out)))
    assert not plan.tasks
    start = Start(zoo=source.location, population="source", where="activation == 'relu'")
    with pytest.raises(StoreError, match="network was"):
        prepare(with_base(_run(source, out, start=start)))
    base = next((out / BASES).glob(f"{population.network['sha256'][:16]}.npz"))
    base.write_bytes(b"altered")
    with pytest.raises(StoreError, match="Remove it and run again"):
        with_base(_run(source, out))


def test_adapters_without_a_base_are_not_trained(tmp_path):
    with pytest.raises(MissingDataError, match="--start ZOO"):
        generate("digits-lora", out=tmp_path / "zoo", members=2, epochs=1, workers=1)
    run = _run_without_start(tmp_path)
    with pytest.raises(MissingDataError, match="adapters of one stored network"):
        prepare(run)
    assert not (tmp_path / "zoo").exists()


def _run_without_start(tmp_path):
    recipe = tiny_recipe(LoRAConfig(base=MLP), hyperparameters={})
    return Run(recipe=recipe, out=tmp_path / "zoo", workers=1)


def test_a_base_that_does_not_go_leaves_no_trace(source, tmp_path):
    pruned = Start(zoo=source.location, population="source", transform=Prune(fraction=0.5))
    layers = LoRAConfig(base=replace(MLP, hidden=(5, 3, 2)), layers=("layers.10",))
    for changes, error in (
        ({"start": pruned}, InvalidConfigError),
        (
            {"network": layers},
            UnknownNameError,
        ),
    ):
        with pytest.raises(error):
            with_base(_run(source, tmp_path / "zoo", **changes))
    assert not (tmp_path / "zoo").exists()


def test_the_command_takes_any_network_as_base(source, tmp_path):
    out = tmp_path / "zoo"
    generate(
        "digits-lora",
        out=out,
        start=source.location,
        start_population="source",
        start_where="member == 2",
        members=3,
        epochs=1,
        workers=1,
    )
    made = zoo.open(out)["digits-lora"]
    assert made.network["base"]["hidden"] == [5, 3]
    assert made.table["domain"].to_list() == [1, 2, 3]
    assert np.isfinite(made.weights()).all()
