"""Members in parallel: one thread each, as many at a time as there are threads."""

import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import torch

from data_gen.engines.members import BlockResult, settings_of, signals_of
from data_gen.engines.native.compiling import compile_network, network_config
from data_gen.engines.native.member import Job, Worker
from data_gen.recipe import Recipe
from zoo.problems import Problem
from zoo.space import WeightSpace

_POLL = 0.2
"""Seconds between reports of progress."""


def train_members(
    recipe: Recipe,
    problem: Problem,
    space: WeightSpace,
    hyperparameters: Mapping[str, np.ndarray],
    *,
    threads: int,
    progress: Callable[[float], None],
) -> BlockResult:
    """Train members; see :class:`data_gen.engines.Engine`."""
    count = len(hyperparameters["seed"])
    settings = settings_of(recipe, hyperparameters, count)
    settings["seed"] = hyperparameters["seed"]
    configs = [network_config(recipe, settings, position) for position in range(count)]
    tables = {config: compile_network(config, space) for config in dict.fromkeys(configs)}
    crew = _Crew()
    job = Job(
        recipe=recipe,
        problem=problem,
        space=space,
        settings=settings,
        signals=signals_of(problem, hyperparameters),
        networks=[tables[config] for config in configs],
        configs=configs,
        result=BlockResult.empty(
            count, len(recipe.checkpoints), space.num_parameters, metrics=problem.metrics
        ),
        progress=crew.report,
    )
    crew.run(job, threads=min(threads, count), progress=progress)
    return job.result


class _Stopped(Exception):  # noqa: N818 - no error
    """Another thread failed, or Ctrl-C came."""


class _Crew:
    """Threads that take members off a list; the caller's thread hands on what they report."""

    def __init__(self) -> None:
        self._done: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._stop = threading.Event()

    def report(self, amount: float) -> None:
        """Count work that is done; raises where work should end."""
        if self._stop.is_set():
            raise _Stopped
        if amount:
            self._done.put(amount)

    def run(self, job: Job, *, threads: int, progress: Callable[[float], None]) -> None:
        """Train all members."""
        left: queue.SimpleQueue[int] = queue.SimpleQueue()
        for position in range(len(job.networks)):
            left.put(position)
        # Threads of its own: only there are denormal numbers flushed to zero.
        with ThreadPoolExecutor(threads, initializer=_flush_denormals) as pool:
            futures = [pool.submit(self._work, job, left) for _ in range(threads)]
            try:
                while wait(futures, timeout=_POLL, return_when="FIRST_EXCEPTION").not_done:
                    self._hand_on(progress)
                    if any(future.done() and future.exception() for future in futures):
                        break
            finally:
                self._stop.set()
            for future in futures:
                future.result()
        self._hand_on(progress)

    def _work(self, job: Job, left: "queue.SimpleQueue[int]") -> None:
        worker = Worker(job)
        while True:
            try:
                worker.train(left.get_nowait())
            except (queue.Empty, _Stopped):
                return

    def _hand_on(self, progress: Callable[[float], None]) -> None:
        amount = 0.0
        while not self._done.empty():
            amount += self._done.get()
        if amount:
            progress(amount)


def _flush_denormals() -> None:
    torch.set_flush_denormal(True)
