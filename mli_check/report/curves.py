"""Curves: lines or marks over a common grid, coloured by group."""

from __future__ import annotations

import copy
import json
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mli_check.report import vega
from mli_check.report.libraries import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DATA = "curves"  # the name of the data set in the specification, one row a curve
_HEIGHT = 260
_FEW_POINTS = 15  # curves with no more points than this show them
_DASHED, _SOLID = [6, 4], [1, 0]
_BOLD, _FINE, _FAINT = 0.95, 0.45, 0.06  # opacities; the last is that of what is not picked


def spec(chart: Mapping[str, Any]) -> dict[str, Any]:
    """The Vega-Lite specification of one chart of curves of a results document.

    Every curve is one row and is unrolled against the common grid of x by the chart itself, so that the page holds each
    number once. A gap in a curve (null) stays a gap. Hovering shows the nearest point and lifts its curve; a click on
    the legend isolates a group.
    """
    drawn = copy.deepcopy(_frame(_look(chart)))
    drawn["description"] = _description(chart)
    drawn["data"]["values"] = [
        {"curve": number} | {key: line[key] for key in ("group", "label", "y", "style") if key in line}
        for number, line in enumerate(chart["series"])
    ]
    next(param for param in drawn["params"] if param["name"] == "grid")["value"] = chart["x"]
    return drawn


def size(chart: Mapping[str, Any]) -> str:
    """How many curves a chart shows."""
    count = len(chart["series"])
    return "1 curve" if count == 1 else f"{count} curves"


@dataclass(frozen=True, kw_only=True)
class _Look:
    """All that a chart's frame depends on; charts of a claim's subjects often share it.

    `styles` are those of the groups, a line where the curves of a group differ; `used` are all that occur. Where each
    group has but one line, or one set of points, these are drawn boldly.
    """

    x_label: str
    y_label: str
    x_log: bool
    y_log: bool
    groups: tuple[str, ...]
    styles: tuple[str, ...]
    used: frozenset[str]
    bold_lines: bool
    bold_points: bool
    few_points: bool

    def groups_in(self, style: str) -> list[str]:
        return [group for group, own in zip(self.groups, self.styles, strict=True) if own == style]


def _look(chart: Mapping[str, Any]) -> _Look:
    styles: dict[str, set[str]] = {}
    for line in chart["series"]:
        styles.setdefault(line["group"], set()).add(line.get("style", "line"))
    return _Look(
        x_label=chart["x_label"],
        y_label=chart["y_label"],
        x_log=chart.get("x_scale") == "log",
        y_log=chart.get("y_scale") == "log",
        groups=tuple(styles),
        styles=tuple(next(iter(own)) if len(own) == 1 else "line" for own in styles.values()),
        used=frozenset().union(*styles.values()),
        bold_lines=_one_each(line["group"] for line in chart["series"] if line.get("style") != "points"),
        bold_points=_one_each(line["group"] for line in chart["series"] if line.get("style") == "points"),
        few_points=len(chart["x"]) <= _FEW_POINTS,
    )


def _one_each(groups: Iterable[str]) -> bool:
    return max(Counter(groups).values(), default=0) <= 1


@lru_cache(maxsize=64)  # Altair takes a tenth of a second for each
def _frame(look: _Look) -> dict[str, Any]:
    """The specification without data."""
    alt = load("altair")
    with alt.utils.schemapi.debug_mode(False):  # the tests check the schema; checking it here costs most of the time
        grid = alt.param(name="grid", value=[])
        pick = alt.selection_point(name="pick", fields=["group"], bind="legend")
        layers = alt.layer(*_layers(alt, look, pick), data=alt.InlineData(values=[], name=DATA))
        unrolled = layers.transform_calculate(x="grid").transform_flatten(["x", "y"])
        if look.y_log:
            unrolled = unrolled.transform_calculate(height="datum.y > 0 ? datum.y : null")
        sized = unrolled.properties(width="container", height=_HEIGHT)
        drawn: dict[str, Any] = sized.add_params(grid, pick).to_dict(validate=False)
    del drawn["config"]  # only sizes that are set here anyway
    return drawn


