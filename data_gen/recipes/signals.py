"""Populations of implicit neural representations: one SIREN per image."""

from typing import Any

from data_gen.distributions import Constant, LogUniform
from data_gen.recipe import Recipe
from zoo.networks import SirenConfig


def siren_digits() -> Recipe:
    """Return SIRENs 2-32-32-1 [1]_, each fitted to one of scikit-learn's 8x8 digits.

    References
    ----------
    .. [1] Sitzmann et al., "Implicit Neural Representations with Periodic Activation Functions",
       NeurIPS 2020.
    """
    return _sirens(
        name="siren-digits",
        problem={"name": "digit-signals"},
        num_members=1797,
        batch_size=64,
        epochs=60,
        checkpoints=(0, 5, 20, 60),
        description="one SIREN per 8x8 digit, full batches",
    )


def siren_images() -> Recipe:
    """Return SIRENs 2-32-32-1 as in :func:`siren_digits`, each fitted to one image of IDX files.

    The sizes are those that Navon et al. [1]_ fit MNIST with.

    References
    ----------
    .. [1] Navon et al., "Equivariant Architectures for Learning in Deep Weight Spaces", ICML 2023.
    """
    return _sirens(
        name="siren-images",
        problem={"name": "idx-signals"},
        num_members=70_000,
        batch_size=784,
        epochs=1000,
        checkpoints=(0, 10, 100, 1000),
        description="one SIREN per image in IDX files, full batches",
    )


def _sirens(*, batch_size: int, **about: Any) -> Recipe:
    return Recipe(
        network=SirenConfig(),
        hyperparameters={
            "learning_rate": LogUniform(3e-4, 3e-3),
            "init": Constant("siren"),
            "batch_size": Constant(batch_size),
        },
        **about,
    )
