"""Every model of the registry, small enough for tests."""

from typing import Any

import torch
from torch import Tensor

from neural_functionals.models import (
    MODELS,
    FittedFunctional,
    NeuralFunctional,
    build_model,
    needs_network,
)
from neural_functionals.testing.spaces import network_of
from zoo.space import WeightSpace

_EQUIVARIANT = {"channels": (4, 3), "hidden": (7,)}
_ATTENTION = {"attention_width": 8, "num_heads": 2, "node_hidden": 7, "edge_hidden": 6}
SMALL: dict[str, dict[str, Any]] = {
    "hyperparameters": {"hidden": (8,)},
    "nfn": _EQUIVARIANT,
    "statnn": {"hidden": (16,)},
    "deepsets": {"channels": (4, 3)},
    "dws": _EQUIVARIANT,
    "unf": _EQUIVARIANT,
    "nft": {"num_blocks": 2, "channels": 8, "num_heads": 2, "hidden": (7,)},
    "linear-statistics": {},
    "boosted-statistics": {"num_trees": 20},
    "flat-mlp": {"hidden": (16,)},
    "sane": {"num_blocks": 1, "channels": 8, "num_heads": 2, "hidden": (7,)},
    "probegen": {"num_probes": 4, "latent": 5, "width": 2, "hidden": (7,)},
    "scalegmn": {"width": 6, "num_layers": 3, "hidden": (7,)},
    "monomial-nfn": _EQUIVARIANT,
    "matrix-product": {"width": 6, "hidden": (7,)},
    "ng-gnn": {"width": 6, "num_waves": 4, "hidden": (7,)},
    "ng-t": {"node_width": 6, "edge_width": 5, "num_waves": 4, "hidden": (7,), **_ATTENTION},
    "gmn": {"width": 6, "hidden": (7,)},
}
"""Options of each model."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in MODELS},
    "nfn, np": ("nfn", {"variant": "np"}),
    "scalegmn, bidirectional": ("scalegmn", {"direction": "bidirectional"}),
    "ng-gnn, probes": ("ng-gnn", {"num_probes": 3}),
    "ng-t, probes": ("ng-t", {"num_probes": 3}),
}
"""Models, also with other than their usual options: name in the registry, and options."""


def small_model(
    name: str, space: WeightSpace, *, num_outputs: int = 1, seed: int = 0
) -> NeuralFunctional:
    """Make one of :data:`VARIANTS` small, with weights that a seed decides.

    Those that run members get the network of one of the example spaces.
    """
    registered, options = VARIANTS[name]
    options = SMALL[registered] | options
    if needs_network(registered, options):
        options = options | {"network": network_of(space)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(
            registered, space=space, num_hyperparameters=3, num_outputs=num_outputs, **options
        )


def measure_on(model: NeuralFunctional, weights: Tensor) -> NeuralFunctional:
    """Measure a model's normalisation, fit what is fitted at once; returns it in float64."""
    model.fit_statistics(weights)
    if isinstance(model, FittedFunctional):
        targets = weights.square().mean(dim=1, keepdim=True)
        model.fit(model.features(weights.float()), targets.float())
    return model.double().eval()
