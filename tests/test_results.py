"""Tests of results.json: what a record holds, the journal of a running session, writing, reading and its errors."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mli_check import results
from mli_check.errors import ResultsError
from mli_check.results import Chart, Journal, Series, SurfaceChart, SurfaceLine
from mli_check.statistics import Verdict
from mli_check.verdicts import Figure, Ruling

REPRODUCED = Ruling(verdict=Verdict.REPRODUCED, reason="as claimed", figure=Figure(label="largest rise", value=0.01))


def entry(claim: str = "T1", subject: str = "all", **options: Any) -> results.Record:
    defaults = {"scale": "quick", "ruling": REPRODUCED, "criterion": "It falls."}
    return results.record(claim=claim, subject=subject, **defaults | options)


def document(*entries: results.Record) -> results.Document:
    found = results.new_document("pytest claims", "quick", "cpu")
    found["records"] = list(entries)
    return found


# Records, charts, cleaning


def test_a_record_has_the_documented_keys_and_is_json() -> None:
    keys = [
        "claim", "subject", "scale", "verdict", "expected", "expected_reason", "figure", "reason", "criterion",
        "needed", "needed_unit", "networks", "details", "settings", "charts", "device", "threads", "date", "seconds",
        "reproduce",
    ]  # fmt: skip
    found = entry(settings=[("d1", "FCN4"), ("d2", "FCN4")], networks=2, threads=1, seconds=1.23456)
    assert list(found) == keys
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["verdict"] == "reproduced"
    assert found["figure"] == {"label": "largest rise", "value": 0.01, "low": None, "high": None, "unit": ""}
    assert found["settings"] == [{"digest": "d1", "summary": "FCN4"}, {"digest": "d2", "summary": "FCN4"}]
    assert found["seconds"] == 1.235
    assert all(key in results.__doc__ for key in keys)


def test_a_record_says_how_to_reproduce_it_at_its_scale() -> None:
    assert entry()["reproduce"] == "mli-check run T1"
    assert entry(scale="standard", device="NVIDIA H200")["reproduce"] == "mli-check run T1 --scale standard"
    assert entry(scale="standard", device="cpu")["reproduce"] == "mli-check run T1 --scale standard --device cpu"
    assert entry(seed_offset=7)["reproduce"] == "mli-check run T1 --seed-offset 7"


def test_a_record_is_dated_in_utc() -> None:
    dated = datetime.fromisoformat(entry()["date"])
    assert dated.utcoffset() == timedelta(0)
    assert dated.microsecond == 0


def test_a_record_keeps_what_would_decide_with_its_unit() -> None:
    ruling = Ruling(
        verdict=Verdict.INCONCLUSIVE,
        reason="r",
        figure=Figure(label="f", value=math.nan),
        needed=14,
        needed_unit="pairs",
    )
    found = entry(ruling=ruling)
    assert (found["needed"], found["needed_unit"]) == (14, "pairs")
    assert found["figure"]["value"] is None


def test_a_chart_keeps_six_significant_digits_and_turns_what_is_not_finite_into_null() -> None:
    values = np.array([1 / 3, 123456.789, 1.23456789e-12, np.nan, np.inf, -np.inf, 0.0], dtype=np.float64)
    chart = Chart("title", "alpha", "error", range(7), [Series("group", "network 0", values)])
    found = chart.as_record()
    assert found["x"] == [0, 1, 2, 3, 4, 5, 6]
    assert found["series"] == [
        {"group": "group", "label": "network 0", "y": [0.333333, 123457.0, 1.23457e-12, None, None, None, 0.0]}
    ]
    assert (found["title"], found["x_label"], found["y_label"]) == ("title", "alpha", "error")
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_a_chart_takes_arrays_of_any_float_and_gives_python_floats(kind: type) -> None:
    found = Chart("t", "x", "y", np.linspace(0, 1, 3, dtype=kind), [Series("g", "l", np.ones(3, dtype=kind))])
    numbers = [*found.as_record()["x"], *found.as_record()["series"][0]["y"]]
    assert all(type(number) is float for number in numbers)


def test_a_chart_takes_generators_and_tensors() -> None:
    chart = Chart("t", "x", "y", (x / 2 for x in range(3)), [Series("g", "l", torch.tensor([0.1, 0.2, float("nan")]))])
    assert chart.as_record()["x"] == [0.0, 0.5, 1.0]
    assert chart.as_record()["series"][0]["y"] == [0.1, 0.2, None]


def test_a_record_takes_charts_of_every_kind_and_both_are_read_back(tmp_path: Path) -> None:
    curves = Chart("t", "x", "y", [1, 10], [Series("g", "l", [1, 2], style="points")], "caption", x_scale="log")
    surface = SurfaceChart("t", "x", "y", "v", [0, 1], [0, 1], [[1, math.nan], [3, 4]])
    found = entry(charts=[curves, surface])
    assert found["charts"] == [curves.as_record(), surface.as_record()]
    results.write(tmp_path / "r.json", document(found))
    assert results.read(tmp_path / "r.json")["records"] == [found]


def test_the_documentation_of_a_record_names_every_key_of_a_chart() -> None:
    curves = Chart("t", "x", "y", [1], [Series("g", "l", [1], "dashed")], "c", x_scale="log", y_scale="log").as_record()
    surface = SurfaceChart("t", "x", "y", "v", [0, 1], [0, 1], [[1, 2]] * 2, [SurfaceLine("l", [0], [0])], "c")
    for key in {*curves, *curves["series"][0], *surface.as_record(), *surface.lines[0].as_record()}:
        assert key in results.__doc__


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.float32("nan"), None),
        (np.array([[1.0, math.inf], [2.0, math.nan]]), [[1.0, None], [2.0, None]]),
        (np.array(1.5), 1.5),
        (np.str_("text"), "text"),
        (torch.tensor([1, 2]), [1, 2]),
        (torch.tensor(math.nan), None),
        ((1, [2, (3,)]), [1, [2, [3]]]),
        ({1: math.inf, "a": {None: -math.inf}}, {"1": None, "a": {"None": None}}),
        (Verdict.INCONCLUSIVE, "inconclusive"),
        (Path("a/b"), "a/b"),
        (True, True),
        (None, None),
        (10**30, 10**30),
    ],
    ids=repr,
)
def test_clean_makes_python_values_of(value: Any, wanted: Any) -> None:
    found = results.clean(value)
    assert found == wanted
    assert type(json.loads(json.dumps(found, allow_nan=False))) is type(wanted)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_whatever_is_cleaned_is_json_and_stays_as_it_is_when_cleaned_again(value: Any) -> None:
    found = results.clean(value)
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    assert results.clean(found) == found


def test_the_environment_is_read_without_importing_what_it_names() -> None:
    code = (
        "import sys, mli_check.results as r; e = r.environment('cpu'); "
        "assert e['torch'][0].isdigit() and e['device'] == 'cpu' and e['cores'], e; "
        "print('torch' in sys.modules, 'sklearn' in sys.modules, 'hypothesis' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 3


# The journal


@contextmanager
def running(path: Path, started: results.Document | None = None) -> Iterator[Journal]:
    """A session that ends without closing its journal: its file is closed, as the end of the process does."""
    journal = Journal(path, started or document())
    try:
        yield journal
    finally:
        journal._file.close()


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_record_is_on_disk_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.json"
    beside = results.journal_of(path)
    with running(path) as journal:
        assert len(lines_of(beside)) == 1
        for count in range(1, 4):
            journal.append(entry(f"T{count}"))
            assert [line["claim"] for line in lines_of(beside)[1:]] == [f"T{n}" for n in range(1, count + 1)]
    assert not path.exists()
    assert [found["claim"] for found in results.read(path)["records"]] == ["T1", "T2", "T3"]
    assert results.read(path)["finished"] is None


def test_closing_publishes_the_records_in_the_order_of_the_catalogue_and_drops_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    journal = Journal(path, document())
    for claim, subject in (("T10", "b"), ("L1", "a"), ("T2", "b"), ("T10", "a")):
        journal.append(entry(claim, subject))
    assert journal.close() == path
    assert list(tmp_path.iterdir()) == [path]
    found = results.read(path)
    assert [(e["claim"], e["subject"]) for e in found["records"]] == [
        ("T2", "b"), ("T10", "a"), ("T10", "b"), ("L1", "a"),
    ]  # fmt: skip
    assert found["finished"] is not None


def test_the_journal_of_a_killed_process_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    code = (
        "import sys, time; from pathlib import Path; from mli_check import results\n"
        "journal = results.Journal(Path(sys.argv[1]), results.new_document('pytest', 'quick', 'cpu'))\n"
        "for claim in ('T1', 'T2'): journal.append({'claim': claim, 'subject': 'all', 'verdict': 'reproduced'})\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    found = results.read(path)
    assert [e["claim"] for e in found["records"]] == ["T1", "T2"]
    assert found["finished"] is None
    assert results.read(results.journal_of(path)) == found


@pytest.mark.parametrize("left", [1, 2, 20, -2, -1])
def test_a_half_written_last_line_of_a_journal_is_left_out(tmp_path: Path, left: int) -> None:
    path = tmp_path / "results.json"
    with running(path) as journal:
        journal.append(entry("T1"))
    half = json.dumps(entry("T2"))
    with open(results.journal_of(path), "a") as file:
        file.write(half[:left])
    assert [e["claim"] for e in results.read(path)["records"]] == ["T1"]


def test_a_journal_cut_at_any_byte_gives_the_whole_records_before_it_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with running(path) as journal:
        for claim in ("T1", "T2"):
            journal.append(entry(claim))
    beside = results.journal_of(path)
    whole = beside.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for cut in {*range(0, len(whole), 37), *ends, *(end - 1 for end in ends)}:
        beside.write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends)
        if complete == 0:
            with pytest.raises(ResultsError, match="holds nothing"):
                results.read(path)
        else:
            assert [e["claim"] for e in results.read(path)["records"]] == ["T1", "T2"][: complete - 1]


def test_a_broken_line_inside_a_journal_is_an_error(tmp_path: Path) -> None:
    beside = results.journal_of(tmp_path / "results.json")
    beside.write_text(json.dumps({"schema": 1}) + "\n{half\n")
    with pytest.raises(ResultsError, match="truncated or not JSON"):
        results.read(tmp_path / "results.json")


def test_a_journal_survives_line_separators_inside_its_texts(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    journal = Journal(path, document())
    strange = "a\u2028b\u0085c\x0bd\x1ee\r\nf \ud800"
    journal.append(entry(criterion=strange))
    assert results.read(path)["records"][0]["criterion"] == strange
    assert results.read(journal.close())["records"][0]["criterion"] == strange


def test_a_finished_file_goes_before_a_journal_of_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.write(path, document(entry("T1")))
    with running(path) as journal:
        journal.append(entry("T2"))
    assert [e["claim"] for e in results.read(path)["records"]] == ["T1"]
    assert [e["claim"] for e in results.read(results.journal_of(path))["records"]] == ["T2"]


def test_a_journal_takes_no_second_record_of_a_claim_and_subject(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    journal = Journal(path, document())
    journal.append(entry("T1", "a"))
    journal.append(entry("T1", "b"))
    journal.append(entry("T1", "a", scale="standard"))
    with pytest.raises(ResultsError, match="claim T1 recorded a second verdict on a; record once"):
        journal.append(entry("T1", "a"))
    assert len(results.read(journal.close())["records"]) == 3


def test_a_journal_in_a_place_that_cannot_be_a_folder_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match=r"cannot write results to .*r\.json: .*; choose another file"):
        Journal(tmp_path / "file" / "r.json", document())


def test_a_disk_that_fills_up_keeps_what_was_recorded_and_raises_no_other_error(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from mli_check import errors, results\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "journal = results.Journal(Path(sys.argv[1]), results.new_document('pytest', 'quick', 'cpu'))\n"
        "line = {'subject': 'all', 'verdict': 'reproduced', 'reason': 'x' * 8000}\n"
        "try:\n"
        "    for claim in ('T1', 'T2', 'T3'): journal.append(line | {'claim': claim})\n"
        "except errors.ResultsError as error: print(claim, error)\n"
        "try: journal.close()\n"
        "except errors.ResultsError as error: print('close', error)\n"
    )
    path = tmp_path / "results.json"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["T3", "close"]
    assert all("choose another file" in line for line in done.stdout.splitlines())
    assert [e["claim"] for e in results.read(path)["records"]] == ["T1", "T2"]


def test_a_journal_tells_how_far_its_session_is(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    started = document()
    started["tests"]["collected"] = 5
    with running(path, started) as journal:
        journal.append(entry("T1"))
    assert results.journal_progress(results.journal_of(path)) == (5, 1)
    results.journal_of(path).write_text("")
    assert results.journal_progress(results.journal_of(path)) == (0, 0)


# Writing


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    chart = Chart("t", "x", "y", [0, 0.5, 1], [Series("g", "l", [1, math.nan, 0.25])])
    whole = document(entry("T1", charts=[chart]), entry("T1", "other"), entry("X2", scale="standard"))
    results.write(tmp_path / "r.json", whole)
    assert results.read(tmp_path / "r.json") == whole
    assert results.read(str(tmp_path / "r.json")) == whole


def test_a_failing_rename_leaves_the_old_file_whole_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.json"
    results.write(path, document(entry("T1")))
    before = path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ResultsError, match=r"No space left on device; choose another file"):
        results.write(path, document(entry("T2")))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_whole_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real_sync(descriptor)

    def rename(source: Path, target: Path) -> None:
        assert str(source) in synced
        assert json.loads(Path(source).read_text())["records"]
        assert Path(source).parent == Path(target).parent
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    results.write(tmp_path / "r.json", document(entry()))
    assert results.read(tmp_path / "r.json")["records"]


def test_a_journal_that_cannot_be_published_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    journal = Journal(path, document())
    journal.append(entry("T1"))
    path.mkdir()
    with pytest.raises(ResultsError, match="Is a directory"):
        journal.close()
    assert [e["claim"] for e in results.read(results.journal_of(path))["records"]] == ["T1"]


# Errors of reading

GOOD = {"schema": 1, "records": [{"claim": "T1", "subject": "all", "verdict": "reproduced"}]}


def with_records(*entries: object) -> bytes:
    return json.dumps({"schema": 1, "records": entries}).encode()


def one(**changes: object) -> dict[str, object]:
    return GOOD["records"][0] | changes  # type: ignore[index, operator, return-value]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "truncated or not JSON", id="empty"),
        pytest.param(b"not json", "truncated or not JSON", id="not JSON"),
        pytest.param(b"\xff\xfe\x00binary", "not text", id="binary"),
        pytest.param(bytes(range(256)), "not text", id="every byte"),
        pytest.param(b"\x00" * 64, "truncated or not JSON", id="zeros"),
        pytest.param(b"[" * 100_000, "truncated or not JSON", id="nested too deeply"),
        pytest.param(b"\xef\xbb\xbf{}", "truncated or not JSON", id="a byte order mark"),
        pytest.param(b"[]", "is not a results file", id="a list"),
        pytest.param(b"null", "is not a results file", id="null"),
        pytest.param(b"{}", "is not a results file", id="no keys"),
        pytest.param(b'{"schema": 1}', "is not a results file", id="no records"),
        pytest.param(b'{"records": []}', "is not a results file", id="no schema"),
        pytest.param(b'{"schema": 1, "records": {}}', "is not a results file", id="records as a mapping"),
        pytest.param(b'{"schema": 1, "records": null}', "is not a results file", id="records null"),
        pytest.param(b'{"schema": 2, "records": []}', "has schema 2, this version reads 1", id="a later schema"),
        pytest.param(b'{"schema": "1", "records": []}', "has schema '1', this version reads 1", id="schema as text"),
        pytest.param(with_records(7), "without claim, subject and verdict", id="a number as a record"),
        pytest.param(with_records({"claim": "T1"}), "without claim, subject and verdict", id="no verdict"),
        pytest.param(with_records(one(claim=1)), "not text", id="a number as a claim"),
        pytest.param(with_records(one(claim=["T1"])), "not text", id="a list as a claim"),
        pytest.param(with_records(one(subject=None)), "not text", id="null as a subject"),
        pytest.param(with_records(one(scale=[])), "not text", id="a list as a scale"),
        pytest.param(with_records(one(verdict="maybe")), "has the verdict 'maybe'; expected", id="unknown verdict"),
        pytest.param(with_records(one(verdict=None)), "has the verdict None", id="null as a verdict"),
        pytest.param(with_records(one(verdict=["reproduced"])), "has the verdict", id="a list as a verdict"),
        pytest.param(with_records(one(), one(verdict="inconclusive")), "two records of T1 on all", id="twice the same"),
    ],
)
def test_a_file_that_is_no_results_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=message) as caught:
        results.read(path)
    assert "results.json" in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_a_missing_file_says_what_writes_one(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"No such file or directory; `mli-check run` writes one"):
        results.read(tmp_path / "results.json")


def test_a_folder_is_no_results_file(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="Is a directory"):
        results.read(tmp_path)


def test_a_file_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.write(path, document(entry("T1"), entry("T2")))
    whole = path.read_bytes()
    last = len(whole.rstrip())
    for cut in {*range(0, last, 41), 1, 2, last - 1}:
        path.write_bytes(whole[:cut])
        with pytest.raises(ResultsError, match="truncated or not JSON"):
            results.read(path)
    path.write_bytes(whole[:last])
    assert len(results.read(path)["records"]) == 2


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_with_a_results_error(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any-results.json"
    path.write_bytes(content)
    with pytest.raises(ResultsError):
        results.read(path)


def test_the_same_claim_on_another_subject_or_scale_is_another_record(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(with_records(one(), one(subject="b"), one(subject="b", scale="quick"), one(scale="paper")))
    assert len(results.read(path)["records"]) == 4


def test_results_errors_are_what_the_command_line_catches() -> None:
    from mli_check.errors import MliCheckError

    assert issubclass(ResultsError, MliCheckError)
