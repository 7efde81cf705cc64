"""Tests of the catalogue of claims."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mli_check import catalogue
from mli_check.catalogue import CLAIMS, PAPERS, Claim, Kind
from mli_check.errors import UnknownNameError

HOW_MANY = {"T": 38, "L": 19, "U": 8, "W": 8, "X": 12}
EXPECTED_IDS = tuple(f"{prefix}{n}" for prefix, count in HOW_MANY.items() for n in range(1, count + 1))
PAPER_OF = {"T": "tao2024", "L": "lucas2020", "U": "lucas2021", "W": "wang2023", "X": "mli-check"}
COVERED = {
    *(f"T{number}" for number in range(1, 39)),
    *("L11", "X1", "X2", "X3", "X4", "X5", "X6", "X7", "X9", "X10", "X11"),
}

# The numbered items of "Where the texts cannot be read literally", the claims each concerns, and a trace of each.
READINGS = {
    1: {"T4": "(1−α)θ₀"},
    2: {"T23": "J(α=0) − J(α=1)", "T25": "τ of the total drop"},
    3: {"T15": "b_{l+r+1}", "T16": "η/α²"},
    4: {"T16": "convolution, BN, ReLU"} | dict.fromkeys(["T17", "T18", "T30", "T32"], "last layer"),
    5: {"T12": "positive", "T13": "positive", "T4": "tie", "T29": "tie", "X5": "tie"},
    6: {"T19": "α²(1−α)²b²"},
    7: {"T22": "αθ_F + (1−α)ε"},
    8: {"T35": "β = 0"},
    9: {"T34": "BN"},
    10: {"L11": "running minimum", "L2": "running minimum", "L7": "running minimum", "U8": "running minimum"},
    11: {"L9": "83.8%"},
    12: {"L5": "not in the text"},
    13: {"L7": "violation"},
    14: {"L14": "semidefinite", "L15": "(2I − ηK)⁻¹", "X8": "(2I − ηK)⁻¹"},
    15: {"U2": "regular"},
    16: {"T2": "T21", "T21": "T2 "},
    17: {"U1": "chords", "U2": "z* := z(1)"},
    18: {"L13": "η₀/n", "L4": "432", "L5": "432"},
    19: {"L7": "0.01"},
}


def test_every_id_is_present_exactly_once() -> None:
    assert Counter(claim.id for claim in CLAIMS) == Counter(EXPECTED_IDS)


def test_the_claims_stand_in_natural_order_within_papers_in_order() -> None:
    assert catalogue.ids() == EXPECTED_IDS
    assert tuple(sorted(EXPECTED_IDS, key=catalogue.natural_key)) == EXPECTED_IDS


def test_natural_sorting_counts_and_puts_foreign_ids_last() -> None:
    assert sorted(["L1", "T10", "my-claim", "T2", "X1"], key=catalogue.natural_key) == [
        "T2", "T10", "L1", "X1", "my-claim",
    ]  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_claim_is_filled_in(claim: Claim) -> None:
    assert claim.paper == PAPER_OF[claim.id[0]]
    assert claim.statement.endswith(".")
    assert claim.where
    assert claim.outcome or claim.paper == "mli-check"
    assert claim.kinds
    assert all(isinstance(kind, Kind) for kind in claim.kinds)
    assert len(set(claim.kinds)) == len(claim.kinds)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_text_is_tidy(claim: Claim) -> None:
    for text in (claim.statement, claim.where, claim.outcome, claim.reading, claim.planned):
        assert text == " ".join(text.split())
        assert "alpha" not in text
        assert "theta" not in text


def test_no_two_claims_say_the_same() -> None:
    assert len({claim.statement for claim in CLAIMS}) == len(CLAIMS)


def test_every_kind_is_used() -> None:
    assert {kind for claim in CLAIMS for kind in claim.kinds} == set(Kind)


def test_a_claim_without_a_reason_to_wait_is_covered_and_the_others_are_planned() -> None:
    assert {claim.id for claim in CLAIMS if claim.status == "covered"} == COVERED
    assert {claim.status for claim in CLAIMS} == {"covered", "planned"}
    assert all(bool(claim.planned) == (claim.status == "planned") for claim in CLAIMS)


@pytest.mark.parametrize(
    ("claim_id", "trace"),
    [
        pytest.param(claim_id, trace, id=f"{item}-{claim_id}")
        for item, traces in READINGS.items()
        for claim_id, trace in traces.items()
    ],
)
def test_each_reading_reaches_the_claims_it_concerns(claim_id: str, trace: str) -> None:
    assert trace in catalogue.get(claim_id).reading


def test_all_nineteen_readings_are_looked_for() -> None:
    assert sorted(READINGS) == list(range(1, 20))


def test_the_papers_figures_are_kept() -> None:
    assert catalogue.get("T21").outcome == "95 of 100 noise curves are monotone"
    assert "96.00, 89.39, 62.00, 50.75%" in catalogue.get("L4").outcome
    assert "100, 85.25, 78.57, 56.00%" in catalogue.get("L4").outcome
    assert "39.21%" in catalogue.get("L5").outcome


def test_get_returns_the_claim_of_that_id() -> None:
    assert catalogue.get("T1").id == "T1"
    assert catalogue.get("T10").id == "T10"


def test_an_unknown_id_raises_with_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown claim 'U88'\. Did you mean `U8`\?"):
        catalogue.get("U88")


def test_every_paper_is_described_and_cited_by_some_claim() -> None:
    assert list(PAPERS) == list(PAPER_OF.values())
    assert {claim.paper for claim in CLAIMS} == set(PAPERS)
    for key, paper in PAPERS.items():
        assert paper.key == key
        assert all((paper.authors, paper.title, paper.venue, paper.short))


def test_a_paper_that_was_not_wholly_at_hand_says_so() -> None:
    assert {key for key, paper in PAPERS.items() if "at hand" in paper.note} == {"lucas2021", "wang2023"}


def test_a_claim_knows_the_title_of_its_paper() -> None:
    assert catalogue.get("T1").paper_title == PAPERS["tao2024"].title


def test_a_record_is_json_and_comes_back_as_it_was() -> None:
    records = [claim.as_record() for claim in CLAIMS]
    assert json.loads(json.dumps(records, ensure_ascii=False)) == records
    assert set(records[0]) == {
        "id", "status", "paper", "where", "statement", "kinds", "outcome", "reading", "planned",
    }  # fmt: skip
    assert records[0]["kinds"] == ["definition", "curve"]


def test_importing_the_catalogue_imports_only_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import mli_check.catalogue; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(*sorted(new - sys.stdlib_module_names))"
    )
    root = Path(catalogue.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["mli_check"], "torch, numpy and the like must not be imported here"
