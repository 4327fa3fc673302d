"""Populations of implicit neural representations: one network per image, shape or series."""

from dataclasses import replace
from typing import Any

from data_gen.distributions import Choice, Constant, Distribution, LogUniform
from data_gen.recipe import Recipe
from data_gen.recipes.sizes import in_small
from zoo.networks import MLPConfig, SirenConfig


def siren_digits(*, full: bool = False) -> Recipe:  # noqa: ARG001 - one size
    """Return SIRENs 2-32-32-1 [1]_, each fitted to one of scikit-learn's 8x8 digits.

    References
    ----------
    .. [1] Sitzmann et al., "Implicit Neural Representations with Periodic Activation Functions",
       NeurIPS 2020.
    """
    return _fitted(
        name="siren-digits",
        problem={"name": "digit-signals"},
        num_members=1797,
        batch_size=64,
        epochs=60,
        checkpoints=(0, 5, 20, 60),
        description="one SIREN per 8x8 digit, full batches",
    )


def siren_images(*, full: bool = False) -> Recipe:
    """Return SIRENs 2-32-32-1 as in :func:`siren_digits`, each fitted to one image of IDX files.

    The sizes are those that Navon et al. [1]_ fit MNIST with, in full for 1,000 steps. In small
    larger steps that shrink along a cosine fit a thousand images in 200.

    References
    ----------
    .. [1] Navon et al., "Equivariant Architectures for Learning in Deep Weight Spaces", ICML 2023.
    """
    recipe = _fitted(
        name="siren-images",
        problem={"name": "idx-signals"},
        num_members=70_000,
        batch_size=784,
        epochs=1000,
        checkpoints=(0, 10, 100, 1000),
        description="one SIREN per image in IDX files, full batches",
    )
    return recipe if full else _quick(recipe, num_members=1000, epochs=200)


def siren_views(*, full: bool = False) -> Recipe:
    """Return ten SIRENs for each image of IDX files, from ten initialisations [1]_ (App. D.3).

    Views of one image are relatives: no split parts them.

    References
    ----------
    .. [1] Zhou et al., "Permutation Equivariant Neural Functionals", NeurIPS 2023.
    """
    recipe = _fitted(
        name="siren-views",
        problem={"name": "idx-signals"},
        num_members=700_000,
        batch_size=784,
        epochs=5000,
        checkpoints=(0, 5000),
        description="ten SIRENs per image in IDX files",
        learning_rate=Constant(5e-5),
    )
    if full:
        return recipe
    few = replace(recipe, problem={"name": "digit-signals"}, description="two SIRENs per 8x8 digit")
    small = _quick(few, num_members=2 * 1797, epochs=60)
    return replace(small, hyperparameters={**small.hyperparameters, "batch_size": Constant(64)})


def siren_cifar(*, full: bool = False) -> Recipe:
    """Return SIRENs 2-32-32-3 [1]_ (App. D.3), each fitted to one colour image of CIFAR-10.

    References
    ----------
    .. [1] Zhou et al., "Permutation Equivariant Neural Functionals", NeurIPS 2023.
    """
    recipe = _fitted(
        name="siren-cifar",
        problem={"name": "cifar10-signals", "num_test": 1},
        network=SirenConfig(out_features=3),
        num_members=60_000,
        batch_size=1024,
        epochs=5000,
        checkpoints=(0, 100, 1000, 5000),
        description="one SIREN per image of CIFAR-10",
        learning_rate=Constant(5e-5),
    )
    return recipe if full else _quick(recipe, num_members=256, epochs=300)


def siren_drawings(*, full: bool = False) -> Recipe:
    """Return SIRENs 2-32-32-1, each fitted to one drawing of QuickDraw."""
    recipe = _fitted(
        name="siren-drawings",
        problem={"name": "quickdraw-signals"},
        num_members=3000,
        batch_size=784,
        epochs=1000,
        checkpoints=(0, 10, 100, 1000),
        description="one SIREN per drawing of QuickDraw",
    )
    return recipe if full else _quick(recipe, num_members=512, epochs=200)


