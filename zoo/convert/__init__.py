"""Zoos to and from other formats, one file per format."""

from zoo.convert.hdf5 import from_hdf5, to_hdf5

__all__ = ["from_hdf5", "to_hdf5"]
