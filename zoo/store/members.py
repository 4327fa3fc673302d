"""Networks to read: what a population, a concatenation and every part of them offer alike."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from zoo.conditions import rows_where
from zoo.errors import InvalidConfigError, WeightSpaceMismatchError, unknown_name
from zoo.measured import Output
from zoo.schema import CHECKPOINT, DEFAULT_SPLIT, ColumnSpec
from zoo.space import WeightSpace
from zoo.store.reading.gather import Io
from zoo.store.reading.rows import Rows, RowsOfCheckpoints

if TYPE_CHECKING:
    import xarray
    from torch import Tensor, nn


class Members(ABC):
    """Networks to read: all that there are, or the part that a selection kept.

    A selection (:meth:`where`, :meth:`select`, :meth:`checkpoints`) is a view: it shares readers
    and caches with what it was taken from, and views of views compose. Methods take member ids,
    which are the same in every view, and checkpoints as indices into :attr:`epochs`, of which -1
    is the view's last one; only :meth:`checkpoints` takes epoch numbers.

    Parameters
    ----------
    recorded
        Epochs of all checkpoints, ascending, int64.
    num_ids
        Member ids lie in 0 ... ``num_ids - 1``.
    member_ids
        Members of this view, in its order, int64.
    kept
        Checkpoints of this view as indices into ``recorded``, ascending; all by default.
    """

    def __init__(
        self,
        *,
        recorded: np.ndarray,
        num_ids: int,
        member_ids: np.ndarray,
        kept: np.ndarray | None = None,
    ) -> None:
        self.member_ids = member_ids
        self._recorded = recorded
        self._kept = np.arange(len(recorded)) if kept is None else kept
        self._in_view = np.zeros(num_ids, dtype=bool)
        self._in_view[member_ids] = True

    def __repr__(self) -> str:
        lengths = np.unique(self._lengths)
        parameters = " to ".join(map(str, lengths[[0, -1]] if len(lengths) > 1 else lengths))
        return (
            f"{type(self).__name__}({self.name!r}, {self.num_members} members, "
            f"{len(self.epochs)} checkpoints, {parameters or 'no'} parameters)"
        )

    def __len__(self) -> int:
        return len(self.member_ids)

    # ---- what it is ---------------------------------------------------------------------------
    @property
    @abstractmethod
    def name(self) -> str:
        """Name for people."""

    @property
    @abstractmethod
    def space(self) -> WeightSpace:
        """Weight space that all members of this view share.

        Raises
        ------
        WeightSpaceMismatchError
            If they have different ones.
        """

    @abstractmethod
    def space_of(self, member_id: int) -> WeightSpace:
        """Return a member's weight space."""

    @property
    @abstractmethod
    def columns(self) -> tuple[ColumnSpec, ...]:
        """What is known of each member once."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """What is known of each member at every checkpoint."""

    @property
    def measures(self) -> tuple[str, ...]:
        """What was measured of members after the fact, sorted; see :meth:`measured`."""
        return tuple(sorted(self._outputs))

    @property
    def curves(self) -> tuple[str, ...]:
        """What :meth:`metric` knows: metrics, and numbers measured at checkpoints."""
        numbers = (name for name in self.measures if self._outputs[name].kind == "number")
        return (*self.metrics, *numbers)

    @property
    @abstractmethod
    def is_complete(self) -> bool:
        """Whether every planned block was committed when the zoo was opened."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Sixteen hexadecimal digits that change with any stored number; equal for all views."""

    @property
    def epochs(self) -> np.ndarray:
        """Epochs of this view's checkpoints, ``[C]``, int64, ascending."""
        return np.asarray(self._recorded[self._kept])

    @property
    def selection(self) -> str:
        """Sixteen hexadecimal digits of which members and checkpoints this view holds, in order."""
        numbers = np.concatenate([self.epochs, [-1], self.member_ids])
        return hashlib.sha256(numbers.astype("<i8").tobytes()).hexdigest()[:16]

    @property
    def num_members(self) -> int:
        """Members in this view."""
        return len(self.member_ids)

    # ---- numbers ------------------------------------------------------------------------------
    @property
    def table(self) -> pl.DataFrame:
        """One row per member: its id, every column, and every metric at the last checkpoint.

        Measures are among them: numbers at the last checkpoint, and those known once. What was not
        measured is NaN, or null for a category.
        """
        return self._table.clone()

    def metric(self, name: str) -> np.ndarray:
        """Return a metric, or a measure, at every checkpoint: ``[members, C]`` float32.

        Raises
        ------
        UnknownNameError
            If there is no such metric.
        """
        if name not in self.metrics and name in self.curves:
            return self.measured(name)
        if name not in self.metrics:
            raise unknown_name("metric", name, self.curves)
        return np.asarray(self._metric(name)[np.ix_(self.member_ids, self._kept)])

    def measured(self, name: str) -> np.ndarray:
        """Return what was measured after the fact.

        Returns
        -------
        np.ndarray
            Numbers ``[members, C]`` float32, NaN where nothing was measured; masks ``[members, C,
            bytes]`` uint8, 255 there; values ``[members]`` float64; codes of a category
            ``[members]`` int8 and partners ``[members, k]`` int64, -1 there.

        Raises
        ------
        UnknownNameError
            If there is no such measure.
        """
        if name not in self._outputs:
            raise unknown_name("measure", name, self.measures)
        values = np.asarray(self._measured(name)[self.member_ids])
        return values[:, self._kept] if self._outputs[name].has_checkpoints else values

    def weights(self, members: ArrayLike | None = None, *, checkpoint: int = -1) -> np.ndarray:
        """Read the weights of members at one checkpoint.

        Parameters
        ----------
        members
            Member ids ``[n]``; this view's members by default.
        checkpoint
            Index into :attr:`epochs`; the last by default.

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
            For each, an index into :attr:`epochs`; negative ones count from the end.

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
        index = self._kept[self._checkpoint_index(checkpoints)]
        return self._reader("pread").gather(self._known(rows), index)

    def reader(self, io: Io = "auto") -> Rows:
        """Return a reader that works by ``io``, for checkpoints of this view; views share it."""
        reader = self._reader(io)
        if len(self._kept) == len(self._recorded):
            return reader
        return RowsOfCheckpoints(reader, self._kept)

    def to_xarray(self) -> "xarray.Dataset":
        """Return everything under its name, with dimensions member, checkpoint and parameter.

        Weights are read when they are asked for; see :func:`zoo.store.labelled.to_xarray`.

        Raises
        ------
        InvalidConfigError
            If xarray is not installed.
        """
        try:
            from zoo.store.labelled import to_xarray
        except ImportError as error:
            raise InvalidConfigError(
                'Expected the package xarray, got none: pip install "weight-zoo[xarray]".'
            ) from error

        return to_xarray(self)

    # ---- networks -----------------------------------------------------------------------------
    @abstractmethod
    def network_of(self, member_id: int) -> dict[str, Any]:
        """Return a member's own network configuration, as ``zoo.networks.build`` takes it."""

    def state_dict(self, member_id: int, *, checkpoint: int = -1) -> "dict[str, Tensor]":
        """Return a member's tensors by name, ties repeated; integer buffers are not stored."""
        import torch

        vector = torch.from_numpy(self.weights([member_id], checkpoint=checkpoint)[0])
        return self.space_of(member_id).state_dict(vector)

    def module(self, member_id: int, *, checkpoint: int = -1) -> "nn.Module":
        """Rebuild a member as a network in evaluation mode.

        Raises
        ------
        WeightSpaceMismatchError
            If the network that its configuration builds has other tensors.
        """
        from zoo.networks import build

        state = self.state_dict(member_id, checkpoint=checkpoint)
        module = build(self.network_of(member_id))
        floating = {
            name for name, tensor in module.state_dict().items() if tensor.is_floating_point()
        }
        if set(state) != floating:
            different = ", ".join(sorted(set(state) ^ floating))
            raise WeightSpaceMismatchError(
                f"Expected the tensors of weight space {self.space_of(member_id).fingerprint} for "
                f"member {member_id} of population {self.name!r}, got a network that differs in: "
                f"{different}. Did the network's code change since the population was made?"
            )
        module.load_state_dict(state, strict=False)
        return module.eval()

    # ---- parts --------------------------------------------------------------------------------
    def where(self, sql: str) -> Self:
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
        rows = rows_where(self._table, sql, of=f"population {self.name!r}")
        return self._view(self.member_ids[rows], self._kept)

    def select(self, member_ids: ArrayLike) -> Self:
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
        return self._view(ids, self._kept)

    def checkpoints(self, which: Literal["first", "last", "all"] | int | Sequence[int]) -> Self:
        """Keep some of this view's checkpoints.

        Parameters
        ----------
        which
            ``first``, ``last`` or ``all``, or the numbers of their epochs, in any order.

        Raises
        ------
        UnknownNameError
            If there is no checkpoint at one of the epochs.
        InvalidConfigError
            If no epoch is named.
        """
        if isinstance(which, str):
            known = {"first": self._kept[:1], "last": self._kept[-1:], "all": self._kept}
            if which not in known:
                raise unknown_name("choice of checkpoints", which, [*known, "epochs as numbers"])
            return self._view(self.member_ids, known[which])
        wanted = np.unique(np.asarray(which))
        if len(wanted) == 0:
            raise InvalidConfigError(
                f"Expected at least one epoch of population {self.name!r}, got none."
            )
        for epoch in wanted[~np.isin(wanted, self.epochs)].tolist():
            raise unknown_name("epoch", epoch, self.epochs.tolist())
        return self._view(self.member_ids, self._kept[np.isin(self.epochs, wanted)])

    @abstractmethod
    def split(self, name: str = DEFAULT_SPLIT) -> dict[str, np.ndarray]:
        """Return the member ids of each part of a frozen split, as far as they are in this view.

        Returns
        -------
        dict of str to np.ndarray
            ``train``, ``validation`` and ``test``: int64, ascending.

        Raises
        ------
        UnknownNameError
            If there is no such split.
        """

    # ---- what a store of members must offer ---------------------------------------------------
    @property
    @abstractmethod
    def _all_columns(self) -> pl.DataFrame:
        """Row ``i`` is member ``i``: its id first, then every column; made once for all views."""

    @property
    @abstractmethod
    def _lengths(self) -> np.ndarray:
        """Per member of this view, the length of its flat vector; int64."""

    @abstractmethod
    def _metric(self, name: str) -> np.ndarray:
        """Return a metric of all members, one row for each id, at all recorded checkpoints."""

    @abstractmethod
    def _metric_at(self, name: str, index: int) -> np.ndarray:
        """Return a metric of all members at one recorded checkpoint, without reading the others."""

    @property
    @abstractmethod
    def _outputs(self) -> dict[str, Output]:
        """What was measured after the fact, by name."""

    @abstractmethod
    def _measured(self, name: str) -> np.ndarray:
        """Return what was measured of all members, one row for each id."""

    @abstractmethod
    def _reader(self, io: Io) -> Rows:
        """Return a reader of all members at all recorded checkpoints."""

    @abstractmethod
    def _view(self, member_ids: np.ndarray, kept: np.ndarray) -> Self:
        """Return the view with these members and these indices of recorded checkpoints."""

    # ---- details ------------------------------------------------------------------------------
    @cached_property
    def _table(self) -> pl.DataFrame:
        everything = np.array_equal(self.member_ids, np.arange(len(self._in_view)))
        columns = self._all_columns if everything else self._all_columns[self.member_ids]
        last = int(self._kept[-1])
        metrics = [
            pl.Series(name, self._metric_at(name, last)[self.member_ids]) for name in self.metrics
        ]
        return columns.with_columns(*metrics, *self._measured_series())

    def _measured_series(self) -> Iterator[pl.Series]:
        """Yield what the table shows of measures; masks and partners are no single values."""
        for name in self.measures:
            output = self._outputs[name]
            if output.kind == "number":
                yield pl.Series(name, self.measured(name)[:, -1])
            elif output.kind == "member":
                yield pl.Series(name, self.measured(name))
            elif output.kind == "category":
                codes = self.measured(name)
                # -1, where nothing was measured, becomes the last: null
                names = pl.Series([*output.categories, None], dtype=pl.String)
                yield names.gather(codes.astype(np.int64) % len(names)).alias(name)

    def _known(self, members: ArrayLike) -> np.ndarray:
        ids = np.atleast_1d(np.asarray(members))
        if ids.size == 0:
            return np.zeros(0, dtype=np.int64)
        if ids.dtype.kind not in "iu" or ids.ndim != 1:
            raise InvalidConfigError(
                f"Expected member ids as a list of integers, got {ids.dtype} of shape {ids.shape}."
            )
        known = (ids >= 0) & (ids < len(self._in_view))
        known[known] = self._in_view[ids[known]]
        if not known.all():
            raise unknown_name("member", int(ids[~known][0]), [_ranges(self.member_ids)])
        return ids.astype(np.int64, copy=False)

    def _checkpoint_index(self, checkpoints: ArrayLike) -> np.ndarray:
        """Check indices into :attr:`epochs` and count negative ones from the end."""
        index = np.atleast_1d(np.asarray(checkpoints, dtype=np.int64))
        count = len(self._kept)
        bad = (index < -count) | (index >= count)
        if bad.any():
            known = [f"0 to {count - 1}, or -{count} to -1"]
            raise unknown_name(f"{CHECKPOINT} index", int(index[bad][0]), known)
        return np.where(index < 0, index + count, index)


def _ranges(ids: np.ndarray) -> str:
    """Describe ids for people: ``12 members from 0 to 40``."""
    if len(ids) == 0:
        return "none"
    return f"{len(ids)} members from {int(ids.min())} to {int(ids.max())}"
