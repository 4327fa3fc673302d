"""Populations that share a weight space and checkpoints, read as one."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import polars as pl

from zoo.measured import Output
from zoo.schema import DEFAULT_SPLIT, LINEAGE, MEMBER, PARTS, POPULATION, ColumnSpec
from zoo.space import WeightSpace
from zoo.store.members import Members
from zoo.store.merging import (
    OWN_MEMBER,
    check_alike,
    common_outputs,
    labels_of,
    merge_columns,
)
from zoo.store.population import Population
from zoo.store.reading.gather import Io
from zoo.store.reading.rows import Rows


def concat(populations: Sequence[Population]) -> "Concatenation":
    """Read populations, of one zoo or of several, as one.

    Views contribute what they hold. Member ids of the result are positions 0 ... N-1; its table
    names the ``population`` of each member and its id there, ``member_in_population``. Columns are
    joined by name, null where a population lacks one; metrics are those that all have, and measures
    those that all have by the same settings. The column
    ``lineage`` holds the first member of the family, and families never span two populations.

    Parameters
    ----------
    populations
        In their order; they share the weight space and the epochs of their checkpoints.

    Raises
    ------
    InvalidConfigError
        If there are none, if their checkpoints or the meaning of a column differ, or if a member
        comes twice.
    WeightSpaceMismatchError
        If their weight spaces differ.
    """
    check_alike(populations)
    return Concatenation(_Parts(tuple(populations)))


class Concatenation(Members):
    """Members of several populations; made by :func:`concat`.

    Parameters
    ----------
    parts
        The populations.
    member_ids
        Members of this view, in its order; all by default.
    kept
        Checkpoints of this view, as indices into those of the populations; all by default.
    """

    def __init__(
        self,
        parts: "_Parts",
        *,
        member_ids: np.ndarray | None = None,
        kept: np.ndarray | None = None,
    ) -> None:
        everyone = np.arange(len(parts.part_of), dtype=np.int64)
        super().__init__(
            recorded=parts.populations[0].epochs,
            num_ids=len(everyone),
            member_ids=everyone if member_ids is None else member_ids,
            kept=kept,
        )
        self._parts = parts

    @property
    def populations(self) -> tuple[Population, ...]:
        """What was concatenated."""
        return self._parts.populations

    @property
    def name(self) -> str:
        """Names of the populations, joined by a plus."""
        return "+".join(self._parts.labels)

    @property
    def space(self) -> WeightSpace:
        """Weight space of every member."""
        return self.populations[0].space

    def space_of(self, member_id: int) -> WeightSpace:
        """Return a member's weight space."""
        self._known(member_id)
        return self.space

    @property
    def columns(self) -> tuple[ColumnSpec, ...]:
        """Columns that any population has."""
        return self._parts.columns

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics that all populations have."""
        first, *others = (population.metrics for population in self.populations)
        return tuple(name for name in first if all(name in other for other in others))

    @property
    def is_complete(self) -> bool:
        """Whether every population was complete when its zoo was opened."""
        return all(population.is_complete for population in self.populations)

    @property
    def version(self) -> str:
        """Sixteen hexadecimal digits that change with any number or member; equal for all views."""
        return self._parts.version

    def network_of(self, member_id: int) -> dict[str, Any]:
        """Return a member's own network configuration, as ``zoo.networks.build`` takes it."""
        position = int(self._known(member_id)[0])
        population = self.populations[int(self._parts.part_of[position])]
        return population.network_of(int(self._parts.own_id[position]))

    def split(self, name: str = DEFAULT_SPLIT) -> dict[str, np.ndarray]:
        """Return the member ids of each part: those of every population's own split of that name.

        Returns
        -------
        dict of str to np.ndarray
            ``train``, ``validation`` and ``test``: int64, ascending.

        Raises
        ------
        UnknownNameError
            If one of the populations has no such split.
        """
        own = [population.split(name) for population in self.populations]
        positions = {
            part: np.concatenate(
                [self._parts.positions(index, parts[part]) for index, parts in enumerate(own)]
            )
            for part in PARTS
        }
        return {part: np.sort(ids[self._in_view[ids]]) for part, ids in positions.items()}

    # ---- what views share ---------------------------------------------------------------------
    @property
    def _all_columns(self) -> pl.DataFrame:
        return self._parts.table

    @property
    def _lengths(self) -> np.ndarray:
        return np.full(self.num_members, self.space.num_parameters)

    def _metric(self, name: str) -> np.ndarray:
        return self._parts.metric(name)

    def _metric_at(self, name: str, index: int) -> np.ndarray:
        return self._parts.metric(name)[:, index]

    @property
    def _outputs(self) -> dict[str, Output]:
        return self._parts.outputs

    def _measured(self, name: str) -> np.ndarray:
        return self._parts.measured(name)

    def _reader(self, io: Io) -> Rows:
        return self._parts.reader(io)

    def _view(self, member_ids: np.ndarray, kept: np.ndarray) -> Self:
        return type(self)(self._parts, member_ids=member_ids, kept=kept)


