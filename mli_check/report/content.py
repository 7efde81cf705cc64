"""What the page shows: plain records, with every number and date in words ready to print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mli_check.subjects import SCALES

VERDICTS = ("reproduced", "not reproduced", "inconclusive")


@dataclass(frozen=True)
class Run:
    """One results document without its records: when, where and with what it was made.

    `finished` is empty for a run that was killed; `created` then dates it. `versions` are those of the environment that
    a figure may depend on. How many tests passed and failed is None where the results are kept without it.
    """

    number: int
    scale: str
    device: str
    command: str
    created: str
    finished: str
    environment: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    passed: int | None
    failed: int | None
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ChartRecord:
    """A chart as the results carry it, with the id that it has on the page; a caption may be empty."""

    id: str
    title: str
    caption: str
    record: Mapping[str, Any]

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of its curves; a surface has none."""
        return tuple(dict.fromkeys(series["group"] for series in self.record.get("series", ())))


@dataclass(frozen=True)
class Earlier:
    """A result that a newer one replaced; `reproduce` is empty where the command is the newer one's too."""

    verdict: str
    figure_label: str
    figure: str
    interval: str
    device: str
    date: str
    reproduce: str
    run: Run


@dataclass(frozen=True)
class Result:
    """One claim judged on one subject at one scale; `earlier` holds what it replaced, newest first."""

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
    earlier: tuple[Earlier, ...]

    @property
    def day(self) -> str:
        return self.date.split()[0]

    @property
    def wavered(self) -> tuple[str, ...]:
        """The verdicts of earlier results that were other ones."""
        return tuple(dict.fromkeys(old.verdict for old in self.earlier if old.verdict != self.verdict))

    @property
    def changed(self) -> bool:
        """The verdict is not the one that was expected."""
        return bool(self.expected) and self.expected != self.verdict


@dataclass(frozen=True)
class Row:
    """One claim on one subject: a line of the table, with a result for at least one scale."""

    subject: str
    results: tuple[Result, ...]

    def at(self, scale: str) -> Result | None:
        """What was found at a scale; None if it was not judged there."""
        return next((result for result in self.results if result.scale == scale), None)


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
    rows: tuple[Row, ...]

    @property
    def results(self) -> tuple[Result, ...]:
        return tuple(result for row in self.rows for result in row.results)

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
        """The scales of the results, smallest first; those that were asked for if there are no results."""
        found = {result.scale for result in self.results} or {run.scale for run in self.runs}
        return tuple(sorted(found, key=size))

    @property
    def devices(self) -> tuple[str, ...]:
        found = {result.device for result in self.results} or {run.device for run in self.runs}
        return tuple(sorted(found))

    @property
    def failed(self) -> int:
        """How many tests failed, over all runs."""
        return sum(run.failed or 0 for run in self.runs)

    @property
    def skipped(self) -> int:
        """How many tests were skipped in at least one run."""
        return len({test for run in self.runs for test, _ in run.skipped})

    @property
    def dates(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run.finished or run.created for run in self.runs))


def size(scale: str) -> tuple[int, str]:
    """A sort key that puts scales in order of size, unknown ones last and by the alphabet."""
    return (SCALES.index(scale) if scale in SCALES else len(SCALES)), scale
