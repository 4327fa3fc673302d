import json

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

import zoo
from neural_functionals.graphs import (
    MixedTopology,
    SharedTopology,
    graph_room,
    graph_template,
    parallel_edges,
)
from neural_functionals.graphs.pyg import Batch, to_data
from neural_functionals.models import GMN, NGGNN, NGT, describe_model, restore_model
from neural_functionals.testing import NETWORKS, example_space, random_networks, symmetry_errors
from zoo.errors import WeightSpaceMismatchError


class SelfAttention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Linear(3, 6)
        self.attention = torch.nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = torch.nn.Linear(6, 4)

    def forward(self, tokens):
        hidden = torch.tanh(self.embed(tokens))
        return self.head(hidden + self.attention(hidden, hidden, hidden, need_weights=False)[0])


class Recurrent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = torch.nn.GRU(2, 3, batch_first=True)
        self.head = torch.nn.Linear(3, 5)

    def forward(self, steps):
        return self.head(self.cell(steps)[0])


class Bilinear(torch.nn.Module):
    """Weights between three layers: two that meet, and the one that they make."""

    def __init__(self):
        super().__init__()
        self.left, self.right = torch.nn.Linear(2, 3), torch.nn.Linear(2, 5)
        self.meet = torch.nn.Parameter(torch.randn(4, 3, 5))
        self.head = torch.nn.Linear(4, 2)

    def forward(self, x):
        left, right = torch.tanh(self.left(x)), torch.tanh(self.right(x))
        return self.head(torch.tanh(torch.einsum("bi,kij,bj->bk", left, self.meet, right)))


def grouped():
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 3),
        torch.nn.ReLU(),
        torch.nn.Conv2d(6, 4, 2, groups=2),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(36, 2),
    )


MORE = {
    "attention": (SelfAttention, (1, 4, 3)),
    "recurrent": (Recurrent, (1, 4, 2)),
    "bilinear": (Bilinear, (1, 2)),
    "grouped": (grouped, (1, 1, 6, 6)),
}
ALL = [*NETWORKS, *MORE]


def space_of(name):
    if name in NETWORKS:
        return example_space(name)
    make, shape = MORE[name]
    return zoo.trace(make(), torch.zeros(shape))


def random_moves(space, count):
    generator = torch.Generator().manual_seed(0)
    return [space.sample(generator).index.numpy() for _ in range(count)]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", [lambda template: template, parallel_edges])
def test_every_weight_has_one_place(name, kind):
    space = space_of(name)
    template = kind(graph_template(space))
    gathers = (template.node_gather, template.edge_gather, template.graph_index)
    places = np.concatenate([gather.ravel() for gather in gathers])
    assert sorted(places[places < space.num_parameters]) == list(range(space.num_parameters))


@pytest.mark.parametrize("name", ALL)
def test_orbits_are_those_of_relabellings(name):
    """By brute force: positions that random relabellings carry into one another."""
    space = space_of(name)
    label = np.arange(space.num_parameters)
    for move in random_moves(space, 60) * 2:
        smallest = np.minimum(label, label[move])
        np.minimum.at(smallest, move, smallest.copy())
        label = smallest
    expected = np.unique(label, return_inverse=True)[1]
    orbit = graph_template(space).orbit
    assert len(set(zip(expected.tolist(), orbit.tolist(), strict=True))) == orbit.max() + 1
    assert expected.max() == orbit.max()


@pytest.mark.parametrize("name", ALL)
def test_relabelled_weights_give_a_relabelled_graph(name):
    """The multiset of edges per node, with their features, does not change within an orbit."""
    space = space_of(name)
    template = graph_template(space)
    weights = torch.randn(space.num_parameters + 1, dtype=torch.float64)
    weights[-1] = 0
    for move in random_moves(space, 5):
        moved = torch.cat([weights[move], weights[-1:]])
        assert signature(template, weights.numpy()) == signature(template, moved.numpy())


