import pytest
import torch

from neural_functionals.graphs import graph_template
from neural_functionals.graphs.pyg import to_data
from neural_functionals.models.ng_gnn import NGGNN, Round
from neural_functionals.testing import InvariantModelContract, example_space, random_networks
from zoo.errors import InvalidConfigError


class TestNGGNN(InvariantModelContract):
    def make_model(self, space):
        return NGGNN(space, width=8, num_layers=3, num_waves=6, hidden=(7,))


class TestNGGNNMean(InvariantModelContract):
    def make_model(self, space):
        return NGGNN(space, width=7, num_layers=2, num_waves=0, readout="mean", num_outputs=2)


def test_aggregation_is_that_of_pytorch_geometric():
    """Principal neighbourhood aggregation, with in-degrees of the template's nodes."""
    space = example_space("mlp")
    data = to_data(graph_template(space), random_networks(space, 1, seed=0)[0])
    from torch_geometric.nn.aggr import DegreeScalerAggregation

    degrees = torch.bincount(data.edge_index[1], minlength=data.num_nodes)
    theirs = DegreeScalerAggregation(
        ["mean", "min", "max", "std"], ["identity", "amplification"], torch.bincount(degrees)
    ).double()
    model = NGGNN(space, width=3)
    topology, one = model.reader.topology, model.rounds[0]
    messages = [
        torch.randn(1, *block.shape, 3, dtype=torch.float64)
        for block in model.reader.template.blocks
    ]
    rows = torch.cat([block.flatten(1, 3) for block in messages], dim=1)[0]
    expected = theirs(rows, data.edge_index[1], dim_size=data.num_nodes, dim=0)
    heard = Round._aggregate(topology, messages)[0]
    torch.testing.assert_close(heard, expected[:, :12])
    scale = topology.in_degree.log1p() / one.mean_log_degree
    torch.testing.assert_close(heard * scale, expected[:, 12:], rtol=1e-6, atol=1e-6)


def test_distant_units_are_read_by_the_mean():
    """Two rounds do not carry the first of three layers to the outputs."""
    space = example_space("mlp")
    assert not NGGNN(space, num_layers=3).read.reads_mean
    assert NGGNN(space, num_layers=2).read.reads_mean


def test_bad_options_are_refused():
    space = example_space("mlp")
    with pytest.raises(InvalidConfigError, match="'outputs' or 'mean'"):
        NGGNN(space, readout="max")
    with pytest.raises(InvalidConfigError, match="positive widths"):
        NGGNN(space, width=0)
