"""Tiny problems and recipes for tests, and what it means that two results are the same."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import zoo
from data_gen.distributions import Choice, Constant, LogUniform, Uniform
from data_gen.engines import BlockResult, Engine, LoopEngine
from data_gen.plan import space_of
from data_gen.recipe import Recipe
from data_gen.runner import Run, carry_out, prepare
from zoo.networks import CNNConfig, LeNetConfig, MLPConfig, NetworkConfig, SirenConfig
from zoo.problems import Problem, digits, image_signals
from zoo.space import WeightSpace
from zoo.store import Zoo

MIXED: dict[str, Any] = {
    "learning_rate": LogUniform(1e-3, 1e-1),
    "optimizer": Choice(("sgd", "nesterov", "adam", "adamw", "rmsprop")),
    "momentum": Choice((0.0, 0.9)),
    "schedule": Choice(("constant", "cosine", "one_cycle", "step")),
    "warmup": Choice((0.0, 0.3)),
    "clip_norm": Choice((0.0, 0.5)),
    "temperature": Choice((0.5, 1.0)),
    "weight_decay": LogUniform(1e-5, 1e-2),
    "activation": Choice(("relu", "silu", "sigmoid")),
    "dropout": Choice((0.0, 0.3)),
    "init": Choice(("default", "kaiming_normal", "orthogonal")),
    "batch_size": Choice((7, 10)),
    "data_fraction": Uniform(0.2, 1.0),
    "label_noise": Choice((0.0, 0.2)),
}
MLP = MLPConfig(in_features=64, hidden=(5, 3), out_features=10)
CNN = CNNConfig(
    in_channels=1, image_size=8, channels=(3, 5), kernel_size=2, stride=1, out_features=10
)


def small_digits(*, images: bool = False, num_train: int = 83, num_test: int = 41) -> Problem:
    """Take a few of the digits, flat or as images."""
    whole = digits()
    shape = (-1, 1, 8, 8) if images else (-1, 64)
    return Problem(
        name="digits",
        config={"name": "digits"},
        train_inputs=whole.train_inputs[:num_train].view(shape),
        train_targets=whole.train_targets[:num_train],
        test_inputs=whole.test_inputs[:num_test].view(shape),
        test_targets=whole.test_targets[:num_test],
        num_classes=10,
    )


def small_signals(num_signals: int = 5) -> Problem:
    """Take a corner of a few digits as signals."""
    whole = digits()
    images = whole.train_inputs[:num_signals].view(-1, 8, 8)[:, :7, :5]
    return image_signals(
        images, whole.train_targets[:num_signals], name="corners", config={}, peak=1.0
    )


def small_values() -> Problem:
    """Take two pixels of a few digits as values that the others predict."""
    whole = small_digits()
    picked = [10, 20]
    return Problem(
        name="pixels",
        config={},
        train_inputs=whole.train_inputs,
        train_targets=whole.train_inputs[:, picked].contiguous(),
        test_inputs=whole.test_inputs,
        test_targets=whole.test_inputs[:, picked].contiguous(),
        num_classes=0,
    )


def tiny_recipe(network: Any = MLP, **changes: Any) -> Recipe:
    """Make a recipe of 12 members that differ in everything, with ``changes`` to its fields."""
    settings: dict[str, Any] = {
        "name": "tiny",
        "problem": {"name": "digits"},
        "network": network,
        "hyperparameters": MIXED,
        "num_members": 12,
        "epochs": 2,
        "checkpoints": (0, 1, 2),
    }
    return Recipe(**(settings | changes))


def generated(run: Run) -> Zoo:
    """Carry a run out, and assert that its progress adds up; returns the zoo."""
    writer, plan, problem = prepare(run)
    done: list[float] = []
    carry_out(run, writer, plan, problem, progress=done.append)
    assert sum(done) == plan.member_epochs
    return zoo.open(run.out)


def pick(drawn: Mapping[str, np.ndarray], members: np.ndarray) -> dict[str, np.ndarray]:
    """Take some members' hyper-parameters."""
    return {name: values[members] for name, values in drawn.items()}


def assert_same_bits(part: BlockResult, members: np.ndarray, whole: BlockResult) -> None:
    """Assert that row ``i`` of ``part`` is row ``members[i]`` of ``whole``, bit for bit."""
    np.testing.assert_array_equal(
        part.weights.view(np.uint32), whole.weights[members].view(np.uint32)
    )
    for name, values in part.metrics.items():
        np.testing.assert_array_equal(values, whole.metrics[name][members], err_msg=name)
    np.testing.assert_array_equal(part.diverged_epoch, whole.diverged_epoch[members])


CONTRACT_NETWORKS: dict[str, NetworkConfig] = {
    "mlp": MLP,
    "cnn": CNN,
    "lenet": LeNetConfig(
        in_channels=1,
        image_size=8,
        channels=(3, 2),
        kernel_sizes=(3, 2),
        paddings=(1, 0),
        pools=(2, 1),
        hidden=(5,),
        out_features=10,
    ),
    "siren": SirenConfig(hidden=(5, 3), omega=7.0),
}
FITTING: dict[str, Any] = {
    "learning_rate": LogUniform(1e-3, 1e-2),
    "optimizer": Choice(("sgd", "adam")),
    "init": Constant("siren"),
    "batch_size": Choice((35, 8)),
    "schedule": Choice(("cosine", "constant")),
    "clip_norm": Choice((0.0, 0.1)),
}


