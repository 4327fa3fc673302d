"""What a block's arrays must be before a byte of them is written."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from zoo.errors import InvalidConfigError, StoreError, WeightSpaceMismatchError, unknown_name
from zoo.schema import COLUMNS, MEMBER, METRICS, WEIGHTS, ColumnSpec, PopulationSpec


def check_block(
    spec: PopulationSpec,
    block: int,
    weights: np.ndarray,
    metrics: Mapping[str, ArrayLike],
    columns: Mapping[str, ArrayLike],
) -> dict[str, np.ndarray]:
    """Check a block's arrays and return them by array name, in their stored dtype.

    Parameters
    ----------
    spec, block
        Of which population, and which block of it.
    weights, metrics, columns
        As :meth:`zoo.store.PopulationWriter.write_block` takes them.

    Raises
    ------
    StoreError
        If an array is absent or not exactly the block's.
    WeightSpaceMismatchError
        If the weights are of another weight space.
    """
    members = spec.members_of(block)
    where = f"block {block} (members {members.start} to {members.stop - 1}) of {spec.name!r}"
    _check_names("metrics", metrics, spec.metrics, where)
    _check_names("columns", columns, [column.name for column in spec.columns], where)
    rows, epochs = len(members), len(spec.checkpoints)
    values = {WEIGHTS: _check_weights(spec, weights, rows, where)}
    values[MEMBER] = np.arange(members.start, members.stop, dtype=np.int64)
    for name in spec.metrics:
        numbers = _check_numbers(name, metrics[name], (rows, epochs), "f", where)
        values[f"{METRICS}/{name}"] = numbers
    for column in spec.columns:
        values[f"{COLUMNS}/{column.name}"] = _check_column(
            column, columns[column.name], rows, where
        )
    return values


def _check_weights(spec: PopulationSpec, weights: np.ndarray, rows: int, where: str) -> np.ndarray:
    wanted = (rows, len(spec.checkpoints), spec.space.num_parameters)
    if weights.ndim == 3 and weights.shape[-1] != wanted[-1]:
        raise WeightSpaceMismatchError(
            f"Expected weights of {wanted[-1]} parameters for weight space "
            f"{spec.space.fingerprint}, got {weights.shape[-1]} in {where}. "
            "Were they made by another network?"
        )
    if weights.shape != wanted or weights.dtype != np.float32:
        raise StoreError(
            f"Expected weights of shape {wanted} and dtype float32 for {where}, got "
            f"{weights.shape} and {weights.dtype}. A block is written whole, by one owner: part of "
            "a chunk would silently erase the rest."
        )
    return weights


def _check_names(
    kind: str, given: Mapping[str, ArrayLike], wanted: Sequence[str], where: str
) -> None:
    for name in given:
        if name not in wanted:
            raise unknown_name(f"{kind} of {where}:", name, wanted)
    missing = [name for name in wanted if name not in given]
    if missing:
        raise StoreError(
            f"Expected {kind} {', '.join(wanted)} for {where}, got none called {missing[0]!r}."
        )


def _check_numbers(
    name: str, given: ArrayLike, shape: tuple[int, ...], kinds: str, where: str
) -> np.ndarray:
    values = np.asarray(given)
    if values.shape != shape or values.dtype.kind not in kinds:
        named = {"f": "floats", "fiu": "numbers", "iu": "integers", "b": "booleans"}[kinds]
        raise StoreError(
            f"Expected {name!r} as {named} of shape {shape} for {where}, got {values.dtype} of "
            f"shape {values.shape}. A block is written whole, one row per member."
        )
    return values


def _check_column(column: ColumnSpec, given: ArrayLike, rows: int, where: str) -> np.ndarray:
    if column.dtype == "category":
        return _codes(column, np.asarray(given), rows, where)
    kinds = {"float64": "fiu", "int64": "iu", "bool": "b"}[column.dtype]
    values = _check_numbers(column.name, given, (rows,), kinds, where)
    if column.scale == "log" and (values <= 0).any():
        raise InvalidConfigError(
            f"Expected positive values in column {column.name!r} of {where}, whose scale is 'log', "
            f"got {values.min()}. Declare it 'linear' where 0 is a value."
        )
    return values.astype("int8" if column.dtype == "bool" else column.dtype)


def _codes(column: ColumnSpec, given: np.ndarray, rows: int, where: str) -> np.ndarray:
    """Return categories as codes, int8."""
    if given.dtype.kind in "iu":
        codes = _check_numbers(column.name, given, (rows,), "iu", where)
        if ((codes < 0) | (codes >= len(column.categories))).any():
            raise InvalidConfigError(
                f"Expected codes 0 to {len(column.categories) - 1} in column {column.name!r} of "
                f"{where}, got {codes.min()} to {codes.max()}."
            )
        return codes.astype(np.int8)
    names = [str(name) for name in given.ravel()]
    unknown = next((name for name in names if name not in column.categories), None)
    if unknown is not None:
        raise unknown_name(f"category of column {column.name!r}", unknown, column.categories)
    codes = np.array([column.categories.index(name) for name in names], dtype=np.int8)
    return _check_numbers(column.name, codes.reshape(given.shape), (rows,), "iu", where)
