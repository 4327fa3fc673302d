"""Rows of a table of text: delimiters, headers and missing values."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.errors import InvalidConfigError
from zoo.problems.parts import DataFormatError, is_number

_DELIMITERS = (",", ";", "\t", "|", " ")
_LOOKED_AT = 50
_MISSING = {"", "?", "na", "n/a", "nan", "null", "none", "-nan", "inf", "-inf"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Fields as text.

    Parameters
    ----------
    names
        One per column; ``column 0`` and so on where the file has no header.
    rows
        ``[n, columns]``, text.
    lines
        In which line of the file each row ends, ``[n]``.
    path
        The file.
    """

    names: tuple[str, ...]
    rows: np.ndarray
    lines: np.ndarray
    path: Path

    def check_complete(self, columns: Sequence[int]) -> None:
        """Refuse missing values in these columns.

        Raises
        ------
        DataFormatError
            With the line and the column of the first one.
        """
        for position in columns:
            for line, field in zip(self.lines, self.rows[:, position], strict=True):
                if field.lower() in _MISSING:
                    raise DataFormatError(
                        f"Expected no missing values in {self.path}, got {str(field)!r} as "
                        f"{self.names[position]!r} in line {line}. Leave out the row, or the "
                        "column by the option drop."
                    )


def read_table(path: Path, *, header: bool | None = None, delimiter: str = "") -> Table:
    """Read a table of UTF-8 text; empty lines are left out.

    Parameters
    ----------
    header
        Whether the first row holds names; by default where it has text above a column of numbers.
    delimiter
        Between fields; by default whichever of ``, ; tab | space`` cuts all rows alike.

    Raises
    ------
    DataFormatError
        If it is not text, has no rows, or rows of different lengths.
    InvalidConfigError
        If the delimiter is longer than one character.
    """
    if len(delimiter) > 1:
        raise InvalidConfigError(f"Expected a delimiter of one character, got {delimiter!r}.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise DataFormatError(f"Cannot read {path} as UTF-8 text: {error}.") from error
    numbered = _cut(lines, delimiter or _delimiter(lines, path), path)
    rows = [fields for _, fields in numbered]
    if header is None:
        header = _has_header(rows)
    start = 1 if header else 0
    if len(rows) <= start:
        raise DataFormatError(f"Expected rows of fields in {path}, got {len(rows) - start}.")
    width = len(rows[0])
    names = tuple(rows[0]) if header else tuple(f"column {k}" for k in range(width))
    _check(numbered[start:], names, path)
    return Table(
        names=names,
        rows=np.array(rows[start:], np.str_),
        lines=np.array([line for line, _ in numbered[start:]]),
        path=path,
    )


def _cut(lines: Sequence[str], delimiter: str, path: Path) -> list[tuple[int, list[str]]]:
    """Cut lines into fields; each row comes with the number of its last line."""
    spaced = delimiter == " "
    kept = (line.strip(" ") if spaced else line for line in lines)
    reader = csv.reader(kept, delimiter=delimiter, skipinitialspace=True, strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for fields in reader:
            stripped = [field.strip() for field in fields]
            if any(stripped):
                rows.append((reader.line_num, stripped))
    except csv.Error as error:
        raise DataFormatError(f"Cannot read line {reader.line_num} of {path}: {error}.") from error
    return rows


def _delimiter(lines: Sequence[str], path: Path) -> str:
    """Find the delimiter that cuts the first rows into equally many fields, and into most."""
    best, width = _DELIMITERS[0], 1
    for delimiter in _DELIMITERS:
        try:
            rows = _cut(lines[:_LOOKED_AT], delimiter, path)
        except DataFormatError:
            continue
        counts = {len(fields) for _, fields in rows}
        if len(counts) == 1 and max(counts) > width:
            best, width = delimiter, max(counts)
    return best


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Look for a column that has text above nothing but numbers."""
    sample = [row for row in rows[1 : _LOOKED_AT + 1] if len(row) == len(rows[0])]
    return bool(sample) and any(
        not is_number(name) and name.lower() not in _MISSING and all(map(is_number, column))
        for name, *column in zip(rows[0], *sample, strict=True)
    )


def _check(rows: Sequence[tuple[int, list[str]]], names: Sequence[str], path: Path) -> None:
    for line, fields in rows:
        if len(fields) != len(names):
            raise DataFormatError(
                f"Expected {len(names)} fields in every row of {path}, got {len(fields)} in line "
                f"{line}. If the delimiter was guessed wrong, give it."
            )
