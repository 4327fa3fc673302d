"""Columns of converted networks: what foreign values mean, where the source does not say."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.convert.source import ColumnValue, Entry
from zoo.schema import DIVERGED, LINEAGE, MEMBER, POPULATION, SEED, ColumnRole, ColumnSpec

MISSING = "unknown"
"""Category of members for which a text or truth value is missing."""

NO_SEED = -1
MAX_CATEGORIES = 127
_LOG_DECADES = 2
_RESULTS = re.compile(
    r"(^|_)(acc|accuracy|loss|error|score|return|reward|r2|map|auc|prec1?|tau)(_|\d|$)"
)
_IDENTITIES = re.compile(
    r"(^|_)(label|class|target|id|index|file|path|repo|source|sha\w*|hash|blob|licen[cs]e|url|version"
    r"|author|date|zip|shapes|params)(_|$)"
)
REQUIRED_SPECS = (
    ColumnSpec(
        name=SEED, dtype="int64", role="identity", description=f"{NO_SEED} where it is not known"
    ),
    ColumnSpec(
        name=LINEAGE,
        dtype="int64",
        role="identity",
        description="first member with the same weights or ancestor, its own id if none",
    ),
    ColumnSpec(
        name=DIVERGED, dtype="bool", role="result", description="has weights that are not finite"
    ),
)


@dataclass(frozen=True)
class Table:
    """How the columns of all entries of a source are stored.

    Parameters
    ----------
    specs
        Columns, after the required ones.
    texts
        Names of columns kept as text in the recipe: values that identify, or too many to be
        categories.
    """

    specs: tuple[ColumnSpec, ...]
    texts: tuple[str, ...]


def stored_name(name: str, *, taken: Iterable[str] = ()) -> str:
    """Make a foreign name one that columns and metrics may have.

    >>> stored_name("val acc (%)"), stored_name("member"), stored_name("acc", taken=["acc"])
    ('val_acc', 'source_member', 'source_acc')
    """
    plain = re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_.-") or "column"
    reserved = {MEMBER, POPULATION, LINEAGE, DIVERGED, *taken}
    return f"source_{plain}" if plain in reserved else plain


def renamed(entry: Entry) -> dict[str, ColumnValue]:
    """Return an entry's columns under the names that they are stored by."""
    metrics = [stored_name(name) for name in entry.metrics]
    return {stored_name(name, taken=metrics): value for name, value in entry.columns.items()}


def infer(entries: Sequence[Mapping[str, ColumnValue]], declared: Sequence[ColumnSpec]) -> Table:
    """Decide how columns are stored, the same for every population of a source.

    Parameters
    ----------
    entries
        Per entry its columns, renamed.
    declared
        What the source says of some of them.
    """
    known = {spec.name: spec for spec in declared}
    names = dict.fromkeys(name for columns in entries for name in columns if name != SEED)
    specs: list[ColumnSpec] = []
    texts: list[str] = []
    for name in names:
        values = [columns.get(name) for columns in entries]
        spec = known.get(name) or _infer(name, values)
        if spec is None:
            texts.append(name)
        else:
            specs.append(spec)
    return Table(specs=tuple(specs), texts=tuple(texts))


def values(spec: ColumnSpec, entries: Sequence[Mapping[str, ColumnValue]]) -> list[Any]:
    """Return a column's value for each entry, in the dtype that the spec says."""
    given = [columns.get(spec.name) for columns in entries]
    if spec.dtype == "category":
        return [MISSING if value is None else _text(value) for value in given]
    if spec.dtype == "float64":
        return [math.nan if value is None else float(value) for value in given]
    return given


def seeds(entries: Sequence[Mapping[str, ColumnValue]]) -> list[int]:
    """Return each entry's seed, :data:`NO_SEED` where it is no whole number or not known."""
    given = [columns.get(SEED, NO_SEED) for columns in entries]
    return [value if isinstance(value, int) else NO_SEED for value in given]


def _infer(name: str, values: Sequence[ColumnValue | None]) -> ColumnSpec | None:
    """Return the spec of a column; ``None`` for text that is not worth categories."""
    present = [value for value in values if value is not None]
    complete = len(present) == len(values)
    kinds = {type(value) for value in present}
    if kinds == {bool} and complete:
        return ColumnSpec(name=name, dtype="bool", role=_role(name), scale="categorical")
    if kinds <= {int, float}:
        whole = kinds == {int} and complete
        dtype: Any = "int64" if whole else "float64"
        return ColumnSpec(name=name, dtype=dtype, role=_role(name), scale=_scale(present))
    texts = [_text(value) for value in present]
    categories = sorted({*texts, *([] if complete else [MISSING])})
    if len(categories) > MAX_CATEGORIES or len(set(texts)) == len(texts):
        return None
    return ColumnSpec(
        name=name,
        dtype="category",
        categories=tuple(categories),
        role=_role(name),
        scale="categorical",
    )


def _role(name: str) -> ColumnRole:
    if _RESULTS.search(name.lower()):
        return "result"
    return "identity" if _IDENTITIES.search(name.lower()) else "hyperparameter"


def _scale(values: Sequence[Any]) -> Any:
    """``log`` for positive numbers that span two decades."""
    if not values or not min(values) > 0 or not math.isfinite(max(values)):
        return "linear"
    return "log" if max(values) / min(values) >= 10**_LOG_DECADES else "linear"


def _text(value: ColumnValue) -> str:
    return str(value).strip() or MISSING
