"""Tests of the paper's figures in the report, without a browser: styles, log axes, surfaces, captions."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_examples import HOSTILE, document, three_runs
from report_figures import checkpoints, figures, intervals, losses, prediction, surface

from mli_check.charts import SurfaceChart
from mli_check.errors import ReportError
from mli_check.report import charts, curves, data, html, surfaces

KINDS = [checkpoints, intervals, prediction, losses, surface]
every_kind = pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)


def layers(chart: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = charts.spec(chart)["layer"]
    return found


@every_kind
def test_every_kind_of_chart_is_valid_and_compiles_even_with_hostile_names(make: Any) -> None:
    altair, vl_convert = pytest.importorskip("altair"), pytest.importorskip("vl_convert")
    chart = make()
    for key in ("title", "x_label", "y_label", "value_label"):
        chart |= {key: HOSTILE} if key in chart else {}
    for line in (*chart.get("series", ()), *chart.get("lines", ())):
        line["label"] += HOSTILE
        line |= {"group": line["group"] + HOSTILE} if "group" in line else {}
    spec = json.loads(json.dumps(charts.spec(chart), allow_nan=False))
    altair.LayerChart.from_dict(spec)
    vl_convert.vegalite_to_vega(spec)


@every_kind
def test_drawing_a_chart_leaves_the_record_as_it_was(make: Any) -> None:
    chart = make()
    before = copy.deepcopy(chart)
    spec = charts.spec(chart)
    spec["data"]["values"].clear()
    assert chart == before
    assert charts.spec(chart)["data"]["values"] != []


# What old documents hold


def test_a_document_without_the_new_keys_draws_as_one_that_has_them_at_their_defaults() -> None:
    for made in (document(), *three_runs()):
        for record in made["records"]:
            for chart in record["charts"]:
                stated = chart | {"caption": "", "x_scale": "linear", "y_scale": "linear"}
                stated["series"] = [line | {"style": "line"} for line in chart["series"]]
                old, new = charts.spec(chart), charts.spec(stated)
                for row in new["data"]["values"]:
                    assert row.pop("style") == "line"
                assert json.dumps(old) == json.dumps(new)


def test_curves_without_the_new_keys_have_linear_axes_and_whole_lines() -> None:
    chart = document()["records"][5]["charts"][0]
    spec = charts.spec(chart)
    text = json.dumps(spec)
    assert [word for word in ("strokeDash", "symbolType", "symbolDash", '"log"', "height:") if word in text] == []
    line, points = spec["layer"]
    assert "transform" not in line
    assert (line["encoding"]["y"]["field"], points["encoding"]["y"]["field"]) == ("y", "y")
    assert points["encoding"]["opacity"]["condition"][0]["param"] == "near"


# Styles and scales


def test_points_have_no_line_and_are_seen_without_the_pointer() -> None:
    line, points = layers(intervals())
    assert line["transform"] == [{"filter": "datum.style !== 'points'"}]
    hidden = {"test": "datum.style !== 'points'", "value": 0}
    assert hidden in points["encoding"]["opacity"]["condition"]
    assert points["encoding"]["opacity"]["condition"][-1] == {"param": "pick", "value": 0.45}


def test_a_line_alone_in_its_group_stands_out_among_points() -> None:
    chart = intervals()
    assert layers(chart)[0]["encoding"]["strokeWidth"]["value"] == 2
    for line in chart["series"]:
        line.pop("style", None)
    assert layers(chart)[0]["encoding"]["strokeWidth"]["value"] == 1.25


def test_dashes_go_by_the_style_of_each_curve() -> None:
    dash = layers(prediction())[0]["encoding"]["strokeDash"]
    assert dash["condition"] == [{"test": "datum.style === 'dashed'", "value": [6, 4]}]
    assert dash["value"] == [1, 0]


def test_the_legend_shows_the_style_of_a_group_where_its_curves_agree() -> None:
    legend = layers(prediction())[0]["encoding"]["color"]["legend"]
    assert '["noise alone", "both together"]' in legend["symbolDash"]["expr"]
    assert "symbolType" not in legend
    legend = layers(intervals())[0]["encoding"]["color"]["legend"]
    assert '["alpha_S", "alpha_E"]' in legend["symbolType"]["expr"]
    mixed = prediction()
    for line in mixed["series"]:
        line["group"] = "one"
    assert "symbolDash" not in layers(mixed)[0]["encoding"]["color"]["legend"]


def test_a_log_axis_of_x_is_log_in_both_layers_and_the_other_stays_linear() -> None:
    for layer in layers(checkpoints()):
        assert layer["encoding"]["x"]["scale"] == {"type": "log", "nice": False}
        assert "type" not in layer["encoding"]["y"]["scale"]


def test_a_log_axis_of_y_leaves_out_what_is_not_positive_but_keeps_it_in_the_data() -> None:
    chart = losses()
    assert min(chart["series"][1]["y"]) == 0
    spec = charts.spec(chart)
    assert spec["data"]["values"][1]["y"] == chart["series"][1]["y"]
    assert {"calculate": "datum.y > 0 ? datum.y : null", "as": "height"} in spec["transform"]
    for layer in spec["layer"]:
        assert layer["encoding"]["y"]["field"] == "height"
        assert layer["encoding"]["y"]["scale"] == {"type": "log"}


def test_an_absent_value_has_a_dash_in_the_tooltip_not_a_zero() -> None:
    tooltip = layers(losses())[1]["encoding"]["tooltip"]["value"]["expr"]
    assert "isValid((datum.datum || datum).y) ? format((datum.datum || datum).y, '.4~g') : '—'" in tooltip


# Surfaces


def test_a_surface_carries_every_value_exactly_and_once() -> None:
    chart = surface()
    spec = json.loads(json.dumps(charts.spec(chart)))
    rows = spec["data"]["values"]
    assert spec["data"]["name"] == surfaces.DATA != curves.DATA
    assert [row["y"] for row in rows] == chart["y"]
    assert [row["value"] for row in rows] == chart["values"]
    assert next(param["value"] for param in spec["params"] if param["name"] == "grid") == chart["x"]
    assert json.dumps(spec).count("0.893062") == json.dumps(chart).count("0.893062") == 1


def test_cells_reach_half_way_to_their_neighbours() -> None:
    chart = SurfaceChart("t", "x", "y", "v", [0, 1, 4], [-1, 1], [[1, 2, 3], [4, 5, 6]]).as_record()
    spec = charts.spec(chart)
    assert next(param["value"] for param in spec["params"] if param["name"] == "edges") == [-0.5, 0.5, 2.5, 5.5]
    assert [(row["low"], row["high"]) for row in spec["data"]["values"]] == [(-2, 0), (0, 2)]
    cells = spec["layer"][0]["encoding"]
    assert (cells["x"]["scale"]["domain"], cells["y"]["scale"]["domain"]) == ([-0.5, 5.5], [-2, 2])


def test_a_surface_has_cells_crosses_where_a_value_is_missing_and_lines() -> None:
    cells, crosses, band, line = layers(surface())
    assert cells["transform"][-1] == {"filter": "isValid(datum.value)"}
    assert crosses["transform"][-1] == {"filter": "!isValid(datum.value)"}
    assert (cells["mark"]["type"], crosses["mark"]["text"]) == ("rect", "×")
    assert [item["label"] for item in line["data"]["values"]] == ["alpha + beta = 1", "beta = 0", "alpha = 1"]
    dashes = line["encoding"]["strokeDash"]["scale"]
    assert dashes["domain"] == ["alpha + beta = 1", "beta = 0", "alpha = 1"]
    assert len({tuple(dash) for dash in dashes["range"]}) == 3
    assert band["mark"]["strokeWidth"] > line["mark"]["strokeWidth"]


def test_a_surface_without_lines_has_no_legend_of_them() -> None:
    assert len(layers(surface() | {"lines": []})) == 2


def test_lines_of_one_label_are_not_joined() -> None:
    same = [{"label": "axis", "x": [0, 1], "y": [0, 0]}, {"label": "axis", "x": [1, 1], "y": [-1, 1]}]
    line = layers(surface() | {"lines": same})[-1]
    assert line["encoding"]["detail"]["field"] == "line"
    assert [row["line"] for row in line["data"]["values"]] == [0, 1]
    assert line["encoding"]["strokeDash"]["scale"]["domain"] == ["axis"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.05, 0.893]], (0.0, 0.9, 9)),
        ([[0.3, 0.9]], (0.3, 0.9, 6)),
        ([[-1.0, 1.0]], (-1.0, 1.0, 10)),
        ([[2.0, 2.0]], (1.0, 3.0, 10)),
        ([[0.0, None]], (-0.5, 0.5, 10)),
        ([[None, None]], (0.0, 1.0, 10)),
        ([[1.0, 1e6]], (0.0, 1e6, 10)),
    ],
)
def test_colours_go_in_even_steps_between_round_numbers(values: Any, expected: tuple[float, float, int]) -> None:
    assert surfaces.steps(values) == expected


sixes = st.floats(-1e6, 1e6).map(lambda value: float(f"{value:.6g}"))


@settings(deadline=None)
@given(st.lists(sixes, min_size=2, max_size=9))
def test_the_steps_of_the_colours_hold_all_values_and_are_three_to_ten(values: list[float]) -> None:
    low, high, count = surfaces.steps([values])
    slack = 1e-8 * (high - low)
    assert low - slack <= min(values)
    assert max(values) <= high + slack
    assert 3 <= count <= 10
    assert low < high


def test_the_colours_of_a_surface_brighten_evenly_so_that_they_print_in_grey() -> None:
    vl_convert = pytest.importorskip("vl_convert")
    values = [[0.05 + 0.1 * step for step in range(9)]] * 2
    chart = SurfaceChart("t", "x", "y", "v", range(9), [0, 1], values).as_record()
    drawing = vl_convert.vegalite_to_svg(charts.spec(chart) | {"width": 300}).split("mark-rect")[1]
    fills = re.findall(r'fill="rgb\((\d+), (\d+), (\d+)\)" stroke="rgb', drawing)[:9]
    greys = [0.2126 * int(red) + 0.7152 * int(green) + 0.0722 * int(blue) for red, green, blue in fills]
    rises = [right - left for left, right in pairwise(greys)]
    assert len(rises) == 8
    assert min(rises) > 10  # of 255
    assert max(rises) < 2 * min(rises)


def test_the_description_of_a_surface_says_what_is_drawn() -> None:
    found = charts.spec(surface())["description"]
    assert found.startswith("Test error of alpha * theta_F + beta * theta_0: a surface of 21 × 41 values of test error")
    assert found.endswith("over alpha and beta, from 0.0521 to 0.8931; lines alpha + beta = 1, beta = 0, alpha = 1")
    nothing = surface() | {"values": [[None] * 21] * 41, "lines": []}
    assert charts.spec(nothing)["description"].endswith("over alpha and beta, none of them known")


def test_a_kind_that_this_version_does_not_know_is_an_error() -> None:
    made = figures()
    made["records"][0]["charts"][0]["kind"] = "violin"
    with pytest.raises(ReportError, match=r"'Test error along the three paths' is of the kind 'violin'; this version"):
        html.render([made])


# The page


class _Figures(HTMLParser):
    """The figures of a page: their attributes, and the text of each element in them that has an id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.figures: dict[str, dict[str, str | None]] = {}
        self.text: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self._id = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "figure":
            self.figures[str(given["id"])] = given
        if tag in ("p", "figcaption") and given.get("id"):
            self._id = str(given["id"])
            self.tags[self._id] = tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("p", "figcaption"):
            self._id = ""

    def handle_data(self, data: str) -> None:
        if self._id:
            self.text[self._id] = self.text.get(self._id, "") + data


