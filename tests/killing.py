"""Kills processes that write to a store, each at another of its changes to the file system; for test_runs_killed.py.

`python killing.py FOLDER` prepares, per scenario, a store for every change that the scenario makes, numbered from 1,
and lets a forked process die there as under SIGKILL, before the change is made (a write: when half of it is made).
Store 0 of a scenario is where nobody died. Prints JSON: per scenario the changes, and every process's exit status.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from helpers import tiny_setting

from mli_check import durable, runs
from mli_check.errors import DamagedRunWarning

if TYPE_CHECKING:
    from collections.abc import Callable

SETTING = tiny_setting(checkpoints=(2, 5))
DEATH = 9
DAMAGED_FILE, DAMAGED_BYTE = runs.FINAL, 1500

_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Mortal:
    """Counts the changes that this process makes in `folder`, and ends the process before the `last`, if not 0."""

    def __init__(self, folder: Path, last: int) -> None:
        self.folder, self.last, self.changes = str(folder), last, []
        sync = os.fsync
        os.fsync = lambda descriptor: (self.change("fsync"), sync(descriptor))
        durable.open = lambda path, mode: TornFile(path, mode, self)
        sys.addaudithook(self.audit)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in _CHANGES or (event == "open" and arguments[2] & _WRITING)
        if changes and self.is_inside(arguments[0]):
            self.change(event)

    def is_inside(self, path: Any) -> bool:
        """Whether a path, or a descriptor or a name relative to one, is in the folder."""
        return isinstance(path, int) or not os.path.isabs(path) or str(path).startswith(self.folder)

    def is_last(self, change: str) -> bool:
        self.changes.append(change)
        return len(self.changes) == self.last

    def change(self, change: str) -> None:
        if self.is_last(change):
            os._exit(DEATH)


class TornFile:
    """A file whose write, where it is the process's last change, is made by half."""

    def __init__(self, path: Path, mode: str, mortal: Mortal) -> None:
        self.file, self.mortal = path.open(mode), mortal

    def __enter__(self) -> TornFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, content: bytes) -> None:
        if self.mortal.is_last("write"):
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            os._exit(DEATH)
        self.file.write(content)


def damage(run: Path) -> None:
    content = bytearray((run / DAMAGED_FILE).read_bytes())
    content[DAMAGED_BYTE] ^= 1
    (run / DAMAGED_FILE).write_bytes(content)


def leave_over(store: runs.Store) -> None:
    """What a process that died while it wrote the run left."""
    folder = store.root / "tmp" / f"{SETTING.digest}-1-0"
    shutil.copytree(store.folder(SETTING.digest), folder)
    (folder / runs.MANIFEST).unlink()


def nothing(store: runs.Store) -> None:
    pass


def damaged_run(store: runs.Store) -> None:
    store.train(SETTING)
    leave_over(store)
    damage(store.folder(SETTING.digest))


def full_store(store: runs.Store) -> None:
    """Two runs, one that was set aside, and a leftover."""
    for seed in (0, 1):
        store.train(SETTING.with_seeds(seed))
    leave_over(store)
    shutil.copytree(store.folder(SETTING.digest), store.root / "damaged" / f"{SETTING.digest}-20260101T000000-0")


def train(store: runs.Store) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedRunWarning)
        store.train(SETTING)


def prune(store: runs.Store) -> None:
    store.prune(everything=True)


SCENARIOS = {"train": (nothing, train), "retrain": (damaged_run, train), "prune": (full_store, prune)}


def die(folder: Path, last: int, act: Callable[[runs.Store], None]) -> tuple[int, list[str]]:
    """A forked process acts on the store in `folder`; its exit status, and if it lives to tell, its changes."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            mortal = Mortal(folder, last)
            act(runs.Store(folder))
            os.write(sending, json.dumps(mortal.changes).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(sending)
    _, status = os.waitpid(child, 0)
    with open(receiving) as file:
        told = file.read()
    return os.waitstatus_to_exitcode(status), json.loads(told or "[]")


def kill_all(folder: Path, prepare: Callable[[runs.Store], None], act: Callable[[runs.Store], None]) -> dict[str, Any]:
    prepared = folder / "prepared"
    prepared.mkdir(parents=True)
    prepare(runs.Store(prepared))

    def kill(last: int) -> tuple[int, list[str]]:
        shutil.copytree(prepared, folder / str(last))
        return die(folder / str(last), last, act)

    status, changes = kill(0)
    return {"changes": changes, "statuses": [status, *(kill(last)[0] for last in range(1, len(changes) + 1))]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    home = Path(sys.argv[1])
    runs.Store(home / "warm").train(SETTING)  # imports all that is imported late, so that no child does
    print(json.dumps({name: kill_all(home / name, *parts) for name, parts in SCENARIOS.items()}))
