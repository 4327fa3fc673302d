"""Populations of convolutional networks and transformers on images."""

from data_gen.distributions import Choice, LogUniform, Uniform
from data_gen.recipe import Recipe
from data_gen.recipes.sizes import in_small
from zoo.networks import CNNConfig, ResNetConfig, ViTConfig


def small_cnn(*, full: bool = False) -> Recipe:
    """Return networks and hyper-parameters of the Small CNN Zoo [1]_.

    Where it departs, its field ``departures`` says. Ends of ranges are as they are quoted from the
    paper.

    References
    ----------
    .. [1] Unterthiner et al., "Predicting Neural Network Accuracy from Weights", 2020,
       arXiv 2002.11448.
    """
    recipe = Recipe(
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
        departures="28x28 images as they are in place of RGB averaged to grey; weight decay is "
        "torch's, added to the gradient, on biases too, where the original adds an L2 term on "
        "kernels; RMSprop decays by torch's 0.99, not 0.9; an epoch drops its incomplete last "
        "batch",
    )
    return recipe if full else in_small(recipe, num_members=64, epochs=2)


def vit(*, full: bool = False) -> Recipe:
    """Return plain vision transformers [1]_ on CIFAR-10, hyper-parameters spread.

    In full 1,000 members of 4 blocks, as many as property predictors have been tried on; in small
    narrow ones on every fifth image.

    References
    ----------
    .. [1] Beyer et al., "Better plain ViT baselines for ImageNet-1k", arXiv 2205.01580, 2022.
    """
    recipe = Recipe(
        name="vit",
        problem={"name": "cifar10", "num_test": 500},
        network=ViTConfig(positions="sincos", head="mean")
        if full
        else ViTConfig(width=16, depth=2, heads=2, hidden=32, positions="sincos", head="mean"),
        hyperparameters={
            "learning_rate": LogUniform(1e-4, 1e-2),
            "weight_decay": LogUniform(1e-5, 1e-1),
            "optimizer": Choice(("adam", "adamw")),
            "schedule": Choice(("cosine", "constant")),
            "dropout": Choice((0.0, 0.1)),
            "batch_size": Choice((64, 128)),
        },
        num_members=1000,
        epochs=50,
        checkpoints=(0, 1, 5, 10, 20, 30, 40, 50),
        description="plain vision transformers on CIFAR-10",
    )
    return recipe if full else in_small(recipe, num_members=16, epochs=2, data_fraction=0.25)


def batch_norm_resnet(*, full: bool = False) -> Recipe:
    """Return residual networks with batch normalisation on CIFAR-10, hyper-parameters spread.

    ResNet-20 in full, ResNet-8 of eight planes in small.
    """
    recipe = Recipe(
        name="resnet",
        problem={"name": "cifar10", "num_test": 500},
        network=ResNetConfig() if full else ResNetConfig(depth=8, width=8),
        hyperparameters={
            "learning_rate": LogUniform(1e-2, 5e-1),
            "optimizer": Choice(("sgd", "nesterov")),
            "momentum": Choice((0.0, 0.9)),
            "weight_decay": LogUniform(1e-5, 1e-2),
            "schedule": Choice(("cosine", "one_cycle", "step")),
            "batch_size": Choice((64, 128)),
        },
        num_members=256,
        epochs=60,
        checkpoints=(0, 1, 5, 10, 20, 40, 60),
        description="residual networks with batch normalisation on CIFAR-10",
    )
    return recipe if full else in_small(recipe, num_members=8, epochs=2, data_fraction=0.25)
