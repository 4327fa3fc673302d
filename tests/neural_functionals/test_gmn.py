import pytest
import torch

from neural_functionals.models.gmn import GMN, State
from neural_functionals.testing import InvariantModelContract, example_space, random_networks
from zoo.errors import InvalidConfigError


class TestGMN(InvariantModelContract):
    def make_model(self, space):
        return GMN(space, width=6, num_layers=2, hidden=(7,))


class TestGMNKernelsAsFeatures(InvariantModelContract):
    def make_model(self, space):
        return GMN(space, width=7, num_layers=3, parallel_edges=False, num_outputs=2)


def test_every_kernel_entry_has_an_edge():
    space = example_space("cnn")
    kernels, pairs = (GMN(space, width=3, parallel_edges=each) for each in (True, False))
    assert pairs.reader.template.num_edges == 3 + 6 + 8
    assert kernels.reader.template.num_edges == 4 * (3 + 6) + 8
    assert kernels.encode.lanes.shape == (4, 3)
    assert pairs.encode.lanes is None


def test_nodes_hear_the_mean_of_messages_both_ways():
    """Against the definition, with a perceptron per edge."""
    space = example_space("flatten")
    model = GMN(space, width=3, num_layers=1).double()
    graphs = model.reader(random_networks(space, 1, seed=0))
    state = State(*model.encode(graphs), torch.ones(1, 3, dtype=torch.float64))
    one = model.rounds[0]
    read = one._read(graphs.topology, state)
    rows = torch.cat([edge.flatten(1, 3) for edge in state.edges], dim=1)[0]
    source, target = model.reader.template.edge_index
    for back, (here, message, linear) in enumerate(
        zip((target, source), one.messages, one.heard, strict=True)
    ):
        hidden = message.own(rows) + message.source(state.nodes[0, source])
        hidden = hidden + message.target(state.nodes[0, target]) + message.whole(state.whole)
        messages = linear(hidden.relu())
        for node in set(here.tolist()):
            expected = messages[torch.from_numpy(here) == node].mean(dim=0)
            torch.testing.assert_close(read[1 + back][0, node], expected)


def test_gradients_are_not_copied_into_views():
    """What is changed in place inside a view costs more than all matrix products together."""
    space = example_space("cnn")
    work, seen = [GMN(space, width=3)(random_networks(space, 2, seed=0).float()).grad_fn], set()
    while work:
        step = work.pop()
        if step is not None and step not in seen:
            seen.add(step)
            work += [before for before, _ in step.next_functions]
    assert len(seen) > 100
    assert "CopySlices" not in {type(step).__name__ for step in seen}


def test_bad_options_are_refused():
    with pytest.raises(InvalidConfigError, match="positive widths"):
        GMN(example_space("mlp"), num_layers=0)
