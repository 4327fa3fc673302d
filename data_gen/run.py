"""How a recipe is carried out, and the work on one of its tasks."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_gen.engines import Engine, make
from data_gen.plan import Task
from data_gen.recipe import Recipe
from zoo.problems import Problem
from zoo.store import PopulationWriter

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
        """Make the engine."""
        return make(self.engine, device=self.device, recipe=self.recipe)

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
    """Train the members of some blocks in one call and write the blocks.

    Blocks that are stored by now are left alone: a task may be tried again.
    """
    committed = writer.committed
    blocks = [block for block in task.blocks if block not in committed]
    if not blocks:
        return
    members = np.concatenate([np.array(writer.members_of(block)) for block in blocks])
    drawn = recipe.draw(members) | problem.assign(members)
    space = writer.spec.weight_space
    result = engine.train(recipe, problem, space, members, drawn, progress=progress)
    columns = drawn | {
        # Members that fit one signal are relatives: a split never parts them.
        "lineage": drawn.get("signal", members.astype(np.int64)),
        "diverged": result.diverged,
        "diverged_epoch": result.diverged_epoch,
    }
    start = 0
    for block in blocks:
        rows = slice(start, start + len(writer.members_of(block)))
        writer.write_block(
            block,
            weights=result.weights[rows],
            metrics={name: values[rows] for name, values in result.metrics.items()},
            columns={name: values[rows] for name, values in columns.items()},
        )
        start = rows.stop


def _num_processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
