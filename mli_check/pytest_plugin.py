"""The pytest plugin: marks, `--mli-*` options, the `mli` fixture, and results.json.

It imports nothing heavy when pytest starts. A claim calls `mli.record(...)` once; the record travels on its test
report as one JSON string, so that it survives pytest-xdist, and the controlling process alone writes the results.
"""

from __future__ import annotations

import inspect
import json
import os
import shlex
import sys
import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mli_check.errors import MliCheckError, ResultsError
from mli_check.locations import COMMAND_VARIABLE, RESULTS

if TYPE_CHECKING:
    from mli_check.results import Chart, Journal, SurfaceChart
    from mli_check.settings import Setting
    from mli_check.subjects import Subject
    from mli_check.verdicts import Ruling

_RECORD = pytest.StashKey[str]()
_WRITER = "mli_check_results_writer"


class VerdictWarning(UserWarning):
    """A verdict moved to or from `inconclusive`, where its claim expects another."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mli", "mli-check: claims on monotonic linear interpolation")
    group.addoption("--mli-results", metavar="FILE", help="where verdicts go (mli-check-results/results.json)")
    group.addoption("--mli-subject", metavar="NAME", action="append", help="only claims on this subject (repeatable)")
    group.addoption("--mli-store", metavar="DIR", help="the store of trained networks ($MLI_CHECK_STORE)")
    group.addoption(
        "--mli-seed-offset",
        metavar="N",
        type=int,
        default=0,
        help="add N to every training seed, to see whether verdicts hold for other networks (0)",
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests() -> Generator[None, None, None]:
    """One thread a worker of pytest-xdist: set before any conftest imports torch, which reads these variables once."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(variable, "1")
    return (yield)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "claim(id, expected=None, reason=''): an executable claim of the papers; `expected` is a verdict, or a mapping "
        "of subjects (`NAME@paper` at paper scale) to verdicts, and `reason` says why where that is not `reproduced`",
    )
    config.addinivalue_line("markers", "gpu: judged on networks that want a GPU (set by the scale of the subject)")
    if not hasattr(config, "workerinput") and not config.pluginmanager.has_plugin(_WRITER):
        config.pluginmanager.register(ResultsWriter(config), _WRITER)


@pytest.fixture
def mli(request: pytest.FixtureRequest) -> Generator[Recorder, None, None]:
    """Records the verdict of the claim that asks for it; a claim that passes without a verdict is an error."""
    mark = request.node.get_closest_marker("claim")
    if mark is None:
        pytest.fail("the `mli` fixture is for tests marked @pytest.mark.claim(id=...)", pytrace=False)
    recorder = Recorder(request, mark)
    yield recorder
    if recorder.passed and _RECORD not in request.node.stash:
        pytest.fail(f"claim {mark.kwargs['id']} ended without recording a verdict", pytrace=False)


