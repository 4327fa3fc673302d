"""The equivariant linear map is equivariant, complete and starts at unit variance."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from tiny_networks import OTHERS, REPEATED, space_called

from neural_functionals.layers import EquivariantLinear, FeatureBlock, WeightLayout
from neural_functionals.testing import NETWORKS, example_space, random_action, random_networks
from zoo.errors import WeightSpaceMismatchError
from zoo.symmetry import from_permutations


def generators(space):
    """Index vectors of swaps of neighbouring units, which generate the whole group."""
    for group in space.groups:
        for copy, i in product(range(group.copies), range(group.size - 1)):
            swap = torch.arange(group.size).repeat(group.copies, 1)
            swap[copy, [i, i + 1]] = swap[copy, [i + 1, i]]
            yield from_permutations(space, {group.name: swap}).index.numpy()


SPACES = [*NETWORKS, *OTHERS]


@pytest.mark.parametrize("name", list(REPEATED))
def test_these_spaces_have_repeated_groups(name):
    layout = WeightLayout(space_called(name), repeated=True)
    assert any(len(set(block.groups)) < len(block.groups) for block in layout.blocks())
    with pytest.raises(WeightSpaceMismatchError, match="moves several axes"):
        WeightLayout(space_called(name))


def num_orbits(labels, moves):
    """Number of classes of array entries that the moves carry into one another."""
    while True:
        merged = labels
        for move in moves:
            merged = np.minimum(merged, move(merged))
        if np.array_equal(merged, labels):
            return len(np.unique(labels))
        labels = merged


def brute_force_dimension(space):
    """Dimension of all equivariant affine maps: orbits of pairs plus orbits of positions."""
    size = space.num_parameters
    swaps = list(generators(space))
    pairs = num_orbits(
        np.arange(size**2).reshape(size, size),
        [lambda x, s=s: x[np.ix_(s, s)] for s in swaps],
    )
    return pairs + num_orbits(np.arange(size), [lambda x, s=s: x[s] for s in swaps])


def as_matrices(layout, layer):
    """Effect of every single parameter of the layer, ``[parameters, P * P + P]``."""
    points = torch.cat([torch.eye(layout.num_parameters), torch.zeros(1, layout.num_parameters)])
    features = layout.gather(points.double())
    rows = []
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        for parameter in layer.parameters():
            for entry in parameter.view(-1):
                entry.fill_(1.0)
                rows.append(layout.scatter(layer(features)).flatten())
                entry.zero_()
    return torch.stack(rows)


@pytest.mark.parametrize("name", SPACES)
def test_basis_is_complete_and_free(name):
    """As many parameters as there are equivariant maps, and no two of them alike."""
    space = space_called(name)
    layout = WeightLayout(space, repeated=True)
    layer = EquivariantLinear(layout.blocks(), layout.blocks()).double()
    matrices = as_matrices(layout, layer)
    rank = int(torch.linalg.matrix_rank(matrices @ matrices.T, hermitian=True))
    assert rank == brute_force_dimension(space)
    assert rank == sum(parameter.numel() for parameter in layer.parameters())


@pytest.mark.parametrize("free", [(), ("input", "output")])
@pytest.mark.parametrize("name", SPACES)
def test_equivariant(name, free):
    space = space_called(name)
    layout = WeightLayout(space, free=free, repeated=True)
    layers = [
        EquivariantLinear(layout.blocks(), layout.blocks(3)).double(),
        EquivariantLinear(layout.blocks(3), layout.blocks()).double(),
    ]

    def apply(weights):
        hidden = [block.tanh() for block in layers[0](layout.gather(weights))]
        return layout.scatter(layers[1](hidden))

    weights = random_networks(space, 4, seed=0)
    action = random_action(space, seed=0)
    expected = action(apply(weights))
    assert (apply(action(weights)) - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert (expected - apply(weights)).abs().max() > 1e-3


def slow_map(layer, inputs, outputs, features):
    """The defining sum, term by term, with the layer's own matrices."""
    subsets = layer.subsets
    results = []
    starts = {subset: 0 for subset in subsets}
    for block in outputs:
        total = torch.zeros(features[0].shape[0], *block.sizes, block.channels).double()
        for subset in subsets:
            if not set(subset) <= set(block.groups):
                continue
            rows = layer.weights[subsets.index(subset)]
            rows = rows[starts[subset] : starts[subset] + block.channels]
            starts[subset] += block.channels
            column = 0
            for source, x in zip(inputs, features, strict=True):
                if not set(subset) <= set(source.groups):
                    continue
                rest = [1 + i for i, g in enumerate(source.groups) if g not in subset]
                mean = x.mean(dim=rest, keepdim=True) if rest else x
                matrix = rows[:, column : column + source.channels]
                column += source.channels
                term = mean @ matrix.T
                shape = [
                    term.shape[1 + source.groups.index(g)] if g in subset else 1
                    for g in block.groups
                ]
                total = total + term.reshape(term.shape[0], *shape, block.channels)
        results.append(total)
    bias = layer.bias.split([block.channels for block in outputs])
    return [x + b for x, b in zip(results, bias, strict=True)]


