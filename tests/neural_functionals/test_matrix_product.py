import pytest
import torch
from torch import nn

from neural_functionals.models import NFN
from neural_functionals.models.matrix_product import MatrixProductNetwork
from neural_functionals.testing import (
    NETWORKS,
    SCALED_NETWORKS,
    ScaleInvariantModelContract,
    example_space,
    random_networks,
)
from zoo.errors import InvalidConfigError, WeightSpaceMismatchError
from zoo.networks import build, example_input
from zoo.symmetry import trace

CHAINS = [name for name in SCALED_NETWORKS if name != "cnn-batch-norm"]


class TestMatrixProductNetwork(ScaleInvariantModelContract):
    def make_model(self, space):
        return MatrixProductNetwork(space, width=8, hidden=(9,))

    @pytest.fixture(params=CHAINS)  # BatchNorm's factors of its own are not divided out
    def scaled_space(self, request):
        return example_space(request.param)


def widened(narrow, weights, wide, group, *, unit, share):
    """Copy a unit with all that enters it, and split what leaves it in ``share`` and the rest."""
    tensors = narrow.unflatten(weights)
    size = narrow.group(group).size
    factors = torch.ones(size + 1).double()
    factors[[unit, size]] = torch.tensor([share, 1 - share]).double()
    for old, new in zip(narrow.group(group).touches, wide.group(group).touches, strict=True):
        assert (old.tensor, old.dim) == (new.tensor, new.dim)
        before, dim = tensors[old.tensor], 1 + old.dim
        after = before.new_zeros(before.shape[0], *wide.tensor(new.tensor).shape)
        leaves = narrow.tensor(old.tensor).axes[old.dim].role == "in"
        for target, source in enumerate([*range(size), unit]):
            for there, here in zip(
                new.index.array()[target], old.index.array()[source], strict=True
            ):
                copied = before.select(dim, here) * (factors[target] if leaves else 1.0)
                after.select(dim, there).copy_(copied)
        tensors[old.tensor] = after
    return wide.flatten(tensors)


WIDER = {
    "mlp": ("layers.4", {"hidden": [3, 6]}),
    "siren": ("layers.0", {"hidden": [6, 3]}),
    "cnn": ("layers.0", {"channels": [4, 2]}),
    "flatten": ("layers.3", {"channels": [2, 4]}),
    "cnn-batch-norm": ("layers.0", {"channels": [3, 3]}),
}


def pair_of_widths(name, *, share=0.3):
    """Weights of random networks, and of the same with one unit more that compute the same."""
    group, change = WIDER[name]
    narrow = example_space(name)
    recipe = NETWORKS[name] | change
    wide = trace(build(recipe), example_input(recipe))
    weights = random_networks(narrow, 16, seed=1)
    return narrow, weights, wide, widened(narrow, weights, wide, group, unit=1, share=share)


@pytest.mark.parametrize("name", list(WIDER))
def test_widening_keeps_the_function(name):
    narrow, weights, wide, wider = pair_of_widths(name)
    group, change = WIDER[name]
    for recipe, space, vector in (
        (NETWORKS[name], narrow, weights[0]),
        (NETWORKS[name] | change, wide, wider[0]),
    ):
        module = build(recipe).double().eval()
        module.load_state_dict(space.state_dict(vector.abs()), strict=False)
        inputs = torch.linspace(-1, 1, example_input(recipe).numel()).double()
        outputs = module(inputs.view_as(example_input(recipe)))
        if space is narrow:
            expected = outputs
    torch.testing.assert_close(outputs, expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def change_under_widening(model, name):
    """Largest change of an output per spread of it; one state dict serves both widths."""
    narrow, weights, wide, wider = pair_of_widths(name)
    torch.manual_seed(0)
    small, large = model(narrow).double(), model(wide).double()
    small.fit_statistics(random_networks(narrow, 50, seed=0))
    large.load_state_dict(small.state_dict())
    outputs = small(weights)
    return float(((large(wider) - outputs).abs() / outputs.std(dim=0)).max())


@pytest.mark.parametrize("name", list(WIDER))
def test_widening_keeps_the_output(name):
    assert change_under_widening(lambda s: MatrixProductNetwork(s, width=8), name) <= 1e-9


@pytest.mark.parametrize("name", list(WIDER))
def test_widening_changes_the_output_of_nfn(name):
    assert change_under_widening(lambda s: NFN(s, hidden=(20,)), name) >= 1e-3


class Residual(nn.Module):
    """A stream that is read and written by one layer after another."""

    def __init__(self):
        super().__init__()
        self.first, self.read = nn.Linear(3, 5), nn.Linear(5, 2)
        self.write, self.last = nn.Linear(2, 5), nn.Linear(5, 1)

    def forward(self, x):
        stream = self.first(x)
        return self.last(torch.relu(stream + self.write(torch.relu(self.read(stream)))))


def test_residual_streams_are_refused():
    space = trace(Residual(), torch.zeros(1, 3))
    with pytest.raises(WeightSpaceMismatchError, match="'first' leads to itself"):
        MatrixProductNetwork(space)


def test_bad_options_are_refused():
    with pytest.raises(InvalidConfigError, match="positive widths"):
        MatrixProductNetwork(example_space("mlp"), width=0)


class Product(nn.Module):
    """Hidden units that are products of two layers: a sign of either can move to the other."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = nn.Linear(2, 5), nn.Linear(2, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.left(x) * torch.sin(self.right(x)))


def test_factors_that_are_not_divided_out_are_not_claimed():
    space = trace(Product(), torch.zeros(2, 2))
    assert {one.domain for one in space.scalings} == {"positive", "sign"}
    assert MatrixProductNetwork(space, width=4).symmetries == ("permutation",)
    for name, claims in {"mlp": ("permutation", "scale", "sign"), "cnn-batch-norm": None}.items():
        found = MatrixProductNetwork(example_space(name), width=4).symmetries
        assert found == (claims or ("permutation",))
