"""Small networks of distinct widths, their weight spaces, and members of these."""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from zoo.networks import build, example_input
from zoo.space import WeightSpace
from zoo.symmetry import sample_scale, trace

# Distinct small widths: an axis taken for another fails.
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "in_features": 4, "hidden": [3, 5], "out_features": 2},
    "siren": {"name": "siren", "in_features": 2, "hidden": [5, 3], "out_features": 1},
    "cnn": {
        "name": "cnn",
        "in_channels": 1,
        "image_size": 8,
        "out_features": 4,
        "channels": [3, 2],
        "kernel_size": 2,
    },
    "cnn-batch-norm": {
        "name": "cnn",
        "in_channels": 1,
        "image_size": 8,
        "out_features": 5,
        "channels": [2, 3],
        "kernel_size": 2,
        "batch_norm": True,
    },
    "flatten": {
        "name": "cnn",
        "in_channels": 1,
        "image_size": 9,
        "out_features": 2,
        "channels": [2, 3],
        "kernel_size": 2,
        "head": "flatten",
    },
}
SCALED_NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": NETWORKS["mlp"],
    "mlp-tanh": NETWORKS["mlp"] | {"activation": "tanh"},
    "siren": NETWORKS["siren"],
    "cnn": NETWORKS["cnn"],
    "cnn-batch-norm": NETWORKS["cnn-batch-norm"],
}  # hidden units have positive factors (ReLU), signs (tanh, sine) or both (before a BatchNorm)


@cache
def example_space(name: str) -> WeightSpace:
    """Weight space of one of :data:`NETWORKS` or :data:`SCALED_NETWORKS`."""
    recipe = (NETWORKS | SCALED_NETWORKS)[name]
    return trace(build(recipe), example_input(recipe))


def random_networks(space: WeightSpace, count: int, *, seed: int) -> Tensor:
    """Weights ``[count, P]``, float64, of networks as different in scale as trained ones are."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.empty(count, 1, dtype=torch.float64).uniform_(0.3, 3.0, generator=generator)
    entries = torch.randn(count, space.num_parameters, generator=generator, dtype=torch.float64)
    return scale * entries


def network_of(space: WeightSpace) -> dict[str, Any]:
    """Find the network of a space that :func:`example_space` made."""
    networks = NETWORKS | SCALED_NETWORKS
    return next(network for name, network in networks.items() if example_space(name) == space)


def runnable_networks(space: WeightSpace, count: int, *, seed: int) -> Tensor:
    """Weights ``[count, P]``, float64, of networks that can be run.

    Variances are positive, and sines not so fast as to be noise.
    """
    weights = random_networks(space, count, seed=seed) / 10
    for tensor in space.tensors:
        if tensor.role == "variance":
            weights.narrow(1, space.offsets[tensor.name], tensor.numel).abs_().add_(1.0)
    return weights


def wild_networks(name: str, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Networks that break careless arithmetic, and what each computes for one input.

    Units are scaled over several orders of magnitude, a tenth of all weights nearly vanishes, and
    one unit of each network is dead.

    Returns
    -------
    Tensor, Tensor
        Weights ``[count, P]`` of one of :data:`SCALED_NETWORKS`, and standardised outputs
        ``[count, 1]``, float32.
    """
    space, module = example_space(name), build(SCALED_NETWORKS[name]).double()
    generator = torch.Generator().manual_seed(seed)
    weights = random_networks(space, count, seed=seed)
    weights[torch.rand(weights.shape, generator=generator) < 0.1] *= 1e-9
    tensors = space.unflatten(weights)
    for touch in space.groups[0].touches:
        if space.tensor(touch.tensor).axes[touch.dim].role != "in":
            tensors[touch.tensor].select(1 + touch.dim, 0).zero_()
    weights = sample_scale(space, generator, log_std=3.0)(weights)
    example = torch.rand(example_input(SCALED_NETWORKS[name]).shape, generator=generator).double()
    outputs = torch.stack(
        [functional_call(module, space.state_dict(one), (example,))[0, :1] for one in weights]
    ).detach()
    return weights.float(), ((outputs - outputs.mean()) / outputs.std()).float()
