"""Tests of docs/claims.md and of the kept results that it is written from."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import module_at
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from report_examples import HOSTILE

from mli_check import catalogue, results
from mli_check.comparison import Kind, compare
from mli_check.errors import ReportError, ResultsError
from mli_check.report.claims_page.declared import ClaimTest, claim_tests
from mli_check.report.claims_page.kept import KEPT, Results, forget, keep, load, public
from mli_check.report.claims_page.markdown import code, escape, table
from mli_check.report.claims_page.page import Sources, page
from mli_check.results import Chart, Series
from mli_check.statistics import Verdict
from mli_check.verdicts import Figure, Ruling

ROOT = Path(__file__).parents[1]
GONE = "## Results of what is gone"
RULE = "Reproduced if the rise of alpha * theta_F stays below 5%; else inconclusive."
PLACES = (("fcn4-digits", "quick"), ("vgg-digits", "quick"), ("fcn4-mnist", "standard"), ("fcn4-mnist", "paper"))
TESTS = (ClaimTest("T1", RULE, PLACES), ClaimTest("T4", "Another rule.", PLACES), ClaimTest("L11", "A rule.", None))


def a_record(claim: str = "T1", subject: str = "fcn4-digits", scale: str = "quick", **changes: Any) -> dict[str, Any]:
    """A record as a run writes it, with a chart and settings, and with some of its values changed."""
    device = "cpu" if scale == "quick" else "cuda"
    ruling = Ruling(
        verdict=Verdict.REPRODUCED,
        reason="none of 10 networks rises",
        figure=Figure(label="largest rise", value=0.01234567891, low=-0.002, high=0.0213),
        details={"networks": 10, "smallest margin": 0.04123456789},
    )
    made = results.record(
        claim=claim, subject=subject, scale=scale, ruling=ruling, criterion=RULE, expected="reproduced",
        charts=[Chart("Curves", "alpha", "error", [0.0, 1.0], [Series("own", "seed 0", [0.9, 0.1])])],
        settings=[("ab" * 32, "fcn")], networks=10, device=device, threads=1, seconds=2.5,
    )  # fmt: skip
    return made | {"date": "2026-03-01T10:00:00+00:00"} | changes


def a_run(*records: dict[str, Any], day: str = "2026-03-01", **changes: Any) -> dict[str, Any]:
    """The results of a run on a day, when its records were made too."""
    document = results.new_document("mli-check run", "quick", "cpu")
    document |= {"created": f"{day}T09:00:00+00:00", "finished": f"{day}T11:00:00+00:00"}
    dated = [record | {"date": f"{day}T10:00:00+00:00"} for record in records]
    return document | {"records": copy.deepcopy(dated)} | changes


def kept(folder: Path, *documents: dict[str, Any]) -> Results:
    """What is there to load once these are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    keep(documents, folder)
    return load(folder)


def written(folder: Path, *records: dict[str, Any], tests: tuple[ClaimTest, ...] = TESTS) -> str:
    """The page of the catalogue and one run with these records."""
    return page(Sources(catalogue.CLAIMS, catalogue.PAPERS, tests, kept(folder, a_run(*records))))


def section(text: str, claim: str) -> str:
    """A claim's part of the page."""
    return text.partition(f'<a id="{claim}"></a>')[2].partition('<a id="')[0].partition("\n## ")[0]


def script(root: Path = ROOT) -> ModuleType:
    """scripts/claims_page.py, told that the repository is at `root`."""
    module = module_at(ROOT / "scripts" / "claims_page.py", "claims_page_script")
    module.ROOT = root  # type: ignore[attr-defined]
    return module


def rendered(text: str) -> list[list[str]]:
    """The text that a reader sees: a list a table row, a list of one a paragraph."""
    rows: list[list[str]] = []
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for token in parser.parse(text):
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline":
            seen = "".join(part.content for part in token.children or [] if part.type != "html_inline")
            if token.level >= 4:  # inside a row
                rows[-1].append(seen)
            else:
                rows.append([seen])
    return rows


