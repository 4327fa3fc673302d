"""The zoo on disk: a Zarr v3 store that any Zarr reader opens, written block by block."""

from zoo.store.concatenation import Concatenation, concat
from zoo.store.members import Members
from zoo.store.population import Population
from zoo.store.root import Zoo, create, open
from zoo.store.writer import PopulationWriter

__all__ = [
    "Concatenation",
    "Members",
    "Population",
    "PopulationWriter",
    "Zoo",
    "concat",
    "create",
    "open",
]
