"""Zoos to and from other formats, one file per format.

:mod:`~zoo.convert.source` says what a reader of a foreign format offers, :mod:`~zoo.convert.sink`
makes populations of it, :mod:`~zoo.convert.formats` names the formats.
"""

from zoo.convert.hdf5 import from_hdf5, to_hdf5
from zoo.convert.sink import ConversionReport, write
from zoo.convert.source import Entry, Skipped, Source

__all__ = [
    "ConversionReport",
    "Entry",
    "Skipped",
    "Source",
    "from_hdf5",
    "to_hdf5",
    "write",
]