# ---- The committed page


def test_the_committed_page_is_what_catalogue_claims_and_kept_results_say() -> None:
    written_now = page(script().sources())
    committed = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    assert committed == written_now, "run: python scripts/claims_page.py"


def test_the_kept_results_are_of_known_scales_and_name_no_place_on_a_machine() -> None:
    found = load(ROOT / "docs" / "results")
    assert found.records
    assert {record["scale"] for record in found.records} <= {"quick", "standard", "paper"}
    assert [run["command"] for run in found.runs.values() if "/" in run["command"]] == []


# ---- What the page says


def test_every_claim_of_the_catalogue_stands_once_and_in_order_with_an_anchor(tmp_path: Path) -> None:
    text = written(tmp_path, a_record())
    anchors = re.findall(r'<a id="([^"]+)"></a>', text)
    assert [name for name in anchors if not name.startswith("run-")] == list(catalogue.ids())
    assert re.findall(r"^### (.+)$", text, flags=re.MULTILINE) == list(catalogue.ids())


def test_every_link_within_the_page_leads_to_a_place_on_it(tmp_path: Path) -> None:
    text = written(tmp_path, a_record(), a_record("T4", "fcn4-mnist", "paper"))
    links = re.findall(r"\]\(#([^)]+)\)", text)
    assert len(links) == len(catalogue.ids()) + 2
    assert set(links) == set(re.findall(r'<a id="([^"]+)"></a>', text))


@pytest.mark.parametrize("field", ["statement", "where", "outcome", "reading"])
def test_a_changed_text_of_the_catalogue_changes_the_page(tmp_path: Path, field: str) -> None:
    sources = Sources(catalogue.CLAIMS, catalogue.PAPERS, TESTS, kept(tmp_path, a_run(a_record())))
    changed = [replace(claim, **{field: "A new text"}) if claim.id == "T4" else claim for claim in catalogue.CLAIMS]
    text = page(replace(sources, claims=changed))
    assert "A new text" in section(text, "T4")
    assert text != page(sources)


def test_a_changed_verdict_changes_the_table_and_the_counts(tmp_path: Path) -> None:
    before = written(tmp_path / "before", a_record())
    after = written(tmp_path / "after", a_record(verdict="not reproduced"))
    assert "| [T1](#T1) | Tao et al. 2024 | 1 reproduced |  |" in before
    assert "| [T1](#T1) | Tao et al. 2024 | 1 not reproduced | 1 not as expected |" in after
    assert "| `fcn4-digits` | quick | reproduced | largest rise: 0.0123 \\[−0.0020, 0.0213\\] |  |" in before
    assert "| `fcn4-digits` | quick | **not reproduced** (expected: reproduced) |" in after


def test_a_claim_that_is_planned_says_why_and_one_without_a_result_says_where_it_waits(tmp_path: Path) -> None:
    text = written(tmp_path, a_record())
    planned = [claim for claim in catalogue.CLAIMS if claim.planned]
    for claim in planned:
        assert f"- **Planned:** no test covers it yet; it {escape(claim.planned)}" in section(text, claim.id)
        assert re.search(rf"^\| \[{claim.id}\]\(#{claim.id}\) \|.*\| planned \|$", text, flags=re.MULTILINE)
    assert "- **Planned:**" not in section(text, "T4")
    assert "| [T4](#T4) | Tao et al. 2024 | — | not judged yet |" in text
    waiting = "- Not judged yet: quick: `fcn4-digits`, `vgg-digits`; standard: `fcn4-mnist`; paper: `fcn4-mnist`."
    assert waiting in section(text, "T4")
    assert "- Not judged yet: quick: `vgg-digits`; standard:" in section(text, "T1")


