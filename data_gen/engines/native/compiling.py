"""From a recipe to the tables of its members' networks; needs no compiler."""

import json
from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

import zoo
from data_gen.engines.graph import capture
from data_gen.engines.members import overrides
from data_gen.engines.native.layout import Network, lay_out
from data_gen.engines.native.lowering import lower
from data_gen.engines.native.rows import NoKernelError
from data_gen.engines.operators import EXAMPLE_BATCH
from data_gen.recipe import Recipe
from zoo.networks import build, example_input, to_dict
from zoo.problems import EQUATIONS
from zoo.space import WeightSpace

_TRACED_DROPOUT = 0.5


def network_config(recipe: Recipe, settings: Mapping[str, np.ndarray], position: int) -> str:
    """Return the network of a member as JSON; any dropout it has stands for all others."""
    return _to_json(to_dict(recipe.network) | overrides(settings, recipe, position))


def _to_json(config: dict[str, Any]) -> str:
    if config.get("dropout", 0) > 0:
        config["dropout"] = _TRACED_DROPOUT
    return json.dumps(config)


@lru_cache
def compile_network(config: str, space: WeightSpace) -> Network:
    """Make the table of a network that is given as JSON.

    Raises
    ------
    NoKernelError
        If it has an operator that no kernel computes.
    """
    network = json.loads(config)
    example = example_input(network, EXAMPLE_BATCH)
    program = capture(build(network), example, training=True)
    return lay_out(lower(program, space, example.shape[1:]), space)


def check_recipe(recipe: Recipe) -> None:
    """Raise :class:`NoKernelError` unless kernels can train every network of a recipe."""
    if recipe.problem["name"] in EQUATIONS:
        raise NoKernelError("no kernel differentiates a network by its inputs, as equations want")
    names = recipe.network_columns
    values = [recipe.hyperparameters[name].support for name in names]
    space = zoo.trace(build(recipe.network), example_input(recipe.network))
    for chosen in product(*values):
        config = to_dict(recipe.network) | dict(zip(names, chosen, strict=True))
        compile_network(_to_json(config), space)
