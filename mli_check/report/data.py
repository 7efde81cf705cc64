"""What the report says: results documents and the catalogue in, plain records for the page and its charts out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from mli_check import catalogue
from mli_check.errors import ReportError
from mli_check.report import numbers
from mli_check.report.content import ChartRecord, ClaimEntry, Content, Earlier, Result, Row, Run, size
from mli_check.report.merge import Document, Found, Judged, Record, merge, moment

_CATALOGUE = {claim.id: claim for claim in catalogue.CLAIMS}
_VERSIONS = ("mli_check", "python", "torch", "torchvision", "numpy")


def build(documents: Sequence[Document]) -> Content:
    """All that the documents found, merged and sorted into the claims of the catalogue."""
    if not documents:
        raise ReportError("there is nothing to report: no results document was given. Make one: mli-check run")
    merged = merge(documents)
    runs = tuple(_run(number, document) for number, document in enumerate(merged.documents, start=1))
    found: dict[str, list[Judged]] = {}
    for judged in merged.judged:
        found.setdefault(judged.claim, []).append(judged)
    anchors = _Anchors()
    ids = sorted({*_CATALOGUE, *found}, key=catalogue.natural_key)
    return Content(tuple(_entry(claim_id, found.get(claim_id, []), runs, anchors) for claim_id in ids), runs)


def _run(number: int, document: Document) -> Run:
    environment = document["environment"]
    tests = document.get("tests") or {"skipped": []}
    return Run(
        number=number,
        scale=document["scale"],
        device=environment["device"],
        command=document["command"],
        created=_date(document["created"]),
        finished=_date(document["finished"]) if document["finished"] else "",
        environment=tuple((_printed(name), str(value)) for name, value in environment.items()),
        versions=tuple((_printed(name), str(environment[name])) for name in _VERSIONS if name in environment),
        passed=tests.get("passed"),
        failed=tests.get("failed"),
        skipped=tuple((item["test"], item["reason"]) for item in tests["skipped"]),
    )


def _printed(name: str) -> str:
    return name.replace("_", "-")


def _entry(claim_id: str, found: Sequence[Judged], runs: Sequence[Run], anchors: _Anchors) -> ClaimEntry:
    anchor = anchors.take(claim_id)
    rows = _rows(found, runs, anchors)
    claim = _CATALOGUE.get(claim_id)
    if claim is None:
        return ClaimEntry(
            id=claim_id,
            anchor=anchor,
            statement="A claim that this version's catalogue does not have.",
            paper="unknown", paper_short="not in the catalogue", paper_title="", where="", outcome="", reading="",
            state="judged", note="", rows=rows,
        )  # fmt: skip
    left_out = f"A test covers it, but it was not part of {'this run' if len(runs) == 1 else 'these runs'}."
    state = "judged" if rows else "planned" if claim.planned else "not run"
    return ClaimEntry(
        id=claim.id,
        anchor=anchor,
        statement=claim.statement,
        paper=claim.paper,
        paper_short=catalogue.PAPERS[claim.paper].short,
        paper_title=claim.paper_title,
        where=claim.where,
        outcome=claim.outcome,
        reading=claim.reading,
        state=state,
        note=claim.planned or left_out,
        rows=rows,
    )


def _rows(found: Sequence[Judged], runs: Sequence[Run], anchors: _Anchors) -> tuple[Row, ...]:
    """A row a subject; those with a result at the smallest scale come first."""
    by_subject: dict[str, list[Judged]] = {}
    for judged in sorted(found, key=lambda judged: (size(judged.scale), judged.subject)):
        by_subject.setdefault(judged.subject, []).append(judged)
    return tuple(
        Row(subject, tuple(_result(judged, runs, anchors) for judged in several))
        for subject, several in by_subject.items()
    )


def _result(judged: Judged, runs: Sequence[Run], anchors: _Anchors) -> Result:
    record = judged.newest.record
    label, figure, interval = _figure(record)
    name = f"{judged.claim}-{judged.subject}" + ("" if judged.scale == "quick" else f"-{judged.scale}")
    return Result(
        anchor=anchors.take(name),
        subject=judged.subject,
        scale=judged.scale,
        verdict=record["verdict"],
        expected=record["expected"] or "",
        expected_reason=record["expected_reason"],
        figure_label=label,
        figure=figure,
        interval=interval,
        reason=record["reason"],
        criterion=record["criterion"],
        needed=_count(record["needed"]) and f"{_count(record['needed'])} {record.get('needed_unit', '')}".strip(),
        networks=_count(record["networks"]),
        details=tuple((label, *_detail(value)) for label, value in record["details"].items()),
        settings=tuple((setting["digest"], setting["summary"]) for setting in record.get("settings", ())),
        charts=tuple(
            _chart(anchors.take(f"{name}-chart"), item, record if number == 0 else None)
            for number, item in enumerate(record.get("charts", ()))
        ),
        device=record["device"],
        threads=_count(record.get("threads")),
        date=_date(record["date"]),
        took=numbers.duration(record["seconds"]) if "seconds" in record else "",
        reproduce=_command(record, judged.scale),
        run=runs[judged.newest.document],
        earlier=tuple(_earlier(old, judged, runs) for old in judged.earlier),
    )


def _command(record: Record, scale: str) -> str:
    """What judges the claim anew; of a kept record, which lacks it, the plain command."""
    plain = shlex.join(["mli-check", "run", record["claim"], "--scale", scale, "--subject", record["subject"]])
    return str(record.get("reproduce", plain))


def _chart(anchor: str, item: Record, judged: Record | None) -> ChartRecord:
    """A chart; the first one of a record says in its caption what the paper shows and what was seen here."""
    caption = [item.get("caption", "")] if judged is None else [_shown(judged), item.get("caption", "")]
    return ChartRecord(anchor, item["title"], " ".join(filter(None, caption)), item)


def _shown(record: Record) -> str:
    claim = _CATALOGUE.get(record["claim"])
    if claim is None or not claim.outcome:
        return ""
    source = "Predicted" if catalogue.PAPERS[claim.paper].year is None else f"The paper ({claim.where})"
    return f"{source}: {claim.outcome.rstrip('.')}. Here, {record['verdict']}: {record['reason'].rstrip('.')}."


def _earlier(old: Found, judged: Judged, runs: Sequence[Run]) -> Earlier:
    label, figure, interval = _figure(old.record)
    command = _command(old.record, judged.scale)
    return Earlier(
        verdict=old.record["verdict"],
        figure_label=label,
        figure=figure,
        interval=interval,
        device=old.record["device"],
        date=_date(old.record["date"]),
        reproduce=command if command != _command(judged.newest.record, judged.scale) else "",
        run=runs[old.document],
    )


def _figure(record: Record) -> tuple[str, str, str]:
    """The label of a record's figure, its value and its interval."""
    figure = record["figure"]
    shown, interval = numbers.interval(figure["value"], figure["low"], figure["high"], figure["unit"])
    return figure["label"], "no figure" if figure["value"] is None else shown, interval


def _count(value: int | None) -> str:
    """A number of things, empty if there are none to speak of."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}") if value else ""


def _detail(value: float | str | None) -> tuple[str, str]:
    """A free-form value as printed, and in full."""
    if isinstance(value, (bool, str)) or value is None:
        words = {True: "yes", False: "no", None: numbers.ABSENT}
        return (value if isinstance(value, str) else words[value]), ""
    return numbers.number(value), repr(value)


def _date(text: str) -> str:
    """An ISO date and time as `2026-01-31 09:30 UTC`."""
    return moment(text).strftime("%Y-%m-%d %H:%M UTC")


class _Anchors:
    """Gives out ids for places on the page, each once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        """`name` as an id, with a number if it is taken."""
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name)
        anchor, number = plain, 1
        while anchor in self._taken:
            number += 1
            anchor = f"{plain}-{number}"
        self._taken.add(anchor)
        return anchor
