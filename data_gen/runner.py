"""From a recipe to a stored population: plan, train block by block, resume where a run stopped."""

import json
from pathlib import Path
from typing import Any

import zoo
from data_gen.adapters import check_base, portable
from data_gen.ancestors import open_ancestors
from data_gen.assignment import check_settings
from data_gen.cluster import LOCAL, find_cluster, train_on_ray
from data_gen.environment import environment
from data_gen.plan import Plan, identity_of, make_plan, population_spec, space_of
from data_gen.ragged import plan_rows
from data_gen.resources import check_memory, check_space
from data_gen.run import Progress, Run, train_task
from data_gen.workers import train_in_processes
from zoo import problems
from zoo.errors import StoreError
from zoo.layout import Ragged
from zoo.problems import Problem
from zoo.space import WeightSpace
from zoo.store import PopulationWriter

__all__ = ["Run", "carry_out", "prepare"]


def prepare(run: Run) -> tuple[PopulationWriter, Plan, Problem]:
    """Open or make the population and plan what is left; trains nothing.

    Raises
    ------
    StoreError
        If the target holds another recipe's population under that name, or the disk is too full;
        if the zoo that members begin from is not there.
    MissingDataError
        If members are adapters without a base: see :func:`data_gen.adapters.with_base`.
    InvalidConfigError
        If an architecture cannot be traced, or the problem lacks what the recipe spreads.
    WeightSpaceMismatchError
        If members should begin from networks of another weight space.
    MemoryNeededError
        If the run would not fit the memory.
    ClusterError
        If there is no such Ray cluster.
    """
    if run.ray is not None:
        find_cluster(run.ray)
    check_base(run.recipe)
    problem = problems.load(run.recipe.problem, data=run.data)
    ancestors = open_ancestors(run.recipe)
    if ancestors is not None:
        ancestors.check()
    check_settings(run.recipe, problem)
    engine = run.make_engine()
    store = zoo.create(run.out, exist_ok=True)
    if run.recipe.name in store:
        writer = store.writer(run.recipe.name)
        _check_same(writer, identity_of(run.recipe, problem, ancestors), run.out, engine.name)
    else:
        about = environment(
            engine=engine.name,
            reason=str(getattr(engine, "reason", "") or f"--engine {run.engine}"),
            device=run.device,
            workers=run.num_workers,
        )
        space, spaces = _space_of(run)
        spec = population_spec(run.recipe, problem, space, environment=about, ancestors=ancestors)
        writer = store.create_population(portable(spec, run.out), spaces=spaces)
    plan = make_plan(run.recipe, writer, engine, workers=run.num_workers)
    check_space(plan, run.out)
    if run.ray in (None, LOCAL):
        check_memory(plan, problem, workers=run.num_workers)
    return writer, plan, problem


def carry_out(
    run: Run,
    writer: PopulationWriter,
    plan: Plan,
    problem: Problem,
    *,
    progress: Progress | None = None,
) -> None:
    """Train what is left and finish the population.

    Every block is written by the process that trained it, whole or not at all: a run that is
    stopped or killed at any moment is resumed by running it again.
    """
    report = progress or (lambda _: None)
    if not plan.tasks:
        pass
    elif run.ray is not None:
        train_on_ray(run, problem, plan.tasks, report)
    elif run.num_workers == 1 or len(plan.tasks) == 1:
        engine = run.make_engine()
        for task in plan.tasks:
            train_task(run.recipe, engine, problem, writer, task, report)
    else:
        train_in_processes(run, plan.tasks, report)
    writer.finish(seed=run.recipe.seed)


def _space_of(run: Run) -> tuple[WeightSpace | Ragged, tuple[WeightSpace, ...]]:
    if run.recipe.architectures is None:
        return space_of(run.recipe), ()
    return plan_rows(run.recipe)


def _check_same(writer: PopulationWriter, wanted: dict[str, Any], out: Path, engine: str) -> None:
    """Refuse to resume a population that another recipe, data set or engine began."""
    began = writer.spec.environment.get("engine")
    if began != engine:
        raise StoreError(
            f"{out} already holds a population {writer.name!r} that engine {began!r} began; "
            f"{engine!r} rounds otherwise. Resume it with --engine {began}, or choose another "
            "name by --name."
        )
    stored = writer.spec.recipe
    keys = ("sha256", "problem_sha256", "start_version", "start_space")
    if all(stored.get(key) == wanted.get(key) for key in keys):
        return
    people = {"description", "source", "departures", "problem_licence", "problem_source"}
    hidden = people | {"problem_name", "sha256", "problem_sha256"}
    other = [
        f"{key} was {json.dumps(stored.get(key))}, is {json.dumps(wanted.get(key))}"
        for key in sorted({*stored, *wanted} - hidden)
        if stored.get(key) != wanted.get(key)
    ]
    raise StoreError(
        f"{out} already holds a population {writer.name!r} of another recipe or other data "
        f"({'; '.join(other) or 'the data differ'}). Resume it with the settings it began with, or "
        "choose another name by --name."
    )
