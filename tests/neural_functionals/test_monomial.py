import pytest
import torch
from torch import nn

from neural_functionals.layers import WeightLayout
from neural_functionals.layers.monomial import MonomialLinear, cut, monomial_blocks
from neural_functionals.models.monomial_nfn import MonomialNFN
from neural_functionals.testing import (
    SCALED_NETWORKS,
    ScaleInvariantModelContract,
    example_space,
    random_action,
    random_networks,
    random_scale,
    symmetry_kinds,
)
from zoo.errors import InvalidConfigError
from zoo.symmetry import trace


class TestMonomialNFN(ScaleInvariantModelContract):
    def make_model(self, space):
        return MonomialNFN(space, hidden=(20,))


class Map:
    """A monomial map of one feature per weight, on flat weights."""

    def __init__(self, space):
        self.layout = WeightLayout(space)
        self.blocks = monomial_blocks(space, self.layout)
        self.linear = MonomialLinear(self.blocks, 1, 1).double()

    def __call__(self, weights):
        whole = [block.clone() for block in self.layout.gather(weights)]
        parts = self.linear(list(cut(self.layout.gather(weights), self.blocks)))
        for block, part in zip(self.blocks, parts, strict=True):
            whole[block.block][..., list(block.channels)] = part
        return self.layout.scatter(whole).detach()


def monomial_action(space, *, seed):
    action = random_action(space, seed=seed)
    for kind in symmetry_kinds(space):
        if kind != "permutation":
            action = action.compose(random_scale(space, kind, seed=seed))
    return action


@pytest.mark.parametrize("name", list(SCALED_NETWORKS))
@pytest.mark.parametrize("seed", [0, 1])
def test_map_commutes_with_monomial_matrices(name, seed):
    space = example_space(name)
    linear = Map(space)
    for bias in (p for n, p in linear.linear.named_parameters() if n.endswith("bias")):
        nn.init.normal_(bias)
    weights, action = random_networks(space, 4, seed=seed), monomial_action(space, seed=seed)
    outputs = linear(weights)
    torch.testing.assert_close(linear(action(weights)), action(outputs), rtol=1e-11, atol=1e-11)
    assert (outputs - weights).abs().max() > 1e-3


SMALL = {
    "relu": nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)),
    "tanh": nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)),
    "gelu": nn.Sequential(nn.Linear(1, 2), nn.GELU(), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)),
    "norm": nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 2)),
}


def matrices(space, count):
    """Monomial actions as matrices ``[count, P, P]``."""
    eye = torch.eye(space.num_parameters).double()
    return torch.stack([monomial_action(space, seed=seed)(eye).T for seed in range(count)])


def nullity(constraints):
    return constraints.shape[1] - int(torch.linalg.matrix_rank(constraints))


@pytest.mark.parametrize("name", list(SMALL))
def test_map_is_complete(name):
    """As many independent maps, and biases, as commute with every monomial matrix."""
    module = SMALL[name].eval()
    space = trace(module, torch.zeros(2, 1))
    actions, eye = matrices(space, 6), torch.eye(space.num_parameters).double()
    commutators = [torch.kron(eye, g) - torch.kron(g.T.contiguous(), eye) for g in actions]
    wanted = nullity(torch.cat(commutators))

    linear, basis = Map(space), []
    parameters = dict(linear.linear.named_parameters())
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.zero_()
        for parameter in (p for n, p in parameters.items() if not n.endswith("bias")):
            for at in range(parameter.numel()):
                parameter.view(-1)[at] = 1.0
                basis.append(linear(eye).flatten())
                parameter.view(-1)[at] = 0.0
    assert torch.linalg.matrix_rank(torch.stack(basis)) == len(basis) == wanted
    num_biases = sum(p.numel() for n, p in parameters.items() if n.endswith("bias"))
    assert num_biases == nullity(torch.cat([g - eye for g in actions]))


def test_bad_options_are_refused():
    with pytest.raises(InvalidConfigError, match="at least one layer"):
        MonomialNFN(example_space("mlp"), channels=())


def test_parameters_of_a_unit_that_maps_cannot_mix_are_told_apart():
    """Gains of a norm scale the weights after it, not their biases: only units have both."""
    network = nn.Sequential(
        nn.Linear(2, 4), nn.LayerNorm(4), nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 1)
    )
    space = trace(network, torch.zeros(3, 2))
    torch.manual_seed(0)
    model = MonomialNFN(space, channels=(8, 6), hidden=(7,))
    model.fit_statistics(random_networks(space, 20, seed=0))
    weights = random_networks(space, 4, seed=1)
    before = model.double()(weights)
    tensors = space.unflatten(weights.clone())
    moved = space.flatten(tensors | {"2.weight": tensors["2.weight"].roll(1, dims=1)})
    assert ((model(moved) - before).abs() / before.std(dim=0)).max() > 1e-4
