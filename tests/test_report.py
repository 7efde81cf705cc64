"""Tests of the report's data, charts and page, without a browser."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_examples import GRID, GROUPS, HOSTILE, dated, document, three_runs

from mli_check import catalogue
from mli_check.errors import ReportError
from mli_check.report import charts, curves, data, html, merge, numbers

# ---- data


def test_every_claim_of_the_catalogue_appears_once_in_the_order_of_the_catalogue():
    content = data.build([document()])
    assert [claim.id for claim in content.claims] == sorted(catalogue.ids(), key=catalogue.natural_key)


def test_every_record_appears_under_its_claim():
    example = document()
    content = data.build([example])
    found = sorted((claim.id, result.subject) for claim in content.claims for result in claim.results)
    assert found == sorted((record["claim"], record["subject"]) for record in example["records"])


def test_statements_and_readings_come_from_the_catalogue():
    claims = {claim.id: claim for claim in data.build([document()]).claims}
    known = catalogue.get("T22")
    entry = claims["T22"]
    assert (entry.statement, entry.where, entry.outcome) == (known.statement, known.where, known.outcome)
    assert (entry.reading, entry.paper_title) == (known.reading, known.paper_title)
    assert entry.paper_short == catalogue.PAPERS[known.paper].short


def test_verdicts_are_counted_by_result_and_states_by_claim():
    example = document()
    content = data.build([example])
    assert content.verdicts == {"reproduced": 14, "not reproduced": 2, "inconclusive": 4}
    assert content.states["judged"] == len({record["claim"] for record in example["records"]})
    assert sum(content.states.values()) == len(catalogue.CLAIMS)


def test_a_claim_without_a_result_is_planned_or_not_run():
    example = document()
    example["records"] = []
    for claim in data.build([example]).claims:
        known = catalogue.get(claim.id)
        assert claim.state == ("planned" if known.planned else "not run")
        assert claim.note


def test_a_changed_expectation_is_one_that_exists_and_differs():
    changed = [result.anchor for result in data.build([document()]).results if result.changed]
    assert changed == ["T2-vgg-bn-digits", "T22-fcn4-digits-gaussian"]


def test_a_claim_that_the_catalogue_does_not_have_is_shown_after_the_others():
    example = document(curves=3)
    example["records"][0]["claim"] = "Q7"
    last = data.build([example]).claims[-1]
    assert (last.id, last.state, len(last.results)) == ("Q7", "judged", 1)


def test_each_result_keeps_the_run_it_came_from():
    content = data.build(three_runs())
    assert {(result.scale, result.device, result.run.number) for result in content.results} == {
        ("quick", "cpu", 1), ("quick", "cpu", 2), ("standard", "cuda", 2), ("paper", "cuda", 3)
    }  # fmt: skip
    assert [dict(run.versions)["torch"] for run in content.runs] == ["2.15.0", "2.16.1", "2.16.1"]
    assert content.devices == ("cpu", "cuda")


def test_ids_are_unique_even_where_claims_subjects_and_scales_run_together():
    examples = three_runs()
    examples[0]["records"][0]["subject"] = "fcn4-mnist-standard"
    content = data.build(examples)
    ids = [claim.anchor for claim in content.claims] + [result.anchor for result in content.results]
    ids += [chart.id for chart in content.charts]
    assert len(ids) == len(set(ids))


def test_a_run_that_was_cut_short_is_dated_by_its_start_and_says_so():
    example = document(curves=3)
    example["finished"] = None
    assert data.build([example]).dates == ("2026-02-03 08:30 UTC",)
    assert "the run was cut short" in html.render([example])


def test_counts_of_nothing_are_left_out():
    example = document(curves=3)
    example["records"] = example["records"][:1]
    example["records"][0] |= {"networks": 0, "needed": 20000, "threads": 1}
    (result,) = data.build([example]).results
    assert (result.networks, result.needed, result.threads) == ("", "20\N{NARROW NO-BREAK SPACE}000", "1")


def test_no_document_is_an_error():
    with pytest.raises(ReportError, match="mli-check run"):
        data.build([])


@pytest.mark.parametrize(
    ("value", "low", "high", "unit", "expected"),
    [
        (0.0123, 0.00312, 0.0214, "", ("0.0123", "[0.0031, 0.0214]")),
        (0.0004, -0.0012, 0.0021, "", ("0.00040", "[−0.00120, 0.00210]")),
        (-1e-9, None, 0.5, "", ("0.000", "[−∞, 0.500]")),
        (95.0, 88.8249, 97.846, "%", ("95.0%", "[88.8, 97.8]")),
        (12.0, None, None, "networks", ("12\N{NO-BREAK SPACE}networks", "")),
        (0.0, 0.0, 0.0, "", ("0", "[0, 0]")),
        (5.563e-7, None, None, "", ("5.56e−07", "")),
        (1234567.8, None, None, "", ("1.23e+06", "")),
        (None, None, None, "", ("—", "")),
        (None, 0.1, 0.2, "", ("—", "[0.100, 0.200]")),
    ],
)
def test_a_value_and_its_interval_share_their_decimals(value, low, high, unit, expected):
    assert numbers.interval(value, low, high, unit) == expected


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (1.2, "1.2 s"), (240, "4 min"), (9000, "2.5 h")])
def test_a_duration_reads_as_one_would_say_it(seconds, text):
    assert numbers.duration(seconds) == text


# ---- several documents


@st.composite
def several_documents(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Two or three documents whose records overlap; no two records bear the same date."""
    identity = st.tuples(st.sampled_from(["T1", "T2"]), st.sampled_from("ab"), st.sampled_from(["quick", "paper"]))
    documents = [document(curves=1) for _ in range(draw(st.integers(2, 3)))]
    kept = [draw(st.lists(identity, unique=True, max_size=4)) for _ in documents]
    minutes = iter(draw(st.permutations(range(sum(map(len, kept))))))
    for made, identities in zip(documents, kept, strict=True):
        made["records"] = made["records"][: len(identities)]
        for record, (claim, subject, scale) in zip(made["records"], identities, strict=True):
            record |= {"claim": claim, "subject": subject, "scale": scale}
            record["date"] = f"2026-05-01T10:{next(minutes):02d}:00+00:00"
    return documents


