"""Writing measures of a population that is stored: block by block, each all there or not at all."""

import errno
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import zarr

from zoo.errors import InvalidConfigError, StoreError
from zoo.measured import MeasureSpec, Output
from zoo.schema import CHUNKS, LEDGER, MEASURES, MEMBER, POPULATION, TABLE
from zoo.store.disk.arrays import create_array, sync_directory, sync_tree
from zoo.store.disk.chunks import TEMPORARY, encode
from zoo.store.disk.claims import coordinator_claim, measure_claim, no_writers, remove_claims
from zoo.store.disk.files import PopulationFiles
from zoo.store.disk.ledger import Ledger, LedgerEntry
from zoo.store.disk.leftovers import temporaries
from zoo.store.disk.measures import Measured, array_name, ledger_name
from zoo.store.disk.metadata import consolidate, group_node, write_node
from zoo.store.disk.place import NODE, LocalPlace
from zoo.store.merging import OWN_MEMBER
from zoo.store.writer import chunk_values, place_files

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class MeasureWriter:
    """Writes the blocks of one measure; processes may share it if each block has one owner.

    Parameters
    ----------
    root
        The zoo.
    population
        Name of the population.
    name
        Name of the measure, which was created.
    """

    def __init__(self, root: Path, population: str, name: str) -> None:
        self.root = root
        self.files = PopulationFiles(root, population)
        self.measured: Measured = self.files.measures[name]
        self._ledger = Ledger(root, ledger_name(population, name))

    @property
    def spec(self) -> MeasureSpec:
        """What is measured, and how."""
        return self.measured.spec

    @property
    def committed(self) -> set[int]:
        """Blocks measured by now, by anyone."""
        return self._ledger.committed()

    def missing(self) -> list[int]:
        """Return the population's blocks that are stored and not measured, ascending.

        Raises
        ------
        StoreError
            If a block was measured before its weights were made again.
        """
        listed = self.committed
        stale = [b for b in self.measured.listed if b in self.files.committed and self._stale(b)]
        if stale:
            raise StoreError(
                f"Block {stale[0]} of measure {self.spec.name!r} in {self.root} was measured on "
                "weights that have been made again since. Run `zoo check --repair` to set it aside."
            )
        return [block for block in self.files.committed if block not in listed]

    def write_block(self, block: int, values: Mapping[str, np.ndarray]) -> None:
        """Commit a block of every output: chunks durable and in place first, then the entry.

        Parameters
        ----------
        block
            Its number; the population has it.
        values
            Per output an array with one row per member of the block; see
            :class:`zoo.measured.Output`.

        Raises
        ------
        StoreError
            If the values are not this block's, or it is committed with other numbers.
        """
        encoded = {}
        for output in self.spec.outputs:
            layout = self.files.layout(array_name(output.name))
            checked = self._checked(block, output, values)
            for index in layout.chunks_of_block(block):
                encoded[layout.key(index)] = encode(layout, chunk_values(layout, index, checked))
        members = self.files.spec.members_of(block)
        entry = LedgerEntry(
            population=self._ledger.population,
            block=block,
            start=members.start,
            stop=members.stop,
            chunks={key: record for key, (_, record) in encoded.items()},
            of=self.files.ledger.entry(block).crc32c,
        )
        with measure_claim(self.root, self.files.name, self._ledger.population, block):
            if block in self.committed:
                self._ledger.refuse_other(entry)
                return
            place_files(self.files.path, {key: file for key, (file, _) in encoded.items()})
            self._ledger.publish(entry)

    def finish(self) -> None:
        """Do the coordinator's last work: one ledger file, leftovers removed, the table made again.

        Raises
        ------
        DamagedChunkError
            If the ledger, or a number of the table, cannot be trusted.
        """
        from zoo.store.root import Zoo

        with coordinator_claim(self.root):
            with suppress(StoreError), no_writers(self.root, self.files.name):
                remove_claims(self.root, self._ledger.population)
                own = [array_name(output.name) for output in self.spec.outputs]
                for path in temporaries(self.root, self.files.name):
                    if any(f"/{array}/" in path.as_posix() for array in own):
                        path.unlink()
            self._ledger.compact()
            if (self.root / TABLE).exists():
                Zoo(LocalPlace(self.root), writable=True).write_table()
            consolidate(self.files.path)
            consolidate(self.root)

    def _stale(self, block: int) -> bool:
        return self.measured.is_stale(block)

    def _checked(self, block: int, output: Output, values: Mapping[str, np.ndarray]) -> np.ndarray:
        spec = self.files.spec
        wanted = output.shape(spec, len(spec.members_of(block)))
        found = np.asarray(values[output.name]) if output.name in values else np.zeros(0)
        if found.shape != wanted or not np.can_cast(found.dtype, output.dtype, "same_kind"):
            raise StoreError(
                f"Expected {output.dtype} of shape {wanted} for {output.name!r} of block {block} "
                f"of population {spec.name!r}, got {found.dtype} of shape {found.shape}."
            )
        return found


