"""A recipe: everything that determines a population, whatever engine trains it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from data_gen import architectures, distributions
from data_gen import hyperparameters as hp
from data_gen.architectures import Architectures, NetworkFields
from data_gen.distributions import Grid
from data_gen.grid import ARCHITECTURES_AXIS, Places
from data_gen.starts import Start
from data_gen.streams import SEED_LIMIT, Purpose, member_seed, stream
from zoo.errors import InvalidConfigError
from zoo.networks import NetworkConfig, from_dict, to_dict
from zoo.schema import check_name

_LATER: dict[str, Any] = {
    "shared_seeds": False,
    "architectures": None,
    "start": None,
    "departures": "",
}
"""Fields that recipes gained later, with their defaults: left out of JSON and hash while at these,
so that populations made before can be resumed."""
_FOR_PEOPLE = ("description", "source", "departures")
"""Fields that determine nothing."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a population is made: problem, network, what varies, how long, how many.

    Parameters
    ----------
    name
        Name of the population.
    problem
        What :func:`zoo.problems.load` takes, JSON.
    network
        Configuration that all members share; hyper-parameters may override fields of it.
    hyperparameters
        Per name of :data:`data_gen.hyperparameters.HYPERPARAMETERS`, how members differ. Names that
        are absent keep their default.
    num_members
        Members of the population. The first ones of a grid (see :class:`data_gen.grid.Places`),
        should it have more; beyond :attr:`grid_size`, the grid is gone through again.
    epochs
        Passes of each member over its own training samples.
    checkpoints
        Epochs at which weights and metrics are recorded, ascending; 0 is the initialisation.
    seed
        Seed of everything random, in [0, 2**63).
    shared_seeds
        Whether a member's seed depends on its pass through the grid alone, so that all places of
        the grid have the same seeds; by default every member has its own.
    architectures
        How members differ in network fields that the weight space may depend on.
    start
        Stored members of another population that these ones begin from; by default they begin from
        the initialisation that their hyper-parameters name.
    description, source, departures
        A sentence for people; the paper whose recipe this follows; where it departs from that.

    Raises
    ------
    InvalidConfigError
        If fields contradict each other.
    UnknownNameError
        If a hyper-parameter does not exist.
    """

    name: str
    problem: dict[str, Any]
    network: NetworkConfig
    hyperparameters: Mapping[str, distributions.Distribution] = field(default_factory=dict)
    num_members: int
    epochs: int
    checkpoints: tuple[int, ...]
    seed: int = 0
    shared_seeds: bool = False
    architectures: Architectures | None = None
    start: Start | None = None
    description: str = ""
    source: str = ""
    departures: str = ""

    def __post_init__(self) -> None:
        check_name("recipe", self.name)
        object.__setattr__(self, "hyperparameters", dict(self.hyperparameters))
        object.__setattr__(self, "checkpoints", tuple(self.checkpoints))
        hp.check(self.hyperparameters)
        if self.num_members < 1 or self.epochs < 0 or not 0 <= self.seed < SEED_LIMIT:
            raise InvalidConfigError(
                f"Expected members >= 1, epochs >= 0 and a seed in [0, 2**63) in recipe "
                f"{self.name!r}, got {self.num_members}, {self.epochs} and {self.seed}."
            )
        ascending = list(self.checkpoints) == sorted(set(self.checkpoints))
        if not self.checkpoints or not ascending or self.checkpoints[0] < 0:
            raise InvalidConfigError(
                f"Expected ascending epochs >= 0 as checkpoints of recipe {self.name!r}, "
                f"got {self.checkpoints}."
            )
        if self.checkpoints[-1] != self.epochs:
            raise InvalidConfigError(
                f"Expected the last checkpoint of recipe {self.name!r} at its last epoch "
                f"{self.epochs}, got {self.checkpoints}."
            )
        for name in hp.NETWORK_FIELDS:
            if name in self.hyperparameters and name not in to_dict(self.network):
                raise InvalidConfigError(
                    f"Recipe {self.name!r} varies {name!r}, which its network "
                    f"{self.network.name!r} does not have."
                )
        self._check_members()

    def _check_members(self) -> None:
        """Check how the fields that say what members differ in go together."""
        if self.shared_seeds and not self.places.sizes:
            raise InvalidConfigError(
                f"Recipe {self.name!r} shares seeds between the places of a grid and has no grid. "
                "Spread a hyper-parameter by Grid, or leave shared_seeds out."
            )
        if self.architectures is None:
            return
        if self.start is not None:
            raise InvalidConfigError(
                f"Recipe {self.name!r} has both a start and architectures; members that begin from "
                "stored ones have their architecture. Leave one out."
            )
        taken = [column.name for column in self.architectures.columns]
        twice = sorted(set(taken) & {*self.hyperparameters, "seed", "lineage"})
        if twice:
            raise InvalidConfigError(
                f"Recipe {self.name!r} spreads {', '.join(twice)} both as hyper-parameter and by "
                "its architectures. Leave one out."
            )

    # ---- members ------------------------------------------------------------------------------
    def draw(self, members: np.ndarray) -> dict[str, np.ndarray]:
        """Draw ``seed`` and every hyper-parameter of members, given their ids; ``[n]`` each."""
        seeds = self.seeds(members)
        along = self.places.along_axes(members)
        return {"seed": seeds} | hp.draw(self.hyperparameters, seeds, along)

    def seeds(self, members: np.ndarray) -> np.ndarray:
        """Return members' seeds, ``[n]`` int64."""
        keys = self.places.repeats(members) if self.shared_seeds else members
        return np.array([member_seed(self.seed, int(key)) for key in keys], dtype=np.int64)

    def network_fields(self, members: np.ndarray) -> list[NetworkFields]:
        """Return the network fields that each member's architecture replaces."""
        if self.architectures is None:
            return [{} for _ in members]
        if self.architectures.num_places:
            along = self.places.along_axes(members)[ARCHITECTURES_AXIS]
            return [self.architectures.at(int(place)) for place in along]
        return [
            self.architectures.sample(stream(int(seed), Purpose.ARCHITECTURE))
            for seed in self.seeds(members)
        ]

    def of_architecture(self, fields: NetworkFields) -> Self:
        """Return the recipe as members of one architecture see it.

        Raises
        ------
        InvalidConfigError
            If the network has no such field, or its values contradict each other.
        """
        if self.architectures is None and not fields:
            return self
        absent = sorted(set(fields) - set(vars(self.network)))
        if absent:
            raise InvalidConfigError(
                f"Architectures of recipe {self.name!r} replace {', '.join(absent)}, which its "
                f"network {self.network.name!r} does not have; it has: "
                f"{', '.join(vars(self.network))}."
            )
        try:
            network = from_dict(to_dict(self.network) | fields)
        except InvalidConfigError as error:
            raise InvalidConfigError(
                f"Architecture {json.dumps(fields)} of recipe {self.name!r} cannot be built: "
                f"{error}"
            ) from error
        spread = {
            name: item.as_choice() if isinstance(item, Grid) else item
            for name, item in self.hyperparameters.items()
        }
        return replace(
            self, network=network, hyperparameters=spread, shared_seeds=False, architectures=None
        )

    @property
    def places(self) -> Places:
        """The grid that members run through."""
        count = 0 if self.architectures is None else self.architectures.num_places
        return Places.of(self.hyperparameters, count)

    @property
    def grid_size(self) -> int:
        """Members that see every place of the grid once; 1 where there is no grid."""
        return self.places.size

    @property
    def network_columns(self) -> tuple[str, ...]:
        """Hyper-parameters that override fields of the network."""
        return tuple(name for name in self.hyperparameters if name in hp.NETWORK_FIELDS)

    # ---- identity -----------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """Turn into plain values; :meth:`from_dict` turns back."""
        plain = dict(vars(self))
        plain["network"] = to_dict(self.network)
        plain["hyperparameters"] = {
            name: distributions.to_json(item) for name, item in self.hyperparameters.items()
        }
        plain["checkpoints"] = list(self.checkpoints)
        if self.architectures is not None:
            plain["architectures"] = architectures.to_json(self.architectures)
        if self.start is not None:
            plain["start"] = self.start.to_json()
        return {
            key: value for key, value in plain.items() if key not in _LATER or value != _LATER[key]
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Restore a recipe written by :meth:`to_dict`."""
        plain = dict(raw)
        plain["network"] = from_dict(raw["network"])
        plain["hyperparameters"] = {
            name: distributions.from_json(item) for name, item in raw["hyperparameters"].items()
        }
        plain["checkpoints"] = tuple(raw["checkpoints"])
        if "architectures" in raw:
            plain["architectures"] = architectures.from_json(raw["architectures"])
        if "start" in raw:
            plain["start"] = Start.from_json(raw["start"])
        return cls(**plain)

    def to_json(self) -> str:
        """Serialise."""
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Restore a recipe written by :meth:`to_json`."""
        return cls.from_dict(json.loads(text))

    @property
    def sha256(self) -> str:
        """Hash of everything that determines the members.

        Description, source and departures do not count, nor do the places of the zoo that members
        begin from and of a base network's file: what they hold is part of
        :func:`data_gen.plan.identity_of` and of the network.
        """
        plain = {key: value for key, value in self.to_dict().items() if key not in _FOR_PEOPLE}
        if self.start is not None:
            plain["start"] = {key: value for key, value in plain["start"].items() if key != "zoo"}
        if plain["network"].get("sha256"):
            plain["network"] = {k: v for k, v in plain["network"].items() if k != "weights"}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def rescale_checkpoints(checkpoints: tuple[int, ...], epochs: int) -> tuple[int, ...]:
    """Move checkpoints to another number of epochs, keeping their relative places.

    >>> rescale_checkpoints((0, 1, 5, 20), 4)
    (0, 1, 4)
    """
    last = max(checkpoints[-1], 1)
    return tuple(sorted({round(epoch * epochs / last) for epoch in checkpoints} | {epochs}))