class _Parts:
    """The populations, and what is made once for all views of their concatenation."""

    def __init__(self, populations: tuple[Population, ...]) -> None:
        self.populations = populations
        self.labels = labels_of(populations)
        self.columns = merge_columns(populations)
        sizes = [population.num_members for population in populations]
        self.starts = np.cumsum([0, *sizes])
        self.part_of = np.repeat(np.arange(len(populations)), sizes)
        self.own_id = np.concatenate([population.member_ids for population in populations])
        self.outputs = common_outputs(populations)
        self._metrics: dict[str, np.ndarray] = {}
        self._measured: dict[str, np.ndarray] = {}
        self._readers: dict[Io, _ConcatenatedRows] = {}

    @cached_property
    def table(self) -> pl.DataFrame:
        """Row ``i`` is member ``i``: its id, where it is from, and every column."""
        whole = pl.concat([self._rows(i) for i in range(len(self.labels))], how="diagonal")
        first = whole.select(pl.col(MEMBER).min().over(POPULATION, LINEAGE)).to_series()
        names = [column.name for column in self.columns]
        return whole.with_columns(first.alias(LINEAGE)).select(
            MEMBER, POPULATION, OWN_MEMBER, *names
        )

    def _rows(self, index: int) -> pl.DataFrame:
        population = self.populations[index]
        own = [column.name for column in population.columns]
        rows = np.arange(self.starts[index], self.starts[index + 1], dtype=np.int64)
        return population.table.select(
            pl.Series(MEMBER, rows),
            pl.lit(self.labels[index], dtype=pl.String).alias(POPULATION),
            pl.col(MEMBER).alias(OWN_MEMBER),
            *own,
        )

    @cached_property
    def version(self) -> str:
        lines = [f"{each.name} {each.version} {each.selection}" for each in self.populations]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def metric(self, name: str) -> np.ndarray:
        if name not in self._metrics:
            values = [population.metric(name) for population in self.populations]
            self._metrics[name] = np.concatenate(values)
        return self._metrics[name]

    def measured(self, name: str) -> np.ndarray:
        if name not in self._measured:
            values = [population.measured(name) for population in self.populations]
            self._measured[name] = np.concatenate(values)
        return self._measured[name]

    def reader(self, io: Io) -> "_ConcatenatedRows":
        if io not in self._readers:
            readers = tuple(population.reader(io) for population in self.populations)
            self._readers[io] = _ConcatenatedRows(readers, self.part_of, self.own_id)
        return self._readers[io]

    def positions(self, index: int, own_ids: np.ndarray) -> np.ndarray:
        """Return the positions in the concatenation of some members of one population."""
        ids = self.populations[index].member_ids
        order = np.argsort(ids)
        return np.asarray(self.starts[index] + order[np.searchsorted(ids, own_ids, sorter=order)])


@dataclass(frozen=True)
class _ConcatenatedRows:
    """Rows of several readers; ``part_of`` and ``own_id`` say which and whose, by position."""

    readers: tuple[Rows, ...]
    part_of: np.ndarray
    own_id: np.ndarray

    def gather(self, members: np.ndarray, checkpoints: np.ndarray) -> np.ndarray:
        part_of, own = self.part_of[members], self.own_id[members]
        parts: list[int] = np.unique(part_of).tolist() or [0]
        if len(parts) == 1:
            return self.readers[parts[0]].gather(own, checkpoints)
        masks = [part_of == part for part in parts]
        rows = [
            self.readers[part].gather(own[mask], checkpoints[mask])
            for part, mask in zip(parts, masks, strict=True)
        ]
        out = np.empty((len(members), rows[0].shape[1]), dtype=rows[0].dtype)
        for mask, part_rows in zip(masks, rows, strict=True):
            out[mask] = part_rows
        return out

    @property
    def wants_blocks(self) -> bool:
        return any(reader.wants_blocks for reader in self.readers)

    def blocks(self, members: np.ndarray, checkpoints: np.ndarray) -> np.ndarray:
        part_of, own = self.part_of[members], self.own_id[members]
        out = np.empty(len(members), dtype=np.int64)
        for part, reader in enumerate(self.readers):
            where = np.flatnonzero(part_of == part)
            out[where] = reader.blocks(own[where], checkpoints[where]) * len(self.readers) + part
        return out
