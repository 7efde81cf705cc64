"""Tests of the store: what it keeps, how it finds damage, and what it does on disks that cannot be written."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import itertools
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import threading
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch
import torch
from filelock import FileLock
from helpers import assert_equal_states, script_environment, tiny_setting

from mli_check import durable, run_files, runs
from mli_check.errors import DamagedRunWarning, StoreError
from mli_check.runs import MANIFEST, Run, Store
from mli_check.settings import TRAINING_VERSION, Setting
from mli_check.training.fit import fit
from mli_check.training.sets import training_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


SETTING = tiny_setting(checkpoints=(2, 5))
OTHER = SETTING.with_seeds(1)
DIVERGING = tiny_setting(lr=1e30, epochs=3)
STATES = (
    "init.safetensors",
    "final.safetensors",
    "checkpoints/00000002.safetensors",
    "checkpoints/00000005.safetensors",
)
FILES = (*STATES, "settings.json", "history.json", MANIFEST)
NO_ROOM = os.strerror(errno.ENOSPC)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Store(tmp_path_factory.mktemp("trained")).train(SETTING)


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def store(empty: Store, trained: Run) -> Store:
    """A store of its own with the run of SETTING."""
    shutil.copytree(trained.folder, empty.folder(SETTING.digest))
    return empty


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Setting]:
    """The settings that were trained."""
    calls = []
    monkeypatch.setattr(runs, "fit", lambda setting, *rest: (calls.append(setting), fit(setting, *rest))[1])
    return calls


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def without_manifest(folder: Path) -> dict[str, bytes]:
    """All that depends on the setting alone."""
    return {name: content for name, content in contents(folder).items() if name != MANIFEST}


def names(store: Store, part: str) -> list[str]:
    return sorted(entry.name for entry in store.root.glob(f"{part}/*"))


def rewrite_manifest(folder: Path, **entries: object) -> None:
    """Change entries of a manifest, which stays sound."""
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_bytes(run_files.signed(manifest | entries))


def run_script(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=script_environment(), check=False)


# What is kept


def test_training_twice_gives_the_same_run_without_training_again(empty: Store, fits: list[Setting]) -> None:
    first, second = empty.train(SETTING), empty.train(SETTING)
    assert fits == [SETTING]
    assert first.folder == second.folder
    assert first.manifest == second.manifest
    assert_equal_states(first.final, second.final)


def test_a_new_store_object_and_the_module_s_train_find_the_run(store: Store, fits: list[Setting]) -> None:
    again = runs.train(SETTING, Store(store.root))
    assert fits == []
    assert again.folder == store.folder(SETTING.digest)


def test_a_setting_that_was_not_trained_is_not_found(store: Store) -> None:
    assert store.find(OTHER) is None
    assert names(store, "runs") == [SETTING.digest]


def test_a_store_that_does_not_exist_is_empty_and_looking_does_not_create_it(empty: Store) -> None:
    assert empty.find(SETTING) is None
    assert empty.runs() == []
    assert empty.prune(everything=True) == []
    assert not empty.root.exists()


def test_states_checkpoints_and_history_read_back_as_trained(trained: Run) -> None:
    result = fit(SETTING, training_data(SETTING))
    assert_equal_states(trained.init, result.init)
    assert_equal_states(trained.final, result.final)
    assert list(trained.checkpoints) == list(result.checkpoints) == [2, 5]
    for step, state in result.checkpoints.items():
        assert_equal_states(trained.checkpoints[step], state)
    assert trained.history == result.history
    assert not trained.diverged


def test_a_run_without_checkpoints_has_none_and_no_folder_for_them(empty: Store) -> None:
    run = empty.train(tiny_setting())
    assert run.checkpoints == {}
    assert not (run.folder / "checkpoints").exists()


def test_data_given_are_trained_on(empty: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    data = training_data(SETTING)
    monkeypatch.delattr(runs, "training_data")
    assert_equal_states(empty.train(SETTING, data).final, fit(SETTING, data).final)


def test_progress_is_passed_on(empty: Store) -> None:
    told = []
    empty.train(tiny_setting(epochs=2), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_the_manifest_tells_who_trained_what_when_where_and_with_what(trained: Run) -> None:
    manifest = dict(trained.manifest)
    created = datetime.fromisoformat(manifest.pop("created"))
    assert timedelta(0) <= datetime.now(UTC) - created < timedelta(minutes=10)
    assert 0 < manifest.pop("seconds") < 60
    assert len(manifest.pop("checksum")) == 64
    assert manifest == {
        "digest": SETTING.digest,
        "summary": SETTING.summary,
        "training_version": TRAINING_VERSION,
        "trainer": "fit",
        "execution": [],
        "group": None,
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "diverged_at": None,
        "checksums": {
            name: hashlib.sha256(content).hexdigest() for name, content in without_manifest(trained.folder).items()
        },
    }


def test_the_manifest_tells_how_a_gpu_ran_it(empty: Store) -> None:
    result = dataclasses.replace(fit(SETTING, training_data(SETTING)), execution=("fused", "cuda_graph"))
    with empty.lock([SETTING.digest]):
        empty.write(SETTING, result, trainer="fit", group=None)
    run = empty.find(SETTING)
    assert run is not None
    assert run.manifest["execution"] == ["fused", "cuda_graph"]


def test_a_run_written_by_another_trainer_says_so(empty: Store) -> None:
    result = fit(SETTING, training_data(SETTING))
    with empty.lock([SETTING.digest]):
        folder = empty.write(SETTING, result, trainer="ensemble", group="a group")
    run = empty.find(SETTING)
    assert run is not None
    assert run.folder == folder
    assert (run.manifest["trainer"], run.manifest["group"]) == ("ensemble", "a group")


def test_a_run_folder_is_named_by_the_digest_and_holds_nothing_but_the_run(empty: Store) -> None:
    run = empty.train(SETTING)
    assert run.folder == empty.root / "runs" / SETTING.digest
    assert sorted(contents(run.folder)) == sorted(FILES)
    assert (run.folder / "settings.json").read_text() == SETTING.canonical()
    assert set(safetensors.torch.load_file(run.folder / "final.safetensors")) == set(run.final)
    assert names(empty, "tmp") == []
    assert names(empty, "locks") == [f"{SETTING.digest}.lock"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077], ids=oct)
def test_published_files_have_ordinary_permissions(empty: Store, umask: int) -> None:
    before = os.umask(umask)
    try:
        run = empty.train(SETTING)
    finally:
        os.umask(before)
    for entry in (run.folder, *run.folder.rglob("*")):
        ordinary = 0o777 if entry.is_dir() else 0o666
        assert stat.S_IMODE(entry.stat().st_mode) == ordinary & ~umask, entry


def test_a_diverged_run_is_stored_and_flagged(empty: Store, fits: list[Setting]) -> None:
    run = empty.train(DIVERGING)
    assert run.diverged
    assert run.manifest["diverged_at"] == len(run.history) == 1
    assert run.history[-1]["train_loss"] is None
    assert empty.train(DIVERGING).diverged
    assert fits == [DIVERGING]


def test_every_json_file_of_a_diverged_run_is_strict_json(empty: Store) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    for file in empty.train(DIVERGING).folder.glob("*.json"):
        json.loads(file.read_text(), parse_constant=refuse)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_in_a_history_becomes_null(empty: Store, value: float) -> None:
    result = fit(SETTING, training_data(SETTING))
    result.history[0]["train_loss"] = value
    with empty.lock([SETTING.digest]):
        folder = empty.write(SETTING, result, trainer="fit", group=None)
    assert json.loads((folder / "history.json").read_text())[0]["train_loss"] is None


# Where the store is


def test_the_store_is_where_the_argument_says_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLI_CHECK_STORE", str(tmp_path / "environment"))
    assert Store(tmp_path / "argument").root == tmp_path / "argument"
    assert Store(str(tmp_path / "argument")).root == tmp_path / "argument"
    assert Store().root == tmp_path / "environment"


@pytest.mark.skipif(sys.platform != "linux", reason="XDG_CACHE_HOME is Linux's")
@pytest.mark.parametrize("variable", [None, ""], ids=["unset", "empty"])
def test_the_store_is_by_default_in_the_users_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    monkeypatch.delenv("MLI_CHECK_STORE", raising=False)
    if variable is not None:
        monkeypatch.setenv("MLI_CHECK_STORE", variable)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Store().root == tmp_path / "mli-check" / "store"


def test_a_relative_store_stays_where_it_was_and_the_home_folder_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = Store("here")
    monkeypatch.chdir("/")
    assert relative.root == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store("~/there").root == tmp_path / "there"


# Damage


def flip(file: Path, place: float) -> None:
    content = bytearray(file.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "first byte flipped": lambda file: flip(file, 0.0),
    "early byte flipped": lambda file: flip(file, 0.1),
    "middle byte flipped": lambda file: flip(file, 0.5),
    "last byte flipped": lambda file: flip(file, 1.0),
    "truncated": lambda file: os.truncate(file, file.stat().st_size // 2),
    "last byte missing": lambda file: os.truncate(file, file.stat().st_size - 1),
    "emptied": lambda file: os.truncate(file, 0),
    "byte added": lambda file: file.write_bytes(file.read_bytes() + b"\n"),
    "missing": Path.unlink,
    "replaced by a folder": lambda file: (file.unlink(), file.mkdir()),
}


def assert_trained_again(store: Store, trained: Run, fits: list[Setting]) -> None:
    """The damaged run is found, set aside as it is, and trained again to the same bits; once."""
    folder = store.folder(SETTING.digest)
    damaged = contents(folder)
    assert store.find(SETTING) is None
    with pytest.warns(DamagedRunWarning, match=SETTING.digest) as caught:
        run = store.train(SETTING)
    assert caught[0].filename == __file__
    (aside,) = store.root.glob("damaged/*")
    assert str(aside) in str(caught[0].message)
    assert contents(aside) == damaged
    assert without_manifest(run.folder) == without_manifest(trained.folder)
    assert run.manifest["checksums"] == trained.manifest["checksums"]
    store.train(SETTING)
    assert fits == [SETTING]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_found_and_the_run_set_aside_and_trained_again(
    store: Store, trained: Run, fits: list[Setting], file: str, damage: str
) -> None:
    DAMAGES[damage](store.folder(SETTING.digest) / file)
    assert_trained_again(store, trained, fits)


def test_an_empty_folder_in_the_place_of_a_run_is_set_aside(store: Store, trained: Run, fits: list[Setting]) -> None:
    shutil.rmtree(store.folder(SETTING.digest))
    store.folder(SETTING.digest).mkdir()
    assert_trained_again(store, trained, fits)


def test_a_run_without_its_checkpoints_is_set_aside(store: Store, trained: Run, fits: list[Setting]) -> None:
    shutil.rmtree(store.folder(SETTING.digest) / "checkpoints")
    assert_trained_again(store, trained, fits)


def test_another_settings_run_in_the_place_of_a_run_is_set_aside(
    store: Store, trained: Run, fits: list[Setting]
) -> None:
    shutil.rmtree(store.folder(SETTING.digest))
    store.train(OTHER).folder.rename(store.folder(SETTING.digest))
    fits.clear()
    assert_trained_again(store, trained, fits)
    assert store.find(OTHER) is None


def test_a_run_of_another_training_version_in_the_place_of_a_run_is_set_aside(
    store: Store, trained: Run, fits: list[Setting]
) -> None:
    folder = store.folder(SETTING.digest)
    older = SETTING.canonical().replace(f'"training_version":{TRAINING_VERSION}', '"training_version":0')
    (folder / "settings.json").write_text(older)
    sums = trained.manifest["checksums"] | {"settings.json": hashlib.sha256(older.encode()).hexdigest()}
    rewrite_manifest(folder, checksums=sums)
    assert_trained_again(store, trained, fits)


def test_a_deleted_run_is_trained_again_without_a_warning(store: Store, trained: Run, fits: list[Setting]) -> None:
    shutil.rmtree(store.folder(SETTING.digest))
    assert without_manifest(store.train(SETTING).folder) == without_manifest(trained.folder)
    assert fits == [SETTING]
    assert names(store, "damaged") == []


def test_a_run_damaged_twice_is_set_aside_twice(store: Store) -> None:
    for _ in range(2):
        flip(store.folder(SETTING.digest) / "final.safetensors", 0.7)
        with pytest.warns(DamagedRunWarning):
            store.train(SETTING)
    assert len(names(store, "damaged")) == 2


@pytest.mark.parametrize("file", [MANIFEST, "settings.json"])
def test_a_flipped_bit_anywhere_in_what_describes_a_run_is_found_and_breaks_no_listing(store: Store, file: str) -> None:
    described = store.folder(SETTING.digest) / file
    content = described.read_bytes()
    for place, bit in itertools.product(range(len(content)), (0, 3, 5)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        described.write_bytes(flipped)
        assert store.find(SETTING) is None, (place, bit)
        if file == MANIFEST:
            assert store.runs() == [], (place, bit)
            assert store.prune(older_than_days=0, dry=True) == [], (place, bit)


@pytest.mark.parametrize("manifest", ["[]", "1", "null", '"text"', "{}", '{"checksums": []}', "\x00", "[" * 100])
def test_a_manifest_of_another_shape_is_damage(store: Store, manifest: str) -> None:
    (store.folder(SETTING.digest) / MANIFEST).write_text(manifest)
    assert store.find(SETTING) is None
    assert store.runs() == []
    assert store.prune(dry=True) == []
    assert store.prune(everything=True) == [store.folder(SETTING.digest)]


# Several processes


RACE = """
import os, sys, time
from pathlib import Path
from helpers import assert_equal_states, script_environment, tiny_setting
from mli_check import runs
from mli_check.training.fit import fit
from mli_check.training.sets import training_data

