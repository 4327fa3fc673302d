"""Recipes whose members differ in architecture: which there are, their spaces, who has which."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

import zoo
from data_gen.architectures import NetworkFields
from data_gen.recipe import Recipe
from zoo.errors import InvalidConfigError, TraceError
from zoo.layout import Architecture, Ragged
from zoo.networks import build, example_input, to_dict
from zoo.space import WeightSpace
from zoo.store import PopulationWriter
from zoo.store.disk.files import PopulationFiles

_EXAMPLES = 2


@dataclass(frozen=True, kw_only=True)
class Group:
    """Members that one call of an engine can train.

    Parameters
    ----------
    recipe
        The recipe as they see it.
    space
        Their weight space.
    positions
        Where they are among the members asked for, int64.
    architecture
        Position of their architecture in the population's list.
    """

    recipe: Recipe
    space: WeightSpace = field(repr=False)
    positions: np.ndarray
    architecture: int = 0


@lru_cache(maxsize=4096)
def trace_network(network: str) -> WeightSpace:
    """Trace a network given as JSON; once per process."""
    config = json.loads(network)
    return zoo.trace(build(config), example_input(config, _EXAMPLES))


def plan_rows(recipe: Recipe) -> tuple[Ragged, tuple[WeightSpace, ...]]:
    """Trace every architecture that the recipe's members have, and plan the rows of the store.

    Returns
    -------
    Ragged
        Architectures in the order in which members first have them.
    tuple of WeightSpace
        Their weight spaces, each once. Of architectures that differ in their activations alone,
        and thus share a space, it holds the rescalings that all of them allow.

    Raises
    ------
    InvalidConfigError
        If an architecture cannot be built or traced.
    """
    known: dict[str, int] = {}
    of_member = [
        known.setdefault(json.dumps(each), len(known))
        for each in recipe.network_fields(np.arange(recipe.num_members))
    ]
    spaces: dict[str, WeightSpace] = {}
    listed = []
    for text in known:
        own = _trace(recipe, json.loads(text))
        spaces[own.fingerprint] = _in_common(spaces.get(own.fingerprint, own), own)
        listed.append(
            Architecture(
                network=json.loads(text), space=own.fingerprint, num_parameters=own.num_parameters
            )
        )
    return Ragged.plan(listed, of_member), tuple(spaces.values())


def groups_of(recipe: Recipe, writer: PopulationWriter, members: np.ndarray) -> list[Group]:
    """Group members by architecture; one group where all have the same.

    Parameters
    ----------
    members
        Ids ``[n]``.
    """
    ragged = writer.spec.space
    if not isinstance(ragged, Ragged):
        everyone = np.arange(len(members))
        return [Group(recipe=recipe, space=ragged, positions=everyone)]
    places = _positions(ragged.architectures, recipe.network_fields(members))
    architectures = PopulationFiles(writer.root, writer.name).architectures
    return [
        Group(
            recipe=recipe.of_architecture(ragged.architectures[place].network),
            space=architectures.space(place),
            positions=np.flatnonzero(places == place),
            architecture=place,
        )
        for place in dict.fromkeys(places.tolist())
    ]


def _positions(known: Sequence[Architecture], fields: Sequence[NetworkFields]) -> np.ndarray:
    index = {json.dumps(each.network, sort_keys=True): k for k, each in enumerate(known)}
    return np.array([index[json.dumps(each, sort_keys=True)] for each in fields], dtype=np.int64)


def _trace(recipe: Recipe, fields: NetworkFields) -> WeightSpace:
    network = json.dumps(to_dict(recipe.of_architecture(fields).network))
    try:
        return trace_network(network)
    except (TraceError, RuntimeError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidConfigError(
            f"Architecture {json.dumps(fields)} of recipe {recipe.name!r} cannot be traced: "
            f"{reason}"
        ) from error


def _in_common(one: WeightSpace, other: WeightSpace) -> WeightSpace:
    """Keep the rescalings that both of two spaces of one fingerprint have."""
    return replace(
        one,
        scalings=tuple(each for each in one.scalings if each in other.scalings),
        gl_blocks=tuple(each for each in one.gl_blocks if each in other.gl_blocks),
    )
