"""Measuring: here, or in processes of one thread each, which write the blocks they finish."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch

from zoo.errors import ZooError
from zoo.measures.job import MeasurePlan, Measurer, MeasureRun, Progress
from zoo.measures.measure import Measure
from zoo.measures.registry import measure_named
from zoo.store.measuring import MeasureWriter

_POLL = 0.1
Announce = Callable[[MeasurePlan], object]


def measure_population(
    run: MeasureRun,
    *,
    announce: Announce = lambda _: None,
    report: Progress = lambda _: None,
) -> list[MeasurePlan]:
    """Measure what is missing and store it, one measure after the other.

    Killed at any moment, the blocks that were stored stay; the same call measures the others.

    Parameters
    ----------
    run
        What to measure.
    announce
        Told before each measure what there is to do.
    report
        Told how many networks were measured, as they are.

    Returns
    -------
    list of MeasurePlan
        What there was to do.

    Raises
    ------
    ZooError
        If the run cannot be done; see :class:`zoo.measures.job.Measurer` and
        :func:`zoo.store.measuring.create_measure`.
    """
    measurer = Measurer(run)
    plans = []
    with _Pool(run, report) as pool:
        for measure in measurer.measures:
            if measure.after:
                measurer.reopen()
            plan, writer = measurer.plan(measure)
            announce(plan)
            if measure.needs != "stored" and run.num_workers > 1 and len(plan.blocks) > 1:
                pool.measure(plan)
            else:
                _here(measurer, measure, writer, plan, report)
            writer.finish()
            plans.append(plan)
    return plans


def _here(
    measurer: Measurer,
    measure: Measure,
    writer: MeasureWriter,
    plan: MeasurePlan,
    report: Progress,
) -> None:
    with _one_thread():
        for block in plan.blocks:
            writer.write_block(block, measurer.measure(measure, block, report))


class _Pool:
    """Processes that measure, started when first needed and kept for all measures."""

    def __init__(self, run: MeasureRun, report: Progress) -> None:
        looking = tuple(name for name in run.measures if measure_named(name).needs != "stored")
        self._run = replace(run, measures=looking) if looking else run
        self._report = report
        self._stack = ExitStack()
        self._processes: ProcessPoolExecutor | None = None

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def measure(self, plan: MeasurePlan) -> None:
        """Measure and store the blocks of a plan.

        Raises
        ------
        ZooError
            If a process was killed; what measuring a block raised, otherwise.
        """
        pool = self._started()
        try:
            task = (plan.measure, plan.spec.name)
            _finish_all([pool.submit(_work, *task, block) for block in plan.blocks])
        except BrokenProcessPool as error:
            raise ZooError(
                "A worker process ended abruptly; was it killed, for memory perhaps? Stored blocks "
                "stay: run the same command to resume, with fewer --workers if need be."
            ) from error
        except BaseException:
            # Of no use any more: one block failed, or Ctrl-C came.
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise

    def _started(self) -> ProcessPoolExecutor:
        if self._processes is None:
            context = multiprocessing.get_context("spawn")
            queue = context.SimpleQueue()
            self._stack.enter_context(_listening(queue, self._report))
            self._processes = ProcessPoolExecutor(
                self._run.num_workers,
                mp_context=context,
                initializer=_start_worker,
                initargs=(self._run, queue),
            )
            self._stack.callback(self._processes.shutdown, cancel_futures=True)
        return self._processes


def _finish_all(futures: list["Future[None]"]) -> None:
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=0.5, return_when="FIRST_COMPLETED")
        for future in done:
            future.result()


@contextmanager
def _listening(queue: "SimpleQueue[int]", report: Progress) -> Iterator[None]:
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


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread, so that numbers are those of worker processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_WORKER: dict[str, Any] = {}


def _start_worker(run: MeasureRun, queue: "SimpleQueue[int]") -> None:
    """Set a process up: one thread, Ctrl-C left to the parent, and no life after it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _WORKER.update(measurer=Measurer(run), progress=queue.put, writers={})


def _work(name: str, stored: str, block: int) -> None:
    measurer: Measurer = _WORKER["measurer"]
    writers: dict[str, MeasureWriter] = _WORKER["writers"]
    if stored not in writers:
        writers[stored] = MeasureWriter(measurer.root, measurer.run.population, stored)
    values = measurer.measure(measure_named(name), block, _WORKER["progress"])
    writers[stored].write_block(block, values)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
