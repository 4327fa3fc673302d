"""Which items come next: batches of indices whose order depends on the seed and the epoch alone."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from zoo.errors import InvalidConfigError


class IndexBatchSampler(Sampler[np.ndarray]):
    """Yields whole batches of indices, for datasets that take an index array.

    Give it to a ``DataLoader`` as ``sampler`` with ``batch_size=None``.

    Parameters
    ----------
    num_items
        Indices run from 0 up to, not including, this.
    batch_size
        Items per batch; the last batch may be short.
    shuffle
        Whether each epoch has an order of its own.
    seed
        Seed of the orders.
    drop_last
        Whether to leave out a short last batch.

    Raises
    ------
    InvalidConfigError
        If the batch size is not positive.

    Examples
    --------
    >>> [batch.tolist() for batch in IndexBatchSampler(5, 2, shuffle=False, seed=0)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self, num_items: int, batch_size: int, *, shuffle: bool, seed: int, drop_last: bool = False
    ) -> None:
        if batch_size < 1:
            raise InvalidConfigError(f"Expected a batch size of at least 1, got {batch_size}.")
        self.num_items = num_items
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration; Lightning calls it before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.drop_last:
            return self.num_items // self.batch_size
        return -(-self.num_items // self.batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        order = np.arange(self.num_items, dtype=np.int64)
        if self.shuffle:
            stream = np.random.SeedSequence([self.seed, self.epoch])
            order = np.random.Generator(np.random.PCG64(stream)).permutation(order)
        for batch in range(len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size]
