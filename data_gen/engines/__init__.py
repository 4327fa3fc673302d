"""Engines: what trains members. All draw the same numbers and differ in rounding alone."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch

from data_gen.engines.loop import LoopEngine
from data_gen.engines.members import BlockResult
from data_gen.engines.native import NativeEngine, load_kernels, obstacle_of
from data_gen.engines.stacked import StackedEngine
from data_gen.recipe import Recipe
from zoo.errors import InvalidConfigError, unknown_name
from zoo.problems import Problem
from zoo.space import WeightSpace

__all__ = [
    "AUTO",
    "ENGINES",
    "BlockResult",
    "Engine",
    "LoopEngine",
    "NativeEngine",
    "StackedEngine",
    "make",
]


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


ENGINES: dict[str, type[Any]] = {
    engine.name: engine for engine in (LoopEngine, StackedEngine, NativeEngine)
}
AUTO = "auto"
"""Name that takes the fastest engine for a recipe."""

_log = logging.getLogger(__name__)


def make(name: str, *, device: str = "cpu", recipe: Recipe | None = None) -> Engine:
    """Make an engine, ready to train: native kernels are compiled here, once per machine.

    Parameters
    ----------
    name
        A name of :data:`ENGINES`; or ``auto`` for what trains ``recipe`` fastest, which is logged
        and kept in the engine's ``reason``.
    device
        ``cpu``, or such as ``cuda``.
    recipe
        What it should train; only ``auto`` asks.
    """
    if name not in ENGINES and name != AUTO:
        raise unknown_name("engine", name, (*ENGINES, AUTO))
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        raise InvalidConfigError(
            f"Expected a device that this machine has (cpu, or cuda with a GPU), got {device!r}."
        )
    engine: Engine = _choose(recipe, device) if name == AUTO else ENGINES[name](device=device)
    if engine.name == NativeEngine.name:
        load_kernels()
    return engine


def _choose(recipe: Recipe | None, device: str) -> Engine:
    if recipe is None:
        raise InvalidConfigError("Engine 'auto' depends on what it should train: pass the recipe.")
    obstacle = obstacle_of(recipe, device=device)
    reason = f"auto: {obstacle or 'there are kernels for all that the network does'}"
    engine: Engine = (StackedEngine if obstacle else NativeEngine)(device=device, reason=reason)
    _log.info("Engine %r trains %s (%s).", engine.name, recipe.name, reason)
    return engine
