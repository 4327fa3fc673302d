"""A population, or a part of it, to read."""

from functools import cached_property
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from zoo.errors import unknown_name
from zoo.measured import MeasureSpec, Output
from zoo.schema import (
    COLUMNS,
    DEFAULT_SPLIT,
    MEMBER,
    METRICS,
    PARTS,
    ColumnSpec,
    PopulationSpec,
    located,
)
from zoo.space import WeightSpace
from zoo.store.costs import Cost, total_cost
from zoo.store.disk.files import PopulationFiles
from zoo.store.disk.frozen import read_split
from zoo.store.members import Members
from zoo.store.reading.gather import Io, RowReader


class Population(Members):
    """Members of one population: all that are committed, or the part a selection kept.

    Opened by ``zoo.open(path)[name]``; how it is read, :class:`zoo.store.members.Members` says.

    Parameters
    ----------
    files
        The population on disk.
    member_ids
        Members of this view, in its order; all committed ones by default.
    kept
        Checkpoints of this view, as indices into the recorded ones; all by default.
    shared
        What views share; made anew by default.
    """

    def __init__(
        self,
        files: PopulationFiles,
        *,
        member_ids: np.ndarray | None = None,
        kept: np.ndarray | None = None,
        shared: "_Shared | None" = None,
    ) -> None:
        everyone = np.flatnonzero(files.is_committed) if member_ids is None else member_ids
        super().__init__(
            recorded=np.array(files.spec.checkpoints, dtype=np.int64),
            num_ids=files.spec.num_members,
            member_ids=everyone,
            kept=kept,
        )
        self._files = files
        self._shared = _Shared(files) if shared is None else shared

    # ---- what it is ---------------------------------------------------------------------------
    @property
    def name(self) -> str:
        """Name within the zoo."""
        return self._files.name

    @property
    def location(self) -> str:
        """Where its zoo lies: a path or an address."""
        return str(self._files.root)

    @property
    def spec(self) -> PopulationSpec:
        """All that was fixed before the first block was written."""
        return self._files.spec

    @property
    def space(self) -> WeightSpace:
        """Weight space that all members of this view share.

        Raises
        ------
        WeightSpaceMismatchError
            If they have different ones, as in a ragged population: see :meth:`by_architecture`.
        """
        return self._files.architectures.common_space(self.member_ids)

    @property
    def spaces(self) -> dict[str, WeightSpace]:
        """Weight spaces of this view's members, by fingerprint."""
        architectures = self._files.architectures
        found = np.unique(architectures.of_member[self.member_ids]).tolist()
        return {space.fingerprint: space for space in map(architectures.space, found)}

    def space_of(self, member_id: int) -> WeightSpace:
        """Return a member's weight space."""
        return self._files.architectures.common_space(self._known(member_id))

    @property
    def network(self) -> dict[str, Any]:
        """Network, or what of it all members share; see :meth:`network_of`."""
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
    def cost(self) -> Cost | None:
        """What training took, where that was recorded."""
        return total_cost(self._files.root_place, self.name)

    @property
    def columns(self) -> tuple[ColumnSpec, ...]:
        """What is known of each member once."""
        return self._files.spec.columns

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is known of each member at every checkpoint."""
        return self._files.spec.metrics

    def measure_of(self, name: str) -> MeasureSpec:
        """Return how something was measured after the fact: settings, samples, checkpoints.

        Raises
        ------
        UnknownNameError
            If there is no such measure.
        """
        if name not in self._files.outputs:
            raise unknown_name("measure", name, self.measures)
        return self._files.outputs[name][0].spec

    @property
    def is_complete(self) -> bool:
        """Whether every planned block was committed when the zoo was opened."""
        return bool(self._files.is_committed.all())

    @property
    def version(self) -> str:
        """Sixteen hexadecimal digits that change with any stored number; equal for all views."""
        return self._files.version

    def network_of(self, member_id: int) -> dict[str, Any]:
        """Return a member's own network configuration, as ``zoo.networks.build`` takes it."""
        position = int(self._known(member_id)[0])
        row = self._all_columns.row(position, named=True)
        network = self.network | self._files.architectures.network_of(position)
        network = located(network, self.location)
        return network | {name: row[name] for name in self._files.spec.network_columns}

    def vectors(
        self, member_ids: ArrayLike | None = None, *, checkpoint: int = -1
    ) -> list[np.ndarray]:
        """Read members of any architecture at one checkpoint.

        Parameters
        ----------
        member_ids
            Member ids ``[n]``; this view's members by default.
        checkpoint
            Index into :attr:`epochs`; the last by default.

        Returns
        -------
        list of np.ndarray
            Each member's flat vector ``[P]``, float32, in the order of its own weight space.
        """
        ids = self.member_ids if member_ids is None else self._known(member_ids)
        index = self._kept[self._checkpoint_index(checkpoint)]
        return self._reader("pread").vectors(ids, np.repeat(index, len(ids)))

    # ---- parts --------------------------------------------------------------------------------
    def by_architecture(self) -> dict[int, Self]:
        """Return the parts of one architecture each, by its position in ``spec.space``.

        A regular population is one part, 0.
        """
        found = self._files.architectures.of_member[self.member_ids]
        return {
            position: self._view(self.member_ids[found == position], self._kept)
            for position in np.unique(found).tolist()
        }

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
        codes = read_split(self._files.place, name)
        return {
            part: np.flatnonzero((codes == code) & self._in_view[: len(codes)])
            for code, part in enumerate(PARTS)
        }

    # ---- what views share ---------------------------------------------------------------------
    @property
    def _all_columns(self) -> pl.DataFrame:
        return self._shared.columns

    @property
    def _lengths(self) -> np.ndarray:
        return np.asarray(self._files.architectures.sizes[self.member_ids])

    def _metric(self, name: str) -> np.ndarray:
        return self._files.array(f"{METRICS}/{name}")

    def _metric_at(self, name: str, index: int) -> np.ndarray:
        return self._files.array_at(f"{METRICS}/{name}", index)

    @property
    def _outputs(self) -> dict[str, Output]:
        return {name: output for name, (_, output) in self._files.outputs.items()}

    def _measured(self, name: str) -> np.ndarray:
        return self._files.outputs[name][0].array(name)

    def _reader(self, io: Io) -> RowReader:
        return self._shared.reader(io)

    def _view(self, member_ids: np.ndarray, kept: np.ndarray) -> Self:
        return type(self)(self._files, member_ids=member_ids, kept=kept, shared=self._shared)


class _Shared:
    """What is made once for all views of a population: readers, and the columns as a table."""

    def __init__(self, files: PopulationFiles) -> None:
        self.files = files
        self.readers: dict[Io, RowReader] = {}

    def reader(self, io: Io) -> RowReader:
        if io not in self.readers:
            self.readers[io] = RowReader(self.files, io=io)
        return self.readers[io]

    @cached_property
    def columns(self) -> pl.DataFrame:
        """Row ``i`` is member ``i``; members that are not committed hold whatever fills."""
        spec = self.files.spec
        columns = {MEMBER: pl.Series(np.arange(spec.num_members, dtype=np.int64))}
        columns |= {column.name: self._column(column) for column in spec.columns}
        return pl.DataFrame(columns)

    def _column(self, column: ColumnSpec) -> pl.Series:
        values = self.files.array(f"{COLUMNS}/{column.name}")
        if column.dtype == "bool":
            return pl.Series(values == 1)
        if column.dtype == "category":  # gathered from the few names: no string object per member
            return pl.Series(column.categories, dtype=pl.String).gather(np.maximum(values, 0))
        return pl.Series(values)
