"""Batches ahead of time: one thread, or worker processes, read while the consumer computes."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, Literal, TypeVar

import numpy as np
from torch.utils.data import DataLoader

from zoo.datasets import WeightBatch, ZooDataset
from zoo.errors import InvalidConfigError
from zoo.sampling import BatchSampler, BlockShuffleSampler

StartMethod = Literal["fork", "spawn", "forkserver"]
K = TypeVar("K")
V = TypeVar("V")


class WeightLoader:
    """Iterates over the batches that a sampler names.

    A loader of its own, not a ``DataLoader``: distributed Lightning would replace a loader's
    sampler by another that knows nothing of batches. Lightning calls its sampler's ``set_epoch``
    and saves how far it got.

    Parameters
    ----------
    dataset
        Whose items to read.
    sampler
        Which of them, batch by batch.
    prefetch
        Batches to read ahead in a thread; 0 reads each when it is asked for.
    num_workers
        Processes that read instead, two batches ahead each. They pay only where decoding a chunk
        costs more than sending batches between processes. Where the sampler goes by blocks, each
        gets consecutive batches, so that workers do not decode the same blocks.
    start_method
        How processes are started; torch's default by default.
    pin_memory
        Whether to put batches into page-locked memory, from which copies to a GPU need not wait.

    Raises
    ------
    InvalidConfigError
        If a number is negative.
    """

    def __init__(
        self,
        dataset: ZooDataset,
        sampler: BatchSampler,
        *,
        prefetch: int = 0,
        num_workers: int = 0,
        start_method: StartMethod | None = None,
        pin_memory: bool = False,
    ) -> None:
        if prefetch < 0 or num_workers < 0:
            raise InvalidConfigError(
                f"Expected numbers of batches and workers of at least 0, got prefetch={prefetch} "
                f"and num_workers={num_workers}."
            )
        self.dataset = dataset
        # Not called `sampler`: that one Lightning would replace where it wants another order.
        self.batch_sampler = sampler
        self.prefetch = prefetch
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self._keys = _Keys()
        self._workers: DataLoader[WeightBatch] | None = None
        if num_workers:
            self._workers = DataLoader(
                dataset,
                batch_size=None,
                sampler=self._keys,
                num_workers=num_workers,
                persistent_workers=True,
                multiprocessing_context=start_method,
                pin_memory=pin_memory,
            )
        self._position = {"epoch": 0, "batch": 0}
        self._is_resumed = False

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[WeightBatch]:
        epoch = self.batch_sampler.epoch
        is_resumed = self._is_resumed and self._position["epoch"] == epoch
        start = self._position["batch"] if is_resumed else 0
        self._is_resumed = False
        with closing(self._batches(self._indices(start))) as batches:
            for number, batch in enumerate(batches, start + 1):
                self._position = {"epoch": epoch, "batch": number}
                yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, and how many of its batches were handed out."""
        return dict(self._position)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after those batches when that epoch is iterated next; others start at 0."""
        self._position = {"epoch": state["epoch"], "batch": state["batch"]}
        self._is_resumed = True

    def _indices(self, start: int) -> Iterator[np.ndarray]:
        """Yield what to read in this epoch, from the batch numbered ``start``."""
        if self.num_workers < 2 or not isinstance(self.batch_sampler, BlockShuffleSampler):
            return self.batch_sampler.batches(start=start)
        batches = list(self.batch_sampler.batches())
        turn = np.argsort(np.arange(len(batches)) % self.num_workers, kind="stable")
        return iter([batches[number] for number in np.argsort(turn).tolist()[start:]])

    def _batches(self, keys: Iterator[np.ndarray]) -> Generator[WeightBatch]:
        if self._workers is not None:
            self._keys.remaining = keys
            yield from self._workers
        elif self.prefetch:
            yield from read_ahead(self._read, keys, depth=self.prefetch)
        else:
            yield from map(self._read, keys)

    def _read(self, key: np.ndarray) -> WeightBatch:
        batch = self.dataset[key]
        return WeightBatch(*(part.pin_memory() for part in batch)) if self.pin_memory else batch


def read_ahead(read: Callable[[K], V], keys: Iterable[K], *, depth: int) -> Generator[V]:
    """Yield ``read(key)`` for every key, in order, read by one thread up to ``depth`` keys ahead.

    An error is raised where its value would have come, with the traceback of the thread. A
    consumer that stops early waits for the key being read, no longer.

    >>> list(read_ahead(str, range(3), depth=2))
    ['0', '1', '2']
    """
    pending: deque[Future[V]] = deque()
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="zoo-read-ahead")
    try:
        for key in keys:
            pending.append(pool.submit(read, key))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Keys:
    """What worker processes are to read in this epoch; lets them outlive it."""

    remaining: Iterator[np.ndarray] = iter(())

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.remaining
