"""Tests of scripts/mutants.py on a tiny project, and that its table of faults fits the package as it is now."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import pytest
from helpers import module_at

Entry: TypeAlias = dict[str, object]

ROOT = Path(__file__).parents[1]
PARTS = {"paths", "curves", "statistics", "evaluation", "symmetry", "noises", "norm_stats", "verdicts"}

SUMS = """\
def total(values):
    result = 0
    for value in values:
        result = result + value
    return result
"""
TESTS = """\
import time

from mli_check.sums import total


def test_three_numbers():
    assert total([1, 2, 3]) == 6


def test_no_number():
    assert total([]) == 0


def test_what_is_wrong_anyway():
    assert total([1]) == 2


def test_for_an_hour():
    time.sleep(3600)
"""
NOTICES, BLIND, WRONG, LONG = (
    f"tests/test_sums.py::test_{name}" for name in ("three_numbers", "no_number", "what_is_wrong_anyway", "for_an_hour")
)


mutants = module_at(ROOT / "scripts" / "mutants.py", "mutants")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A package that is called mli_check too, with the plugin that pytest looks for by its entry point."""
    files = {
        "mli_check/__init__.py": "",
        "mli_check/pytest_plugin.py": "",
        "mli_check/sums.py": SUMS,
        "tests/test_sums.py": TESTS,
    }
    for name, text in files.items():
        file = tmp_path / "tiny" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "tiny"


def fault(name: str, find: str = "result + value", replace: str = "result - value", *witnesses: str) -> Entry:
    return {"name": name, "find": find, "replace": replace, "noticed_by": list(witnesses or (NOTICES,))}


def run(project: Path, *faults: Entry, arguments: tuple[str, ...] = ()) -> int:
    """The exit code of the script for a table of these faults, all of them in sums.py."""
    table = project.parent / "faults.toml"
    lines = []
    for entry in faults:
        lines += ["[[fault]]", "file = 'mli_check/sums.py'", *(f"{name} = {value!r}" for name, value in entry.items())]
    table.write_text("\n".join(lines))
    return mutants.main(arguments, project, table)


# What becomes of a fault


def test_a_fault_that_its_witness_notices_is_caught(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named alone, beside one that would be missed."""
    missed = fault("missed", "result + value", "result - value", BLIND)
    assert run(project, missed, fault("minus"), arguments=("--only", "minus")) == 0
    told = capsys.readouterr().out.splitlines()
    assert [told[0].split()[place] for place in (0, -1)] == ["caught", "minus"]
    assert told[1] == f"  {NOTICES}"
    assert told[-1].split() == ["all", "1", "0", "0"]


def test_faults_are_caught_missed_and_broken_side_by_side(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.read_bytes() for file in project.rglob("*.py")}
    faults = [
        fault("minus"),
        fault("missed-by-one", "result + value", "result - value", NOTICES, BLIND),
        fault("not-imported", "def total", "def sum_of"),
    ]
    assert run(project, *faults, arguments=("--jobs", "2")) == 1
    told = capsys.readouterr().out
    statuses = {line.split()[3].rstrip(";"): line.split()[0] for line in told.splitlines() if " s  " in line}
    assert statuses == {"minus": "caught", "missed-by-one": "MISSED", "not-imported": "BROKEN"}
    assert f"missed-by-one; not noticed by {BLIND}" in told
    assert "ended with exit code" in told
    assert "cannot import name 'total'" in told
    assert told.splitlines()[-1].split() == ["all", "1", "1", "1"]
    assert {file: file.read_bytes() for file in project.rglob("*.py")} == before


def test_a_fault_without_end_is_stopped_and_counts_as_caught(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutants, "SECONDS", 2)
    assert run(project, fault("endless", "for value in values:", "while value := 1:")) == 0
    assert capsys.readouterr().out.startswith("caught (hung)")


# What is refused before a fault is planted


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (fault("gone", "result * value", ""), "gone: stands 0 times in mli_check/sums.py, not once: 'result * value'"),
        (fault("often", "result", "total"), "often: stands 4 times in mli_check/sums.py, not once: 'result'"),
        (fault("no-python", "return result", "return ("), "no-python: mli_check/sums.py is not Python any more"),
        (fault("no-fault", "result = 0", "result = (0)"), "no-fault: changes nothing that mli_check/sums.py does"),
        (fault("no-file", "result = 0", "result = 1", "tests/test_no.py"), "no-file: there is no tests/test_no.py"),
        (fault("no-test", "result = 0", "result = 1", f"{NOTICES}_more"), f"no-test: there is no {NOTICES}_more"),
        (fault("no-witness") | {"noticed_by": []}, "no-witness: has no witness"),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_a_fault_that_does_not_fit_the_source_is_named(
    entry: Entry, told: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(project, entry) == 2
    assert told in capsys.readouterr().err


def test_all_that_does_not_fit_is_told_at_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(project, fault("one", "x = 1"), fault("two", "y = 2")) == 2
    told = capsys.readouterr().err
    assert "one: stands 0 times" in told
    assert "two: stands 0 times" in told


def test_witnesses_that_fail_without_a_fault_are_told_before_others_have_ended(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planted = fault("minus", "result + value", "result - value", LONG, WRONG)
    assert run(project, planted, arguments=("--jobs", "2")) == 2
    told = capsys.readouterr()
    assert "witnesses fail where no fault is planted" in told.err
    assert "test_what_is_wrong_anyway" in told.err
    assert "caught" not in told.out


def test_tests_that_would_import_another_package_than_the_copys_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "shop").mkdir()
    with pytest.raises(mutants.UnusableError, match="would import another mli_check"):
        mutants.Workshop(tmp_path / "shop", tmp_path / "empty")


def test_two_faults_of_one_name_are_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(project, fault("minus"), fault("minus")) == 2
    assert "several faults of one name: minus" in capsys.readouterr().err


# Options


def test_the_list_plants_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(project, fault("minus"), fault("gone", "x = 1"), arguments=("--list",)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{name}  mli_check/sums.py  {NOTICES}" for name in ("minus", "gone")]


def test_an_unknown_name_is_an_error_of_usage(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(project, fault("minus"), arguments=("--only", "plus"))
    assert "no such fault: plus" in capsys.readouterr().err


# The table of the package


def test_the_table_fits_the_package() -> None:
    assert mutants.stale(mutants.load(mutants.TABLE), ROOT) == []


def test_every_part_has_a_fault() -> None:
    faults = mutants.load(mutants.TABLE)
    assert {part for fault in faults for part in Path(fault.file).with_suffix("").parts} >= PARTS
    assert len(faults) >= 25
    assert any(witness.startswith("claims/") for fault in faults for witness in fault.noticed_by)
