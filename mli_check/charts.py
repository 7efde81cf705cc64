"""Charts as claims make them: curves over a common grid, and surfaces over a plane; JSON-ready for the results.

What a chart leaves at its default is left out of its record, so that records written before a field existed still hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mli_check.errors import OptionError

STYLES = ("line", "dashed", "points")
SCALES = ("linear", "log")
SURFACE = "surface"


@dataclass(frozen=True)
class Series:
    """One line of a chart; lines of a `group` share their colour. `y` has one value a point of the chart's `x`.

    `style` is "line", "dashed" or "points", which are marks without a line. OptionError for another one.
    """

    group: str
    label: str
    y: Iterable[float]
    style: str = "line"

    def __post_init__(self) -> None:
        _one_of("style", self.style, STYLES)
        object.__setattr__(self, "y", _floats(self.y))

    def as_record(self) -> dict[str, Any]:
        """JSON-ready; values keep six significant digits, NaN and infinities become null."""
        styled = {} if self.style == "line" else {"style": self.style}
        return {"group": self.group, "label": self.label, "y": _rounded(self.y), **styled}


@dataclass(frozen=True)
class Chart:
    """Curves over a common grid `x`; `caption`, one to three sentences, says what the paper shows and what we see.

    Each axis is "linear" or "log". A log axis of x needs positive numbers; on one of y, what is not positive stays in
    the results and is not drawn. OptionError for another scale and for a series whose length is not that of `x`.
    """

    title: str
    x_label: str
    y_label: str
    x: Iterable[float]
    series: Sequence[Series]
    caption: str = ""
    x_scale: str = "linear"
    y_scale: str = "linear"

    def __post_init__(self) -> None:
        _one_of("x_scale", self.x_scale, SCALES)
        _one_of("y_scale", self.y_scale, SCALES)
        grid = _floats(self.x)
        object.__setattr__(self, "x", grid)
        for line in self.series:
            _same_length(f"series {line.label!r} of chart {self.title!r}", line.y, grid)
        others = [value for value in grid if not value > 0]
        if self.x_scale == "log" and others:
            raise OptionError(
                f"chart {self.title!r} has {others[0]:g} on the log axis of x; expected positive numbers: "
                f"leave the others out, or choose x_scale='linear'"
            )

    def as_record(self) -> dict[str, Any]:
        """JSON-ready; values keep six significant digits, NaN and infinities become null."""
        optional = {"caption": self.caption, "x_scale": self.x_scale, "y_scale": self.y_scale}
        return {
            "title": self.title,
            "x_label": self.x_label,
            "y_label": self.y_label,
            "x": _rounded(self.x),
            "series": [line.as_record() for line in self.series],
            **{name: value for name, value in optional.items() if value not in ("", "linear")},
        }


@dataclass(frozen=True)
class SurfaceLine:
    """A line drawn over a surface, through the points (x, y). OptionError where there are not as many x as y."""

    label: str
    x: Iterable[float]
    y: Iterable[float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", _floats(self.x))
        object.__setattr__(self, "y", _floats(self.y))
        _same_length(f"y of line {self.label!r}", self.y, self.x)

    def as_record(self) -> dict[str, Any]:
        """JSON-ready; coordinates keep six significant digits."""
        return {"label": self.label, "x": _rounded(self.x), "y": _rounded(self.y)}


@dataclass(frozen=True)
class SurfaceChart:
    """A value over a grid: `values[i][j]` belongs to `y[i]` and `x[j]`, so that its shape is (len(y), len(x)).

    `lines` are drawn over it. `x` and `y` increase; their steps may differ. OptionError for a matrix of another shape,
    and for a grid that does not increase or has fewer than two places.
    """

    title: str
    x_label: str
    y_label: str
    value_label: str
    x: Iterable[float]
    y: Iterable[float]
    values: Iterable[Iterable[float]]
    lines: Sequence[SurfaceLine] = ()
    caption: str = ""

    def __post_init__(self) -> None:
        x, y, values = _floats(self.x), _floats(self.y), tuple(map(_floats, self.values))
        for name, grid in (("x", x), ("y", y)):
            if len(grid) < 2 or not all(-math.inf < left < right < math.inf for left, right in pairwise(grid)):
                raise OptionError(f"{name} of {self.title!r} is {_shown(grid)}; expected at least two, increasing")
        if [len(row) for row in values] != [len(x)] * len(y):
            widths = " or ".join(str(width) for width in sorted({len(row) for row in values})) or "0"
            raise OptionError(
                f"values of {self.title!r} have the shape ({len(values)}, {widths}); "
                f"expected (len(y), len(x)) = ({len(y)}, {len(x)})"
            )
        for name, value in (("x", x), ("y", y), ("values", values)):
            object.__setattr__(self, name, value)

    def as_record(self) -> dict[str, Any]:
        """JSON-ready; numbers keep six significant digits, NaN and infinities become null."""
        return {
            "kind": SURFACE,
            "title": self.title,
            "x_label": self.x_label,
            "y_label": self.y_label,
            "value_label": self.value_label,
            "x": _rounded(self.x),
            "y": _rounded(self.y),
            "values": [_rounded(row) for row in self.values],
            "lines": [line.as_record() for line in self.lines],
            **({"caption": self.caption} if self.caption else {}),
        }


def _one_of(what: str, got: str, known: Sequence[str]) -> None:
    if got not in known:
        raise OptionError(f"{what} is {got!r}; expected one of {', '.join(map(repr, known))}")


def _same_length(what: str, got: Iterable[float], grid: Iterable[float]) -> None:
    number, expected = len(_floats(got)), len(_floats(grid))
    if number != expected:
        raise OptionError(f"{what} has {number} values; expected {expected}, one for each x")


def _shown(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in values[:6]) + (", ...]" if len(values) > 6 else "]")


def _floats(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _rounded(values: Iterable[float]) -> list[float | None]:
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]