def create_measure(
    root: Path, population: str, spec: MeasureSpec, *, replace: bool = False
) -> MeasureWriter:
    """Add a measure to a population, or resume it when it is there.

    Parameters
    ----------
    root
        The zoo.
    population
        Name of the population, which exists.
    spec
        What is measured, and how.
    replace
        Whether one of the same name with other settings is thrown away.

    Raises
    ------
    StoreError
        If it is there with other settings, or the zoo cannot be written.
    InvalidConfigError
        If a name is taken.
    """
    try:
        with coordinator_claim(root):
            files = PopulationFiles(root, population)
            there = files.measures.get(spec.name)
            if there is not None and there.spec != spec and replace:
                _drop(root, files, there)
                files, there = PopulationFiles(root, population), None
            if there is not None and there.spec != spec:
                raise StoreError(_refusal(files, there.spec, spec))
            _check_names(files, spec)
            _make_arrays(files, spec)
            consolidate(files.path)
            consolidate(root)
    except OSError as error:
        if isinstance(error, StoreError) or error.errno not in _READ_ONLY:
            raise
        raise StoreError(
            f"Expected to write measures into {root}, got {error.strerror}: it can only be read. "
            "Copy the zoo to where you may write, by `zoo publish`, and measure there."
        ) from error
    return MeasureWriter(root, population, spec.name)


def _refusal(files: PopulationFiles, stored: MeasureSpec, asked: MeasureSpec) -> str:
    return (
        f"Measure {asked.name!r} of population {files.name!r} in {files.root} has other settings: "
        f"{stored.differences(asked)}. Keep both by --name-suffix _2, or measure anew by --replace."
    )


def _check_names(files: PopulationFiles, spec: MeasureSpec) -> None:
    taken = {MEMBER: "is taken", POPULATION: "is taken", OWN_MEMBER: "is taken"}
    taken |= dict.fromkeys(files.spec.metrics, "is a metric")
    taken |= {column.name: "is a column" for column in files.spec.columns}
    others = {n: m.name for n, (m, _) in files.outputs.items() if m.name != spec.name}
    taken |= {name: f"belongs to measure {measure!r}" for name, measure in others.items()}
    for output in spec.outputs:
        if output.name in taken:
            raise InvalidConfigError(
                f"Expected names for the outputs of measure {spec.name!r} that population "
                f"{files.name!r} does not use yet, but {output.name!r} {taken[output.name]}. "
                "Give --name-suffix."
            )


def _make_arrays(files: PopulationFiles, spec: MeasureSpec) -> None:
    """Create what is missing, each array whole or not at all, and lengthen what is too short."""
    folder, total = files.path / MEASURES, files.spec.num_members
    if not (folder / NODE).exists():
        folder.mkdir(exist_ok=True)
        write_node(folder, group_node({}))
        sync_directory(files.path)
    for output in spec.outputs:
        if not (folder / output.name / NODE).exists():
            _create(files, spec, output)
        node = files.place.node(array_name(output.name))
        if node["shape"][0] < total:
            write_node(folder / output.name, node | {"shape": [total, *node["shape"][1:]]})


def _create(files: PopulationFiles, spec: MeasureSpec, output: Output) -> None:
    target = files.path / array_name(output.name)
    aside = target.with_name(f".{output.name}{TEMPORARY}")  # one coordinator, one name
    shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)  # a folder without metadata: nothing that counts
    create_array(
        zarr.open_group(target.parent, mode="r+", use_consolidated=False),
        aside.name,
        shape=output.shape(files.spec, files.spec.num_members),
        chunks=output.chunks(files.spec),
        dtype=output.dtype,
        dimensions=output.dimensions,
        attributes=spec.attributes(output),
    )
    (aside / CHUNKS).mkdir()
    sync_tree(aside)
    aside.rename(target)
    sync_directory(target.parent)


def _drop(root: Path, files: PopulationFiles, measured: Measured) -> None:
    """Throw a measure away: its ledger first, so that nothing of it counts any more."""
    with no_writers(root, files.name):
        ledger = root / LEDGER / ledger_name(files.name, measured.name)
        ledger.with_name(f"{ledger.name}.jsonl").unlink(missing_ok=True)
        shutil.rmtree(ledger, ignore_errors=True)
        if ledger.parent.is_dir():
            sync_directory(ledger.parent)
        for output in measured.spec.outputs:
            shutil.rmtree(files.path / array_name(output.name), ignore_errors=True)
        sync_directory(files.path / MEASURES)
