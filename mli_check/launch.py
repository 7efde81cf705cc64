"""Runs the claims: pytest in a process of its own, shielded from the settings of the project the user stands in."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mli_check import results
from mli_check.errors import OptionError
from mli_check.locations import COMMAND_VARIABLE, DATA_VARIABLE, RESULTS, STORE_VARIABLE
from mli_check.progress import Progress

_DROPPED = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `mli-check run` was asked for; empty `claims` and `subjects` mean all, no `device` the one of the scale."""

    claims: Sequence[str] = ()
    subjects: Sequence[str] = ()
    scale: str = "quick"
    device: str | None = None
    workers: int = 1
    seed_offset: int = 0
    store: Path | None = None
    data_root: Path | None = None
    results: Path = RESULTS


@dataclass(frozen=True)
class Outcome:
    """What pytest gave: its exit status, everything it printed, and the results document if one was written."""

    status: int
    output: str
    document: results.Document | None


def claims_folder() -> Path:
    """The claims: inside the wheel, or beside the package in a checkout. Raises OptionError if neither is there."""
    package = Path(__file__).parent
    for folder in (package / "_claims", package.parent / "claims"):
        if (folder / "pytest.ini").is_file():
            return folder
    raise OptionError("the claims are not installed beside the package; install mli-check from its wheel or a checkout")


def command(request: Request) -> list[str]:
    """The pytest command line of a request."""
    folder = claims_folder()
    parts = [sys.executable, "-m", "pytest", str(folder), "-c", str(folder / "pytest.ini"), f"--rootdir={folder}"]
    parts += ["-p", "no:cacheprovider", "-p", "mli_check.pytest_plugin", "-q"]
    parts += [f"--mli-results={request.results.absolute()}", f"--mli-seed-offset={request.seed_offset}"]
    parts += [f"--scale={request.scale}"] + ([f"--device={request.device}"] if request.device else [])
    parts += [f"--mli-subject={name}" for name in request.subjects]
    if request.claims:
        parts += ["-m", " or ".join(f"claim(id={claim!r})" for claim in request.claims)]
    if request.workers > 1:
        parts += ["-p", "xdist.plugin", "-n", str(request.workers), "--dist", "loadgroup"]
    return parts


def environment(request: Request) -> dict[str, str]:
    """The environment of that command: no foreign plugins, options or modules, our store and data folders."""
    chosen = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    chosen |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONSAFEPATH": "1"}
    chosen[COMMAND_VARIABLE] = shlex.join(["mli-check", *sys.argv[1:]])
    if request.store is not None:
        chosen[STORE_VARIABLE] = str(request.store.absolute())
    if request.data_root is not None:
        chosen[DATA_VARIABLE] = str(request.data_root.absolute())
    return chosen


def run(request: Request, progress: Progress | None = None) -> Outcome:
    """Run the claims and wait; `progress(done, total)` follows the journal of results.

    The document of an earlier run is kept until this one has its own. Raises ResultsError if its folder cannot be
    written.
    """
    path = request.results.absolute()
    before = path.stat().st_mtime_ns if path.exists() else None
    _prepare(path)
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command(request), env=environment(request), stdout=output, stderr=subprocess.STDOUT)
        try:
            _watch(process, path, progress)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
            _drop_empty(path)
        output.seek(0)
        text = output.read().decode(errors="replace")
    written = path.exists() and path.stat().st_mtime_ns != before
    return Outcome(process.returncode, text, results.read(path) if written else None)


def _prepare(path: Path) -> None:
    """Make sure, before any work, that results can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        results.journal_of(path).write_text("")
    except OSError as error:
        raise results.unwritable(path, error) from error


def _drop_empty(path: Path) -> None:
    journal = results.journal_of(path)
    if journal.exists() and journal.stat().st_size == 0:
        journal.unlink()


def _watch(process: subprocess.Popen[bytes], path: Path, progress: Progress | None) -> None:
    """Wait for pytest, telling `progress` of every line that its journal gains."""
    journal = results.journal_of(path)
    total = done = 0
    while process.poll() is None:
        time.sleep(0.1)
        if progress is None or not journal.exists():
            continue
        total, now = results.journal_progress(journal)
        if total and now != done:
            done = now
            progress(done, total)
    if progress is not None and total:
        progress(total, total)