def siren_shapes(*, full: bool = False) -> Recipe:
    """Return SIRENs 3-64-64-1, each fitted to the distance field of one mesh, several per mesh.

    Shapes are few, and every view has an initialisation of its own. Meshes that are not closed
    have no inside: their unsigned distances are fitted, as are those of all others, so that values
    mean the same.
    """
    recipe = _fitted(
        name="siren-shapes",
        problem={"name": "mesh", "unsigned": True},
        network=SirenConfig(in_features=3, hidden=(64, 64)),
        num_members=1000,
        batch_size=1024,
        epochs=500,
        checkpoints=(0, 10, 100, 500),
        description="SIRENs of distance fields of meshes, several per mesh",
    )
    return recipe if full else _quick(recipe, num_members=40, epochs=30)


def siren_series(*, full: bool = False) -> Recipe:
    """Return SIRENs 1-32-32-1, each fitted to one time series of a UCR set."""
    recipe = _fitted(
        name="siren-series",
        problem={"name": "ucr-signals", "dataset": "GunPoint"},
        network=SirenConfig(in_features=1),
        num_members=200,
        batch_size=150,
        epochs=1000,
        checkpoints=(0, 10, 100, 1000),
        description="one SIREN per time series, GunPoint's by default",
    )
    return recipe if full else _quick(recipe, num_members=200, epochs=300)


def relu_images(*, full: bool = False) -> Recipe:
    """Return ReLU perceptrons on Fourier features [1]_, each fitted to one image of IDX files.

    References
    ----------
    .. [1] Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions in Low
       Dimensional Domains", NeurIPS 2020.
    """
    recipe = _fitted(
        name="relu-images",
        problem={"name": "idx-signals"},
        network=MLPConfig(in_features=2, hidden=(32, 32), out_features=1, fourier_bands=4),
        num_members=70_000,
        batch_size=784,
        epochs=1000,
        checkpoints=(0, 10, 100, 1000),
        description="one ReLU perceptron on Fourier features per image in IDX files",
        init="default",
    )
    return recipe if full else _quick(recipe, num_members=128, epochs=200)


def sines(*, full: bool = False) -> Recipe:
    """Return perceptrons 1-40-40-1, each fitted to a sine of its own [1]_ (Sec. 5.1).

    References
    ----------
    .. [1] Finn et al., "Model-Agnostic Meta-Learning", ICML 2017.
    """
    num_signals = 10_000 if full else 1000
    return _functions(
        name="sines",
        problem={"name": "sines", "num_signals": num_signals},
        num_members=num_signals,
        description="one perceptron per sine of random amplitude and phase",
    )


def curves(*, full: bool = False) -> Recipe:
    """Return perceptrons 1-40-40-1, each fitted to a draw of a Gaussian process."""
    num_signals = 10_000 if full else 1000
    return _functions(
        name="curves",
        problem={"name": "gaussian-process", "num_signals": num_signals},
        num_members=num_signals,
        description="one perceptron per draw of a Gaussian process",
    )


def _functions(**about: Any) -> Recipe:
    return Recipe(
        network=MLPConfig(in_features=1, hidden=(40, 40), out_features=1, activation="tanh"),
        hyperparameters={
            "learning_rate": LogUniform(3e-3, 3e-2),
            "activation": Choice(("relu", "tanh", "silu")),
            "batch_size": Constant(100),
            "schedule": Constant("cosine"),
        },
        epochs=500,
        checkpoints=(0, 10, 100, 500),
        **about,
    )


def _fitted(
    *,
    batch_size: int,
    network: Any = None,
    learning_rate: Any = None,
    init: str = "siren",
    **about: Any,
) -> Recipe:
    return Recipe(
        network=network or SirenConfig(),
        hyperparameters={
            "learning_rate": learning_rate or LogUniform(3e-4, 3e-3),
            "init": Constant(init),
            "batch_size": Constant(batch_size),
        },
        **about,
    )


def _quick(recipe: Recipe, *, num_members: int, epochs: int) -> Recipe:
    """Fit fewer signals in fewer, larger steps."""
    faster: dict[str, Distribution] = {
        "learning_rate": LogUniform(2e-3, 8e-3),
        "schedule": Constant("cosine"),
    }
    changed = replace(recipe, hyperparameters={**recipe.hyperparameters, **faster})
    return in_small(changed, num_members=num_members, epochs=epochs)