@cache
def _space(network: Any) -> WeightSpace:
    return space_of(tiny_recipe(network, hyperparameters={}))


class EngineContract(ABC):
    """What every engine promises; a test class says which engine and inherits the tests."""

    @abstractmethod
    def engines(self) -> tuple[Engine, ...]:
        """Make the engine in forms that must not show in results: threads, stacks; usual first."""

    @pytest.fixture(params=list(CONTRACT_NETWORKS))
    def recipe(self, request: pytest.FixtureRequest) -> Recipe:
        """Twelve members that differ in everything, of one network after the other."""
        network = CONTRACT_NETWORKS[request.param]
        hyperparameters = FITTING if isinstance(network, SirenConfig) else MIXED
        return tiny_recipe(network, hyperparameters=hyperparameters)

    def train(
        self,
        engine: Engine,
        recipe: Recipe,
        members: np.ndarray | None = None,
        *,
        progress: Callable[[float], None] | None = None,
        **changes: np.ndarray,
    ) -> BlockResult:
        """Train members of a recipe on the problem that suits its network."""
        ids = np.arange(recipe.num_members) if members is None else members
        problem = small_signals()
        if not isinstance(recipe.network, SirenConfig):
            problem = small_digits(images=not isinstance(recipe.network, MLPConfig))
        drawn = recipe.draw(ids) | problem.assign(ids) | changes
        network: Any = recipe.network  # frozen, thus hashable
        space = _space(network)
        return engine.train(recipe, problem, space, ids, drawn, progress=progress)

    def test_a_member_is_the_same_bit_for_bit_alone_and_in_any_company(
        self, recipe: Recipe
    ) -> None:
        """Order, other forms of the engine and other members never show."""
        usual, *others = self.engines()
        population = self.train(usual, recipe)
        assert np.isfinite(population.weights).all()
        order = np.random.default_rng(0).permutation(recipe.num_members)
        for engine in others:
            assert_same_bits(self.train(engine, recipe, order), order, population)
        for member in (0, 11):
            alone = self.train(usual, recipe, np.array([member]))
            assert_same_bits(alone, np.array([member]), population)

    def test_one_sgd_step_agrees_with_the_loop(self, recipe: Recipe) -> None:
        """Engines draw the same numbers and differ in rounding alone."""
        one_step = {"optimizer": Constant("sgd"), "batch_size": Constant(64)}
        changed = replace(
            recipe,
            hyperparameters={**recipe.hyperparameters, **one_step},
            epochs=1,
            checkpoints=(0, 1),
        )
        own, loop = self.train(self.engines()[0], changed), self.train(LoopEngine(), changed)
        np.testing.assert_array_equal(own.weights[:, 0], loop.weights[:, 0])
        assert (own.weights[:, 1] != own.weights[:, 0]).any(axis=1).all()
        np.testing.assert_allclose(own.weights, loop.weights, rtol=0, atol=1e-6)

    def test_two_epochs_agree_with_the_loop(self, recipe: Recipe) -> None:
        """Schedules, dropout, noise and all rules included."""
        own, loop = self.train(self.engines()[0], recipe), self.train(LoopEngine(), recipe)
        gaps = np.abs(own.weights - loop.weights).max(axis=(1, 2))
        # Adam and RMSprop divide by gradients that may be nothing but rounding; SGD does not.
        assert np.median(gaps) < 1e-6
        rules = recipe.draw(np.arange(recipe.num_members))["optimizer"]
        assert gaps[(rules == "sgd") | (rules == "nesterov")].max() < 2e-6
        for name, values in own.metrics.items():
            np.testing.assert_allclose(
                np.median(values - loop.metrics[name]), 0, atol=1e-5, err_msg=name
            )

    def test_a_diverged_member_is_recorded_and_harms_nobody(self) -> None:
        """Its epoch is known, what came before is kept, and progress adds up."""
        recipe, engine = tiny_recipe(epochs=3, checkpoints=(0, 1, 3)), self.engines()[0]
        sound, drawn = self.train(engine, recipe), recipe.draw(np.arange(12))
        wild = {name: drawn[name].copy() for name in ("learning_rate", "optimizer", "activation")}
        wild["learning_rate"][4], wild["optimizer"][4], wild["activation"][4] = 1e30, "sgd", "relu"
        done: list[float] = []
        result = self.train(engine, recipe, progress=done.append, **wild)
        assert result.diverged.tolist() == [member == 4 for member in range(12)]
        assert result.diverged_epoch[4] == 1
        assert np.isfinite(result.weights[4, 0]).all()
        assert np.isnan(result.weights[4, 1:]).all()
        others = np.delete(np.arange(12), 4)
        np.testing.assert_array_equal(result.weights[others], sound.weights[others])
        assert sum(done) == recipe.num_members * recipe.epochs
