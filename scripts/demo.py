"""The main job on real data, end to end: train a population, learn from its weights, look at it.

Run again, it resumes and finishes in seconds. ``make demo`` runs it with the defaults.
"""

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonargparse
import polars as pl

import zoo
from data_gen.commands import generate
from neural_functionals.tasks import train_property
from zoo.errors import ZooError
from zoo.page import write_page

MODELS: dict[str, dict[str, Any]] = {
    "hyperparameters": {},
    "statnn": {},
    # NP, as 64 pinned inputs make HNP's layers large; more steps, as its paper takes batches of 8
    "nfn": {"options": {"variant": "np"}, "batch_size": 16},
}
RECIPE, TARGET = "digits-mlp", "test_accuracy"


def demo(*, out: Path = Path("demo"), members: int = 512, seeds: int = 3) -> None:
    """Train perceptrons on digits, then three models that predict their test accuracy.

    Parameters
    ----------
    out
        Folder for the zoo, the runs and the page.
    members
        Networks in the population.
    seeds
        Training runs per model.
    """
    start = time.perf_counter()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    store = out / "digits.zarr"
    _headline(f"1/3  {members} networks on handwritten digits")
    generate(RECIPE, out=store, members=members)
    _headline(f"2/3  {', '.join(MODELS)} learn to predict {TARGET} ({seeds} seeds each)")
    results = pl.DataFrame(list(_train(store, out / "runs", seeds)))
    table = summary(results)
    _headline("3/3  results on members that no model has seen")
    print(as_text(table))
    page = write_page(
        zoo.open(store),
        out / "digits.html",
        predictions=sorted((out / "runs").glob("*/predictions.parquet")),
        results=table,
    )
    print(f"\nzoo   {store}\npage  {page}\ntook  {time.perf_counter() - start:.0f} s")


def _train(store: Path, runs: Path, seeds: int) -> Iterator[dict[str, object]]:
    for model, settings in MODELS.items():
        for seed in range(seeds):
            metrics = train_property(
                store,
                model=model,
                target=TARGET,
                out=runs / f"{model}-{seed}",
                seed=seed,
                **settings,
            )
            print(
                f"  {model:<16} seed {seed}: Kendall tau {metrics['test_tau']:.3f}, "
                f"R2 {metrics['test_r2']:.3f}",
                flush=True,
            )
            yield {"model": model, "seed": seed, **metrics}


def summary(results: pl.DataFrame) -> pl.DataFrame:
    """Mean and range over seeds of each model's metrics on the test part."""
    rows = []
    for (model,), part in results.group_by("model", maintain_order=True):
        row: dict[str, object] = {"model": model, "seeds": part.height}
        for metric, label in (("test_tau", "Kendall tau"), ("test_r2", "R2")):
            low, mean, high = (part[metric].min(), part[metric].mean(), part[metric].max())
            row[label] = f"{mean:.3f} ({low:.3f} to {high:.3f})"
        rows.append(row)
    return pl.DataFrame(rows)


def as_text(table: pl.DataFrame) -> str:
    """Lay a table out for a terminal."""
    rows = [table.columns, *([str(cell) for cell in row] for row in table.iter_rows())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _headline(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


if __name__ == "__main__":
    try:
        jsonargparse.auto_cli(demo, as_positional=False)
    except ZooError as error:
        sys.exit(f"demo: {error}")
