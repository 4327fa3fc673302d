"""Tables: CSV and TSV files, and the ones that scikit-learn carries."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import datasets

from zoo.errors import InvalidConfigError, MissingDataError, unknown_name
from zoo.problems.parts import (
    DataFormatError,
    check_task,
    classes_problem,
    config_of,
    held_out,
    is_number,
    values_problem,
)
from zoo.problems.problem import Problem
from zoo.problems.rows import Table, read_table

_SUFFIXES = (".csv", ".tsv", ".data", ".txt")
_PAIRS = (("*.tra", "*.tes"), ("train.csv", "test.csv"), ("train.tsv", "test.tsv"))
_WANTED = (
    "Wanted is one .csv, .tsv, .data or .txt table of a row for each sample, or a pair of "
    "train.csv and test.csv, or of .tra and .tes. UCI's are usually had from archive.ics.uci.edu."
)
_MOST_CLASSES = 20
_MOST_CATEGORIES = 100
_BUILTIN = {  # loader, licence, whose data
    "iris": (datasets.load_iris, "CC BY 4.0", "Fisher, 1936; UCI"),
    "wine": (datasets.load_wine, "CC BY 4.0", "Aeberhard and Forina, 1992; UCI"),
    "breast-cancer": (datasets.load_breast_cancer, "CC BY 4.0", "Wolberg et al., 1993; UCI"),
    "diabetes": (datasets.load_diabetes, "", "Efron et al., Least Angle Regression, 2004"),
}


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Columns of numbers ``[n, columns]`` that are to be scaled or not, and targets as text."""

    numbers: np.ndarray
    categories: np.ndarray
    targets: np.ndarray


def csv(
    data: Path | None,
    *,
    file: str = "",
    test_file: str = "",
    target: str | int = -1,
    task: str = "auto",
    drop: Sequence[str | int] = (),
    header: bool | None = None,
    delimiter: str = "",
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Problem:
    """Load a table: one row for each sample, one column of targets.

    Columns of numbers are standardised by mean and spread of the training part, and so is the
    target of a regression; columns with any text become one column of 0 and 1 for each text. Both
    follow the order of the file, numbers first.

    Parameters
    ----------
    data
        The file, or the folder it is in.
    file, test_file
        Names in that folder, where it holds other tables; a test file takes the place of a drawn
        test part.
    target
        Column of targets: its name or position, by default the last.
    task
        ``"classes"``, ``"regression"``, or ``"auto"``: text is classes, as are integers of at most
        20 different values; all else is values.
    drop
        Columns to leave out: names or positions.
    header
        Whether the first row holds names; by default where it has text above a column of numbers.
    delimiter
        Between fields; by default whichever of ``, ; tab | space`` cuts all rows alike.
    test_fraction, seed
        The test part of a single file.

    Raises
    ------
    MissingDataError
        If there is no such file.
    DataFormatError
        If rows are ragged, values are missing (with the line), or a class has no training samples.
    InvalidConfigError, UnknownNameError
        If there is no such column or task.
    """
    check_task(task)
    path, other = _files(data, file, test_file)
    tables = [
        read_table(each, header=header, delimiter=delimiter) for each in (path, other) if each
    ]
    if len({table.names for table in tables}) > 1:
        raise DataFormatError(
            f"Expected the same columns in {path} and {other}, got {len(tables[0].names)} "
            f"and {len(tables[1].names)}, or other names."
        )
    options: dict[str, Any] = {"file": file, "test_file": test_file, "target": target, "task": task}
    options |= {"drop": list(drop), "header": header, "delimiter": delimiter}
    options |= {"test_fraction": test_fraction, "seed": seed}
    goal, kept = _chosen(tables[0], target=target, drop=drop)
    for table in tables:
        table.check_complete([goal, *kept])
    rows = np.concatenate([table.rows for table in tables])
    if other:
        train, test = np.split(np.arange(len(rows)), [len(tables[0].rows)])
    else:
        train, test = held_out(len(rows), test_fraction=test_fraction, seed=seed)
    whole = _columns(rows, tables[0].names, goal=goal, kept=kept, where=path)
    about = {"name": path.stem, "config": config_of("csv", csv, options)}
    return _problem(whole, train, test, task=task, where=path, **about)


def builtin(
    name: str, data: Path | None = None, *, test_fraction: float = 0.2, seed: int = 0
) -> Problem:
    """Load one of scikit-learn's own tables, standardised as by :func:`csv`; it needs no files.

    Parameters
    ----------
    name
        ``"iris"``, ``"wine"`` and ``"breast-cancer"`` are classes, ``"diabetes"`` a regression.
    test_fraction, seed
        The test part.
    """
    load, licence, source = _BUILTIN[name]
    inputs, targets = load(return_X_y=True)
    train, test = held_out(len(inputs), test_fraction=test_fraction, seed=seed)
    whole = _Part(
        numbers=np.asarray(inputs, np.float64),
        categories=np.zeros((len(inputs), 0)),
        targets=np.array([repr(float(value)) for value in targets]),
    )
    task = "regression" if name == "diabetes" else "classes"
    options: dict[str, Any] = {"test_fraction": test_fraction, "seed": seed}
    about = {"name": name, "config": config_of(name, builtin, options)}
    about |= {"licence": licence, "source": source}
    return _problem(whole, train, test, task=task, where=name, **about)


def _files(data: Path | None, file: str, test_file: str) -> tuple[Path, Path | None]:
    """Find the table, and the one to test on where there is one."""
    if data is None or not data.exists():
        raise MissingDataError(f"Expected a table at --data, got {data}. {_WANTED}")
    if data.is_file():
        return data, None
    if file:
        named = [data / name for name in (file, test_file) if name]
        for path in named:
            if not path.is_file():
                raise MissingDataError(f"Expected the table {path.name} in {data}. {_WANTED}")
        return named[0], named[1] if test_file else None
    for first, second in _PAIRS:
        trains, tests = sorted(data.glob(first)), sorted(data.glob(second))
        if len(trains) == len(tests) == 1:
            return trains[0], tests[0]
    found = [path for path in sorted(data.iterdir()) if path.suffix.lower() in _SUFFIXES]
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:10]) or "none"
        raise MissingDataError(
            f"Expected one table in {data}, got {names}. Name it by the option file. {_WANTED}"
        )
    return found[0], None


