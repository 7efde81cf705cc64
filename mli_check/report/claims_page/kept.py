"""The results that the project keeps: one slim document a scale, in which newer records replace older ones.

Such a document is {schema, scale, runs [{id, created, finished, command, environment}], records [...]}; a record keeps
what KEPT names and the id of its run. There are no charts, settings or seconds, and numbers have six digits, so that a
repeated run changes few lines. `mli-check report`, `compare` and `--baseline` read it like the results of a run.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mli_check import results
from mli_check.catalogue import natural_key
from mli_check.comparison import Comparison, compare
from mli_check.errors import ResultsError
from mli_check.report.claims_page.declared import UNDECIDING, one_line
from mli_check.report.merge import Merged, merge
from mli_check.results import Document, Record
from mli_check.subjects import SCALES

KEPT = (
    "claim", "subject", "scale", "verdict", "expected", "expected_reason", "figure", "reason", "criterion", "needed",
    "needed_unit", "networks", "details", "device", "threads", "date",
)  # fmt: skip
_HEADER = ("created", "finished", "command", "environment")
_PRIVATE = (  # options whose value is a place on the machine of whoever ran the claims
    "--results", "--report", "--baseline", "--store", "--data-root", "--mli-results", "--mli-store", "--rootdir", "-c",
)  # fmt: skip
_DIGITS = 6


@dataclass(frozen=True)
class Results:
    """All that a folder keeps: the records, each with the id of its run, and the runs by id."""

    records: tuple[Record, ...]
    runs: dict[str, Document]


def keep(documents: Sequence[Document], folder: Path) -> dict[Path, Comparison]:
    """Merge results of runs into the documents of their scales in `folder`, record by record, the newest counting.

    Returns each file that was written and what changed in it. Results at smoke scale are left out, as they decide
    nothing. Raises ResultsError where that leaves nothing, or where a record comes from other seeds than those of the
    verdict.
    """
    scales = {_scale(record, document) for document in documents for record in document["records"]} - {UNDECIDING}
    if not scales or not scales <= set(SCALES):
        raise ResultsError(
            f"there is no verdict to keep at the scales {', '.join(sorted(scales)) or 'smoke'}; expected records at "
            f"{', '.join(scale for scale in SCALES if scale != UNDECIDING)}"
        )
    changes = {}
    for scale in sorted(scales):
        file = folder / f"{scale}.json"
        old = results.read(file) if file.exists() else _document(scale, [], [])
        new = _folded(scale, merge([old, *(_slim(document, scale) for document in documents)]))
        results.write(file, new)
        changes[file] = compare(old, new)
    return changes


def load(folder: Path) -> Results:
    """What `keep` wrote into a folder. Raises ResultsError for a file that it did not write."""
    records: list[Record] = []
    runs: dict[str, Document] = {}
    for file in sorted(folder.glob("*.json")):
        document = results.read(file)
        found = {run["id"]: run for run in document.get("runs", [])}
        if not all(set(KEPT) <= entry.keys() and entry.get("run") in found for entry in document["records"]):
            raise ResultsError(
                f"{file.name} is not a document of kept results: a record lacks one of {', '.join(KEPT)} or its run; "
                "keep results of `mli-check run` with `python scripts/claims_page.py --keep RESULTS.json`"
            )
        records += document["records"]
        runs |= found
    return Results(tuple(sorted(records, key=_order)), runs)


def forget(records: Iterable[Record], folder: Path) -> None:
    """Take records out of the documents of a folder."""
    gone = [_identity(record) for record in records]
    for file in sorted(folder.glob("*.json")):
        document = results.read(file)
        left = [record for record in document["records"] if _identity(record) not in gone]
        if len(left) < len(document["records"]):
            results.write(file, _document(document["scale"], document["runs"], left))


def _slim(document: Document, scale: str) -> Document:
    """The part of a run's results that is kept of one scale."""
    records = [_slim_record(record, scale) for record in document["records"] if _scale(record, document) == scale]
    environment = dict(document["environment"])
    header = {"created": document["created"], "finished": document["finished"], "environment": environment}
    return header | {"command": public(document["command"]), "scale": scale, "records": records}


def _slim_record(record: Record, scale: str) -> Record:
    name = f"{record['claim']} on {record['subject']}"
    if "--seed-offset" in record.get("reproduce", ""):
        raise ResultsError(
            f"{name} was judged on other seeds ({record['reproduce']}); keep results of a run without --seed-offset"
        )
    missing = [key for key in KEPT if key not in record and key != "scale"]
    if missing:
        raise ResultsError(f"the record of {name} lacks {', '.join(missing)}; make it again with `mli-check run`")
    slim = {key: _rounded(record[key]) if key != "scale" else scale for key in KEPT}
    return slim | {"criterion": one_line(record["criterion"])}


def _folded(scale: str, merged: Merged) -> Document:
    """The newest records, and the runs of all documents; those without a record left are dropped."""
    headers = [{key: document[key] for key in _HEADER} for document in merged.documents]
    runs = [{"id": _digest(header)} | header for header in headers]
    records = [dict(judged.newest.record) | {"run": runs[judged.newest.document]["id"]} for judged in merged.judged]
    return _document(scale, runs, records)


def _document(scale: str, runs: Iterable[Document], records: Iterable[Record]) -> Document:
    ordered = sorted(records, key=_order)
    used = {record["run"] for record in ordered}
    found = {run["id"]: run for run in runs if run["id"] in used}
    by_age = sorted(found.values(), key=lambda run: (run["created"], run["id"]))
    return {"schema": results.SCHEMA, "scale": scale, "runs": by_age, "records": ordered}


def public(command: str) -> str:
    """A command without the options that name places on the machine it was typed on."""
    words = shlex.split(command)
    shown = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if before not in _PRIVATE and word.partition("=")[0] not in _PRIVATE
    ]
    return shlex.join(Path(word).name if Path(word).is_absolute() else word for word in shown)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    return {key: _rounded(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def _digest(header: Document) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:8]


def _scale(record: Record, document: Document) -> str:
    return str(record.get("scale") or document["scale"])


def _identity(record: Record) -> tuple[str, str, str]:
    return record["claim"], record["subject"], record["scale"]


def _order(record: Record) -> tuple[tuple[int, str, int], str, str]:
    return natural_key(record["claim"]), record["subject"], record["scale"]
