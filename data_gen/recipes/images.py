"""Populations on images in IDX files."""

from data_gen.distributions import Choice, LogUniform, Uniform
from data_gen.recipe import Recipe
from zoo.networks import CNNConfig


def small_cnn() -> Recipe:
    """Return networks and hyper-parameters of the Small CNN Zoo [1]_.

    Departures: 28x28 images as they are in place of RGB averaged to grey; biases that torch
    initialises are zero only under the schemes named here, as in the original; ``weight_decay`` is
    torch's (added to the gradient, on biases too) where the original adds an L2 term on kernels;
    RMSprop decays by torch's 0.99, not 0.9; an epoch drops its incomplete last batch. The learning
    rate's lower and upper ends and the other ranges are as they are quoted from the paper.

    References
    ----------
    .. [1] Unterthiner et al., "Predicting Neural Network Accuracy from Weights", 2020,
       arXiv 2002.11448.
    """
    return Recipe(
        name="small-cnn",
        problem={"name": "idx"},
        network=CNNConfig(in_channels=1, image_size=28, out_features=10),
        hyperparameters={
            "learning_rate": LogUniform(5e-4, 5e-2),
            "weight_decay": LogUniform(1e-8, 1e-2),
            "dropout": Uniform(0.0, 0.7),
            "init_std": LogUniform(1e-3, 0.5),
            "optimizer": Choice(("sgd", "adam", "rmsprop")),
            "activation": Choice(("relu", "tanh")),
            "init": Choice(
                ("xavier_normal", "kaiming_normal", "orthogonal", "normal", "truncated_normal")
            ),
            "data_fraction": Choice((0.1, 0.25, 0.5, 1.0)),
            "batch_size": Choice((512,)),
        },
        num_members=1024,
        epochs=86,
        checkpoints=(0, 1, 2, 3, 20, 40, 60, 80, 86),
        description="the Small CNN Zoo's networks and ranges, on images in IDX files",
        source="Unterthiner et al., arXiv 2002.11448, 2020",
    )
