"""Populations over load and temperature, whose loss landscapes come in phases."""

from dataclasses import replace

from data_gen.architectures import FieldGrid
from data_gen.distributions import Constant, Grid
from data_gen.recipe import Recipe
from data_gen.recipes.equations import pinn_convection
from zoo.networks import CNNConfig, MLPConfig, ResNetConfig

_SOURCE = "Yang et al., NeurIPS 2021; phase-transition model zoos"


def phase_cnn(*, full: bool = False) -> Recipe:
    """Return CNNs on images in IDX files over width (load), batch size (temperature) and seeds.

    Like the ResNet grids of the phase-transition zoos [1]_, at a size that two processors train.

    References
    ----------
    .. [1] Yang et al., "Taxonomizing local versus global structure in neural network loss
       landscapes", NeurIPS 2021.
    """
    widths = (2, 4, 8, 16, 32, 64) if full else (2, 4, 8, 16)
    batches = (8, 16, 32, 64, 128, 256, 512) if full else (16, 64, 256)
    seeds = 3 if full else 2
    return Recipe(
        name="phase-cnn",
        problem={"name": "idx"},
        network=CNNConfig(in_channels=1, image_size=28, out_features=10),
        architectures=FieldGrid.product(channels=[(width,) * 3 for width in widths]),
        hyperparameters={
            "batch_size": Grid(batches),
            "optimizer": Constant("sgd"),
            "momentum": Constant(0.9),
            "learning_rate": Constant(0.05),
            "weight_decay": Constant(5e-4),
            "schedule": Constant("one_cycle"),
            "data_fraction": Constant(1.0 if full else 0.05),
            "init": Constant("kaiming_uniform"),
        },
        num_members=len(widths) * len(batches) * seeds,
        shared_seeds=True,
        epochs=50 if full else 5,
        checkpoints=(0, 10, 25, 50) if full else (0, 1, 5),
        description="CNNs over width, batch size and seeds",
        source=_SOURCE,
    )


def phase_digits(*, full: bool = False) -> Recipe:
    """Return perceptrons on scikit-learn's digits over width, batch size and seeds: no download."""
    widths = (1, 2, 4, 8, 16, 32, 64) if full else (2, 4, 8, 16, 32)
    batches = (4, 8, 16, 32, 64, 128, 256, 512) if full else (8, 32, 128, 512)
    return Recipe(
        name="phase-digits",
        problem={"name": "digits"},
        network=MLPConfig(in_features=64, hidden=(32, 32), out_features=10),
        architectures=FieldGrid.product(hidden=[(width, width) for width in widths]),
        hyperparameters={
            "batch_size": Grid(batches),
            "optimizer": Constant("sgd"),
            "momentum": Constant(0.9),
            "learning_rate": Constant(0.05),
            "schedule": Constant("one_cycle"),
            "init": Constant("kaiming_uniform"),
        },
        num_members=len(widths) * len(batches) * 3,
        shared_seeds=True,
        epochs=30,
        checkpoints=(0, 5, 30),
        description="perceptrons on 8x8 digits over width, batch size and seeds",
        source=_SOURCE,
    )


def phase_resnet(*, full: bool = False) -> Recipe:
    """Return ResNets on CIFAR-10 over width, batch size and seeds.

    In full the 192 ResNet-18 of the phase-transition zoos: widths 2 to 256, batches of 8 to 1024,
    three seeds, SGD at 0.1 for 150 epochs. In small 12 ResNet-8.
    """
    widths = tuple(2**k for k in range(1, 9)) if full else (2, 4)
    batches = tuple(2**k for k in range(3, 11)) if full else (32, 128)
    seeds = 3 if full else 2
    deep = ResNetConfig(depth=18, blocks=(2, 2, 2, 2), shortcut="projection")
    base = phase_cnn(full=full)
    return replace(
        base,
        name="phase-resnet",
        problem={"name": "cifar10", "num_test": 500},
        network=deep if full else ResNetConfig(depth=8),
        architectures=FieldGrid.product(width=widths),
        hyperparameters={
            **base.hyperparameters,
            "batch_size": Grid(batches),
            "learning_rate": Constant(0.1),
            "data_fraction": Constant(1.0 if full else 0.25),
        },
        num_members=len(widths) * len(batches) * seeds,
        epochs=150 if full else 2,
        checkpoints=(0, 50, 100, 115, 125, 135, 150) if full else (0, 1, 2),
        description="ResNets over width, batch size and seeds",
    )


def phase_pinn(*, full: bool = False) -> Recipe:
    """Return networks that solve convection over speed (load) and learning rate (temperature).

    The phase-transition zoos have 700 of them.
    """
    recipe = pinn_convection(full=full)
    if full:
        return replace(recipe, name="phase-pinn")
    grid = {
        **recipe.hyperparameters,
        "signal": Grid((0, 2, 4)),
        "learning_rate": Grid((1e-3, 3e-3, 1e-2)),
    }
    return replace(recipe, name="phase-pinn", hyperparameters=grid, num_members=18)