several = settings(max_examples=40, deadline=None)


@several
@given(several_documents(), st.randoms())
def test_the_order_of_the_documents_does_not_matter(documents, random):
    shuffled = random.sample(documents, len(documents))
    assert data.build(documents) == data.build(shuffled)


@several
@given(several_documents())
def test_a_document_given_twice_counts_once(documents):
    assert data.build(documents) == data.build(documents + copy.deepcopy(documents)) == data.build(documents[::-1] * 2)


@several
@given(several_documents())
def test_every_record_of_every_document_is_a_result_or_an_earlier_one_and_results_are_the_newest(documents):
    merged = merge.merge(documents)
    records = [record for made in merged.documents for record in made["records"]]
    found = [entry.record for judged in merged.judged for entry in (judged.newest, *judged.earlier)]
    assert sorted(record["date"] for record in found) == sorted(record["date"] for record in records)
    for judged in merged.judged:
        dates = [entry.record["date"] for entry in (judged.newest, *judged.earlier)]
        assert dates == sorted(dates, reverse=True)


def test_the_newest_result_counts_and_the_one_it_replaced_is_told_with_its_verdict():
    content = data.build(three_runs())
    results = {result.anchor: result for result in content.results}
    assert [anchor for anchor, result in results.items() if result.earlier] == ["T1-fcn4-digits", "T2-fcn4-digits"]
    changed = results["T2-fcn4-digits"]
    (old,) = changed.earlier
    assert (changed.verdict, changed.date, changed.run.number) == ("inconclusive", "2026-06-20 09:01 UTC", 2)
    assert (old.verdict, old.date, old.device, old.run.number) == ("reproduced", "2026-02-03 09:01 UTC", "cpu", 1)
    assert old.figure != changed.figure
    assert changed.wavered == ("reproduced",)
    assert results["T1-fcn4-digits"].wavered == ()


def test_replaced_results_are_not_counted():
    examples = three_runs()
    content = data.build(examples)
    total = sum(len(made["records"]) for made in examples)
    assert sum(content.verdicts.values()) == len(content.results) == total - 2
    assert content.verdicts == {"reproduced": 19, "not reproduced": 4, "inconclusive": 7}
    changed = [result.anchor for result in content.results if result.changed]
    assert changed[:3] == ["T1-vgg16-bn-cifar10-standard", "T1-vgg16-bn-cifar10-paper", "T2-fcn4-digits"]


