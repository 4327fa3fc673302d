"""A zoo: a directory of populations."""

import hashlib
import io
import json
import os
import shutil
from os import PathLike
from pathlib import Path

import polars as pl
import zarr

from zoo.errors import StoreError, unknown_name
from zoo.schema import (
    FORMAT,
    FORMAT_KEY,
    FORMAT_VERSION,
    POPULATION,
    POPULATIONS,
    TABLE,
    VERSION_KEY,
    PopulationSpec,
)
from zoo.store.arrays import consolidate, create_arrays, sync_directory, sync_tree
from zoo.store.chunks import TEMPORARY, is_temporary, replace_file
from zoo.store.files import PopulationFiles
from zoo.store.population import Population
from zoo.store.writer import PopulationWriter


def create(path: str | PathLike[str], *, exist_ok: bool = False) -> "Zoo":
    """Create a zoo, or with ``exist_ok`` open one to add to it.

    Raises
    ------
    StoreError
        If something else is there, or a zoo is and ``exist_ok`` is false.
    """
    root = Path(path)
    if root.is_file() or (root.is_dir() and any(root.iterdir())):
        return _reopen(root, exist_ok=exist_ok)
    group = zarr.create_group(root, attributes={FORMAT_KEY: FORMAT, VERSION_KEY: FORMAT_VERSION})
    group.create_group(POPULATIONS)
    return Zoo(root, writable=True)


def open(path: str | PathLike[str]) -> "Zoo":
    """Open a zoo to read; nothing on disk changes.

    Raises
    ------
    StoreError
        If there is no zoo at the path, or a newer format than this package reads.
    """
    root = Path(path)
    _check_root(root)
    return Zoo(root)


class Zoo:
    """Populations in one place; made by :func:`create` and :func:`open`.

    Parameters
    ----------
    path
        Its directory.
    writable
        Whether populations may be added or resumed.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        self._writable = writable
        self._open: dict[str, Population] = {}

    def __repr__(self) -> str:
        return f"Zoo({str(self.path)!r}: {', '.join(self.populations) or 'no populations'})"

    @property
    def populations(self) -> tuple[str, ...]:
        """Names of its populations, sorted."""
        found = (self.path / POPULATIONS).glob("*/zarr.json")
        return tuple(sorted(p.parent.name for p in found if not is_temporary(p.parent)))

    def __contains__(self, name: object) -> bool:
        return name in self.populations

    def __getitem__(self, name: str) -> Population:
        """Return a population as it is on disk now.

        Raises
        ------
        UnknownNameError
            If the zoo holds none of that name.
        """
        if self._writable or name not in self._open:
            if name not in self:
                raise unknown_name("population", name, self.populations)
            self._open[name] = Population(PopulationFiles(self.path, name))
        return self._open[name]

    @property
    def table(self) -> pl.DataFrame:
        """One row per member of every population, the column ``population`` first."""
        tables = [
            self[name].table.select(pl.lit(name).alias(POPULATION), pl.all())
            for name in self.populations
        ]
        if not tables:
            return pl.DataFrame(schema={POPULATION: pl.String})
        return pl.concat(tables, how="diagonal_relaxed")

    @property
    def version(self) -> str:
        """Sixteen hexadecimal digits: equal data, equal version, whatever the order of writing."""
        lines = [f"{name} {self[name].version}" for name in self.populations]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def create_population(self, spec: PopulationSpec) -> PopulationWriter:
        """Add an empty population.

        Raises
        ------
        StoreError
            If the zoo is read only, or holds a population of that name.
        """
        self._check_writable()
        target = self.path / POPULATIONS / spec.name
        aside = target.with_name(f".{spec.name}.{os.getpid()}{TEMPORARY}")
        try:
            if target.exists():
                raise FileExistsError(target)
            create_arrays(aside, spec)
            consolidate(aside)
            sync_tree(aside)
            aside.rename(target)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            if not target.exists():
                raise
            raise StoreError(
                f"Population {spec.name!r} already exists in {self.path}. Resume it with "
                f"`writer({spec.name!r})`, or choose another name."
            ) from error
        sync_directory(target.parent)
        consolidate(self.path)
        return PopulationWriter(self.path, spec.name)

    def writer(self, name: str) -> PopulationWriter:
        """Return a writer that resumes a population.

        Raises
        ------
        StoreError
            If the zoo is read only.
        UnknownNameError
            If the zoo holds no population of that name.
        """
        self._check_writable()
        if name not in self:
            raise unknown_name("population", name, self.populations)
        return PopulationWriter(self.path, name)

    def write_table(self) -> None:
        """Write :attr:`table` to ``table.parquet``, for other tools; derived and rebuildable."""
        self._check_writable()
        buffer = io.BytesIO()
        self.table.write_parquet(buffer)
        replace_file(self.path / TABLE, buffer.getvalue())

    def _check_writable(self) -> None:
        if not self._writable:
            raise StoreError(
                f"The zoo {self.path} was opened to read. Open it by "
                f"zoo.create({str(self.path)!r}, exist_ok=True) to add to it."
            )


def _reopen(root: Path, *, exist_ok: bool) -> Zoo:
    _check_root(root)
    if not exist_ok:
        raise StoreError(
            f"A zoo already exists at {root}. Pass exist_ok=True to add to it, or choose another "
            "path."
        )
    return Zoo(root, writable=True)


def _check_root(root: Path) -> None:
    """Raise :class:`StoreError` unless a zoo of a format that we read is at ``root``."""
    if not root.exists():
        raise StoreError(f"Expected a zoo at {root}, got nothing: there is no such path.")
    try:
        attributes = json.loads((root / "zarr.json").read_text())["attributes"]
        found, version = attributes[FORMAT_KEY], int(attributes[VERSION_KEY])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"Expected a zoo at {root}, got something else: no zarr.json that says "
            f"{FORMAT_KEY!r}: {FORMAT!r}. Is it a folder inside a zoo, or another kind of store?"
        ) from error
    if found != FORMAT or version > int(FORMAT_VERSION):
        raise StoreError(
            f"Expected {FORMAT!r} of format version at most {FORMAT_VERSION} at {root}, got "
            f"{found!r} version {version}. Update the package weight-zoo to read it."
        )
