"""Measures of a population on disk: arrays with a ledger of their own, read like any other."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import StoreError
from zoo.measured import MeasureSpec, Output
from zoo.schema import MEASURES
from zoo.store.disk.arrays import ArrayLayout
from zoo.store.disk.ledger import Ledger, LedgerEntry
from zoo.store.disk.place import NODE, Place

if TYPE_CHECKING:
    from zoo.store.disk.files import PopulationFiles


def array_name(output: str) -> str:
    """Return the path of an output's array below its population."""
    return f"{MEASURES}/{output}"


def ledger_name(population: str, measure: str) -> str:
    """Return what a measure's ledger is called, below the folder of ledgers."""
    return f"{population}/{MEASURES}/{measure}"


class Measured:
    """One measure as a reader sees it.

    A block counts when the ledger lists it and names the very entry of the population's block that
    was measured: numbers about weights that were replaced are no numbers of the new ones.

    Parameters
    ----------
    files
        The population.
    spec
        The measure.
    """

    def __init__(self, files: "PopulationFiles", spec: MeasureSpec) -> None:
        self.files = files
        self.spec = spec
        self.ledger = Ledger(files.root_place, ledger_name(files.name, spec.name))
        self._arrays: dict[str, np.ndarray] = {}

    @property
    def name(self) -> str:
        """Its name."""
        return self.spec.name

    @cached_property
    def listed(self) -> list[int]:
        """Blocks in its ledger when the zoo was opened, those past the plan left out."""
        return sorted(self.ledger.committed() & set(range(self.files.spec.num_blocks)))

    @cached_property
    def committed(self) -> list[int]:
        """Blocks whose numbers count."""
        there = set(self.files.committed)
        return [block for block in self.listed if block in there and not self.is_stale(block)]

    def is_stale(self, block: int) -> bool:
        """Whether other weights than those that are stored were measured."""
        return self.ledger.entry(block).of != self.files.ledger.entry(block).crc32c

    def entry(self, block: int) -> LedgerEntry:
        """Return the entry of a block that counts."""
        return self.ledger.entry(block)

    def layouts(self) -> dict[str, ArrayLayout]:
        """Return the layout of every output's array, by name of the output."""
        return {
            output.name: self.files.layout(array_name(output.name)) for output in self.spec.outputs
        }

    def array(self, output: str) -> np.ndarray:
        """Read an output: one row per member planned, the fill value where nothing was measured.

        Raises
        ------
        DamagedChunkError
            If a chunk is missing, truncated or altered.
        """
        if output not in self._arrays:
            layout = self.files.layout(array_name(output))
            shape = (self.files.spec.num_members, *layout.shape[1:])
            values = np.full(shape, layout.fill, dtype=layout.dtype.newbyteorder("="))
            indices = [i for block in self.committed for i in layout.chunks_of_block(block)]
            chunks = self.files.chunks(layout, indices)
            for index, chunk in zip(indices, chunks, strict=True):
                members = self.files.spec.members_of(index[0])
                later = [
                    slice(i * n, (i + 1) * n)
                    for i, n in zip(index[1:], layout.chunks[1:], strict=True)
                ]
                values[(slice(members.start, members.stop), *later)] = chunk[: len(members)]
            self._arrays[output] = values
        return self._arrays[output]


def measures_of(files: "PopulationFiles") -> dict[str, Measured]:
    """Return a population's measures by name.

    Raises
    ------
    StoreError
        If what an array says about itself was altered.
    """
    specs: dict[str, MeasureSpec] = {}
    for name in files.place.nodes(MEASURES):
        spec = read_measure(files.place, name)
        specs.setdefault(spec.name, spec)
    return {name: Measured(files, specs[name]) for name in sorted(specs)}


def read_measure(population: Place, output: str) -> MeasureSpec:
    """Read what an output's array says of its measure.

    Raises
    ------
    StoreError
        If it cannot be read or was altered.
    """
    try:
        attributes: dict[str, Any] = population.node(array_name(output))["attributes"]
        spec = MeasureSpec.from_attributes(attributes)
        spec.output(output)
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise StoreError(
            f"Expected the settings of measure {output!r} in "
            f"{population / array_name(output)}/{NODE}, got {error!r}. `zoo check --repair` puts "
            "the file back from its copies."
        ) from error
    return spec


def outputs_of(measures: dict[str, Measured]) -> dict[str, tuple[Measured, Output]]:
    """Return every output by name, and whose it is."""
    return {
        output.name: (measured, output)
        for measured in measures.values()
        for output in measured.spec.outputs
    }