def test_a_claim_judged_at_two_scales_shows_both_with_date_and_device(tmp_path: Path) -> None:
    quick = a_run(a_record(), day="2026-03-01")
    large = a_run(a_record(subject="fcn4-mnist", scale="standard"), day="2026-04-02")
    text = page(Sources(catalogue.CLAIMS, catalogue.PAPERS, TESTS, kept(tmp_path, quick, large)))
    rows = [row for row in rendered(section(text, "T1")) if len(row) == 7][1:]
    assert [(row[0], row[1], row[5], row[6]) for row in rows] == [
        ("fcn4-digits", "quick", "2026-03-01", "cpu"),
        ("fcn4-mnist", "standard", "2026-04-02", "cuda"),
    ]
    assert "| claim | paper | quick | standard | state |" in text
    assert "| [T1](#T1) | Tao et al. 2024 | 1 reproduced | 1 reproduced |  |" in text
    assert text.count("| `mli-check run` | 1 | mli\\_check ") == 2


def test_rows_follow_the_order_of_the_test_within_a_scale(tmp_path: Path) -> None:
    places = [("fcn4-mnist", "paper"), ("vgg-digits", "quick"), ("fcn4-mnist", "standard"), ("fcn4-digits", "quick")]
    text = written(tmp_path, *(a_record(subject=name, scale=scale) for name, scale in places))
    rows = [row for row in rendered(section(text, "T1")) if len(row) == 7][1:]
    assert [(row[0], row[1]) for row in rows] == list(PLACES)


def test_only_a_verdict_that_differs_from_the_expected_one_is_marked(tmp_path: Path) -> None:
    records = [
        a_record(verdict="inconclusive", expected="inconclusive"),
        a_record(subject="vgg-digits", verdict="inconclusive", expected="reproduced"),
        a_record("T4", verdict="not reproduced", expected=None),
    ]
    text = written(tmp_path, *records)
    assert text.count("(expected:") == 1
    assert "| `vgg-digits` | quick | **inconclusive** (expected: reproduced) |" in text
    assert "3 verdicts: 1 not reproduced, 2 inconclusive; 1 of them not as the claim's test expects." in text
    assert "| [T1](#T1) | Tao et al. 2024 | 2 inconclusive | 1 not as expected |" in text
    assert "| [T4](#T4) | Tao et al. 2024 | 1 not reproduced |  |" in text


def test_a_verdict_that_is_better_than_expected_comes_with_the_tests_remark(tmp_path: Path) -> None:
    odd = a_record(expected="inconclusive", expected_reason="3 of 10 rise elsewhere")
    text = written(tmp_path, odd, a_record("T4", expected_reason="of other subjects"))
    assert "| **reproduced** (expected: inconclusive) |" in section(text, "T1")
    assert "- Remark of the test: 3 of 10 rise elsewhere.\n" in section(text, "T1")
    assert "of other subjects" not in section(text, "T4")


@pytest.mark.parametrize(
    ("needed", "unit", "shown"), [(2400, "test examples", "2400 test examples"), (None, "", "no size known")]
)
def test_an_inconclusive_verdict_names_the_sample_size_that_would_decide(
    tmp_path: Path, needed: int | None, unit: str, shown: str
) -> None:
    found = written(tmp_path, a_record(verdict="inconclusive", needed=needed, needed_unit=unit))
    rows = [row for row in rendered(section(found, "T1")) if len(row) == 7]
    assert rows[0][4] == "would decide"
    assert rows[1][4].replace("\N{NO-BREAK SPACE}", " ") == shown


def test_a_verdict_other_than_reproduced_comes_with_its_reason_and_the_tests_remark(tmp_path: Path) -> None:
    odd = a_record(verdict="not reproduced", reason="3 of 10 rise", expected_reason="near chance level.")
    text = section(written(tmp_path, odd, a_record(subject="vgg-digits", reason="all well")), "T1")
    assert "- `fcn4-digits` (quick): 3 of 10 rise.\n" in text
    assert "- Remark of the test: near chance level.\n" in text
    assert "all well" not in text


