"""Charts: a chart of the results becomes a Vega-Lite specification that carries its own data."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mli_check.report.libraries import load

if TYPE_CHECKING:
    from collections.abc import Mapping

DATA = "curves"  # the name of the data set in the specification, one row a curve
_HEIGHT = 260
_FEW_POINTS = 15  # curves with no more points than this show them


def spec(chart: Mapping[str, Any]) -> dict[str, Any]:
    """The Vega-Lite specification of one chart of a results document.

    Every curve is one row and is unrolled against the common grid of x by the chart itself, so that the page holds each
    number once. A gap in a curve (null) stays a gap. Hovering shows the nearest point and lifts its curve; a click on
    the legend isolates a group.
    """
    series = chart["series"]
    groups = tuple(dict.fromkeys(item["group"] for item in series))
    look = _Look(
        x_label=chart["x_label"],
        y_label=chart["y_label"],
        groups=groups,
        one_each=len(series) <= len(groups),
        few_points=len(chart["x"]) <= _FEW_POINTS,
    )
    drawn = copy.deepcopy(_frame(look))
    drawn["description"] = _description(chart, groups)
    drawn["data"]["values"] = [
        {"curve": number, "group": item["group"], "label": item["label"], "y": item["y"]}
        for number, item in enumerate(series)
    ]
    next(param for param in drawn["params"] if param["name"] == "grid")["value"] = chart["x"]
    return drawn


@dataclass(frozen=True, kw_only=True)
class _Look:
    """All that a chart's frame depends on; charts of a claim's subjects often share it."""

    x_label: str
    y_label: str
    groups: tuple[str, ...]
    one_each: bool
    few_points: bool


@lru_cache(maxsize=64)  # Altair takes a tenth of a second for each
def _frame(look: _Look) -> dict[str, Any]:
    """The specification without data."""
    alt = load("altair")
    with alt.utils.schemapi.debug_mode(False):  # the tests check the schema; checking it here costs most of the time
        grid = alt.param(name="grid", value=[])
        pick = alt.selection_point(name="pick", fields=["group"], bind="legend")
        layers = alt.layer(*_layers(alt, look, pick), data=alt.InlineData(values=[], name=DATA))
        unrolled = layers.transform_calculate(x="grid").transform_flatten(["x", "y"])
        sized = unrolled.properties(width="container", height=_HEIGHT)
        drawn: dict[str, Any] = sized.add_params(grid, pick).to_dict(validate=False)
    del drawn["config"]  # only sizes that are set here anyway
    return drawn


def _layers(alt: Any, look: _Look, pick: Any) -> tuple[Any, Any]:
    """The curves, and over them the points that answer to the pointer."""
    near = alt.selection_point(
        name="near", fields=["curve", "x"], nearest=True, on="pointerover", clear="pointerout", empty=False
    )
    base = alt.Chart().encode(
        x=alt.X("x:Q", title=look.x_label, scale=alt.Scale(zero=False, nice=False)),
        y=alt.Y("y:Q", title=look.y_label, scale=alt.Scale(zero=True)),
        color=alt.Color("group:N", title=None, scale=alt.Scale(domain=look.groups), legend=_legend(alt, look.groups)),
    )
    hovered = "near.curve && near.curve[0] === datum.curve"
    alone, faint = alt.value(0.95 if look.one_each else 0.45), alt.value(0.06)
    width = alt.value(2 if look.one_each else 1.25)
    lines = base.mark_line(aria=False, strokeJoin="round").encode(
        detail="curve:N",
        opacity=alt.when(hovered).then(alt.value(1)).when(pick).then(alone).otherwise(faint),
        strokeWidth=alt.when(hovered).then(alt.value(2.75)).otherwise(width),
    )
    shown = alt.when(near).then(alt.value(1))
    points = base.mark_point(aria=False, filled=True, size=36).encode(
        opacity=shown.when(pick).then(alone).otherwise(faint) if look.few_points else shown.otherwise(alt.value(0)),
        tooltip=alt.value({"expr": _tooltip(look)}),
    )
    return lines, points.add_params(near)


def _legend(alt: Any, groups: tuple[str, ...]) -> Any:
    """A legend above the plot, in as many columns as fit its width."""
    entry = 36 + 7 * max(map(len, groups), default=0)  # pixels, for letters of common width
    room = "(isFinite(containerSize()[0]) ? containerSize()[0] : 300)"  # not `width`, which the legend's height changes
    columns, limit = f"max(1, floor(({room} - 40) / {entry}))", f"max(60, {room} - 90)"
    return alt.Legend(orient="top", direction="horizontal", columns={"expr": columns}, labelLimit={"expr": limit})


def _tooltip(look: _Look) -> str:
    """The Vega expression of what the pointer shows.

    Under the pointer lies the Voronoi cell of a point, whose row is `datum.datum`. A list of tooltip fields would do,
    if Vega-Lite 6.4 did not look for names in `datum` there and find none (its pull request 9707).
    """
    row = "(datum.datum || datum)"
    shown = {
        "group": f"{row}.group",
        "curve": f"{row}.label",
        look.x_label: f"format({row}.x, '.4~g')",
        look.y_label: f"format({row}.y, '.4~g')",
    }
    return "{" + ", ".join(f"{json.dumps(title)}: {value}" for title, value in shown.items()) + "}"


def _description(chart: Mapping[str, Any], groups: tuple[str, ...]) -> str:
    count = len(chart["series"])
    curves = "1 curve" if count == 1 else f"{count} curves"
    return f"{chart['title']}: {curves} of {chart['y_label']} against {chart['x_label']}; {', '.join(groups)}"
