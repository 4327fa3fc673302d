"""Write the generated parts of ``docs/functionals.md``: the models, and the proof of their claims.

Each model is tested on each architecture as the contract suite does it: whole pipeline, measured
normalisation, before any sigmoid, float64. *error* is the largest change of an output under a
symmetry that the model claims, *control* the smallest under something like it that changes the
networks' function; both per spread of that output over different networks.
"""

import inspect
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from symmetry_table import table, write_between
from tqdm import tqdm

from neural_functionals.models import (
    MODELS,
    FittedFunctional,
    NeuralFunctional,
    build_model,
    needs_network,
)
from neural_functionals.testing import (
    NETWORKS,
    SCALED_NETWORKS,
    SEEDS,
    across_tensors,
    example_space,
    random_networks,
    symmetry_errors,
    symmetry_kinds,
)
from zoo.errors import WeightSpaceMismatchError, ZooError
from zoo.space import WeightSpace

ROOT = Path(__file__).parents[1]
HEADER = ("model", "architecture", "symmetry", "error", "control")
ARCHITECTURES = NETWORKS | SCALED_NETWORKS
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "nfn, np": ("nfn", {"variant": "np"}),
    "scalegmn, bidirectional": ("scalegmn", {"direction": "bidirectional"}),
    "ng-gnn, probes": ("ng-gnn", {"num_probes": 8}),
    "ng-t, probes": ("ng-t", {"num_probes": 8}),
}
"""Models with other than their usual options."""


def main(*, out: Path = ROOT / "docs/functionals.md", only: list[str] | None = None) -> int:
    """Measure every claim and write the document's generated parts.

    Parameters
    ----------
    out
        Document whose marked parts are replaced.
    only
        Names of models; then the table is printed and nothing is written.
    """
    warnings.simplefilter("ignore", FutureWarning)
    claiming = [name for name, (_, cls) in MODELS.items() if cls.symmetries]
    cases = [
        (name, network)
        for name in only or sorted([*claiming, *VARIANTS])
        for network in ARCHITECTURES
    ]
    rows = [row for case in tqdm(cases, disable=None) for row in measure(*case)]
    text = "\n".join(table(HEADER, rows))
    if only:
        print(text)
        return 0
    write_between(out, "claims", text)
    write_between(out, "models", "\n".join(describe(cls) for _, cls in MODELS.values()))
    return 0


def measure(name: str, network: str) -> list[tuple[str, ...]]:
    """Test one model on one architecture; says where it refuses the space."""
    registered, options = VARIANTS.get(name, (name, {}))
    space, cls = example_space(network), MODELS[registered][1]
    if needs_network(registered, options):
        options = options | {"network": ARCHITECTURES[network]}
    torch.manual_seed(0)
    try:
        model = build_model(registered, space=space, num_hyperparameters=1, **options)
    except WeightSpaceMismatchError as error:
        return [(name, network, f"refused: {str(error).partition('.')[0]}", "", "")]
    fit(model, networks(space, 50, seed=100))
    weights = networks(space, 16, seed=1)
    rows = symmetry_errors(
        model.double().eval(),
        space,
        weights,
        kinds=tuple(kind for kind in symmetry_kinds(space) if kind in model.symmetries),
        non_symmetries=[across_tensors(space, seed=seed) for seed in SEEDS]
        if cls.reads_sets
        else None,
    )
    return [(name, network, row.kind, f"{row.error:.0e}", f"{row.control:.0e}") for row in rows]


def networks(space: WeightSpace, count: int, *, seed: int) -> torch.Tensor:
    """Draw networks that can be run: running variances are positive."""
    weights = random_networks(space, count, seed=seed)
    for tensor in space.tensors:
        if tensor.kind == "buffer":
            start = space.offsets[tensor.name]
            weights[:, start : start + tensor.numel].abs_()
    return weights


def fit(model: NeuralFunctional, weights: torch.Tensor) -> None:
    """Measure the normalisation, and fit what is fitted at once."""
    model.fit_statistics(weights)
    if isinstance(model, FittedFunctional):
        targets = weights.square().mean(dim=1, keepdim=True)
        model.fit(model.features(weights.float()), targets.float())


def describe(cls: type[NeuralFunctional]) -> str:
    """Turn a model's docstring into a section: what it is, where it departs, an example."""
    text = inspect.getdoc(cls) or ""
    head, *parts = re.split(r"\n\n(?=\w[\w ]*\n-{3,}\n)", text)
    sections = {part.partition("\n")[0]: part.split("\n", 2)[2] for part in parts}
    if "Examples" not in sections:
        raise ZooError(f"Expected an example in the docstring of {cls.__name__}.")
    reference = re.sub(r"\s+", " ", sections.get("References", "")).replace(".. ", "")
    claims = ", ".join(cls.symmetries) or "none"
    summary = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", head.partition("\n\n")[0]).replace("\n", " ")
    summary = summary.replace("[1]_", "[1]")
    return (
        f"### `{cls.name}`\n\n{summary}\n\n"
        f"Symmetries: {claims}. {reference}\n\n```pycon\n{sections['Examples'].strip()}\n```\n"
    )


if __name__ == "__main__":
    sys.exit(auto_cli(main))
