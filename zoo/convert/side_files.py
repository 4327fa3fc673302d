"""What lies beside state dicts: an index of columns, and JSON files of splits and labels."""

import csv
import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from zoo.convert.source import ColumnValue, Skipped
from zoo.errors import InvalidConfigError
from zoo.schema import PARTS

LABEL = "label"
_PARTS = {
    "train": PARTS[0],
    "val": PARTS[1],
    "valid": PARTS[1],
    "validation": PARTS[1],
    "test": PARTS[2],
}


@dataclass
class Row:
    """What is known of one file: columns, and its part in each split."""

    columns: dict[str, ColumnValue] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)


def read_index(
    path: Path,
    files: Mapping[str, Path],
    rows: dict[Path, Row],
    absent: list[Skipped],
    *,
    rename: Mapping[str, str],
    drop: Container[str],
) -> None:
    """Read a CSV with one row per file into ``rows``; rows without a file go to ``absent``.

    Raises
    ------
    InvalidConfigError
        If no column names files of the folder.
    """
    with path.open(newline="", encoding="utf-8-sig") as stream:
        table = list(csv.DictReader(stream))
    if not table:
        return
    found = {
        column: sum(_find(row[column], files) is not None for row in table) for column in table[0]
    }
    naming = max(found, key=lambda column: found[column])
    if not found[naming]:
        raise InvalidConfigError(
            f"Expected a column of {path} that names files beside it, got columns "
            f"{', '.join(found)}. Give another --index, or remove the file."
        )
    for raw in table:
        file = _find(raw[naming], files)
        if file is None:
            absent.append(Skipped(raw[naming], f"{path.name} names it, but there is no such file"))
            continue
        columns = rows.setdefault(file, Row()).columns
        for name, text in raw.items():
            if name not in (naming, None) and name not in drop and text not in ("", None):
                columns[rename.get(name, name)] = parsed(text)


def read_splits(
    path: Path, files: Mapping[str, Path], rows: dict[Path, Row], absent: list[Skipped]
) -> None:
    """Read a JSON file of splits into ``rows``, where it is one; its stem names the split.

    Paths of other people's machines are told by their endings.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        absent.append(Skipped(path.name, f"is no JSON: {error}"))
        return
    if not isinstance(content, dict) or not content or not set(content) <= set(_PARTS):
        return
    for key, listed in content.items():
        for named, label in _listed(listed):
            file = _find(named, files)
            if file is None:
                absent.append(Skipped(named, f"{path.name} names it, but there is no such file"))
                continue
            row = rows.setdefault(file, Row())
            row.parts[path.stem] = _PARTS[key]
            if label is not None:
                row.columns[LABEL] = parsed(str(label))


def parsed(text: str) -> ColumnValue:
    """Read a cell as a whole number, a number, a truth value or text.

    >>> parsed("7"), parsed("1e-3"), parsed("true"), parsed("relu"), parsed("0x1")
    (7, 0.001, True, 'relu', '0x1')
    """
    text = text.strip()
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            number: int | float = kind(text)
        except ValueError:
            continue
        return number if "_" not in text else text
    return text


def _listed(listed: Any) -> list[tuple[str, Any]]:
    """Return paths and labels of one part: two parallel lists, or paths alone."""
    if isinstance(listed, dict):
        paths = listed.get("path", [])
        labels = listed.get(LABEL) or [None] * len(paths)
        return list(zip(map(str, paths), labels, strict=True))
    return [(str(path), None) for path in listed]


def _find(named: str | None, files: Mapping[str, Path]) -> Path | None:
    """Find the file whose path ends like ``named``, the longest ending first."""
    parts = PurePosixPath(str(named or "").replace("\\", "/")).parts
    for start in range(len(parts)):
        ending = "/".join(parts[start:])
        if ending in files:
            return files[ending]
    return None
