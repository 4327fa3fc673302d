"""Measuring: here, or in processes of one thread each, which write the blocks they finish."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch

from zoo.measures.job import MeasurePlan, Measurer, MeasureRun, Progress
from zoo.measures.measure import Measure
from zoo.measures.registry import measure_named
from zoo.processes import begin_worker, finish_all, listening
from zoo.store.measuring import MeasureWriter

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
        task = (plan.measure, plan.spec.name)
        finish_all(pool, [pool.submit(_work, *task, block) for block in plan.blocks])

    def _started(self) -> ProcessPoolExecutor:
        if self._processes is None:
            context = multiprocessing.get_context("spawn")
            queue = context.SimpleQueue()
            self._stack.enter_context(listening(queue, self._report))
            self._processes = ProcessPoolExecutor(
                self._run.num_workers,
                mp_context=context,
                initializer=_start_worker,
                initargs=(self._run, queue),
            )
            self._stack.callback(self._processes.shutdown, cancel_futures=True)
        return self._processes


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
    """Set a process up."""
    begin_worker()
    _WORKER.update(measurer=Measurer(run), progress=queue.put, writers={})


def _work(name: str, stored: str, block: int) -> None:
    measurer: Measurer = _WORKER["measurer"]
    writers: dict[str, MeasureWriter] = _WORKER["writers"]
    if stored not in writers:
        writers[stored] = MeasureWriter(measurer.root, measurer.run.population, stored)
    values = measurer.measure(measure_named(name), block, _WORKER["progress"])
    writers[stored].write_block(block, values)
