"""Graphs of networks as PyTorch Geometric has them: different architectures in one batch."""

import warnings

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from neural_functionals.graphs.room import GraphRoom
from neural_functionals.graphs.template import GraphTemplate
from zoo.errors import WeightSpaceMismatchError

with warnings.catch_warnings():  # it scripts functions on import, which torch deprecates
    warnings.simplefilter("ignore", DeprecationWarning)
    from torch_geometric.data import Batch, Data

__all__ = ["Batch", "Data", "to_data"]


def to_data(template: GraphTemplate, vector: Tensor, *, room: GraphRoom | None = None) -> Data:
    """Make the graph of one network.

    Parameters
    ----------
    template
        Graph of its weight space, with the kernel of ``room``.
    vector
        Weights ``[P]``.
    room
        What all graphs of a batch need room for; by default just this one.

    Returns
    -------
    Data
        ``x`` ``[N, node_width]``, ``edge_index``, ``edge_attr`` ``[E, edge_width]``, ``whole``
        ``[1, graph_width]`` (parameters of no node or edge), ``node_kind``, ``node_place``,
        ``edge_kind`` and ``edge_lane`` (see :class:`GraphTemplate`). Features that an architecture
        lacks are zero.

    Raises
    ------
    WeightSpaceMismatchError
        If the room is too small, or the weights are not the template's.
    """
    room = GraphRoom.of(template) if room is None else room
    if vector.shape != (template.num_parameters,):
        raise WeightSpaceMismatchError(
            f"Expected one network's weights of shape [{template.num_parameters}], got "
            f"{list(vector.shape)}."
        )
    room.check(template)
    padded = functional.pad(vector, (0, 1))
    graph_index = torch.from_numpy(template.graph_index).to(vector.device)
    whole = functional.pad(vector[graph_index], (0, room.graph_width - len(graph_index)))
    return Data(
        x=_gather(padded, template.node_gather, room.node_width),
        edge_attr=_gather(padded, template.edge_gather, room.edge_width),
        whole=whole[None],
        **{
            name: torch.from_numpy(getattr(template, name)).to(vector.device)
            for name in ("edge_index", "node_kind", "node_place", "edge_kind", "edge_lane")
        },
    )


def _gather(padded: Tensor, index: np.ndarray, width: int) -> Tensor:
    chosen = padded[torch.from_numpy(index).to(padded.device)]
    return functional.pad(chosen, (0, width - index.shape[1]))