@pytest.fixture(scope="module")
def page() -> str:
    return html.render([figures()])


def test_every_figure_is_named_by_its_title_and_described_by_its_caption(page: str) -> None:
    found = _Figures(page)
    drawn = data.build([figures()]).charts
    assert set(found.figures) == {chart.id for chart in drawn}
    for chart in drawn:
        figure = found.figures[chart.id]
        assert found.text[str(figure["aria-labelledby"])] == chart.title
        assert chart.caption.endswith(chart.record.get("caption", ""))
        if chart.caption:
            described = str(figure["aria-describedby"])
            assert found.tags[described] == "figcaption"
            assert found.text[described] == chart.caption
        else:
            assert "aria-describedby" not in figure
    assert sum(bool(chart.caption) for chart in drawn) == page.count("<figcaption") >= 5


def test_the_first_chart_of_a_claim_says_what_the_paper_shows_and_what_was_seen() -> None:
    chart = {"title": "t", "x_label": "alpha", "y_label": "error", "x": [0, 1], "series": []}
    record = {**figures()["records"][0], "claim": "T4", "charts": [chart, {**chart, "caption": "Own words."}]}
    first, second = (drawn.caption for drawn in data.build([{**figures(), "records": [record]}]).charts)
    assert first.startswith("The paper (Section 3.2, Equation 3, Figure 2): test error is monotone in all four setting")
    assert first.endswith(f" Here, {record['verdict']}: {record['reason'].rstrip('.')}.")
    assert second == "Own words."


