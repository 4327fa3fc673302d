"""The 27 zoos of Schürholt et al. [1]_: 50,360 networks, their grids read off the published code.

Eight data sets and sizes have three zoos each (one configuration and 1,000 seeds; a grid of
hyper-parameters with the same ten seeds everywhere; the same grid with seeds of its own for every
member), three more have 1,000 ResNets each.

Departures are in :data:`DEPARTURES`. Members of these seeds are not the authors' members: their
seeds feed other generators.

References
----------
.. [1] Schürholt et al., "Model Zoos: A Dataset of Diverse Populations of Neural Network Models",
   NeurIPS 2022.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from data_gen.distributions import Constant, Distribution, Grid
from data_gen.recipe import Recipe
from data_gen.recipes.sizes import in_small
from zoo.networks import LeNetConfig, ResNetConfig

SOURCE = "Schürholt et al., Model Zoos, NeurIPS 2022"
DEPARTURES = (
    "the validation part that the authors hold out of the training images is trained on; images "
    "are not augmented, as theirs are for ResNets; an epoch drops its incomplete last batch"
)
_SEEDS, _REPEATS = 1_000, 10
_BIAS = 0.01
"""What all biases begin with."""
_NONLINEARITIES = ("tanh", "relu", "sigmoid", "gelu")
_INITS = ("unit_uniform", "unit_normal", "kaiming_uniform", "kaiming_normal")


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images that three zoos are trained on, and what their two grids spread.

    Parameters
    ----------
    name
        Part of the zoos' names.
    problem
        What :func:`zoo.problems.load` takes.
    channels, large
        Planes of an image; whether networks are the large ones, for 32 x 32 pixels.
    seed
        Settings of the zoo of seeds.
    grid
        What the grids spread beside the non-linearity and the initialisation.
    """

    name: str
    problem: Mapping[str, Any]
    channels: int
    large: bool = False
    seed: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def network(self) -> LeNetConfig:
        """The network: CNN-s has 2,464 parameters (2,864 in colour), CNN-l 10,853."""
        return cnn_large(self.channels) if self.large else cnn_small(self.channels)


def cnn_small(channels: int) -> LeNetConfig:
    """Return the small network, for 28 x 28 pixels."""
    return LeNetConfig(
        in_channels=channels,
        image_size=28,
        out_features=10,
        channels=(8, 6, 4),
        kernel_sizes=(5, 5, 2),
        pools=(2, 2, 1),
        hidden=(20,),
        undropped=(2,),
    )


def cnn_large(channels: int) -> LeNetConfig:
    """Return the large network, for 32 x 32 pixels."""
    return LeNetConfig(
        in_channels=channels,
        image_size=32,
        out_features=10,
        channels=(16, 32, 15),
        kernel_sizes=(3, 3, 3),
        pools=(2, 2, 2),
        hidden=(20,),
    )


_MNIST = {"name": "idx", "mean": 0.1307, "std": 0.3081}
_TANH = {"activation": "tanh", "optimizer": "adam", "learning_rate": 3e-4, "init": "unit_uniform"}
_GREY_GRID = {
    "dropout": (0.0, 0.5),
    "optimizer": ("adam", "sgd"),
    "learning_rate": (1e-3, 1e-4),
    "weight_decay": (1e-3, 1e-4),
}
_COLOUR_GRID = _GREY_GRID | {"weight_decay": (1e-2, 1e-3)}
_CIFAR: dict[str, Any] = {
    "channels": 3,
    "seed": _TANH
    | {
        "activation": "gelu",
        "learning_rate": 1e-4,
        "weight_decay": 1e-2,
        "init": "kaiming_uniform",
    },
    "grid": {**_COLOUR_GRID, "learning_rate": (1e-3,)},
}
_STL: dict[str, Any] = {
    "channels": 3,
    "seed": _TANH | {"learning_rate": 1e-4, "weight_decay": 1e-3, "init": "kaiming_uniform"},
    "grid": _COLOUR_GRID,
}

_CIFAR10 = {"name": "cifar10", "num_test": 500}
"""Where the test batch is at hand, it is the test part, and no training images are held out."""


def _scaled(base: Mapping[str, Any], size: int) -> dict[str, Any]:
    return {"name": "resized", "base": dict(base), "size": size}


IMAGES = (
    Images(name="mnist", problem=_MNIST, channels=1, seed=_TANH, grid=_GREY_GRID),
    Images(name="fashion-mnist", problem={"name": "idx"}, channels=1, seed=_TANH, grid=_GREY_GRID),
    Images(
        name="usps",
        problem=_scaled({"name": "npz"}, 28),
        channels=1,
        seed=_TANH | {"weight_decay": 1e-3},
        grid=_COLOUR_GRID,
    ),
    Images(
        name="svhn",
        problem={"name": "resized", "base": {"name": "npz"}, "crop": 28},
        channels=1,
        seed=_TANH | {"learning_rate": 3e-3},
        grid={
            "dropout": (0.0, 0.3, 0.5),
            "optimizer": ("sgd",),
            "learning_rate": (1e-2, 1e-3, 1e-4),
            "weight_decay": (0.0, 1e-3, 1e-1),
        },
    ),
    Images(name="cifar10-s", problem=_scaled(_CIFAR10, 28), **_CIFAR),
    Images(name="cifar10-l", problem=_CIFAR10, large=True, **_CIFAR),
    Images(name="stl10-s", problem=_scaled({"name": "npz"}, 28), **_STL),
    Images(name="stl10-l", problem=_scaled({"name": "npz"}, 32), large=True, **_STL),
)


