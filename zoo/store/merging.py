"""What populations must agree on to be read as one, and what they then have together."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from zoo.errors import InvalidConfigError, WeightSpaceMismatchError
from zoo.measured import Output
from zoo.schema import ColumnSpec
from zoo.store.population import Population

OWN_MEMBER = "member_in_population"
"""Column of a concatenation's table: a member's id in its own population."""


def check_alike(populations: Sequence[Population]) -> None:
    """Raise unless populations share weight space and checkpoints, and no member comes twice.

    Raises
    ------
    InvalidConfigError
        If there are none, if their checkpoints differ, or if a member comes twice.
    WeightSpaceMismatchError
        If their weight spaces differ.
    """
    if not populations:
        raise InvalidConfigError("Expected at least one population to concatenate, got none.")
    first = populations[0]
    for other in populations[1:]:
        if other.space.fingerprint != first.space.fingerprint:
            raise WeightSpaceMismatchError(
                f"Expected populations of one weight space, got {first.space.fingerprint} in "
                f"{first.name!r} and {other.space.fingerprint} in {other.name!r}: "
                f"{_difference(first, other)}."
            )
        if not np.array_equal(other.epochs, first.epochs):
            raise InvalidConfigError(
                f"Expected populations with the same checkpoints, got epochs "
                f"{first.epochs.tolist()} in {first.name!r} and {other.epochs.tolist()} in "
                f"{other.name!r}. Choose common ones first, by `.checkpoints([...])`."
            )
    _check_distinct(populations)


def labels_of(populations: Sequence[Population]) -> tuple[str, ...]:
    """Name populations for people: their names, with their zoos where several share one."""
    distinct = {(population.name, population.location) for population in populations}
    count = Counter(name for name, _ in distinct)
    return tuple(
        f"{population.location}:{population.name}"
        if count[population.name] > 1
        else population.name
        for population in populations
    )


def merge_columns(populations: Sequence[Population]) -> tuple[ColumnSpec, ...]:
    """Return the columns that any population has; role, scale and description are the first's.

    A column that one of them lacks is no hyper-parameter of the whole, which datasets would have
    to offer for every member: its role becomes ``identity``.

    Raises
    ------
    InvalidConfigError
        If a column's dtype or unit differs between populations.
    """
    merged: dict[str, ColumnSpec] = {}
    for population in populations:
        for column in population.columns:
            merged[column.name] = _merged(merged.get(column.name, column), column, population.name)
    count = Counter(column.name for population in populations for column in population.columns)
    return tuple(
        column if count[column.name] == len(populations) else replace(column, role="identity")
        for column in merged.values()
    )


def common_outputs(populations: Sequence[Population]) -> dict[str, Output]:
    """Return the outputs of measures that all populations have, measured alike.

    Ids of partners are those of their own population, so they are left out.
    """
    first, *others = populations
    found = {name: first.measure_of(name) for name in first.measures}
    return {
        name: spec.output(name)
        for name, spec in found.items()
        if spec.output(name).kind != "partners"
        and all(
            name in other.measures
            and other.measure_of(name).how == spec.how
            and other.measure_of(name).output(name) == spec.output(name)
            for other in others
        )
    }


def _merged(known: ColumnSpec, column: ColumnSpec, name: str) -> ColumnSpec:
    if column.name == OWN_MEMBER:
        raise InvalidConfigError(
            f"Expected no column {OWN_MEMBER!r} in population {name!r}: a concatenation needs it."
        )
    for field in ("dtype", "unit"):
        if getattr(known, field) != getattr(column, field):
            raise InvalidConfigError(
                f"Expected column {column.name!r} to mean one thing in all populations, got "
                f"{field} {getattr(known, field)!r} before and {getattr(column, field)!r} in "
                f"{name!r}. Give one of them another name."
            )
    categories = dict.fromkeys((*known.categories, *column.categories))
    return replace(known, categories=tuple(categories))


def _check_distinct(populations: Sequence[Population]) -> None:
    seen: dict[tuple[str, str], list[np.ndarray]] = {}
    for population in populations:
        seen.setdefault((population.name, population.version), []).append(population.member_ids)
    for (name, _), ids in seen.items():
        distinct, counts = np.unique(np.concatenate(ids), return_counts=True)
        if (counts > 1).any():
            raise InvalidConfigError(
                f"Expected each member once, got {(counts > 1).sum()} members of population "
                f"{name!r} again, such as {distinct[counts > 1][0]}. Concatenate parts of it that "
                "have no member in common."
            )


def _difference(first: Population, other: Population) -> str:
    """Say where two weight spaces differ first."""
    for one, two in zip(first.space.tensors, other.space.tensors, strict=False):
        if (one.name, one.shape) != (two.name, two.shape):
            return f"{one.name!r} of shape {one.shape}, and {two.name!r} of shape {two.shape}"
    sizes = len(first.space.tensors), len(other.space.tensors)
    if sizes[0] != sizes[1]:
        return f"{sizes[0]} and {sizes[1]} tensors"
    return "the same tensors, which other hidden units move"