def test_our_own_claims_predict_and_unknown_ones_say_nothing() -> None:
    chart = {"title": "t", "x_label": "alpha", "y_label": "error", "x": [0, 1], "series": []}
    captions = {}
    for claim in ("X5", "Z9"):
        record = {**figures()["records"][0], "claim": claim, "charts": [chart]}
        (drawn,) = data.build([{**figures(), "records": [record]}]).charts
        captions[claim] = drawn.caption
    assert captions["X5"].startswith("Predicted: flat error. Here, ")
    assert captions["Z9"] == ""


def test_a_caption_stays_text(page: str) -> None:
    assert "window.broken = 1</script>" not in page
    assert "We see it too. &lt;/script&gt;&lt;script&gt;window.broken = 1" in page


def test_a_caption_has_real_indices() -> None:
    made = figures()
    made["records"][1]["charts"][0]["caption"] = "From θ_0 to θ_F."
    assert "From θ<sub>0</sub> to θ<sub>F</sub>.</figcaption>" in html.render([made])


def test_a_surface_has_no_list_of_groups_and_says_its_size_without_javascript(page: str) -> None:
    figure = page.split('<figure class="chart" id="T35-vgg-bn-digits-chart"')[1].split("</figure>")[0]
    assert "data-pick" not in figure
    assert "a surface of 21 × 41 values, drawn by JavaScript" in figure
    assert 'data-save="csv"' in figure


def test_a_large_surface_costs_the_page_little_more_than_its_numbers(page: str) -> None:
    made = figures()
    grid = [step / 50 for step in range(101)]
    values = [[float(f"{a * b + a / 7 + 0.123456:.6g}") for a in grid[:51]] for b in grid]
    chart = SurfaceChart("t", "alpha", "beta", "error", grid[:51], grid, values).as_record()
    made["records"][5]["charts"] = [chart]
    growth = len(html.render([made]).encode()) - len(page.encode())
    assert growth < 1.2 * len(json.dumps(chart))
