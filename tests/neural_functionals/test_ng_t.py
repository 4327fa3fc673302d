from functools import partial

import pytest
import torch

from neural_functionals.graphs import RelationalAttention, SharedTopology, graph_template
from neural_functionals.models.ng_t import NGT
from neural_functionals.testing import InvariantModelContract, example_space
from zoo.errors import InvalidConfigError

SMALL = {
    "node_width": 6,
    "edge_width": 5,
    "attention_width": 8,
    "num_heads": 2,
    "node_hidden": 7,
    "edge_hidden": 6,
    "hidden": (9,),
}


class TestNGT(InvariantModelContract):
    def make_model(self, space):
        return NGT(space, num_layers=3, num_waves=6, **SMALL)


class TestNGTMean(InvariantModelContract):
    def make_model(self, space):
        return NGT(space, num_layers=2, num_waves=0, readout="mean", num_outputs=2, **SMALL)


def test_attention_is_that_of_the_paper():
    """Per node, over itself and the nodes at the other ends of its edges, by the definition."""
    template = graph_template(example_space("mlp"))
    attend = RelationalAttention(6, 5, width=8, num_heads=2, back=True).double()
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    nodes = draw(1, template.num_nodes, 6)
    edges = [draw(1, *block.shape, 5) for block in template.blocks]
    rows = torch.cat([edge.flatten(1, 3) for edge in edges], dim=1)[0]
    query, key, value = attend.project(nodes[0]).chunk(3, dim=1)

    for node in range(template.num_nodes):
        queries, keys, values = [query[node]], [key[node]], [value[node]]
        for (source, target), edge in zip(template.edge_index.T, rows, strict=True):
            for one, here, there in zip(
                attend.directions, (target, source), (source, target), strict=True
            ):
                if here == node:
                    queries.append(query[node] + one.query(edge))
                    keys.append(key[there] + one.key(edge))
                    values.append(one.factor(edge) * value[there] + one.shift(edge))
        heads = [torch.stack(part).unflatten(1, (2, 4)) for part in (queries, keys, values)]
        weights = ((heads[0] * heads[1]).sum(dim=2) / 8**0.5).softmax(dim=0)
        expected = attend.out((weights.unsqueeze(2) * heads[2]).sum(dim=0).flatten())
        came = attend(SharedTopology(template), nodes, edges)[0, node]
        torch.testing.assert_close(came, expected)


def test_bad_options_are_refused():
    space = example_space("mlp")
    with pytest.raises(InvalidConfigError, match="that 3 heads divide, got 8"):
        NGT(space, attention_width=8, num_heads=3)
    with pytest.raises(InvalidConfigError, match="'outputs' or 'mean'"):
        NGT(space, readout="max")
    with pytest.raises(InvalidConfigError, match="positive widths"):
        NGT(space, edge_width=0)
