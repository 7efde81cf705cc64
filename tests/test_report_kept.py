"""Tests of the report on results that the project keeps: records of several runs, without charts or settings."""

from __future__ import annotations

import copy
import shlex
from pathlib import Path
from typing import Any

import pytest
from report_examples import dated, document

from mli_check import results
from mli_check.errors import ResultsError
from mli_check.report import data, html
from mli_check.report.claims_page.kept import keep
from mli_check.report.merge import unfolded

KEPT = Path(__file__).resolve().parents[1] / "docs" / "results"


def full(day: str) -> dict[str, Any]:
    """A document of that day whose records have every key of today's."""
    made = dated(document(), day)
    for record in made["records"]:
        record.setdefault("needed_unit", "test examples")
        record.setdefault("threads", 1)
    return made


@pytest.fixture
def kept(tmp_path: Path) -> dict[str, Any]:
    """What is kept of two runs of the same claims, of which the second lacks the first claim."""
    earlier, later = full("2026-10-01"), full("2026-11-01")
    del later["records"][0]
    keep([earlier, later], tmp_path)
    return dict(results.read(tmp_path / "quick.json"))


def test_a_kept_document_is_the_documents_of_its_runs(kept: dict[str, Any]) -> None:
    runs = unfolded(kept)
    assert [len(run["records"]) for run in runs] == [1, len(kept["records"]) - 1]
    assert [run["created"] for run in runs] == [run["created"] for run in kept["runs"]]
    assert unfolded(runs[0]) == [runs[0]]


def test_every_kept_verdict_is_on_the_page_with_the_command_that_judges_it_anew(kept: dict[str, Any]) -> None:
    content = data.build([kept])
    shown = {(c.id, r.subject): (r.verdict, r.reproduce) for c in content.claims for r in c.results}
    assert shown == {
        (k["claim"], k["subject"]): (
            k["verdict"],
            f"mli-check run {k['claim']} --scale {k['scale']} --subject {shlex.quote(k['subject'])}",
        )
        for k in kept["records"]
    }
    assert "<dt>Tests</dt>" in html.render([full("2026-10-01")])
    assert "<dt>Tests</dt>" not in html.render([kept])  # how many tests passed is not kept


def test_newer_results_replace_kept_ones_and_tell_them(kept: dict[str, Any]) -> None:
    new = full("2026-12-01")
    content = data.build([kept, new])
    found = [result for claim in content.claims for result in claim.results]
    assert len(found) == len(new["records"])
    assert {len(result.earlier) for result in found} == {1}
    assert all(result.took for result in found)


def test_a_record_whose_run_is_not_kept_is_an_error(kept: dict[str, Any]) -> None:
    broken = copy.deepcopy(kept)
    broken["records"][0]["run"] = "gone"
    with pytest.raises(ResultsError, match="names a run, 'gone', that is not kept"):
        html.render([broken])


@pytest.mark.parametrize("file", sorted(KEPT.glob("*.json")), ids=lambda file: file.stem)
def test_what_the_project_keeps_can_be_drawn(file: Path, tmp_path: Path) -> None:
    page = html.write_report([results.read(file)], tmp_path / "report.html").read_text(encoding="utf-8")
    for record in results.read(file)["records"]:
        assert record["subject"] in page