root, others, marker = map(Path, sys.argv[1:])

def counted(*arguments):
    with open(marker, "a") as file:
        file.write("trained\\n")
    time.sleep(0.5)
    return fit(*arguments)

runs.fit = counted
(others / str(os.getpid())).touch()
while len(list(others.iterdir())) < 2:
    time.sleep(0.01)
print(runs.Store(root).train(tiny_setting(checkpoints=(2, 5))).manifest["checksum"])
"""


def test_two_processes_that_ask_for_the_same_run_train_it_once(empty: Store, tmp_path: Path, trained: Run) -> None:
    others, marker = tmp_path / "others", tmp_path / "marker"
    others.mkdir()
    command = [sys.executable, "-c", RACE, empty.root, others, marker]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=script_environment()) for _ in range(2)]
    told = [process.communicate(timeout=100)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert marker.read_text() == "trained\n"
    assert told[0] == told[1]
    assert without_manifest(empty.folder(SETTING.digest)) == without_manifest(trained.folder)
    assert names(empty, "tmp") == []


def test_overlapping_sets_of_locks_taken_in_opposite_orders_do_not_deadlock(empty: Store) -> None:
    sets = [["a", "b", "c"], ["c", "b", "a"], ["b", "d", "a"]]
    holders = dict.fromkeys("abcd", 0)

    def take(digests: list[str]) -> None:
        for _ in range(10):
            with empty.lock(digests):
                for digest in digests:
                    holders[digest] += 1
                    assert holders[digest] == 1
                for digest in digests:
                    holders[digest] -= 1

    threads = [threading.Thread(target=take, args=(digests,), daemon=True) for digests in sets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)


def test_locks_are_taken_in_sorted_order_once_each(empty: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    lock = Store._lock
    monkeypatch.setattr(Store, "_lock", lambda store, digest: (taken.append(digest), lock(store, digest))[1])
    with empty.lock(iter(["b", "c", "a", "b"])):
        assert taken == ["a", "b", "c"]
        for digest in taken:
            assert is_locked(empty, digest)
    assert not any(is_locked(empty, digest) for digest in taken)


def is_locked(store: Store, digest: str) -> bool:
    try:
        with FileLock(store.root / "locks" / f"{digest}.lock", timeout=0):
            return False
    except TimeoutError:
        return True


def test_the_lock_of_a_run_is_held_while_it_trains_and_free_afterwards(
    empty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checked(*arguments: Any) -> Any:
        assert is_locked(empty, SETTING.digest)
        assert not is_locked(empty, OTHER.digest)
        return fit(*arguments)

    monkeypatch.setattr(runs, "fit", checked)
    empty.train(SETTING)
    assert not is_locked(empty, SETTING.digest)


def test_a_run_that_another_process_trains_meanwhile_is_not_trained_again(
    empty: Store, trained: Run, fits: list[Setting], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = Store._lock

    def late(store: Store, digest: str) -> Any:
        shutil.copytree(trained.folder, store.folder(digest))
        return lock(store, digest)

    monkeypatch.setattr(Store, "_lock", late)
    assert empty.train(SETTING).manifest == trained.manifest
    assert fits == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ValueError])
def test_a_training_that_fails_leaves_no_run_and_no_lock(
    empty: Store, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(runs, "fit", fail)
        with pytest.raises(error):
            empty.train(SETTING)
    assert names(empty, "runs") == names(empty, "tmp") == []
    assert not is_locked(empty, SETTING.digest)
    empty.train(SETTING)


def test_data_that_cannot_be_read_are_not_blamed_on_the_store(empty: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(setting: Setting) -> None:
        raise FileNotFoundError("no such data")

    monkeypatch.setattr(runs, "training_data", fail)
    with pytest.raises(FileNotFoundError, match="no such data"):
        empty.train(SETTING)


def observe(monkeypatch: pytest.MonkeyPatch, look: Callable[[str], None]) -> None:
    """Call `look` with the change's name after each change that a store makes to the file system."""
    for module, name in (
        (durable, "write"),
        (os, "mkdir"),
        (os, "fsync"),
        (os, "rename"),
        (os, "unlink"),
        (os, "rmdir"),
    ):
        change = getattr(module, name)

        def observed(*arguments: Any, _change: Any = change, _name: str = name, **options: Any) -> Any:
            result = _change(*arguments, **options)
            look(_name)
            return result

        monkeypatch.setattr(module, name, observed)


