"""A recipe: everything that determines a population, whatever engine trains it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from data_gen import distributions
from data_gen import hyperparameters as hp
from data_gen.streams import SEED_LIMIT, member_seed
from zoo.errors import InvalidConfigError
from zoo.networks import NetworkConfig, from_dict, to_dict
from zoo.schema import check_name


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
        Members of the population.
    epochs
        Passes of each member over its own training samples.
    checkpoints
        Epochs at which weights and metrics are recorded, ascending; 0 is the initialisation.
    seed
        Seed of everything random, in [0, 2**63).
    description, source
        A sentence for people; the paper whose recipe this follows, and where it departs.

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
    description: str = ""
    source: str = ""

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

    # ---- members ------------------------------------------------------------------------------
    def draw(self, members: np.ndarray) -> dict[str, np.ndarray]:
        """Draw ``seed`` and every hyper-parameter of members, given their ids; ``[n]`` each."""
        seeds = np.array([member_seed(self.seed, int(m)) for m in members], dtype=np.int64)
        return {"seed": seeds} | hp.draw(self.hyperparameters, seeds)

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
        return plain

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Restore a recipe written by :meth:`to_dict`."""
        plain = dict(raw)
        plain["network"] = from_dict(raw["network"])
        plain["hyperparameters"] = {
            name: distributions.from_json(item) for name, item in raw["hyperparameters"].items()
        }
        plain["checkpoints"] = tuple(raw["checkpoints"])
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
        """Hash of everything that determines the members; description and source do not count."""
        plain = {
            key: value
            for key, value in self.to_dict().items()
            if key not in ("description", "source")
        }
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def rescale_checkpoints(checkpoints: tuple[int, ...], epochs: int) -> tuple[int, ...]:
    """Move checkpoints to another number of epochs, keeping their relative places.

    >>> rescale_checkpoints((0, 1, 5, 20), 4)
    (0, 1, 4)
    """
    last = max(checkpoints[-1], 1)
    return tuple(sorted({round(epoch * epochs / last) for epoch in checkpoints} | {epochs}))
