"""results.json: one record a claim and subject, written to a journal first and then by one rename; read and compared.

A record's keys: claim, subject, scale, verdict, expected, expected_reason, figure {label, value, low, high, unit},
reason, criterion, needed, needed_unit, networks, details, settings [{digest, summary}], charts, device, threads, date,
seconds, reproduce. A chart of curves is {title, x_label, y_label, x, series [{group, label, y}]}; a surface is {kind:
"surface", title, x_label, y_label, value_label, x, y, values, lines [{label, x, y}]}. Where they are not at their
defaults, a chart also has caption, x_scale and y_scale, and a series has style: see `mli_check.charts`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mli_check import __version__
from mli_check.catalogue import natural_key
from mli_check.charts import Chart as Chart
from mli_check.charts import Series as Series
from mli_check.charts import SurfaceChart as SurfaceChart
from mli_check.charts import SurfaceLine as SurfaceLine
from mli_check.errors import ResultsError
from mli_check.statistics import Verdict
from mli_check.verdicts import Ruling

SCHEMA = 1
JOURNAL_SUFFIX = ".journal"
VERDICTS = tuple(verdict.value for verdict in Verdict)

Record = dict[str, Any]
Document = dict[str, Any]


def record(
    *,
    claim: str,
    subject: str,
    scale: str,
    ruling: Ruling,
    criterion: str,
    expected: str | None = None,
    expected_reason: str = "",
    charts: Sequence[Chart | SurfaceChart] = (),
    settings: Sequence[tuple[str, str]] = (),
    networks: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    seconds: float = 0.0,
    seed_offset: int = 0,
) -> Record:
    """The record of one claim and subject, JSON-ready; `settings` are (digest, summary) pairs."""
    flags = "" if scale == "quick" else f" --scale {scale}"
    if (scale == "quick") is not (device == "cpu"):  # not where the scale alone would put it
        flags += " --device cpu" if device == "cpu" else " --device cuda"
    flags += f" --seed-offset {seed_offset}" if seed_offset else ""
    content: Record = {
        "claim": claim,
        "subject": subject,
        "scale": scale,
        "verdict": str(ruling.verdict),
        "expected": expected,
        "expected_reason": expected_reason,
        "figure": dataclasses.asdict(ruling.figure),
        "reason": ruling.reason,
        "criterion": criterion,
        "needed": ruling.needed,
        "needed_unit": ruling.needed_unit,
        "networks": networks,
        "details": dict(ruling.details),
        "settings": [{"digest": digest, "summary": summary} for digest, summary in settings],
        "charts": [chart.as_record() for chart in charts],
        "device": device,
        "threads": threads,
        "date": now(),
        "seconds": round(seconds, 3),
        "reproduce": f"mli-check run {claim}{flags}",
    }
    cleaned: Record = clean(content)
    return cleaned


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment(device: str) -> dict[str, Any]:
    """Versions and machine, read without importing any of the packages."""
    versions = {}
    for package in ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "hypothesis", "pytest"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "mli_check": __version__,
        "python": platform.python_version(),
        **versions,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "device": device,
    }


def new_document(command: str, scale: str, device: str) -> Document:
    """A document without records."""
    return {
        "schema": SCHEMA,
        "created": now(),
        "finished": None,
        "command": command,
        "scale": scale,
        "environment": environment(device),
        "records": [],
        "tests": {"collected": 0, "passed": 0, "failed": 0, "skipped": [], "errors": []},
    }


class Journal:
    """A document that grows record by record: each one is on disk before the next claim runs.

    `close` turns the journal beside `path` into `path` itself. What a killed run had recorded is read back from the
    journal by `read`. Raises ResultsError where the folder cannot be written.
    """

    def __init__(self, path: Path, document: Document) -> None:
        self.path, self.document = path, document
        self.journal = journal_of(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.journal, "w", encoding="utf-8")  # noqa: SIM115 - stays open for the whole session
        except OSError as error:
            raise unwritable(path, error) from error
        self._line({**document, "records": None})

    def append(self, content: Record) -> None:
        """Add a record, on disk when this returns. Raises ResultsError for a second one of a claim and subject."""
        if _key(content) in map(_key, self.document["records"]):
            raise ResultsError(
                f"claim {content['claim']} recorded a second verdict on {content['subject']}; record once"
            )
        self.document["records"].append(content)
        self._line(content)

    def close(self) -> Path:
        """Publish the document and drop the journal."""
        with contextlib.suppress(OSError):  # a line that could not be written has been reported by then
            self._file.close()
        self.document["finished"] = now()
        self._summarise()
        self.document["records"].sort(key=lambda entry: (natural_key(entry["claim"]), entry["subject"]))
        write(self.path, self.document)
        self.journal.unlink()
        return self.path

    def _summarise(self) -> None:
        """Name the scales and devices of the records, which the options alone do not tell."""
        records = self.document["records"]
        if records:
            scales, devices = ([entry.get(name) for entry in records] for name in ("scale", "device"))
            self.document["scale"] = ", ".join(filter(None, dict.fromkeys(scales)))
            self.document["environment"]["device"] = ", ".join(filter(None, dict.fromkeys(devices)))

    def _line(self, content: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(content, allow_nan=False) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from error


def unwritable(path: Path, error: OSError) -> ResultsError:
    """The error to raise where results cannot be written to `path`."""
    return ResultsError(f"cannot write results to {path}: {error.strerror}; choose another file")


def journal_of(path: Path) -> Path:
    """Where the records of results at `path` are kept until the session ends."""
    return path.with_name(path.name + JOURNAL_SUFFIX)


def journal_progress(journal: Path) -> tuple[int, int]:
    """How many claims the session of a journal collected, and how many of them have a record; (0, 0) if unknown."""
    text = journal.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return (json.loads(lines[0])["tests"]["collected"], len(lines) - 1) if lines else (0, 0)


def write(path: Path, document: Document) -> None:
    """Write a document beside `path`, then rename it, so that `path` is whole at every moment."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def read(path: str | Path) -> Document:
    """The document at `path`; where a run was killed before it wrote one, what its journal holds.

    Raises ResultsError for a file that is missing, truncated, not a results file, or of another schema.
    """
    file = Path(path)
    journal = journal_of(file)
    if not file.exists() and journal.exists():
        file = journal
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ResultsError(f"cannot read results {str(file)!r}: {reason}; `mli-check run` writes one") from error
    document: Document = _from_journal(text, file) if file.name.endswith(JOURNAL_SUFFIX) else _parsed(text, file)
    _check(document, file)
    return document


