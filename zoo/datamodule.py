"""A population and a frozen split, as Lightning trains on it."""

import warnings

import lightning
from lightning.fabric.utilities.warnings import PossibleUserWarning
from torch.utils.data import DataLoader

from zoo.datasets import WeightBatch, ZooDataset
from zoo.errors import InvalidConfigError
from zoo.sampling import IndexBatchSampler
from zoo.schema import DEFAULT_SPLIT
from zoo.store.gather import Io
from zoo.store.population import Population


class ZooDataModule(lightning.LightningDataModule):
    """Batches of members for training, validation and test.

    Reading whole batches in the training process is several times faster than sending them between
    processes, so the loaders have no workers.

    Parameters
    ----------
    population
        Whose members to read; a selection keeps its share of every part.
    target
        The number to predict; see :class:`zoo.datasets.ZooDataset`.
    batch_size
        Members per batch.
    split
        Name of the frozen split.
    checkpoint
        Index into the population's checkpoints.
    seed
        Seed of the order of training batches.
    io
        How weights are read; see :class:`zoo.store.gather.RowReader`.

    Raises
    ------
    UnknownNameError
        If the target, the split or the checkpoint does not exist.
    InvalidConfigError
        If no member is left to train on.
    """

    def __init__(
        self,
        population: Population,
        *,
        target: str,
        batch_size: int = 64,
        split: str = DEFAULT_SPLIT,
        checkpoint: int = -1,
        seed: int = 0,
        io: Io = "auto",
    ) -> None:
        super().__init__()
        self.population = population
        self.batch_size = batch_size
        self.seed = seed
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

    def train_dataloader(self) -> DataLoader[WeightBatch]:
        """Return the training batches, in an order of its own every epoch."""
        return self._loader(self.train, shuffle=True)

    def val_dataloader(self) -> DataLoader[WeightBatch]:
        """Return the validation batches, always in one order."""
        return self._loader(self.validation, shuffle=False)

    def test_dataloader(self) -> DataLoader[WeightBatch]:
        """Return the test batches, always in one order."""
        return self._loader(self.test, shuffle=False)

    def predict_dataloader(self) -> DataLoader[WeightBatch]:
        """Return the test batches, to predict on."""
        return self.test_dataloader()

    def _loader(self, dataset: ZooDataset, *, shuffle: bool) -> DataLoader[WeightBatch]:
        # Lightning advises workers; they would make this loader slower.
        warnings.filterwarnings(
            "ignore", message=".*does not have many workers", category=PossibleUserWarning
        )
        sampler = IndexBatchSampler(len(dataset), self.batch_size, shuffle=shuffle, seed=self.seed)
        return DataLoader(dataset, batch_size=None, sampler=sampler)
