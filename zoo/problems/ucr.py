"""Time series of the UCR and UEA archives: classes, and each series as a signal."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from zoo.errors import MissingDataError
from zoo.problems.parts import (
    DataFormatError,
    class_ids,
    classes_problem,
    config_of,
    folder_of,
    middles,
    signals_problem,
)
from zoo.problems.problem import Problem

_SUFFIXES = (".ts", ".tsv", ".txt")
_WANTED = (
    "Wanted are NAME_TRAIN.ts and NAME_TEST.ts, or .tsv or .txt with the class first; they are "
    "usually had from timeseriesclassification.com and www.cs.ucr.edu/~eamonn/time_series_data."
)
_SOURCE = "UCR/UEA time series archive: Dau et al., 2019; Bagnall et al., 2018"


@dataclass(frozen=True, kw_only=True)
class _Series:
    """Values ``[n, dims, length]``, float64, and classes ``[n]``, text."""

    values: np.ndarray
    classes: np.ndarray


def ucr(data: Path | None, *, dataset: str = "") -> Problem:
    """Load classified time series [1]_ as ``[n, dims, length]``, with the archive's own split.

    Values are those of the files; classes are numbered in the order of their names.

    Parameters
    ----------
    data
        The folder.
    dataset
        ``NAME`` of ``NAME_TRAIN.ts``, where the folder holds several.

    Raises
    ------
    MissingDataError
        If a file is not there.
    DataFormatError
        If a file is damaged, series have different lengths, or values are missing.

    References
    ----------
    .. [1] Dau et al., "The UCR time series archive", IEEE/CAA J. Autom. Sinica 6, 2019;
       Bagnall et al., "The UEA multivariate time series classification archive", 2018.
    """
    name, train, test = _both(data, dataset)
    names, *ids = class_ids(train.classes, test.classes, where=name)
    return classes_problem(
        (train.values.astype(np.float32), ids[0]),
        (test.values.astype(np.float32), ids[1]),
        classes=names,
        where=name,
        name=name,
        config=config_of("ucr", ucr, {"dataset": dataset}),
        source=_SOURCE,
    )


def ucr_signals(data: Path | None, *, dataset: str = "") -> Problem:
    """Take every series as a signal over time in (-1, 1), with a value per dimension.

    Training series come first; labels are their classes. Parameters and errors as in :func:`ucr`.
    """
    name, train, test = _both(data, dataset)
    _, *ids = class_ids(train.classes, test.classes, where=name)
    values = np.concatenate([train.values, test.values]).transpose(0, 2, 1)
    return signals_problem(
        middles(values.shape[1])[:, None],
        values,
        name=name,
        config=config_of("ucr-signals", ucr_signals, {"dataset": dataset}),
        labels=torch.from_numpy(np.concatenate(ids).astype(np.int64)),
        source=_SOURCE,
    )


def _both(data: Path | None, dataset: str) -> tuple[str, _Series, _Series]:
    folder = folder_of(data, _WANTED)
    known = sorted(
        {
            path.stem.removesuffix("_TRAIN")
            for path in folder.glob("*_TRAIN.*")
            if path.suffix in _SUFFIXES
        }
    )
    if not dataset and len(known) != 1:
        raise MissingDataError(
            f"Expected one data set in {folder}, got {', '.join(known) or 'none'}. Name it by the "
            f"option dataset. {_WANTED}"
        )
    name = dataset or known[0]
    train, test = (_read(_find(folder, f"{name}_{part}")) for part in ("TRAIN", "TEST"))
    if train.values.shape[1:] != test.values.shape[1:]:
        raise DataFormatError(
            f"Expected series of one shape in both parts of {name}, got "
            f"{train.values.shape[1:]} and {test.values.shape[1:]} (dims, length). Cut or resample "
            "them to one length first."
        )
    return name, train, test


def _find(folder: Path, stem: str) -> Path:
    for suffix in _SUFFIXES:
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    raise MissingDataError(f"Expected {stem}.ts in {folder}. {_WANTED}")


def _read(path: Path) -> _Series:
    """Read one file of either format.

    Raises
    ------
    DataFormatError
        If it is damaged, or holds what is not supported.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="strict").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataFormatError(f"Cannot read {path} as UTF-8 text: {error}.") from error
    numbered = [(k + 1, line.strip()) for k, line in enumerate(lines) if line.strip()]
    cut = _marked(numbered, path) if path.suffix == ".ts" else _plain(numbered)
    if not cut:
        raise DataFormatError(f"Expected time series in {path}, got none. Fetch the file again.")
    series = [_numbers(dims, line, path) for line, dims, _ in cut]
    shape = series[0].shape
    for values, (line, *_) in zip(series, cut, strict=True):
        if values.shape != shape:
            raise DataFormatError(
                f"Expected series of one shape in {path}, got {shape} (dims, length) first and "
                f"{values.shape} in line {line}. Cut or resample them to one length first."
            )
    return _Series(values=np.stack(series), classes=np.array([label for *_, label in cut]))


def _marked(
    numbered: Sequence[tuple[int, str]], path: Path
) -> list[tuple[int, list[list[str]], str]]:
    """Cut lines ``value,value:value,value:class`` that follow ``@data``."""
    header: dict[str, str] = {}
    start = None
    for position, (_, text) in enumerate(numbered):
        if text.lower() == "@data":
            start = position + 1
            break
        if text.startswith("@"):
            key, _, value = text[1:].partition(" ")
            header[key.lower()] = value.strip()
    if start is None or not header.get("classlabel", "").lower().startswith("true"):
        raise DataFormatError(
            f"Expected '@classLabel true' and '@data' in {path}. Is it a .ts file of classified "
            "series, and all of it?"
        )
    if header.get("timestamps", "false").lower() != "false":
        raise DataFormatError(
            f"Expected series at even times in {path}, got '@timeStamps true'. Resample them first."
        )
    known = header["classlabel"].split()[1:]
    cut: list[tuple[int, list[list[str]], str]] = []
    for line, text in numbered[start:]:
        *dims, label = text.split(":")
        if not dims or label.strip() not in known:
            raise DataFormatError(
                f"Expected values, a colon and a class of {', '.join(known)} in line {line} of "
                f"{path}, got {text[-20:]!r}."
            )
        cut.append((line, [dim.split(",") for dim in dims], label.strip()))
    return cut


def _plain(numbered: Sequence[tuple[int, str]]) -> list[tuple[int, list[list[str]], str]]:
    """Cut lines of a class and values, with tabs, commas or spaces between them."""
    cut: list[tuple[int, list[list[str]], str]] = []
    for line, text in numbered:
        label, *values = text.replace(",", " ").split() or [""]
        cut.append((line, [values], label))
    return cut


def _numbers(dims: Sequence[Sequence[str]], line: int, path: Path) -> np.ndarray:
    """Turn fields into ``[dims, length]``."""
    lengths = {len(dim) for dim in dims}
    if len(lengths) > 1:
        raise DataFormatError(
            f"Expected dimensions of one length in line {line} of {path}, got {sorted(lengths)}. "
            "Cut or resample them first."
        )
    try:
        values = np.array(
            [[float("nan" if field == "?" else field) for field in dim] for dim in dims]
        )
    except ValueError as error:
        raise DataFormatError(f"Expected numbers in line {line} of {path}: {error}.") from error
    if not values.size or not np.isfinite(values).all():
        raise DataFormatError(
            f"Expected no missing values in {path}, got one in line {line} (of series of different "
            "lengths, the ends are missing). Fill them in or cut them first."
        )
    return values
