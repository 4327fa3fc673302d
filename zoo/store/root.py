"""A zoo: a directory of populations."""

import hashlib
import io
import os
import shutil
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import polars as pl

from zoo.errors import StoreError, unknown_name
from zoo.schema import (
    FORMAT,
    FORMAT_KEY,
    FORMAT_VERSION,
    LEDGER,
    POPULATION,
    POPULATIONS,
    TABLE,
    VERSION_KEY,
    PopulationSpec,
)
from zoo.space import WeightSpace
from zoo.store.disk.arrays import create_arrays, sync_directory, sync_tree
from zoo.store.disk.chunks import TEMPORARY, is_temporary, replace_file
from zoo.store.disk.claims import coordinator_claim
from zoo.store.disk.files import PopulationFiles
from zoo.store.disk.metadata import consolidate, group_node, write_node
from zoo.store.disk.place import NODE, LocalPlace, Place, is_url, place_of
from zoo.store.population import Population
from zoo.store.writer import PopulationWriter


def create(path: str | PathLike[str], *, exist_ok: bool = False) -> "Zoo":
    """Create a zoo, or with ``exist_ok`` open one to add to it.

    Raises
    ------
    StoreError
        If something else is there, or a zoo is and ``exist_ok`` is false, or the path is a URL.
    """
    if is_url(path):
        raise StoreError(
            f"Expected a path on this machine's file system, got {path}: zoos elsewhere are only "
            "read. Write the zoo here and copy it there by `zoo publish`."
        )
    place = LocalPlace(path)
    if _is_taken(place.path):
        return _reopen(place, exist_ok=exist_ok)
    place.path.mkdir(parents=True, exist_ok=True)
    with coordinator_claim(place.path):
        if place.exists(NODE):  # somebody else was quicker
            return _reopen(place, exist_ok=exist_ok)
        (place.path / POPULATIONS).mkdir(exist_ok=True)
        write_node(place.path / POPULATIONS, group_node({}))
        write_node(place.path, group_node({FORMAT_KEY: FORMAT, VERSION_KEY: FORMAT_VERSION}))
        consolidate(place.path)
    return Zoo(place, writable=True)


def open(path: str | PathLike[str], *, storage_options: dict[str, Any] | None = None) -> "Zoo":
    """Open a zoo to read; nothing on disk changes.

    Parameters
    ----------
    path
        A path, or the URL of a published zoo: ``s3://bucket/zoo.zarr``, ``https://...``.
    storage_options
        For URLs, what fsspec's file system takes: ``key``, ``secret``, ``anon``, ``endpoint_url``.

    Raises
    ------
    StoreError
        If there is no zoo at the path, or a newer format than this package reads; if the place
        does not answer, or the packages to ask it are missing.
    """
    return open_place(place_of(path, storage_options=storage_options))


def open_place(place: Place) -> "Zoo":
    """Open the zoo at a place; see :func:`open`."""
    _check_root(place)
    return Zoo(place)


class Zoo:
    """Populations in one place; made by :func:`create` and :func:`open`.

    Parameters
    ----------
    place
        Its folder, here or elsewhere.
    writable
        Whether populations may be added or resumed.
    """

    def __init__(self, place: Place, *, writable: bool = False) -> None:
        self.place = place
        self._writable = writable
        self._open: dict[str, Population] = {}

    def __repr__(self) -> str:
        return f"Zoo({str(self.place)!r}: {', '.join(self.populations) or 'no populations'})"

    @property
    def name(self) -> str:
        """Last part of its path or URL."""
        return str(self.place).rpartition("/")[2]

    @property
    def path(self) -> Path:
        """Its folder on this machine.

        Raises
        ------
        StoreError
            If it lies elsewhere.
        """
        if self.place.local is None:
            raise StoreError(
                f"Expected a zoo on this machine's file system, got {self.place}. Copy it here "
                "first, by `zoo publish`."
            )
        return self.place.local

    @property
    def populations(self) -> tuple[str, ...]:
        """Names of its populations, sorted."""
        return tuple(self.place.nodes(POPULATIONS))

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
            self._open[name] = Population(PopulationFiles(self.place, name))
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

    def create_population(
        self, spec: PopulationSpec, *, spaces: Iterable[WeightSpace] = ()
    ) -> PopulationWriter:
        """Add an empty population.

        Parameters
        ----------
        spec
            What it is.
        spaces
            Weight spaces of its architectures, when it is ragged.

        Raises
        ------
        StoreError
            If the zoo is read only, or holds a population of that name.
        WeightSpaceMismatchError
            If the spaces are not those of the architectures.
        """
        self._check_writable()
        target = self.path / POPULATIONS / spec.name
        aside = target.with_name(f".{spec.name}.{os.getpid()}{TEMPORARY}")
        with coordinator_claim(self.path):
            if target.exists():
                raise StoreError(
                    f"Population {spec.name!r} already exists in {self.path}. Resume it with "
                    f"`writer({spec.name!r})`, or choose another name."
                )
            shutil.rmtree(aside, ignore_errors=True)  # of a dead process of the same number
            try:
                create_arrays(aside, spec, spaces)
                consolidate(aside)
                sync_tree(aside)
                aside.rename(target)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
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
        with coordinator_claim(self.path):
            buffer = io.BytesIO()
            self.table.write_parquet(buffer)
            replace_file(self.path / TABLE, buffer.getvalue())

    def _check_writable(self) -> None:
        if not self._writable:
            raise StoreError(
                f"The zoo {self.path} was opened to read. Open it by "
                f"zoo.create({str(self.path)!r}, exist_ok=True) to add to it."
            )


def _is_taken(root: Path) -> bool:
    """Whether something is there; what others who create this zoo leave at first does not count."""
    if root.is_file():
        return True
    begun = {LEDGER, POPULATIONS}
    found = root.iterdir() if root.is_dir() else ()
    names = {path.name for path in found if not is_temporary(path)}
    whose = [path for path in root.glob(f"{POPULATIONS}/*") if not path.name.startswith(".")]
    return bool(names - begun) or any(path.name != NODE for path in whose)


def _reopen(place: LocalPlace, *, exist_ok: bool) -> Zoo:
    _check_root(place)
    if not exist_ok:
        raise StoreError(
            f"A zoo already exists at {place}. Pass exist_ok=True to add to it, or choose another "
            "path."
        )
    return Zoo(place, writable=True)


def _check_root(place: Place) -> None:
    """Raise :class:`StoreError` unless a zoo of a format that we read is at a place."""
    if place.local is not None and not place.local.exists():
        raise StoreError(f"Expected a zoo at {place}, got nothing: there is no such path.")
    try:
        attributes = place.node()["attributes"]
        found, version = attributes[FORMAT_KEY], int(attributes[VERSION_KEY])
    except StoreError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"Expected a zoo at {place}, got something else: no zarr.json that says "
            f"{FORMAT_KEY!r}: {FORMAT!r}. Is it a folder inside a zoo, or another kind of store?"
            + ("" if place.local else " Is the URL right, bucket and key or host and path?")
        ) from error
    if found != FORMAT or not 1 <= version <= int(FORMAT_VERSION):
        raise StoreError(
            f"Expected {FORMAT!r} of format version at most {FORMAT_VERSION} at {place}, got "
            f"{found!r} version {version}. Update the package weight-zoo to read it."
        )
