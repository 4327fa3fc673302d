"""Members as training examples: weights, hyper-parameters and one number to predict."""

import logging
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset

from zoo.errors import InvalidConfigError, unknown_name
from zoo.schema import DIVERGED, ColumnSpec
from zoo.store.members import Members
from zoo.store.reading.gather import Io

logger = logging.getLogger(__name__)


class WeightBatch(NamedTuple):
    """Members side by side, each at one checkpoint; for a single item the first axis is absent.

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
    epoch
        ``[B]`` int64, at which the weights were recorded.
    """

    weights: Tensor
    hyperparameters: Tensor
    target: Tensor
    member: Tensor
    epoch: Tensor


class ZooDataset(Dataset[WeightBatch]):
    """Members at one checkpoint, or at all of them, those that diverged left out.

    An index array gathers a whole batch at once, which is many times faster than item by item: see
    :mod:`zoo.sampling` and :class:`zoo.loading.WeightLoader`.

    Parameters
    ----------
    members
        A population, a concatenation or a view of one: whose members to offer, in its order.
    target
        A metric, taken at the item's checkpoint, or a numeric column.
    checkpoint
        Index into the view's checkpoints; ``"all"`` makes every checkpoint of every member an
        item, a member's own next to each other.
    io
        How weights are read; see :class:`zoo.store.reading.gather.RowReader`.

    Raises
    ------
    UnknownNameError
        If there is no such target or checkpoint.
    WeightSpaceMismatchError
        If members have different weight spaces.
    """

    def __init__(
        self,
        members: Members,
        *,
        target: str,
        checkpoint: int | Literal["all"] = -1,
        io: Io = "auto",
    ) -> None:
        taken = _taken(len(members.epochs), checkpoint)
        table = members.table
        values = target_values(members, target, checkpoints=taken)
        kept = np.isfinite(values) & _is_finite(members, taken)
        kept &= ~table[DIVERGED].to_numpy()[:, None]
        if not (offered := kept.any(axis=1)).all():
            logger.info(
                "%d of %d members of %s %s and are left out",
                (~offered).sum(),
                len(offered),
                members.name,
                "diverged, or were not measured," if target in members.measures else "diverged",
            )
        row, column = np.nonzero(kept[offered])
        features, names = encode_columns(table.filter(pl.Series(offered)), members.columns)
        self.space = members.space
        self.hyperparameter_names = names
        self.member_ids = members.member_ids[offered][row]
        self.checkpoints = taken[column]
        self.epochs = members.epochs[self.checkpoints]
        self.targets = torch.from_numpy(values[kept])
        self._row = torch.from_numpy(row)
        self._features = torch.from_numpy(features)
        self._reader = members.reader(io)

    def __len__(self) -> int:
        return len(self.member_ids)

    def __getitem__(self, index: int | Sequence[int] | np.ndarray | Tensor) -> WeightBatch:
        """Return one item, or those at an index array ``[B]``."""
        single = isinstance(index, int | np.integer)
        positions = np.atleast_1d(np.asarray(index, dtype=np.int64))
        if len(positions) and not -len(self) <= positions.min() <= positions.max() < len(self):
            raise IndexError(
                f"Expected positions 0 to {len(self) - 1} in the dataset, got "
                f"{positions.min()} to {positions.max()}."
            )
        ids, where = self.member_ids[positions], torch.from_numpy(positions)
        batch = WeightBatch(
            torch.from_numpy(self._reader.gather(ids, self.checkpoints[positions])),
            self._features[self._row[where]],
            self.targets[where],
            torch.from_numpy(ids),
            torch.from_numpy(self.epochs[positions]),
        )
        return WeightBatch(*(part[0] for part in batch)) if single else batch

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> list[WeightBatch]:
        """Return the items at some indices, gathered at once: what a plain ``DataLoader`` calls."""
        columns = (part.unbind() for part in self[indices])
        return [WeightBatch(*parts) for parts in zip(*columns, strict=True)]

    @property
    def num_hyperparameters(self) -> int:
        """Length ``H`` of the encoded hyper-parameters."""
        return len(self.hyperparameter_names)

    @property
    def wants_blocks(self) -> bool:
        """Whether a row costs its whole block: see :class:`zoo.sampling.BlockShuffleSampler`."""
        return self._reader.wants_blocks

    @property
    def blocks(self) -> np.ndarray:
        """Number of the block that holds each item, ``[items]`` int64."""
        return self._reader.blocks(self.member_ids, self.checkpoints)


def target_values(members: Members, target: str, *, checkpoints: np.ndarray) -> np.ndarray:
    """Return the number to predict for each member at some checkpoints, ``[members, n]`` float32.

    Raises
    ------
    UnknownNameError
        If it is neither a metric, nor a measure, nor a numeric column.
    """
    if target in members.curves:
        return members.metric(target)[:, checkpoints]
    numeric = [c.name for c in members.columns if c.dtype in ("float64", "int64")]
    numeric += [name for name in members.measures if members.table.schema.get(name) == pl.Float64]
    if target not in numeric:
        raise unknown_name("target", target, [*members.curves, *numeric])
    values = members.table[target].cast(pl.Float32).to_numpy()
    return np.repeat(values[:, None], len(checkpoints), axis=1)


def encode_columns(
    table: pl.DataFrame, columns: tuple[ColumnSpec, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Turn hyper-parameters into features for models.

    A log column becomes its decimal logarithm, a category column one feature per category; others
    stay as they are. A value that a concatenated population lacks is NaN, and no category.

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
                features[f"{column.name}={category}"] = values.eq_missing(category).to_numpy()
        else:
            features[column.name] = _scaled(column, values.cast(pl.Float64).to_numpy())
    if not features:
        return np.zeros((len(table), 0), dtype=np.float32), ()
    return np.stack(list(features.values()), axis=1).astype(np.float32), tuple(features)


def _taken(count: int, checkpoint: int | Literal["all"]) -> np.ndarray:
    """Return the checkpoints that items are made of, indices into the view's ``count``."""
    if checkpoint == "all":
        return np.arange(count)
    if checkpoint not in range(-count, count):
        known = [f"0 to {count - 1}, or -{count} to -1", "all"]
        raise unknown_name("checkpoint index", checkpoint, known)
    return np.array([int(checkpoint) % count])


def _is_finite(members: Members, checkpoints: np.ndarray) -> np.ndarray:
    """Return whether every metric is finite, ``[members, n]`` bool."""
    finite = np.ones((members.num_members, len(checkpoints)), dtype=bool)
    for name in members.metrics:
        finite &= np.isfinite(members.metric(name)[:, checkpoints])
    return finite


def _scaled(column: ColumnSpec, values: np.ndarray) -> np.ndarray:
    if column.scale != "log":
        return values
    if (values <= 0).any():
        raise InvalidConfigError(
            f"Expected positive values in column {column.name!r}, whose scale is 'log', got "
            f"{np.nanmin(values)}. Declare it 'linear' where 0 is a value."
        )
    return np.asarray(np.log10(values))