def test_a_criterion_stands_once_for_all_subjects_and_an_earlier_wording_beside_it(tmp_path: Path) -> None:
    text = section(written(tmp_path, a_record(), a_record(subject="vgg-digits")), "T1")
    assert text.count("Reproduced if the rise") == 1
    rewrapped = section(written(tmp_path / "b", a_record(criterion=RULE.replace(" stays", "\n    stays"))), "T1")
    assert "as worded" not in rewrapped
    earlier = a_record(criterion="Reproduced if it falls.")
    text = section(written(tmp_path / "c", earlier, a_record(subject="vgg-digits")), "T1")
    assert f"- **Criterion:** {escape(RULE)}\n" in text
    assert "- **Criterion as worded when fcn4-digits (quick) was judged:** Reproduced if it falls.\n" in text


def test_a_result_whose_claim_or_subject_is_gone_is_named_and_counts_nowhere(tmp_path: Path) -> None:
    odd = [a_record("Q7"), a_record("T2"), a_record(subject="gone-digits"), a_record(subject="fcn4-digits")]
    text = written(tmp_path, *odd)
    listed = [row[:2] for row in rendered(text.partition(GONE)[2]) if len(row) == 5][1:]
    assert listed == [["T1", "gone-digits"], ["T2", "fcn4-digits"], ["Q7", "fcn4-digits"]]
    assert "1 verdicts: 1 reproduced; 0 of them" in text
    assert "gone-digits" not in section(text, "T1")
    assert GONE not in written(tmp_path / "whole", a_record())


def test_a_test_whose_subjects_only_a_run_can_tell_owns_every_result_of_its_claim(tmp_path: Path) -> None:
    text = written(tmp_path, a_record("L11", "anything"))
    assert GONE not in text
    assert "| `anything` | quick | reproduced |" in section(text, "L11")


def test_hostile_texts_stay_text_and_leave_the_tables_whole(tmp_path: Path) -> None:
    odd = a_record(verdict="inconclusive", reason=HOSTILE, expected_reason=f"a | b {HOSTILE}", device="c|u_d*a")
    odd["figure"]["label"] = "|x| **bold** <b>"
    text = written(tmp_path, odd)
    assert "<script" not in text.replace("\\<script", "")
    rows = rendered(section(text, "T1"))
    assert [len(row) for row in rows if len(row) > 1] == [7, 7]
    cells = next(row for row in rows if row[0] == "fcn4-digits")
    assert cells[3].startswith("|x| **bold** <b>: 0.0123")
    assert cells[6] == "c|u_d*a"
    assert sum("</script><script>window.broken = 1</script><!-- &" in row[0] for row in rows) == 2


# ---- Markdown


@pytest.mark.parametrize("character", list("|*_<`[]\\~$&"))
def test_a_character_that_is_markup_is_escaped(character: str) -> None:
    assert escape(f"a{character}b") == f"a\\{character}b"


@pytest.mark.parametrize("text", ["- item", "+ item", "12) item", "# title", "> quote", "---", "<b>", "&lt;"])
def test_what_would_open_a_list_or_heading_or_name_an_entity_is_text(text: str) -> None:
    assert rendered(escape(text)) == [[text]]


@given(st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from("|*_<>`[]()\\~$&#-+=:!1. "), min_size=1))
def test_any_text_reads_the_same_in_a_paragraph_and_in_a_table(text: str) -> None:
    wanted = " ".join(text.split()) or "empty"
    assert rendered(escape(wanted)) == [[wanted]]
    assert rendered("\n".join(table(["a", "b"], [[escape(wanted), "x"]]))) == [["a", "b"], [wanted, "x"]]


@given(st.text(st.sampled_from("|`ab \\*_<"), min_size=1).filter(lambda text: text.strip()))
def test_any_text_reads_the_same_as_code_in_a_table(text: str) -> None:
    wanted = " ".join(text.split())
    assert rendered("\n".join(table(["a", "b"], [[code(wanted), "x"]]))) == [["a", "b"], [wanted, "x"]]


