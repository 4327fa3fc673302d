"""Populations on scikit-learn's digits: seconds to minutes on a laptop, no download."""

from data_gen.distributions import Choice, LogUniform, Uniform
from data_gen.recipe import Recipe
from zoo.networks import MLPConfig


def digits_mlp(*, full: bool = False) -> Recipe:  # noqa: ARG001 - one size
    """Return perceptrons 64-32-32-10 whose test accuracy spreads from chance to 0.98."""
    return Recipe(
        name="digits-mlp",
        problem={"name": "digits"},
        network=MLPConfig(in_features=64, hidden=(32, 32), out_features=10),
        hyperparameters={
            "learning_rate": LogUniform(3e-4, 1e-1),
            "optimizer": Choice(("sgd", "adam", "rmsprop")),
            "momentum": Choice((0.0, 0.9)),
            "weight_decay": LogUniform(1e-6, 3e-2),
            "activation": Choice(("relu", "tanh", "gelu", "sigmoid")),
            "dropout": Uniform(0.0, 0.5),
            "init": Choice(("default", "kaiming_normal", "xavier_uniform", "orthogonal")),
            "init_scale": LogUniform(0.2, 3.0),
            "batch_size": Choice((32, 64)),
            "data_fraction": Choice((0.1, 0.25, 0.5, 1.0)),
        },
        num_members=512,
        epochs=20,
        checkpoints=(0, 1, 2, 3, 5, 8, 12, 16, 20),
        description="perceptrons on 8x8 digits, hyper-parameters spread wide",
    )
