import numpy as np
import pytest
import torch

from data_gen.engines.optim import FlatOptimizer

_RULES = ["sgd", "sgd", "adam", "adamw", "adamw", "rmsprop", "sgd"]
_RATES = np.array([0.1, 0.02, 0.03, 0.05, 0.3, 0.01, 1.0])
_DECAY = np.array([0.0, 0.1, 0.2, 0.3, 0.0, 0.1, 0.5])
_MOMENTUM = np.array([0.9, 0.0, 0.9, 0.0, 0.0, 0.0, 0.5])


def _torch_optimizer(k, parameter):
    kinds = {
        "sgd": lambda p: torch.optim.SGD(
            p, _RATES[k], momentum=_MOMENTUM[k], weight_decay=_DECAY[k]
        ),
        "adam": lambda p: torch.optim.Adam(p, _RATES[k], weight_decay=_DECAY[k]),
        "adamw": lambda p: torch.optim.AdamW(p, _RATES[k], weight_decay=_DECAY[k]),
        "rmsprop": lambda p: torch.optim.RMSprop(p, _RATES[k], weight_decay=_DECAY[k]),
    }
    return kinds[_RULES[k]]([parameter])


@pytest.mark.parametrize("kept", [None, np.array([5, 3, 0])])
def test_ten_steps_equal_torch(kept):
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
        optimizer.step(ours, gradients[step][torch.from_numpy(rows)].clone())
    for place, k in enumerate(rows):
        parameter = torch.nn.Parameter(start[k].clone())
        theirs = _torch_optimizer(k, parameter)
        for gradient in gradients[:, k]:
            parameter.grad = gradient.clone()
            theirs.step()
        torch.testing.assert_close(ours[place], parameter.detach(), rtol=2e-6, atol=2e-6)


def test_without_decay_nothing_decays():
    ours = torch.ones(7, 32)
    optimizer = FlatOptimizer(_RULES, _RATES, _DECAY, _MOMENTUM, width=32, has_decay=False)
    optimizer.step(ours, torch.zeros(7, 32))
    assert (ours == 1).all()