def seeds(images: Images, *, full: bool = False) -> Recipe:
    """Return the zoo of 1,000 members that differ in their seed alone."""
    recipe = Recipe(
        name=f"modelzoos-{images.name}-seed",
        network=images.network,
        hyperparameters=_always(images.seed),
        num_members=_SEEDS,
        description=f"one configuration on {images.name}, seed after seed",
        **_common(images),
    )
    return recipe if full else _in_small(recipe, images)


def hyper(images: Images, *, shared_seeds: bool, full: bool = False) -> Recipe:
    """Return the zoo that trains every configuration of a grid with ten seeds."""
    spread = {name: Grid(values) for name, values in images.grid.items()}
    recipe = Recipe(
        name=f"modelzoos-{images.name}-hyper-{'fixed' if shared_seeds else 'random'}",
        network=images.network,
        hyperparameters=_always({})
        | {"activation": Grid(_NONLINEARITIES), "init": Grid(_INITS)}
        | spread,
        num_members=_REPEATS * _size(images),
        shared_seeds=shared_seeds,
        description=f"a grid on {images.name}, ten {'common' if shared_seeds else 'own'} seeds",
        **_common(images),
    )
    return recipe if full else _in_small(recipe, images)


def resnet18(name: str, *, full: bool = False) -> Recipe:
    """Return a zoo of 1,000 ResNet-18; in small an eighth as wide."""
    problem, size, classes, rate, batch, epochs = _RESNETS[name]
    network = ResNetConfig(
        out_features=classes,
        image_size=size,
        depth=18,
        blocks=(2, 2, 2, 2),
        width=64 if full else 8,
        shortcut="projection",
    )
    recipe = Recipe(
        name=f"modelzoos-{name}-resnet18",
        problem=dict(problem),
        network=network,
        hyperparameters={
            "optimizer": Constant("sgd"),
            "momentum": Constant(0.9),
            "learning_rate": Constant(rate),
            "weight_decay": Constant(5e-4),
            "schedule": Constant("one_cycle"),
            "batch_size": Constant(batch),
            "init": Constant("kaiming_uniform"),
        },
        num_members=_SEEDS,
        epochs=epochs,
        checkpoints=tuple(range(1, epochs + 1)),
        description=f"ResNet-18 on {name}, seed after seed",
        source=SOURCE,
        departures=DEPARTURES,
    )
    return recipe if full else in_small(recipe, num_members=4, epochs=2, data_fraction=0.2)


_RESNETS: dict[str, tuple[Mapping[str, Any], int, int, float, int, int]] = {
    "cifar10": (
        _CIFAR10 | {"mean": [0.491, 0.482, 0.447], "std": [0.247, 0.244, 0.262]},
        32,
        10,
        0.05,
        256,
        50,
    ),
    "cifar100": (
        {"name": "cifar100", "mean": [0.5071, 0.4867, 0.4408], "std": [0.2675, 0.2565, 0.2761]},
        32,
        100,
        0.1,
        128,
        60,
    ),
    "tiny-imagenet": (
        {
            "name": "images",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        },
        64,
        200,
        0.1,
        128,
        60,
    ),
}


def _in_small(recipe: Recipe, images: Images) -> Recipe:
    """Return enough members and steps to see them learn."""
    return in_small(recipe, num_members=8 if images.large else 32, epochs=5, data_fraction=0.1)


def _common(images: Images) -> dict[str, Any]:
    return {
        "problem": dict(images.problem),
        "epochs": 50,
        "checkpoints": tuple(range(51)),
        "source": SOURCE,
        "departures": DEPARTURES,
    }


def _always(settings: Mapping[str, Any]) -> dict[str, Distribution]:
    plain: dict[str, Any] = {"batch_size": 10, "init_bias": _BIAS, "momentum": 0.9, **settings}
    return {name: Constant(value) for name, value in plain.items()}


def _size(images: Images) -> int:
    size = len(_NONLINEARITIES) * len(_INITS)
    for values in images.grid.values():
        size *= len(values)
    return size


ZOOS: tuple[Callable[..., Recipe], ...] = (
    *(partial(seeds, images) for images in IMAGES),
    *(partial(hyper, images, shared_seeds=shared) for images in IMAGES for shared in (True, False)),
    *(partial(resnet18, name) for name in _RESNETS),
)
"""All 27, in small by default, as published with ``full=True``."""
