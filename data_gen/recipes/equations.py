"""Populations of physics-informed networks: each solves a differential equation."""

from data_gen.distributions import Constant, Grid, LogUniform
from data_gen.recipe import Recipe
from data_gen.recipes.sizes import in_small
from zoo.networks import MLPConfig

_SPEEDS = (1.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 50.0)


def pinn_convection(*, full: bool = False) -> Recipe:
    """Return networks that solve convection at speeds from 1 to 50 and learn at many rates.

    The phase zoo has 700 of them over speed and learning rate; speeds that are hard make failures
    that can be told from their weights. Networks have the width of [1]_ (Sec. 3), four hidden
    layers of 50 in full.

    References
    ----------
    .. [1] Krishnapriyan et al., "Characterizing possible failure modes in physics-informed neural
       networks", NeurIPS 2021.
    """
    rates = tuple(round(1e-4 * 10 ** (k / 3), 7) for k in range(7))
    recipe = Recipe(
        name="pinn-convection",
        problem={"name": "convection", "coefficients": list(_SPEEDS)},
        network=MLPConfig(
            in_features=2,
            hidden=(50,) * 4 if full else (20,) * 3,
            out_features=1,
            activation="tanh",
        ),
        hyperparameters={
            "signal": Grid(tuple(range(len(_SPEEDS)))),
            "learning_rate": Grid(rates),
            "batch_size": Constant(1000),
            "init": Constant("xavier_normal"),
        },
        num_members=len(_SPEEDS) * len(rates) * 10,
        epochs=10_000,
        checkpoints=(0, 100, 1000, 10_000),
        description="networks that solve u_t + c u_x = 0 at many speeds c",
        source="Krishnapriyan et al., NeurIPS 2021",
    )
    return recipe if full else in_small(recipe, num_members=32, epochs=300)


def pinn_burgers(*, full: bool = False) -> Recipe:
    """Return networks that solve Burgers' equation [1]_ (App. A.1), eight hidden layers of 20.

    References
    ----------
    .. [1] Raissi et al., "Physics-informed neural networks", Journal of Computational Physics 378,
       2019.
    """
    recipe = Recipe(
        name="pinn-burgers",
        problem={"name": "burgers"} if full else {"name": "burgers", "num_points": 500},
        network=MLPConfig(
            in_features=2,
            hidden=(20,) * 8 if full else (20,) * 3,
            out_features=1,
            activation="tanh",
        ),
        hyperparameters={
            "learning_rate": LogUniform(3e-4, 1e-2),
            "batch_size": Constant(10_000),
            "init": Constant("xavier_normal"),
        },
        num_members=200,
        epochs=10_000,
        checkpoints=(0, 100, 1000, 10_000),
        description="networks that solve Burgers' equation",
        source="Raissi et al., Journal of Computational Physics 378, 2019",
    )
    return recipe if full else in_small(recipe, num_members=16, epochs=300)