def signature(template, padded):
    """What each node and its edges hold, as a multiset: blind to the numbers of nodes."""
    source, target = template.edge_index
    nodes = [tuple(row) for row in padded[template.node_gather]]
    edges = [tuple(row) for row in padded[template.edge_gather]]
    around = [[(orbit, node)] for orbit, node in zip(template.node_orbit, nodes, strict=True)]
    for at, (start, end) in enumerate(zip(source, target, strict=True)):
        entry = template.edge_orbit[at], edges[at]
        around[start].append(("out", *entry, nodes[end]))
        around[end].append(("in", *entry, nodes[start]))
    return sorted(repr([own, *sorted(map(repr, others))]) for own, *others in around)


def test_edges_follow_the_computation():
    template = graph_template(example_space("mlp"))
    sizes = [(each.kind, each.size) for each in template.node_sets]
    assert sizes == [("input", 4), ("hidden", 3), ("hidden", 5), ("output", 2)]
    assert [(b.source, b.target, b.shape) for b in template.blocks] == [
        (0, 1, (1, 3, 4)),
        (1, 2, (1, 5, 3)),
        (2, 3, (1, 2, 5)),
    ]
    assert template.in_degree.tolist() == [0] * 4 + [4] * 3 + [3] * 5 + [5] * 2


def test_axes_of_one_position_are_inputs_and_outputs():
    siren, cnn = (graph_template(example_space(name)) for name in ("siren", "cnn"))
    assert [(each.kind, each.size) for each in siren.node_sets][-1] == ("output", 1)
    assert [(each.kind, each.size) for each in cnn.node_sets][0] == ("input", 1)


def test_heads_tie_their_units():
    """Units of queries and keys and units of values of one head have their head in common."""
    template = graph_template(space_of("attention"))
    nested = [block for block in template.blocks if block.kind == "nesting"]
    assert sorted(block.shape for block in nested) == [(2, 1, 3)] * 2 + [(2, 3, 1)] * 2
    heads = {block.target for block in nested if block.shape == (2, 1, 3)}
    assert len(heads) == 1
    assert template.node_sets[heads.pop()].size == 2


def test_groups_of_a_convolution_are_copies():
    """Output channels see input channels of their own group only."""
    template = graph_template(space_of("grouped"))
    assert (2, 2, 3) in [block.shape for block in template.blocks]