def _chosen(table: Table, *, target: str | int, drop: Sequence[str | int]) -> tuple[int, list[int]]:
    """Return the positions of the target and of the columns to learn from."""
    goal = _position(target, table)
    left_out = {goal, *(_position(column, table) for column in drop)}
    return goal, [k for k in range(len(table.names)) if k not in left_out]


def _position(column: str | int, table: Table) -> int:
    names = table.names
    if isinstance(column, str):
        if column not in names:
            raise unknown_name(f"column of {table.path}", column, names)
        return names.index(column)
    if not -len(names) <= column < len(names):
        raise InvalidConfigError(
            f"Expected a column from {-len(names)} to {len(names) - 1} of {table.path}, got "
            f"{column}."
        )
    return column % len(names)


def _columns(
    rows: np.ndarray, names: Sequence[str], *, goal: int, kept: Sequence[int], where: Path
) -> _Part:
    """Sort columns into numbers and categories."""
    numbers: list[np.ndarray] = []
    categories: list[np.ndarray] = []
    for position in kept:
        column = rows[:, position]
        if all(map(is_number, column)):
            numbers.append(column.astype(np.float64))
            continue
        texts, ids = np.unique(column, return_inverse=True)
        if len(texts) > _MOST_CATEGORIES:
            raise DataFormatError(
                f"Expected numbers, or at most {_MOST_CATEGORIES} different texts, in column "
                f"{names[position]!r} of {where}, got {len(texts)}, such as {str(texts[0])!r}. Is "
                "it an identifier? Leave it out by the option drop."
            )
        categories.extend((ids == k).astype(np.float64) for k in range(len(texts)))
    empty = np.zeros((len(rows), 0))
    return _Part(
        numbers=np.stack(numbers, 1) if numbers else empty,
        categories=np.stack(categories, 1) if categories else empty,
        targets=rows[:, goal],
    )


def _problem(
    whole: _Part, train: np.ndarray, test: np.ndarray, *, task: str, where: object, **about: Any
) -> Problem:
    inputs = np.concatenate([_standardised(whole.numbers, train), whole.categories], axis=1)
    if not inputs.shape[1]:
        raise DataFormatError(f"Expected columns beside the target in {where}, got none.")
    numeric = all(map(is_number, whole.targets))
    targets = whole.targets.astype(np.float64) if numeric else whole.targets
    if task == "auto":
        task = "classes" if _few_integers(targets) else "regression"
    if task == "regression":
        if not numeric:
            raise DataFormatError(
                f"Expected numbers as targets of a regression in {where}, got text, such as "
                f"{str(targets[0])!r}."
            )
        values = _standardised(targets[:, None], train)
        parts = ((inputs[part], values[part]) for part in (train, test))
        return values_problem(*parts, where=where, **about)
    names, ids = np.unique(targets, return_inverse=True)
    parts = ((inputs[part], ids[part]) for part in (train, test))
    return classes_problem(*parts, classes=names.tolist(), where=where, **about)


def _few_integers(targets: np.ndarray) -> bool:
    if targets.dtype.kind != "f":
        return True
    whole = bool((targets == np.round(targets)).all())
    return whole and len(np.unique(targets)) <= _MOST_CLASSES


def _standardised(columns: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Subtract the training mean, and divide by the training spread where there is one."""
    mean, spread = columns[train].mean(0), columns[train].std(0)
    constant = spread <= 1e-12 * np.abs(mean)
    scaled: np.ndarray = (columns - mean) / np.where(constant, 1, spread)
    return scaled
