"""One small rule per ATen operator: which units of its inputs and outputs must move together.

A rule takes the scene, the graph node and the operator's own arguments, with a
:class:`~zoo.symmetry.labels.Labelled` in place of every tensor, and returns the labelled result. It
is *sound* when the operator commutes with every relabelling that respects the labels.
"""

from zoo.symmetry.rules import (
    attention,
    constants,
    convolution,
    elementwise,
    indexing,
    joining,
    linear,
    normalisation,
    recurrent,
    reduction,
    shape,
)
from zoo.symmetry.rules.registry import RULES, Rule, rule

__all__ = [
    "RULES",
    "Rule",
    "attention",
    "constants",
    "convolution",
    "elementwise",
    "indexing",
    "joining",
    "linear",
    "normalisation",
    "recurrent",
    "reduction",
    "rule",
    "shape",
]