class Diagonal(torch.nn.Module):
    """Parameters per channel and state, of which neither makes the other."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = torch.nn.Linear(2, 3), torch.nn.Linear(3, 2)
        self.decay, self.read = (torch.nn.Parameter(torch.randn(3, 5)) for _ in range(2))

    def forward(self, x):
        state = torch.sigmoid(self.decay) * self.embed(x).unsqueeze(-1)
        return self.head((torch.tanh(state) * self.read).sum(-1))


def test_weights_without_direction_have_edges_both_ways():
    """So that states, too, hear which of their parameters belong together."""
    space = zoo.trace(Diagonal(), torch.zeros(2, 2))
    template = graph_template(space)
    shapes = [block.shape for block in template.blocks]
    assert shapes.count((1, 3, 5)) == shapes.count((1, 5, 3)) == 2
    torch.manual_seed(0)
    model = NGGNN(space, width=6, num_waves=4).double()
    weights = random_networks(space, 4, seed=0)
    before = model(weights)
    first = space.unflatten(weights.clone())
    moved = space.flatten(first | {"decay": first["decay"].roll(1, dims=2)})
    assert ((model(moved) - before).abs() / before.std(dim=0)).max() > 1e-4


def test_single_numbers_describe_the_network():
    """A learned temperature, say, which has no axis."""

    class Tempered(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = torch.nn.Linear(2, 3), torch.nn.Linear(3, 2)
            self.temperature = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return self.last(torch.tanh(self.first(x))) * self.temperature

    space = zoo.trace(Tempered(), torch.zeros(2, 2))
    template = graph_template(space)
    assert template.graph_index.tolist() == [space.offsets["temperature"]]
    assert GMN(space, width=4)(torch.randn(2, space.num_parameters)).shape == (2, 1)


def test_a_bilinear_map_has_a_node_per_entry():
    template = graph_template(space_of("bilinear"))
    entries = next(each for each in template.node_sets if each.size == 60)
    at = template.node_sets.index(entries)
    assert sorted(b.shape for b in template.blocks if b.target == at) == [(3, 20, 1), (5, 12, 1)]
    assert [b.shape for b in template.blocks if b.source == at] == [(4, 1, 15)]


def test_kernels_are_centred():
    """In room for 4 x 3, as zero padding of 1 above, 1 below and 0 to the left would."""
    space = example_space("cnn")
    template = graph_template(space, kernel=(4, 3))
    kernels = torch.arange(1.0, 5).view(1, 1, 2, 2)
    expected = pad(kernels, (0, 1, 1, 1)).flatten()
    columns = np.zeros(12)
    columns[template.blocks[0].columns] = [1, 2, 3, 4]
    assert columns.tolist() == expected.tolist()
    with pytest.raises(WeightSpaceMismatchError, match=r"at most \(1, 3\), got one of \(2, 2\)"):
        graph_template(space, kernel=(1, 3))


@pytest.mark.parametrize("name", ["flatten", "attention", "bilinear", "grouped", "recurrent"])
@pytest.mark.parametrize("kind", [lambda template: template, parallel_edges])
def test_blocks_and_rows_pass_the_same_messages(name, kind):
    """Against PyTorch Geometric's aggregations, too."""
    from torch_geometric.nn import aggr

    template = kind(graph_template(space_of(name)))
    nodes = torch.randn(1, template.num_nodes, 3, dtype=torch.float64)
    index = torch.from_numpy(template.edge_index)
    shared = SharedTopology(template)
    mixed = MixedTopology(index, torch.zeros(template.num_nodes, dtype=torch.int64), 1)

    blocks = zip(shared.sources(nodes), shared.targets(nodes), strict=True)
    edges = [source * target.exp() for source, target in blocks]
    rows = nodes[0][index[0]] * nodes[0][index[1]].exp()
    torch.testing.assert_close(torch.cat([block.flatten(1, 3) for block in edges], dim=1)[0], rows)
    for ours, theirs in (
        (lambda t, e: t.sum(e), aggr.SumAggregation()),
        (lambda t, e: t.mean(e), aggr.MeanAggregation()),
        (lambda t, e: t.extreme(e, largest=True), aggr.MaxAggregation()),
        (lambda t, e: t.extreme(e, largest=False), aggr.MinAggregation()),
    ):
        expected = theirs(rows, index[1], dim_size=template.num_nodes, dim=0)
        torch.testing.assert_close(ours(shared, edges)[0], expected)
        torch.testing.assert_close(ours(mixed, [rows]), expected)
    back = aggr.SumAggregation()(rows, index[0], dim_size=template.num_nodes, dim=0)
    torch.testing.assert_close(shared.sum(edges, back=True)[0], back)
    torch.testing.assert_close(mixed.sum([rows], back=True), back)
    torch.testing.assert_close(shared.pool_edges(edges), mixed.pool_edges([rows]))


def test_equal_extremes_share_the_gradient():
    template = graph_template(example_space("mlp"))
    edges = [torch.zeros(1, *block.shape, 1, requires_grad=True) for block in template.blocks]
    SharedTopology(template).extreme(edges, largest=True).sum().backward()
    for block, edge in zip(template.blocks, edges, strict=True):
        torch.testing.assert_close(edge.grad, torch.full_like(edge, 1 / block.shape[2]))


