"""Members as training examples: weights, hyper-parameters and one number to predict."""

import logging
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset

from zoo.errors import InvalidConfigError, unknown_name
from zoo.schema import DIVERGED, ColumnSpec
from zoo.store.gather import Io
from zoo.store.population import Population

logger = logging.getLogger(__name__)


class WeightBatch(NamedTuple):
    """Members side by side; for a single member the first axis is absent.

    Parameters
    ----------
    weights
        ``[B, P]`` float32.
    hyperparameters
        ``[B, H]`` float32, encoded, not normalised.
    target
        ``[B]`` float32.
    member
        ``[B]`` int64, ids.
    """

    weights: Tensor
    hyperparameters: Tensor
    target: Tensor
    member: Tensor


class ZooDataset(Dataset[WeightBatch]):
    """The members of a population at one checkpoint, those that diverged left out.

    An index array gathers a whole batch at once, which is many times faster than item by item: see
    :class:`zoo.sampling.IndexBatchSampler`.

    Parameters
    ----------
    population
        Whose members to offer, in its order.
    target
        A metric, taken at the checkpoint, or a numeric column.
    checkpoint
        Index into the population's checkpoints.
    io
        How weights are read; see :class:`zoo.store.gather.RowReader`.

    Raises
    ------
    UnknownNameError
        If there is no such target or checkpoint.
    """

    def __init__(
        self, population: Population, *, target: str, checkpoint: int = -1, io: Io = "auto"
    ) -> None:
        count = len(population.checkpoints)
        if not -count <= checkpoint < count:
            known = [f"0 to {count - 1}, or -{count} to -1"]
            raise unknown_name("checkpoint index", checkpoint, known)
        self.checkpoint = checkpoint % count
        table = population.table
        values = target_values(population, target, checkpoint=self.checkpoint)
        kept = np.isfinite(values) & ~table[DIVERGED].to_numpy() & self._is_finite(population)
        if not kept.all():
            logger.info(
                "%d of %d members of %s diverged and are left out",
                (~kept).sum(),
                len(kept),
                population.name,
            )
        features, names = encode_columns(table.filter(pl.Series(kept)), population.columns)
        self.hyperparameter_names = names
        self.member_ids = population.member_ids[kept]
        self.targets = torch.from_numpy(values[kept])
        self.hyperparameters = torch.from_numpy(features)
        self._reader = population.reader(io)

    def __len__(self) -> int:
        return len(self.member_ids)

    def __getitem__(self, index: int | np.ndarray | Tensor) -> WeightBatch:
        """Return one member, or those at an index array ``[B]``."""
        single = isinstance(index, int | np.integer)
        positions = np.atleast_1d(np.asarray(index, dtype=np.int64))
        if len(positions) and not -len(self) <= positions.min() <= positions.max() < len(self):
            raise IndexError(
                f"Expected positions 0 to {len(self) - 1} in the dataset, got "
                f"{positions.min()} to {positions.max()}."
            )
        ids = self.member_ids[positions]
        weights = self._reader.gather(ids, np.full(len(ids), self.checkpoint))
        where = torch.from_numpy(positions)
        batch = WeightBatch(
            torch.from_numpy(weights),
            self.hyperparameters[where],
            self.targets[where],
            torch.from_numpy(ids),
        )
        return WeightBatch(*(part[0] for part in batch)) if single else batch

    @property
    def num_hyperparameters(self) -> int:
        """Length ``H`` of the encoded hyper-parameters."""
        return len(self.hyperparameter_names)

    def _is_finite(self, population: Population) -> np.ndarray:
        """Per member, whether every metric is finite at the checkpoint; bool."""
        finite = np.ones(population.num_members, dtype=bool)
        for name in population.metrics:
            finite &= np.isfinite(population.metric(name)[:, self.checkpoint])
        return finite


def target_values(population: Population, target: str, *, checkpoint: int) -> np.ndarray:
    """Return the number to predict for each member, ``[members]`` float32.

    Raises
    ------
    UnknownNameError
        If it is neither a metric nor a numeric column.
    """
    if target in population.metrics:
        return population.metric(target)[:, checkpoint]
    numeric = [c.name for c in population.columns if c.dtype in ("float64", "int64")]
    if target not in numeric:
        raise unknown_name("target", target, [*population.metrics, *numeric])
    return population.table[target].cast(pl.Float32).to_numpy()


def encode_columns(
    table: pl.DataFrame, columns: tuple[ColumnSpec, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Turn hyper-parameters into features for models.

    A log column becomes its decimal logarithm, a category column one feature per category; others
    stay as they are.

    Returns
    -------
    np.ndarray
        ``[members, H]`` float32.
    tuple of str
        Name of each feature, such as ``learning_rate`` and ``activation=relu``.

    Raises
    ------
    InvalidConfigError
        If a log column holds a value that has no logarithm.
    """
    features: dict[str, np.ndarray] = {}
    for column in columns:
        if column.role != "hyperparameter":
            continue
        values = table[column.name]
        if column.dtype == "category":
            for category in column.categories:
                features[f"{column.name}={category}"] = (values == category).to_numpy()
        else:
            features[column.name] = _scaled(column, values.cast(pl.Float64).to_numpy())
    if not features:
        return np.zeros((len(table), 0), dtype=np.float32), ()
    return np.stack(list(features.values()), axis=1).astype(np.float32), tuple(features)


def _scaled(column: ColumnSpec, values: np.ndarray) -> np.ndarray:
    if column.scale != "log":
        return values
    if (values <= 0).any():
        raise InvalidConfigError(
            f"Expected positive values in column {column.name!r}, whose scale is 'log', got "
            f"{values.min()}. Declare it 'linear' where 0 is a value."
        )
    return np.asarray(np.log10(values))