# ---- Keeping results


def test_a_kept_record_has_no_charts_settings_or_seconds_and_six_digits(tmp_path: Path) -> None:
    record = kept(tmp_path, a_run(a_record())).records[0]
    assert set(record) == {*KEPT, "run"}
    assert record["figure"] == {"label": "largest rise", "value": 0.0123457, "low": -0.002, "high": 0.0213, "unit": ""}
    assert record["details"] == {"networks": 10, "smallest margin": 0.0412346}
    assert not {"charts", "settings", "seconds"} & set(record)


def test_the_environment_of_each_run_is_kept(tmp_path: Path) -> None:
    first, second = a_run(a_record()), a_run(a_record("T4"), day="2026-03-02")
    second["environment"] |= {"torch": "9.9"}
    found = kept(tmp_path, first, second)
    by_claim = {record["claim"]: found.runs[record["run"]]["environment"] for record in found.records}
    assert by_claim == {"T1": first["environment"], "T4": second["environment"]}


def test_each_scale_has_a_document_of_its_own(tmp_path: Path) -> None:
    both = a_run(a_record(subject="fcn4-mnist", scale="standard"), a_record())
    kept(tmp_path, both)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["quick.json", "standard.json"]
    assert [r["subject"] for r in results.read(tmp_path / "standard.json")["records"]] == ["fcn4-mnist"]


def test_the_newest_record_of_a_claim_and_subject_counts_whichever_is_kept_first(tmp_path: Path) -> None:
    old = a_run(a_record(), a_record("T4"), day="2026-03-01")
    new = a_run(a_record(verdict="not reproduced"), day="2026-03-05")
    for folder, order in (("a", [old, new]), ("b", [new, old])):
        for document in order:
            found = kept(tmp_path / folder, document)
        assert [(r["claim"], r["verdict"]) for r in found.records] == [("T1", "not reproduced"), ("T4", "reproduced")]
    assert (tmp_path / "a" / "quick.json").read_bytes() == (tmp_path / "b" / "quick.json").read_bytes()


def test_keeping_the_same_results_again_changes_no_byte(tmp_path: Path) -> None:
    runs = [a_run(a_record(), a_record("T4")), a_run(a_record("L11", "any"), day="2026-03-02")]
    kept(tmp_path, *runs)
    before = (tmp_path / "quick.json").read_bytes()
    kept(tmp_path, runs[0])
    kept(tmp_path, *reversed(runs))
    assert (tmp_path / "quick.json").read_bytes() == before


def test_a_run_whose_records_were_all_replaced_is_dropped(tmp_path: Path) -> None:
    found = kept(tmp_path, a_run(a_record(), day="2026-03-01"), a_run(a_record(), day="2026-03-05"))
    assert [run["created"][:10] for run in found.runs.values()] == ["2026-03-05"]


def test_records_are_kept_in_the_order_of_the_catalogue(tmp_path: Path) -> None:
    found = kept(tmp_path, a_run(a_record("L11"), a_record("T10"), a_record("T4", "b"), a_record("T4", "a")))
    assert [(r["claim"], r["subject"]) for r in found.records] == [
        ("T4", "a"), ("T4", "b"), ("T10", "fcn4-digits"), ("L11", "fcn4-digits"),
    ]  # fmt: skip


def test_keeping_says_what_changed(tmp_path: Path) -> None:
    kept(tmp_path, a_run(a_record(), a_record("T4")))
    new = a_run(a_record(verdict="not reproduced"), a_record("L11"), day="2026-03-05")
    changes = keep([new], tmp_path)[tmp_path / "quick.json"]
    assert {kind: len(changes.of(kind)) for kind in Kind if changes.of(kind)} == {
        Kind.FLIPPED: 1, Kind.NEW: 1, Kind.SAME: 1,
    }  # fmt: skip


