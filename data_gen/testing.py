"""Tiny problems and recipes for tests, and what it means that two results are the same."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from data_gen.distributions import Choice, LogUniform, Uniform
from data_gen.engines import BlockResult
from data_gen.recipe import Recipe
from zoo.networks import CNNConfig, MLPConfig
from zoo.problems import Problem, digits, image_signals

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
