"""One claim on the page: its texts, its criterion, and a table of what came out for each subject at each scale."""

from __future__ import annotations

from collections.abc import Sequence

from mli_check.catalogue import Claim
from mli_check.report import numbers
from mli_check.report.claims_page.declared import ClaimTest, Place
from mli_check.report.claims_page.markdown import anchor, code, escape, table
from mli_check.report.content import VERDICTS, size
from mli_check.report.merge import moment
from mli_check.results import Record

_HEAD = ("subject", "scale", "verdict", "figure", "would decide", "date", "device")
_REPRODUCED, _, _INCONCLUSIVE = VERDICTS


def claim_lines(claim: Claim, tests: Sequence[ClaimTest], records: Sequence[Record]) -> list[str]:
    """The claim's part of the page; `records` are in the order in which they are to stand."""
    found = "Predicted" if claim.paper == "mli-check" else "The paper"
    kinds = ", ".join(kind.value for kind in claim.kinds)
    texts = [
        ("Where", f"{claim.where} ({kinds})"),
        (found, claim.outcome),
        ("Our reading", claim.reading),
        *_criteria(tests, records),
        ("Planned", f"no test covers it yet; it {claim.planned}" if claim.planned else ""),
    ]
    lines = [f"{anchor(claim.id)}", "", f"### {claim.id}", "", escape(claim.statement), ""]
    lines += [f"- **{label}:** {escape(text)}" for label, text in texts if text]
    if records:
        lines += ["", *table(_HEAD, [_row(record) for record in records])]
    lines += _notes(tests, records)
    return lines


def unexpected(record: Record) -> bool:
    """Whether the verdict is another than the one that the claim's test expected."""
    return record["expected"] not in (None, record["verdict"])


def verdict(record: Record) -> str:
    """The verdict, in bold and with the expected one where that is another."""
    found = str(record["verdict"])
    return f"**{found}** (expected: {record['expected']})" if unexpected(record) else found


def _criteria(tests: Sequence[ClaimTest], records: Sequence[Record]) -> list[tuple[str, str]]:
    """The criterion of each test, then any by which a record was judged and that has another wording today."""
    known = [test.criterion for test in tests]
    texts = [("Criterion", criterion) for criterion in dict.fromkeys(known)]
    for criterion in dict.fromkeys(record["criterion"] for record in records if record["criterion"] not in known):
        judged = [f"{record['subject']} ({record['scale']})" for record in records if record["criterion"] == criterion]
        texts.append((f"Criterion as worded when {escape(', '.join(judged))} was judged", criterion))
    return texts


def _row(record: Record) -> list[str]:
    needed = ""
    if record["verdict"] == _INCONCLUSIVE:
        known = record["needed"] is not None
        needed = numbers.number(record["needed"], record["needed_unit"]) if known else "no size known"
    date = f"[{moment(record['date']):%Y-%m-%d}](#run-{record['run']})"
    device = escape(record["device"])
    return [code(record["subject"]), record["scale"], verdict(record), _figure(record), escape(needed), date, device]


def _figure(record: Record) -> str:
    figure = record["figure"]
    if figure["value"] is None:
        return escape(f"{figure['label']}: no figure")
    shown = numbers.interval(figure["value"], figure["low"], figure["high"], figure["unit"])
    return escape(f"{figure['label']}: {' '.join(shown)}")


def _notes(tests: Sequence[ClaimTest], records: Sequence[Record]) -> list[str]:
    """Why a verdict is not `reproduced`, what the test says of that, and what is still to be judged."""
    told = [record for record in records if record["verdict"] != _REPRODUCED]
    notes = [f"{code(record['subject'])} ({record['scale']}): {_sentence(record['reason'])}" for record in told]
    odd = [record["expected_reason"] for record in records if record in told or unexpected(record)]
    notes += [f"Remark of the test: {_sentence(remark)}" for remark in dict.fromkeys(filter(None, odd))]
    places = [place for test in tests for place in test.places or ()]
    judged = {(record["subject"], record["scale"]) for record in records}
    missing = [place for place in dict.fromkeys(places) if place not in judged]
    notes += [f"Not judged yet: {_listed(missing)}."] if missing else []
    return ["", *(f"- {note}" for note in notes)] if notes else []


def _sentence(text: str) -> str:
    """Escaped text, with one full stop at its end."""
    return f"{escape(text.rstrip('. '))}."


def _listed(places: Sequence[Place]) -> str:
    """Subjects by scale."""
    scales = sorted({scale for _, scale in places}, key=size)
    by_scale = {scale: [code(subject) for subject, found in places if found == scale] for scale in scales}
    return "; ".join(f"{scale}: {', '.join(names)}" for scale, names in by_scale.items())
