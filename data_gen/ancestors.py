"""The stored members that a recipe's members begin from: opened, checked, read."""

import json
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import polars as pl

import zoo
from data_gen.distributions import Choice
from data_gen.engines.members import MASK, START
from data_gen.hyperparameters import HYPERPARAMETERS, as_column
from data_gen.ragged import trace_network
from data_gen.recipe import Recipe
from data_gen.starts import Prune, Start, Widen
from data_gen.streams import Purpose, stream
from data_gen.transforms import check_function, check_wider, prune, widen
from zoo.errors import InvalidConfigError, MissingDataError, StoreError, WeightSpaceMismatchError
from zoo.networks import to_dict
from zoo.problems import Problem
from zoo.schema import LINEAGE
from zoo.space import WeightSpace
from zoo.store import Population

_FUNCTION = ("activation",)
"""Fields without which weights are another function."""
PARENT = "parent"
"""Column with the id of the stored member that a member begins from."""


@dataclass(frozen=True, kw_only=True)
class Ancestors:
    """The stored members that a recipe's members begin from, in turn.

    Parameters
    ----------
    recipe
        Whose members they are, with what these inherit among its hyper-parameters.
    start
        Which were chosen.
    population
        The chosen ones.
    inherited
        What members take over, one value for each of the chosen.
    space
        Weight space of the recipe's network.
    """

    recipe: Recipe
    start: Start
    population: Population = field(repr=False)
    inherited: dict[str, pl.Series]
    space: WeightSpace = field(repr=False)

    @property
    def identity(self) -> dict[str, str]:
        """What of them determines the recipe's members."""
        return {
            "start_version": self.population.version,
            "start_space": self.population.space.fingerprint,
        }

    def parents(self, members: np.ndarray) -> np.ndarray:
        """Return which stored member each begins from: ids ``[n]``, int64."""
        ids = self.population.member_ids
        return np.asarray(ids[self.recipe.places.repeats(members) % len(ids)])

    def columns(self, members: np.ndarray) -> dict[str, np.ndarray]:
        """Return ``parent``, ``lineage`` and what members inherit, ``[n]`` each."""
        parents = self.parents(members)
        row_of = {member: row for row, member in enumerate(self.population.member_ids.tolist())}
        rows = [row_of[parent] for parent in parents.tolist()]
        taken = {LINEAGE: self.population.table[LINEAGE], **self.inherited}
        return {PARENT: parents.astype(np.int64)} | {
            name: as_column(name, values.gather(rows).to_list())
            if name in HYPERPARAMETERS
            else values.gather(rows).to_numpy()
            for name, values in taken.items()
        }

    def signals(self, problem: Problem, members: np.ndarray) -> np.ndarray | None:
        """Return the signals that the parents fit, where it is the same problem."""
        if not problem.num_signals or self.population.problem != self.recipe.problem:
            return None
        table = self.population.table
        own = dict(zip(table["member"].to_list(), table["signal"].to_list(), strict=True))
        return np.array([own[parent] for parent in self.parents(members).tolist()])

    def vectors(self, members: np.ndarray, seeds: np.ndarray) -> dict[str, np.ndarray]:
        """Return what members begin from.

        Returns
        -------
        dict[str, np.ndarray]
            ``start``: vectors ``[P]`` float32, ``[n]`` objects; if zeros are frozen, ``mask``: as
            many bool vectors.
        """
        parents, places = np.unique(self.parents(members), return_inverse=True)
        stored = self.population.vectors(parents, checkpoint=self.start.checkpoint)
        pairs = zip(places.tolist(), seeds.tolist(), strict=True)
        own = [self._transformed(stored[place], seed) for place, seed in pairs]
        found = {START: _objects([vector for vector, _ in own])}
        if self.start.freezes:
            found[MASK] = _objects([mask for _, mask in own])
        return found

    def check(self) -> None:
        """Compare the first member with its parent; see :func:`~.transforms.check_function`."""
        if not isinstance(self.start.transform, Widen):
            return
        first = np.arange(1)
        parent = int(self.population.member_ids[0])
        vector = self.vectors(first, self.recipe.seeds(first))[START][0]
        fields = self.columns(first)
        network = to_dict(self.recipe.network) | {name: fields[name][0] for name in self.inherited}
        old = self.population.module(parent, checkpoint=self.start.checkpoint)
        check_function(old, network, self.space, vector, of=f"recipe {self.recipe.name!r}")

    def _transformed(self, vector: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        transform = self.start.transform
        if isinstance(transform, Widen):
            rng = stream(seed, Purpose.START)
            wide = widen(self.population.space, self.space, vector, rng=rng, even=transform.even)
            return wide, np.ones(len(wide), dtype=bool)
        if isinstance(transform, Prune):
            mask = prune(self.space, vector, fraction=transform.fraction, scope=transform.scope)
            return np.where(mask, vector, np.float32(0)), mask
        return vector, np.ones(len(vector), dtype=bool)


def open_ancestors(recipe: Recipe) -> Ancestors | None:
    """Open the stored members that a recipe's members begin from; ``None`` if there are none.

    Raises
    ------
    MissingDataError
        If the recipe leaves open which zoo.
    StoreError
        If there is no such zoo, or the population is not finished.
    UnknownNameError
        If the zoo holds no such population or checkpoint.
    InvalidConfigError
        If no member meets the condition.
    WeightSpaceMismatchError
        If they are no networks of the recipe's weight space.
    """
    start, chosen = recipe.start, choose(recipe)
    if start is None or chosen is None:
        return None
    inherited = _inherited(recipe, chosen)
    spread = {
        name: Choice(tuple(values.unique().sort().to_list())) for name, values in inherited.items()
    }
    return Ancestors(
        recipe=replace(recipe, hyperparameters={**recipe.hyperparameters, **spread}),
        start=start,
        population=chosen,
        inherited=inherited,
        space=_space_for(recipe, chosen),
    )


def choose(recipe: Recipe) -> Population | None:
    """Open the stored members that a recipe's start chooses; ``None`` if it has no start.

    Raises
    ------
    MissingDataError, StoreError, UnknownNameError, InvalidConfigError
        As in :func:`open_ancestors`.
    """
    start = recipe.start
    if start is None:
        return None
    if not start.zoo:
        raise MissingDataError(
            f"Members of recipe {recipe.name!r} begin from those of a population "
            f"{start.population!r}: name its zoo by --start ZOO."
        )
    population = zoo.open(start.zoo)[start.population]
    if not population.is_complete:
        raise StoreError(
            f"Members of recipe {recipe.name!r} begin from population {start.population!r} of "
            f"{start.zoo}, which is not finished. Resume the run that makes it first."
        )
    chosen = population.where("not diverged")
    chosen = chosen if start.where is None else chosen.where(start.where)
    if not chosen.num_members:
        raise InvalidConfigError(
            f"No finite member of population {start.population!r} in {start.zoo} meets "
            f"{start.where!r}, and members of recipe {recipe.name!r} should begin from such."
        )
    chosen.vectors(chosen.member_ids[:1], checkpoint=start.checkpoint)  # is there one?
    return chosen


@lru_cache(maxsize=4)
def _opened(recipe: str, version: str) -> Ancestors | None:
    found = open_ancestors(Recipe.from_json(recipe))
    if found is not None and found.population.version != version:
        raise StoreError(
            f"Population {found.start.population!r} in {found.start.zoo} is not what it was when "
            "the population that begins from it was begun. Restore it, or begin another one."
        )
    return found


def reopen_ancestors(recipe: Recipe, version: str) -> Ancestors | None:
    """Open them once per process, and make sure that they are those of a version.

    Raises
    ------
    StoreError
        If the population has changed.
    """
    return None if recipe.start is None else _opened(recipe.to_json(), version)


def _inherited(recipe: Recipe, chosen: Population) -> dict[str, pl.Series]:
    """Return what members take over of their parents' networks: the activation, always."""
    own, network = recipe.hyperparameters, to_dict(recipe.network)
    found = {
        name: chosen.table[name]
        for name in chosen.spec.network_columns
        if name in _FUNCTION or name not in own
    }
    for name in _FUNCTION:
        value = chosen.network.get(name)
        differs = name in own or network.get(name) != value
        if name not in found and value is not None and differs:
            found[name] = pl.Series([value] * chosen.num_members)
    return found


def _space_for(recipe: Recipe, chosen: Population) -> WeightSpace:
    """Return the weight space of the recipe's network, which must be that of the chosen members."""
    space = trace_network(json.dumps(to_dict(recipe.network)))
    found = chosen.space
    transform = None if recipe.start is None else recipe.start.transform
    if isinstance(transform, Widen):
        check_wider(found, space)
    elif found.fingerprint != space.fingerprint:
        raise WeightSpaceMismatchError(
            f"Expected members of weight space {space.fingerprint} ({space.num_parameters:,} "
            f"numbers), that of the network of recipe {recipe.name!r}, to begin from, got "
            f"{found.fingerprint} ({found.num_parameters:,} numbers) in population "
            f"{chosen.name!r} of {chosen.location}. Give the recipe their network: "
            f"{json.dumps(chosen.network)}."
        )
    return space


def _objects(values: list[np.ndarray]) -> np.ndarray:
    objects = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        objects[position] = value
    return objects
