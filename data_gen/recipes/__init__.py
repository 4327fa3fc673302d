"""Named populations: one function each, which returns a recipe."""

from collections.abc import Callable
from dataclasses import replace

from data_gen.recipe import Recipe, rescale_checkpoints
from data_gen.recipes.digits import digits_mlp
from data_gen.recipes.images import small_cnn
from data_gen.recipes.signals import siren_digits, siren_images
from zoo.errors import unknown_name

__all__ = ["RECIPES", "digits_mlp", "recipe", "siren_digits", "siren_images", "small_cnn"]

RECIPES: dict[str, Callable[[], Recipe]] = {
    make().name: make for make in (digits_mlp, small_cnn, siren_digits, siren_images)
}


def recipe(
    name: str,
    *,
    num_members: int | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    population: str | None = None,
) -> Recipe:
    """Return a named recipe, varied.

    Parameters
    ----------
    name
        A name of :data:`RECIPES`.
    num_members, epochs, seed
        What to change; checkpoints keep their relative places.
    population
        Another name for the population.

    Raises
    ------
    UnknownNameError
        If there is no such recipe.
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    base = RECIPES[name]()
    wanted = base.epochs if epochs is None else epochs
    return replace(
        base,
        name=base.name if population is None else population,
        num_members=base.num_members if num_members is None else num_members,
        epochs=wanted,
        checkpoints=rescale_checkpoints(base.checkpoints, wanted),
        seed=base.seed if seed is None else seed,
    )
