"""Engine ``stacked``: many members at once, each with its own settings and randomness."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch

from data_gen.engines.chunk import MIN_SLOTS, Chunk, Job
from data_gen.engines.graph import Program, capture, scale_weights
from data_gen.engines.members import (
    BlockResult,
    Samples,
    samples_of,
    settings_of,
    signals_of,
)
from data_gen.engines.memory import fitting_members, keep_freed_memory
from data_gen.engines.operators import EXAMPLE_BATCH
from data_gen.hyperparameters import HYPERPARAMETERS
from data_gen.recipe import Recipe
from zoo.networks import build, example_input, to_dict
from zoo.problems import Problem
from zoo.space import WeightSpace

MOST_MEMBERS = {"cpu": 128, "cuda": 8192}
"""Members side by side, however small."""
CALL = 256
"""Members that a call should have, so that members of one batch size fill a chunk."""

_TRACED_DROPOUT = 0.5


@dataclass(frozen=True, kw_only=True)
class StackedEngine:
    """Trains members in stacks through their exported graph.

    A member alone and in any population is the same bit for bit on one machine (CPU, for operators
    that have a batched form); on a GPU, for one size of chunk and one library.

    Parameters
    ----------
    device
        ``cpu`` or ``cuda``. On the CPU one thread computes: members are what is parallel, in
        processes.
    chunk_size
        Members side by side; by default what suits network and device.
    """

    name: ClassVar[str] = "stacked"
    device: str = "cpu"
    chunk_size: int | None = None
    reason: str = ""

    def members_per_call(self, recipe: Recipe) -> int:
        """Return how many members fill the stacks."""
        program, _ = _Programs(recipe).both(_default(recipe))
        size = self._chunk_size(program, _largest_batch(recipe))
        return size if size < MOST_MEMBERS["cpu"] else max(size, CALL)

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
        """Train members; see :class:`data_gen.engines.Engine`."""
        settings = settings_of(recipe, hyperparameters, len(members))
        settings["seed"] = hyperparameters["seed"]
        result = BlockResult.empty(
            len(members), len(recipe.checkpoints), space.num_parameters, metrics=problem.metrics
        )
        samples = [samples_of(problem, settings, k) for k in range(len(members))]
        programs = _Programs(recipe)
        job = Job(
            recipe=recipe,
            problem=problem,
            space=space,
            settings=settings,
            samples=samples,
            signals=signals_of(problem, hyperparameters),
            result=result,
            programs=programs.both,
            progress=progress or (lambda _: None),
            device=torch.device(self.device),
        )
        keep_freed_memory()
        with _one_way_of_computing(self.device):
            for positions in _cohorts(settings, samples, programs):
                training, _ = programs.both(job.activation(positions[0]))
                size = self._chunk_size(training, samples[positions[0]].batch)
                for start in range(0, len(positions), size):
                    own = positions[start : start + size]
                    Chunk(job, own, fixed_size=None if training.is_batched else size).run()
        return result

    def _chunk_size(self, program: Program, batch: int) -> int:
        if self.chunk_size is not None:
            return self.chunk_size
        kind = torch.device(self.device).type
        fitting = fitting_members(kind, batch, program.footprint)
        return min(max(fitting, MIN_SLOTS), MOST_MEMBERS[kind])


class _Programs:
    """The graphs of a recipe's networks, captured when first asked for."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._known: dict[str, tuple[Program, Program]] = {}

    def both(self, activation: str) -> tuple[Program, Program]:
        """Return the graph in training and in evaluation mode of networks with this activation."""
        if activation not in self._known:
            config = to_dict(self._recipe.network)
            if "activation" in config:
                config["activation"] = activation
            if "dropout" in config and (
                config["dropout"] > 0 or "dropout" in self._recipe.hyperparameters
            ):
                config["dropout"] = _TRACED_DROPOUT
            self._known[activation] = _capture_both(json.dumps(config))
        return self._known[activation]

    def cohort(self, activation: str) -> str:
        """Name what must not share a stack with other activations; empty if it may."""
        training, _ = self.both(activation)
        others = [known[0] for known in self._known.values()]
        return "" if all(training.merges_with(other) for other in others) else activation


@lru_cache
def _capture_both(config: str) -> tuple[Program, Program]:
    """Capture a network given as JSON; a process trains many blocks of few networks."""
    network = json.loads(config)
    module, example = build(network), example_input(network, EXAMPLE_BATCH)
    return (
        scale_weights(capture(module, example, training=True)),
        scale_weights(capture(module, example, training=False)),
    )


def _default(recipe: Recipe) -> str:
    """Return some activation of the recipe's members; empty for a network without the field."""
    if "activation" in recipe.hyperparameters:
        return str(recipe.hyperparameters["activation"].support[0])
    return str(to_dict(recipe.network).get("activation", ""))


def _largest_batch(recipe: Recipe) -> int:
    sizes = recipe.hyperparameters.get("batch_size")
    support = (HYPERPARAMETERS["batch_size"].default,) if sizes is None else sizes.support
    return max(int(size or 1) for size in support)


def _cohorts(
    settings: Mapping[str, np.ndarray], samples: list[Samples], programs: _Programs
) -> list[list[int]]:
    """Group members that can share a stack; within a group, the longest training comes first."""
    activations = settings.get("activation", np.full(len(samples), "", dtype=object))
    for activation in dict.fromkeys(activations):
        programs.both(activation)
    cohorts: dict[tuple[int, str], list[int]] = {}
    for position in sorted(range(len(samples)), key=lambda k: (-samples[k].steps, k)):
        kind = (samples[position].batch, programs.cohort(activations[position]))
        cohorts.setdefault(kind, []).append(position)
    return list(cohorts.values())


@contextmanager
def _one_way_of_computing(device: str) -> Iterator[None]:
    """Fix what changes rounding: one CPU thread, no denormals, full float32 products.

    Denormal numbers are flushed to zero: dying units would slow a whole stack down.
    """
    threads = torch.get_num_threads()
    precision = torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        torch.set_num_threads(1 if torch.device(device).type == "cpu" else threads)
        torch.set_float32_matmul_precision("highest")
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(False)
            torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(precision)
