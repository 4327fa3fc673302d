"""Processes that work for a command: set up alike, heard, and ended with it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from typing import Any

from zoo.errors import ZooError

_POLL = 0.1


def finish_all(pool: ProcessPoolExecutor, futures: Sequence["Future[None]"]) -> None:
    """Wait for all tasks; once one fails, the processes are ended.

    Raises
    ------
    ZooError
        If a process was killed; what a task raised, otherwise.
    """
    pending = set(futures)
    try:
        while pending:
            done, pending = wait(pending, timeout=0.5, return_when="FIRST_COMPLETED")
            for future in done:
                future.result()
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


@contextmanager
def listening(queue: "SimpleQueue[Any]", report: Callable[[Any], object]) -> Iterator[None]:
    """Pass on what workers put into a queue until the block ends."""
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


def begin_worker() -> None:
    """Set a process up: one thread, Ctrl-C left to the parent, and no life after it."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
