"""Measure what the tiers of a zoo cost and keep, on members that were really trained.

A population is trained, then repacked into every tier. For each the table says: bytes of the whole
zoo against the bare float32 numbers, predictions on test images that differ from the original's,
and the largest change of a member's test accuracy. Ends with an error where a demand is not met.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jsonargparse import auto_cli
from tqdm import tqdm

import zoo
from data_gen.commands import generate
from zoo.layout import TIERS
from zoo.problems import Problem, load
from zoo.schema import DIVERGED
from zoo.store import Population, Zoo
from zoo.store.upkeep.repack import repack

MAX_DISK = {"hot": 1.03, "compact": 0.52, "archive": 1.0}
MAX_CHANGED_PERCENT = {"hot": 0.0, "compact": 0.05, "archive": 0.0}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured of one tier.

    Parameters
    ----------
    tier
        Its name.
    disk
        Bytes of all files of the zoo, as a multiple of the float32 numbers.
    changed
        Predictions that differ from the original's, in percent.
    accuracy
        Largest change of a member's test accuracy, as a fraction.
    """

    tier: str
    disk: float
    changed: float
    accuracy: float


def main(
    *,
    recipe: str = "digits-mlp",
    members: int = 512,
    epochs: int | None = None,
    data: Path | None = None,
    folder: Path | None = None,
    seed: int = 0,
) -> None:
    """Train a population, repack it, and compare.

    Parameters
    ----------
    recipe, members, epochs, data, seed
        As `zoo generate` takes them.
    folder
        Where the temporary folder goes; the system's default otherwise.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        hot = Path(scratch) / "original.zarr"
        generate(recipe, out=hot, members=members, epochs=epochs, data=data, seed=seed)
        original = zoo.open(hot)
        name = original.populations[0]
        problem = load(original[name].problem, data=data)
        wanted = _predictions(original[name], problem)
        rows = []
        for tier in TIERS:
            store = repack(hot, Path(scratch) / f"{tier}.zarr", tier=tier)
            rows.append(_row(tier, store, name, problem, wanted))
        _print(rows, original[name], wanted)
    _demand(rows)


def _predictions(population: Population, problem: Problem) -> np.ndarray:
    """Predict the classes of the test images, ``[member, image]``, by members that are sound."""
    ids = population.table.filter(~population.table[DIVERGED])["member"].to_list()
    rows = []
    with torch.no_grad():
        for member in tqdm(ids, desc="predicting", unit="member", leave=False):
            outputs = population.module(member)(problem.test_inputs)
            rows.append(outputs.argmax(dim=1).numpy())
    return np.stack(rows)


def _row(tier: str, store: Zoo, name: str, problem: Problem, wanted: np.ndarray) -> Row:
    population = store[name]
    shape = (population.num_members, len(population.epochs), population.space.num_parameters)
    used = sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file())
    got = _predictions(population, problem)
    labels = problem.test_targets.numpy()
    accuracies = [(predictions == labels).mean(axis=1) for predictions in (got, wanted)]
    return Row(
        tier=tier,
        disk=used / (4 * float(np.prod(shape))),
        changed=100 * float((got != wanted).mean()),
        accuracy=float(np.abs(accuracies[0] - accuracies[1]).max()),
    )


def _print(rows: list[Row], population: Population, wanted: np.ndarray) -> None:
    print(
        f"{population.num_members} members x {len(population.epochs)} checkpoints x "
        f"{population.space.num_parameters:,} numbers; {wanted.shape[0]} sound members predict "
        f"{wanted.shape[1]} test images"
    )
    print(f"{'tier':<9} {'disk / raw':>11} {'changed predictions':>20} {'max accuracy change':>20}")
    for row in rows:
        print(f"{row.tier:<9} {row.disk:>11.3f} {row.changed:>18.4f} % {row.accuracy:>20.4f}")


def _demand(rows: list[Row]) -> None:
    """Stop with an error where a tier is too large, or changes too many predictions."""
    for row in rows:
        if row.disk > MAX_DISK[row.tier] or row.changed > MAX_CHANGED_PERCENT[row.tier]:
            sys.exit(
                f"Expected the {row.tier} tier to take at most {MAX_DISK[row.tier]} of the raw "
                f"numbers and change at most {MAX_CHANGED_PERCENT[row.tier]} % of predictions, got "
                f"{row.disk:.3f} and {row.changed:.4f} %."
            )


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