class Recorder:
    """What the `mli` fixture gives: `record` turns a ruling into a record and holds it against what is expected."""

    def __init__(self, request: pytest.FixtureRequest, mark: pytest.Mark) -> None:
        self._request, self._mark = request, mark
        self._started = time.perf_counter()
        self.passed = False  # set when the test itself, with all its fixtures, has passed

    def record(
        self,
        ruling: Ruling,
        *,
        subject: Subject | str = "all",
        charts: Sequence[Chart | SurfaceChart] = (),
        settings: Sequence[Setting] = (),
        device: str = "cpu",
    ) -> None:
        """Record the verdict, then fail if it is the opposite of the expected one and warn if it wavered.

        `subject` is a Subject, whose name and scale are recorded, or a word for what no subject stands for. At smoke
        scale the verdict is always `inconclusive`, and nothing is expected.
        """
        __tracebackhide__ = True
        from mli_check import results
        from mli_check.verdicts import undecided

        node = self._request.node
        if _RECORD in node.stash:
            pytest.fail(f"claim {self._mark.kwargs['id']} recorded a second verdict; record once", pytrace=False)
        name, scale = (subject, "quick") if isinstance(subject, str) else (subject.name, subject.scale)
        if scale == "smoke":
            ruling = undecided(ruling)
        expected = self._expected(name, scale)
        torch = sys.modules.get("torch")
        content = results.record(
            claim=self._mark.kwargs["id"],
            subject=name,
            scale=scale,
            ruling=ruling,
            criterion=inspect.cleandoc(self._request.function.__doc__ or ""),
            expected=expected,
            expected_reason=self._mark.kwargs.get("reason", ""),
            charts=charts,
            settings=[(setting.digest, setting.summary) for setting in settings],
            networks=len(settings),
            device=device,
            threads=torch.get_num_threads() if torch is not None else None,
            seconds=time.perf_counter() - self._started,
            seed_offset=self._request.config.getoption("--mli-seed-offset"),
        )
        node.stash[_RECORD] = json.dumps(content, allow_nan=False)
        self._hold(str(ruling.verdict), expected, ruling.reason)

    def _expected(self, name: str, scale: str) -> str | None:
        """The expected verdict: of the name at the default scales, of `name@paper` at paper scale."""
        expected = self._mark.kwargs.get("expected")
        if scale == "smoke":
            return None
        if isinstance(expected, Mapping):
            found: str | None = expected.get(f"{name}@paper" if scale == "paper" else name)
            return found
        return expected

    def _hold(self, verdict: str, expected: str | None, reason: str) -> None:
        __tracebackhide__ = True
        if expected in (None, verdict):
            return
        claim = self._mark.kwargs["id"]
        message = f"claim {claim}: got `{verdict}`, expected `{expected}` [{reason}]"
        if "inconclusive" in (verdict, expected):
            warnings.warn(message, VerdictWarning, stacklevel=3)
        else:
            pytest.fail(message, pytrace=False)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    outcome = yield
    mark = item.get_closest_marker("claim")
    if mark is None:
        return
    report = outcome.get_result()
    report.mli_claim = mark.kwargs.get("id", "")
    if call.excinfo is not None and isinstance(call.excinfo.value, MliCheckError):
        report.mli_error = str(call.excinfo.value)
    if call.when == "call":
        report.mli_record = item.stash.get(_RECORD, None)
        recorder = getattr(item, "funcargs", {}).get("mli")
        if recorder is not None:
            recorder.passed = report.passed


class ResultsWriter:
    """Collects the records of all workers and writes results.json, if the session ran any claim."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._journal: Journal | None = None
        self.written: Path | None = None
        self._collected = 0
        self._failure = ""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._collected = sum(item.get_closest_marker("claim") is not None for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self._collected = len(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not hasattr(report, "mli_claim"):
            return
        try:
            journal = self._opened()
            if getattr(report, "mli_record", None):
                journal.append(json.loads(report.mli_record))
        except ResultsError as error:
            pytest.exit(str(error), returncode=2)
        tests = journal.document["tests"]
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            tests["skipped"].append({"test": report.nodeid, "reason": reason.removeprefix("Skipped: ")})
        elif report.failed:
            tests["failed"] += 1
            if getattr(report, "mli_error", None) not in (None, *tests["errors"]):
                tests["errors"].append(report.mli_error)
        elif report.when == "call":
            tests["passed"] += 1

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._journal is None:
            return
        try:
            self.written = self._journal.close()
        except ResultsError as error:
            self._failure = f"{error}; the verdicts are in {self._journal.journal}"
            session.exitstatus = pytest.ExitCode.INTERRUPTED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._failure:
            terminalreporter.write_line(f"mli-check: {self._failure}", red=True)
        if self._journal is None or self.written is None:
            return
        verdicts = [entry["verdict"] for entry in self._journal.document["records"]]
        counts = ", ".join(f"{verdicts.count(kind)} {kind}" for kind in sorted(set(verdicts))) or "no verdict"
        terminalreporter.write_line(f"mli-check: {counts}; written to {self.written}")

    def _opened(self) -> Journal:
        if self._journal is None:
            from mli_check import results

            config = self._config
            chosen = config.getoption("--mli-results")
            path = config.invocation_params.dir / (chosen or RESULTS)
            typed = shlex.join(["pytest", *map(str, config.invocation_params.args)])
            command = os.environ.get(COMMAND_VARIABLE, typed)
            device = config.getoption("--device", default=None) or "by scale"
            scale = config.getoption("--scale", default=None) or "quick"
            document = results.new_document(command, scale, device)
            document["tests"]["collected"] = self._collected
            self._journal = results.Journal(path, document)
        return self._journal
