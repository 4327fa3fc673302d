"""A measuring run: what is to be measured, block by block, and what is stored already."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zoo.errors import InvalidConfigError, StoreError, unknown_name
from zoo.measured import MeasureSpec, Output
from zoo.measures.batch import Members, SampleConfig, load_problem
from zoo.measures.measure import Measure, Values
from zoo.measures.registry import in_order, measure_named
from zoo.store import Population
from zoo.store import open as open_zoo
from zoo.store.measuring import MeasureWriter, create_measure

Checkpoints = Literal["first", "last", "all"] | Sequence[int]
Progress = Callable[[int], object]
"""Called with the networks that were measured: members times checkpoints."""


@dataclass(frozen=True, kw_only=True)
class MeasureRun:
    """What to measure, of whom, on what.

    Parameters
    ----------
    path
        A zoo on this machine.
    population
        Name of the population.
    measures
        Names of :data:`zoo.measures.REGISTRY`.
    data
        Folder with the problem's files.
    problem
        The problem, where the population does not say it, or another one.
    samples
        On which samples.
    checkpoints
        ``first``, ``last``, ``all``, or numbers of epochs.
    where
        SQL condition on members; empty for all.
    settings
        Per measure, settings that differ from its own.
    suffix
        Added to every name on disk.
    replace
        Whether measures of these names with other settings are thrown away.
    other_data
        Whether data may differ from what members were trained on.
    num_workers
        Processes, of one thread each.
    """

    path: str
    population: str
    measures: tuple[str, ...]
    data: Path | None = None
    problem: Mapping[str, Any] | None = None
    samples: SampleConfig = field(default_factory=SampleConfig)
    checkpoints: Checkpoints = "last"
    where: str = ""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    suffix: str = ""
    replace: bool = False
    other_data: bool = False
    num_workers: int = 1

    def __post_init__(self) -> None:
        if not self.measures or self.num_workers < 1:
            raise InvalidConfigError(
                f"Expected at least one measure and one worker, got {list(self.measures)} and "
                f"{self.num_workers}."
            )
        for name in (*self.measures, *self.settings):
            measure_named(name)

    def settings_of(self, measure: Measure) -> Any:
        """Return the settings of one measure."""
        return measure.configured(self.settings.get(measure.name, {}))


@dataclass(frozen=True, kw_only=True)
class MeasurePlan:
    """What there is to do for one measure.

    Parameters
    ----------
    measure, spec
        Which, and as it is stored.
    blocks
        Blocks to measure, ascending.
    num_blocks
        Blocks there are, those measured already included.
    networks
        Members times checkpoints that are to be measured, block by block.
    """

    measure: str
    spec: MeasureSpec
    blocks: tuple[int, ...]
    num_blocks: int
    networks: tuple[int, ...]


class Measurer:
    """Measures blocks of one population; every process has its own.

    Parameters
    ----------
    run
        What to measure.

    Raises
    ------
    StoreError
        If the zoo lies elsewhere, or an incomplete population is to be measured by pairs.
    UnknownNameError
        If there is no such population, epoch, setting, metric or measure.
    InvalidConfigError
        If a member cannot be rebuilt, or the problem does not suit a measure.
    MissingDataError
        If the problem's data are not there, or not what members were trained on.
    """

    def __init__(self, run: MeasureRun) -> None:
        zoo = open_zoo(run.path)
        self.run = run
        self.root = zoo.path
        self.population: Population = zoo[run.population]
        self.measures = in_order(run.measures)
        needs_data = any(each.needs not in ("weights", "stored") for each in self.measures)
        problem = None
        if needs_data:
            problem = load_problem(
                self.population, data=run.data, config=run.problem, other_data=run.other_data
            )
        self.members = Members(self.population, run.samples, problem)
        self._check()

    def reopen(self) -> None:
        """Look at the zoo again, to see what was measured since."""
        self.population = open_zoo(self.run.path)[self.run.population]
        self.members = Members(self.population, self.run.samples, self.members.problem)

    def _check(self) -> None:
        self.epochs = self.population.checkpoints(self.run.checkpoints).epochs
        where = self.run.where
        self.chosen = (self.population.where(where) if where else self.population).member_ids
        if not len(self.chosen):
            raise InvalidConfigError(
                f"Expected members of population {self.population.name!r} to measure, got none: "
                f"{f'no member has {where}' if where else 'none is stored yet'}."
            )
        if any(each.needs != "stored" for each in self.measures):
            self.members.check()
        made: set[str] = set()
        for measure in self.measures:
            self._check_measure(measure, made)
            made |= {output.name + self.run.suffix for output in measure.outputs}

    def _check_measure(self, measure: Measure, made: set[str]) -> None:
        problem, name = self.members.problem, self.population.name
        if measure.needs == "classes" and problem is not None and not problem.num_classes:
            raise InvalidConfigError(
                f"Measure {measure.name!r} is of classifiers; problem {problem.name!r} of "
                f"population {name!r} has no classes."
            )
        if measure.needs == "shared" and problem is not None and problem.num_signals:
            raise InvalidConfigError(
                f"Measure {measure.name!r} needs a loss that members share; those of population "
                f"{name!r} fit signals of their own."
            )
        needs_all = measure.has_partners or measure.prepare is not None
        if needs_all and not self.population.is_complete:
            raise StoreError(
                f"Measure {measure.name!r} compares members, and who is compared depends on all "
                f"of them: finish population {name!r} first."
            )
        known = {*self.population.curves, *made}
        for needed in measure.after:
            if not any(name in known for name in self._candidates(needed)):
                raise unknown_name(
                    f"metric or measure, which measure {measure.name!r} needs to be stored,",
                    needed,
                    self.population.curves,
                )

    def _candidates(self, needed: str) -> list[str]:
        """Return under which names something that a measure needs may be stored."""
        names = needed.split("|")
        return [stored for name in names for stored in (name + self.run.suffix, name)]

    def _stored(self, measure: Measure) -> dict[str, str]:
        """Return where what a measure needs is stored, by the first of its names."""
        there = self.population.curves
        return {
            needed.split("|")[0]: next(n for n in self._candidates(needed) if n in there)
            for needed in measure.after
        }

    def settings_of(self, measure: Measure) -> Any:
        """Return a measure's settings, completed by what is stored."""
        settings = self.run.settings_of(measure)
        if measure.prepare is None:
            return settings
        last = int(np.flatnonzero(self.population.epochs == self.epochs[-1])[0])
        known = self.members.known(self.chosen, last, self._stored(measure))
        return measure.prepare(known, settings)

    def spec_of(self, measure: Measure) -> MeasureSpec:
        """Return a measure as it is stored."""
        own = self.settings_of(measure)
        settings = asdict(own)
        if measure.has_partners:
            settings |= {"partners_are": self.members.partners(own.num_partners)[1]}
        train, test = self.members.num_samples
        return MeasureSpec(
            name=measure.name,
            measure=measure.name,
            code=measure.code,
            settings=settings,
            samples=self._samples(measure),
            checkpoints=tuple(self.epochs.tolist()),
            where=self.run.where,
            outputs=measure.sized(own, train=train, test=test),
        ).with_suffix(self.run.suffix)

    def _samples(self, measure: Measure) -> dict[str, Any]:
        seed = {"seed": self.run.samples.seed}
        problem = self.members.problem
        if measure.needs == "stored":
            return {}
        if measure.needs == "weights" or problem is None:
            return seed
        train, test = self.members.num_samples
        taken = {"samples": self.run.samples.samples, "train_samples": train, "test_samples": test}
        return seed | taken | {"problem": dict(problem.config), "problem_sha256": problem.sha256}

    def measure(self, measure: Measure, block: int, report: Progress) -> Values:
        """Measure the chosen members of a block at the chosen checkpoints.

        Returns
        -------
        Values
            Per output, named as on disk, one row per member of the block.
        """
        spec, everyone = self.spec_of(measure), self.population.spec.members_of(block)
        values = {output.name: self._blank(output, len(everyone)) for output in spec.outputs}
        members = self.chosen[np.isin(self.chosen, everyone)]
        settings = self.settings_of(measure)
        count = settings.num_partners if measure.has_partners else 0
        for index in np.flatnonzero(np.isin(self.population.epochs, self.epochs)).tolist():
            for places, batch in self.members.batches(
                measure, members, index, stored=self._stored(measure), num_partners=count
            ):
                found = measure.function(batch, settings)
                rows = batch.members - everyone.start
                self._put(values, spec, found, rows, index)
                report(len(places))
        for output in spec.outputs:
            if output.kind == "partners":
                chosen = self.members.partners(count)[0][members]
                values[output.name][members - everyone.start] = chosen
        return values

    def _blank(self, output: Output, count: int) -> np.ndarray:
        fill = {"f": np.nan, "i": -1, "u": 255}[np.dtype(output.dtype).kind]
        return np.full(output.shape(self.population.spec, count), fill, output.dtype)

    def _put(
        self, values: Values, spec: MeasureSpec, found: Values, rows: np.ndarray, index: int
    ) -> None:
        for name, numbers in found.items():
            output = spec.output(name + self.run.suffix)
            where = (rows, index) if output.has_checkpoints else rows
            values[output.name][where] = numbers

    def plan(self, measure: Measure) -> tuple[MeasurePlan, MeasureWriter]:
        """Create or resume a measure on disk, and say what is missing.

        Raises
        ------
        StoreError
            If it is there with other settings, or the zoo cannot be written.
        """
        spec = self.spec_of(measure)
        writer = create_measure(self.root, self.population.name, spec, replace=self.run.replace)
        blocks = writer.missing()
        size = self.population.spec.block_size
        count = np.bincount(self.chosen // size, minlength=self.population.spec.num_blocks)
        plan = MeasurePlan(
            measure=measure.name,
            spec=spec,
            blocks=tuple(blocks),
            num_blocks=len(writer.files.committed),
            networks=tuple(int(count[block]) * len(self.epochs) for block in blocks),
        )
        return plan, writer
