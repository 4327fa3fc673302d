"""The conversion of one population: its spec, its blocks, its splits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from zoo.convert import columns as columns_
from zoo.convert.plan import Member, Plan
from zoo.convert.source import ColumnValue, Entry, Skipped, Source
from zoo.errors import InvalidConfigError, StoreError, WeightSpaceMismatchError
from zoo.layout import Architecture, Ragged
from zoo.schema import ARCHITECTURE, ARCHITECTURE_COLUMN, DIVERGED, LINEAGE, SEED, PopulationSpec
from zoo.space import WeightSpace
from zoo.store import PopulationWriter, Zoo

SOURCE_NAMES = "source"
"""Key of the members' names in the source, among the texts of the recipe."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """One population that a conversion wrote.

    Parameters
    ----------
    name
        Of the population.
    num_members
        Its members.
    epochs
        Its checkpoints.
    networks
        What it says of its network; several if it is ragged.
    is_known, reason
        Whether its weight spaces were traced; otherwise it holds names and shapes only, and why.
    num_translated
        Members whose tensors were told by order and shapes, because their names differ.
    num_diverged
        Members with weights that are not finite.
    refused_splits
        Splits of the source that separate relatives.
    """

    name: str
    num_members: int
    epochs: tuple[int, ...]
    networks: tuple[dict[str, Any], ...]
    is_known: bool
    reason: str
    num_translated: int
    num_diverged: int
    refused_splits: tuple[Skipped, ...]


class Job:
    """The conversion of one population."""

    def __init__(
        self,
        source: Source,
        plan: Plan,
        table: columns_.Table,
        renamed: Mapping[str, Mapping[str, ColumnValue]],
        problem: dict[str, Any],
    ) -> None:
        self._source = source
        self._plan = plan
        self._entries = [member.entry for member in plan.members]
        self._columns = [renamed[entry.name] for entry in self._entries]
        present = {name for columns in self._columns for name in columns}
        self._specs = tuple(spec for spec in table.specs if spec.name in present)
        self._texts = tuple(name for name in table.texts if name in present)
        self._metrics = tuple(dict.fromkeys(name for e in self._entries for name in e.metrics))
        self._problem = problem
        self._lineage = _lineage(self._entries)
        position = {id(each): index for index, each in enumerate(plan.blueprints)}
        self._architecture = [position[id(member.blueprint)] for member in plan.members]

    def carry_out(self, zoo: Zoo, report: Callable[[int], None], done: int) -> Converted:
        """Write the blocks that are missing, then the splits; ``done`` networks came before."""
        spec = self._spec()
        spaces = {each.space.fingerprint: each.space for each in self._plan.blueprints}
        writer = _writer(zoo, spec, list(spaces.values()) if self._plan.is_ragged else [])
        for block in range(writer.num_blocks):
            members = writer.members_of(block)
            if block not in writer.committed:
                writer.write_block(block, **self._block(members))
            report(done + members.stop)
        writer.finish()
        return Converted(
            name=spec.name,
            num_members=spec.num_members,
            epochs=spec.checkpoints,
            networks=tuple(each.network for each in self._plan.blueprints),
            is_known=all(each.is_known for each in self._plan.blueprints),
            reason=self._plan.reason,
            num_translated=sum(each.matching.rule != "names" for each in self._plan.members),
            num_diverged=int(zoo[spec.name].table[DIVERGED].sum()),
            refused_splits=tuple(self._freeze_splits(writer)),
        )

    def _spec(self) -> PopulationSpec:
        fields = {name for each in self._plan.blueprints for name in each.network}
        own = [spec.name for spec in self._specs]
        ragged = self._plan.is_ragged
        return PopulationSpec(
            name=self._plan.name,
            space=self._ragged() if ragged else self._plan.blueprints[0].space,
            network={} if ragged else self._plan.blueprints[0].network,
            network_columns=tuple(
                name for name in self._source.network_columns if name in own and name in fields
            ),
            problem=self._problem,
            recipe=self._recipe(),
            environment={"engine": "none", "converter": f"weight-zoo {version('weight-zoo')}"},
            num_members=len(self._entries),
            checkpoints=self._plan.epochs,
            metrics=tuple(columns_.stored_name(name) for name in self._metrics),
            columns=(
                *columns_.REQUIRED_SPECS,
                *((ARCHITECTURE_COLUMN,) if ragged else ()),
                *self._specs,
            ),
        )

    def _ragged(self) -> Ragged:
        """Plan the rows of members of several architectures."""
        architectures = [
            Architecture(
                network=each.network,
                space=each.space.fingerprint,
                num_parameters=each.space.num_parameters,
            )
            for each in self._plan.blueprints
        ]
        return Ragged.plan(architectures, self._architecture)

    def _recipe(self) -> dict[str, Any]:
        """Return where the members come from: names, texts, dtypes, and translated names."""
        texts = {name: [columns.get(name) for columns in self._columns] for name in self._texts}
        translations: dict[Any, int] = {}
        for member in self._plan.members:
            if member.matching.rule != "names":
                translations[member.matching] = translations.get(member.matching, 0) + 1
        return dict(self._source.recipe) | {
            "name": "convert",
            "format": self._source.format,
            "source_dtypes": sorted({entry.dtype for entry in self._entries}),
            "translated": [
                {"rule": matching.rule, "members": count, "names": dict(matching.names)}
                for matching, count in translations.items()
            ],
            "text": {SOURCE_NAMES: [entry.name for entry in self._entries]} | texts,
        }

    def _block(self, members: range) -> dict[str, Any]:
        """Read the networks of one block, as ``write_block`` takes them."""
        rows = slice(members.start, members.stop)
        weights = [self._read(member) for member in self._plan.members[rows]]
        entries, columns = self._entries[rows], self._columns[rows]
        values = {spec.name: columns_.values(spec, columns) for spec in self._specs}
        values[SEED] = columns_.seeds(columns)
        values[LINEAGE] = self._lineage[rows]
        if self._plan.is_ragged:
            values[ARCHITECTURE] = self._architecture[rows]
        values[DIVERGED] = [not np.isfinite(each).all() for each in weights]
        return {
            "weights": weights if self._plan.is_ragged else np.stack(weights),
            "metrics": {
                columns_.stored_name(name): np.array(
                    [_metric(entry, name, self._plan.epochs) for entry in entries], np.float32
                )
                for name in self._metrics
            },
            "columns": values,
        }

    def _read(self, member: Member) -> np.ndarray:
        """Read one network at every checkpoint, ``[C, P]`` float32."""
        space = member.blueprint.space
        theirs = dict(member.matching.names)
        weights = np.empty((len(self._plan.epochs), space.num_parameters), dtype=np.float32)
        for row, epoch in zip(weights, self._plan.epochs, strict=True):
            try:
                tensors = self._source.load(member.entry, epoch)
                for tensor in space.tensors:
                    values = _checked(tensors, theirs[tensor.name], tensor.shape)
                    start = space.offsets[tensor.name]
                    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
                        row[start : start + tensor.numel] = values.ravel()
            except Exception as error:
                error.add_note(f"while converting {member.entry.name!r}, epoch {epoch}")
                raise
        return weights

    def _freeze_splits(self, writer: PopulationWriter) -> list[Skipped]:
        """Freeze the splits that the source came with; returns those that cannot be."""
        refused = []
        for split in dict.fromkeys(name for entry in self._entries for name in entry.parts):
            parts: dict[str, list[int]] = {}
            for member, entry in enumerate(self._entries):
                if split in entry.parts:
                    parts.setdefault(entry.parts[split], []).append(member)
            try:
                writer.adopt_split(columns_.stored_name(split), parts, source=split)
            except InvalidConfigError as error:
                refused.append(Skipped(f"split {split!r} of {writer.name!r}", str(error)))
        return refused


def _writer(zoo: Zoo, spec: PopulationSpec, spaces: Sequence[WeightSpace]) -> PopulationWriter:
    """Create a population, or resume the one that the same conversion began."""
    if spec.name not in zoo:
        return zoo.create_population(spec, spaces=spaces)
    writer = zoo.writer(spec.name)
    wanted, found = spec.to_attributes(), writer.spec.to_attributes()
    differing = [key for key in wanted if key != "environment" and wanted[key] != found.get(key)]
    if differing:
        raise StoreError(
            f"Population {spec.name!r} in {zoo.path} was not made by this conversion: it differs "
            f"in {', '.join(differing)}. Give another --name or target."
        )
    return writer


def _lineage(entries: Sequence[Entry]) -> list[int]:
    """Return each member's ancestor within the population; itself where it has none."""
    position = {entry.name: index for index, entry in enumerate(entries)}
    lineage = []
    for index, entry in enumerate(entries):
        seen, parent = {entry.name}, entry.parent
        while parent in position and parent not in seen:
            seen.add(parent)
            index, parent = position[parent], entries[position[parent]].parent
        lineage.append(index)
    return lineage


def _metric(entry: Entry, name: str, epochs: Sequence[int]) -> list[float]:
    """Return a metric at the population's checkpoints, NaN where the source has none."""
    values = dict(zip(entry.epochs, entry.metrics.get(name, ()), strict=False))
    return [float(values.get(epoch, np.nan)) for epoch in epochs]


def _checked(tensors: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name not in tensors or tuple(tensors[name].shape) != shape:
        got = tuple(tensors[name].shape) if name in tensors else "none"
        raise WeightSpaceMismatchError(
            f"Expected {name!r} of shape {shape}, as when the source was scanned, got {got}. "
            "Did the source change meanwhile?"
        )
    return np.asarray(tensors[name])
