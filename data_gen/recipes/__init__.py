"""Named populations: one function each, which returns a recipe.

Every function has two sizes: in small, the default, two processors make the population in minutes;
with ``full=True`` it is the published grid, or one of the size that people train on.
"""

from collections.abc import Callable
from dataclasses import replace

from data_gen.recipe import Recipe, rescale_checkpoints
from data_gen.recipes import (
    derived,
    digits,
    equations,
    images,
    modelzoos,
    phases,
    signals,
    tables,
    texts,
    wild,
)
from zoo.errors import unknown_name

__all__ = ["RECIPES", "recipe"]

_MAKERS: tuple[Callable[..., Recipe], ...] = (
    digits.digits_mlp,
    images.small_cnn,
    images.vit,
    images.batch_norm_resnet,
    wild.wild_park,
    signals.siren_digits,
    signals.siren_images,
    signals.siren_views,
    signals.siren_cifar,
    signals.siren_drawings,
    signals.siren_shapes,
    signals.siren_series,
    signals.relu_images,
    signals.sines,
    signals.curves,
    tables.tabular_wine,
    tables.tabular_diabetes,
    tables.tabular_csv,
    tables.series_fcn,
    equations.pinn_convection,
    equations.pinn_burgers,
    texts.sentiment_lstm,
    texts.sentiment_gru,
    texts.sentiment_transformer,
    texts.news_transformer,
    phases.phase_digits,
    phases.phase_cnn,
    phases.phase_resnet,
    phases.phase_pinn,
    derived.finetuned,
    derived.pruned,
    derived.widened,
    derived.finetuned_lora,
    *modelzoos.ZOOS,
)
RECIPES: dict[str, Callable[..., Recipe]] = {make().name: make for make in _MAKERS}
"""By name, what makes a recipe: in small, or with ``full=True`` as published."""


def recipe(
    name: str,
    *,
    full: bool = False,
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
    full
        Take the published size.
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
    base = RECIPES[name](full=full)
    wanted = base.epochs if epochs is None else epochs
    return replace(
        base,
        name=base.name if population is None else population,
        num_members=base.num_members if num_members is None else num_members,
        epochs=wanted,
        checkpoints=rescale_checkpoints(base.checkpoints, wanted),
        seed=base.seed if seed is None else seed,
    )
