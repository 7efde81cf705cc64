"""Writes docs/claims.md: an overview, then each claim with its criterion and what came out at each scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mli_check.catalogue import Claim, Paper
from mli_check.report.claims_page.declared import ClaimTest
from mli_check.report.claims_page.entry import claim_lines, unexpected, verdict
from mli_check.report.claims_page.kept import Results
from mli_check.report.claims_page.markdown import anchor, code, escape, table
from mli_check.report.content import VERDICTS, size
from mli_check.report.merge import moment
from mli_check.results import Record

_NOTICE = (
    "<!-- Written by `python scripts/claims_page.py` from mli_check/catalogue, claims/ and docs/results/*.json. Change "
    "those. -->"
)
_INTRODUCTION = """\
Each claim of the papers on monotonic linear interpolation, and each of our own, with how its text is read, by which
criterion it is judged, and what came out.

A **verdict** is about the networks of one subject at one scale. `reproduced` and `not reproduced` are both shown with
confidence; `inconclusive` means that the data allow either, and the table says which sample size would decide, or that
none is known. Criteria were fixed before the networks were trained; [verdicts.md](verdicts.md) has the rules and their
error rates. The **figure** is the number that a verdict rests on, with its confidence bounds where it has any. A
verdict in **bold** is not the one that the claim's test expects. A date leads to its run, with command and versions.

The scales are quick (small networks on scikit-learn's digits, any computer), standard (the papers' datasets and
networks, shortened for one GPU) and paper (the recipes as printed). `mli-check run T1 --scale standard` judges T1
anew."""


@dataclass(frozen=True)
class Sources:
    """What the page is written from: the catalogue, the claims' tests, and the kept results."""

    claims: Sequence[Claim]
    papers: Mapping[str, Paper]
    tests: Sequence[ClaimTest]
    results: Results

    def tests_of(self, claim_id: str) -> list[ClaimTest]:
        """The tests of a claim; none where it is planned."""
        return [test for test in self.tests if test.claim == claim_id]

    def produced(self, record: Record) -> bool:
        """Whether the claim and its subject still exist, so that a run would give this record anew."""
        known = any(claim.id == record["claim"] for claim in self.claims)
        tests = self.tests_of(record["claim"])
        return known and any(test.judges(record["subject"], record["scale"]) for test in tests)

    @property
    def orphans(self) -> list[Record]:
        """Records of claims or subjects that are gone."""
        return [record for record in self.results.records if not self.produced(record)]

    def records_of(self, claim_id: str) -> list[Record]:
        """The records of a claim, smallest scale first, in the order in which its test names the subjects."""
        places = [place for test in self.tests_of(claim_id) for place in test.places or ()]
        rank = {place: index for index, place in enumerate(places)}
        found = [record for record in self.results.records if record["claim"] == claim_id and self.produced(record)]
        return sorted(found, key=lambda entry: (size(entry["scale"]), rank.get(_place(entry), -1), entry["subject"]))


def page(sources: Sources) -> str:
    """The whole page as Markdown."""
    lines = [_NOTICE, "", "# The claims", "", _INTRODUCTION, "", *_summary(sources), "", *_overview(sources)]
    for key, paper in sources.papers.items():
        claims = [claim for claim in sources.claims if claim.paper == key]
        lines += ["", *_paper_heading(paper)]
        for claim in claims:
            lines += ["", *claim_lines(claim, sources.tests_of(claim.id), sources.records_of(claim.id))]
    lines += _orphan_section(sources.orphans)
    lines += ["", "## The runs", "", *_runs(sources.results)]
    return "\n".join(lines) + "\n"


def _place(record: Record) -> tuple[str, str]:
    return record["subject"], record["scale"]


def _summary(sources: Sources) -> list[str]:
    """How many claims are judged, and with which verdicts."""
    records = [record for claim in sources.claims for record in sources.records_of(claim.id)]
    judged = {record["claim"] for record in records}
    planned = [claim for claim in sources.claims if claim.planned and claim.id not in judged]
    waiting = len(sources.claims) - len(judged) - len(planned)
    odd = list(filter(unexpected, records))
    text = (
        f"{len(sources.claims)} claims: {len(judged)} judged, {waiting} with a test that no kept run contains, "
        f"{len(planned)} planned. {len(records)} verdicts: {_counts(records) or 'none'}; "
        f"{len(odd)} of them not as the claim's test expects."
    )
    return [text]


def _counts(records: Sequence[Record]) -> str:
    found = Counter(record["verdict"] for record in records)
    return ", ".join(f"{found[name]} {name}" for name in VERDICTS if found[name])


def _overview(sources: Sources) -> list[str]:
    """A line a claim: its paper, and how often each verdict came out at each scale."""
    scales = sorted({record["scale"] for record in sources.results.records}, key=size)
    rows = []
    for claim in sources.claims:
        records = sources.records_of(claim.id)
        odd = len(list(filter(unexpected, records)))
        state = f"{odd} not as expected" if odd else "" if records else "planned" if claim.planned else "not judged yet"
        counts = [_counts([record for record in records if record["scale"] == scale]) or "—" for scale in scales]
        rows.append([f"[{claim.id}](#{claim.id})", escape(sources.papers[claim.paper].short), *counts, state])
    return ["## Overview", "", *table(["claim", "paper", *scales, "state"], rows)]


def _paper_heading(paper: Paper) -> list[str]:
    source = f"{paper.authors}: *{escape(paper.title)}*, {paper.venue}." if paper.year else f"{paper.title}."
    return [f"## {escape(paper.short)}", "", source, *(["", escape(paper.note)] if paper.note else [])]


def _orphan_section(orphans: Sequence[Record]) -> list[str]:
    """Kept results of claims and subjects that are gone, so that none drops out unseen."""
    if not orphans:
        return []
    rows = [
        [escape(entry["claim"]), code(entry["subject"]), entry["scale"], verdict(entry), entry["date"][:10]]
        for entry in orphans
    ]
    text = (
        "The claim, or its test on this subject, no longer exists; these verdicts count nowhere above. "
        "`python scripts/claims_page.py --forget` drops them."
    )
    head = ["claim", "subject", "scale", "verdict", "date"]
    return ["", "## Results of what is gone", "", text, "", *table(head, rows)]


def _runs(results: Results) -> list[str]:
    """A line a run: when, with which command, and in which environment."""
    rows = []
    for run in sorted(results.runs.values(), key=lambda run: (run["created"], run["id"])):
        began = moment(run["created"]).strftime("%Y-%m-%d %H:%M UTC")
        ended = "" if run["finished"] else " (cut short)"
        environment = ", ".join(f"{name} {value}" for name, value in run["environment"].items())
        count = sum(record["run"] == run["id"] for record in results.records)
        when = f"{anchor('run-' + run['id'])}{began}{ended}"
        rows.append([when, code(run["command"]), str(count), escape(environment)])
    return table(["began", "command", "verdicts kept", "environment"], rows)
