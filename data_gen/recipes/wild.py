"""The CNN Wild Park: convolutional networks of many architectures in one ragged population."""

from data_gen.architectures import WildConvolutions
from data_gen.distributions import Choice, Constant, LogUniform
from data_gen.recipe import Recipe
from data_gen.recipes.sizes import in_small
from zoo.networks import WildCNNConfig


def wild_park(*, full: bool = False) -> Recipe:
    """Return the networks of the CNN Wild Park [1]_ (App. C.2) on CIFAR-10.

    Depth, widths, kernels, activations and skip connections are drawn per member.

    References
    ----------
    .. [1] Kofinas et al., "Graph Neural Networks for Learning Equivariant Representations of
       Neural Networks", ICLR 2024.
    """
    recipe = Recipe(
        name="wild-park",
        problem={"name": "cifar10", "num_test": 500},
        network=WildCNNConfig(),
        architectures=WildConvolutions()
        if full
        else WildConvolutions(num_layers=(2, 3), channels=(4, 8), kernel_sizes=(3, 5)),
        hyperparameters={
            "learning_rate": LogUniform(1e-4, 1e-2),
            "weight_decay": LogUniform(1e-8, 1e-2),
            "optimizer": Choice(("adam", "sgd", "rmsprop")),
            "batch_size": Constant(128 if full else 32),
        },
        num_members=1000,
        epochs=60,
        checkpoints=(0, 1, 5, 10, 20, 40, 60),
        description="CNNs of many depths, widths, kernels, activations and skips",
        source="Kofinas et al., ICLR 2024",
        departures="the paper does not print its optimiser's settings; these are spread as in the "
        "Small CNN Zoo",
    )
    return recipe if full else in_small(recipe, num_members=16, epochs=3)
