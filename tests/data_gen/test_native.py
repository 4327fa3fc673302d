"""The native engine: the contract of all engines, threads, and what ``auto`` takes."""

import logging
from functools import cache

import numpy as np
import pytest
import torch

from data_gen.distributions import Choice, Constant, LogUniform
from data_gen.engines import AUTO, LoopEngine, NativeEngine, StackedEngine, make
from data_gen.engines.native import NoKernelError, engine
from data_gen.plan import space_of
from data_gen.testing import CNN, MLP, EngineContract, assert_same_bits, small_digits, tiny_recipe
from zoo.errors import InvalidConfigError
from zoo.networks import MLPConfig
from zoo.problems import digits

_NORMALISED = MLPConfig(in_features=64, hidden=(5,), out_features=10, batch_norm=True)


class TestNative(EngineContract):
    def engines(self):
        return NativeEngine(), NativeEngine(threads=2), NativeEngine(threads=5)


@cache
def _space(network):
    return space_of(tiny_recipe(network))


def _train(engine, recipe, problem, **changes):
    ids = np.arange(recipe.num_members)
    drawn = recipe.draw(ids) | changes
    return engine.train(recipe, problem, _space(recipe.network), ids, drawn)


# ---- what results are made of -------------------------------------------------------------------
def test_metrics_are_those_of_the_plain_module():
    recipe = tiny_recipe()
    own, loop = (_train(each, recipe, small_digits()) for each in (NativeEngine(), LoopEngine()))
    for name in ("train_accuracy", "test_accuracy"):
        np.testing.assert_array_equal(own.metrics[name][:, 0], loop.metrics[name][:, 0])
    for name in ("train_loss", "test_loss"):
        np.testing.assert_allclose(own.metrics[name][:, 0], loop.metrics[name][:, 0], rtol=1e-6)


def test_calls_of_many_epochs_change_nothing():
    recipe = tiny_recipe(epochs=3, checkpoints=(3,), num_members=4)
    whole = _train(NativeEngine(), recipe, small_digits())
    parts = _train(
        NativeEngine(),
        tiny_recipe(epochs=3, checkpoints=(0, 1, 2, 3), num_members=4),
        small_digits(),
    )
    np.testing.assert_array_equal(whole.weights[:, 0], parts.weights[:, 3])


def test_denormal_numbers_are_flushed_in_the_engines_threads_alone():
    _train(NativeEngine(), tiny_recipe(num_members=2), small_digits())
    assert float(torch.tensor(1e-30) * torch.tensor(1e-10)) > 0


def test_a_wrong_target_raises_and_ends_all_threads():
    problem, recipe = small_digits(), tiny_recipe(hyperparameters={})
    problem.train_targets[7] = 10
    with pytest.raises(IndexError, match="no class"):
        _train(NativeEngine(threads=2), recipe, problem)


def test_final_accuracies_have_the_distribution_of_the_stacked_engine():
    """Kolmogorov and Smirnov's two-sample test, on members that differ in seed and settings."""
    recipe = tiny_recipe(
        MLPConfig(in_features=64, hidden=(8,), out_features=10),
        num_members=256,
        epochs=3,
        checkpoints=(3,),
        hyperparameters={
            "learning_rate": LogUniform(1e-3, 3e-2),
            "optimizer": Choice(("sgd", "adam", "rmsprop")),
            "activation": Choice(("relu", "tanh", "gelu")),
            "batch_size": Constant(32),
        },
    )
    whole = digits()
    ids = np.arange(256)
    space = space_of(recipe)
    samples = []
    for own, members in ((NativeEngine(), ids), (StackedEngine(), ids + 256)):
        result = own.train(recipe, whole, space, members, recipe.draw(members))
        samples.append(np.sort(result.metrics["test_accuracy"][:, 0]))
    places = np.concatenate(samples)
    steps = [np.searchsorted(own, places, side="right") / 256 for own in samples]
    distance = np.abs(steps[0] - steps[1]).max()
    assert np.std(samples[0]) > 0.1
    assert distance < 1.63 * np.sqrt(2 / 256)  # the 1 % level


# ---- what it refuses ----------------------------------------------------------------------------
def test_what_has_no_kernel_says_so():
    with pytest.raises(NoKernelError, match="BatchNorm"):
        _train(NativeEngine(), tiny_recipe(_NORMALISED), small_digits())
    with pytest.raises(InvalidConfigError, match="use engine 'stacked'"):
        NativeEngine(device="cuda")
    with pytest.raises(InvalidConfigError, match="thread"):
        NativeEngine(threads=0)


def test_without_numba_the_way_out_is_named(monkeypatch):
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with pytest.raises(InvalidConfigError, match=r"pip install .weight-zoo\[native\]"):
        NativeEngine()


# ---- auto ---------------------------------------------------------------------------------------
def test_auto_takes_native_where_it_can_and_says_why(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    native = make(AUTO, recipe=tiny_recipe(CNN))
    assert native.name == "native"
    assert "kernels for all" in native.reason
    stacked = make(AUTO, recipe=tiny_recipe(_NORMALISED))
    assert stacked.name == "stacked"
    assert "BatchNorm" in stacked.reason
    assert "'native' trains tiny" in caplog.text
    assert "'stacked' trains tiny" in caplog.text
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    assert "numba is not installed" in make(AUTO, recipe=tiny_recipe()).reason
    with pytest.raises(InvalidConfigError, match="pass the recipe"):
        make(AUTO)


def test_auto_looks_at_every_network_of_a_recipe(monkeypatch):
    from data_gen.engines.native import compiling

    seen = []
    monkeypatch.setattr(compiling, "compile_network", lambda config, space: seen.append(config))
    compiling.check_recipe(tiny_recipe(MLP))
    assert len(set(seen)) == 6
    assert all(name in "".join(seen) for name in ("relu", "silu", "sigmoid", "0.5"))


def test_kernels_are_kept_on_disk_by_what_they_are_made_of(tmp_path, monkeypatch):
    from data_gen.engines.native import jit

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kept"))
    folder = jit.folder.__wrapped__()
    assert folder.parent == tmp_path / "kept"
    assert folder.is_dir()
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(blocked))
    assert jit.folder.__wrapped__().is_dir()


def test_members_leave_alone_what_they_share():
    problem, recipe = small_digits(), tiny_recipe()
    before = problem.train_inputs.clone(), problem.train_targets.clone()
    first, second = (_train(NativeEngine(), recipe, problem) for _ in range(2))
    assert_same_bits(first, np.arange(12), second)
    assert torch.equal(problem.train_inputs, before[0])
    assert torch.equal(problem.train_targets, before[1])
