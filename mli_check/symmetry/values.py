"""What is known of a tensor inside the network: its log-scale, and the constants that it carries beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mli_check.symmetry.forms import Equation, Form

Piece = tuple[int, Form | None]  # a length along a dimension, and the log-scale there; None for zeros, which take any


@dataclass(frozen=True)
class Offset:
    """A constant beside the scaled value, along `dims` the same everywhere; it vanishes where `equation` holds.

    x + b becomes a**s (x + b) + (a**s_b - a**s) b: an operation that takes out what is constant along its own
    dimensions (batch statistics, softmax) takes out the equation s_b = s with it; any other needs the equation.
    """

    equation: Equation
    dims: frozenset[int]
    parted: bool = False  # beside a value in pieces: from piece to piece it varies, as long as there are pieces

    def moved(self, dims: Iterable[int]) -> Offset:
        """The same offset, constant along other dimensions."""
        return replace(self, dims=frozenset(dims))


@dataclass(frozen=True)
class Value:
    """A tensor of the network: under a group element it becomes its scaled self plus its offsets.

    `pieces` lie one after the other along dimension `dim` and have log-scales of their own: a concatenation. There is
    one piece, with `dim` None, where the whole tensor has one scale. Along the dimensions `constant` the entries are
    all the same, whatever the data, as after broadcasting. `sources` are the weights that scaled it last.
    """

    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
    text: str
    dim: int | None = None
    constant: frozenset[int] = frozenset()
    offsets: tuple[Offset, ...] = ()
    sources: frozenset[str] = frozenset()
    tensor: str | None = None  # the parameter that it is, bare or reshaped

    @classmethod
    def whole(cls, shape: Iterable[int], scale: Form | None, text: str, sources: frozenset[str] = frozenset()) -> Value:
        """A value of one scale; None for zeros."""
        return cls(tuple(shape), ((0, scale),), text, sources=sources)

    @property
    def invariant(self) -> bool:
        """Whether no factor reaches it: the input, constants, and what operations of scale zero return."""
        return not self.offsets and not any(scale for _, scale in self.pieces)

    @property
    def zero(self) -> bool:
        """Whether it holds zeros only, which every factor leaves alone."""
        return all(scale is None for _, scale in self.pieces)

    def constant_dims(self) -> frozenset[int]:
        """All dimensions along which the value is constant, those of size 1 included."""
        return self.constant | {dim for dim, size in enumerate(self.shape) if size == 1}

    def replaced(self, **changes: object) -> Value:
        """A copy with other fields."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def stretch(self, start: int, stop: int) -> tuple[Piece, ...]:
        """The pieces between two positions along `dim`; one piece where the whole tensor has one scale."""
        if self.dim is None:
            return ((stop - start, self.pieces[0][1]),)
        found, at = [], 0
        for length, scale in self.pieces:
            inside = min(at + length, stop) - max(at, start)
            if inside > 0:
                found.append((inside, scale))
            at += length
        return tuple(found)

    def plus(self, form: Form, sources: frozenset[str] | None = None) -> Value:
        """The value multiplied by something of log-scale `form`."""
        pieces = tuple((length, None if scale is None else scale + form) for length, scale in self.pieces)
        return replace(self, pieces=pieces, tensor=None, sources=self.sources if sources is None else sources)


def along(offset: Offset, value: Value, dims: Iterable[int]) -> bool:
    """Whether an offset of a value is constant along all of `dims`."""
    kept = offset.dims - {value.dim} if offset.parted else offset.dims
    return all(dim in kept or value.shape[dim] == 1 for dim in dims)
