"""Layouts: what a drawn network is made of, before shapes and names are settled.

A layout is free of shapes, so that hypothesis can drop or simplify any part of it and the rest still makes a network:
what has no room where it stands (a stride on 2 x 2 pixels) is left out when the layout is written as code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import torch
from hypothesis import strategies as st

HOMOGENEOUS: tuple[str | None, ...] = (None, "relu", "leaky_relu", "prelu", "abs", "maxout")
"""The activations that can be drawn: all positively homogeneous ones of torch, and None."""
NORMS: tuple[str | None, ...] = (None, "batch", "layer", "group")
FORMS = ("function", "module", "inplace")
GROUPS = ("one", "one", "some", "all")
POOLS = ("max", "avg", "max_padded", "avg_padded", "adaptive_max", "adaptive_avg")
FLATS = ("flatten", "mean", "reshape", "adaptive")  # a global maximum hides the negative side of what it is fed
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

_PLANS = ((False, False), (True, True), (False, True))  # of a size: hypothesis prefers what takes fewer choices

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Unit:
    """A linear layer, a convolution on images, with the norm and the activation after it, or before with `first`."""

    activation: str | None
    norm: str | None
    biased: bool
    weighted: bool  # the norm has weights
    shifted: bool  # and shifts
    width: int
    form: str
    first: bool
    kernel: int
    padded: bool
    strided: bool
    groups: str


@dataclass(frozen=True)
class Chain:
    """A unit after what is there, and a pooling, if any and if that is an image."""

    unit: Unit
    pool: str | None


@dataclass(frozen=True)
class Skip:
    """The sum of one or two units and of what they are fed, which may pass a projection of its own.

    With `late` the last unit's activation comes after the sum, with `inplace` the sum overwrites the units' output.
    """

    units: tuple[Unit, ...]
    projection: Unit | None
    late: bool
    inplace: bool


@dataclass(frozen=True)
class Concatenation:
    """Two or three units side by side; with `keep` the first of them gives way to what they are fed."""

    units: tuple[Unit, ...]
    keep: bool


@dataclass(frozen=True)
class Tied:
    """One unit called twice, or with `twins` two units that share their weights and nothing else."""

    unit: Unit
    twins: bool


@dataclass(frozen=True)
class Flat:
    """An image becomes a vector, which a unit shortens."""

    kind: str
    unit: Unit


Block = Chain | Skip | Concatenation | Tied | Flat


@dataclass(frozen=True)
class Layout:
    """A whole network: blocks, flattening if an image is left, and a linear layer of logits unless `classes` is 0."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    blocks: tuple[Block, ...]
    flat: str
    classes: int
    biased: bool
    seed: int


@dataclass(frozen=True)
class Options:
    """What `networks` was asked for, checked and ordered from plain to elaborate."""

    dtypes: tuple[torch.dtype, ...]
    norms: tuple[str | None, ...]
    biases: tuple[bool, ...]
    activations: tuple[str | None, ...]
    skips: bool
    concatenations: bool
    tied: bool
    max_blocks: int


@lru_cache
def layouts(options: Options) -> st.SearchStrategy[Layout]:
    """Layouts under the options, a third each without any bias, with all and with some, where they allow it."""
    plans = [plan for plan in _PLANS if set(plan) <= set(options.biases)]
    return st.one_of(*[_layouts(options, plan) for plan in plans])


def _layouts(options: Options, biases: tuple[bool, bool]) -> st.SearchStrategy[Layout]:
    units, sides = _units(options, biases), st.integers(5, 8)
    vectors, images = st.tuples(sides), st.tuples(st.sampled_from((3, 1, 4)), sides, sides)
    chains = st.builds(Chain, units, st.sampled_from((*[None] * 5, *POOLS)))
    later = _evenly([chains, st.builds(Flat, st.sampled_from(FLATS), units), *_more(options, units) * 3])
    return st.builds(
        Layout,
        dtype=st.sampled_from(options.dtypes),
        blocks=st.builds(_after_stem, chains, st.lists(later, max_size=options.max_blocks - 1)),
        flat=st.sampled_from(FLATS),
        classes=st.sampled_from((3, 5, 4, 6, 0)),
        biased=st.sampled_from(biases),
        seed=st.integers(0, 999),
        shape=_evenly([vectors, images, images]),
    )


def _after_stem(stem: Block, later: list[Block]) -> tuple[Block, ...]:
    return (stem, *later)


def _evenly(choices: list[st.SearchStrategy[Choice]]) -> st.SearchStrategy[Choice]:
    """One of them, each as often as it is listed: `one_of` drops repetitions and levels nested alternatives."""
    return st.sampled_from(choices).flatmap(lambda choice: choice)


def _units(options: Options, biases: tuple[bool, bool]) -> st.SearchStrategy[Unit]:
    return st.builds(
        Unit,
        activation=st.sampled_from(options.activations),
        norm=st.sampled_from(options.norms),
        biased=st.sampled_from(biases),
        weighted=st.sampled_from((True, True, all(biases))),
        shifted=st.sampled_from(biases),
        width=st.sampled_from((4, 6, 8, 5)),
        form=st.sampled_from(FORMS),
        first=st.sampled_from((False, False, True)),
        kernel=st.sampled_from((3, 1)),
        padded=st.booleans(),
        strided=st.sampled_from((False, False, True)),
        groups=st.sampled_from(GROUPS),
    )


def _more(options: Options, units: st.SearchStrategy[Unit]) -> list[st.SearchStrategy[Block]]:
    """The blocks that are more than a chain."""
    one_or_two = st.tuples(units) | st.tuples(units, units)
    two_or_three = st.tuples(units, units) | st.tuples(units, units, units)
    kinds: list[st.SearchStrategy[Block]] = []
    if options.skips:
        kinds.append(st.builds(Skip, one_or_two, st.none() | units, late=st.booleans(), inplace=st.booleans()))
    if options.concatenations:
        kinds.append(st.builds(Concatenation, two_or_three, keep=st.booleans()))
    if options.tied:
        kinds.append(st.builds(Tied, units, twins=st.booleans()))
    return kinds
