"""The command ``zoo measure``."""

import json
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from zoo.errors import InvalidConfigError, UnknownNameError, unknown_name
from zoo.measures.batch import SampleConfig
from zoo.measures.job import Checkpoints, MeasurePlan, MeasureRun
from zoo.measures.registry import REGISTRY
from zoo.store import open as open_zoo

_WORDS = ("first", "last", "all")


def measure(
    path: str,
    *,
    measures: str,
    population: str | None = None,
    data: Path | None = None,
    problem: str | None = None,
    other_data: bool = False,
    samples: int = 512,
    checkpoints: str = "last",
    where: str | None = None,
    seed: int = 0,
    settings: str | None = None,
    name_suffix: str = "",
    replace: bool = False,
    workers: int = 1,
) -> None:
    """Measure stored networks and store the numbers beside them; resumes what was interrupted.

    Parameters
    ----------
    path
        A zoo on this machine.
    measures
        Names, joined by commas; "list" shows them all.
    population
        Which to measure; all by default.
    data
        Folder with the data set's files, for problems that read files.
    problem
        JSON of the problem, such as '{"name": "cifar10"}', where the population does not say it.
    other_data
        Measure on other data than members were trained on.
    samples
        Training and test samples to measure on.
    checkpoints
        last, first, all, or epochs joined by commas.
    where
        SQL condition, such as "test_accuracy > 0.5": only these members are measured.
    seed
        Chooses samples and partners, and starts everything random.
    settings
        JSON of settings per measure, such as '{"hessian": {"max_probes": 20}}'.
    name_suffix
        Added to every name, to keep numbers of other settings side by side.
    replace
        Throw numbers of other settings away.
    workers
        Processes, of one thread each.
    """
    names = tuple(name.strip() for name in measures.split(",") if name.strip())
    if names == ("list",):
        _list()
        return
    zoo = open_zoo(path)
    if population is not None and population not in zoo:
        raise unknown_name("population", population, zoo.populations)
    for name in (population,) if population else zoo.populations:
        _measure(
            MeasureRun(
                path=path,
                population=name,
                measures=names,
                data=data,
                problem=None if problem is None else _object("problem", problem),
                samples=SampleConfig(samples=samples, seed=seed),
                checkpoints=_checkpoints(checkpoints),
                where=where or "",
                settings=_object("settings", settings or "{}"),
                suffix=name_suffix,
                replace=replace,
                other_data=other_data,
                num_workers=workers,
            )
        )


def _measure(run: MeasureRun) -> None:
    from tqdm import tqdm

    from zoo.measures.workers import measure_population

    with tqdm(unit="network", delay=1, leave=False) as bar:
        told = _Told(bar, run)
        measure_population(run, announce=told.announce, report=told.report)
    print(f"stored in {run.path}, population {run.population!r}: {', '.join(told.outputs)}")


class _Told:
    """Says what there is to do, shows how far it is, and what the rest will cost."""

    def __init__(self, bar: Any, run: MeasureRun) -> None:
        self.bar = bar
        self.run = run
        self.outputs: list[str] = []
        self._plan: MeasurePlan | None = None

    def announce(self, plan: MeasurePlan) -> None:
        self._plan, self._started, self._said = plan, time.monotonic(), False
        self.bar.reset(total=sum(plan.networks))
        self.bar.set_description(plan.spec.name)
        self.outputs += [output.name for output in plan.spec.outputs]
        epochs = ", ".join(map(str, plan.spec.checkpoints))
        stored = plan.num_blocks - len(plan.blocks)
        self.bar.write(
            f"{self.run.population}: {plan.spec.name}: {sum(plan.networks):,} networks to measure "
            f"(epochs {epochs}), {stored} of {plan.num_blocks} blocks are stored"
        )

    def report(self, networks: int) -> None:
        self.bar.update(networks)
        plan = self._plan
        assert plan is not None, "measuring begins with its plan"
        first = next((count for count in plan.networks if count), 0)
        if not self._said and first <= self.bar.n < sum(plan.networks):
            self._said = True
            each = (time.monotonic() - self._started) / self.bar.n
            rest = each * (sum(plan.networks) - self.bar.n)
            self.bar.write(f"  {each:.3g} s a network, about {_duration(rest)} for the rest")


def _duration(seconds: float) -> str:
    """Say how long for people.

    >>> _duration(7261.0)
    '2 h 1 min'
    """
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _list() -> None:
    for measure in REGISTRY.values():
        print(f"{measure.name}: {measure.description}")
        for output in measure.outputs:
            unit = f" [{output.unit}]" if output.unit else ""
            print(f"  {output.name}{unit}  {output.description}".rstrip())
        known = [
            f"{each.name} {getattr(measure.settings, each.name)}"
            for each in fields(measure.settings)
        ]
        if known:
            print(f"  settings: {', '.join(known)}")
        if measure.after:
            print(f"  needs: {', '.join(measure.after)}")


def _checkpoints(text: str) -> Checkpoints:
    if text in _WORDS:
        return text  # type: ignore[return-value]
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UnknownNameError(
            f"Expected checkpoints as {', '.join(_WORDS)} or as epochs joined by commas, got "
            f"{text!r}."
        ) from error


def _object(name: str, text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InvalidConfigError(f"Expected JSON for --{name}, got {text!r}: {error}.") from error
    if not isinstance(values, dict):
        raise InvalidConfigError(f"Expected a JSON object for --{name}, got {text!r}.")
    return values
