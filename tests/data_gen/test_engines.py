from functools import cache

import numpy as np
import pytest
import torch

import zoo
from data_gen.distributions import Choice, Constant, LogUniform
from data_gen.engines import LoopEngine, StackedEngine
from data_gen.engines.members import Samples, noisy_targets
from data_gen.testing import (
    CNN,
    MLP,
    assert_same_bits,
    pick,
    small_digits,
    small_signals,
    tiny_recipe,
)
from zoo.errors import InvalidConfigError
from zoo.networks import CNNConfig, MLPConfig, SirenConfig, build, example_input
from zoo.problems import METRICS, SIGNAL_METRICS, evaluate

_NORMALISED = MLPConfig(in_features=64, hidden=(5, 3), out_features=10, batch_norm=True)
_FLATTENED = CNNConfig(
    in_channels=1,
    image_size=8,
    channels=(3, 2),
    kernel_size=3,
    padding=1,
    head="flatten",
    batch_norm=True,
    out_features=10,
)
_SIREN = SirenConfig(hidden=(5, 3), omega=7.0)
_FITTING = {
    "learning_rate": LogUniform(1e-3, 1e-2),
    "optimizer": Choice(("sgd", "adam")),
    "init": Constant("siren"),
    "batch_size": Choice((35, 8)),
    "schedule": Choice(("cosine", "constant")),
    "clip_norm": Choice((0.0, 0.1)),
}
_NETWORKS = pytest.mark.parametrize(
    "network", [MLP, _NORMALISED, CNN, _FLATTENED], ids=["mlp", "mlp-norm", "cnn", "cnn-norm"]
)


@cache
def _space(network):
    return zoo.trace(build(network), example_input(network))


@cache
def _problem(network):
    if isinstance(network, SirenConfig):
        return small_signals()
    return small_digits(images=isinstance(network, CNNConfig))


def _train(engine, recipe, members=None, **changes):
    members = np.arange(recipe.num_members) if members is None else members
    problem = _problem(recipe.network)
    drawn = recipe.draw(members) | problem.assign(members) | changes
    return engine.train(recipe, problem, _space(recipe.network), members, drawn)


# ---- a member alone -----------------------------------------------------------------------------
@_NETWORKS
def test_a_member_is_the_same_bit_for_bit_alone_in_any_slot_and_chunk(network):
    recipe = tiny_recipe(network)
    population = _train(StackedEngine(), recipe)
    assert np.isfinite(population.weights).all()
    order = np.random.default_rng(0).permutation(recipe.num_members)
    for size in (2, 5):
        assert_same_bits(_train(StackedEngine(chunk_size=size), recipe, order), order, population)
    for member in (0, 11):
        alone = _train(StackedEngine(), recipe, np.array([member]))
        assert_same_bits(alone, np.array([member]), population)


def test_a_member_that_fits_a_signal_is_the_same_alone():
    recipe = tiny_recipe(_SIREN, hyperparameters=_FITTING)
    population = _train(StackedEngine(), recipe)
    order = np.random.default_rng(0).permutation(12)
    assert_same_bits(_train(StackedEngine(chunk_size=2), recipe, order), order, population)
    assert_same_bits(_train(StackedEngine(), recipe, order[:1]), order[:1], population)


def test_threads_change_nothing():
    recipe, before = tiny_recipe(), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = _train(StackedEngine(), recipe)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        one = _train(StackedEngine(), recipe)
    finally:
        torch.set_num_threads(before)
    assert_same_bits(two, np.arange(recipe.num_members), one)


def test_members_differ():
    same = {"learning_rate": Constant(0.01), "dropout": Constant(0.3)}
    result = _train(StackedEngine(), tiny_recipe(hyperparameters=same, num_members=3))
    for checkpoint in range(3):
        assert len(np.unique(result.weights[:, checkpoint], axis=0)) == 3


# ---- against plain torch ------------------------------------------------------------------------
@_NETWORKS
def test_one_sgd_step_agrees_with_the_loop(network):
    mixed = tiny_recipe().hyperparameters | {
        "optimizer": Constant("sgd"),
        "data_fraction": Constant(0.1),
        "batch_size": Choice((8, 5)),
    }
    recipe = tiny_recipe(network, hyperparameters=mixed, epochs=1, checkpoints=(0, 1))
    assert Samples(seed=0, num_samples=83, data_fraction=0.1, batch_size=8).steps == 1
    stacked, loop = _train(StackedEngine(), recipe), _train(LoopEngine(), recipe)
    one_step = recipe.draw(np.arange(12))["batch_size"] == 8
    assert 2 < one_step.sum() < 12
    np.testing.assert_array_equal(stacked.weights[:, 0], loop.weights[:, 0])
    assert (stacked.weights[:, 1] != stacked.weights[:, 0]).any(axis=1).all()
    np.testing.assert_allclose(stacked.weights[one_step], loop.weights[one_step], atol=1e-6)


def test_two_epochs_agree_with_the_loop():
    recipe = tiny_recipe()
    stacked, loop = _train(StackedEngine(), recipe), _train(LoopEngine(), recipe)
    gaps = np.abs(stacked.weights - loop.weights).max(axis=(1, 2))
    # Adam and RMSprop divide by gradients that may be nothing but rounding; SGD does not.
    assert np.median(gaps) < 1e-6
    assert gaps[recipe.draw(np.arange(12))["optimizer"] == "sgd"].max() < 1e-6
    for name in METRICS:
        assert np.median(np.abs(stacked.metrics[name] - loop.metrics[name])) < 1e-6


