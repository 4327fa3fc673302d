"""What a reader of a foreign format offers: a :class:`Source` of networks, one file per format.

A source is scanned once, which reads every input and names the damaged ones; the networks found are
then loaded one at a time, in any order and again after an interruption. :mod:`zoo.convert.sink`
makes populations of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from zoo.schema import ColumnSpec

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Names and shapes of tensors, in the order of the source."""

ColumnValue = float | int | str | bool


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One network of a source, as known after the scan; holds no tensors.

    Parameters
    ----------
    name
        Stable and unique within the source; kept with the member as its provenance.
    shapes
        Its floating-point tensors in order: names of our network where the source knows them, else
        those of the source.
    epochs
        Epochs at which the source has its weights, ascending.
    network
        What ``zoo.networks.build`` takes, where the source knows the architecture.
    columns
        One value each; text, too. ``seed`` is the member's seed.
    metrics
        Per metric one value for each of ``epochs``; NaN where it was not recorded.
    parent
        Name of the entry that this one descends from or repeats; both get one lineage.
    parts
        Per split of the source the entry's part: ``train``, ``validation`` or ``test``.
    dtype
        What its numbers were stored as (``float16``, ``bfloat16``, ...); kept as float32.
    """

    name: str
    shapes: Shapes
    epochs: tuple[int, ...] = (0,)
    network: dict[str, Any] | None = None
    columns: Mapping[str, ColumnValue] = field(default_factory=dict)
    metrics: Mapping[str, Sequence[float]] = field(default_factory=dict)
    parent: str | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "float32"


@dataclass(frozen=True)
class Skipped:
    """An input that was not converted, and why."""

    name: str
    reason: str


class Source(Protocol):
    """Reader of one foreign format.

    A reader is made from a path (and options of its own); making it opens nothing but what says
    whether the path is of its format, and raises :class:`zoo.errors.MissingDataError` otherwise.
    """

    @property
    def format(self) -> str:
        """Name of the format, as ``zoo convert --from`` takes it."""

    @property
    def column_specs(self) -> Sequence[ColumnSpec]:
        """What columns mean, where the format says so; the others are inferred from their values.

        Specs of columns that no entry has are ignored.
        """

    @property
    def network_columns(self) -> Sequence[str]:
        """Columns that stand for the field of that name in each entry's ``network``.

        Entries whose networks differ in nothing else share a population.
        """

    @property
    def problem(self) -> dict[str, Any]:
        """What the networks were trained for, as ``zoo.problems.load`` takes it; JSON."""

    @property
    def recipe(self) -> dict[str, Any]:
        """What else the source says about how its networks were made; JSON."""

    def scan(self) -> Iterator[Entry | Skipped]:
        """Read every input once, in a stable order; a damaged one is skipped with its reason."""

    def load(self, entry: Entry, epoch: int) -> Mapping[str, np.ndarray]:
        """Read one network at one epoch: every tensor of ``entry.shapes``, in torch's layout."""
