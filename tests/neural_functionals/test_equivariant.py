"""The equivariant linear map is equivariant, complete and starts at unit variance."""

from dataclasses import replace
from functools import cache
from itertools import combinations, product

import numpy as np
import pytest
import torch
from tiny_networks import OTHERS, REPEATED, space_called
from torch import nn
from torch.nn.functional import group_norm

from neural_functionals.layers import EquivariantLinear, FeatureBlock, WeightLayout
from neural_functionals.testing import NETWORKS, example_space, random_action, random_networks
from zoo.errors import WeightSpaceMismatchError
from zoo.space import UnitIndex
from zoo.symmetry import from_permutations, trace


class GroupNormResidual(nn.Module):
    """A residual stream of units inside groups of a normalisation: both move two axes."""

    def __init__(self, groups, units):
        super().__init__()
        self.groups, width = groups, groups * units
        self.embed = nn.Linear(1, width, bias=False)
        self.block = nn.Linear(width, width, bias=False)
        self.read = nn.Linear(width, 1, bias=False)

    def forward(self, x):
        x = group_norm(self.embed(x), self.groups)
        return self.read(x + torch.relu(group_norm(self.block(x), self.groups)))


class GroupedResidual(nn.Module):
    """A grouped convolution on a residual stream: units inside groups move two axes, groups one."""

    def __init__(self, groups, units):
        super().__init__()
        width = groups * units
        self.embed = nn.Conv1d(1, width, 1, bias=False)
        self.block = nn.Conv1d(width, width, 1, groups=groups, bias=False)
        self.read = nn.Linear(width, 1, bias=False)

    def forward(self, x):
        x = self.embed(x)
        return self.read((x + torch.relu(self.block(x))).mean(-1))


NESTED = {
    "nested": lambda: trace(GroupNormResidual(4, 4), torch.zeros(2, 1), strict=True),
    "nested-rows": lambda: trace(GroupedResidual(3, 4), torch.zeros(2, 1, 3), strict=True),
}
FEW_UNITS = {
    "residual-few": lambda: trace(GroupNormResidual(1, 3), torch.zeros(2, 1), strict=True),
    "nested-few": lambda: trace(GroupNormResidual(2, 3), torch.zeros(2, 1), strict=True),
    "nested-rows-few": lambda: trace(GroupedResidual(2, 2), torch.zeros(2, 1, 3), strict=True),
}


@cache
def space_of(name):
    makers = NESTED | FEW_UNITS
    return makers[name]() if name in makers else space_called(name)


def generators(space):
    """Index vectors of swaps of neighbouring units, which generate the whole group."""
    for group in space.groups:
        for copy, i in product(range(group.copies), range(group.size - 1)):
            swap = torch.arange(group.size).repeat(group.copies, 1)
            swap[copy, [i, i + 1]] = swap[copy, [i + 1, i]]
            yield from_permutations(space, {group.name: swap}).index.numpy()


SPACES = [*NETWORKS, *OTHERS, *NESTED]


@pytest.mark.parametrize("name", [*REPEATED, *NESTED])
def test_these_spaces_have_repeated_groups(name):
    layout = WeightLayout(space_of(name), repeated=True)
    assert any(len(set(block.groups)) < len(block.groups) for block in layout.blocks())
    with pytest.raises(WeightSpaceMismatchError, match="moves several axes"):
        WeightLayout(space_of(name))


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


def count_maps(name):
    """Rank of the layer's maps, number of its parameters and number of all maps."""
    space = space_of(name)
    layout = WeightLayout(space, repeated=True)
    layer = EquivariantLinear(layout.blocks(), layout.blocks()).double()
    matrices = as_matrices(layout, layer)
    rank = int(torch.linalg.matrix_rank(matrices @ matrices.T, hermitian=True))
    return rank, len(matrices), brute_force_dimension(space)


@pytest.mark.parametrize("name", SPACES)
def test_basis_is_complete_and_free(name):
    """As many parameters as there are equivariant maps, and no two of them alike."""
    rank, num_parameters, expected = count_maps(name)
    assert rank == expected
    assert rank == num_parameters


@pytest.mark.parametrize("name", list(FEW_UNITS))
def test_basis_is_complete_where_maps_coincide(name):
    """Three units cannot tell apart all partitions of the four axes of two square matrices."""
    rank, num_parameters, expected = count_maps(name)
    assert rank == expected
    assert rank < num_parameters


@pytest.mark.parametrize("free", [(), ("input", "output")])
@pytest.mark.parametrize("name", [*SPACES, *FEW_UNITS])
def test_equivariant(name, free):
    space = space_of(name)
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


@pytest.mark.parametrize("nesting", [(), ((2, 0),), ((2, 1), (3, 0)), ((2, 2), (3, 3))])
def test_nested_axes_must_be_placed(nesting):
    with pytest.raises(WeightSpaceMismatchError, match="inside an axis of its outer group"):
        FeatureBlock(
            groups=("a", "a", "b", "b"),
            sizes=(2, 2, 3, 3),
            channels=1,
            inside=(("b", "a"),),
            nesting=nesting,
        )


def test_rows_are_refused_where_their_group_is_unclear():
    """Columns that follow the units of the row's group, not of their own."""
    space = space_of("nested")
    units = space.group("embed/units")
    index = UnitIndex.from_array(np.tile(np.arange(16).reshape(4, 4).T, (4, 1)))
    rows = UnitIndex.from_array(np.arange(16).reshape(4, 4))
    touches = tuple(
        replace(touch, index=index, rows_dim=0, rows=rows)
        if (touch.tensor, touch.dim) == ("block.weight", 1)
        else touch
        for touch in units.touches
    )
    assert touches != units.touches
    groups = tuple(replace(g, touches=touches) if g is units else g for g in space.groups)
    with pytest.raises(WeightSpaceMismatchError, match="moves rows of 'block.weight'"):
        WeightLayout(replace(space, groups=groups), repeated=True)


@pytest.mark.parametrize("other", ["a b", "a#1", "a!"])
def test_names_of_groups_do_not_matter(other):
    """Names that resemble those of parts, and sort before or after them, give the same layer."""
    outputs = []
    for name in ("b", other):
        blocks = [FeatureBlock(groups=("a", "a", name), sizes=(6, 6, 5), channels=1)]
        torch.manual_seed(0)
        layer = EquivariantLinear(blocks, blocks).double()
        outputs.append(layer([torch.linspace(-1, 1, 180).double().cos().view(1, 6, 6, 5, 1)])[0])
    assert torch.equal(*outputs)


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


def test_one_map_per_nested_set_partition():
    """Set partitions of four heads; within each part, of the units whose heads it holds."""
    block = FeatureBlock(
        groups=("head", "head", "unit", "unit"),
        sizes=(4, 4, 4, 4),
        channels=1,
        inside=(("unit", "head"),),
        nesting=((2, 0), (3, 1)),
    )
    layer = EquivariantLinear([block], [block])
    assert sum(weight.numel() for weight in layer.weights) == 15 + 4 * 5 + 3 * 2 * 2 + 6 * 2 + 1
    assert layer.bias.numel() == 2 + 1
