"""Every model on every architecture of the registry: exact, or a refusal that says why."""

import re
import warnings
from functools import cache

import pytest
import torch
from architectures import ARCHITECTURES, HUGGING_FACE

from neural_functionals.models import MODELS, needs_network
from neural_functionals.testing import (
    SEEDS,
    VARIANTS,
    across_tensors,
    measure_on,
    proved_controls,
    random_networks,
    small_model,
    symmetry_errors,
    symmetry_kinds,
)
from zoo.errors import WeightSpaceMismatchError
from zoo.symmetry import trace

SAMPLE = [
    "mlp-batch-norm", "resnet20-projection", "mobilenet-v2", "gpt-grouped-query", "gru",
    "state-space", "tied-autoencoder", "gated-mlp", "mlp-mixer", "perceiver",
]  # fmt: skip
"""Of every structure one: normalised, residual, depthwise, nested, recurrent, diagonal, tied,
gated, mixed across tokens, cross attention."""

CLAIMING = [
    name
    for name, (registered, options) in VARIANTS.items()
    if MODELS[registered][1].symmetries and not needs_network(registered, options)
]
LAYERED = {"nft", "matrix-product", "monomial-nfn", "scalegmn", "scalegmn, bidirectional"}
"""Models that may refuse an architecture; all others read any that has hidden units."""


@cache
def traced(name):
    if name in HUGGING_FACE:
        pytest.importorskip("transformers")
    torch.manual_seed(0)
    module, inputs = ARCHITECTURES[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        space = trace(module.eval(), *inputs)
    return space, proved_controls(space, module, *inputs, most=6)


def explained(refusal):
    """What was expected, what came, and which tensor, group or space it is about."""
    assert re.match(r"Expected .*, (got|but) ", str(refusal)), refusal
    assert re.search(r"'|weight space", str(refusal)), refusal


def check(model_name, architecture):
    space, controls = traced(architecture)
    if model_name in LAYERED or not space.groups:
        try:
            model = small_model(model_name, space)
        except WeightSpaceMismatchError as refusal:
            explained(refusal)
            return
    model = small_model(model_name, space)
    measure_on(model, random_networks(space, 50, seed=100))
    kinds = tuple(kind for kind in symmetry_kinds(space) if kind in model.symmetries)
    assert kinds or not space.groups
    if model.reads_sets:
        controls = [across_tensors(space, seed=seed) for seed in SEEDS]
    weights = random_networks(space, 8, seed=1)
    for row in symmetry_errors(model, space, weights, kinds=kinds, non_symmetries=controls):
        assert row.holds, row


@pytest.mark.parametrize("model_name", CLAIMING)
@pytest.mark.parametrize("architecture", SAMPLE)
def test_claims_hold_on_a_sample(architecture, model_name):
    check(model_name, architecture)


@pytest.mark.exhaustive
@pytest.mark.parametrize("model_name", CLAIMING)
@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name not in SAMPLE])
def test_claims_hold_on_every_architecture(architecture, model_name):
    check(model_name, architecture)


@pytest.mark.parametrize("architecture", SAMPLE)
def test_controls_exist(architecture):
    _, controls = traced(architecture)
    assert len(controls) >= 2


def test_true_symmetries_are_no_controls():
    """A perceiver's latents are exchangeable, and keys' biases are inert."""
    space, _ = traced("perceiver")
    torch.manual_seed(0)
    module, inputs = ARCHITECTURES["perceiver"]()
    found = proved_controls(space, module.eval(), *inputs, most=1000)
    touches = sum(len(group.touches) for group in space.groups)
    assert len(found) == touches - 5
