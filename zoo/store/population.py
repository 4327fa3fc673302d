"""A population, or a part of it, to read."""

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from numpy.typing import ArrayLike

from zoo.errors import InvalidConfigError, WeightSpaceMismatchError, unknown_name
from zoo.schema import (
    CHECKPOINT,
    COLUMNS,
    DEFAULT_SPLIT,
    MEMBER,
    METRICS,
    PARTS,
    ColumnSpec,
    PopulationSpec,
)
from zoo.space import WeightSpace
from zoo.store.files import PopulationFiles
from zoo.store.frozen import read_split
from zoo.store.gather import Io, RowReader

if TYPE_CHECKING:
    from torch import Tensor, nn


class Population:
    """Members of one population: all that are committed, or the part a selection kept.

    Methods take member ids, which are the same in every view. Opened by ``zoo.open(path)[name]``.

    Parameters
    ----------
    files
        The population on disk.
    member_ids
        Members of this view, in its order; all committed ones by default.
    readers
        Readers of its weights that views share.
    """

    def __init__(
        self,
        files: PopulationFiles,
        *,
        member_ids: np.ndarray | None = None,
        readers: dict[Io, RowReader] | None = None,
    ) -> None:
        self._files = files
        everyone = np.flatnonzero(files.is_committed)
        self.member_ids: np.ndarray = everyone if member_ids is None else member_ids
        self._in_view = np.zeros(files.spec.num_members, dtype=bool)
        self._in_view[self.member_ids] = True
        self._readers: dict[Io, RowReader] = {} if readers is None else readers

    def __repr__(self) -> str:
        return (
            f"Population({self.name!r}, {self.num_members} members, {len(self.checkpoints)} "
            f"checkpoints, {self.space.num_parameters} parameters)"
        )

    def __len__(self) -> int:
        return len(self.member_ids)

    # ---- what it is ---------------------------------------------------------------------------
    @property
    def name(self) -> str:
        """Name within the zoo."""
        return self._files.name

    @property
    def spec(self) -> PopulationSpec:
        """All that was fixed before the first block was written."""
        return self._files.spec

    @property
    def space(self) -> WeightSpace:
        """Weight space of every member."""
        return self._files.spec.space

    @property
    def network(self) -> dict[str, Any]:
        """Network shared by the members, as ``zoo.networks.build`` takes it."""
        return self._files.spec.network

    @property
    def problem(self) -> dict[str, Any]:
        """What members were trained for, as ``zoo.problems.load`` takes it."""
        return self._files.spec.problem

    @property
    def recipe(self) -> dict[str, Any]:
        """How the population was made."""
        return self._files.spec.recipe

    @property
    def environment(self) -> dict[str, str]:
        """What it was made with: engine, versions, processor."""
        return self._files.spec.environment

    @property
    def checkpoints(self) -> np.ndarray:
        """Epochs of the recorded weights, ``[C]``, int64, ascending."""
        return np.array(self._files.spec.checkpoints, dtype=np.int64)

    @property
    def columns(self) -> tuple[ColumnSpec, ...]:
        """What is known of each member once."""
        return self._files.spec.columns

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is known of each member at every checkpoint."""
        return self._files.spec.metrics

    @property
    def num_members(self) -> int:
        """Members in this view."""
        return len(self.member_ids)

    @property
    def is_complete(self) -> bool:
        """Whether every planned block was committed when the zoo was opened."""
        return bool(self._files.is_committed.all())

    @property
    def version(self) -> str:
        """Sixteen hexadecimal digits that change with any stored number; equal for all views."""
        return self._files.version

    # ---- numbers ------------------------------------------------------------------------------
    @property
    def table(self) -> pl.DataFrame:
        """One row per member: its id, every column, and the final value of every metric."""
        columns = {MEMBER: pl.Series(self.member_ids.astype(np.int64))}
        columns |= {column.name: self._column(column) for column in self.columns}
        columns |= {name: pl.Series(self.metric(name)[:, -1]) for name in self.metrics}
        return pl.DataFrame(columns)

    def metric(self, name: str) -> np.ndarray:
        """Return a metric at every checkpoint, ``[members, C]`` float32.

        Raises
        ------
        UnknownNameError
            If the population has no such metric.
        """
        if name not in self.metrics:
            raise unknown_name("metric", name, self.metrics)
        return np.asarray(self._files.array(f"{METRICS}/{name}")[self.member_ids])

    def weights(self, members: ArrayLike | None = None, *, checkpoint: int = -1) -> np.ndarray:
        """Read the weights of members at one checkpoint.

        Parameters
        ----------
        members
            Member ids ``[n]``; this view's members by default.
        checkpoint
            Index into :attr:`checkpoints`; the last by default.

        Returns
        -------
        np.ndarray
            ``[n, P]`` float32.
        """
        ids = self.member_ids if members is None else np.atleast_1d(np.asarray(members))
        return self.gather(ids, np.full(len(ids), checkpoint, dtype=np.int64))

    def gather(self, rows: ArrayLike, checkpoints: ArrayLike) -> np.ndarray:
        """Read the weights of pairs.

        Parameters
        ----------
        rows
            Member ids ``[n]``.
        checkpoints
            For each, an index into :attr:`checkpoints`; negative ones count from the end.

        Returns
        -------
        np.ndarray
            ``[n, P]`` float32.

        Raises
        ------
        UnknownNameError
            If a member or a checkpoint is not in this view.
        DamagedChunkError
            If a chunk is missing, truncated or altered.
        """
        return self.reader("pread").gather(self._known(rows), self._checkpoints(checkpoints))

    def reader(self, io: Io = "auto") -> RowReader:
        """Return the reader of this population that works by ``io``; views share it."""
        if io not in self._readers:
            self._readers[io] = RowReader(self._files, io=io)
        return self._readers[io]

    # ---- networks -----------------------------------------------------------------------------
    def state_dict(self, member_id: int, *, checkpoint: int = -1) -> dict[str, "Tensor"]:
        """Return a member's tensors by name, ties repeated; integer buffers are not stored."""
        vector = torch.from_numpy(self.weights([member_id], checkpoint=checkpoint)[0])
        return self.space.state_dict(vector)

    def module(self, member_id: int, *, checkpoint: int = -1) -> "nn.Module":
        """Rebuild a member as a network in evaluation mode.

        Raises
        ------
        WeightSpaceMismatchError
            If the network that its configuration builds has other tensors.
        """
        from zoo.networks import build

        module = build(self.network_of(member_id))
        state = self.state_dict(member_id, checkpoint=checkpoint)
        floating = {
            name for name, tensor in module.state_dict().items() if tensor.is_floating_point()
        }
        if set(state) != floating:
            different = ", ".join(sorted(set(state) ^ floating))
            raise WeightSpaceMismatchError(
                f"Expected the tensors of weight space {self.space.fingerprint} for member "
                f"{member_id} of population {self.name!r}, got a network that differs in: "
                f"{different}. Did the network's code change since the population was made?"
            )
        module.load_state_dict(state, strict=False)
        return module.eval()

    def network_of(self, member_id: int) -> dict[str, Any]:
        """Return a member's own network configuration, as ``zoo.networks.build`` takes it."""
        member = self.select([member_id])
        spec = self._files.spec
        own = {name: member._column(spec.column(name))[0] for name in spec.network_columns}
        return self.network | own

    # ---- parts --------------------------------------------------------------------------------
    def where(self, sql: str) -> "Population":
        """Keep the members for which an SQL expression over :attr:`table` holds.

        A comparison with NaN does not hold, whichever way round.

        Parameters
        ----------
        sql
            Such as ``"test_accuracy > 0.5 and activation == 'relu'"``.

        Raises
        ------
        InvalidConfigError
            If the expression is no condition on the table's columns.
        """
        table = self.table.with_columns(pl.selectors.float().fill_nan(None))
        try:
            kept = table.filter(pl.sql_expr(sql))
        except pl.exceptions.PolarsError as error:
            reason = str(error).splitlines()[0]
            raise InvalidConfigError(
                f"Expected an SQL condition on the members of population {self.name!r}, "
                f"got {sql!r}: {reason}. Columns: {', '.join(table.columns)}."
            ) from error
        return self._view(kept[MEMBER].to_numpy())

    def select(self, member_ids: ArrayLike) -> "Population":
        """Keep the named members, in the order given.

        Raises
        ------
        UnknownNameError
            If a member is not in this view.
        InvalidConfigError
            If a member is named twice.
        """
        ids = self._known(member_ids)
        if len(np.unique(ids)) != len(ids):
            raise InvalidConfigError(
                f"Expected each member of population {self.name!r} once, "
                f"got {len(ids) - len(np.unique(ids))} of them again."
            )
        return self._view(ids)

    def split(self, name: str = DEFAULT_SPLIT) -> dict[str, np.ndarray]:
        """Return the member ids of each part of a frozen split, as far as they are in this view.

        Returns
        -------
        dict of str to np.ndarray
            ``train``, ``validation`` and ``test``: int64, ascending.

        Raises
        ------
        UnknownNameError
            If the population has no such split.
        """
        codes = read_split(self._files.path, name)
        return {
            part: np.flatnonzero((codes == code) & self._in_view) for code, part in enumerate(PARTS)
        }

    def _view(self, member_ids: np.ndarray) -> "Population":
        return Population(self._files, member_ids=member_ids, readers=self._readers)

    def _column(self, column: ColumnSpec) -> pl.Series:
        values = self._files.array(f"{COLUMNS}/{column.name}")[self.member_ids]
        if column.dtype == "bool":
            return pl.Series(values == 1)
        if column.dtype == "category":
            return pl.Series(np.array(column.categories, dtype=object)[values], dtype=pl.String)
        return pl.Series(values)

    def _known(self, members: ArrayLike) -> np.ndarray:
        ids = np.atleast_1d(np.asarray(members))
        if ids.size == 0:
            return np.zeros(0, dtype=np.int64)
        if ids.dtype.kind not in "iu" or ids.ndim != 1:
            raise InvalidConfigError(
                f"Expected member ids as a list of integers, got {ids.dtype} of shape {ids.shape}."
            )
        inside = (ids >= 0) & (ids < len(self._in_view))
        if not (inside.all() and self._in_view[ids].all()):
            bad = next(i for i in ids.tolist() if not self._holds(i))
            raise unknown_name("member", bad, [_ranges(self.member_ids)])
        return ids.astype(np.int64, copy=False)

    def _holds(self, member_id: int) -> bool:
        return 0 <= member_id < len(self._in_view) and bool(self._in_view[member_id])

    def _checkpoints(self, checkpoints: ArrayLike) -> np.ndarray:
        index = np.atleast_1d(np.asarray(checkpoints, dtype=np.int64))
        count = len(self._files.spec.checkpoints)
        if ((index < -count) | (index >= count)).any():
            raise unknown_name(
                f"{CHECKPOINT} index", int(index.max()), [f"0 to {count - 1}, or -{count} to -1"]
            )
        return np.where(index < 0, index + count, index)


def _ranges(ids: np.ndarray) -> str:
    """Describe ids for people: ``12 members from 0 to 40``."""
    if len(ids) == 0:
        return "none"
    return f"{len(ids)} members from {int(ids.min())} to {int(ids.max())}"
