"""The Small CNN Zoo: one matrix of weights, one table of metrics, one of the columns' meaning.

A folder holds ``weights.npy`` ``[rows, P]``, ``metrics.csv`` (or ``metrics.csv.gz``) with one line
per row, and ``layout.csv``, which says where in a row each TensorFlow variable is. A network is one
``modeldir``; its rows are its checkpoints, after ``step`` epochs [1]_.

References
----------
.. [1] Unterthiner et al., "Predicting Neural Network Accuracy from Weights", arXiv 2002.11448, and
   the README of ``dnn_predict_accuracy`` in ``google-research``, which describes the files.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from zoo.convert.channels_last import torch_kernel
from zoo.convert.columns import MISSING
from zoo.convert.source import ColumnValue, Entry, Skipped
from zoo.errors import InvalidConfigError, MissingDataError
from zoo.networks import ACTIVATIONS, CNNConfig, to_dict
from zoo.schema import SEED, ColumnSpec

WEIGHTS_FILE = "weights.npy"
LAYOUT_FILE = "layout.csv"
METRICS_FILES = ("metrics.csv", "metrics.csv.gz")

_METRICS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
_PREFIX = "config."
_IMAGE_SIZE = {"mnist": 28, "fashion_mnist": 28, "cifar10": 32, "svhn_cropped": 32}
_SPECS = (
    ColumnSpec(name="learning_rate", dtype="float64", scale="log", unit="1/step"),
    ColumnSpec(
        name="l2reg", dtype="float64", scale="log", description="factor of the sum of squares"
    ),
    ColumnSpec(name="init_std", dtype="float64", scale="log", description="where w_init is normal"),
    ColumnSpec(name="dropout", dtype="float64", description="after each convolution"),
    ColumnSpec(name="train_fraction", dtype="float64", description="of the training set"),
)


@dataclass(frozen=True, kw_only=True)
class _Variable:
    """One TensorFlow variable: where it is in a row, and our name for it."""

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]

    @property
    def torch_shape(self) -> tuple[int, ...]:
        rank = len(self.shape)
        return self.shape if rank < 2 else (*self.shape[::-1][:2], *self.shape[: rank - 2])


class SmallCNNZoo:
    """Source of a Small CNN Zoo folder.

    Parameters
    ----------
    path
        The folder.
    final
        Convert each network's last checkpoint only.

    Raises
    ------
    MissingDataError
        If one of the three files is not there.
    """

    format = "small-cnn-zoo"
    network_columns: Sequence[str] = ("activation", "dropout")

    def __init__(self, path: Path, *, final: bool = False) -> None:
        self.path = path
        self.final = final
        if not recognise(path):
            raise MissingDataError(
                f"Expected {WEIGHTS_FILE}, {LAYOUT_FILE} and {' or '.join(METRICS_FILES)} in "
                f"{path}, got a folder without them. Unpack the Small CNN Zoo there."
            )

    @cached_property
    def column_specs(self) -> Sequence[ColumnSpec]:
        """What the columns mean; logarithmic only where all values are positive."""
        numbers = [
            replace(spec, scale="log" if spec.scale == "log" and lowest > 0 else "linear")
            for spec in _SPECS
            if (lowest := self._lowest(spec.name)) is not None
        ]
        words = [
            ColumnSpec(
                name=name.removeprefix(_PREFIX),
                dtype="category",
                categories=tuple(sorted(self._table[name].fill_null(MISSING).unique())),
                scale="categorical",
            )
            for name, dtype in self._table.schema.items()
            if name.startswith(_PREFIX) and dtype == pl.String
        ]
        return [*numbers, *words]

    @property
    def problem(self) -> dict[str, Any]:
        """The data set's name; images are averaged over colours and scaled to [-1, 1]."""
        names = self._table.get_column(f"{_PREFIX}dataset", default=pl.Series(["unknown"]))
        return {"name": "small-cnn-zoo", "dataset": ", ".join(sorted(map(str, names.unique())))}

    @property
    def recipe(self) -> dict[str, Any]:
        """Where the zoo comes from."""
        return {
            "source": "Small CNN Zoo",
            "paper": "arXiv 2002.11448",
            "licence": "CC-BY 4.0",
            "batch_size": 512,
            "layout": [each.name for each in self._variables],
        }

    def scan(self) -> Iterator[Entry | Skipped]:
        """Yield one entry per ``modeldir``, in order of first appearance."""
        for name, rows in self._rows.items():
            problem = self._fault(name, rows)
            yield problem if problem is not None else self._entry(name, rows)

    def load(self, entry: Entry, epoch: int) -> Mapping[str, np.ndarray]:
        """Read one row of the matrix."""
        row = np.asarray(self._weights[self._rows[entry.name][epoch]], dtype=np.float32)
        return {each.name: _tensor(row, each) for each in self._variables}

    def _lowest(self, column: str) -> float | None:
        values = self._table.get_column(_PREFIX + column, default=pl.Series([], dtype=pl.Float64))
        return None if values.is_empty() else float(values.cast(pl.Float64).to_numpy().min())

    # ---- files --------------------------------------------------------------------------------
    @cached_property
    def _table(self) -> pl.DataFrame:
        path = next(self.path / name for name in METRICS_FILES if (self.path / name).exists())
        table = pl.read_csv(path, infer_schema_length=None)
        lacking = [name for name in ("modeldir", "step", *_METRICS) if name not in table.columns]
        if lacking:
            raise InvalidConfigError(
                f"Expected columns {', '.join(lacking)} in {path}, got {', '.join(table.columns)}."
            )
        return table

    @cached_property
    def _metrics(self) -> dict[str, np.ndarray]:
        """Per metric one value per row, NaN where it is missing."""
        return {name: self._table[name].cast(pl.Float64).to_numpy() for name in _METRICS}

    @cached_property
    def _weights(self) -> np.ndarray:
        """The rows that the file holds in full, mapped from disk: a truncated file has fewer."""
        path = self.path / WEIGHTS_FILE
        shape, dtype, offset = _npy_header(path)
        held = (path.stat().st_size - offset) // (shape[1] * dtype.itemsize)
        rows = min(shape[0], held)
        if rows == 0:
            return np.empty((0, shape[1]), dtype=dtype)
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(rows, shape[1]))

    @cached_property
    def _variables(self) -> tuple[_Variable, ...]:
        """Variables in the order of our network: by layer, weight before bias."""
        layout = pl.read_csv(self.path / LAYOUT_FILE)
        found = [_variable(row) for row in layout.iter_rows(named=True)]
        # "convs first, then the dense head" is what sorting by our names gives
        depth = {each.name: _place(each.name) for each in found}
        return tuple(sorted(found, key=lambda each: depth[each.name]))

    @cached_property
    def _rows(self) -> dict[str, dict[int, int]]:
        """Per network its rows by epoch; a row that repeats an earlier one is left out."""
        rows: dict[str, dict[int, int]] = {}
        pairs = zip(self._table["modeldir"], self._table["step"], strict=True)
        for row, (name, step) in enumerate(pairs):
            rows.setdefault(str(name), {}).setdefault(int(step), row)
        if not self.final:
            return {name: dict(sorted(found.items())) for name, found in rows.items()}
        return {name: {max(found): found[max(found)]} for name, found in rows.items()}

    # ---- one network --------------------------------------------------------------------------
    def _fault(self, name: str, rows: Mapping[int, int]) -> Skipped | None:
        beyond = [epoch for epoch, row in rows.items() if row >= len(self._weights)]
        if beyond:
            return Skipped(
                name,
                f"{WEIGHTS_FILE} ends after {len(self._weights)} rows, before epoch {beyond[0]}",
            )
        return None

    def _entry(self, name: str, rows: Mapping[int, int]) -> Entry:
        columns = self._columns(rows[max(rows)])
        return Entry(
            name=name,
            shapes=tuple((each.name, each.torch_shape) for each in self._variables),
            epochs=tuple(rows),
            network=self._network(columns),
            columns=columns,
            metrics={
                metric: values[list(rows.values())].tolist()
                for metric, values in self._metrics.items()
            },
            dtype=str(self._weights.dtype),
        )

    def _columns(self, row: int) -> dict[str, ColumnValue]:
        """Return hyper-parameters without their prefix; ``random_seed`` is the member's seed."""
        values = self._table.row(row, named=True)
        columns = {
            key.removeprefix(_PREFIX): value
            for key, value in values.items()
            if key.startswith(_PREFIX) and value is not None
        }
        if "random_seed" in columns:
            columns[SEED] = columns.pop("random_seed")
        return columns

    def _network(self, columns: Mapping[str, ColumnValue]) -> dict[str, Any] | None:
        """Return our configuration of the documented architecture; ``None`` for any other."""
        known = columns.get("dnn_architecture", "cnn") == "cnn"
        if not known or columns.get("activation") not in ACTIVATIONS:
            return None
        kernels = [each.shape for each in self._variables if len(each.shape) == 4]
        config = CNNConfig(
            in_channels=kernels[0][2],
            image_size=_IMAGE_SIZE.get(str(columns.get("dataset")), 32),
            out_features=self._variables[-1].shape[-1],
            channels=tuple(shape[3] for shape in kernels),
            kernel_size=kernels[0][0],
            activation=str(columns["activation"]),
            dropout=float(columns.get("dropout", 0.0)),
        )
        return to_dict(config)