def random_blocks(seed, count):
    rng = np.random.default_rng(seed)
    sizes = {"a": 2, "b": 3, "c": 5}
    choices = [c for n in range(4) for c in combinations(sizes, n)]
    picked = [choices[i] for i in rng.integers(len(choices), size=count)]
    return [
        FeatureBlock(groups=g, sizes=tuple(sizes[n] for n in g), channels=int(rng.integers(1, 4)))
        for g in picked
    ]


@pytest.mark.parametrize("seed", range(12))
def test_fast_form_equals_the_sum_over_subsets(seed):
    """On arbitrary blocks, up to three groups each, inputs and outputs unrelated."""
    inputs, outputs = random_blocks(seed, 4), random_blocks(100 + seed, 4)
    layer = EquivariantLinear(inputs, outputs).double()
    torch.nn.init.normal_(layer.bias)
    features = [torch.randn(2, *block.sizes, block.channels).double() for block in inputs]
    for fast, slow in zip(layer(features), slow_map(layer, inputs, outputs, features), strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_outputs_start_at_unit_variance(name):
    layout = WeightLayout(example_space(name))
    blocks = layout.blocks(64)
    generator = torch.Generator().manual_seed(0)
    features = []
    for block in blocks:
        ones = [1] * len(block.sizes)
        shared = torch.randn(200, *ones, block.channels, generator=generator)
        own = torch.randn(200, *block.sizes, block.channels, generator=generator)
        features.append(own if not ones else (shared + own) / 2**0.5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = EquivariantLinear(blocks, blocks)
    for output in layer(features):
        assert 0.85 < output.square().mean().item() < 1.15


def test_groups_must_be_sorted():
    with pytest.raises(WeightSpaceMismatchError, match="groups sorted by name"):
        FeatureBlock(groups=("b", "a"), sizes=(2, 3), channels=1)


def test_repeated_groups_must_not_be_nested():
    for inside in ((("a", "b"),), (("b", "a"),)):
        with pytest.raises(WeightSpaceMismatchError, match="nested or has groups inside"):
            FeatureBlock(groups=("a", "a"), sizes=(2, 2), channels=1, inside=inside)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3)])
def test_one_map_per_set_partition(before, after):
    """Bell numbers of axes: maps between tensors of which one group moves all axes."""
    size = before + after
    inputs, outputs = (
        [FeatureBlock(groups=("g",) * axes, sizes=(size,) * axes, channels=1)]
        for axes in (before, after)
    )
    layer = EquivariantLinear(inputs, outputs)
    bell = [1, 1, 2, 5, 15, 52]
    assert sum(weight.numel() for weight in layer.weights) == bell[before + after]
    assert layer.bias.numel() == bell[after]