def test_a_reader_sees_no_run_before_the_rename_and_the_whole_run_after_it(
    empty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(change: str) -> None:
        found, fault = empty._read(SETTING)
        assert fault is None
        seen.append((change, found is not None, len(empty.runs())))

    with monkeypatch.context() as patched:
        observe(patched, look)
        empty.train(SETTING)
    published = [change for change, _, _ in seen].index("rename")
    assert [change for change, _, _ in seen].count("write") == len(FILES)
    assert all((found, listed) == (False, 0) for _, found, listed in seen[:published])
    assert all((found, listed) == (True, 1) for _, found, listed in seen[published:])


def test_a_reader_sees_the_whole_run_or_none_while_it_is_pruned(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(change: str) -> None:
        found, fault = store._read(SETTING)
        assert fault is None
        seen.append((found is not None, len(store.runs())))

    with monkeypatch.context() as patched:
        observe(patched, look)
        store.prune(everything=True)
    assert seen[-1] == (False, 0)
    assert len(seen) > len(FILES)
    assert set(seen) == {(True, 1), (False, 0)}


def test_all_files_are_synced_then_their_folders_before_the_rename_and_the_runs_folder_after_it(
    empty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sync, rename = os.fsync, os.rename
    monkeypatch.setattr(
        os, "fsync", lambda handle: (order.append(Path(f"/proc/self/fd/{handle}").readlink().name), sync(handle))
    )
    monkeypatch.setattr(os, "rename", lambda *paths: (order.append("renamed"), rename(*paths)))
    if not Path("/proc/self/fd").exists():
        pytest.skip("the names of open files are read from /proc")
    empty.train(SETTING)
    files, folders, after = order[: len(FILES)], order[len(FILES) : -2], order[-2:]
    assert sorted(files) == sorted(Path(name).name for name in FILES)
    assert len(folders) == 2
    assert "checkpoints" in folders
    assert after == ["renamed", "runs"]


def test_readers_and_a_pruner_at_work_at_the_same_time_never_see_damage(store: Store, trained: Run) -> None:
    reader = Store(store.root)
    stop = threading.Event()
    found: list[bool] = []
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                run = reader.find(SETTING)
                found.append(run is not None)
                reader.runs()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    for _ in range(15):
        store.prune(everything=True)
        store.train(SETTING)
    stop.set()
    thread.join(timeout=30)
    assert failures == []
    assert found
    assert names(store, "damaged") == names(store, "tmp") == []


# Listing and pruning


def test_runs_lists_every_run_oldest_first(store: Store) -> None:
    for setting, created in ((OTHER, "2024-05-01T00:00:00+00:00"), (DIVERGING, "2023-05-01T00:00:00+00:00")):
        rewrite_manifest(store.train(setting).folder, created=created)
    listed = store.runs()
    assert [run.digest for run in listed] == [DIVERGING.digest, OTHER.digest, SETTING.digest]
    assert [run.summary for run in listed] == [DIVERGING.summary, OTHER.summary, SETTING.summary]
    assert [run.created for run in listed[:2]] == ["2023-05-01T00:00:00+00:00", "2024-05-01T00:00:00+00:00"]
    assert {run.device for run in listed} == {"cpu"}
    assert all(run.seconds > 0 and run.current for run in listed)
    assert listed[-1].size == sum(map(len, contents(store.folder(SETTING.digest)).values()))


def test_runs_leaves_out_what_is_no_run(store: Store) -> None:
    (store.root / "runs" / "empty").mkdir()
    (store.root / "runs" / "a file").write_text("text")
    assert [run.digest for run in store.runs()] == [SETTING.digest]


def age(folder: Path, days: float) -> None:
    rewrite_manifest(folder, created=(datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds"))


def test_prune_leaves_current_runs_alone(store: Store) -> None:
    age(store.folder(SETTING.digest), 10_000)
    assert store.prune() == []
    assert store.find(SETTING) is not None


def test_prune_deletes_runs_older_than_asked(store: Store) -> None:
    folder = store.train(OTHER).folder
    age(folder, 10.5)
    assert store.prune(older_than_days=11) == []
    assert store.prune(older_than_days=10) == [folder]
    assert names(store, "runs") == [SETTING.digest]


def test_prune_deletes_runs_of_another_training_version(store: Store) -> None:
    folder = store.train(OTHER).folder
    rewrite_manifest(folder, training_version=TRAINING_VERSION - 1)
    assert [run.current for run in store.runs() if run.digest == OTHER.digest] == [False]
    assert store.prune() == [folder]
    assert names(store, "runs") == [SETTING.digest]


def test_prune_deletes_everything_where_asked_once(store: Store) -> None:
    store.train(OTHER)
    rewrite_manifest(store.folder(OTHER.digest), training_version=TRAINING_VERSION - 1)
    (store.root / "runs" / "empty").mkdir()
    deleted = store.prune(everything=True)
    assert sorted(folder.name for folder in deleted) == sorted([SETTING.digest, OTHER.digest, "empty"])
    assert names(store, "runs") == names(store, "tmp") == names(store, "damaged") == []
    assert store.prune(everything=True) == []


def test_prune_deletes_runs_that_were_set_aside(store: Store) -> None:
    flip(store.folder(SETTING.digest) / "init.safetensors", 0.5)
    with pytest.warns(DamagedRunWarning):
        store.train(SETTING)
    (aside,) = store.root.glob("damaged/*")
    assert store.prune() == [aside]
    assert not aside.exists()
    assert store.find(SETTING) is not None


def leave_over(store: Store, digest: str) -> Path:
    folder = store.root / "tmp" / f"{digest}-1234-abcd"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "init.safetensors").write_bytes(b"half")
    return folder


def test_prune_deletes_what_a_dead_process_left_and_not_what_a_live_one_writes(store: Store) -> None:
    dead, live = leave_over(store, SETTING.digest), leave_over(store, OTHER.digest)
    with store.lock([OTHER.digest]):
        assert store.prune(dry=True) == [dead]
        assert store.prune() == [dead]
        assert not dead.exists()
        assert live.exists()
    assert store.prune() == [live]
    assert store.prune() == []


def test_prune_leaves_a_run_alone_whose_lock_is_held(store: Store) -> None:
    with store.lock([SETTING.digest]):
        assert store.prune(everything=True) == []
    assert store.prune(everything=True) == [store.folder(SETTING.digest)]


def test_prune_does_not_mind_a_faster_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_over(store, OTHER.digest)
    lock = Store._lock

    def slow(this: Store, digest: str) -> Any:
        with monkeypatch.context() as patched:
            patched.setattr(Store, "_lock", lock)
            assert len(Store(store.root).prune(everything=True)) in (2, 0)
        return lock(this, digest)

    monkeypatch.setattr(Store, "_lock", slow)
    assert store.prune(everything=True) == []
    assert names(store, "runs") == names(store, "tmp") == []


def test_prune_in_the_middle_of_a_training_does_not_disturb_it(
    empty: Store, trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned = []
    observe(monkeypatch, lambda change: change == "write" and pruned.extend(Store(empty.root).prune(everything=True)))
    run = empty.train(SETTING)
    assert pruned == []
    assert without_manifest(run.folder) == without_manifest(trained.folder)


def test_a_dry_prune_tells_the_same_and_deletes_nothing(store: Store) -> None:
    leave_over(store, OTHER.digest)
    age(store.train(OTHER).folder, 3)
    leave_over(store, OTHER.digest)
    aside = store.root / "damaged" / f"{OTHER.digest}-20260101T000000-abcd"
    shutil.copytree(store.folder(OTHER.digest), aside)
    before = contents(store.root)
    told = store.prune(older_than_days=2, dry=True)
    assert len(told) == 3
    assert contents(store.root) == before
    assert store.prune(older_than_days=2) == told
    assert not any(folder.exists() for folder in told)


def test_a_leftover_of_the_same_run_is_cleaned_by_the_next_training_and_one_of_another_run_is_not(empty: Store) -> None:
    leave_over(empty, SETTING.digest)
    other = leave_over(empty, OTHER.digest)
    empty.train(SETTING)
    assert names(empty, "tmp") == [other.name]


# Disks that cannot be written


class FailingDisk:
    """A disk that takes so many changes of a store's and then fails each one with an error; a write, when half is made.

    Patches what the store and its locks change the file system with. `changes` are those made or tried.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int, good: float = float("inf")) -> None:
        self.code, self.good, self.changes = code, good, 0
        real_open = os.open

        def open_descriptor(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.change()
            return real_open(path, flags, *rest, **options)

        monkeypatch.setattr(os, "open", open_descriptor)
        monkeypatch.setattr(durable, "open", self.open_file, raising=False)
        for name in ("mkdir", "fsync", "rename", "unlink", "rmdir"):
            monkeypatch.setattr(os, name, self.failing(getattr(os, name)))

    def change(self) -> None:
        self.changes += 1
        if self.changes > self.good:
            raise OSError(self.code, os.strerror(self.code))

    def failing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any, **options: Any) -> Any:
            self.change()
            return real(*arguments, **options)

        return change

    def open_file(self, path: Path, mode: str) -> Any:
        self.change()
        return FailingFile(path, mode, self)


class FailingFile:
    """A file on a failing disk."""

    def __init__(self, path: Path, mode: str, disk: FailingDisk) -> None:
        self.file, self.disk = path.open(mode), disk
        self.flush, self.fileno = self.file.flush, self.file.fileno

    def __enter__(self) -> FailingFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, content: bytes) -> None:
        self.file.write(content[: len(content) // 2])
        self.disk.change()
        self.file.write(content[len(content) // 2 :])


def changes_of(act: Callable[[], object]) -> int:
    """How many changes to the file system `act` makes."""
    with pytest.MonkeyPatch.context() as patched:
        disk = FailingDisk(patched, errno.ENOSPC)
        act()
    return disk.changes


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
def test_a_disk_that_fails_at_any_change_is_a_store_error_and_leaves_no_run(
    tmp_path: Path, trained: Run, code: int
) -> None:
    count = changes_of(lambda: Store(tmp_path / "counted").train(SETTING))
    assert count > 3 * len(FILES)
    for good in range(count):
        store = Store(tmp_path / str(good))
        with pytest.MonkeyPatch.context() as patched:
            FailingDisk(patched, code, good)
            with pytest.raises(StoreError, match=os.strerror(code)) as caught:
                store.train(SETTING)
        assert str(store.root) in str(caught.value)
        published = names(store, "runs") == [SETTING.digest]
        assert published == (good == count - 1), good  # only the sync after the rename failed
        assert store.find(SETTING) is not None if published else names(store, "runs") == [], good
        again = store.train(SETTING)
        assert without_manifest(again.folder) == without_manifest(trained.folder), good
        assert names(store, "tmp") == [], good


def test_a_disk_that_fails_while_a_damaged_run_is_replaced_loses_neither(tmp_path: Path, trained: Run) -> None:
    def damaged_store(name: str) -> Store:
        store = Store(tmp_path / name)
        shutil.copytree(trained.folder, store.folder(SETTING.digest))
        flip(store.folder(SETTING.digest) / "final.safetensors", 0.5)
        leave_over(store, SETTING.digest)
        return store

    def train(store: Store) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DamagedRunWarning)
            store.train(SETTING)

    counted = damaged_store("counted")
    damaged = contents(counted.folder(SETTING.digest))
    count = changes_of(lambda: train(counted))
    for good in range(count - 1):
        store = damaged_store(str(good))
        with pytest.MonkeyPatch.context() as patched:
            FailingDisk(patched, errno.ENOSPC, good)
            with pytest.raises(StoreError, match=NO_ROOM):
                train(store)
        left = [contents(folder) for folder in (*store.root.glob("runs/*"), *store.root.glob("damaged/*"))]
        assert left == [damaged], good
        train(store)
        assert [contents(folder) for folder in store.root.glob("damaged/*")] == [damaged], good
        assert without_manifest(store.folder(SETTING.digest)) == without_manifest(trained.folder), good
        assert names(store, "tmp") == [], good


LIMITED = """
import resource, sys
from helpers import assert_equal_states, script_environment, tiny_setting
from mli_check.runs import Store

setting = tiny_setting(checkpoints=(2, 5))
Store(sys.argv[1] + "-warm").train(setting)  # nothing that is imported late meets the limit
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))  # Python itself ignores SIGXFSZ
Store(sys.argv[1]).train(setting)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits of file sizes")
def test_a_write_that_the_system_cuts_short_is_a_store_error_and_training_works_afterwards(
    empty: Store, trained: Run, fits: list[Setting]
) -> None:
    done = run_script(LIMITED, empty.root)
    assert done.returncode == 1
    assert f"StoreError: cannot write to the store {empty.root}: {os.strerror(errno.EFBIG)}" in done.stderr
    assert names(empty, "runs") == []
    (left,) = empty.root.glob("tmp/*")
    assert max(file.stat().st_size for file in left.iterdir() if file.is_file()) == 1500
    run = empty.train(SETTING)
    assert fits == [SETTING]
    assert without_manifest(run.folder) == without_manifest(trained.folder)
    assert names(empty, "tmp") == []


READ_ONLY = """
import sys
from helpers import assert_equal_states, script_environment, tiny_setting
from mli_check.errors import StoreError
from mli_check.runs import Store

store, setting = Store(sys.argv[1]), tiny_setting(checkpoints=(2, 5))
assert store.train(setting).checkpoints.keys() == {2, 5}
assert len(store.runs()) == 1
for write in (lambda: store.train(setting.with_seeds(1)), lambda: store.prune(everything=True), store.prune):
    try:
        write()
    except StoreError as error:
        print(error)
"""

# A root without these is refused like anyone else where its own folder is not writable.
WITHOUT_PRIVILEGES = """
import ctypes, os, sys
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) and os.geteuid() == 0:  # PR_CAPBSET_DROP
        sys.exit("cannot drop privileges")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="drops root's privileges as Linux does")
def test_a_store_in_a_folder_without_write_permission_is_read_and_not_written(store: Store) -> None:
    leave_over(store, OTHER.digest)
    before = contents(store.root)
    folders = [store.root, *(folder for folder in store.root.rglob("*") if folder.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        done = run_script(WITHOUT_PRIVILEGES, "-c", READ_ONLY, store.root)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    if done.stderr == "cannot drop privileges\n":
        pytest.skip("this root cannot drop its privileges")
    refused = (
        f"cannot write to the store {store.root}: {os.strerror(errno.EACCES)}; free space there, or name another "
        "folder with --store or MLI_CHECK_STORE\n"
    )
    assert (done.returncode, done.stdout) == (0, 3 * refused), done.stderr
    assert contents(store.root) == before


@pytest.fixture(params=[errno.EACCES, errno.EROFS], ids=errno.errorcode.get)
def read_only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingDisk]:
    """A disk that refuses every change, even root's."""
    with monkeypatch.context() as patched:
        yield FailingDisk(patched, request.param, good=0)


def test_a_run_on_a_disk_that_cannot_be_written_is_read(store: Store, trained: Run, read_only: FailingDisk) -> None:
    run = store.train(SETTING)
    assert_equal_states(run.final, trained.final)
    assert list(run.checkpoints) == [2, 5]
    assert [listed.digest for listed in store.runs()] == [SETTING.digest]
    assert read_only.changes == 0


def test_training_into_a_store_that_cannot_be_written_names_the_folder_and_the_options(
    store: Store, fits: list[Setting], read_only: FailingDisk
) -> None:
    with pytest.raises(StoreError, match=os.strerror(read_only.code)) as caught:
        store.train(OTHER)
    for named in (str(store.root), "--store", "MLI_CHECK_STORE"):
        assert named in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    assert fits == []


def test_taking_locks_and_writing_a_run_where_nothing_can_be_written_are_store_errors(
    store: Store, read_only: FailingDisk
) -> None:
    with pytest.raises(StoreError), store.lock([OTHER.digest]):
        pytest.fail("the lock cannot be taken")
    result = fit(OTHER, training_data(OTHER))
    with pytest.raises(StoreError):
        store.write(OTHER, result, trainer="fit", group=None)


def test_an_error_of_the_callers_own_under_a_lock_stays_what_it_is(empty: Store) -> None:
    with pytest.raises(FileNotFoundError), empty.lock([SETTING.digest]):
        raise FileNotFoundError("the caller's")


@pytest.mark.parametrize("part", ["runs", "tmp", "damaged"])
def test_pruning_a_store_that_cannot_be_written_is_a_store_error(
    store: Store, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    folder = store.root / part / f"{SETTING.digest}-1-0"
    shutil.copytree(store.folder(SETTING.digest), folder)
    rewrite_manifest(folder, training_version=TRAINING_VERSION - 1)
    FailingDisk(monkeypatch, errno.EROFS, good=0)
    with pytest.raises(StoreError, match=str(store.root)):
        store.prune()


def test_a_file_in_the_place_of_the_store_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no folder")
    store = Store(tmp_path / "store")
    assert store.find(SETTING) is None
    assert store.runs() == []
    with pytest.raises(StoreError, match="--store"):
        store.train(SETTING)


def test_a_store_that_cannot_be_looked_into_is_a_store_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "is_dir", refuse)
    monkeypatch.setattr(os, "mkdir", refuse)
    assert store.find(SETTING) is None
    with pytest.raises(StoreError, match=str(store.root)):
        store.train(SETTING)


def test_a_run_that_cannot_be_read_back_is_a_store_error(empty: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write = durable.write
    monkeypatch.setattr(durable, "write", lambda path, content: write(path, content[:-1]))
    with pytest.raises(StoreError, match="cannot be read back"):
        empty.train(SETTING)