def test_kept_results_can_be_held_against_a_run(tmp_path: Path) -> None:
    run = a_run(a_record(), a_record("T4"))
    kept(tmp_path, run)
    assert not compare(results.read(tmp_path / "quick.json"), run).failed
    run["records"][0]["verdict"] = "not reproduced"
    assert compare(results.read(tmp_path / "quick.json"), run).failed


def test_what_a_killed_run_had_recorded_can_be_kept(tmp_path: Path) -> None:
    found = kept(tmp_path, a_run(a_record(), finished=None))
    text = page(Sources(catalogue.CLAIMS, catalogue.PAPERS, TESTS, found))
    assert "2026-03-01 09:00 UTC (cut short)" in text


def test_a_smoke_test_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no verdict to keep at the scales smoke; expected records at quick, standa"):
        keep([a_run(a_record(scale="smoke"))], tmp_path)
    keep([a_run(a_record(scale="smoke"), a_record())], tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["quick.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reproduce": "mli-check run T1 --seed-offset 100"}, "T1 on fcn4-digits was judged on other seeds"),
        ({"scale": "../quick"}, r"no verdict to keep at the scales \.\./quick"),
    ],
)
def test_a_record_that_is_no_verdict_of_the_claims_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ResultsError, match=message):
        keep([a_run(a_record(**changes))], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_lacks_something_is_refused_by_name(tmp_path: Path) -> None:
    poor = a_record()
    del poor["criterion"], poor["needed"]
    with pytest.raises(ResultsError, match="the record of T1 on fcn4-digits lacks criterion, needed; make it again"):
        keep([a_run(poor)], tmp_path)


def test_a_document_that_was_not_kept_is_refused_on_loading(tmp_path: Path) -> None:
    results.write(tmp_path / "quick.json", a_run(a_record()))
    with pytest.raises(ResultsError, match=r"quick\.json is not a document of kept results"):
        load(tmp_path)


def test_forgetting_takes_out_these_records_and_runs_that_are_then_empty(tmp_path: Path) -> None:
    gone = a_run(a_record(subject="gone-digits"), day="2026-03-05")
    found = kept(tmp_path, a_run(a_record()), gone, a_run(a_record(subject="fcn4-mnist", scale="paper")))
    forget([record for record in found.records if record["subject"] == "gone-digits"], tmp_path)
    left = load(tmp_path)
    assert [record["subject"] for record in left.records] == ["fcn4-digits", "fcn4-mnist"]
    assert {run["created"][:10] for run in left.runs.values()} == {"2026-03-01"}


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("mli-check run", "mli-check run"),
        ("mli-check run T1 --results /a/b/results.json -n 2 --store=/c", "mli-check run T1 -n 2"),
        ("pytest /home/someone/claims --mli-store /c --mli-results=r.json -q", "pytest claims -q"),
        ("/opt/venv/bin/mli-check run --data-root '/a b'", "mli-check run"),
    ],
)
def test_a_kept_command_names_no_place_on_the_machine(typed: str, shown: str) -> None:
    assert public(typed) == shown


# ---- What the claims declare

CLAIMS_FILE = '''
import pytest

SUBJECTS = ["fcn4-mnist", "fcn4-digits", "my-word"]


@pytest.mark.claim(id="T1")
@pytest.mark.parametrize("subject", SUBJECTS, indirect=True)
def test_a(mli, bench, subject):
    """Reproduced if it
    falls.
    """
    mli.record(None, subject=subject)


@pytest.mark.claim(id="T9", expected="reproduced")
def test_b(mli):
    """Rule b."""
    mli.record(None, subject="softmax")


@pytest.mark.claim(id="X1")
def test_c(mli):
    """Rule c."""
    mli.record(None, charts=[])


@pytest.mark.claim(id="X2")
def test_d(mli):
    """Rule d."""
    mli.record(None, subject=SUBJECTS[0])


def test_e():
    """No claim."""
'''