def _layers(alt: Any, look: _Look, pick: Any) -> tuple[Any, Any]:
    """The curves, and over them the points that answer to the pointer."""
    x_scale = alt.Scale(type="log", nice=False) if look.x_log else alt.Scale(zero=False, nice=False)
    y_field, y_scale = ("height:Q", alt.Scale(type="log")) if look.y_log else ("y:Q", alt.Scale(zero=True))
    base = alt.Chart().encode(
        x=alt.X("x:Q", title=look.x_label, scale=x_scale),
        y=alt.Y(y_field, title=look.y_label, scale=y_scale),
        color=alt.Color("group:N", title=None, scale=alt.Scale(domain=look.groups), legend=_legend(alt, look)),
    )
    return _lines(alt, look, base, pick), _points(alt, look, base, pick)


def _lines(alt: Any, look: _Look, base: Any, pick: Any) -> Any:
    hovered = "near.curve && near.curve[0] === datum.curve"
    usual, width = (_BOLD, 2) if look.bold_lines else (_FINE, 1.25)
    lines = base.mark_line(aria=False, strokeJoin="round").encode(
        detail="curve:N",
        opacity=alt.when(hovered).then(alt.value(1)).when(pick).then(alt.value(usual)).otherwise(alt.value(_FAINT)),
        strokeWidth=alt.when(hovered).then(alt.value(2.75)).otherwise(alt.value(width)),
    )
    if "points" in look.used:
        lines = lines.transform_filter("datum.style !== 'points'")
    if "dashed" in look.used:
        dash = alt.when("datum.style === 'dashed'").then(alt.value(_DASHED)).otherwise(alt.value(_SOLID))
        lines = lines.encode(strokeDash=dash)
    return lines


def _points(alt: Any, look: _Look, base: Any, pick: Any) -> Any:
    """One for each number: seen where its curve has few or is drawn in points, else where the pointer is nearest."""
    near = alt.selection_point(
        name="near", fields=["curve", "x"], nearest=True, on="pointerover", clear="pointerout", empty=False
    )
    bold = look.bold_points if "points" in look.used else look.bold_lines
    opacity = alt.when(near).then(alt.value(1))
    if not look.few_points:
        opacity = opacity.when("datum.style !== 'points'").then(alt.value(0))
    opacity = opacity.when(pick).then(alt.value(_BOLD if bold else _FINE)).otherwise(alt.value(_FAINT))
    row = "(datum.datum || datum)"
    shown = {
        "group": f"{row}.group",
        "curve": f"{row}.label",
        look.x_label: vega.number(f"{row}.x"),
        look.y_label: vega.number(f"{row}.y"),
    }
    points = base.mark_point(aria=False, filled=True, size=36)
    return points.encode(opacity=opacity, tooltip=alt.value(vega.tooltip(shown))).add_params(near)


def _legend(alt: Any, look: _Look) -> Any:
    """A legend above the plot, in as many columns as fit its width, with a symbol in the style of each group."""
    symbols = {}
    if dashed := look.groups_in("dashed"):
        symbols["symbolDash"] = {"expr": f"indexof({json.dumps(dashed)}, datum.value) < 0 ? {_SOLID} : {_DASHED}"}
    if points := look.groups_in("points"):
        in_lines = f"indexof({json.dumps(points)}, datum.value) < 0"
        symbols["symbolType"] = {"expr": f"{in_lines} ? 'stroke' : 'circle'"}
        symbols["symbolSize"] = {"expr": f"{in_lines} ? 180 : 24"}
    return alt.Legend(orient="top", direction="horizontal", **vega.legend_room(look.groups), **symbols)


def _description(chart: Mapping[str, Any]) -> str:
    groups = ", ".join(dict.fromkeys(line["group"] for line in chart["series"]))
    return f"{chart['title']}: {size(chart)} of {chart['y_label']} against {chart['x_label']}; {groups}"
