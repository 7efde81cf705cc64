"""Tests of the store after its process was killed, at every change that it makes to the file system."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from filelock import FileLock
from killing import DAMAGED_FILE, DEATH, SETTING

from mli_check.errors import DamagedRunWarning
from mli_check.runs import MANIFEST, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.xdist_group("killed"),
    pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows"),
]


@dataclass(frozen=True)
class Killed:
    """A store whose process died before (a write: in the middle of) change number `last`; 0: it lived."""

    store: Store
    last: int
    change: str

    def __str__(self) -> str:
        return f"killed at change {self.last}, {self.change}"


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Killed]]:
    folder = tmp_path_factory.mktemp("killed")
    script = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, script, folder], capture_output=True, text=True, timeout=300, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    stores = {}
    for name, told in json.loads(done.stdout).items():
        assert told["statuses"] == [0] + [DEATH] * len(told["changes"])
        changes = ["none", *told["changes"]]
        stores[name] = [Killed(Store(folder / name / str(k)), k, change) for k, change in enumerate(changes)]
    return stores


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the processes that were killed, whose runs are compared bit for bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def trained(run: Path) -> dict[str, bytes]:
    """The files of a run, checked against its manifest, without the manifest, which tells the time."""
    files = contents(run)
    sums = json.loads(files.pop(MANIFEST))["checksums"]
    assert {name: hashlib.sha256(content).hexdigest() for name, content in files.items()} == sums
    return files


def assert_unlocked(store: Store) -> None:
    for lock in store.root.glob("locks/*"):
        with FileLock(lock, timeout=0):
            pass


def assert_recovered(killed: Killed, wanted: dict[str, bytes]) -> None:
    """The store holds the one run, whole and with the wanted bits, and nothing that was left over."""
    store = killed.store
    assert [folder.name for folder in store.root.glob("runs/*")] == [SETTING.digest], str(killed)
    assert trained(store.folder(SETTING.digest)) == wanted, str(killed)
    assert list(store.root.glob("tmp/*")) == [], str(killed)


def test_the_kills_cover_every_kind_of_change(scenarios: dict[str, list[Killed]]) -> None:
    kinds = {name: {killed.change for killed in all_killed} for name, all_killed in scenarios.items()}
    assert kinds["train"] == {"none", "os.mkdir", "open", "os.chmod", "write", "fsync", "os.rename"}
    assert kinds["retrain"] >= {"os.mkdir", "open", "write", "fsync", "os.rename", "os.remove", "os.rmdir"}
    assert kinds["prune"] >= {"os.rename", "os.remove", "os.rmdir"}
    changes = [killed.change for killed in scenarios["train"]]
    assert changes.count("write") == len(trained(scenarios["train"][0].store.folder(SETTING.digest))) + 1
    assert changes.count("fsync") == changes.count("write") + 3  # the run, its checkpoints, the folder of runs


def test_a_killed_training_leaves_no_run_or_a_whole_one_and_the_next_gives_the_undisturbed_run(
    scenarios: dict[str, list[Killed]],
) -> None:
    undisturbed, *all_killed = scenarios["train"]
    wanted = trained(undisturbed.store.folder(SETTING.digest))
    for killed in all_killed:
        left = killed.store.folder(SETTING.digest)
        published = killed.last == len(all_killed)  # all changes but the last, a sync, come before the rename's end
        assert left.exists() == published, str(killed)
        assert not published or trained(left) == wanted, str(killed)
        assert_unlocked(killed.store)
        killed.store.train(SETTING)
        assert_recovered(killed, wanted)


def test_a_killed_replacement_of_a_damaged_run_loses_neither_and_the_next_gives_the_undisturbed_run(
    scenarios: dict[str, list[Killed]],
) -> None:
    undisturbed, *all_killed = scenarios["retrain"]
    wanted = trained(undisturbed.store.folder(SETTING.digest))
    (aside,) = undisturbed.store.root.glob("damaged/*")
    damaged = contents(aside)
    assert damaged[DAMAGED_FILE] != wanted[DAMAGED_FILE]
    for killed in all_killed:
        run = killed.store.folder(SETTING.digest)
        set_aside = [contents(folder) for folder in killed.store.root.glob("damaged/*")]
        assert set_aside in ([], [damaged]), str(killed)
        in_place = not set_aside
        assert not in_place or contents(run) == damaged, str(killed)
        assert in_place or not run.exists() or trained(run) == wanted, str(killed)
        assert_unlocked(killed.store)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            killed.store.train(SETTING)
        assert [warning.category for warning in caught] == [DamagedRunWarning] * in_place, str(killed)
        assert_recovered(killed, wanted)
        assert [contents(folder) for folder in killed.store.root.glob("damaged/*")] == [damaged], str(killed)


def test_a_killed_prune_leaves_every_run_whole_or_gone_and_the_next_deletes_the_rest(
    scenarios: dict[str, list[Killed]],
) -> None:
    undisturbed, *all_killed = scenarios["prune"]
    assert {Path(name).parent.name for name in contents(undisturbed.store.root)} == {"locks"}
    for killed in all_killed:
        store = killed.store
        for run in store.root.glob("runs/*"):
            assert trained(run), str(killed)
        assert_unlocked(store)
        store.train(SETTING)
        store.prune(everything=True)
        assert [*store.root.glob("runs/*"), *store.root.glob("tmp/*"), *store.root.glob("damaged/*")] == [], str(killed)
