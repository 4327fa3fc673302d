"""Graphs of weight spaces, and what models that pass messages along them share.

Graphs of PyTorch Geometric are made in :mod:`neural_functionals.graphs.pyg`, which imports it.
"""

from neural_functionals.graphs.assembly import graph_template, parallel_edges
from neural_functionals.graphs.blocks import Block, NodeFeature, NodeSet
from neural_functionals.graphs.encoding import GraphEncoder, WaveProjection, draw_weights
from neural_functionals.graphs.mixed_topology import MixedTopology
from neural_functionals.graphs.probing import ProbeFeatures
from neural_functionals.graphs.reading import GraphReader, Graphs
from neural_functionals.graphs.readout import Readout
from neural_functionals.graphs.relational_attention import RelationalAttention
from neural_functionals.graphs.room import GraphRoom, graph_room
from neural_functionals.graphs.template import GraphTemplate
from neural_functionals.graphs.topology import SharedTopology, Topology

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
    "ProbeFeatures",
    "Readout",
    "RelationalAttention",
    "SharedTopology",
    "Topology",
    "WaveProjection",
    "draw_weights",
    "graph_room",
    "graph_template",
    "parallel_edges",
]
