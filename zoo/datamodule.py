"""Members and a frozen split, as Lightning trains on them."""

from typing import Literal

import lightning
import torch

from zoo.datasets import ZooDataset
from zoo.errors import InvalidConfigError, unknown_name
from zoo.loading import StartMethod, WeightLoader
from zoo.sampling import BatchSampler, BlockShuffleSampler, IndexBatchSampler
from zoo.schema import DEFAULT_SPLIT
from zoo.store.members import Members
from zoo.store.reading.gather import Io

Shuffle = Literal["auto", "rows", "blocks"]


class ZooDataModule(lightning.LightningDataModule):
    """Batches of members for training, validation and test.

    Under distributed training every rank gets its own share of each epoch and the same number of
    batches; Lightning adds no sampler of its own. No item is seen twice, unless there are fewer
    than ranks: see :class:`zoo.sampling.BatchSampler`.

    Parameters
    ----------
    population
        Whose members to read: a population, a concatenation, or a view, which keeps its share of
        every part.
    target
        The number to predict; see :class:`zoo.datasets.ZooDataset`.
    batch_size
        Items per batch, on each rank.
    split
        Name of the frozen split.
    checkpoint
        Index into the view's checkpoints, or ``"all"`` of them.
    seed
        Seed of the order of training batches.
    io
        How weights are read; see :class:`zoo.store.reading.gather.RowReader`.
    shuffle
        ``rows`` mixes all training items, ``blocks`` reads each block once per epoch and mixes
        those of a buffer. ``auto`` is ``rows`` wherever a row can be read by itself.
    prefetch
        Batches read ahead in a thread. By default two where there is something to wait for, a GPU
        or a store that reads by blocks, and none where both only compete for one processor.
    num_workers, start_method
        Worker processes that read instead; see :class:`zoo.loading.WeightLoader`.

    Raises
    ------
    UnknownNameError
        If the target, the split, the checkpoint or the way to shuffle does not exist.
    InvalidConfigError
        If no member is left to train on.
    """

    def __init__(
        self,
        population: Members,
        *,
        target: str,
        batch_size: int = 64,
        split: str = DEFAULT_SPLIT,
        checkpoint: int | Literal["all"] = -1,
        seed: int = 0,
        io: Io = "auto",
        shuffle: Shuffle = "auto",
        prefetch: int | None = None,
        num_workers: int = 0,
        start_method: StartMethod | None = None,
    ) -> None:
        super().__init__()
        if shuffle not in (known := ("auto", "rows", "blocks")):
            raise unknown_name("shuffle", shuffle, known)
        self.population = population
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.prefetch = prefetch
        self.num_workers = num_workers
        self.start_method: StartMethod | None = start_method
        self.train, self.validation, self.test = (
            ZooDataset(population.select(ids), target=target, checkpoint=checkpoint, io=io)
            for ids in population.split(split).values()
        )
        if not len(self.train):
            raise InvalidConfigError(
                f"Expected members in part 'train' of split {split!r} of population "
                f"{population.name!r}, got none that did not diverge. Select more members."
            )

    @property
    def num_hyperparameters(self) -> int:
        """Length ``H`` of the encoded hyper-parameters."""
        return self.train.num_hyperparameters

    def train_dataloader(self) -> WeightLoader:
        """Return the training batches, in an order of its own every epoch."""
        if getattr(self.trainer, "overfit_batches", 0):
            return self._by_rows(self.train, shuffle=False)  # the same few batches again and again
        by_rows = not self.train.wants_blocks if self.shuffle == "auto" else self.shuffle == "rows"
        if by_rows:
            return self._by_rows(self.train, shuffle=True)
        rank, num_ranks = self._share()
        sampler = BlockShuffleSampler(
            self.train.blocks, self.batch_size, seed=self.seed, rank=rank, num_ranks=num_ranks
        )
        return self._loader(self.train, sampler)

    def val_dataloader(self) -> WeightLoader:
        """Return the validation batches, always in one order."""
        return self._by_rows(self.validation, shuffle=False)

    def test_dataloader(self) -> WeightLoader:
        """Return the test batches, always in one order."""
        return self._by_rows(self.test, shuffle=False)

    def predict_dataloader(self) -> WeightLoader:
        """Return the test batches, to predict on."""
        return self.test_dataloader()

    def _by_rows(self, dataset: ZooDataset, *, shuffle: bool) -> WeightLoader:
        rank, num_ranks = self._share()
        sampler = IndexBatchSampler(
            len(dataset),
            self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            rank=rank,
            num_ranks=num_ranks,
        )
        return self._loader(dataset, sampler)

    def _loader(self, dataset: ZooDataset, sampler: BatchSampler) -> WeightLoader:
        ahead = 2 if dataset.wants_blocks or self._is_on_gpu() else 0
        return WeightLoader(
            dataset,
            sampler,
            prefetch=ahead if self.prefetch is None else self.prefetch,
            num_workers=self.num_workers,
            start_method=self.start_method,
            pin_memory=self._is_on_gpu(),
        )

    def _share(self) -> tuple[int, int]:
        """Return this process's rank, and how many there are that share each epoch."""
        strategy = None if self.trainer is None else self.trainer.strategy
        ranks = getattr(strategy, "distributed_sampler_kwargs", {"rank": 0, "num_replicas": 1})
        return ranks["rank"], ranks["num_replicas"]

    def _is_on_gpu(self) -> bool:
        if self.trainer is None:
            return torch.cuda.is_available()
        return self.trainer.strategy.root_device.type == "cuda"
