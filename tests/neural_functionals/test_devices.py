"""Every model on a GPU, in bfloat16, and compiled."""

import copy

import pytest
import torch

from neural_functionals.models import MODELS, FittedFunctional, build_model, needs_network
from neural_functionals.testing import NETWORKS, example_space, random_networks

_NETWORK = "cnn"
_SMALL = {
    "sane": {"channels": 16, "num_heads": 2, "num_blocks": 1},
    "nft": {"channels": 8, "num_heads": 2},
}
_TRAINED = [
    name
    for name, (_, cls) in MODELS.items()
    if cls.reads == "weights" and not issubclass(cls, FittedFunctional)
]
_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def _model(name):
    space = example_space(_NETWORK)
    options = {"network": NETWORKS[_NETWORK]} if needs_network(name, {}) else {}
    torch.manual_seed(0)
    model = build_model(name, space=space, num_hyperparameters=1, **options, **_SMALL.get(name, {}))
    model.fit_statistics(random_networks(space, 50, seed=0).float())
    return model.eval(), random_networks(space, 9, seed=1).float()


@pytest.mark.parametrize("name", _TRAINED)
def test_bfloat16_is_near_and_trains(name):
    model, weights = _model(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(weights)
        outputs.float().square().sum().backward()
    exact = model(weights)
    assert (outputs.float() - exact).abs().max() < 0.05 * (1 + exact.abs().max())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", _TRAINED)
def test_a_captured_graph_computes_the_same(name):
    model, weights = _model(name)
    captured = torch.compile(copy.deepcopy(model), backend="aot_eager")
    torch.testing.assert_close(captured(weights), model(weights), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@_GPU
@pytest.mark.parametrize("name", _TRAINED)
def test_a_gpu_agrees_with_the_processor(name):
    model, weights = _model(name)
    on_gpu = copy.deepcopy(model).cuda()
    torch.testing.assert_close(on_gpu(weights.cuda()).cpu(), model(weights), rtol=1e-3, atol=1e-4)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        outputs = on_gpu(weights.cuda())
        outputs.float().square().sum().backward()
    assert outputs.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in on_gpu.parameters())


@pytest.mark.gpu
@_GPU
@pytest.mark.parametrize("name", _TRAINED)
def test_compiled_on_a_gpu_it_computes_the_same(name):
    model, weights = _model(name)
    on_gpu = model.cuda()
    compiled = torch.compile(on_gpu)
    torch.testing.assert_close(
        compiled(weights.cuda()), on_gpu(weights.cuda()), rtol=1e-3, atol=1e-4
    )