def _parsed(text: str, file: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ResultsError(
            f"{str(file)!r} is truncated or not JSON ({error}); make it again with `mli-check run`"
        ) from error


def _from_journal(text: str, file: Path) -> Any:
    lines = text.splitlines(keepends=True)
    whole = [_parsed(line, file) for line in lines if line.endswith("\n")]  # the last line may be half-written
    if not whole or not isinstance(whole[0], dict):
        raise ResultsError(f"the journal {str(file)!r} holds nothing; make it again with `mli-check run`")
    return {**whole[0], "records": whole[1:]}


def _check(document: Any, file: Path) -> None:
    if not isinstance(document, dict) or "schema" not in document or not isinstance(document.get("records"), list):
        raise ResultsError(f"{str(file)!r} is not a results file of mli-check; expected keys `schema` and `records`")
    if document["schema"] != SCHEMA:
        raise ResultsError(
            f"{str(file)!r} has schema {document['schema']!r}, this version reads {SCHEMA}; "
            "make it again with `mli-check run`, or read it with the version that wrote it"
        )
    seen = set()
    for entry in document["records"]:
        if not isinstance(entry, dict) or not {"claim", "subject", "verdict"} <= entry.keys():
            raise ResultsError(f"{str(file)!r} has a record without claim, subject and verdict: {str(entry)[:80]}")
        if not all(isinstance(entry.get(name, ""), str) for name in ("claim", "subject", "scale")):
            raise ResultsError(f"{str(file)!r} has a claim, subject or scale that is not text: {str(entry)[:80]}")
        if entry["verdict"] not in VERDICTS:
            raise ResultsError(f"{str(file)!r} has the verdict {entry['verdict']!r}; expected one of {VERDICTS}")
        if _key(entry) in seen:
            raise ResultsError(f"{str(file)!r} has two records of {entry['claim']} on {entry['subject']}")
        seen.add(_key(entry))


def _key(entry: Record) -> tuple[str, str, str]:
    return entry["claim"], entry["subject"], entry.get("scale", "")


def clean(value: Any) -> Any:
    """JSON-ready: numpy scalars and arrays become Python's own, NaN and infinities null, keys strings."""
    if isinstance(value, Mapping):
        return {str(key): clean(entry) for key, entry in value.items()}
    if hasattr(value, "tolist"):
        return clean(value.tolist())
    if isinstance(value, list | tuple):
        return [clean(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
