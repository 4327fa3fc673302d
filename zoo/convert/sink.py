"""Writing what a source holds as populations of a zoo: block by block, resumable.

What is converted is a function of the source and the options alone, so a conversion that was
killed goes on where it stopped, and gives the same dataset version.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.convert import columns
from zoo.convert.blueprint import Blueprint, of_network
from zoo.convert.job import Converted, Job
from zoo.convert.plan import check_unique, make_plans
from zoo.convert.source import Entry, Skipped, Source
from zoo.schema import check_name
from zoo.store import create

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many networks are done, and of how many (0: not known)."""


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What became of a source: the populations written, and every input left out with its reason.

    ``version`` is that of the zoo, empty where nothing could be converted.
    """

    populations: tuple[Converted, ...]
    skipped: tuple[Skipped, ...]
    version: str = ""

    @property
    def num_members(self) -> int:
        """Networks converted."""
        return sum(population.num_members for population in self.populations)


def write(
    source: Source,
    target: Path,
    *,
    name: str,
    networks: Sequence[Mapping[str, Any]] = (),
    blueprints: Sequence[Blueprint] = (),
    problem: Mapping[str, Any] | None = None,
    ragged: bool = False,
    progress: Progress | None = None,
) -> ConversionReport:
    """Convert a source into populations of a zoo, one per architecture.

    Parameters
    ----------
    source
        Reader of the foreign format.
    target
        The zoo; made if absent, else added to or resumed.
    name
        Name of the population; several get ``name-1``, ``name-2``, ...
    networks
        Configurations that ``zoo.networks.build`` takes, for entries that do not know their own:
        the first that the tensors match counts.
    blueprints
        Further candidates, already traced.
    problem
        What the networks were trained for; what the source says by default.
    ragged
        Make one population of all architectures, each member with its own weight space.
    progress
        Told how far it is.

    Raises
    ------
    StoreError
        If the target holds populations of these names that were converted from something else.
    """
    check_name("population", name)
    report = progress or (lambda *_: None)
    entries, skipped = _scan(source, report)
    candidates = [*(of_network(network) for network in networks), *blueprints]
    plans, left_out = make_plans(source, entries, name=name, blueprints=candidates, ragged=ragged)
    skipped += left_out
    if not plans:
        return ConversionReport(populations=(), skipped=tuple(skipped))
    renamed = {entry.name: columns.renamed(entry) for entry in entries}
    table = columns.infer(list(renamed.values()), source.column_specs)
    zoo = create(target, exist_ok=True)
    total, done, converted = sum(len(plan.members) for plan in plans), 0, []
    for plan in plans:
        job = Job(source, plan, table, renamed, dict(problem or source.problem))
        converted.append(job.carry_out(zoo, lambda n: report("writing", n, total), done))
        skipped += converted[-1].refused_splits
        done += len(plan.members)
    return ConversionReport(
        populations=tuple(converted), skipped=tuple(skipped), version=zoo.version
    )


def _scan(source: Source, report: Progress) -> tuple[list[Entry], list[Skipped]]:
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    for found in source.scan():
        if isinstance(found, Skipped):
            skipped.append(found)
        else:
            entries.append(found)
        report("reading", len(entries) + len(skipped), 0)
    check_unique(entries)
    return entries, skipped
