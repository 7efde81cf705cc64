"""Tests of the charts that claims make: what they refuse, and the records they become."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from mli_check import results
from mli_check.charts import STYLES, Chart, Series, SurfaceChart, SurfaceLine
from mli_check.errors import OptionError

ALPHAS, BETAS = [0, 0.5, 1], [-1, 1]


def chart(**changes: Any) -> Chart:
    given = {"title": "t", "x_label": "alpha", "y_label": "error", "x": [1, 10], "series": [Series("g", "l", [1, 2])]}
    return Chart(**given | changes)


def surface(**changes: Any) -> SurfaceChart:
    given = {"title": "t", "x_label": "alpha", "y_label": "beta", "value_label": "error", "x": ALPHAS, "y": BETAS}
    return SurfaceChart(**given | {"values": [[1, 2, 3], [4, 5, 6]]} | changes)


# Curves


def test_what_is_left_at_its_default_is_not_in_the_record() -> None:
    assert chart().as_record() == {
        "title": "t",
        "x_label": "alpha",
        "y_label": "error",
        "x": [1, 10],
        "series": [{"group": "g", "label": "l", "y": [1, 2]}],
    }


def test_the_record_keeps_caption_scales_and_style() -> None:
    lines = [Series("g", style, [1, 2], style=style) for style in STYLES]
    found = chart(series=lines, caption="The paper shows a fall. So do we.", x_scale="log", y_scale="log").as_record()
    assert found["caption"] == "The paper shows a fall. So do we."
    assert (found["x_scale"], found["y_scale"]) == ("log", "log")
    assert [line.get("style") for line in found["series"]] == [None, "dashed", "points"]


def test_the_order_of_the_fields_is_that_of_the_contract() -> None:
    line = Series("g", "l", [1, 2], "dashed")
    assert Chart("t", "x", "y", [1, 2], [line], "caption", "log") == Chart(
        title="t", x_label="x", y_label="y", x=[1, 2], series=[line], caption="caption", x_scale="log"
    )
    drawn = SurfaceLine("diagonal", [0, 1], [1, 0])
    assert SurfaceChart("t", "x", "y", "v", [0, 1], [0, 1], [[1, 2], [3, 4]], [drawn], "caption") == SurfaceChart(
        title="t", x_label="x", y_label="y", value_label="v",
        x=[0, 1], y=[0, 1], values=[[1, 2], [3, 4]], lines=[drawn], caption="caption",
    )  # fmt: skip


@pytest.mark.parametrize("style", ["dotted", "", "Line", None])
def test_an_unknown_style_says_what_is_known(style: Any) -> None:
    with pytest.raises(OptionError, match=rf"style is {style!r}; expected one of 'line', 'dashed', 'points'"):
        Series("g", "l", [1], style=style)


@pytest.mark.parametrize("axis", ["x_scale", "y_scale"])
@pytest.mark.parametrize("scale", ["logarithmic", "", None])
def test_an_unknown_scale_says_what_is_known(axis: str, scale: Any) -> None:
    with pytest.raises(OptionError, match=rf"{axis} is {scale!r}; expected one of 'linear', 'log'"):
        chart(**{axis: scale})


@pytest.mark.parametrize("x", [[0, 10], [-1, 10], [math.nan, 10], [math.inf, math.nan]])
def test_a_log_axis_takes_only_positive_numbers_of_x(x: list[float]) -> None:
    with pytest.raises(OptionError, match=r"has (0|-1|nan) on the log axis of x; expected positive numbers: leave the"):
        chart(x=x, x_scale="log")
    assert len(chart(x=x).as_record()["x"]) == 2


def test_a_log_axis_keeps_numbers_of_y_that_it_cannot_draw() -> None:
    found = chart(series=[Series("g", "l", [0, -2])], y_scale="log").as_record()
    assert found["series"][0]["y"] == [0, -2]


@pytest.mark.parametrize("y", [[1], [1, 2, 3], []])
def test_a_series_has_as_many_values_as_x(y: list[float]) -> None:
    message = rf"series 'short' of chart 't' has {len(y)} values; expected 2, one for each x"
    with pytest.raises(OptionError, match=message):
        chart(series=[Series("g", "whole", [1, 2]), Series("g", "short", y)])


def test_a_chart_read_twice_gives_the_same_record() -> None:
    drawn = chart(x=iter([1, 10]), series=[Series("g", "l", iter([1, 2]))])
    assert drawn.as_record() == drawn.as_record() == chart().as_record()


# Surfaces


def test_a_surface_becomes_a_record_of_its_own_kind() -> None:
    values = np.array([[1 / 3, 2, math.nan], [4, math.inf, 123456.789]])
    made = surface(values=values, lines=[SurfaceLine("diagonal", [0, 1], [1, 0])], caption="As in Figure 9.")
    found = made.as_record()
    assert found == {
        "kind": "surface",
        "title": "t",
        "x_label": "alpha",
        "y_label": "beta",
        "value_label": "error",
        "x": [0, 0.5, 1],
        "y": [-1, 1],
        "values": [[0.333333, 2, None], [4, None, 123457.0]],
        "lines": [{"label": "diagonal", "x": [0, 1], "y": [1, 0]}],
        "caption": "As in Figure 9.",
    }
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_surface_without_lines_or_caption_says_so_briefly() -> None:
    found = surface().as_record()
    assert found["lines"] == []
    assert "caption" not in found


def test_a_surface_takes_tensors_arrays_and_generators() -> None:
    grids = {"x": torch.linspace(0, 1, 3), "y": np.linspace(-1, 1, 2, dtype=np.float32)}
    for values in (torch.arange(1, 7).reshape(2, 3), (iter(row) for row in ([1, 2, 3], [4, 5, 6]))):
        assert surface(values=values, **grids) == surface()
    found = surface(values=torch.ones(2, 3), **grids).as_record()
    assert all(type(number) is float for row in [found["x"], found["y"], *found["values"]] for number in row)


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ([[1, 2], [3, 4], [5, 6]], r"\(3, 2\)"),
        ([[1, 2, 3]], r"\(1, 3\)"),
        ([[1, 2, 3], [4, 5]], r"\(2, 2 or 3\)"),
        ([], r"\(0, 0\)"),
        (np.ones((2, 4)), r"\(2, 4\)"),
    ],
    ids=["transposed", "a row short", "ragged", "empty", "too wide"],
)
def test_a_matrix_of_the_wrong_shape_is_refused(values: Any, shape: str) -> None:
    wanted = r"expected \(len\(y\), len\(x\)\) = \(2, 3\)"
    with pytest.raises(OptionError, match=f"values of 't' have the shape {shape}; {wanted}"):
        surface(values=values)


@pytest.mark.parametrize("name", ["x", "y"])
@pytest.mark.parametrize("grid", [[], [1], [1, 0], [0, 0, 1], [0, math.nan, 1], [0, math.inf], [-math.inf, 0]])
def test_a_grid_that_does_not_increase_is_refused(name: str, grid: list[float]) -> None:
    with pytest.raises(OptionError, match=rf"{name} of 't' is \[.*\]; expected at least two, increasing"):
        surface(**{name: grid})


def test_a_long_grid_is_not_printed_in_full() -> None:
    with pytest.raises(OptionError, match=r"x of 't' is \[9, 8, 7, 6, 5, 4, \.\.\.\]; expected"):
        surface(x=range(9, -1, -1))


def test_a_line_over_a_surface_has_as_many_x_as_y() -> None:
    with pytest.raises(OptionError, match=r"y of line 'diagonal' has 3 values; expected 2, one for each x"):
        SurfaceLine("diagonal", [0, 1], [1, 0.5, 0])


def test_claims_find_the_charts_where_they_find_the_results() -> None:
    assert (results.Chart, results.Series) == (Chart, Series)
    assert (results.SurfaceChart, results.SurfaceLine) == (SurfaceChart, SurfaceLine)
