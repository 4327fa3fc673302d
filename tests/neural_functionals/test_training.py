"""Ten epochs of every model on networks that break careless arithmetic."""

from math import isfinite

import pytest

from neural_functionals.models import FittedFunctional
from neural_functionals.testing import VARIANTS, example_space, small_model, train_briefly
from neural_functionals.testing import wild_networks as wild


@pytest.fixture(scope="module")
def members():
    """Weights of 48 CNNs whose units differ in scale, some dead, and a number to predict."""
    return wild("cnn", 48, seed=0)


def inputs_of(model, weights):
    """What the model reads; hyper-parameters are made up of the weights."""
    return (
        weights
        if model.reads == "weights"
        else weights[:, :3].sign() * weights[:, :3].abs().log1p()
    )


@pytest.mark.parametrize("name", list(VARIANTS))
def test_ten_epochs_give_finite_losses_that_fall(name, members):
    weights, targets = members
    model = small_model(name, example_space("cnn"))
    inputs = inputs_of(model, weights)
    model.fit_statistics(inputs)
    if isinstance(model, FittedFunctional):
        model.fit(model.features(inputs), targets)
        losses = [float(targets.square().mean()), float((model(inputs) - targets).square().mean())]
    else:
        losses = train_briefly(model, inputs, targets)
    assert all(map(isfinite, losses)), losses
    assert losses[-1] < losses[0], losses
    assert all(p.isfinite().all() for p in model.parameters())
