"""Surfaces: a value over a plane as coloured cells, one for each place that was evaluated, with lines over them.

The colours go in even steps between round numbers, so that the edges between them read as contours do; nothing is
interpolated. They are viridis: even to the eye, and darker means less in print as well.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mli_check.report import vega
from mli_check.report.libraries import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DATA = "surface"  # the name of the data set in the specification, one row for each y
_HEIGHT = 300
_MOST_STEPS = 10
_DASHES = ((1, 0), (7, 4), (2, 3), (9, 3, 2, 3))  # of the lines, in order


def spec(chart: Mapping[str, Any]) -> dict[str, Any]:
    """The Vega-Lite specification of one surface of a results document.

    Every y is one row, unrolled against the common grid of x by the chart itself, so that the page holds each value
    once. Cells reach half-way to their neighbours. A missing value (null) is a cross. Hovering names the place.
    """
    alt = load("altair")
    with alt.utils.schemapi.debug_mode(False):  # as for curves
        layers = [*_cells(alt, chart), *(_lines(alt, chart) if chart["lines"] else ())]
        layered = alt.layer(*layers, data=alt.InlineData(values=_rows(chart), name=DATA))
        sized = layered.properties(width="container", height=_HEIGHT, description=_description(chart))
        grid = alt.param(name="grid", value=chart["x"])
        edges = alt.param(name="edges", value=_edges(chart["x"]))
        drawn: dict[str, Any] = sized.add_params(grid, edges).to_dict(validate=False)
    del drawn["config"]
    return drawn


def size(chart: Mapping[str, Any]) -> str:
    """How much a surface shows."""
    return f"a surface of {len(chart['x'])} × {len(chart['y'])} values"


def steps(values: Sequence[Sequence[float | None]]) -> tuple[float, float, int]:
    """Two round numbers around all values, and the number of equal steps between them, of 1, 2, 2.5 or 5 units."""
    known = [value for row in values for value in row if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    unit = 10.0 ** math.floor(math.log10((high - low) / _MOST_STEPS))
    for factor in (1, 2, 2.5, 5, 10, 20):
        step = factor * unit
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)  # 0.3 / 0.1 is below 3
        if last - first <= _MOST_STEPS:
            break
    return float(f"{first * step:.9g}"), float(f"{last * step:.9g}"), last - first


def _rows(chart: Mapping[str, Any]) -> list[dict[str, Any]]:
    edges = pairwise(_edges(chart["y"]))
    return [
        {"y": y, "low": low, "high": high, "value": row}
        for y, (low, high), row in zip(chart["y"], edges, chart["values"], strict=True)
    ]


def _edges(grid: Sequence[float]) -> list[float]:
    """The borders of cells around the places of a grid: half-way between two, and as far out at the ends."""
    inner = [(left + right) / 2 for left, right in pairwise(grid)]
    around = [2 * grid[0] - inner[0], *inner, 2 * grid[-1] - inner[-1]]
    return [float(f"{edge:.9g}") for edge in around]


def _cells(alt: Any, chart: Mapping[str, Any]) -> tuple[Any, Any]:
    """The coloured cells, and crosses where there is no value."""
    unrolled = alt.Chart().transform_calculate(x="grid", left="slice(edges, 0, -1)", right="slice(edges, 1)")
    unrolled = unrolled.transform_flatten(["x", "left", "right", "value"])
    known, missing = map(unrolled.transform_filter, ("isValid(datum.value)", "!isValid(datum.value)"))
    places = {chart["x_label"]: "datum.x", chart["y_label"]: "datum.y", chart["value_label"]: "datum.value"}
    tip = alt.value(vega.tooltip({title: vega.number(field) for title, field in places.items()}))
    x_scale, y_scale = (_reaching(alt, _edges(chart[name])) for name in ("x", "y"))
    colours, bar, plain = *_colours(alt, chart), alt.Axis(grid=False)
    seams = {"expr": "scale('color', datum.value)"}  # without a stroke the page shows through between cells
    cells = known.mark_rect(aria=False, stroke=seams, strokeWidth=0.7).encode(
        x=alt.X("left:Q", title=chart["x_label"], scale=x_scale, axis=plain),
        x2="right:Q",
        y=alt.Y("low:Q", title=chart["y_label"], scale=y_scale, axis=plain),
        y2="high:Q",
        color=alt.Color("value:Q", title=chart["value_label"], scale=colours, legend=bar),
        tooltip=tip,
    )
    crosses = missing.mark_text(aria=False, text="×", color="var(--ink-soft)")
    return cells, crosses.encode(x="x:Q", y="y:Q", tooltip=tip)


def _reaching(alt: Any, edges: Sequence[float]) -> Any:
    return alt.Scale(domain=[edges[0], edges[-1]], nice=False)


def _colours(alt: Any, chart: Mapping[str, Any]) -> tuple[Any, Any]:
    """The scale of the colours, and its bar below the plot."""
    low, high, count = steps(chart["values"])
    scheme = alt.SchemeParams(name="viridis", count=count)
    length = {"expr": f"max(120, min(360, {vega.ROOM} - 80))"}
    labels = {"format": ".4~g", "labelOverlap": True, "labelSeparation": 6}
    bar = alt.Legend(type="gradient", orient="bottom", direction="horizontal", gradientLength=length, **labels)
    return alt.Scale(type="quantize", domain=[low, high], scheme=scheme), bar


def _lines(alt: Any, chart: Mapping[str, Any]) -> tuple[Any, Any]:
    """The lines, light on a dark band so that they show on every colour."""
    rows = [{"line": number, **line} for number, line in enumerate(chart["lines"])]
    labels = list(dict.fromkeys(row["label"] for row in rows))
    numbered = alt.Chart(alt.InlineData(values=rows, name="lines")).transform_calculate(at="sequence(length(datum.x))")
    base = numbered.transform_flatten(["x", "y", "at"]).encode(x="x:Q", y="y:Q", detail="line:N", order="at:Q")
    symbol = {"symbolStrokeColor": "var(--ink)", "symbolStrokeWidth": 2, "symbolSize": 500}
    legend = alt.Legend(title=None, **symbol, **vega.legend_room(labels))
    dashes = alt.Scale(domain=labels, range=[_DASHES[number % len(_DASHES)] for number in range(len(labels))])
    mark = {"aria": False, "clip": True, "tooltip": None}
    band = base.mark_line(**mark, stroke="#000", strokeWidth=4, opacity=0.55)
    line = base.mark_line(**mark, stroke="#fff", strokeWidth=1.75)
    return band, line.encode(strokeDash=alt.StrokeDash("label:N", scale=dashes, legend=legend))


def _description(chart: Mapping[str, Any]) -> str:
    known = [value for row in chart["values"] for value in row if value is not None]
    span = f"from {min(known):.4g} to {max(known):.4g}" if known else "none of them known"
    over = f"{chart['value_label']} over {chart['x_label']} and {chart['y_label']}"
    lines = "".join(f", {line['label']}" for line in chart["lines"])
    return f"{chart['title']}: {size(chart)} of {over}, {span}" + (f"; lines{lines[1:]}" if lines else "")
