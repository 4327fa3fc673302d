"""Linear forms in unknown exponents, arrays of them, and the linear systems that they make."""

from fractions import Fraction
from math import gcd, lcm

import numpy as np

ZERO = 0
"""Id of the form that is zero: an entry that does not scale."""

ANYTHING = -1
"""Id of an entry that is exactly zero, so that it may be said to scale in any way."""

_Row = dict[int, Fraction]
_Form = tuple[tuple[int, Fraction], ...]


class Forms:
    """Interned linear forms over the rationals, or over GF(2), and equations among them.

    Arrays of form ids have the rank of the tensor they describe, and length 1 along axes on which
    they do not depend.

    Parameters
    ----------
    modulus
        2 to compute with exponents of signs.
    """

    def __init__(self, *, modulus: int | None = None) -> None:
        self._modulus = modulus
        self._table: list[_Form] = [()]
        self._ids: dict[_Form, int] = {(): ZERO}
        self._sums: dict[tuple[int, int], int] = {}
        self._equations: set[_Form] = set()
        self._num_unknowns = 0

    def unknown(self) -> int:
        """Make a new unknown; returns the id of the form that it is."""
        self._num_unknowns += 1
        return self._intern({self._num_unknowns - 1: Fraction(1)})

    # ---- arrays of forms ----------------------------------------------------------------------
    def add(self, *terms: np.ndarray) -> np.ndarray:
        """How a product scales; a factor that is zero makes it zero."""
        total = terms[0]
        for term in terms[1:]:
            total = self._add(total, term)
        return total

    def scale(self, term: np.ndarray, degree: int | Fraction) -> np.ndarray:
        """How a power scales."""
        found, inverse = np.unique(term, return_inverse=True)
        ids = [
            each if each == ANYTHING else self._intern(_times(self._table[each], Fraction(degree)))
            for each in found.tolist()
        ]
        return np.array(ids, dtype=np.int64)[inverse].reshape(term.shape)

    def equal(self, *terms: np.ndarray) -> np.ndarray:
        """How a sum scales: as all its terms that are not zero, which must agree."""
        total = terms[0]
        for term in terms[1:]:
            left, right = np.broadcast_arrays(total, term)
            differ = (left != right) & (left != ANYTHING) & (right != ANYTHING)
            if differ.any():
                pairs = np.unique(np.stack([left[differ], right[differ]]), axis=1)
                for one, two in pairs.T.tolist():
                    self._equate(one, two)
            lower = np.minimum(left, right)
            total = np.where(lower == ANYTHING, np.maximum(left, right), lower)
        return total

    def equal_along(self, term: np.ndarray, dims: list[int]) -> np.ndarray:
        """How a sum over axes scales; the axes stay, with length 1."""
        for dim in dims:
            if term.shape[dim] > 1:
                known = np.where(term == ANYTHING, len(self._table), term)
                least = known.min(axis=dim, keepdims=True)
                least = np.where(least == len(self._table), ANYTHING, least)
                self.equal(term, least)
                term = least
        return term

    def vanish(self, *terms: np.ndarray) -> None:
        """Demand that entries do not scale at all."""
        for term in terms:
            for each in np.unique(term).tolist():
                if each > ZERO:
                    self._equate(each, ZERO)

    def _add(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        for one, two in ((left, right), (right, left)):
            if one.size == 1 and one.item() == ZERO and one.ndim <= two.ndim:
                return two
        base = len(self._table) + 1
        found, inverse = np.unique((left + 1) * base + right + 1, return_inverse=True)
        ids = [self._add_two(int(code) // base - 1, int(code) % base - 1) for code in found]
        shape = np.broadcast_shapes(left.shape, right.shape)
        return np.array(ids, dtype=np.int64)[inverse].reshape(shape)

    def _add_two(self, left: int, right: int) -> int:
        if ANYTHING in (left, right):
            return ANYTHING
        if (left, right) not in self._sums:
            row = dict(self._table[left])
            for unknown, value in self._table[right]:
                row[unknown] = row.get(unknown, Fraction(0)) + value
            self._sums[left, right] = self._intern(row)
        return self._sums[left, right]

    def _equate(self, left: int, right: int) -> None:
        row = dict(self._table[left])
        for unknown, value in self._table[right]:
            row[unknown] = row.get(unknown, Fraction(0)) - value
        self._equations.add(self._form(row))

    def _intern(self, row: _Row) -> int:
        form = self._form(row)
        if form not in self._ids:
            self._ids[form] = len(self._table)
            self._table.append(form)
        return self._ids[form]

    def _form(self, row: _Row) -> _Form:
        return tuple(sorted(_reduced(row, self._modulus).items()))

    # ---- solving ------------------------------------------------------------------------------
    def solutions(self) -> list[list[int]]:
        """Integer basis of what the unknowns may be, one value per unknown, none of them zero."""
        echelon = Echelon(modulus=self._modulus)
        for form in sorted(self._equations):
            echelon.insert(dict(form))
        return echelon.null_space(self._num_unknowns)


class Echelon:
    """Rows in reduced echelon form, over the rationals or modulo 2."""

    def __init__(self, *, modulus: int | None = None) -> None:
        self._modulus = modulus
        self._rows: dict[int, _Row] = {}

    def insert(self, row: _Row) -> bool:
        """Add a row; returns whether it is independent of those before."""
        row = _reduced(row, self._modulus)
        for pivot in [unknown for unknown in row if unknown in self._rows]:
            row = self._minus(row, pivot, self._rows[pivot])
        if not row:
            return False
        pivot = min(row)
        row = _reduced({u: v / row[pivot] for u, v in row.items()}, self._modulus)
        for other, known in self._rows.items():
            if pivot in known:
                self._rows[other] = self._minus(known, pivot, row)
        self._rows[pivot] = row
        return True

    def null_space(self, num_unknowns: int) -> list[list[int]]:
        """Integer basis of the vectors that every row maps to zero."""
        basis = []
        for free in range(num_unknowns):
            if free not in self._rows:
                vector = [Fraction(0)] * num_unknowns
                vector[free] = Fraction(1)
                for pivot, row in self._rows.items():
                    vector[pivot] = -row.get(free, Fraction(0))
                basis.append(self._integers(vector))
        return basis

    def _minus(self, row: _Row, pivot: int, known: _Row) -> _Row:
        factor = row[pivot]
        changed = dict(row)
        for unknown, value in known.items():
            changed[unknown] = changed.get(unknown, Fraction(0)) - factor * value
        return _reduced(changed, self._modulus)

    def _integers(self, vector: list[Fraction]) -> list[int]:
        """Clear denominators and common factors; the first entry that is not zero is positive."""
        if self._modulus is not None:
            return [int(value % self._modulus) for value in vector]
        whole = lcm(*(value.denominator for value in vector))
        integers = [int(value * whole) for value in vector]
        common = gcd(*integers)
        sign = next(-1 if value < 0 else 1 for value in integers if value)
        return [sign * value // common for value in integers]


def _reduced(row: _Row, modulus: int | None) -> _Row:
    if modulus is not None:
        row = {unknown: value % modulus for unknown, value in row.items()}
    return {unknown: value for unknown, value in row.items() if value}


def _times(form: _Form, factor: Fraction) -> _Row:
    return {unknown: factor * value for unknown, value in form}
