"""What the report says: results documents and the catalogue in, plain records for the page and its charts out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mli_check import catalogue
from mli_check.errors import ReportError
from mli_check.report import numbers

VERDICTS = ("reproduced", "not reproduced", "inconclusive")
_CATALOGUE = {claim.id: claim for claim in catalogue.CLAIMS}

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One results document without its records: when, where and with what it was made.

    `finished` is empty for a run that was killed; `created` then dates it.
    """

    number: int
    scale: str
    device: str
    command: str
    created: str
    finished: str
    environment: tuple[tuple[str, str], ...]
    passed: int
    failed: int
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ChartRecord:
    """A chart as the results carry it, with the id that it has on the page."""

    id: str
    title: str
    record: Mapping[str, Any]

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(series["group"] for series in self.record["series"]))

    @property
    def curves(self) -> int:
        return len(self.record["series"])


@dataclass(frozen=True)
class Result:
    """One claim judged on one subject, in words ready to print."""

    anchor: str
    subject: str
    scale: str
    verdict: str
    expected: str
    expected_reason: str
    figure_label: str
    figure: str
    interval: str
    reason: str
    criterion: str
    needed: str
    networks: str
    details: tuple[tuple[str, str, str], ...]
    settings: tuple[tuple[str, str], ...]
    charts: tuple[ChartRecord, ...]
    device: str
    threads: str
    date: str
    took: str
    reproduce: str
    run: Run

    @property
    def changed(self) -> bool:
        """The verdict is not the one that was expected."""
        return bool(self.expected) and self.expected != self.verdict


@dataclass(frozen=True)
class ClaimEntry:
    """One claim of the catalogue and its results; `state` is `judged`, `not run` or `planned`, `note` says why."""

    id: str
    anchor: str
    statement: str
    paper: str
    paper_short: str
    paper_title: str
    where: str
    outcome: str
    reading: str
    state: str
    note: str
    results: tuple[Result, ...]

    @property
    def tally(self) -> tuple[tuple[str, int], ...]:
        """The verdicts that occur, with their counts."""
        counts = Counter(result.verdict for result in self.results)
        return tuple((verdict, counts[verdict]) for verdict in VERDICTS if counts[verdict])


@dataclass(frozen=True)
class Content:
    """Everything the page shows."""

    claims: tuple[ClaimEntry, ...]
    runs: tuple[Run, ...]

    @property
    def results(self) -> tuple[Result, ...]:
        return tuple(result for claim in self.claims for result in claim.results)

    @property
    def charts(self) -> tuple[ChartRecord, ...]:
        return tuple(chart for result in self.results for chart in result.charts)

    @property
    def verdicts(self) -> dict[str, int]:
        """How many results came to each verdict."""
        counts = Counter(result.verdict for result in self.results)
        return {verdict: counts[verdict] for verdict in VERDICTS}

    @property
    def states(self) -> dict[str, int]:
        """How many claims are judged, covered but not run, and planned."""
        counts = Counter(claim.state for claim in self.claims)
        return {state: counts[state] for state in ("judged", "not run", "planned")}

    @property
    def papers(self) -> tuple[tuple[str, str], ...]:
        """Key and short name of each paper, in the order of the claims."""
        return tuple({claim.paper: claim.paper_short for claim in self.claims}.items())

    @property
    def scales(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run.scale for run in self.runs))

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run.device for run in self.runs))

    @property
    def dates(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run.finished or run.created for run in self.runs))


def build(documents: Sequence[Document]) -> Content:
    """All records of all documents, sorted into the claims of the catalogue."""
    if not documents:
        raise ReportError("there is nothing to report: no results document was given. Make one: mli-check run")
    runs = tuple(_run(number, document) for number, document in enumerate(documents, start=1))
    found: dict[str, list[tuple[Document, Run]]] = {}
    for document, run in zip(documents, runs, strict=True):
        for record in document["records"]:
            found.setdefault(record["claim"], []).append((record, run))
    anchors = _Anchors()
    ids = sorted({*_CATALOGUE, *found}, key=catalogue.natural_key)
    return Content(tuple(_entry(claim_id, found.get(claim_id, []), anchors) for claim_id in ids), runs)


def _run(number: int, document: Document) -> Run:
    environment = document["environment"]
    tests = document["tests"]
    return Run(
        number=number,
        scale=document["scale"],
        device=environment["device"],
        command=document["command"],
        created=_date(document["created"]),
        finished=_date(document["finished"]) if document["finished"] else "",
        environment=tuple((name.replace("_", "-"), str(value)) for name, value in environment.items()),
        passed=tests["passed"],
        failed=tests["failed"],
        skipped=tuple((item["test"], item["reason"]) for item in tests["skipped"]),
    )


def _entry(claim_id: str, records: Sequence[tuple[Document, Run]], anchors: _Anchors) -> ClaimEntry:
    anchor = anchors.take(claim_id)
    results = tuple(_result(claim_id, record, run, anchors) for record, run in records)
    claim = _CATALOGUE.get(claim_id)
    if claim is None:
        return ClaimEntry(
            id=claim_id,
            anchor=anchor,
            statement="A claim that this version's catalogue does not have.",
            paper="unknown", paper_short="not in the catalogue", paper_title="", where="", outcome="", reading="",
            state="judged", note="", results=results,
        )  # fmt: skip
    state = "judged" if results else "planned" if claim.planned else "not run"
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
        note=claim.planned or "A test covers it, but it was not part of this run.",
        results=results,
    )


def _result(claim_id: str, record: Document, run: Run, anchors: _Anchors) -> Result:
    figure = record["figure"]
    shown, between = numbers.interval(figure["value"], figure["low"], figure["high"], figure["unit"])
    charts = tuple(
        ChartRecord(anchors.take(f"{claim_id}-{record['subject']}-chart"), chart["title"], chart)
        for chart in record["charts"]
    )
    return Result(
        anchor=anchors.take(f"{claim_id}-{record['subject']}"),
        subject=record["subject"],
        scale=record["scale"],
        verdict=record["verdict"],
        expected=record["expected"] or "",
        expected_reason=record["expected_reason"],
        figure_label=figure["label"],
        figure=shown,
        interval=between,
        reason=record["reason"],
        criterion=record["criterion"],
        needed=_count(record["needed"]) and f"{_count(record['needed'])} {record.get('needed_unit', '')}".strip(),
        networks=_count(record["networks"]),
        details=tuple((label, *_detail(value)) for label, value in record["details"].items()),
        settings=tuple((setting["digest"], setting["summary"]) for setting in record["settings"]),
        charts=charts,
        device=record["device"],
        threads=_count(record.get("threads")),
        date=_date(record["date"]),
        took=numbers.duration(record["seconds"]),
        reproduce=record["reproduce"],
        run=run,
    )


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
    moment = datetime.fromisoformat(text)
    return (moment.astimezone(UTC) if moment.tzinfo else moment).strftime("%Y-%m-%d %H:%M UTC")


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
