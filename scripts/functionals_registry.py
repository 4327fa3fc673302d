"""Test what every model claims on every architecture of the test suite's registry.

As ``functionals_table.py`` does for a few architectures, with small models: whole pipeline,
float64. Controls are relabellings of one axis only of which it is proved, by running the
architecture, that they change its function; factors and signs have none. Prints a line per model,
and one per miss; exits with 1 if there is any.
"""

import sys
import warnings
from collections import Counter
from dataclasses import dataclass

import torch
from jsonargparse import auto_cli
from symmetry_table import architectures, table
from tqdm import tqdm

from neural_functionals.models import MODELS, needs_network
from neural_functionals.testing import (
    SEEDS,
    VARIANTS,
    SymmetryRow,
    across_tensors,
    measure_on,
    proved_controls,
    random_networks,
    small_model,
    symmetry_errors,
    symmetry_kinds,
)
from zoo.errors import ZooError
from zoo.space import WeightSpace
from zoo.symmetry import Action, trace

HEADER = ("model", "proved", "refused", "missed", "worst error", "least control")


@dataclass(frozen=True)
class Outcome:
    """What came of one model on one architecture: rows of errors, or why it refused."""

    model: str
    architecture: str
    rows: tuple[SymmetryRow, ...] = ()
    refusal: str = ""

    @property
    def kind(self) -> str:
        """Name of the column that it counts in."""
        if self.refusal:
            return "refused"
        return "proved" if all(row.holds for row in self.rows) else "missed"


def main(*, only: list[str] | None = None, models: list[str] | None = None, most: int = 12) -> int:
    """Measure and print.

    Parameters
    ----------
    only
        Names of architectures; by default all.
    models
        Names of models; by default all that claim a symmetry and run no members.
    most
        Controls per architecture.
    """
    warnings.simplefilter("ignore", FutureWarning)
    registry = architectures()
    outcomes: list[Outcome] = []
    for name in tqdm(only or list(registry), disable=None):
        torch.manual_seed(0)
        module, inputs = registry[name]()
        space = trace(module.eval(), *inputs)
        controls = proved_controls(space, module, *inputs, most=most)
        outcomes += [measure(one, name, space, controls) for one in models or claiming()]
        for outcome in outcomes[-len(models or claiming()) :]:
            if outcome.kind == "missed":
                tqdm.write(f"MISSED {outcome}")
    print("\n".join(table(HEADER, summary(outcomes))))
    return 1 if any(outcome.kind == "missed" for outcome in outcomes) else 0


def claiming() -> list[str]:
    """Name the models that claim symmetries and read weights without running members."""
    return [
        name
        for name, (registered, options) in VARIANTS.items()
        if MODELS[registered][1].symmetries and not needs_network(registered, options)
    ]


def measure(name: str, architecture: str, space: WeightSpace, controls: list[Action]) -> Outcome:
    """Test one model on one architecture."""
    try:
        model = small_model(name, space)
    except ZooError as error:
        return Outcome(name, architecture, refusal=str(error))
    measure_on(model, random_networks(space, 50, seed=100))
    if model.reads_sets:
        controls = [across_tensors(space, seed=seed) for seed in SEEDS]
    rows = symmetry_errors(
        model,
        space,
        random_networks(space, 8, seed=1),
        kinds=tuple(kind for kind in symmetry_kinds(space) if kind in model.symmetries),
        non_symmetries=controls,
    )
    return Outcome(name, architecture, rows=tuple(rows))


def summary(outcomes: list[Outcome]) -> list[tuple[str, ...]]:
    """Sum up per model."""
    cells = []
    for name in dict.fromkeys(outcome.model for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.model == name]
        counts = Counter(outcome.kind for outcome in own)
        rows = [row for outcome in own for row in outcome.rows]
        worst, least = (
            max((r.error for r in rows), default=0),
            min((r.control for r in rows), default=0),
        )
        numbers = [str(counts[kind]) for kind in HEADER[1:4]]
        cells.append((name, *numbers, f"{worst:.0e}", f"{least:.0e}"))
    return cells


if __name__ == "__main__":
    sys.exit(auto_cli(main))
