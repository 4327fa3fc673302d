"""What each member of a recipe is given: settings, the signal it fits, and what is stored of it."""

import numpy as np

from data_gen.ancestors import Ancestors
from data_gen.recipe import Recipe
from zoo.errors import InvalidConfigError
from zoo.problems import Problem
from zoo.schema import ARCHITECTURE, LINEAGE

_SIGNAL = "signal"


def settings_of(
    recipe: Recipe, problem: Problem, members: np.ndarray, ancestors: Ancestors | None = None
) -> dict[str, np.ndarray]:
    """Return what engines and the table know of members, ``[n]`` each.

    Members fit the signal that the recipe spreads, or that their parents fit; otherwise the
    signals in turn, one per member, or with a grid one per pass through it.

    Parameters
    ----------
    members
        Ids ``[n]``.
    """
    drawn = recipe.draw(members)
    inherited = {} if ancestors is None else ancestors.columns(members)
    signals = drawn.get(_SIGNAL)
    if signals is None and ancestors is not None:
        signals = ancestors.signals(problem, members)
    turns = recipe.places.repeats(members)
    assigned = problem.assign(turns if signals is None else members, signals=signals)
    return drawn | inherited | assigned


def columns_of(
    recipe: Recipe, problem: Problem, members: np.ndarray, drawn: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return every column that is known before training, ``[n]`` each.

    Members that fit one signal, or begin from relatives, are relatives: a split never parts them.
    Members that solve one equation are none, as those that learn from one data set are none.
    """
    own = members.astype(np.int64)
    lineage = own if problem.equation is not None else drawn.get(_SIGNAL, own)
    columns = {LINEAGE: lineage} | drawn
    if recipe.architectures is None:
        return columns
    described = [recipe.architectures.describe(each) for each in recipe.network_fields(members)]
    about = {
        column.name: np.array(
            [each[column.name] for each in described],
            dtype=object if column.dtype == "category" else column.dtype,
        )
        for column in recipe.architectures.columns
    }
    return columns | about


def check_settings(recipe: Recipe, problem: Problem) -> None:
    """Check that the problem has what the recipe spreads.

    Raises
    ------
    InvalidConfigError
        If members should fit signals that there are not, or a column would be there twice.
    """
    if _SIGNAL in recipe.hyperparameters:
        support = [int(value) for value in recipe.hyperparameters[_SIGNAL].support]
        if not problem.num_signals or max(support) >= problem.num_signals:
            raise InvalidConfigError(
                f"Recipe {recipe.name!r} spreads 'signal' up to {max(support)}, and problem "
                f"{problem.name!r} has {problem.num_signals or 'no'} signals."
            )
    own = {column.name for column in recipe.architectures.columns} if recipe.architectures else ()
    twice = sorted({*own} & {*problem.assign(np.arange(1)), ARCHITECTURE, *problem.metrics})
    if twice:
        raise InvalidConfigError(
            f"Columns {', '.join(twice)} of recipe {recipe.name!r} come from its architectures and "
            "from its problem. Name the network's fields otherwise."
        )