def test_tests_of_claims_declare_their_criterion_and_where_they_judge(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(CLAIMS_FILE)
    places = (
        ("fcn4-digits", "quick"), ("my-word", "quick"), ("fcn4-mnist", "standard"), ("fcn4-mnist", "paper"),
    )  # fmt: skip
    assert claim_tests(tmp_path) == (
        ClaimTest("T1", "Reproduced if it falls.", places),
        ClaimTest("T9", "Rule b.", (("softmax", "quick"),)),
        ClaimTest("X1", "Rule c.", (("all", "quick"),)),
        ClaimTest("X2", "Rule d.", None),
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named"),
        ("import pytest\npytest.importorskip('no_such_module_anywhere')", "Skipped: could not import"),
    ],
)
def test_a_file_of_claims_that_does_not_load_is_an_error_and_no_skip(tmp_path: Path, source: str, reason: str) -> None:
    (tmp_path / "test_some.py").write_text(source)
    with pytest.raises(ReportError, match=rf"cannot load the claims in test_some\.py: {reason}"):
        claim_tests(tmp_path)


# ---- The script


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script in a repository of its own with a page that is current."""
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "test_some.py").write_text(CLAIMS_FILE)
    (tmp_path / "results.json").write_text(json.dumps(a_run(a_record(), a_record("T9", "softmax"))))
    module = script(tmp_path)
    monkeypatch.setattr(module, "claims_folder", lambda: tmp_path / "claims")
    assert module.main(["--keep", str(tmp_path / "results.json")]) == 0
    return module


def test_the_check_passes_after_keeping_and_fails_for_a_page_that_is_not_current(
    repository: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert repository.main(["--check"]) == 0
    file = tmp_path / "docs" / "claims.md"
    current = file.read_text(encoding="utf-8")
    file.write_text(current.replace("reproduced", "refuted", 1), encoding="utf-8")
    assert repository.main(["--check"]) == 1
    assert "run: python scripts/claims_page.py" in capsys.readouterr().err
    assert repository.main([]) == 0
    assert file.read_text(encoding="utf-8") == current
    file.unlink()
    assert repository.main(["--check"]) == 1
    assert not file.exists()


def test_a_changed_criterion_in_the_claims_makes_the_check_fail(repository: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "claims" / "test_some.py").write_text(CLAIMS_FILE.replace("Rule b.", "Rule b, again."))
    assert repository.main(["--check"]) == 1


def test_keeping_prints_what_changed_and_what_stays_open(
    repository: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    new = a_run(a_record(verdict="inconclusive", reason="8 networks"), a_record(subject="gone"), day="2026-03-05")
    (tmp_path / "new.json").write_text(json.dumps(new))
    assert repository.main(["--keep", str(tmp_path / "new.json"), str(tmp_path / "results.json")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "docs/results/quick.json: 1 wavered, 1 new, 1 same",
        "  T1 on fcn4-digits: reproduced -> inconclusive",
        "docs/claims.md: 85 claims, 3 verdicts",
        "gone: T1 on gone (quick) has a result and no test any more; `python scripts/claims_page.py --forget` drops it",
        "open: T1 on fcn4-digits (quick) is inconclusive without a sample size that would decide: 8 networks",
    ]
    assert repository.main(["--forget"]) == 0
    assert "gone" not in capsys.readouterr().out
    assert repository.main(["--check"]) == 0


def test_results_that_cannot_be_read_are_an_error_and_change_nothing(
    repository: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tmp_path / "docs" / "claims.md").read_bytes()
    assert repository.main(["--keep", str(tmp_path / "none.json")]) == 2
    assert "error: cannot read results" in capsys.readouterr().err
    assert (tmp_path / "docs" / "claims.md").read_bytes() == before


def test_the_check_does_not_go_with_options_that_write(repository: ModuleType) -> None:
    with pytest.raises(SystemExit) as stopped:
        repository.main(["--check", "--forget"])
    assert stopped.value.code == 2
