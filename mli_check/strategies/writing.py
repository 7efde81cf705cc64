"""Layouts as code: every block is fitted to the shape that it meets, and written as plain PyTorch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import assert_never

from mli_check.strategies.layouts import Block, Chain, Concatenation, Flat, Layout, Skip, Tied, Unit
from mli_check.strategies.sketch import Shape, Sketch
from mli_check.strategies.units import write_unit

_POOLS = {  # the layer, and the smallest side that it leaves at least 2 pixels of
    "max": ("nn.MaxPool2d(2)", 4),
    "avg": ("nn.AvgPool2d(2)", 4),
    "max_padded": ("nn.MaxPool2d(3, stride=1, padding=1)", 2),
    "avg_padded": ("nn.AvgPool2d(3, stride=1, padding=1)", 2),
    "adaptive_max": ("nn.AdaptiveMaxPool2d(3)", 4),
    "adaptive_avg": ("nn.AdaptiveAvgPool2d(3)", 4),
}
_FLATS = {  # in templates, as of units
    "flatten": "{y} = torch.flatten({x}, 1)",
    "reshape": "{y} = {x}.reshape({x}.shape[0], -1)",
    "mean": "{y} = {x}.mean(dim=(2, 3))",
    "adaptive": "{y} = F.adaptive_avg_pool2d({x}, 1).flatten(1)",
}


def write(layout: Layout) -> tuple[str, frozenset[str]]:
    """The code that defines the layout's `class Model`, and the network's traits."""
    sketch = Sketch(layout.shape)
    sketch.traits.add("image" if len(layout.shape) > 1 else "vector")
    for block in layout.blocks:
        _write_block(sketch, block)
    _write_flat(sketch, layout.flat)
    if layout.classes:
        bias = "" if layout.biased else ", bias=False"
        name = sketch.layer("fc", f"nn.Linear({sketch.shape[0]}, {layout.classes}{bias})")
        sketch.traits |= {"bias"} if layout.biased else set()
        sketch.step(f"{{y}} = {name}({{x}})")
    return sketch.definition(layout.shape), frozenset(sketch.traits)


def _write_block(sketch: Sketch, block: Block) -> None:
    match block:
        case Chain(unit, pool):
            _write_chain(sketch, unit)
            _write_pool(sketch, pool)
        case Skip():
            _write_skip(sketch, block)
        case Concatenation(units, keep):
            _write_concatenation(sketch, units, keep)
        case Tied(unit, twins):
            _write_tied(sketch, unit, twins)
        case Flat(kind, unit):
            _write_flat(sketch, kind)
            _write_chain(sketch, unit)
        case _:
            assert_never(block)


def _write_chain(sketch: Sketch, unit: Unit) -> None:
    sketch.shape = _run(sketch, _own_width(unit, sketch), "x", "x")


def _write_skip(sketch: Sketch, block: Skip) -> None:
    """y = units(x), x = projection(x) or x itself, x = x + y."""
    first, *rest = [replace(unit, padded=True) for unit in block.units]
    if block.projection is None:
        first = replace(first, strided=False)
    units = [first, *(replace(unit, strided=False) for unit in rest)]
    width = units[-1].width if block.projection else sketch.shape[0]
    units[-1] = replace(units[-1], width=width)
    shape, source, last = sketch.shape, "x", tuple[str, ...]()
    for unit in units:
        sketch.step(*last, y="y")
        written = write_unit(sketch, unit, shape)
        sketch.step(*written.steps, x=source, y="y")
        shape, source, last = written.shape, "y", written.last
    if not block.late:
        sketch.step(*last, y="y")
    if block.projection is not None:
        plain = replace(block.projection, activation=None, first=False, kernel=1, groups="one", width=width)
        _run(sketch, replace(plain, strided=first.strided), "x", "x", "shortcut")
        sketch.traits.add("projection")
    if block.inplace and (block.late or not last):  # autograd needs what some activations have put out
        sketch.step("y += x", "x = y")
    else:
        sketch.step("x = x + y")
    if block.late:
        sketch.step(*last)
    sketch.shape = shape
    sketch.traits.add("skip")


def _write_concatenation(sketch: Sketch, units: tuple[Unit, ...], keep: bool) -> None:
    branches, channels = (["x"], sketch.shape[0]) if keep else ([], 0)
    for unit in units[len(branches) :]:
        branch = "abc"[len(branches)]
        wide = _own_width(replace(unit, padded=True, strided=False), sketch)
        channels += _run(sketch, wide, "x", branch)[0]
        branches.append(branch)
    sketch.step(f"x = torch.cat([{', '.join(branches)}], dim=1)")
    sketch.shape = (channels, *sketch.shape[1:])
    sketch.traits.add("concatenation")


def _write_tied(sketch: Sketch, unit: Unit, twins: bool) -> None:
    same = replace(unit, width=sketch.shape[0], padded=True, strided=False)
    one = write_unit(sketch, same, sketch.shape)
    other = write_unit(sketch, same, sketch.shape) if twins else one
    if twins:
        pairs = zip(one.maps, other.maps, strict=True)
        sketch.layers += [f"{other_map}.weight = {one_map}.weight" for one_map, other_map in pairs]
    sketch.step(*one.steps, *one.last)
    sketch.step(*other.steps, *other.last)
    sketch.traits.add("tied")


def _write_pool(sketch: Sketch, kind: str | None) -> None:
    if kind is None or len(sketch.shape) == 1:
        return
    layer, smallest = _POOLS[kind]
    if min(sketch.shape[1:]) >= smallest:
        sketch.step(f"{{y}} = {sketch.layer('pool', layer)}({{x}})")
        sides = sketch.shape[1:]
        if kind.startswith("adaptive"):
            sides = (3, 3)
        elif not kind.endswith("padded"):
            sides = tuple(side // 2 for side in sides)
        sketch.shape = (sketch.shape[0], *sides)
        sketch.traits.add("pooling")


def _write_flat(sketch: Sketch, kind: str) -> None:
    if len(sketch.shape) > 1:
        sketch.step(_FLATS[kind])
        whole = kind in ("flatten", "reshape")
        sketch.shape = (math.prod(sketch.shape) if whole else sketch.shape[0],)
        sketch.traits |= set() if whole else {"pooling"}


def _run(sketch: Sketch, unit: Unit, x: str, y: str, stem: str = "") -> Shape:
    """Writes a unit and its steps from one variable to another, and returns the shape that the other has then."""
    written = write_unit(sketch, unit, sketch.shape, stem)
    sketch.step(*written.steps, *written.last, x=x, y=y)
    return written.shape


def _own_width(unit: Unit, sketch: Sketch) -> Unit:
    """A depthwise unit keeps the number of channels, if that is not too small to be generic."""
    channels = sketch.shape[0]
    return replace(unit, width=channels) if unit.groups == "all" and len(sketch.shape) > 1 and channels >= 4 else unit
