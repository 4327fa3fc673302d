"""Reading networks off the nodes of their graphs."""

import torch
from torch import Tensor, nn

from neural_functionals.graphs.mixed_topology import MixedTopology
from neural_functionals.graphs.reading import GraphReader, Graphs
from neural_functionals.graphs.template import GraphTemplate
from zoo.errors import WeightSpaceMismatchError


class Readout(nn.Module):
    """Features of networks from those of their nodes.

    The features of all network outputs, side by side, or the mean over all nodes; both where some
    node is too far from the outputs to be felt there. Parameters that belong to no node and no edge
    are appended as they are.

    Parameters
    ----------
    reader
        Lays out the weights.
    width
        Features per node.
    num_rounds
        Number of edges that features of a node pass.
    outputs
        Whether to read the network outputs.
    both_ways
        Whether features pass edges backwards, too.

    Attributes
    ----------
    num_features
        Length of the result.
    """

    def __init__(
        self,
        reader: GraphReader,
        width: int,
        *,
        num_rounds: int,
        outputs: bool,
        both_ways: bool = False,
    ) -> None:
        super().__init__()
        room = reader.room
        self.num_outputs = room.num_outputs if outputs else 0
        reached = reaches_outputs(reader.template, num_rounds, both_ways=both_ways)
        self.reads_mean = not self.num_outputs or not reached
        self.num_features = (self.num_outputs + self.reads_mean) * width + room.graph_width

    def forward(self, graphs: Graphs, nodes: Tensor) -> Tensor:
        """Read features of nodes, ``[batch, num_features]``.

        Raises
        ------
        WeightSpaceMismatchError
            If graphs of a batch differ in their number of outputs.
        """
        parts = [graphs.whole]
        if self.reads_mean:
            parts.insert(0, graphs.topology.pool(nodes))
        if self.num_outputs:
            if isinstance(graphs.topology, MixedTopology):
                self._check(graphs, graphs.topology)
            outputs = nodes.index_select(-2, graphs.outputs)
            parts.insert(0, outputs.reshape(len(graphs.whole), self.num_outputs * nodes.shape[-1]))
        return torch.cat(parts, dim=1)

    def _check(self, graphs: Graphs, topology: MixedTopology) -> None:
        owners = topology.graph[graphs.outputs]
        counts = torch.bincount(owners, minlength=topology.num_graphs)
        if bool((counts != self.num_outputs).any()):
            raise WeightSpaceMismatchError(
                f"Expected networks of {self.num_outputs} outputs each, got {counts.tolist()}. "
                'Where they differ, read the mean over nodes (readout="mean").'
            )


def reaches_outputs(template: GraphTemplate, num_rounds: int, *, both_ways: bool) -> bool:
    """Tell whether what every node is and hears gets to a network output in so many rounds.

    Hidden units hear their weights in the first round, and need the others to tell.
    """
    near = {at for at, each in enumerate(template.node_sets) if each.kind == "output"}
    hidden = {at for at, each in enumerate(template.node_sets) if each.kind == "hidden"}
    heard = False
    for _ in range(num_rounds):
        heard = hidden <= near
        found = {block.source for block in template.blocks if block.target in near}
        if both_ways:
            found |= {block.target for block in template.blocks if block.source in near}
        near |= found
    return heard and len(near) == len(template.node_sets)
