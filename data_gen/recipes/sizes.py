"""From a published population to one that two processors make in minutes."""

from dataclasses import replace

from data_gen.distributions import Choice, Constant, Distribution, Grid
from data_gen.recipe import Recipe, rescale_checkpoints


def in_small(
    recipe: Recipe, *, num_members: int, epochs: int, data_fraction: float | None = None
) -> Recipe:
    """Return a recipe with fewer members, trained for less, spread as before.

    Grids are drawn from at random, so that few members see all of it; at most one checkpoint an
    epoch is kept.

    Parameters
    ----------
    num_members, epochs
        Of the small population.
    data_fraction
        Part of the training set that members see; as it is by default.
    """
    spread: dict[str, Distribution] = {
        name: Choice(item.values) if isinstance(item, Grid) else item
        for name, item in recipe.hyperparameters.items()
    }
    if data_fraction is not None:
        spread["data_fraction"] = Constant(data_fraction)
    return replace(
        recipe,
        hyperparameters=spread,
        num_members=num_members,
        shared_seeds=False,
        epochs=epochs,
        checkpoints=rescale_checkpoints(recipe.checkpoints, epochs),
    )
