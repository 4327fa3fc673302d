"""The commands ``zoo generate`` and ``zoo recipes``."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import zoo
from data_gen import costs
from data_gen.adapters import with_base
from data_gen.recipe import Recipe
from data_gen.recipes import RECIPES
from data_gen.recipes import recipe as find_recipe
from data_gen.runner import Run, carry_out, prepare
from data_gen.starts import Prune, Start
from zoo.errors import InvalidConfigError


def generate(
    recipe: str,
    *,
    out: Path,
    full: bool = False,
    data: Path | None = None,
    start: str | None = None,
    start_population: str | None = None,
    start_where: str | None = None,
    start_checkpoint: int | None = None,
    prune: float | None = None,
    members: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    name: str | None = None,
    engine: str = "stacked",
    workers: int | None = None,
    ray: str | None = None,
    device: str = "cpu",
) -> None:
    """Train a population and store it; run again after an interruption to resume.

    Parameters
    ----------
    recipe
        Name of a recipe; `zoo recipes` lists them.
    out
        The zoo to write to, made where absent.
    full
        Take the published size of the recipe, not the small one.
    data
        Folder with the data files, for recipes that read files.
    start
        A zoo whose members these begin from, networks of the same weight space.
    start_population, start_where, start_checkpoint
        Of that zoo the population, where it has several; an SQL condition on its table, such as
        "test_accuracy > 0.9"; the checkpoint by position, the last by default.
    prune
        Share of their weights, smallest first, that is 0 from the start and stays so.
    members
        Number of networks; the recipe's own by default.
    epochs
        Epochs per network; the recipe's own by default. Checkpoints keep their relative places.
    seed
        Seed of everything random.
    name
        Name of the population; the recipe's own by default.
    engine
        What trains: stacked, native, loop, or auto for the fastest that can.
    workers
        Processes; one per processor by default. With --ray, tasks at a time.
    ray
        Train on a Ray cluster: auto, its address, or local to start one of --workers processors.
    device
        cpu or cuda.
    """
    chosen = find_recipe(
        recipe, full=full, num_members=members, epochs=epochs, seed=seed, population=name
    )
    chosen = replace(
        chosen,
        start=_start(
            chosen.start,
            zoo=start,
            population=start_population,
            where=start_where,
            checkpoint=start_checkpoint,
            transform=None if prune is None else Prune(fraction=prune),
        ),
    )
    run = with_base(
        Run(
            recipe=chosen,
            out=out.resolve(),
            data=data,
            engine=engine,
            workers=workers,
            ray=ray,
            device=device,
        )
    )
    writer, plan, problem = prepare(run)
    print(f"{chosen.name} into {out}: {plan}.")
    with tqdm(
        total=plan.num_members * plan.epochs,
        initial=plan.num_done * plan.epochs,
        unit="member-epoch",
        unit_scale=True,
        smoothing=0.1,
    ) as bar:
        carry_out(run, writer, plan, problem, progress=bar.update)
    _summarise(out, chosen)


def recipes() -> None:
    """List the recipes: what they make, in small / with --full, and roughly at what cost."""
    rows: list[tuple[str, ...]] = [
        ("name", "members", "epochs", "parameters", "CPU hours", "needs", "what")
    ]
    for make in RECIPES.values():
        small, full = make(full=False), make(full=True)
        both = zip(_size(small), _size(full), strict=True)
        sizes = [one if one == other else f"{one} / {other}" for one, other in both]
        rows.append((small.name, *sizes, costs.needs(small.problem), small.description))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[-1]]))
    print(
        "\nIn small / with --full. CPU hours are rough: operations of the networks at a fixed "
        "rate, samples as assumed before files are read."
    )


def _size(recipe: Recipe) -> tuple[str, ...]:
    hours = costs.cpu_hours(recipe)
    return (
        f"{recipe.num_members}",
        f"{recipe.epochs}",
        f"{costs.num_parameters(recipe):,}",
        f"{hours:.2g}" if hours < 10 else f"{hours:,.0f}",
    )


def _start(own: Start | None, **wanted: Any) -> Start | None:
    """Change a recipe's start, or give it one, by the options that were given."""
    given = {name: value for name, value in wanted.items() if value is not None}
    if not given:
        return own
    place = given.get("zoo", own.zoo if own else None)
    if place is None:
        raise InvalidConfigError(
            "Expected --start ZOO, the stored members to begin from, beside what to do with them: "
            f"{', '.join(given)}."
        )
    if "://" not in place:  # workers may begin in other folders
        given["zoo"] = str(Path(place).resolve())
    if own is not None:
        return replace(own, **given)
    if "population" not in given:
        names = zoo.open(place).populations
        if len(names) != 1:
            raise InvalidConfigError(f"Expected --start_population, one of: {', '.join(names)}.")
        given["population"] = names[0]
    return Start(**given)


def _summarise(out: Path, recipe: Recipe) -> None:
    store = zoo.open(out)
    table = store[recipe.name].table
    diverged = int(table["diverged"].sum())
    metric = store[recipe.name].metrics[-1]
    finished = table.filter(~table["diverged"])[metric]
    spread = "none"
    if len(finished):
        quantiles = np.quantile(finished.to_numpy(), (0, 0.5, 1))
        spread = ", ".join(f"{value:.3f}" for value in quantiles)
    print(
        f"{recipe.name}: {len(table)} members stored, {diverged} of them diverged; {metric} "
        f"min, median, max: {spread}. Dataset version {store.version}."
    )
