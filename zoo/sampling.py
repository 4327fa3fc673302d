"""Which items come next: batches of indices that depend on the seed and the epoch alone.

Under distributed training every rank computes the order of the whole epoch and takes its own
consecutive share of it. Shares differ by one item at most, and every rank gets the same number of
batches.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Self

import numpy as np
from torch.utils.data import Sampler

from zoo.errors import InvalidConfigError

BUFFER_BLOCKS = 16


class BatchSampler(Sampler[np.ndarray], ABC):
    """Yields whole batches of indices, for datasets that take an index array.

    Every item comes once per epoch, on one rank. Items are repeated only where a rank has fewer of
    them than batches (fewer items than ranks, or batches of one item that ranks cannot share
    evenly), and then one per rank at most.

    Parameters
    ----------
    num_items
        Indices run from 0 up to, not including, this.
    batch_size
        Items per batch; the last batch may be short.
    seed
        Seed of the orders.
    rank, num_ranks
        Which share of every epoch to yield, and of how many.
    drop_last
        Whether to leave out what does not fill a batch on every rank.

    Raises
    ------
    InvalidConfigError
        If the batch size is not positive, or there is no such rank.
    """

    def __init__(
        self,
        num_items: int,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        num_ranks: int = 1,
        drop_last: bool = False,
    ) -> None:
        if batch_size < 1:
            raise InvalidConfigError(f"Expected a batch size of at least 1, got {batch_size}.")
        if not 0 <= rank < num_ranks:
            raise InvalidConfigError(f"Expected a rank from 0 to {num_ranks - 1}, got {rank}.")
        self.num_items = num_items
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.num_ranks = num_ranks
        self.drop_last = drop_last
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration; Lightning calls it before every epoch."""
        self.epoch = epoch

    @property
    def sampler(self) -> Self:
        """Whose epoch decides the order: its own; Lightning looks for it here."""
        return self

    def __len__(self) -> int:
        if self.drop_last:
            return self.num_items // self.num_ranks // self.batch_size
        return -(-self.num_items // (self.num_ranks * self.batch_size))

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.batches()

    def batches(self, *, start: int = 0) -> Iterator[np.ndarray]:
        """Yield this epoch's batches ``[B]``, int64, from the one numbered ``start``."""
        if len(self) == 0:
            return
        items = self._items()
        bounds = np.minimum(np.arange(len(self) + 1) * self.batch_size, len(items))
        if bounds[-1] == bounds[-2]:  # another rank has one item more: leave one for a last batch
            bounds[-2] -= 1
        for first, end in zip(bounds[start:-1].tolist(), bounds[start + 1 :].tolist(), strict=True):
            yield items[first:end]

    @abstractmethod
    def _items(self) -> np.ndarray:
        """Return this rank's items of the epoch in the order in which it takes them, int64."""

    def _share(self, order: np.ndarray) -> np.ndarray:
        """Return this rank's part of the whole epoch, repeated where it is less than batches."""
        first, end = (len(order) * rank // self.num_ranks for rank in (self.rank, self.rank + 1))
        missing = max(0, len(self) - (end - first))
        return order[(first + np.arange(end - first + missing)) % len(order)]

    def _stream(self, *key: int) -> np.random.Generator:
        """Return random numbers of this epoch; others for every key."""
        stream = np.random.SeedSequence([self.seed, self.epoch, *key])
        return np.random.Generator(np.random.PCG64(stream))


class IndexBatchSampler(BatchSampler):
    """Batches of items in order, or in an order of their own every epoch.

    Best where any row is as cheap to read as any other: memory, or plain files on a local disk.

    Parameters
    ----------
    num_items, batch_size, seed, rank, num_ranks, drop_last
        As :class:`BatchSampler` takes them.
    shuffle
        Whether each epoch has an order of its own.

    Examples
    --------
    >>> [batch.tolist() for batch in IndexBatchSampler(5, 2, shuffle=False, seed=0)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        num_items: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        num_ranks: int = 1,
        drop_last: bool = False,
    ) -> None:
        super().__init__(
            num_items,
            batch_size,
            seed=seed,
            rank=rank,
            num_ranks=num_ranks,
            drop_last=drop_last,
        )
        self.shuffle = shuffle

    def _items(self) -> np.ndarray:
        order = np.arange(self.num_items, dtype=np.int64)
        return self._share(self._stream().permutation(order) if self.shuffle else order)


class BlockShuffleSampler(BatchSampler):
    """Batches that read every block once per epoch: blocks are shuffled, and items within a buffer.

    Best where a row costs its whole block: compressed or remote stores. Blocks come in an order of
    their own every epoch; as many as the buffer holds are mixed thoroughly before the next ones
    are touched. A reader that keeps twice as many decodes each block once; a block that two ranks
    share is read by both.

    Parameters
    ----------
    blocks
        Which block holds each item, ``[num_items]``, integers.
    batch_size, seed, rank, num_ranks, drop_last
        As :class:`BatchSampler` takes them.
    buffer_blocks
        Blocks mixed at a time, at most; half as many at least, while there are.

    Examples
    --------
    >>> sampler = BlockShuffleSampler(np.arange(6) // 2, 2, seed=0, buffer_blocks=1)
    >>> [sorted(batch.tolist()) for batch in sampler]
    [[2, 3], [4, 5], [0, 1]]
    """

    def __init__(
        self,
        blocks: np.ndarray,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        num_ranks: int = 1,
        drop_last: bool = False,
        buffer_blocks: int = BUFFER_BLOCKS,
    ) -> None:
        super().__init__(
            len(blocks),
            batch_size,
            seed=seed,
            rank=rank,
            num_ranks=num_ranks,
            drop_last=drop_last,
        )
        if buffer_blocks < 1:
            raise InvalidConfigError(f"Expected a buffer of 1 block or more, got {buffer_blocks}.")
        self.blocks = np.unique(blocks, return_inverse=True)[1]
        self.buffer_blocks = buffer_blocks

    def _items(self) -> np.ndarray:
        turn_of_block = self._stream().permutation(int(self.blocks.max()) + 1)
        share = self._share(np.argsort(turn_of_block[self.blocks], kind="stable"))
        turns = self.blocks[share]
        nth = np.cumsum(np.diff(turns, prepend=turns[:1]) != 0)  # block of this rank, counted
        num_blocks = int(nth[-1]) + 1
        num_buffers = -(-num_blocks // self.buffer_blocks)
        buffer = nth * num_buffers // num_blocks
        return share[np.lexsort((self._stream(self.rank).random(len(share)), buffer))]