def test_graphs_that_do_not_fit_are_refused():
    small, large = example_space("cnn"), example_space("flatten")
    room = graph_room(small)
    template = graph_template(large, kernel=room.kernel)
    with pytest.raises(WeightSpaceMismatchError, match="that fits into"):
        to_data(template, torch.zeros(large.num_parameters), room=room)
    with pytest.raises(WeightSpaceMismatchError, match=r"of shape \[113\]|one network's weights"):
        to_data(template, torch.zeros(3))
    data = to_data(graph_template(small), torch.zeros(small.num_parameters))
    with pytest.raises(WeightSpaceMismatchError, match="`graph_room`"):
        NGGNN(large)(Batch.from_data_list([data]))


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (NGGNN, {"width": 6, "num_waves": 4, "readout": "mean"}),
        (NGT, {"node_width": 6, "attention_width": 8, "num_heads": 2, "readout": "mean"}),
        (GMN, {"width": 6, "parallel_edges": False}),
        (GMN, {"width": 6}),
    ],
)
def test_mixed_batches_give_what_each_network_gives(cls, options):
    """Perceptrons, convolutions and heads in one batch, against each through its own space."""
    spaces = [space_of(name) for name in ("flatten", "attention", "cnn-batch-norm")]
    parallel = options.get("parallel_edges", cls is GMN)
    room = graph_room(*spaces, parallel=parallel)
    models = [cls(space, room=room, num_layers=3, **options).double() for space in spaces]
    state = {k: v for k, v in models[0].state_dict().items() if "normalise" not in k}
    graphs, expected = [], []
    for space, model in zip(spaces, models, strict=True):
        model.load_state_dict(state, strict=False)
        weights = random_networks(space, 2, seed=0)
        expected.append(model(weights))
        template = graph_template(space, kernel=room.kernel)
        template = parallel_edges(template) if parallel else template
        graphs += [to_data(template, each, room=room) for each in weights]
    came = models[0](Batch.from_data_list(graphs))
    torch.testing.assert_close(came, torch.cat(expected), rtol=1e-10, atol=1e-12)
    assert came.std() > 1e-3


def test_networks_of_different_outputs_need_the_mean():
    spaces = [example_space("mlp"), example_space("cnn")]
    room = graph_room(*spaces)
    graphs = [
        to_data(graph_template(s, kernel=room.kernel), torch.zeros(s.num_parameters), room=room)
        for s in spaces
    ]
    with pytest.raises(WeightSpaceMismatchError, match=r"of 4 outputs each, got \[2, 4\]"):
        NGGNN(spaces[1], room=room)(Batch.from_data_list(graphs))


@pytest.mark.parametrize("name", list(MORE))
@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (NGGNN, {"width": 8, "num_waves": 4}),
        (NGT, {"node_width": 8, "attention_width": 8, "num_heads": 2, "num_waves": 4}),
        (GMN, {"width": 8}),
    ],
)
def test_models_read_any_network(cls, options, name):
    """Heads, recurrence, groups of channels, bilinear maps: exact, and every parameter learns."""
    space = space_of(name)
    torch.manual_seed(0)
    model = cls(space, num_layers=4, **options)
    weights = random_networks(space, 8, seed=1)
    model.fit_statistics(weights)
    (row,) = symmetry_errors(model.double(), space, weights, kinds=("permutation",))
    assert row.error <= 1e-10
    assert row.control >= 1e3 * max(row.error, 1e-10)
    model(weights).square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("cls", [NGGNN, NGT, GMN])
def test_swapped_heads_of_values_are_noticed(cls):
    """Units alone would not show it: values would only have changed places."""
    space = space_of("attention")
    values, out = (space.tensor(f"attention.{n}") for n in ("in_proj_weight", "out_proj.weight"))
    order = np.arange(space.num_parameters)
    at = {name: order[space.offsets[name] :] for name in space.offsets}
    swap = [3, 4, 5, 0, 1, 2]
    for name, shape, axis, rows in (
        (values.name, values.shape, 0, slice(12, 18)),
        ("attention.in_proj_bias", (18,), 0, slice(12, 18)),
        (out.name, out.shape, 1, slice(0, 6)),
    ):
        grid = at[name][: np.prod(shape)].reshape(shape)
        part = np.moveaxis(grid, axis, 0)[rows]
        part[...] = part[swap].copy()
    torch.manual_seed(0)
    model = cls(space).double()
    weights = random_networks(space, 4, seed=0)
    before = model(weights)
    assert ((model(weights[:, order]) - before).abs() / before.std(dim=0)).max() > 1e-4


def test_networks_without_edges_are_refused():
    space = zoo.trace(torch.nn.PReLU(3), torch.zeros(2, 3))
    with pytest.raises(WeightSpaceMismatchError, match="weights between"):
        GMN(space)


@pytest.mark.parametrize("cls", [NGGNN, NGT, GMN])
def test_room_survives_a_description(cls):
    space = example_space("cnn")
    room = graph_room(space, example_space("flatten"), parallel=cls is GMN)
    model = cls(space, room=room)
    other = restore_model(json.loads(json.dumps(describe_model(model))))
    assert other.config == model.config
    other.load_state_dict(model.state_dict())
