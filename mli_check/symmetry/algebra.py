"""Exact linear algebra over the rationals on equations between log-scales; the elimination itself is sympy's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

from sympy import QQ  # type: ignore[import-untyped]
from sympy.polys.matrices import DomainMatrix  # type: ignore[import-untyped]

from mli_check.symmetry.forms import Equation, Form

Vector = dict[str, Fraction]
TOLERANCE = 1e-9  # of the logarithms that meet in an equation: factors that are no powers of two are rounded


def _eliminated(rows: Sequence[Mapping[int, Fraction]], width: int) -> tuple[list[dict[int, Fraction]], list[int]]:
    """The reduced row echelon form, zero rows left out, and its pivot columns."""
    if not rows or not width:
        return [], []
    entries = {
        index: {column: QQ(k.numerator, k.denominator) for column, k in row.items()}
        for index, row in enumerate(rows)
        if row
    }
    reduced, pivots = DomainMatrix(entries, (len(rows), width), QQ).rref()
    found: list[dict[int, Fraction]] = [{} for _ in pivots]
    for (row, column), k in reduced.to_dok().items():
        found[row][column] = Fraction(int(k.numerator), int(k.denominator))
    return found, list(pivots)


def null_space(equations: Sequence[Equation], columns: Sequence[str]) -> list[Vector]:
    """A basis of all log-scales that satisfy the equations, in whole numbers without a common divisor.

    Earlier columns are expressed by later ones: every vector belongs to one tensor that is free, as late in `columns`
    as can be, the last one first.
    """
    place = {name: index for index, name in enumerate(columns)}
    rows = [{place[name]: k for name, k in equation.form.terms.items()} for equation in equations]
    reduced, pivots = _eliminated(rows, len(columns))
    basis = []
    for free in sorted(set(range(len(columns))) - set(pivots), reverse=True):
        vector = {columns[free]: Fraction(1)}
        for row, pivot in zip(reduced, pivots, strict=True):
            if free in row:
                vector[columns[pivot]] = -row[free]
        basis.append(whole(vector))
    return basis


def whole(vector: Vector, forms: Sequence[Form] = ()) -> Vector:
    """The shortest multiple in whole numbers at which `forms` are whole numbers too."""
    values = [*vector.values(), *(form.rational_at(vector) for form in forms)]
    scale = lcm(*(k.denominator for k in values))
    divisor = gcd(*(int(k * scale) for k in values))
    return {name: k * scale / divisor for name, k in vector.items()}


def independent(equations: Sequence[Equation]) -> list[Equation]:
    """The first equations that say everything: none of them follows from the others."""
    names = sorted({name for equation in equations for name in equation.form.terms})
    place = {name: index for index, name in enumerate(names)}
    columns: list[dict[int, Fraction]] = [{} for _ in names]  # the transpose, whose pivots are independent rows
    for index, equation in enumerate(equations):
        for name, k in equation.form.terms.items():
            columns[place[name]][index] = k
    _, pivots = _eliminated(columns, len(equations))
    return [equations[index] for index in pivots]


@dataclass(frozen=True)
class Solution:
    """Log-scales that satisfy the equations, or the equations that contradict one another."""

    logs: dict[str, float]
    contradictions: tuple[Equation, ...] = ()


def solve(equations: Sequence[Equation], known: Mapping[str, float], unknown: Sequence[str]) -> Solution:
    """Log-scales of `unknown` for given ones of `known`; what the equations leave free stays 0.

    Earlier names of `unknown` are expressed by later ones, so the last are those that stay 0. Tensors in neither have
    log-scale 0.
    """
    fixed = list(known)
    columns = [*unknown, *fixed]
    place = {name: index for index, name in enumerate(columns)}
    width = len(columns)
    rows = []
    for index, equation in enumerate(equations):
        row = {place[name]: k for name, k in equation.form.terms.items() if name in place}
        rows.append({**row, width + index: Fraction(1)})
    reduced, pivots = _eliminated(rows, width + len(equations))
    logs = dict.fromkeys(unknown, 0.0) | dict(known)
    for row, pivot in zip(reduced, pivots, strict=True):
        terms = {c: float(k) * known[columns[c]] for c, k in row.items() if len(unknown) <= c < width}
        total = sum(terms.values())
        if pivot < len(unknown):
            logs[columns[pivot]] = -total if total else 0.0
        elif abs(total) > TOLERANCE * max(1.0, *map(abs, terms.values())) if terms else False:
            used = tuple(equations[c - width] for c in row if c >= width)
            return Solution({}, used)
    return Solution(logs)
