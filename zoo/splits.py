"""Splitting members into train, validation and test, once and for all.

Whatever the rule, relatives never meet across parts: a family is all members of one lineage.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from zoo.conditions import rows_where
from zoo.errors import InvalidConfigError, unknown_name
from zoo.grouping import DEFAULT_FRACTIONS, assign, check_shares, join
from zoo.schema import LINEAGE, PARTS

NO_PART = -1
"""Code of members that lie in no part."""


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How members find their parts.

    Parameters
    ----------
    seed
        Seed of the shuffle.
    fractions
        Shares of train, validation and test among the members that no condition takes; they sum
        to 1. The share of a part that a condition fills goes to the others, in proportion.
    by
        Columns: members that agree in all of them share a part, and so do families. ``lineage``
        splits by families alone; ``member`` does the same, since relatives stay together.
    validation, test
        SQL conditions on the table: the regions that these parts are made of, test first. Nobody
        else comes into such a part. Relatives of those in a region that lie outside of it are left
        out of every part.

    Raises
    ------
    InvalidConfigError
        If the fractions are no shares, or no column is named.

    Examples
    --------
    >>> table = pl.DataFrame({"lineage": [0, 1, 0, 3, 4], "width": [2, 2, 3, 5, 5]})
    >>> SplitRule(by=("width",), fractions=(0.5, 0, 0.5)).codes(table, of="some members").tolist()
    [0, 0, 0, 2, 2]
    >>> SplitRule(test="width == 3", fractions=(1, 0, 0)).codes(table, of="some members").tolist()
    [-1, 0, 2, 0, 0]
    """

    seed: int = 0
    fractions: Sequence[float] = DEFAULT_FRACTIONS
    by: tuple[str, ...] = (LINEAGE,)
    validation: str | None = None
    test: str | None = None

    def __post_init__(self) -> None:
        check_shares(self.fractions)
        if not self.by:
            raise InvalidConfigError(
                f"Expected at least one column to split by, got none. {LINEAGE!r} is the default."
            )

    def codes(self, table: pl.DataFrame, *, of: str) -> np.ndarray:
        """Assign members to parts.

        Parameters
        ----------
        table
            One row per member, all members of the population.
        of
            Whose members they are, for errors.

        Returns
        -------
        np.ndarray
            ``[n]`` int8: 0 train, 1 validation, 2 test, -1 none.

        Raises
        ------
        UnknownNameError
            If a column does not exist.
        InvalidConfigError
            If a condition is none, or holds for no member that is left, or for all; or if columns
            and lineage leave too few groups for the parts.
        """
        codes = np.full(len(table), NO_PART, dtype=np.int8)
        free = np.ones(len(table), dtype=bool)
        for part, sql in reversed(self.regions.items()):
            region, family = _region(table, sql, free, of=of)
            codes[region] = PARTS.index(part)
            free &= ~family
        groups, shares = self._groups(table.filter(pl.Series(free))), self._shares()
        codes[free] = assign(groups, seed=self.seed, fractions=shares)
        if LINEAGE not in self.by:
            self._check_full(codes[free], shares, groups, of=of)
        return codes

    @property
    def regions(self) -> dict[str, str]:
        """Conditions by the part that they fill."""
        both = {"validation": self.validation, "test": self.test}
        return {part: sql for part, sql in both.items() if sql is not None}

    def to_attributes(self) -> dict[str, Any]:
        """Return what a split says of how it was made, plain JSON."""
        fractions = [float(share) for share in self.fractions]
        how = {"seed": self.seed, "fractions": fractions, "by": ",".join(self.by)}
        return how | self.regions

    def _groups(self, table: pl.DataFrame) -> np.ndarray:
        for name in self.by:
            if name not in table.columns:
                raise unknown_name("column", name, table.columns)
        # Members that agree in lineage are a family, whatever else they agree in.
        columns = [] if LINEAGE in self.by else [table[name].to_numpy() for name in self.by]
        return join(table[LINEAGE].to_numpy(), columns)

    def _shares(self) -> np.ndarray:
        """Return the shares of those whom no region takes; train has them if nobody else may."""
        shares = check_shares(self.fractions)
        if not self.regions:
            return shares
        shares[[PARTS.index(part) for part in self.regions]] = 0
        return np.asarray(shares / shares.sum() if shares.any() else [1.0, 0.0, 0.0])

    def _check_full(
        self, codes: np.ndarray, shares: np.ndarray, groups: np.ndarray, *, of: str
    ) -> None:
        empty = [part for code, part in enumerate(PARTS) if shares[code] > 0 and code not in codes]
        if empty:
            raise InvalidConfigError(
                f"Expected members for every part of a split of {of} by {', '.join(self.by)}, got "
                f"none for {', '.join(empty)}: equal values and families leave "
                f"{len(np.unique(groups))} groups of members that stay together. Split by other "
                "columns, or give the empty parts a fraction of 0."
            )


