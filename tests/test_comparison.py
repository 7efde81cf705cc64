"""Tests of comparing two results documents: the kinds of change, what fails, and the summaries for CI."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mli_check.comparison import Change, Comparison, Kind, compare

YES, NO, OPEN = "reproduced", "not reproduced", "inconclusive"


def document(*rows: tuple[str, str, str] | tuple[str, str, str, str]) -> dict[str, Any]:
    """A document of (claim, subject, verdict[, scale]) rows."""
    names = ("claim", "subject", "verdict", "scale")
    return {"schema": 1, "records": [dict(zip(names, (*row, "quick")[:4], strict=True)) for row in rows]}


EVERY_KIND = [
    (YES, YES, Kind.SAME),
    (NO, NO, Kind.SAME),
    (OPEN, OPEN, Kind.SAME),
    (YES, NO, Kind.FLIPPED),
    (NO, YES, Kind.FLIPPED),
    (YES, OPEN, Kind.WAVERED),
    (NO, OPEN, Kind.WAVERED),
    (OPEN, YES, Kind.WAVERED),
    (OPEN, NO, Kind.WAVERED),
    (None, YES, Kind.NEW),
    (None, NO, Kind.NEW),
    (None, OPEN, Kind.NEW),
    (YES, None, Kind.LOST),
    (NO, None, Kind.LOST),
    (OPEN, None, Kind.LOST),
]


def held(before: str | None, after: str | None) -> Comparison:
    rows = [[] if verdict is None else [("T1", "fcn4-digits", verdict)] for verdict in (before, after)]
    return compare(*(document(*row) for row in rows))


@pytest.mark.parametrize(("before", "after", "kind"), EVERY_KIND)
def test_every_pair_of_verdicts_is_one_kind_of_change(before: str | None, after: str | None, kind: Kind) -> None:
    found = held(before, after)
    assert [change.kind for change in found.changes] == [kind]
    assert found.of(kind) == list(found.changes)
    assert not any(found.of(other) for other in Kind if other is not kind)


@pytest.mark.parametrize(("before", "after", "kind"), EVERY_KIND)
def test_only_flips_and_losses_fail(before: str | None, after: str | None, kind: Kind) -> None:
    assert held(before, after).failed is (kind in (Kind.FLIPPED, Kind.LOST))


MIXED = compare(
    document(("T10", "a", YES), ("T2", "b", YES), ("T2", "a", NO), ("L1", "all", OPEN), ("T4", "a", YES)),
    document(("T10", "a", NO), ("T2", "b", OPEN), ("T2", "a", NO), ("X1", "all", YES), ("T4", "a", YES)),
)


def test_changes_stand_in_the_order_of_the_catalogue_then_of_the_subjects() -> None:
    assert [(change.claim, change.subject) for change in MIXED.changes] == [
        ("T2", "a"), ("T2", "b"), ("T4", "a"), ("T10", "a"), ("L1", "all"), ("X1", "all"),
    ]  # fmt: skip


def test_the_order_of_the_records_does_not_matter() -> None:
    base, new = document(("T10", "a", YES), ("T2", "b", NO)), document(("T2", "b", YES), ("T10", "a", YES))
    turned = document(("T2", "b", NO), ("T10", "a", YES)), document(("T10", "a", YES), ("T2", "b", YES))
    assert compare(base, new) == compare(*turned)


def test_comparing_reads_the_documents_only() -> None:
    base, new = document(("T1", "a", YES)), document(("T1", "a", NO))
    before = json.dumps([base, new])
    compare(base, new)
    assert json.dumps([base, new]) == before


def test_the_selection_keeps_the_claims_named_and_no_longer_name() -> None:
    base = document(("T1", "a", YES), ("T10", "a", YES), ("L1", "a", YES))
    found = compare(base, document(("T1", "a", YES)), claims=["T1"])
    assert [change.claim for change in found.changes] == ["T1"]
    assert not found.failed
    assert compare(base, document(("T1", "a", YES))).failed
    assert [change.claim for change in compare(base, base, claims={"L1", "T10"}).changes] == ["T10", "L1"]


def test_an_empty_selection_selects_nothing() -> None:
    assert compare(document(("T1", "a", YES)), document(), claims=[]).changes == ()


def test_the_same_claim_at_another_scale_is_another_verdict() -> None:
    found = compare(document(("T1", "a", YES, "quick")), document(("T1", "a", NO, "standard")))
    assert [(change.scale, change.kind) for change in found.changes] == [("quick", Kind.LOST), ("standard", Kind.NEW)]


def test_records_without_a_scale_are_compared_all_the_same() -> None:
    bare = {"schema": 1, "records": [{"claim": "T1", "subject": "a", "verdict": YES}]}
    assert [change.kind for change in compare(bare, bare).changes] == [Kind.SAME]


def test_two_empty_documents_have_no_verdicts_and_do_not_fail() -> None:
    found = compare(document(), document())
    assert not found.failed
    assert "no verdicts" in found.markdown()
    assert ElementTree.fromstring(found.junit()).get("tests") == "0"


def test_the_markdown_has_counts_and_a_table_of_what_changed() -> None:
    assert MIXED.markdown() == (
        "## mli-check: verdicts changed\n"
        "\n"
        "1 flipped, 1 lost, 1 wavered, 1 new, 2 same\n"
        "\n"
        "| claim | subject | scale | before | after | |\n"
        "|---|---|---|---|---|---|\n"
        "| T2 | b | quick | reproduced | inconclusive | wavered |\n"
        "| T10 | a | quick | reproduced | not reproduced | flipped |\n"
        "| L1 | all | quick | inconclusive | - | lost |\n"
        "| X1 | all | quick | - | reproduced | new |\n"
    )


def test_the_markdown_of_equal_documents_has_no_table() -> None:
    text = held(YES, YES).markdown()
    assert text == "## mli-check: no verdict changed\n\n1 same\n"


def suite_of(comparison: Comparison) -> ElementTree.Element:
    return ElementTree.fromstring(comparison.junit().encode())


def test_the_junit_xml_parses_and_counts() -> None:
    suite = suite_of(MIXED)
    cases = suite.findall("testcase")
    assert suite.tag == "testsuite"
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("6", "2", "0")
    assert len(cases) == 6
    assert len(suite.findall("testcase/failure")) == 2


def test_a_junit_case_is_a_claim_and_subject_and_says_what_changed() -> None:
    cases = {(case.get("classname"), case.get("name")): case for case in suite_of(MIXED)}
    flipped = cases["mli_check.T10", "a (quick)"].find("failure")
    assert flipped is not None
    assert flipped.get("message") == "flipped: reproduced -> not reproduced"
    assert cases["mli_check.T2", "b (quick)"].findtext("system-out") == "wavered: reproduced -> inconclusive"
    assert len(cases["mli_check.T4", "a (quick)"]) == 0


def test_names_that_xml_reserves_are_escaped() -> None:
    name = "a<b>&\"'é\u2028"
    found = compare(document(), document(("T1", name, YES)))
    assert suite_of(found)[0].get("name") == f"{name} (quick)"


def test_the_record_is_json_and_says_the_same() -> None:
    found = MIXED.as_record()
    assert json.loads(json.dumps(found)) == found
    assert found["failed"] is True
    assert found["changes"][1] == {
        "claim": "T2", "subject": "b", "scale": "quick", "before": YES, "after": OPEN, "kind": "wavered",
    }  # fmt: skip


verdicts = st.none() | st.sampled_from([YES, NO, OPEN])


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["T1", "T10", "L2"]), st.sampled_from("ab")), st.tuples(verdicts, verdicts)
    )
)
def test_every_verdict_of_either_document_is_compared_once(table: dict[tuple[str, str], tuple[Any, Any]]) -> None:
    base, new = (
        document(*((*key, pair[side]) for key, pair in table.items() if pair[side] is not None)) for side in (0, 1)
    )
    found = compare(base, new)
    wanted = {key: pair for key, pair in table.items() if pair != (None, None)}
    assert {(change.claim, change.subject): (change.before, change.after) for change in found.changes} == wanted
    assert len(found.changes) == len(wanted)
    assert found.failed == any(change.kind in (Kind.FLIPPED, Kind.LOST) for change in found.changes)
    assert sum(len(found.of(kind)) for kind in Kind) == len(wanted)
    assert compare(new, base).failed == (any(found.of(Kind.FLIPPED)) or any(found.of(Kind.NEW)))
    assert int(suite_of(found).get("failures", -1)) == len(found.of(Kind.FLIPPED)) + len(found.of(Kind.LOST))


def test_a_change_knows_its_kind_by_itself() -> None:
    assert Change("T1", "a", "quick", YES, NO).kind is Kind.FLIPPED
    assert str(Change("T1", "a", "quick", None, NO).kind) == "new"
