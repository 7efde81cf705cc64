"""Tests of recordings among processes that are killed or compete, and of the store's commands beside them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from killing import DEATH
from recorder_helpers import NAME, NEW, NEXT, OLD, REFUSED, STEPS, record, tell, value_of
from torch import nn
from typer.testing import CliRunner

import mli_check as mli
from mli_check import recordings
from mli_check.cli import app
from mli_check.errors import StoreError
from mli_check.run_files import signed
from mli_check.runs import Store

pytestmark = pytest.mark.xdist_group("recorder-processes")
FORKS = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What processes that are killed and that compete left behind."""
    return tell(tmp_path_factory.mktemp("told"), "kill", "compete")


def reached(store: Path) -> tuple[int, int] | None:
    """The recording's value and its iterations, one more if finished; None where there is none."""
    assert len(recordings.listed(Store(store))) == len(recordings.names(store))
    found = mli.load_recording(NAME, store) if recordings.names(store) else None
    return found and (value_of(found), found.iterations + found.finished)


@FORKS
def test_a_process_killed_at_any_moment_leaves_the_old_recording_or_the_new_one_and_the_next_replaces_it(
    told: dict[str, Any],
) -> None:
    last = STEPS + 1  # what `reached` is of a finished recording
    ends = {"first": [None, (NEW, 0)], "over": [(OLD, last), (NEW, 0), (NEW, 1), (NEW, last)]}
    for name, killed in told["kill"].items():
        assert killed["statuses"] == [0] + [DEATH] * len(killed["changes"])
        stores = [told["folder"] / name / str(k) for k in range(1, len(killed["changes"]) + 1)]
        left = [reached(store) for store in stores]
        assert list(dict.fromkeys(left)) == ends[name]
        for store, change, before in zip(stores, killed["changes"], left, strict=True):
            where = f"{name}, killed at change {store.name}, {change}"
            if before is not None:
                with pytest.raises(StoreError, match=r"already.*overwrite=True"):
                    mli.Recorder(nn.Linear(3, 2), name=NAME, store=store)
            assert reached(store) == before, where
            record(store, NEXT)
            assert reached(store) == (NEXT, last), where
            assert [folder.name for folder in (store / "recorded").iterdir()] == [NAME], where
            assert len([file for file in (store / "recorded").rglob("*") if file.is_file()]) == STEPS + 2, where


def test_an_old_recording_that_a_killed_process_half_deleted_never_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the new one in its place is deleted by hand."""
    folder = record(tmp_path, OLD).folder

    def die_half_way(doomed: Path, **_: Any) -> None:
        if doomed.is_dir():
            (doomed / "init.safetensors").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(shutil, "rmtree", die_half_way)
        with pytest.raises(KeyboardInterrupt):
            record(tmp_path, NEW)
    assert mli.load_recording(NAME, tmp_path).init["bias"].unique() == NEW
    shutil.rmtree(folder)
    assert recordings.names(tmp_path) == []
    assert value_of(record(tmp_path, NEXT)) == NEXT


@FORKS
def test_processes_that_record_one_name_at_once_are_refused_or_last_and_never_mixed(told: dict[str, Any]) -> None:
    compete = told["compete"]
    for statuses, value in compete["rounds"]:
        assert set(statuses) <= {0, REFUSED}
        assert statuses[{OLD: 0, NEW: 1}[value]] == 0
    assert compete["another while held"] == REFUSED
    assert compete["a child of the recorder's process"] == 0
    assert compete["held"] == NEXT


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def old_run(root: Path) -> Path:
    """The folder of a run of another training version."""
    folder = root / "runs" / ("0" * 64)
    folder.mkdir(parents=True)
    manifest = {"summary": "old", "created": "2020-01-01T00:00:00+00:00", "device": "cpu", "seconds": 1.0}
    (folder / "manifest.json").write_bytes(signed(manifest | {"training_version": 0}))
    return folder


@pytest.mark.parametrize("options", [[], ["--older-than", "0"], ["--all"]], ids=" ".join)
def test_prune_deletes_no_recording_whatever_it_is_asked(options: list[str], tmp_path: Path) -> None:
    record(tmp_path, OLD)
    mli.Recorder(nn.Linear(2, 2), name="unfinished", store=tmp_path).close()
    before, run = snapshot(tmp_path / "recorded"), old_run(tmp_path)
    told = CliRunner().invoke(app, ["runs", "prune", "--store", str(tmp_path), *options])
    assert (told.exit_code, "recorded" in told.output, run.exists()) == (0, False, False)
    assert snapshot(tmp_path / "recorded") == before
    assert value_of(mli.load_recording(NAME, tmp_path)) == OLD


def test_list_shows_every_recording_beside_the_runs(tmp_path: Path) -> None:
    run = old_run(tmp_path)
    whole, damaged, aside = (record(tmp_path, OLD, name=name) for name in ("whole", "damaged", "aside"))
    mli.Recorder(nn.Linear(2, 2), name="unfinished", store=tmp_path).close()
    (damaged.folder / "manifest.json").write_bytes(b"{}")
    aside.folder.rename(aside.folder.with_name(".old+aside"))
    told = CliRunner().invoke(app, ["runs", "list", "--json", "--store", str(tmp_path)])
    assert {entry["digest"]: entry["summary"] for entry in json.loads(told.output)} == {
        run.name: "old",
        "recorded/whole": "recording whole: Linear, 2 iterations, finished",
        "recorded/aside": "recording aside: Linear, 2 iterations, finished",
        "recorded/unfinished": "recording unfinished: Linear, 0 iterations, unfinished",
        "recorded/damaged": "recording damaged: damaged manifest",
    }
    sizes = {entry["digest"]: entry["size"] for entry in json.loads(told.output)}
    assert sizes["recorded/whole"] == sum(len(each) for name, each in snapshot(whole.folder).items() if "safe" in name)
    table = CliRunner().invoke(app, ["runs", "list", "--store", str(tmp_path)]).output
    assert (table.count("recorded "), "5 networks" in table) == (4, True)


def test_list_outlives_a_recording_that_is_replaced_while_it_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path, OLD)
    rglob = Path.rglob

    def found_then_replaced(folder: Path, pattern: str) -> list[Path]:
        files = [*rglob(folder, pattern), folder / "gone.safetensors"]
        monkeypatch.undo()
        record(tmp_path, NEW)
        return files

    monkeypatch.setattr(Path, "rglob", found_then_replaced)
    (entry,) = recordings.listed(Store(tmp_path))
    assert entry.summary == "recording a: Linear, 2 iterations, finished"
