"""How a recipe is carried out, and the work on one of its tasks."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_gen.ancestors import open_ancestors, reopen_ancestors
from data_gen.assignment import columns_of, settings_of
from data_gen.engines import AUTO, Engine, LoopEngine, StackedEngine, make
from data_gen.plan import Task, listed_architectures
from data_gen.ragged import groups_of
from data_gen.recipe import Recipe
from data_gen.results import Results
from zoo.problems import Problem
from zoo.schema import SEED
from zoo.store import PopulationWriter
from zoo.store.costs import Stopwatch, record_cost

Progress = Callable[[float], None]
"""Called with member-epochs done since the last call."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a recipe is carried out; of all this, only the engine changes numbers, by rounding.

    Parameters
    ----------
    recipe
        What to make.
    out
        The zoo, made where absent.
    data
        Folder with the problem's files, where it reads any.
    engine, device
        What trains.
    workers
        Processes; 1 trains in this one. By default one per processor.
    ray
        A Ray cluster that trains in place of processes of this one: ``local``, ``auto`` or an
        address; see :func:`data_gen.cluster.find_cluster`.
    """

    recipe: Recipe
    out: Path
    data: Path | None = None
    engine: str = "stacked"
    device: str = "cpu"
    workers: int | None = None
    ray: str | None = None

    def make_engine(self) -> Engine:
        """Make the engine; ``auto`` takes the fastest that trains all architectures."""
        ancestors = open_ancestors(self.recipe) if self.engine == AUTO else None
        architectures = self.recipe.architectures
        if self.engine == AUTO and architectures is not None and not architectures.num_places:
            return _one_by_one(self.device)
        views = listed_architectures(self.recipe if ancestors is None else ancestors.recipe)
        engine = make(self.engine, device=self.device, recipe=views[0])
        for view in views[1:] if self.engine == AUTO else ():
            other = make(AUTO, device=self.device, recipe=view)
            engine = engine if other.name == engine.name else _slower(engine, other)
        return engine

    @property
    def num_workers(self) -> int:
        """Processes that train."""
        if self.workers is not None:
            return max(1, self.workers)
        return 1 if self.device.startswith("cuda") else _num_processors()


def train_task(
    recipe: Recipe,
    engine: Engine,
    problem: Problem,
    writer: PopulationWriter,
    task: Task,
    progress: Progress,
) -> None:
    """Train the members of some blocks and write the blocks: one call per architecture.

    Blocks that are stored by now are left alone: a task may be tried again.
    """
    committed = writer.committed
    blocks = [block for block in task.blocks if block not in committed]
    if not blocks:
        return
    members = np.concatenate([np.array(writer.members_of(block)) for block in blocks])
    ancestors = reopen_ancestors(recipe, str(writer.spec.recipe.get("start_version", "")))
    view = recipe if ancestors is None else ancestors.recipe
    drawn = settings_of(recipe, problem, members, ancestors)
    begun = Stopwatch()
    results = Results.empty(len(members))
    for group in groups_of(view, writer, members):
        own = {name: values[group.positions] for name, values in drawn.items()}
        if ancestors is not None:
            own |= ancestors.vectors(members[group.positions], own[SEED])
        trained = engine.train(
            group.recipe,
            problem,
            group.space,
            members[group.positions],
            own,
            progress=progress,
        )
        results.place(trained, group.positions, group.architecture)
    cost = begun.read()
    columns = columns_of(recipe, problem, members, drawn) | results.columns
    start = 0
    for block in blocks:
        rows = slice(start, start + len(writer.members_of(block)))
        writer.write_block(
            block,
            weights=results.weights(rows, ragged=recipe.architectures is not None),
            metrics={name: values[rows] for name, values in results.metrics.items()},
            columns={column.name: columns[column.name][rows] for column in writer.spec.columns},
        )
        record_cost(writer.root, writer.name, block, cost.share((rows.stop - start) / len(members)))
        start = rows.stop


def _one_by_one(device: str) -> Engine:
    """Return the engine for members that hardly share an architecture: stacks would hold one."""
    reason = "auto: architectures are drawn, so that hardly any two members are alike"
    if device == "cpu":
        return LoopEngine(reason=reason)
    return StackedEngine(device=device, reason=reason)


def _slower(one: Engine, other: Engine) -> Engine:
    """Return the engine that can train the networks of both."""
    return one if one.name == StackedEngine.name else other


def _num_processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
