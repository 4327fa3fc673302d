"""Time queries on large populations, and the memory of a process that makes them.

Fills a temporary zoo with a population of 100,000 members and one of 270,000, tiny networks with
eight columns and four metrics, and prints one table: medians of repeated calls, interleaved.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
import xarray
from jsonargparse import auto_cli
from tqdm import tqdm

import zoo
from zoo.schema import ColumnSpec
from zoo.splits import SplitRule
from zoo.store import PopulationWriter
from zoo.testing import TINY_ACTIVATIONS, TINY_COLUMNS, tiny_spec

COLUMNS = (
    ColumnSpec(name="weight_decay", dtype="float64"),
    ColumnSpec(name="batch_size", dtype="int64"),
    *TINY_COLUMNS,
)
SQL = "test_accuracy > 0.8 and activation == 'tanh'"
BLOCK = 4096

FRESH = """
import json, sys, zoo
def rss():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 / 1e6
imported = rss()
population = zoo.open(sys.argv[1])[sys.argv[2]]
opened = rss()
view = population.where(sys.argv[3])
filtered = rss()
view.gather(view.member_ids[:64], [-1] * 64)
assert "torch" not in sys.modules
print(json.dumps([imported, opened, filtered, rss(), len(view)]))
"""


def main(
    *, members: int = 100_000, large: int = 270_000, checkpoints: int = 5, repeats: int = 15
) -> None:
    """Fill a temporary zoo and print the table.

    Parameters
    ----------
    members
        Members of the population whose queries are timed.
    large
        Members of the population that a fresh process opens.
    checkpoints
        Checkpoints of every member.
    repeats
        Timed calls of each kind, interleaved; medians are printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "zoo.zarr"
        for name, count in (("timed", members), ("large", large)):
            fill(root, name, count, checkpoints)
        for line in (*timings(root, repeats), *memory(root, large)):
            print(line)


def fill(root: Path, name: str, count: int, checkpoints: int) -> None:
    """Write a population of random numbers, block by block."""
    spec = tiny_spec(
        name=name,
        num_members=count,
        columns=COLUMNS,
        checkpoints=tuple(range(checkpoints)),
        block_size=BLOCK,
    )
    writer = zoo.create(root, exist_ok=True).create_population(spec)
    for block in tqdm(range(writer.num_blocks), desc=f"writing {name}"):
        writer.write_block(block, **numbers(writer, block))
    writer.finish()


def numbers(writer: PopulationWriter, block: int) -> dict[str, Any]:
    """Draw one block."""
    rng, spec = np.random.default_rng(block), writer.spec
    ids = np.array(writer.members_of(block))
    shape = len(ids), len(spec.checkpoints)
    return {
        "weights": rng.standard_normal((*shape, spec.space.num_parameters), dtype=np.float32),
        "metrics": {name: rng.random(shape, dtype=np.float32) for name in spec.metrics},
        "columns": {
            "weight_decay": rng.random(len(ids)),
            "batch_size": rng.integers(16, 256, len(ids)),
            "learning_rate": rng.uniform(1e-4, 1e-1, len(ids)),
            "init_scale": rng.random(len(ids)),
            "activation": rng.integers(len(TINY_ACTIVATIONS), size=len(ids)).astype(np.int8),
            "seed": ids,
            "lineage": ids,
            "diverged": np.zeros(len(ids), dtype=bool),
        },
    }


def timings(root: Path, repeats: int) -> list[str]:
    """Time queries on the population that is open already, and opening it."""
    population = zoo.open(root)["timed"]
    ids = np.random.default_rng(0).permutation(population.member_ids)
    shuffled = population.select(ids)
    other = population.select(ids[: len(ids) // 2])
    both = zoo.concat([other, population.select(ids[len(ids) // 2 :])])
    parquet = root / "table.parquet"
    calls: dict[str, Callable[[], object]] = {
        "where, all members": lambda: population.where(SQL),
        "where, a view of all in another order": lambda: shuffled.where(SQL),
        "where, a concatenation of two halves": lambda: both.where(SQL),
        "where, after checkpoints('first')": lambda: population.checkpoints("first").where(SQL),
        "polars.scan_parquet of table.parquet": lambda: scan(parquet),
        "open, and where for the first time": lambda: zoo.open(root)["timed"].where(SQL),
        "xarray.open_zarr": lambda: xarray.open_zarr(
            root / "populations/timed", chunks=None
        ).close(),
        "to_xarray": population.to_xarray,
        "split by two columns": lambda: SplitRule(by=("activation", "batch_size")).codes(
            population.table, of="all"
        ),
    }
    return [
        f"{population.num_members:,} members, {len(COLUMNS)} columns, median of {repeats} calls",
        *(f"  {label:<40}{1e3 * seconds:>10.2f} ms" for label, seconds in timed(calls, repeats)),
    ]


def scan(parquet: Path) -> pl.DataFrame:
    """Answer the same question from the derived table."""
    rows = pl.scan_parquet(parquet).filter(pl.sql_expr(f"population == 'timed' and {SQL}"))
    return rows.select("member").collect()


def timed(calls: dict[str, Callable[[], object]], repeats: int) -> list[tuple[str, float]]:
    """Return the median seconds of each call."""
    seconds: dict[str, list[float]] = {label: [] for label in calls}
    for _ in tqdm(range(repeats + 1), desc="timing"):
        for label, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[label].append(time.perf_counter() - start)
    return [(label, median(each[1:])) for label, each in seconds.items()]


def memory(root: Path, count: int) -> list[str]:
    """Open and filter in a fresh process."""
    words = [sys.executable, "-c", FRESH, str(root), "large", SQL]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    imported, opened, filtered, gathered, kept = json.loads(done.stdout)
    return [
        f"resident memory of a fresh process, {count:,} members, {kept:,} kept",
        f"  {'zoo imported':<40}{imported:>10.0f} MB",
        f"  {'population opened':<40}{opened:>10.0f} MB",
        f"  {'filtered':<40}{filtered:>10.0f} MB",
        f"  {'64 rows gathered':<40}{gathered:>10.0f} MB",
    ]


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
