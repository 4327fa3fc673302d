"""Generate the small default of every named recipe, check it, and look at it.

For each recipe: training time, the check of every stored byte, and whether rebuilt networks
reproduce their stored metrics; pages are written beside the zoos. Exits with 1 if anything is off.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import jsonargparse
import numpy as np
import polars as pl
import torch

import zoo
from data_gen.adapters import with_base
from data_gen.recipes import RECIPES
from data_gen.recipes import recipe as find_recipe
from data_gen.runner import Run, carry_out, prepare
from zoo import problems
from zoo.errors import MissingDataError
from zoo.page import write_page
from zoo.store.upkeep.check import check

FOLDERS = {
    "idx": "mnist",
    "idx-signals": "mnist",
    "cifar10": "cifar10",
    "cifar10-signals": "cifar10",
    "quickdraw-signals": "quickdraw3",
    "mesh": "mesh",
    "ucr": "timeseries",
    "ucr-signals": "timeseries",
    "csv": "tabular",
    "sst2": "text/sst2",
    "ag-news": "text/ag_news",
}
"""Per problem, the folder below the data's root that holds its files."""


def small_recipes(
    data: Path,
    out: Path,
    *,
    only: list[str] | None = None,
    engine: str = "auto",
    workers: int = 2,
    members_checked: int = 3,
) -> int:
    """Generate small defaults one after the other.

    Parameters
    ----------
    data
        Root of the data sets, a folder for each.
    out
        Folder for zoos and pages.
    only
        Names or beginnings of names; all by default.
    engine, workers
        As in `zoo generate`.
    members_checked
        Networks of each population that are rebuilt and measured again.
    """
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    bad = 0
    for name in RECIPES:
        if only and not any(name.startswith(each) for each in only):
            continue
        try:
            line, ok = _one(name, data, out, engine, workers, members_checked)
        except MissingDataError as error:
            line, ok = f"no data: {str(error)[:90]}", True
        bad += not ok
        print(f"{name:36} {line}", flush=True)
    return int(bad > 0)


def _one(
    name: str, data: Path, out: Path, engine: str, workers: int, checked: int
) -> tuple[str, bool]:
    recipe, store = find_recipe(name), out / f"{name}.zarr"
    base = recipe.problem
    while "base" in base:
        base = base["base"]
    folder = data / FOLDERS[base["name"]] if base["name"] in FOLDERS else None
    if "fashion-mnist" in name:
        folder = data / "fashion-mnist"
    if recipe.start is not None:
        parents = str(out / f"{recipe.start.population}.zarr")
        recipe = replace(recipe, start=replace(recipe.start, zoo=parents))
    run = with_base(Run(recipe=recipe, out=store, data=folder, engine=engine, workers=workers))
    recipe = run.recipe
    start = time.perf_counter()
    writer, plan, problem = prepare(run)
    carry_out(run, writer, plan, problem)
    took = time.perf_counter() - start
    intact = check(store).ok
    population = zoo.open(store)[recipe.name]
    gap = _largest_gap(population, problem, checked)
    write_page(zoo.open(store), store.with_suffix(".html"))
    last = population.metrics[-1]
    values = population.metric(last)[:, -1]
    return (
        f"{len(population.member_ids):5} members  {took:6.1f} s  "
        f"{population.environment['engine']:8} {last} {_spread(values)}  "
        f"metrics reproduced to {gap:.1e}  {'intact' if intact else 'DAMAGED'}"
    ), intact and gap < 1e-4


def _largest_gap(population: zoo.Population, problem: problems.Problem, count: int) -> float:
    """Measure rebuilt networks; the largest difference to what is stored, relative above 1."""
    table, largest = population.table, 0.0
    sound = table.filter(~table["diverged"])["member"].to_list()
    for member in sound[:: max(1, len(sound) // count)][:count]:
        row = table.row(by_predicate=pl.col("member") == member, named=True)
        module = population.module(member)
        measured = problems.evaluate(problem, module, signal=row.get("signal"))
        for name, value in measured.items():
            largest = max(largest, abs(value - row[name]) / max(1.0, abs(value)))
    return largest


def _spread(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    return "none" if not len(finite) else f"{finite.min():.3f} to {finite.max():.3f}"


if __name__ == "__main__":
    sys.exit(jsonargparse.auto_cli(small_recipes))
