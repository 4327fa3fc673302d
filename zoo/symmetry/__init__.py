"""Symmetry: which relabellings leave a network's function unchanged, and acting through them."""

from zoo.symmetry.act import Action, from_permutations, identity, sample
from zoo.symmetry.boundaries import trace_boundaries
from zoo.symmetry.canonical import canonical, orbit_hash
from zoo.symmetry.export import export
from zoo.symmetry.factors import from_factors, mix, sample_scale
from zoo.symmetry.fields import Field, fields
from zoo.symmetry.trace import interpret, trace
from zoo.symmetry.verify import (
    TOLERANCE,
    Verification,
    inert_tensors,
    random_weights,
    verify,
)

__all__ = [
    "TOLERANCE",
    "Action",
    "Field",
    "Verification",
    "canonical",
    "export",
    "fields",
    "from_factors",
    "from_permutations",
    "identity",
    "inert_tensors",
    "interpret",
    "mix",
    "orbit_hash",
    "random_weights",
    "sample",
    "sample_scale",
    "trace",
    "trace_boundaries",
    "verify",
]
