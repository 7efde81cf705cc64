"""Several results documents become one: the newest record of each claim, subject and scale counts, older ones stay.

A document that the project keeps, of records from several runs, counts as the documents of these runs. The order of
the documents does not matter, nor does it matter if one is given twice. Only where two different records bear the same
date does the order decide: the one of the later document counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mli_check.errors import ResultsError

Document = Mapping[str, Any]
Record = Mapping[str, Any]
_Identity = tuple[str, str, str]


@dataclass(frozen=True)
class Found:
    """A record, the index of its document in `Merged`, and the place of that document among the arguments."""

    record: Record
    document: int
    place: int


@dataclass(frozen=True)
class Judged:
    """One claim on one subject at one scale: the record that counts, and those it replaced, newest first."""

    claim: str
    subject: str
    scale: str
    newest: Found
    earlier: tuple[Found, ...]


@dataclass(frozen=True)
class Merged:
    """The distinct documents, oldest first, and what they judged."""

    documents: tuple[Document, ...]
    judged: tuple[Judged, ...]


def merge(documents: Sequence[Document]) -> Merged:
    """All that the documents hold, each document and each record once.

    A record that two documents share, as a killed run's journal and its repetition may, is the younger document's.
    Raises ResultsError for a kept record whose run is not kept.
    """
    documents = [run for document in documents for run in unfolded(document)]
    texts = [json.dumps(document, sort_keys=True) for document in documents]
    places = {text: place for place, text in enumerate(texts)}
    ordered = sorted(places, key=lambda text: (*_age(documents[places[text]]), text))
    distinct = tuple(documents[places[text]] for text in ordered)
    found: dict[_Identity, list[Found]] = {}
    for number, (text, document) in enumerate(zip(ordered, distinct, strict=True)):
        for record in document["records"]:
            identity = record["claim"], record["subject"], record.get("scale") or document["scale"]
            _add(found.setdefault(identity, []), Found(record, number, places[text]))
    return Merged(distinct, tuple(_judged(identity, known) for identity, known in sorted(found.items())))


def unfolded(document: Document) -> list[Document]:
    """The documents of the runs that a kept document has records of; any other document as it is."""
    if "runs" not in document:
        return [document]
    runs: dict[str, list[Record]] = {run["id"]: [] for run in document["runs"]}
    for record in document["records"]:
        if record.get("run") not in runs:
            raise ResultsError(
                f"the kept record of {record['claim']} on {record['subject']} names a run, {record.get('run')!r}, that "
                "is not kept with it; keep the results again with `python scripts/claims_page.py --keep RESULTS.json`"
            )
        runs[record["run"]].append({key: value for key, value in record.items() if key != "run"})
    return [
        {key: value for key, value in run.items() if key != "id"}
        | {"scale": document["scale"], "records": runs[run["id"]]}
        for run in document["runs"]
    ]


def moment(text: str) -> datetime:
    """An ISO date and time; one that names no time zone is in UTC."""
    read = datetime.fromisoformat(text)
    return read.astimezone(UTC) if read.tzinfo else read.replace(tzinfo=UTC)


def _age(document: Document) -> tuple[datetime, datetime]:
    """When the run began and ended; one that was cut short counts as older than one that went on from there."""
    created = moment(document["created"])
    return created, moment(document["finished"]) if document["finished"] else created


def _add(known: list[Found], new: Found) -> None:
    """Append `new`, in the place of the same record from an older document if there is one."""
    twin = next((entry for entry in known if entry.record == new.record), None)
    if twin is not None:
        known.remove(twin)
        new = Found(new.record, new.document, max(new.place, twin.place))
    known.append(new)


def _judged(identity: _Identity, known: Sequence[Found]) -> Judged:
    by_age = sorted(known, key=lambda entry: (moment(entry.record["date"]), entry.place), reverse=True)
    return Judged(*identity, newest=by_age[0], earlier=tuple(by_age[1:]))
