"""What graphs of several weight spaces need room for, if one model is to read them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from neural_functionals.graphs.assembly import graph_template, parallel_edges
from neural_functionals.graphs.blocks import NODE_KINDS
from neural_functionals.graphs.template import GraphTemplate
from zoo.errors import WeightSpaceMismatchError
from zoo.space import WeightSpace


@dataclass(frozen=True, kw_only=True)
class GraphRoom:
    """What graphs of several weight spaces need room for, if one model is to read them.

    Parameters
    ----------
    kernel
        Largest kernel.
    node_width, edge_width, graph_width
        Features per node, per edge and per network.
    num_inputs, num_hidden, num_outputs
        Positions of network inputs, neuron groups, positions of network outputs.
    num_lanes
        Number of edges between two nodes.
    nesting
        Whether there are units inside others (heads).
    """

    kernel: tuple[int, ...]
    node_width: int
    edge_width: int
    graph_width: int
    num_inputs: int
    num_hidden: int
    num_outputs: int
    num_lanes: int
    nesting: bool

    @classmethod
    def from_plain(cls, plain: "GraphRoom | Mapping[str, Any] | None") -> "GraphRoom | None":
        """Restore a room from what ``dataclasses.asdict`` and JSON make of it."""
        if not isinstance(plain, Mapping):
            return plain
        return cls(**{**plain, "kernel": tuple(plain["kernel"])})

    @classmethod
    def of(cls, *templates: GraphTemplate) -> Self:
        """Return the smallest room for graphs of one ``kernel``."""
        counts = np.array([_num_places(template) for template in templates]).max(axis=0).tolist()
        return cls(
            kernel=templates[0].kernel,
            node_width=max(template.node_width for template in templates),
            edge_width=max(template.edge_width for template in templates),
            graph_width=max(len(template.graph_index) for template in templates),
            num_inputs=counts[0],
            num_hidden=counts[1],
            num_outputs=counts[2],
            num_lanes=1 + max(int(template.edge_lane.max(initial=0)) for template in templates),
            nesting=any(template.edge_kind.any() for template in templates),
        )

    def check(self, template: GraphTemplate) -> None:
        """Raise :class:`WeightSpaceMismatchError` unless a graph fits."""
        own = GraphRoom.of(template)
        sizes = [name for name in asdict(own) if name != "kernel"]
        if own.kernel != self.kernel or any(getattr(own, s) > getattr(self, s) for s in sizes):
            raise WeightSpaceMismatchError(
                f"Expected a graph that fits into {self}, got one that needs {own}. Make the room "
                "with `graph_room` of all spaces, and templates with its kernel."
            )


def graph_room(*spaces: WeightSpace, parallel: bool = False) -> GraphRoom:
    """Return the room that graphs of some spaces need, if wanted with parallel edges."""
    kernels = [graph_template(space).kernel for space in spaces]
    rank = max(map(len, kernels))
    grown = np.array([(1,) * (rank - len(kernel)) + kernel for kernel in kernels], dtype=np.int64)
    largest = tuple(grown.max(axis=0).tolist())
    templates = [graph_template(space, kernel=largest) for space in spaces]
    return GraphRoom.of(*(map(parallel_edges, templates) if parallel else templates))


def _num_places(template: GraphTemplate) -> list[int]:
    """Count orbits of nodes per kind."""
    kinds = np.unique(np.stack([template.node_kind, template.node_place]), axis=1)[0]
    return [int(count) for count in np.bincount(kinds, minlength=len(NODE_KINDS))]
