"""Engines: what trains members. All draw the same numbers and differ in rounding alone."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch

from data_gen.engines.loop import LoopEngine
from data_gen.engines.members import BlockResult
from data_gen.engines.stacked import StackedEngine
from data_gen.recipe import Recipe
from zoo.errors import InvalidConfigError, unknown_name
from zoo.problems import Problem
from zoo.space import WeightSpace

__all__ = ["ENGINES", "BlockResult", "Engine", "LoopEngine", "StackedEngine", "make"]


class Engine(Protocol):
    """Trains members; which of them are trained together never shows in the result."""

    @property
    def name(self) -> str:
        """Name in :data:`ENGINES`."""

    def members_per_call(self, recipe: Recipe) -> int:
        """Return how many members a call should have to be efficient."""

    def train(
        self,
        recipe: Recipe,
        problem: Problem,
        space: WeightSpace,
        members: np.ndarray,
        hyperparameters: Mapping[str, np.ndarray],
        *,
        progress: Callable[[float], None] | None = None,
    ) -> BlockResult:
        """Train members from their initialisation to the recipe's last epoch.

        Parameters
        ----------
        recipe
            Network, epochs and checkpoints; hyper-parameters come from ``hyperparameters``.
        problem
            Data, on the CPU.
        space
            Weight space of the recipe's network.
        members
            Ids ``[n]``, for messages only.
        hyperparameters
            ``seed`` and whatever differs between members, ``[n]`` each, as :meth:`Recipe.draw`
            returns.
        progress
            Called now and then with the member-epochs done since the last call.
        """


ENGINES: dict[str, type[Any]] = {engine.name: engine for engine in (LoopEngine, StackedEngine)}


def make(name: str, *, device: str = "cpu") -> Engine:
    """Make the engine called ``name`` for a device such as ``cpu`` or ``cuda``."""
    if name not in ENGINES:
        raise unknown_name("engine", name, ENGINES)
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        raise InvalidConfigError(
            f"Expected a device that this machine has (cpu, or cuda with a GPU), got {device!r}."
        )
    engine: Engine = ENGINES[name](device=device)
    return engine
