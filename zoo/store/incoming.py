"""What a block's arrays must be before a byte of them is written."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from zoo.errors import InvalidConfigError, StoreError, WeightSpaceMismatchError, unknown_name
from zoo.layout import Architecture, Ragged
from zoo.schema import (
    ARCHITECTURE,
    COLUMNS,
    DIVERGED,
    MEMBER,
    METRICS,
    OFFSET,
    WEIGHTS,
    ColumnSpec,
    PopulationSpec,
)


def check_block(
    spec: PopulationSpec,
    block: int,
    weights: np.ndarray | Sequence[np.ndarray],
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
    values = {MEMBER: np.arange(members.start, members.stop, dtype=np.int64)}
    for name in spec.metrics:
        numbers = _check_numbers(name, metrics[name], (rows, epochs), "f", where)
        values[f"{METRICS}/{name}"] = numbers
    for column in spec.columns:
        values[f"{COLUMNS}/{column.name}"] = _check_column(
            column, columns[column.name], rows, where
        )
    if isinstance(spec.space, Ragged):
        own = _architectures(spec.space, values[f"{COLUMNS}/{ARCHITECTURE}"], where)
        values |= _ragged_row(spec, own, weights, where)
    else:
        values[WEIGHTS] = _check_weights(spec, np.asarray(weights), rows, where)
    _check_rounding(spec, members, weights, values)
    return values


def _check_weights(spec: PopulationSpec, weights: np.ndarray, rows: int, where: str) -> np.ndarray:
    wanted = (rows, len(spec.checkpoints), spec.row_length)
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


def _architectures(ragged: Ragged, column: np.ndarray, where: str) -> list[Architecture]:
    count = len(ragged.architectures)
    if ((column < 0) | (column >= count)).any():
        raise InvalidConfigError(
            f"Expected positions 0 to {count - 1} of architectures in column {ARCHITECTURE!r} of "
            f"{where}, got {column.min()} to {column.max()}."
        )
    return [ragged.architectures[position] for position in column.tolist()]


def _ragged_row(
    spec: PopulationSpec,
    architectures: Sequence[Architecture],
    weights: Sequence[np.ndarray] | np.ndarray,
    where: str,
) -> dict[str, np.ndarray]:
    """Lay members out as one row ``[1, C, row_length]``, and say where each starts."""
    wanted = [(len(spec.checkpoints), each.num_parameters) for each in architectures]
    given = [(vector.shape, vector.dtype) for vector in weights]
    if given != [(shape, np.dtype(np.float32)) for shape in wanted]:
        raise WeightSpaceMismatchError(
            f"Expected for each member of {where} an array [checkpoint, parameter] of its "
            f"architecture, float32, shapes {_shorten(wanted)}, got {_shorten(given)}. "
            "Were they made by other networks?"
        )
    offsets = np.cumsum([0, *(size for _, size in wanted)])
    if offsets[-1] > spec.row_length:
        raise StoreError(
            f"Expected at most {spec.row_length} numbers in a row of weights, as the population "
            f"was planned, got {offsets[-1]} in {where}. Write members as `Ragged.plan` saw them."
        )
    row = np.full((1, len(spec.checkpoints), spec.row_length), np.nan, dtype=np.float32)
    np.concatenate(list(weights), axis=1, out=row[0, :, : offsets[-1]])
    return {WEIGHTS: row, OFFSET: offsets[:-1].astype(np.int64)}


def _check_rounding(
    spec: PopulationSpec,
    members: range,
    weights: Sequence[np.ndarray] | np.ndarray,
    values: Mapping[str, np.ndarray],
) -> None:
    """Refuse weights of a sound member that the stored dtype has no room for."""
    if spec.storage.dtype == "float32":
        return
    most = float(np.finfo(spec.storage.dtype).max)
    diverged = values[f"{COLUMNS}/{DIVERGED}"]
    for member, vectors, is_diverged in zip(members, weights, diverged, strict=True):
        with np.errstate(over="ignore"):
            overflown = np.isinf(vectors.astype(spec.storage.dtype)) & np.isfinite(vectors)
        if overflown.any() and not is_diverged:
            raise StoreError(
                f"Expected weights between -{most:g} and {most:g}, which {spec.storage.dtype} "
                f"holds, got {np.abs(vectors[overflown]).max():g} in member {member} of population "
                f"{spec.name!r}, which is not marked as diverged. Store it in float32: tier hot or "
                "archive."
            )


def _shorten(shapes: Sequence[object]) -> str:
    shown = ", ".join(map(str, shapes[:4]))
    return f"{shown}, ... ({len(shapes)})" if len(shapes) > 4 else shown


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
