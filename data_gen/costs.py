"""What a recipe will cost, before it is run: a rough estimate from the operations of its networks.

Training takes three times the operations of a forward pass (one forward, two backward), for every
sample of every epoch of every member, at a fixed rate per processor core. Evaluation is left out.
The rate is one number measured once; it hides how small networks are and how much time goes into
overheads, so that the estimate may be several times too low or too high.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from data_gen.recipe import Recipe
from zoo.networks import build, example_input, to_dict

RATE = 4.0e9
"""Operations (two per multiply-add) that a core does per second while engine ``stacked`` trains."""
_PASSES = 3
_SAMPLED = 8
_DRAWN = 64
SAMPLES: dict[str, int] = {
    "digits": 1437,
    "idx": 60_000,
    "images": 50_000,
    "cifar10": 50_000,
    "cifar100": 50_000,
    "sst2": 67_349,
    "ag-news": 120_000,
    "digit-signals": 64,
    "idx-signals": 784,
    "cifar10-signals": 1024,
    "quickdraw-signals": 784,
    "image-signals": 1024,
    "ucr-signals": 150,
    "mesh": 2048,
    "npz": 10_000,
}
"""Training samples assumed per problem, before its files are read."""
_SAMPLES = 1000
"""Assumed of any other problem."""
_COUNTS = ("num_train", "num_points", "num_samples")
FREE = (
    "digits",
    "digit-signals",
    "iris",
    "wine",
    "breast-cancer",
    "diabetes",
    "sines",
    "polynomials",
    "gaussian-process",
    "convection",
    "burgers",
)
"""Problems that need no files."""


def cpu_hours(recipe: Recipe) -> float:
    """Estimate the core-hours that a recipe takes on a processor; see this module's text.

    Of architectures that are drawn, the mean over a few stands for all.
    """
    networks = some_networks(recipe)
    each = np.mean([forward_operations(network) for network in networks])
    few = np.arange(min(recipe.num_members, _DRAWN))
    drawn = recipe.draw(few)
    fraction = float(np.mean(drawn["data_fraction"])) if "data_fraction" in drawn else 1.0
    samples = fraction * samples_of(recipe.problem) * recipe.epochs * recipe.num_members
    return float(_PASSES * each * samples / RATE / 3600)


def num_parameters(recipe: Recipe) -> int:
    """Return the parameters of a member; a mean over a few architectures where they differ."""
    counts = []
    for network in some_networks(recipe):
        with torch.device("meta"):
            counts.append(sum(p.numel() for p in build(json.loads(network)).parameters()))
    return round(float(np.mean(counts)))


def some_networks(recipe: Recipe) -> list[str]:
    """Return a few of the networks that members have, as JSON."""
    if recipe.architectures is None:
        return [json.dumps(to_dict(recipe.network))]
    fields = recipe.network_fields(np.arange(min(recipe.num_members, _SAMPLED)))
    return [json.dumps(to_dict(recipe.of_architecture(each).network)) for each in fields]


@lru_cache(maxsize=1024)
def forward_operations(network: str) -> int:
    """Count the operations of products and convolutions in a forward pass of one sample.

    At least two per parameter, for what is not counted (recurrent layers, say).

    Parameters
    ----------
    network
        JSON.
    """
    config = json.loads(network)
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), torch.no_grad():
        module = build(config).eval()
        example = example_input(config, 1)
        with counter:
            module(example)
    least = 2 * sum(parameter.numel() for parameter in module.parameters())
    return max(int(counter.get_total_flops()), least)


def samples_of(problem: Mapping[str, Any]) -> int:
    """Return the training samples that a problem is assumed to have."""
    if "base" in problem:
        return samples_of(problem["base"])
    for name in _COUNTS:
        if name in problem:
            return int(problem[name])
    return SAMPLES.get(str(problem["name"]), _SAMPLES)


def needs(problem: Mapping[str, Any]) -> str:
    """Say what files a problem is read from: ``-`` for none, else the name of their format."""
    if "base" in problem:
        return needs(problem["base"])
    return "-" if problem["name"] in FREE else f"--data ({problem['name']})"
