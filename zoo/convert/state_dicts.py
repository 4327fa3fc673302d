"""Folders of state dicts: one file per network, or one per network and epoch.

Read are ``.pt``, ``.pth``, ``.th``, ``.bin`` and ``.safetensors``, and beside them, where present,
``index.csv`` (one row per file) and JSON files of splits as data sets of implicit neural
representations have them [1]_: ``{"train": {"path": [...], "label": [...]}, "val": ..., "test":
...}``.

References
----------
.. [1] Navon et al., "Equivariant Architectures for Learning in Deep Weight Spaces", ICML 2023
   (data of its INR experiments).
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zoo.convert.side_files import Row, read_index, read_splits
from zoo.convert.source import ColumnValue, Entry, Shapes, Skipped
from zoo.convert.torch_files import (
    SAFETENSORS,
    TORCH_SUFFIXES,
    Checkpoint,
    UnreadableFileError,
    read_checkpoint,
)
from zoo.errors import MissingDataError
from zoo.schema import ColumnSpec

_CERTAIN = (".pt", ".pth", ".th")
_EPOCH = re.compile(r"(?i)^(.*?)[._-]*(?:epoch|checkpoint|ckpt|step)[._=-]*(\d+)$")
_METRIC = re.compile(r"^(train|test|val|validation)_(loss|acc|accuracy|error)$")


def recognise(path: Path) -> bool:
    """Tell whether a path is a torch file, or a folder with some in it."""
    if path.is_file():
        return path.suffix in _CERTAIN
    return any(each.suffix in _CERTAIN for each in _files(path))


@dataclass(frozen=True, kw_only=True)
class FileKind:
    """Files that hold one network each.

    Parameters
    ----------
    format
        Name of the format, as ``zoo convert --from`` takes it.
    suffixes
        Endings of their names.
    read
        Reads one; raises :class:`zoo.convert.torch_files.UnreadableFileError` where it cannot.
    """

    format: str
    suffixes: tuple[str, ...]
    read: Callable[[Path], Checkpoint]


TORCH = FileKind(
    format="state-dicts", suffixes=(*TORCH_SUFFIXES, SAFETENSORS), read=read_checkpoint
)


@dataclass
class _Found:
    """What the files of one network said."""

    shapes: Shapes
    digest: str
    epochs: dict[int, Path]
    columns: dict[str, ColumnValue]
    metrics: dict[str, dict[int, float]]
    parts: dict[str, str]
    dtypes: set[str] = field(default_factory=set)


class StateDicts:
    """Reader of a folder of state dicts.

    A file is a network of its own, with the one checkpoint 0, unless names differ only in a number
    after ``epoch``, ``checkpoint``, ``ckpt`` or ``step``: those are one network's checkpoints.
    Networks with exactly the same weights share a lineage.

    Parameters
    ----------
    path
        The folder, searched recursively, or one file.
    index
        A CSV with one row per file and a column that names it; ``index.csv`` by default.
    rename
        New names for columns of the index; ``test_accuracy`` and its like become metrics.
    drop
        Columns of the index to leave out.
    kind
        What files to read, and how; those of torch by default.

    Raises
    ------
    MissingDataError
        If there is no such file or folder.
    """

    column_specs: Sequence[ColumnSpec] = ()
    network_columns: Sequence[str] = ()

    def __init__(
        self,
        path: Path,
        *,
        index: Path | None = None,
        rename: Mapping[str, str] | None = None,
        drop: Sequence[str] = (),
        kind: FileKind = TORCH,
    ) -> None:
        if not path.exists() or (index is not None and not index.is_file()):
            missing = index if path.exists() else path
            raise MissingDataError(f"Expected state dicts at {path}: there is no {missing}.")
        self.path = path
        self.format = kind.format
        self.problem: dict[str, Any] = {"name": "unknown"}
        self.recipe: dict[str, Any] = {"from": path.resolve().name}
        self._kind = kind
        self._root = path if path.is_dir() else path.parent
        self._index = index
        self._rename = dict(rename or {})
        self._drop = set(drop)
        self._epochs: dict[str, dict[int, Path]] = {}

    def scan(self) -> Iterator[Entry | Skipped]:
        """Read every file; one that is damaged, asks to run code or holds no weights is skipped."""
        found_files = _files(self.path, self._kind)
        files = {file.relative_to(self._root).as_posix(): file for file in found_files}
        rows, unused = self._rows(files)
        first_with: dict[str, str] = {}
        for name, of_epoch in _networks(files).items():
            found: _Found | None = None
            for epoch, file in of_epoch.items():
                row = rows.get(file, Row())
                try:
                    found = _add(found, epoch, file, self._kind.read(file), row)
                except UnreadableFileError as error:
                    yield Skipped(file.relative_to(self._root).as_posix(), str(error))
            if found is not None:
                twin = first_with.setdefault(found.digest, name)
                self._epochs[name] = found.epochs
                yield _entry(name, found, None if twin == name else twin)
        yield from unused

    def load(self, entry: Entry, epoch: int) -> Mapping[str, np.ndarray]:
        """Read one file again."""
        return self._kind.read(self._epochs[entry.name][epoch]).tensors

    def _rows(self, files: Mapping[str, Path]) -> tuple[dict[Path, Row], list[Skipped]]:
        """Read the index and the splits; what they name but is not there is skipped."""
        index = self._index or self._root / "index.csv"
        rows: dict[Path, Row] = {}
        absent: list[Skipped] = []
        if index.is_file():
            read_index(index, files, rows, absent, rename=self._rename, drop=self._drop)
        for path in sorted(self._root.glob("*.json")):
            read_splits(path, files, rows, absent)
        return rows, absent


def _files(path: Path, kind: FileKind = TORCH) -> list[Path]:
    """List checkpoint files, sorted; those in hidden folders are left alone."""
    if path.is_file():
        return [path]
    return sorted(
        file
        for file in path.rglob("*")
        if file.name.endswith(kind.suffixes)
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )


def _networks(files: Mapping[str, Path]) -> dict[str, dict[int, Path]]:
    """Gather the files of each network by epoch; epoch 0 where names do not tell."""
    series: dict[tuple[str, str, str], dict[int, str]] = {}
    for name, file in files.items():
        match = _EPOCH.match(file.stem)
        if match:
            key = (str(Path(name).parent), match.group(1), file.suffix)
            series.setdefault(key, {}).setdefault(int(match.group(2)), name)
    networks: dict[str, dict[int, Path]] = {}
    used: set[str] = set()
    for (folder, stem, _), names in series.items():
        if len(names) > 1:
            name = (Path(folder) / stem).as_posix() if stem or folder != "." else "network"
            networks[name] = {epoch: files[names[epoch]] for epoch in sorted(names)}
            used.update(names.values())
    networks |= {name: {0: file} for name, file in files.items() if name not in used}
    return dict(sorted(networks.items()))


def _add(found: _Found | None, epoch: int, file: Path, checkpoint: Checkpoint, row: Row) -> _Found:
    """Add one file to what is known of its network."""
    shapes = tuple((name, values.shape) for name, values in checkpoint.tensors.items())
    if found is None:
        found = _Found(shapes, "", {}, {}, {}, {})
    if shapes != found.shapes:
        raise UnreadableFileError("has other tensors than the same network at earlier epochs")
    found.epochs[epoch] = file
    found.digest = _digest(checkpoint)
    found.parts |= row.parts
    found.dtypes.add(checkpoint.dtype)
    for name, value in (checkpoint.extras | row.columns).items():
        if _METRIC.match(name) and isinstance(value, int | float):
            found.metrics.setdefault(name, {})[epoch] = float(value)
        else:
            found.columns[name] = value
    return found


def _entry(name: str, found: _Found, parent: str | None) -> Entry:
    epochs = tuple(found.epochs)
    return Entry(
        name=name,
        shapes=found.shapes,
        epochs=epochs,
        columns=found.columns,
        metrics={
            metric: [values.get(epoch, np.nan) for epoch in epochs]
            for metric, values in found.metrics.items()
        },
        parent=parent,
        parts=found.parts,
        dtype="+".join(sorted(found.dtypes)),
    )


def _digest(checkpoint: Checkpoint) -> str:
    """Hash the numbers of a checkpoint, whatever their names."""
    digest = hashlib.sha256()
    for values in checkpoint.tensors.values():
        digest.update(repr(values.shape).encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
