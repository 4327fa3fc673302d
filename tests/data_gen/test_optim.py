import warnings
from math import ceil

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as torch_schedules

from data_gen import hyperparameters as hp
from data_gen.engines.initialisation import SCHEMES
from data_gen.engines.losses import loss_slope, training_loss
from data_gen.engines.optim import FlatOptimizer, clip
from data_gen.engines.schedules import SCHEDULES, rate_factors
from data_gen.testing import small_digits, small_signals
from zoo.errors import UnknownNameError

_RULES = ["sgd", "sgd", "adam", "adamw", "nesterov", "rmsprop", "nesterov"]
_RATES = np.array([0.1, 0.02, 0.03, 0.05, 0.3, 0.01, 1.0])
_DECAY = np.array([0.0, 0.1, 0.2, 0.3, 0.0, 0.1, 0.5])
_MOMENTUM = np.array([0.9, 0.0, 0.9, 0.0, 0.8, 0.0, 0.5])


def _torch_optimizer(k, parameter):
    kinds = {
        "sgd": lambda p: torch.optim.SGD(
            p, _RATES[k], momentum=_MOMENTUM[k], weight_decay=_DECAY[k]
        ),
        "nesterov": lambda p: torch.optim.SGD(
            p, _RATES[k], momentum=_MOMENTUM[k], weight_decay=_DECAY[k], nesterov=True
        ),
        "adam": lambda p: torch.optim.Adam(p, _RATES[k], weight_decay=_DECAY[k]),
        "adamw": lambda p: torch.optim.AdamW(p, _RATES[k], weight_decay=_DECAY[k]),
        "rmsprop": lambda p: torch.optim.RMSprop(p, _RATES[k], weight_decay=_DECAY[k]),
    }
    return kinds[_RULES[k]]([parameter])


_FACTORS = np.random.default_rng(1).uniform(0.1, 2.0, (7, 10))


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("kept", [None, np.array([5, 3, 0])])
def test_ten_steps_equal_torch(kept, scheduled):
    torch.manual_seed(0)
    start, gradients = torch.randn(7, 32), torch.randn(10, 7, 32)
    gradients[:, :, :3] = 0
    ours = start.clone()
    optimizer = FlatOptimizer(_RULES, _RATES, _DECAY, _MOMENTUM, width=32, has_decay=True)
    rows = np.arange(7)
    for step in range(10):
        if step == 4 and kept is not None:
            optimizer.select(kept)
            ours, rows = ours[torch.from_numpy(kept)], kept
        factors = _FACTORS[rows, step] if scheduled else None
        optimizer.step(ours, gradients[step][torch.from_numpy(rows)].clone(), factors=factors)
    for place, k in enumerate(rows):
        parameter = torch.nn.Parameter(start[k].clone())
        theirs = _torch_optimizer(k, parameter)
        for step, gradient in enumerate(gradients[:, k]):
            parameter.grad = gradient.clone()
            if scheduled:
                theirs.param_groups[0]["lr"] = _RATES[k] * _FACTORS[k, step]
            theirs.step()
        torch.testing.assert_close(ours[place], parameter.detach(), rtol=2e-6, atol=2e-6)


def test_without_decay_nothing_decays():
    ours = torch.ones(7, 32)
    optimizer = FlatOptimizer(_RULES, _RATES, _DECAY, _MOMENTUM, width=32, has_decay=False)
    optimizer.step(ours, torch.zeros(7, 32))
    assert (ours == 1).all()


# ---- schedules ----------------------------------------------------------------------------------
_TORCH = {
    "constant": lambda o, steps: torch_schedules.ConstantLR(o, factor=1.0),
    "cosine": lambda o, steps: torch_schedules.CosineAnnealingLR(o, T_max=steps),
    "one_cycle": lambda o, steps: torch_schedules.OneCycleLR(
        o, max_lr=0.3, total_steps=steps, cycle_momentum=False
    ),
    "step": lambda o, steps: torch_schedules.StepLR(o, step_size=ceil(steps / 3)),
}


def _rates(make, steps):
    """Return the learning rates that a torch scheduler gives to each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.3)
    schedule, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step() if len(rates) < steps else None
    return np.array(rates)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_those_of_torch(name, steps):
    theirs = _rates(lambda optimizer: _TORCH[name](optimizer, steps), steps)
    ours = 0.3 * rate_factors(name, np.arange(steps), steps)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-17)


@pytest.mark.parametrize("name", ["constant", "cosine", "step"])
def test_warmup_is_the_linear_schedule_of_torch(name):
    def both(optimizer):
        rising = torch_schedules.LinearLR(optimizer, start_factor=1 / 6, total_iters=5)
        return torch_schedules.ChainedScheduler([rising, _TORCH[name](optimizer, 20)])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = _rates(both, 20)
    ours = 0.3 * rate_factors(name, np.arange(20), 20, warmup=0.3)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_factors_depend_on_the_step_alone():
    whole = rate_factors("cosine", np.arange(30), 30, warmup=0.2)
    np.testing.assert_array_equal(
        rate_factors("cosine", np.array([[7, 29], [0, 4]]), 30, warmup=0.2),
        whole[[[7, 29], [0, 4]]],
    )
    with pytest.raises(UnknownNameError, match="Known: constant, cosine, one_cycle, step"):
        rate_factors("linear", np.arange(3), 3)


def test_recipes_know_exactly_the_names_that_engines_do():
    assert tuple(SCHEDULES) == hp.SCHEDULES
    assert tuple(SCHEMES) == hp.INITS
    assert set(_RULES) == set(hp.OPTIMIZERS)


# ---- clipping and losses ------------------------------------------------------------------------
def test_clipping_is_that_of_torch_row_by_row():
    gradients = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    limits = torch.tensor([0.5, 0.0, 100.0, 3.0, 0.01])
    ours = gradients.clone()
    clip(ours, limits)
    for row in range(5):
        parameter = torch.nn.Parameter(torch.zeros(32))
        parameter.grad = gradients[row].clone()
        if limits[row] > 0:
            torch.nn.utils.clip_grad_norm_([parameter], float(limits[row]))
        torch.testing.assert_close(ours[row], parameter.grad, rtol=1e-6, atol=0)
    assert torch.equal(ours[1:3], gradients[1:3])
    assert float(ours[4].norm()) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("problem", [small_digits(), small_signals()], ids=["classes", "signals"])
def test_slopes_are_the_gradients_of_the_losses(problem):
    torch.manual_seed(0)
    shape = (3, 5, 2 if problem.num_signals else 10)
    outputs = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(shape).double() if problem.num_signals else torch.randint(10, (3, 5))
    temperatures = (1.0, 1.0, 1.0) if problem.num_signals else (0.5, 1.0, 2.0)
    for member, temperature in enumerate(temperatures):
        training_loss(problem, outputs[member], targets[member], temperature=temperature).backward()
    own = None if problem.num_signals else torch.tensor(temperatures)[:, None, None]
    slopes = loss_slope(problem, outputs.detach(), targets, temperature=own)
    torch.testing.assert_close(slopes, outputs.grad, rtol=1e-12, atol=1e-14)
    if own is not None:
        plain = loss_slope(problem, outputs.detach()[1:2], targets[1:2], temperature=None)
        torch.testing.assert_close(plain, outputs.grad[1:2], rtol=1e-12, atol=1e-14)