def test_of_two_results_of_the_same_date_the_one_given_later_counts():
    one, other = document(curves=1), document(curves=1)
    for record in other["records"]:
        record["verdict"] = "inconclusive"
    assert data.build([one, other]).verdicts["inconclusive"] == 20
    assert data.build([other, one]).verdicts["inconclusive"] == 4
    assert data.build([one, other, one]).verdicts["inconclusive"] == 4


def test_dates_are_compared_as_times_not_as_texts():
    one, other = document(curves=1), document(curves=1)
    other["records"] = copy.deepcopy(one["records"][:1])
    one["records"][0]["date"] = "2026-02-03T10:30:00+02:00"
    other["records"][0] |= {"date": "2026-02-03T09:00:00", "networks": 11}
    for order in ([one, other], [other, one]):
        assert data.build(order).results[0].networks == "11"


def test_what_a_killed_run_had_recorded_is_not_an_earlier_result_of_the_run_itself():
    whole = document(curves=1)
    killed = copy.deepcopy(whole) | {"finished": None}
    killed["records"] = killed["records"][:7]
    content = data.build([whole, killed])
    assert content == data.build([killed, whole])
    assert len(content.results) == 20
    assert [result.earlier for result in content.results] == [()] * 20
    assert {result.run.finished for result in content.results} == {"2026-02-03 09:12 UTC"}
    assert [run.number for run in content.runs] == [1, 2]


def test_a_row_has_a_place_for_every_scale_and_small_scales_come_first():
    examples = three_runs()
    extra = document("zeta", curves=1)
    extra["records"] = [*extra["records"][:1], extra["records"][2] | {"scale": "alpha"}]
    content = data.build([*examples, extra, document("smoke", curves=1)])
    assert content.scales == ("quick", "smoke", "standard", "paper", "alpha", "zeta")
    claims = {claim.id: claim for claim in data.build(examples).claims}
    rows = {row.subject: row for row in claims["T1"].rows}
    quick = ["fcn4-digits", "lenet-digits", "vgg-bn-digits"]
    assert list(rows) == [*quick, "fcn4-mnist", "vgg16-bn-cifar10", "resnet20-cifar10"]
    found = [result and result.verdict for result in map(rows["vgg16-bn-cifar10"].at, ("quick", "standard", "paper"))]
    assert found == [None, "inconclusive", "not reproduced"]
    assert [result.scale for result in claims["L6"].rows[0].results] == ["quick", "standard", "paper"]


def test_a_test_that_two_runs_skipped_is_counted_once():
    content = data.build(three_runs())
    assert (content.skipped, content.failed) == (2, 3)


# ---- charts


@pytest.fixture
def chart() -> dict[str, Any]:
    found: dict[str, Any] = document()["records"][5]["charts"][0]
    assert any(None in series["y"] for series in found["series"])
    return found


def test_a_chart_carries_every_number_exactly_and_once(chart):
    spec = json.loads(json.dumps(charts.spec(chart)))
    (grid,) = [param["value"] for param in spec["params"] if param["name"] == "grid"]
    rows = spec["data"]["values"]
    assert grid == chart["x"] == GRID
    assert [{key: row[key] for key in ("group", "label", "y")} for row in rows] == chart["series"]
    assert spec["data"]["name"] == curves.DATA
    assert json.dumps(spec).count(str(rows[7]["y"][25])) == 1


def test_colours_go_by_group_in_the_order_of_the_document(chart):
    for layer in charts.spec(chart)["layer"]:
        assert layer["encoding"]["color"]["field"] == "group"
        assert layer["encoding"]["color"]["scale"]["domain"] == list(GROUPS)


def test_the_description_says_what_is_drawn(chart):
    description = charts.spec(chart)["description"]
    assert description.startswith("Test error along the three paths: 30 curves of test error against alpha")


def test_charts_compile_even_with_hostile_names(chart):
    vl_convert = pytest.importorskip("vl_convert")
    chart["x_label"] = chart["y_label"] = chart["title"] = HOSTILE
    chart["series"][0]["group"] = HOSTILE
    compiled = vl_convert.vegalite_to_vega(charts.spec(chart))
    assert {item["name"] for item in compiled["data"]} >= {curves.DATA, "data_0"}


# ---- the page


