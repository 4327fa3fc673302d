"""Graphs of weight spaces, and what models that pass messages along them share.

Graphs of PyTorch Geometric are made in :mod:`neural_functionals.graphs.pyg`, which imports it.
"""

from neural_functionals.graphs.assembly import graph_template, parallel_edges
from neural_functionals.graphs.encoding import GraphEncoder, WaveProjection, draw_weights
from neural_functionals.graphs.reading import GraphReader, GraphRoom, Graphs, graph_room
from neural_functionals.graphs.readout import Readout
from neural_functionals.graphs.template import Block, GraphTemplate, NodeFeature, NodeSet
from neural_functionals.graphs.topology import MixedTopology, SharedTopology, Topology

__all__ = [
    "Block",
    "GraphReader",
    "GraphRoom",
    "GraphTemplate",
    "Graphs",
    "MixedTopology",
    "GraphEncoder",
    "NodeFeature",
    "NodeSet",
    "Readout",
    "SharedTopology",
    "Topology",
    "WaveProjection",
    "draw_weights",
    "graph_room",
    "graph_template",
    "parallel_edges",
]
