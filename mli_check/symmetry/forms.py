"""Log-scales as linear forms, and the equations between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction


class Form:
    """A linear form in the log-scales of a network's tensors, with rational coefficients: {tensor: coefficient}.

    It is the log-scale of a value inside the network: where tensor t is multiplied by a**s_t, the value is multiplied
    by a**form(s). Immutable; a form without terms belongs to what no factor can reach, such as the input.
    """

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[str, Fraction | int] | None = None) -> None:
        self.terms: dict[str, Fraction] = {name: Fraction(k) for name, k in (terms or {}).items() if k != 0}

    @classmethod
    def of(cls, tensor: str) -> Form:
        """The log-scale of one tensor."""
        return cls({tensor: 1})

    def __add__(self, other: Form) -> Form:
        if not other.terms:
            return self
        terms = dict(self.terms)
        for name, k in other.terms.items():
            terms[name] = terms.get(name, Fraction(0)) + k
        return Form(terms)

    def __sub__(self, other: Form) -> Form:
        return self + other * -1

    def __mul__(self, factor: Fraction | int) -> Form:
        return self if factor == 1 else Form({name: k * factor for name, k in self.terms.items()})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Form) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __repr__(self) -> str:
        return f"Form({', '.join(f'{name}: {k}' for name, k in self.terms.items())})"

    def at(self, logs: Mapping[str, float]) -> float:
        """The form's value; tensors that `logs` does not name have log-scale 0."""
        return float(sum(float(k) * logs.get(name, 0.0) for name, k in self.terms.items()))

    def rational_at(self, logs: Mapping[str, Fraction]) -> Fraction:
        """The form's value over the rationals."""
        return sum((k * logs.get(name, 0) for name, k in self.terms.items()), Fraction(0))


@dataclass(frozen=True)
class Equation:
    """Two log-scales that have to be equal, with the reason in the model's own terms.

    `what` names the side `left`, `like` the side `right`; `where` is the module in which they meet.
    """

    left: Form
    right: Form
    what: str
    like: str
    where: str = ""

    @property
    def form(self) -> Form:
        """left - right, which has to vanish."""
        return self.left - self.right

    def __str__(self) -> str:
        place = f" (in {self.where})" if self.where else ""
        return f"{self.what} must scale as {self.like}{place}"


@dataclass(frozen=True)
class Violation:
    """An equation that given factors break: `wanted` and `got` are what they multiply its two sides by."""

    equation: Equation
    wanted: float
    got: float
    by: str = "these factors"

    def __str__(self) -> str:
        verb = "scales" if self.by.endswith("theta") else "scale"
        place = f"; in {self.equation.where}" if self.equation.where else ""
        wanted, got = shown(self.wanted), shown(self.got)
        what, like = self.equation.what, self.equation.like
        return f"{what} must scale as {wanted} here, {self.by} {verb} it as {got} (like {like}{place})"


def shown(factor: float) -> str:
    """A factor as people write it: 1/8, 3, 0.7071."""
    near = Fraction(factor).limit_denominator(1 << 20)
    if near and abs(float(near) - factor) <= 1e-12 * factor and min(near.numerator, near.denominator) == 1:
        return str(near)
    return f"{factor:.4g}"
