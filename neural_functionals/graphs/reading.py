"""From flat weights to features of nodes, edges and whole networks: one gather."""

from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neural_functionals.graphs.assembly import graph_template, parallel_edges
from neural_functionals.graphs.blocks import EDGE_KINDS, NODE_KINDS
from neural_functionals.graphs.mixed_topology import MixedTopology
from neural_functionals.graphs.room import GraphRoom
from neural_functionals.graphs.topology import SharedTopology, Topology
from neural_functionals.layers.normalise import OrbitNormalisation
from zoo.errors import WeightSpaceMismatchError
from zoo.space import WeightSpace

if TYPE_CHECKING:
    from torch_geometric.data import Batch


class Graphs(NamedTuple):
    """Features of a batch of networks.

    Parameters
    ----------
    nodes, edges
        As ``topology`` has them.
    columns
        Per tensor of edges which of the reader's ``edge_columns`` its channels are, ``[channels]``,
        int64; ``None`` for all of them.
    edge_types
        Per tensor of edges the kind and lane of its rows, int64; each broadcasts to the tensor
        without channels.
    places
        Number of each node's orbit, from 0, ``[nodes]``, int64.
    whole
        Features of networks, ``[batch, graph_width]``.
    outputs
        The nodes that are network outputs, int64.
    topology
        Where messages go.
    """

    nodes: Tensor
    edges: list[Tensor]
    columns: list[Tensor | None]
    edge_types: list[tuple[Tensor, Tensor]]
    places: Tensor
    whole: Tensor
    outputs: Tensor
    topology: Topology


class GraphReader(nn.Module):
    """Normalises weights and lays them out on the graph of their space.

    Batches of mixed graphs (see :func:`~neural_functionals.graphs.pyg.to_data`) are taken as they
    are: normalise their weights before, if at all.

    Parameters
    ----------
    space
        Weight space of flat weights.
    room
        For mixed graphs, what they need room for; by default there is none for others.
    parallel
        Whether every weight has an edge of its own, see
        :func:`~neural_functionals.graphs.parallel_edges`.

    Attributes
    ----------
    node_columns, edge_columns
        Which of the features of nodes and edges are read.
    """

    def __init__(
        self, space: WeightSpace, room: GraphRoom | None = None, *, parallel: bool = False
    ) -> None:
        super().__init__()
        template = graph_template(space, kernel=None if room is None else room.kernel)
        if parallel:
            template = parallel_edges(template)
        if not template.blocks:
            raise WeightSpaceMismatchError(
                "Expected a network with weights between inputs, units and outputs, got weight "
                f"space {space.fingerprint} without. Use a model that needs none, such as nfn."
            )
        self.space, self.template = space, template
        self.room = GraphRoom.of(template) if room is None else room
        self.room.check(template)
        self.node_columns = _used([each.columns for each in template.node_features])
        self.edge_columns = _used([block.columns for block in template.blocks])
        if room is not None:
            self.node_columns = np.arange(room.node_width)
            self.edge_columns = np.arange(room.edge_width)
        self.normalise = OrbitNormalisation(torch.from_numpy(template.orbit))
        self.topology = SharedTopology(template)
        self._shapes = [
            (template.num_nodes, len(self.node_columns)),
            *(block.index.shape for block in template.blocks),
            template.graph_index.shape,
        ]
        self._add_buffers()

    def _add_buffers(self) -> None:
        template = self.template
        node_index = np.pad(
            template.node_gather,
            ((0, 0), (0, self.room.node_width - template.node_width)),
            constant_values=template.num_parameters,
        )[:, self.node_columns]
        blocks = [block.index.ravel() for block in template.blocks]
        index = np.concatenate([node_index.ravel(), *blocks, template.graph_index])
        buffers = {
            "index": index,
            "places": _offsets(self.room)[template.node_kind] + template.node_place,
            "outputs": np.flatnonzero(template.node_kind == NODE_KINDS.index("output")),
        }
        for at, block in enumerate(template.blocks):
            buffers[f"columns{at}"] = np.searchsorted(self.edge_columns, block.columns)
            buffers[f"kind{at}"] = np.array([EDGE_KINDS.index(block.kind)])
            buffers[f"lane{at}"] = block.lanes
        for name, value in buffers.items():
            self.register_buffer(name, torch.from_numpy(value), persistent=False)

    def forward(self, inputs: "Tensor | Batch") -> Graphs:
        """Read weights ``[batch, P]``, or a batch of mixed graphs."""
        return self._shared(inputs) if isinstance(inputs, Tensor) else self._mixed(inputs)

    def _shared(self, weights: Tensor) -> Graphs:
        self.space.check_vector(weights)
        padded = functional.pad(self.normalise(weights), (0, 1))
        chosen = padded.index_select(1, self.get_buffer("index"))
        parts = torch.split(chosen, [prod(shape) for shape in self._shapes], dim=1)
        nodes, *edges, whole = (
            part.view(len(weights), *shape) for part, shape in zip(parts, self._shapes, strict=True)
        )
        return Graphs(
            nodes=nodes,
            edges=edges,
            columns=[self._partial(f"columns{at}") for at in range(len(edges))],
            edge_types=[
                (self.get_buffer(f"kind{at}"), self.get_buffer(f"lane{at}"))
                for at in range(len(edges))
            ],
            places=self.get_buffer("places"),
            whole=functional.pad(whole, (0, self.room.graph_width - whole.shape[1])),
            outputs=self.get_buffer("outputs"),
            topology=self.topology,
        )

    def _partial(self, name: str) -> Tensor | None:
        columns = self.get_buffer(name)
        return None if len(columns) == len(self.edge_columns) else columns

    def _mixed(self, batch: "Batch") -> Graphs:
        for name, width in (
            ("x", self.room.node_width),
            ("edge_attr", self.room.edge_width),
            ("whole", self.room.graph_width),
        ):
            if batch[name].shape[1] != width:
                raise WeightSpaceMismatchError(
                    f"Expected graphs with {width} features in {name!r}, got "
                    f"{batch[name].shape[1]}. Make model and graphs with one `graph_room`."
                )
        node_columns, edge_columns = (
            torch.from_numpy(columns).to(batch.x.device)
            for columns in (self.node_columns, self.edge_columns)
        )
        offsets = torch.from_numpy(_offsets(self.room)).to(batch.x.device)
        return Graphs(
            nodes=batch.x.index_select(1, node_columns),
            edges=[batch.edge_attr.index_select(1, edge_columns)],
            columns=[None],
            edge_types=[(batch.edge_kind, batch.edge_lane)],
            places=offsets[batch.node_kind] + batch.node_place,
            whole=batch.whole,
            outputs=(batch.node_kind == NODE_KINDS.index("output")).nonzero()[:, 0],
            topology=MixedTopology(batch.edge_index, batch.batch, batch.num_graphs),
        )


def _used(columns: list[np.ndarray]) -> np.ndarray:
    """Columns in use, ascending."""
    return np.unique(np.concatenate([*columns, np.empty(0, dtype=np.int64)]))


def _offsets(room: GraphRoom) -> np.ndarray:
    """First orbit of each kind of nodes, ``[kinds]``."""
    return np.cumsum([0, room.num_inputs, room.num_hidden])
