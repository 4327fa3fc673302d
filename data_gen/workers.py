"""Processes that train: each sets itself up once, then takes tasks and writes their blocks."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch

import zoo
from data_gen.plan import Task
from data_gen.run import Progress, Run, train_task
from zoo import problems
from zoo.errors import ZooError

_POLL = 0.1


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
    with _listening(queue, report):
        try:
            _finish_all([pool.submit(_work, task) for task in tasks])
        except BrokenProcessPool as error:
            raise ZooError(
                "A worker process ended abruptly; was it killed, for memory perhaps? Stored blocks "
                "stay: run the same command to resume, with fewer --workers if need be."
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
