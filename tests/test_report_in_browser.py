"""Tests of the report as a reader meets it: the page opened from a file in Chromium, by pointer and by keyboard."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from report_examples import GROUPS, HOSTILE, document, three_runs
from report_figures import figures, losses, surface

from mli_check.report import data, html

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from playwright.sync_api import Browser, Locator, Page

    Opened = Callable[..., AbstractContextManager[Page]]

pytestmark = pytest.mark.xdist_group("browser")

DESKTOP, PHONE = (1280, 900), (360, 740)
QUIET = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def _cannot(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        _cannot("there is no `chromium` on the path: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _cannot("playwright is not installed: pip install 'mli-check[test]'")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", *QUIET]
        started = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return html.write_report([document()], tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of three runs at three scales."""
    return html.write_report(three_runs(3), tmp_path_factory.mktemp("merged") / "report.html")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every kind of figure."""
    return html.write_report([figures()], tmp_path_factory.mktemp("figures") / "report.html")


@pytest.fixture
def opened(browser: Browser, report: Path) -> Opened:
    """Opens the report; on leaving, the page must have said and asked for nothing."""

    @contextmanager
    def visit(
        size: tuple[int, int] = DESKTOP, scheme: str = "light", hash: str = "", file: Path = report, **options: Any
    ) -> Iterator[Page]:
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=viewport, color_scheme=scheme, **options)
        page = context.new_page()
        page.set_default_timeout(15_000)
        complaints: list[str] = []
        requests: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri() + hash)
        yield page
        assert complaints == []
        files = {request.split("#")[0] for request in requests if not request.startswith("blob:")}
        assert files == {file.as_uri()}
        context.close()

    return visit


def _wait_for_chart(page: Page, chart_id: str) -> Locator:
    figure = page.locator(f"#{chart_id}")
    figure.scroll_into_view_if_needed()
    page.wait_for_function("id => mliCheck.views.has(id)", arg=chart_id)
    return figure


def _serious(page: Page) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    heavy = [rule for rule in found.response["violations"] if rule["impact"] in ("serious", "critical")]
    return [f"{rule['id']}: {[node['html'][:200] for node in rule['nodes'][:3]]}" for rule in heavy]


def _overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_opens_quietly_fits_and_is_accessible(opened: Opened, size: tuple[int, int], scheme: str) -> None:
    with opened(size, scheme) as page:
        assert _overflow(page) == 0
        assert _serious(page) == []
        page.locator("#filter-idle").check()
        page.locator("#T22 > summary").click()
        page.locator("#T22 .settings summary").click()
        _wait_for_chart(page, "T22-fcn4-digits-gaussian-chart")
        assert _overflow(page) == 0
        assert _serious(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_merged_page_opens_quietly_fits_and_is_accessible(
    opened: Opened, merged: Path, size: tuple[int, int], scheme: str
) -> None:
    with opened(size, scheme, file=merged) as page:
        assert _overflow(page) == 0
        page.locator("#filter-idle").check()
        page.locator("#T2 > summary").click()
        _wait_for_chart(page, "T2-fcn4-mnist-standard-chart")
        assert page.locator("#T2-fcn4-digits .earlier").is_visible()
        assert _overflow(page) == 0
        assert _serious(page) == []


def test_what_a_cell_says_stays_in_the_cell_at_every_width(opened: Opened, merged: Path) -> None:
    spilling = """[...document.querySelectorAll("table.claims td")]
        .filter((cell) => cell.clientWidth && cell.scrollWidth > cell.clientWidth).map((cell) => cell.innerText)"""
    with opened(file=merged) as page:
        for width in (1920, 1280, 1000, 810, 790, 620, 360):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(spilling) == []
            assert _overflow(page) == 0


@pytest.mark.parametrize("several", [False, True], ids=["one run", "three runs"])
def test_the_points_drawn_are_those_of_the_results(opened: Opened, report: Path, merged: Path, several: bool) -> None:
    points = "id => mliCheck.views.get(id).data('data_0').map((row) => [row.group, row.label, row.x, row.y])"
    with opened(file=merged if several else report) as page:
        page.get_by_role("button", name="Open all").click()
        for chart in data.build(three_runs(3) if several else [document()]).charts:
            _wait_for_chart(page, chart.id)
            drawn = page.evaluate(points, chart.id)
            record = chart.record
            assert drawn == [
                [series["group"], series["label"], x, y]
                for series in record["series"]
                for x, y in zip(record["x"], series["y"], strict=True)
            ]
        assert page.evaluate("window.broken") is None


def test_charts_are_drawn_when_their_claim_opens_and_cleared_when_it_closes(opened: Opened) -> None:
    with opened() as page:
        assert page.evaluate("mliCheck.views.size") == 0
        summary = page.locator("#T4 > summary")
        summary.focus()
        page.keyboard.press("Enter")
        figure = _wait_for_chart(page, "T4-fcn4-digits-chart")
        assert figure.locator("svg").count() == 1
        summary.focus()
        page.keyboard.press("Enter")
        page.wait_for_function("mliCheck.views.size === 0")
        assert figure.locator("svg").count() == 0
        page.keyboard.press("Enter")
        _wait_for_chart(page, "T4-fcn4-digits-chart")


def test_the_filters_work_by_keyboard_and_tell_the_count(opened: Opened) -> None:
    rows = "table.claims tbody tr:visible"
    with opened() as page:
        shown = page.locator("#shown")
        total = page.locator("table.claims tbody tr").count()
        assert shown.inner_text() == f"20 of {total} rows shown"
        assert shown.get_attribute("aria-live") == "polite"
        page.locator("#filter-paper").focus()
        page.keyboard.type("Lucas et al. 2020")
        assert shown.inner_text().startswith("3 of ")
        page.keyboard.press("Tab")
        page.keyboard.type("inc")
        assert page.locator(rows).all_inner_texts()[0].startswith("L1")
        assert page.locator(rows).count() == page.locator("details.claim:visible").count() == 1
        for _ in range(3):
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.type") == "reset"
        page.keyboard.press("Enter")
        page.wait_for_function("document.getElementById('shown').textContent.startsWith('20 of')")
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Space")
        assert shown.inner_text() == f"{total} of {total} rows shown"
        page.keyboard.press("Shift+Tab")
        page.keyboard.type("BN-digits monotone")
        assert page.locator(rows).locator(".subject").all_inner_texts() == ["vgg-bn-digits"] * 3


def test_a_claim_keeps_its_statement_when_its_first_row_is_filtered_away(opened: Opened) -> None:
    with opened() as page:
        page.locator("#filter-verdict").select_option("changed")
        row = page.locator("tbody[data-claim=T2] tr:visible")
        assert row.count() == 1
        assert row.locator("th").get_attribute("rowspan") == "1"
        page.locator("#filter-verdict").select_option("")
        first = page.locator("tbody[data-claim=T2] tr").first
        assert first.locator("th").get_attribute("rowspan") == "2"


def test_with_several_scales_a_row_stays_if_any_of_its_verdicts_is_the_wanted_one(opened: Opened, merged: Path) -> None:
    rows = "tbody[data-claim={}] tr:not([data-head]):visible"
    with opened(file=merged) as page:
        page.locator("#filter-verdict").select_option("not reproduced")
        assert page.locator(rows.format("T1")).locator(".subject").all_inner_texts() == ["vgg16-bn-cifar10"]
        assert page.locator(rows.format("T1")).locator("[data-verdict]").count() == 2
        assert page.locator("tbody[data-claim=T1] .statement").is_visible()
        assert page.locator(rows.format("T6")).count() == 1
        assert page.locator("tbody[data-claim=T4]").is_hidden()
        assert page.locator("#shown").inner_text().startswith("4 of ")
        page.locator("#filter-verdict").select_option("changed")
        assert page.locator(rows.format("L6")).count() == 1
        page.locator("#filter-verdict").select_option("")
        page.locator("#filter-text").fill("judged")
        assert page.locator("table.claims tbody:visible .absent:visible").count() == 0


def test_with_several_scales_every_figure_leads_to_its_own_result(opened: Opened, merged: Path) -> None:
    with opened(file=merged) as page:
        page.get_by_role("link", name="for L6 on all at paper scale, in detail").click()
        assert page.locator("#L6-all-paper").is_visible()
        assert page.locator("#L6-all-paper .made").first.inner_text().startswith("paper · cuda · 2026-11-24 09:01 UTC")
        page.locator("#L6-all-paper .made a").click()
        assert page.locator("#run-3").is_visible()


def test_links_open_the_claim_even_one_that_is_filtered_away(opened: Opened) -> None:
    with opened() as page:
        page.locator("#filter-text").fill("softmax")
        page.get_by_role("link", name="T22 on fcn4-digits-gaussian").click()
        assert page.locator("#T22-fcn4-digits-gaussian").is_visible()
        page.locator("#filter-text").fill("")
        page.locator("tbody[data-claim=T9] .subject a").click()
        assert page.locator("#T9").evaluate("claim => claim.open")
    with opened(hash="#T27") as page:
        _wait_for_chart(page, "T27-vgg-bn-digits-chart")


def test_hovering_names_the_nearest_point(opened: Opened) -> None:
    with opened(hash="#L11") as page:
        figure = _wait_for_chart(page, "L11-curves-chart")
        box = figure.locator(".stage svg").bounding_box()
        assert box
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tip = page.locator("#vg-tooltip-element.visible")
        tip.wait_for()
        keys, values = (tip.locator(f"td.{kind}").all_inner_texts() for kind in ("key", "value"))
        cells = dict(zip(keys, values, strict=True))
        assert set(cells) == {"group", "curve", "alpha", "test error"}
        near = page.evaluate("mliCheck.views.get('L11-curves-chart').signal('near')")
        series = document()["records"][15]["charts"][0]["series"][near["curve"][0]]
        assert cells["group"] == series["group"]
        assert " ".join(cells["curve"].split()) == " ".join(series["label"].split())
        assert HOSTILE.split(">")[0] in cells["curve"]
        assert float(cells["alpha"]) == near["x"][0]
        assert float(cells["test error"]) == pytest.approx(series["y"][round(near["x"][0] * 50)], rel=1e-3)
        assert page.evaluate("window.broken") is None


def test_a_click_on_the_legend_isolates_a_group_and_so_does_the_list(opened: Opened) -> None:
    picked = "id => mliCheck.views.get(id).data('pick_store').map((item) => item.values[0])"
    chart_id = "T4-fcn4-digits-chart"
    with opened(hash="#T4") as page:
        figure = _wait_for_chart(page, chart_id)
        lines = figure.locator(".mark-line path")
        bright = lines.first.get_attribute("opacity")
        figure.locator("svg text", has_text=GROUPS[1]).click()
        assert page.evaluate(picked, chart_id) == [GROUPS[1]]
        assert figure.locator("select").input_value() == GROUPS[1]
        assert sorted({path.get_attribute("opacity") for path in lines.all()}) == ["0.06", bright]
        figure.locator("select").focus()
        page.keyboard.type(GROUPS[2])
        page.wait_for_function(f"mliCheck.views.get('{chart_id}').signal('pick').group?.[0] === '{GROUPS[2]}'")
        assert page.evaluate(picked, chart_id) == [GROUPS[2]]
        figure.locator("select").select_option("")
        page.wait_for_function(f"!mliCheck.views.get('{chart_id}').data('pick_store').length")
        assert {path.get_attribute("opacity") for path in lines.all()} == {bright}


def test_the_colour_switch_changes_page_and_charts_and_stores_nothing(opened: Opened) -> None:
    stroke = "path => getComputedStyle(path).stroke"
    with opened(hash="#T4") as page:
        line = _wait_for_chart(page, "T4-fcn4-digits-chart").locator(".mark-line path").first
        light, paper = line.evaluate(stroke), page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.get_by_role("button", name="Dark colours").click()
        assert line.evaluate(stroke) != light
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != paper
        page.get_by_role("button", name="Light colours").click()
        assert line.evaluate(stroke) == light
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


def test_the_command_can_be_copied(opened: Opened) -> None:
    with opened(hash="#T6") as page:
        page.get_by_role("button", name="Copy the command mli-check run T6").click()
        page.wait_for_function("document.getElementById('announce').textContent === 'Command copied'")
        page.locator("#filter-text").focus()
        page.keyboard.press("Control+V")
        assert page.locator("#filter-text").input_value() == "mli-check run T6 --scale quick"


def test_a_chart_can_be_saved_as_numbers_and_as_a_drawing(opened: Opened) -> None:
    with opened(hash="#T4") as page:
        figure = _wait_for_chart(page, "T4-fcn4-digits-chart")
        with page.expect_download() as download:
            figure.get_by_role("button", name="CSV").click()
        lines = download.value.path().read_text().splitlines()
        series = document()["records"][5]["charts"][0]["series"]
        assert len(lines) == 1 + 30 * 51
        assert lines[1] == f"{GROUPS[0]},seed 0,0,{series[0]['y'][0]!r}"
        assert lines[21] == f"{GROUPS[0]},seed 0,0.4,"
        with page.expect_download() as download:
            figure.get_by_role("button", name="SVG").click()
        drawing = download.value.path().read_text()
        assert drawing.startswith("<svg")
        assert "var(--" not in drawing


def test_the_page_reads_without_javascript(opened: Opened) -> None:
    with opened(java_script_enabled=False) as page:
        assert page.locator("table.claims tbody tr:visible").count() >= 20
        assert page.get_by_text("Without JavaScript").is_visible()
        assert page.locator("#filters").is_hidden()


def test_printing_draws_the_charts_of_open_claims_in_light_colours(opened: Opened, tmp_path: Path) -> None:
    with opened(scheme="dark", hash="#T1") as page:
        charts = page.locator("details[open] figure.chart").count()
        assert charts == 6
        page.pdf(path=tmp_path / "report.pdf")
        assert page.evaluate("mliCheck.views.size") == charts
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.locator("#filters").is_hidden()


def test_a_chart_keeps_its_legend_in_sight_at_every_width(opened: Opened) -> None:
    chart_id = "T1-fcn4-digits-chart"
    with opened(hash="#T1") as page:
        for width in (1920, 1000, 700, 360):
            page.evaluate("id => { window.before = mliCheck.views.get(id); }", chart_id)
            page.set_viewport_size({"width": width, "height": 900})
            figure = _wait_for_chart(page, chart_id)
            page.wait_for_function("id => ![undefined, before].includes(mliCheck.views.get(id))", arg=chart_id)
            stage = figure.locator(".stage").bounding_box()
            assert stage
            for group in GROUPS:
                label = figure.locator("svg text", has_text=group).first.bounding_box()
                assert label
                assert label["y"] >= stage["y"]
                assert label["x"] + label["width"] <= stage["x"] + stage["width"]
            assert _overflow(page) == 0


# The paper's figures

SURFACE = "T35-vgg-bn-digits-chart"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_kind_of_figure_draws_quietly_fits_and_is_accessible(
    opened: Opened, drawn: Path, size: tuple[int, int], scheme: str
) -> None:
    with opened(size, scheme, file=drawn) as page:
        page.get_by_role("button", name="Open all").click()
        for chart in data.build([figures()]).charts:
            figure = _wait_for_chart(page, chart.id)
            assert page.get_by_role("figure", name=chart.title).count() == 1
            if not chart.caption:
                continue
            stage, caption = (figure.locator(part).bounding_box() for part in (".stage", "figcaption"))
            assert stage
            assert caption
            assert caption["y"] > stage["y"] + stage["height"]
        assert _overflow(page) == 0
        assert _serious(page) == []
        assert page.evaluate("window.broken") is None


def test_the_numbers_drawn_in_every_kind_of_figure_are_those_of_the_results(opened: Opened, drawn: Path) -> None:
    rows = "id => mliCheck.views.get(id).data('data_0').map((row) => [row.x, row.y, row.value])"
    with opened(file=drawn) as page:
        page.get_by_role("button", name="Open all").click()
        for chart in data.build([figures()]).charts:
            _wait_for_chart(page, chart.id)
            record = chart.record
            wanted = []
            for series in record.get("series", ()):
                wanted += [[x, y, None] for x, y in zip(record["x"], series["y"], strict=True)]
            for y, row in zip(record.get("y", ()), record.get("values", ()), strict=True):
                wanted += [[x, y, value] for x, value in zip(record["x"], row, strict=True)]
            assert page.evaluate(rows, chart.id) == wanted


def test_axes_styles_and_legends_are_drawn_as_the_results_say(opened: Opened, drawn: Path) -> None:
    scales = "id => ['x', 'y'].map((axis) => mliCheck.views.get(id).scale(axis).type)"
    dashes = "paths => paths.map((path) => path.getAttribute('stroke-dasharray'))"
    with opened(file=drawn) as page:
        page.get_by_role("button", name="Open all").click()
        ids = {claim: f"{claim}-vgg-bn-digits-chart" for claim in ("T1", "T25", "T28", "T33", "T36")}
        figure = {claim: _wait_for_chart(page, chart_id) for claim, chart_id in ids.items()}
        assert {claim: page.evaluate(scales, chart_id) for claim, chart_id in ids.items()} == {
            "T1": ["linear", "linear"],
            "T25": ["log", "linear"],
            "T28": ["log", "linear"],
            "T33": ["linear", "log"],
            "T36": ["linear", "linear"],
        }
        for part in (".mark-line path", ".role-legend-symbol path"):
            assert figure["T36"].locator(part).evaluate_all(dashes) == ["1,0", "6,4", "6,4"]
            assert figure["T1"].locator(part).evaluate_all(dashes) == [None] * 3
        assert figure["T25"].locator(".mark-line path").count() == 2
        page.mouse.move(1, 1)  # off the charts
        seen = "paths => paths.filter((path) => path.getAttribute('opacity') === '0.45').length"
        assert figure["T25"].locator(".mark-symbol.role-mark path").evaluate_all(seen) == 2 * 3 * 21


def test_what_a_log_axis_cannot_show_is_a_gap(opened: Opened, drawn: Path) -> None:
    heights = "id => mliCheck.views.get(id).data('data_0').map((row) => row.height)"
    with opened(file=drawn, hash="#T33") as page:
        figure = _wait_for_chart(page, "T33-vgg-bn-digits-chart")
        values = [y for series in losses()["series"] for y in series["y"]]
        assert page.evaluate(heights, "T33-vgg-bn-digits-chart") == [y if y > 0 else None for y in values]
        assert not any("NaN" in path.get_attribute("d") for path in figure.locator("svg path[d]").all())


@pytest.mark.parametrize(("alpha", "beta", "shown"), [(0.8, 0.3, None), (0.2, -0.85, "—")], ids=["a value", "none"])
def test_hovering_over_a_surface_names_the_place(
    opened: Opened, drawn: Path, alpha: float, beta: float, shown: str | None
) -> None:
    place = """([id, x, y]) => {
        const view = mliCheck.views.get(id), [left, top] = view.origin(), padding = view.padding();
        return [view.scale("x")(x) + left + padding.left, view.scale("y")(y) + top + padding.top];
    }"""
    with opened(file=drawn, hash="#T35") as page:
        box = _wait_for_chart(page, SURFACE).locator(".stage svg").bounding_box()
        assert box
        x, y = page.evaluate(place, [SURFACE, alpha, beta])
        page.mouse.move(box["x"] + x, box["y"] + y)
        tip = page.locator("#vg-tooltip-element.visible")
        tip.wait_for()
        keys, values = (tip.locator(f"td.{kind}").all_inner_texts() for kind in ("key", "value"))
        value = surface()["values"][round(20 * (beta + 1))][round(20 * alpha)]
        cells = dict(zip(keys, values, strict=True))
        assert list(cells) == ["alpha", "beta", "test error"]
        assert (cells["alpha"], cells["beta"].replace("−", "-")) == (f"{alpha:g}", f"{beta:g}")
        assert cells["test error"] == (shown or f"{value:.4g}")


def test_a_surface_can_be_saved_as_numbers_and_as_a_drawing(opened: Opened, drawn: Path) -> None:
    with opened(file=drawn, hash="#T35") as page:
        figure = _wait_for_chart(page, SURFACE)
        with page.expect_download() as download:
            figure.get_by_role("button", name="CSV").click()
        lines = download.value.path().read_text().splitlines()
        values = surface()["values"]
        assert lines[:2] == ["x,y,value", f"0,-1,{values[0][0]!r}"]
        assert len(lines) == 1 + 21 * 41
        assert lines[1 + 3 * 21 + 4] == "0.2,-0.85,"
        with page.expect_download() as download:
            figure.get_by_role("button", name="SVG").click()
        drawing = download.value.path().read_text()
        assert drawing.startswith("<svg")
        assert "var(--" not in drawing


def test_a_surface_keeps_its_legends_in_sight_and_apart_at_every_width(opened: Opened, drawn: Path) -> None:
    with opened(file=drawn, hash="#T35") as page:
        _wait_for_chart(page, SURFACE)
        for width in (1920, 1000, 700, 360):
            page.evaluate("id => { window.before = mliCheck.views.get(id); }", SURFACE)
            page.set_viewport_size({"width": width, "height": 900})
            figure = _wait_for_chart(page, SURFACE)
            page.wait_for_function("id => ![undefined, before].includes(mliCheck.views.get(id))", arg=SURFACE)
            stage = figure.locator(".stage").bounding_box()
            assert stage
            texts = [text.bounding_box() for text in figure.locator(".role-legend text").all()]
            boxes = [box for box in texts if box and box["width"]]
            assert len(boxes) >= 8
            for box in boxes:
                assert stage["x"] <= box["x"] <= box["x"] + box["width"] <= stage["x"] + stage["width"]
                assert stage["y"] <= box["y"] <= box["y"] + box["height"] <= stage["y"] + stage["height"]
            for one, other in itertools.combinations(boxes, 2):
                beside = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
                above = one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"]
                assert beside or above
            assert _overflow(page) == 0


def test_the_skip_link_is_the_first_stop_and_leads_to_the_claims(opened: Opened) -> None:
    with opened() as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert json.loads(page.evaluate("JSON.stringify(document.activeElement.id)")) == "claims"