def adopt(parts: Mapping[str, ArrayLike], lineage: np.ndarray, *, of: str) -> np.ndarray:
    """Take over parts that somebody chose member by member.

    Parameters
    ----------
    parts
        Member ids of ``train``, ``validation`` and ``test``, or of some of them. Members that none
        of them names are left out.
    lineage
        Per member ``[n]`` the id of its ancestor, int.
    of
        Whose members they are, for errors.

    Returns
    -------
    np.ndarray
        ``[n]`` int8: 0 train, 1 validation, 2 test, -1 none.

    Raises
    ------
    UnknownNameError
        If a part or a member does not exist.
    InvalidConfigError
        If a member is named twice, or relatives are in different parts.
    """
    codes = np.full(len(lineage), NO_PART, dtype=np.int8)
    for part, members in parts.items():
        if part not in PARTS:
            raise unknown_name("part", part, PARTS)
        ids = np.asarray(members).reshape(-1)
        if ids.size == 0:
            continue
        if ids.dtype.kind not in "iu":
            raise InvalidConfigError(
                f"Expected the members of part {part!r} as integers, got {ids.dtype}."
            )
        for wrong in ids[(ids < 0) | (ids >= len(lineage))].tolist():
            raise unknown_name(f"member of {of}", wrong, [f"0 to {len(lineage) - 1}"])
        again = np.concatenate([ids[codes[ids] != NO_PART], _repeated(ids)])
        if len(again):
            raise InvalidConfigError(
                f"Expected each member of {of} in one part, got {len(again)} of them again, "
                f"such as member {again[0]} in {part!r}."
            )
        codes[ids] = PARTS.index(part)
    check_codes(codes, lineage, of=of)
    return codes


def check_codes(codes: np.ndarray, lineage: np.ndarray, *, of: str) -> None:
    """Raise :class:`InvalidConfigError` unless codes are a split that keeps families together.

    Parameters
    ----------
    codes
        Per member ``[n]``: 0 train, 1 validation, 2 test, -1 none.
    lineage
        Per member ``[n]`` the id of its ancestor, int.
    of
        Whose members they are.
    """
    if codes.shape != lineage.shape or not np.isin(codes, range(NO_PART, len(PARTS))).all():
        raise InvalidConfigError(
            f"Expected a code from {NO_PART} to {len(PARTS) - 1} for each of {len(lineage)} "
            f"members of {of}, got {codes.dtype} of shape {codes.shape}."
        )
    used = codes != NO_PART
    pairs = np.unique(np.stack([lineage[used], codes[used]], axis=1), axis=0)
    for ancestor in _repeated(pairs[:, 0]).tolist():
        parts = [PARTS[code] for code in pairs[pairs[:, 0] == ancestor, 1].tolist()]
        raise InvalidConfigError(
            f"Expected relatives in {of} to share a part, got descendants of member {ancestor} in "
            f"{' and '.join(parts)}. Leave all but one part of such a family out of the lists."
        )


def digest(codes: np.ndarray) -> str:
    """Hash a split's codes ``[n]``, int8: SHA-256 in hexadecimal."""
    return hashlib.sha256(codes.astype(np.int8).tobytes()).hexdigest()


def _region(
    table: pl.DataFrame, sql: str, free: np.ndarray, *, of: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return who is in a region and free, and everyone of their families; ``[n]`` bool both."""
    region = np.zeros(len(table), dtype=bool)
    region[rows_where(table, sql, of=of)] = True
    region &= free
    lineage = table[LINEAGE].to_numpy()
    family = np.isin(lineage, lineage[region])
    if not region.any() or not (free & ~family).any():
        which = "all" if region.any() else "none"
        raise InvalidConfigError(
            f"Expected a condition that holds for some members of {of} and leaves others to train "
            f"on, got {sql!r}, which takes {which} of those that are left."
        )
    return region, family


def _repeated(ids: np.ndarray) -> np.ndarray:
    distinct, counts = np.unique(ids, return_counts=True)
    return np.asarray(distinct[counts > 1])
