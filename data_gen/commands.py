"""The commands ``zoo generate`` and ``zoo recipes``."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

import zoo
from data_gen.recipe import Recipe
from data_gen.recipes import RECIPES
from data_gen.recipes import recipe as find_recipe
from data_gen.runner import Run, carry_out, prepare
from zoo.networks import build


def generate(
    recipe: str,
    *,
    out: Path,
    data: Path | None = None,
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
    data
        Folder with the data files, for recipes that read files.
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
    chosen = find_recipe(recipe, num_members=members, epochs=epochs, seed=seed, population=name)
    run = Run(
        recipe=chosen,
        out=out.resolve(),
        data=data,
        engine=engine,
        workers=workers,
        ray=ray,
        device=device,
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
    """List the recipes."""
    rows = [("name", "members", "epochs", "parameters", "needs", "what")]
    for make in RECIPES.values():
        each = make()
        parameters = sum(p.numel() for p in build(each.network).parameters())
        needs = "--data" if each.problem["name"].startswith("idx") else "-"
        counts = (str(each.num_members), str(each.epochs), f"{parameters:,}")
        rows.append((each.name, *counts, needs, each.description))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[-1]]))


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
