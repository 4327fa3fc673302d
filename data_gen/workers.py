"""Processes that train: each sets itself up once, then takes tasks and writes their blocks."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.queues import SimpleQueue
from typing import Any

import zoo
from data_gen.plan import Task
from data_gen.run import Progress, Run, train_task
from zoo import problems
from zoo.processes import begin_worker, finish_all, listening


def train_in_processes(run: Run, tasks: Sequence[Task], report: Progress) -> None:
    """Train tasks in ``run.num_workers`` processes.

    Raises
    ------
    ZooError
        If a process was killed; what a task raised, otherwise.
    """
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    workers = min(run.num_workers, len(tasks))
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(run, queue)
    )
    with listening(queue, report):
        try:
            finish_all(pool, [pool.submit(_work, task) for task in tasks])
        finally:
            pool.shutdown(cancel_futures=True)


_WORKER: dict[str, Any] = {}


def _start_worker(run: Run, queue: "SimpleQueue[float]") -> None:
    """Set a process up."""
    begin_worker()
    writer = zoo.create(run.out, exist_ok=True).writer(run.recipe.name)
    _WORKER.update(
        recipe=run.recipe,
        engine=run.make_engine(),
        problem=problems.load(run.recipe.problem, data=run.data),
        writer=writer,
        progress=queue.put,
    )


def _work(task: Task) -> None:
    train_task(task=task, **_WORKER)