def test_signals_agree_with_the_loop_and_with_the_definition():
    recipe = tiny_recipe(_SIREN, hyperparameters=_FITTING)
    problem = small_signals()
    stacked, loop = _train(StackedEngine(), recipe), _train(LoopEngine(), recipe)
    np.testing.assert_allclose(stacked.weights, loop.weights, atol=2e-6)
    assert tuple(stacked.metrics) == SIGNAL_METRICS
    for name in SIGNAL_METRICS:
        np.testing.assert_allclose(stacked.metrics[name], loop.metrics[name], rtol=1e-4)
    module, space = build(_SIREN), _space(_SIREN)
    module.load_state_dict(space.state_dict(torch.from_numpy(stacked.weights[7, 2])))
    assert problem.assign(np.arange(12))["signal"][7] == 2
    measured = evaluate(problem, module, signal=2)
    outputs = module(problem.train_inputs).detach()
    error = float((outputs - problem.train_targets[2]).square().mean())
    assert measured["train_loss"] == pytest.approx(error, rel=1e-5)
    assert measured["psnr"] == pytest.approx(-10 * np.log10(error), rel=1e-5)
    assert stacked.metrics["psnr"][7, 2] == pytest.approx(measured["psnr"], rel=1e-4)


def test_signals_refuse_what_is_about_classes():
    recipe = tiny_recipe(_SIREN, hyperparameters=_FITTING | {"label_noise": Constant(0.1)})
    for engine in (StackedEngine(), LoopEngine()):
        with pytest.raises(InvalidConfigError, match="'label_noise' is about classes"):
            _train(engine, recipe)
    plain = tiny_recipe(_SIREN, hyperparameters=_FITTING)
    with pytest.raises(InvalidConfigError, match=r"Problem\.assign"):
        LoopEngine().train(
            plain, small_signals(), _space(_SIREN), np.arange(12), plain.draw(range(12))
        )
    with pytest.raises(InvalidConfigError, match="number of a signal"):
        evaluate(small_signals(), build(_SIREN))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@_NETWORKS
def test_a_gpu_agrees_with_the_processor(network):
    settings = tiny_recipe().hyperparameters | {"optimizer": Constant("sgd")}
    for dropout in (Constant(0.0), Choice((0.0, 0.3))):
        recipe = tiny_recipe(network, hyperparameters=settings | {"dropout": dropout})
        gpu, cpu = _train(StackedEngine(device="cuda"), recipe), _train(StackedEngine(), recipe)
        np.testing.assert_allclose(gpu.weights, cpu.weights, atol=1e-4)
        again = _train(StackedEngine(device="cuda"), recipe)
        assert_same_bits(again, np.arange(12), gpu)


# ---- divergence ---------------------------------------------------------------------------------
@pytest.mark.parametrize("engine", [StackedEngine(), LoopEngine()], ids=["stacked", "loop"])
def test_a_diverged_member_is_recorded_and_harms_nobody(engine):
    recipe = tiny_recipe()
    drawn = recipe.draw(np.arange(12))
    sound = _train(engine, recipe)
    wild = {name: drawn[name].copy() for name in ("learning_rate", "optimizer", "activation")}
    wild["learning_rate"][4], wild["optimizer"][4], wild["activation"][4] = 1e30, "sgd", "relu"
    result = _train(engine, recipe, **wild)
    assert result.diverged.tolist() == [member == 4 for member in range(12)]
    assert result.diverged_epoch[4] == 1
    assert np.isfinite(result.weights[4, 0]).all()
    assert np.isnan(result.weights[4, 1:]).all()
    for name in METRICS:
        assert np.isfinite(result.metrics[name][4, 0])
        assert np.isnan(result.metrics[name][4, 1:]).all()
    others = np.delete(np.arange(12), 4)
    np.testing.assert_array_equal(result.weights[others], sound.weights[others])


@pytest.mark.parametrize("engine", [StackedEngine(chunk_size=5), LoopEngine()])
def test_progress_adds_up(engine):
    recipe, done = tiny_recipe(), []
    ids = np.arange(12)
    engine.train(recipe, small_digits(), _space(MLP), ids, recipe.draw(ids), progress=done.append)
    assert sum(done) == recipe.num_members * recipe.epochs


# ---- samples ------------------------------------------------------------------------------------
def test_an_epoch_is_a_permutation_of_the_subset_without_its_last_batch():
    samples = Samples(seed=5, num_samples=83, data_fraction=0.5, batch_size=10)
    assert (samples.num_used, samples.batch, samples.steps) == (42, 10, 4)
    first, second = samples.epoch(0), samples.epoch(1)
    assert first.shape == second.shape == (4, 10)
    assert len(set(first.ravel())) == 40
    assert set(first.ravel()) <= set(samples.subset)
    assert set(samples.subset) < set(range(83))
    assert (first != second).any()
    whole = Samples(seed=5, num_samples=83, data_fraction=0.5, batch_size=100)
    np.testing.assert_array_equal(whole.epoch(0), samples.subset[None])
    np.testing.assert_array_equal(whole.epoch(1), samples.subset[None])
    tiny = Samples(seed=5, num_samples=83, data_fraction=0.0, batch_size=10)
    assert (tiny.num_used, tiny.batch, tiny.steps) == (1, 1, 1)


def test_label_noise_replaces_that_part_by_other_classes():
    targets = np.arange(5000) % 10
    noisy = noisy_targets(targets, 10, 3, 0.2)
    assert np.mean(noisy != targets) == pytest.approx(0.2, abs=0.02)
    assert set(noisy) == set(range(10))
    np.testing.assert_array_equal(noisy_targets(targets, 10, 3, 0.0), targets)


def test_pick_and_draw_agree():
    recipe = tiny_recipe()
    some = np.array([7, 2])
    whole = pick(recipe.draw(np.arange(12)), some)
    assert all((recipe.draw(some)[name] == values).all() for name, values in whole.items())
