"""From a recipe to a stored population: plan, train block by block, resume where a run stopped."""

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import numpy as np
import torch

import zoo
from data_gen.engines import Engine, make
from data_gen.environment import environment
from data_gen.plan import Plan, Task, check_space, identity_of, make_plan, population_spec, space_of
from data_gen.recipe import Recipe
from zoo import problems
from zoo.errors import StoreError, ZooError
from zoo.problems import Problem
from zoo.space import WeightSpace
from zoo.store import PopulationWriter

_POLL = 0.1

Progress = Callable[[float], None]
"""Called with member-epochs done since the last call."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a recipe is carried out; nothing here changes a number of the population.

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
    """

    recipe: Recipe
    out: Path
    data: Path | None = None
    engine: str = "stacked"
    device: str = "cpu"
    workers: int | None = None

    def make_engine(self) -> Engine:
        """Make the engine."""
        return make(self.engine, device=self.device)

    @property
    def num_workers(self) -> int:
        """Processes that train."""
        if self.workers is not None:
            return max(1, self.workers)
        return 1 if self.device.startswith("cuda") else _num_processors()


def prepare(run: Run) -> tuple[PopulationWriter, Plan, Problem]:
    """Open or make the population and plan what is left; trains nothing.

    Raises
    ------
    StoreError
        If the target holds another recipe's population under that name, or the disk is too full.
    """
    problem = problems.load(run.recipe.problem, data=run.data)
    engine = run.make_engine()
    store = zoo.create(run.out, exist_ok=True)
    if run.recipe.name in store:
        writer = store.writer(run.recipe.name)
        _check_same(writer, identity_of(run.recipe, problem), run.out)
    else:
        about = environment(engine=run.engine, device=run.device, workers=run.num_workers)
        spec = population_spec(run.recipe, problem, space_of(run.recipe), environment=about)
        writer = store.create_population(spec)
    plan = make_plan(run.recipe, writer, engine, workers=run.num_workers)
    check_space(plan, run.out)
    return writer, plan, problem


def carry_out(
    run: Run,
    writer: PopulationWriter,
    plan: Plan,
    problem: Problem,
    *,
    progress: Progress | None = None,
) -> None:
    """Train what is left and finish the population.

    Every block is written by the process that trained it, whole or not at all: a run that is
    stopped or killed at any moment is resumed by running it again.
    """
    report = progress or (lambda _: None)
    if run.num_workers == 1 or len(plan.tasks) == 1:
        engine, space = run.make_engine(), writer.spec.space
        for task in plan.tasks:
            train_task(run.recipe, engine, problem, space, writer, task, report)
    elif plan.tasks:
        _in_processes(run, plan, report)
    writer.finish(seed=run.recipe.seed)


def train_task(
    recipe: Recipe,
    engine: Engine,
    problem: Problem,
    space: WeightSpace,
    writer: PopulationWriter,
    task: Task,
    progress: Progress,
) -> None:
    """Train the members of some blocks in one call and write the blocks."""
    members = np.concatenate([np.array(writer.members_of(block)) for block in task.blocks])
    drawn = recipe.draw(members)
    result = engine.train(recipe, problem, space, members, drawn, progress=progress)
    columns = drawn | {
        "lineage": members.astype(np.int64),
        "diverged": result.diverged,
        "diverged_epoch": result.diverged_epoch,
    }
    start = 0
    for block in task.blocks:
        rows = slice(start, start + len(writer.members_of(block)))
        writer.write_block(
            block,
            weights=result.weights[rows],
            metrics={name: values[rows] for name, values in result.metrics.items()},
            columns={name: values[rows] for name, values in columns.items()},
        )
        start = rows.stop


def _check_same(writer: PopulationWriter, wanted: dict[str, Any], out: Path) -> None:
    """Refuse to resume a population that another recipe, or other data, began."""
    stored = writer.spec.recipe
    keys = ("sha256", "problem_sha256")
    if all(stored.get(key) == wanted[key] for key in keys):
        return
    fields = sorted(set(stored) | set(wanted) - {"description", "source", *keys})
    other = [
        f"{key} was {json.dumps(stored.get(key))}, is {json.dumps(wanted.get(key))}"
        for key in fields
        if key not in ("description", "source", *keys) and stored.get(key) != wanted.get(key)
    ]
    raise StoreError(
        f"{out} already holds a population {writer.name!r} of another recipe or other data "
        f"({'; '.join(other) or 'the data differ'}). Resume it with the settings it was begun with, "
        "or choose another name by --name."
    )


def _num_processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# ---- processes ----------------------------------------------------------------------------------
def _in_processes(run: Run, plan: Plan, report: Progress) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    workers = min(run.num_workers, len(plan.tasks))
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(run, queue)
    )
    with _listening(queue, report):
        try:
            _finish_all([pool.submit(_work, task) for task in plan.tasks])
        except BrokenProcessPool as error:
            raise ZooError(
                "A worker process ended abruptly; was it killed, for memory perhaps? Blocks that are "
                "stored stay: run the same command again to resume, with fewer --workers if need be."
            ) from error
        except BaseException:
            # Of no use any more: one task failed, or Ctrl-C came.
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _finish_all(futures: list["Future[None]"]) -> None:
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=0.5, return_when="FIRST_COMPLETED")
        for future in done:
            future.result()


@contextmanager
def _listening(queue: "SimpleQueue[float]", report: Progress) -> Iterator[None]:
    """Pass on what workers report until the block ends."""
    over = threading.Event()

    def listen() -> None:
        while not (over.is_set() and queue.empty()):
            if queue.empty():
                over.wait(_POLL)
            else:
                report(queue.get())

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        # A worker that was stopped in the middle of a message must not hold everything up.
        thread.join(timeout=10 * _POLL)


_WORKER: dict[str, Any] = {}


def _start_worker(run: Run, queue: "SimpleQueue[float]") -> None:
    """Set a process up: one thread, Ctrl-C left to the parent, and no life after it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    writer = zoo.create(run.out, exist_ok=True).writer(run.recipe.name)
    _WORKER.update(
        recipe=run.recipe,
        engine=run.make_engine(),
        problem=problems.load(run.recipe.problem, data=run.data),
        space=writer.spec.space,
        writer=writer,
        progress=queue.put,
    )


def _work(task: Task) -> None:
    train_task(task=task, **_WORKER)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