class _Reader(HTMLParser):
    """Collects what the tests ask of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture(scope="module")
def page() -> str:
    return html.render([document()])


def test_the_page_stays_under_three_megabytes(page):
    assert len(page.encode()) < 3e6


def test_hostile_text_stays_text(page):
    assert page.count("window.broken = 1</script>") == 0
    empty = document()
    empty["records"] = []
    assert _Reader(page).count("script") == _Reader(html.render([empty])).count("script")
    assert HOSTILE in "".join(_Reader(page).text)


def test_json_survives_the_script_element():
    value = {"text": HOSTILE, "number": 0.1 + 0.2, "gap": None}
    written = html.json_for_script(value)
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == value


def test_nothing_on_the_page_points_outside(page):
    for tag, attributes in _Reader(page).tags:
        assert tag not in ("img", "iframe", "object", "embed")
        for name in ("src", "href", "action", "poster", "srcset"):
            target = attributes.get(name) or "#"
            assert target.startswith("#") or target == "data:,", (tag, attributes)


def test_the_table_reads_without_javascript(page):
    text = " ".join(" ".join(_Reader(page).text).split())
    for claim in data.build([document()]).claims:
        for result in claim.results:
            assert f"{result.figure} {result.interval} {result.figure_label}".replace("  ", " ") in text
    assert "expected: reproduced" in text
    assert "Without JavaScript" in text


def test_ids_on_the_page_are_unique_and_links_reach_them(page):
    tags = _Reader(page).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "T1" in ids
    links = {str(attributes["href"]) for tag, attributes in tags if tag == "a"}
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_tests_that_failed_or_were_skipped_are_told(page):
    text = " ".join(" ".join(_Reader(page).text).split())
    assert "20 passed, 1 failed, 2 skipped" in text
    assert "test_t1_monotone[vgg8-cifar10] needs CUDA" in text


@pytest.fixture(scope="module")
def merged_page() -> str:
    return html.render(three_runs(30))


def text_of(page: str) -> str:
    return " ".join("".join(_Reader(page).text).split())


def heads_of(page: str) -> list[str]:
    head = page.split('<table class="claims')[1].split("</thead>")[0].split("<thead>")[1]
    return [text.strip() for text in _Reader(head).text if text.strip()]


def test_with_one_scale_the_table_has_its_columns_and_says_where_figures_come_from_in_the_detail(page):
    assert heads_of(page) == ["Claim", "In the paper", "Subject", "Found here", "Verdict"]
    assert "not judged at this scale" not in page
    made = "quick · cpu, 1 thread · 2026-02-03 09:01 UTC · 1.2 s"
    versions = "mli-check 0.1.0 · python 3.11.7 · torch 2.15.0 · torchvision 0.30.0 · numpy 2.4.1"
    assert text_of(page).count(f"{made} {versions}") == 20


def test_with_several_scales_each_has_a_column(merged_page):
    assert heads_of(merged_page) == ["Claim and subject", "Quick scale", "Standard scale", "Paper scale"]
    table = merged_page.split('<table class="claims')[1].split("</table>")[0]
    content = data.build(three_runs(30))
    cells = [attributes for tag, attributes in _Reader(table).tags if tag == "td" and "data-verdict" in attributes]
    assert len(cells) == len(content.results)
    rows = sum(len(claim.rows) for claim in content.claims)
    assert table.count("not judged at this scale") == 3 * rows - len(content.results)
    links = [attributes.get("href") for tag, attributes in _Reader(table).tags if tag == "a"]
    assert {f"#{result.anchor}" for result in content.results} <= set(links)
    text = text_of(table)
    for result in content.results:
        assert f"{result.interval} {result.figure_label} {result.device} · {result.date[:10]}" in text


def test_every_figure_stands_beside_what_made_it(merged_page):
    text = text_of(merged_page)
    assert "paper · cuda · 2026-11-24 09:01 UTC · 1.2 s · run 3 mli-check 0.1.0 · python 3.11.7 · torch 2.16.1" in text
    assert "quick · cpu, 1 thread · 2026-06-20 09:01 UTC · 1.2 s · run 2 mli-check" in text
    assert "vgg16-bn-cifar10 at paper scale" in text


def test_an_earlier_result_is_told_and_another_verdict_shown(merged_page):
    article = merged_page.split('<article class="result" id="T2-fcn4-digits"')[1].split("</article>")[0]
    (old,) = next(result for result in data.build(three_runs(30)).results if result.anchor == "T2-fcn4-digits").earlier
    text = text_of(article)
    assert "? inconclusive ⚠ expected: reproduced earlier: reproduced" in text
    label = f"{old.figure} {old.interval} {old.figure_label}".replace("  ", " ")
    assert f"Earlier result ✓ reproduced {label} cpu · 2026-02-03 09:01 UTC · run 1" in text
    table = merged_page.split('<table class="claims')[1].split("</table>")[0]
    assert table.count("earlier: reproduced") == 1


def test_an_earlier_result_of_another_command_says_which():
    other = dated(document(curves=1), "2026-08-09")
    other["records"][0]["reproduce"] = "mli-check run T1 --seed-offset 1000"
    text = text_of(html.render([document(curves=1), other]))
    assert text.count("2026-02-03 09:01 UTC · run 1 · mli-check run T1 --scale quick") == 1
    assert text.count("2026-02-03 09:01 UTC · run 1") == 20


def test_every_run_has_its_environment_and_can_be_reached(merged_page):
    tags = _Reader(merged_page).tags
    runs = [attributes["id"] for _, attributes in tags if attributes.get("class") == "run"]
    assert runs == ["run-1", "run-2", "run-3"]
    test_ids_on_the_page_are_unique_and_links_reach_them(merged_page)


def test_the_page_is_the_same_for_every_order_of_the_documents(merged_page):
    first, second, third = three_runs(30)
    assert html.render([third, first, second, first]) == merged_page
    test_the_page_stays_under_three_megabytes(merged_page)


def test_a_document_from_before_some_keys_were_there_is_drawn():
    example = document(curves=1)
    del example["environment"]["torchvision"]
    for record in example["records"]:
        for key in ("threads", "needed_unit", "scale"):
            record.pop(key, None)
    text = text_of(html.render([example, *three_runs(1)[1:]]))
    assert "quick · cpu · 2026-02-03 09:01 UTC · 1.2 s · run 1 mli-check 0.1.0" in text
    assert "torch 2.15.0 · numpy 2.4.1" in text
    assert "Sample size that would decide" in text


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("αθ_F + θ_F.", "αθ<sub>F</sub> + θ<sub>F</sub>."),
        ("(α_l b_{l+1})^2", "(α<sub>l</sub> b<sub>l+1</sub>)^2"),
        ("n^(−1/2)", "n<sup>−1/2</sup>"),
        ("‖K‖_F < 1", "‖K‖<sub>F</sub> &lt; 1"),
        ("batch_norm of norm_l and mli_check", "batch_norm of norm_l and mli_check"),
        ("a_{<b>}", "a<sub>&lt;b&gt;</sub>"),
    ],
)
def test_indices_are_set_as_indices_and_names_left_alone(text, marked):
    assert html.typeset(text) == marked


# ---- writing


def test_the_report_is_written_where_it_was_asked_for(tmp_path):
    destination = tmp_path / "report.html"
    assert html.write_report([document(curves=3)], destination) == destination
    assert destination.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [item.name for item in tmp_path.iterdir()] == ["report.html"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ReportError, match=r"the folder '.*nowhere' does not exist"):
        html.write_report([document(curves=3)], tmp_path / "nowhere" / "report.html")


def test_a_folder_in_the_way_is_told_and_nothing_is_left(tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(ReportError, match="cannot write the report to"):
        html.write_report([document(curves=3)], tmp_path / "report.html")
    assert [item.name for item in tmp_path.iterdir()] == ["report.html"]


def test_a_failure_leaves_the_old_report_as_it_was(tmp_path, monkeypatch):
    destination = tmp_path / "report.html"
    destination.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ReportError, match="No space left on device"):
        html.write_report([document(curves=3)], destination)
    assert destination.read_text() == "old"
    assert list(tmp_path.iterdir()) == [destination]


@pytest.mark.parametrize(
    ("module", "package"), [("altair", "altair"), ("jinja2", "jinja2"), ("vl_convert", "vl-convert-python")]
)
def test_a_missing_library_is_named_with_its_package(module, package, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    html.drawing_library.cache_clear()
    curves._frame.cache_clear()
    with pytest.raises(ReportError, match=f"pip install {package}"):
        html.render([document(curves=3)])


def test_importing_the_report_loads_none_of_its_libraries():
    heavy = ("altair", "jinja2", "vl_convert", "torch", "numpy")
    code = f"import sys, mli_check.report.html; print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parents[1]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