def recognise(path: Path) -> bool:
    """Tell whether a folder holds the three files."""
    return (
        (path / WEIGHTS_FILE).is_file()
        and (path / LAYOUT_FILE).is_file()
        and any((path / name).is_file() for name in METRICS_FILES)
    )


def _npy_header(path: Path) -> tuple[tuple[int, int], np.dtype[Any], int]:
    """Return shape, dtype and offset of the data of an npy file of plain numbers."""
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, is_fortran, dtype = read(file)
        except ValueError as error:
            raise InvalidConfigError(f"Expected a NumPy file at {path}: {error}.") from error
        if len(shape) != 2 or is_fortran or dtype.kind != "f":
            raise InvalidConfigError(
                f"Expected a matrix of floating-point numbers, row by row, in {path}, got shape "
                f"{shape} of {dtype}" + (" (a pickle: refused)." if dtype.hasobject else ".")
            )
        return shape, dtype, file.tell()


_VARNAME = re.compile(
    r"(?:.*/)?(?P<layer>conv2d|dense)(?:_(?P<number>\d+))?/(?P<leaf>kernel|bias):0"
)


def _variable(row: Mapping[str, Any]) -> _Variable:
    """Read a line of ``layout.csv``; layers are named as those of :class:`zoo.networks.CNN`."""
    shape = tuple(int(size) for size in re.findall(r"\d+", str(row["shape"])))
    start, stop = int(row["start_idx"]), int(row["end_idx"])
    match = _VARNAME.fullmatch(str(row["varname"]))
    if match is None or stop - start != prod(shape):
        raise InvalidConfigError(
            f"Expected conv2d and dense kernels and biases in {LAYOUT_FILE}, got "
            f"{row['varname']!r} of shape {shape} at {start} to {stop}."
        )
    layer = "head" if match["layer"] == "dense" else f"layers.{3 * int(match['number'] or 0)}"
    leaf = "weight" if match["leaf"] == "kernel" else "bias"
    return _Variable(name=f"{layer}.{leaf}", start=start, stop=stop, shape=shape)


def _place(name: str) -> tuple[bool, int, bool]:
    """Sort key: convolutions by number, then the head; weight before bias."""
    number = re.search(r"\d+", name)
    return name.startswith("head"), int(number[0]) if number else 0, name.endswith("bias")


def _tensor(row: np.ndarray, variable: _Variable) -> np.ndarray:
    values = row[variable.start : variable.stop].reshape(variable.shape)
    return values if values.ndim < 2 else torch_kernel(values)
