"""The store of trained runs, addressed by what was trained: train(setting) trains once, then reads.

A run is a folder named by its setting's digest. It is written in a temporary folder of the store, fsynced, and
published by one atomic rename, so that whoever reads sees a whole run or none. Locks live outside the run folders.
Checksums are verified on load; a damaged run is set aside and trained again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
from filelock import FileLock
from torch import Tensor

from mli_check import durable
from mli_check.data import Dataset
from mli_check.errors import DamagedRunWarning, OptionError, StoreError
from mli_check.locations import CURVES, code_fingerprint, store_root
from mli_check.progress import Progress
from mli_check.run_files import CHECKPOINTS, FINAL, HISTORY, INIT, MANIFEST, SETTINGS, contents, signed
from mli_check.settings import TRAINING_VERSION, Setting, from_json
from mli_check.training.fit import Fit, fit
from mli_check.training.sets import training_data


@dataclass(frozen=True)
class Run:
    """A trained network in the store. States are read when asked for, on the CPU."""

    setting: Setting
    folder: Path
    manifest: Mapping[str, Any]

    @cached_property
    def init(self) -> dict[str, Tensor]:
        """The state before the first step."""
        return safetensors.torch.load_file(self.folder / INIT)

    @cached_property
    def final(self) -> dict[str, Tensor]:
        """The state after the last step."""
        return safetensors.torch.load_file(self.folder / FINAL)

    @cached_property
    def checkpoints(self) -> dict[int, dict[str, Tensor]]:
        """The states kept on the way, by iteration."""
        files = sorted((self.folder / CHECKPOINTS).glob("*.safetensors")) if self.setting.recipe.checkpoints else []
        return {int(file.stem): safetensors.torch.load_file(file) for file in files}

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """One entry an epoch: epoch, iteration, lr, train_loss (null where it was not finite)."""
        entries: list[dict[str, Any]] = json.loads((self.folder / HISTORY).read_text())
        return entries

    @property
    def diverged(self) -> bool:
        """Whether training ended early because the loss was no longer finite."""
        return self.manifest["diverged_at"] is not None


@dataclass(frozen=True)
class Listed:
    """A run as `runs list` shows it: digest, what it is, when and on what it was trained, its size in bytes."""

    digest: str
    summary: str
    created: str
    device: str
    seconds: float
    size: int
    current: bool


class Store:
    """A folder of runs. `root` defaults to the environment's MLI_CHECK_STORE, else the user's cache folder."""

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = store_root(root)

    def folder(self, digest: str) -> Path:
        """Where the run of that digest is, or would be."""
        return self.root / "runs" / digest

    def find(self, setting: Setting) -> Run | None:
        """The stored run of `setting`, its checksums verified; None if there is none or it is damaged."""
        run, _ = self._read(setting)
        return run

    def train(self, setting: Setting, data: Dataset | None = None, progress: Progress | None = None) -> Run:
        """The run of `setting`: read if it is stored, else trained on `data` (default: the training set it names).

        Two processes that ask for the same run train it once. Raises StoreError if the store cannot be written.
        """
        run = self.find(setting)
        if run is not None:
            return run
        with self.lock([setting.digest]):
            run = self.settle(setting, stacklevel=3)
            if run is None:
                data = training_data(setting) if data is None else data
                self.write(setting, fit(setting, data, progress), trainer="fit", group=None)
                run = self.read_back(setting)
            return run

    def settle(self, setting: Setting, *, stacklevel: int = 2) -> Run | None:
        """The run, if another process trained it while this one waited for its lock, which the caller holds.

        Else None, and nothing that was left over or damaged stands in the way of `write`. A DamagedRunWarning is of the
        line so many calls up, as for `warnings.warn`.
        """
        run, fault = self._read(setting)
        if run is None:
            self._clear(setting.digest, fault, stacklevel + 1)
        return run

    def read_back(self, setting: Setting) -> Run:
        """The run that was just written. Raises StoreError where it is not there as it was written."""
        run, fault = self._read(setting)
        if run is None:
            raise StoreError(f"the run {setting.digest} cannot be read back from {self.root}: {fault}")
        return run

    @contextlib.contextmanager
    def lock(self, digests: Iterable[str]) -> Iterator[None]:
        """Hold the locks of several runs, taken in sorted order so that two callers cannot block each other."""
        with contextlib.ExitStack() as held:
            with self._writing():
                for digest in sorted(set(digests)):
                    held.enter_context(self._lock(digest))
            yield

    def write(self, setting: Setting, result: Fit, *, trainer: str, group: str | None) -> Path:
        """Publish a trained network under its setting's digest; the caller holds that run's lock."""
        files = contents(setting, result, trainer=trainer, group=group)
        temporary = self._temporary(setting.digest)
        target = self.folder(setting.digest)
        with self._writing():
            for folder in (temporary, temporary / CHECKPOINTS):
                if folder == temporary or result.checkpoints:
                    folder.mkdir(parents=True)
            for name, content in files.items():
                durable.write(temporary / name, content)
            for folder in {(temporary / name).parent for name in files}:
                durable.sync(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(temporary, target)
            durable.sync(target.parent)
        return target

    def runs(self) -> list[Listed]:
        """All runs whose manifest is sound, oldest first."""
        listed = []
        for folder in sorted((self.root / "runs").glob("*")):
            with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
                written = (folder / MANIFEST).read_bytes()
                manifest = json.loads(written)
                if signed(manifest) != written:
                    continue
                listed.append(
                    Listed(
                        digest=folder.name,
                        summary=manifest["summary"],
                        created=manifest["created"],
                        device=manifest["device"],
                        seconds=manifest["seconds"],
                        size=_size(folder),
                        current=manifest["training_version"] == TRAINING_VERSION,
                    )
                )
        return sorted(listed, key=lambda run: run.created)

    def prune(self, *, older_than_days: float | None = None, everything: bool = False, dry: bool = False) -> list[Path]:
        """Delete what no longer serves and return it: leftovers of killed processes, runs set aside as damaged, runs of
        another training version, curves of other code, and where asked runs older than so many days, or everything.

        With `dry`, delete nothing. A run that another process is writing right now is left alone.
        """
        now = datetime.now(UTC)
        doomed = [*(self.root / "damaged").glob("*/"), *(self.root / "tmp").glob("*/")]
        doomed += [f for f in (self.root / CURVES).glob("*/") if everything or f.name != code_fingerprint()]
        if everything:
            doomed += sorted((self.root / "runs").glob("*/"))
        else:
            for run in self.runs():
                age = (now - datetime.fromisoformat(run.created)).total_seconds() / 86_400
                if not run.current or (older_than_days is not None and age > older_than_days):
                    doomed.append(self.folder(run.digest))
        with self._writing():
            return [folder for folder in doomed if self._delete(folder, dry)]

    def _delete(self, folder: Path, dry: bool) -> bool:
        """Delete a folder in one piece under its run's lock; False where another process holds that or was faster."""
        digest = folder.name.partition("-")[0]
        with contextlib.suppress(TimeoutError), self._lock(digest).acquire(timeout=0):
            found = folder.exists()
            if found and not dry:
                temporary = self._temporary(digest)
                temporary.parent.mkdir(parents=True, exist_ok=True)
                os.rename(folder, temporary)
                shutil.rmtree(temporary)
            return found
        return False

    def _temporary(self, digest: str) -> Path:
        """A new name in the store's temporary folder; the lock of `digest` guards what has it."""
        return self.root / "tmp" / f"{digest}-{os.getpid()}-{uuid.uuid4().hex}"

    def _lock(self, digest: str) -> FileLock:
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{digest}.lock", mode=0o666)

    def _read(self, setting: Setting) -> tuple[Run | None, str | None]:
        """The run, or what is wrong with it; (None, None) where there is none."""
        folder = self.folder(setting.digest)
        try:
            if not folder.is_dir():
                return None, None
            written = (folder / MANIFEST).read_bytes()
            manifest = json.loads(written)
            if signed(manifest) != written:
                return None, f"`{MANIFEST}` does not match its checksum"
            for name, wanted in manifest["checksums"].items():
                if hashlib.sha256((folder / name).read_bytes()).hexdigest() != wanted:
                    return None, f"`{name}` does not match its checksum"
            stored = from_json((folder / SETTINGS).read_text())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OptionError) as error:
            return None, f"{type(error).__name__}: {error}"
        if stored != setting:
            return None, f"`{SETTINGS}` is of another setting"
        return Run(setting, folder, manifest), None

    def _clear(self, digest: str, fault: str | None, stacklevel: int) -> None:
        """Under the run's lock: drop what a killed process left, set a damaged run aside."""
        with self._writing():
            for leftover in (self.root / "tmp").glob(f"{digest}-*"):
                shutil.rmtree(leftover)
            if fault is None:
                return
            aside = self.root / "damaged" / f"{digest}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.rename(self.folder(digest), aside)
        warnings.warn(
            f"the stored run {digest} is damaged ({fault}); set aside as {aside}, training it again",
            DamagedRunWarning,
            stacklevel=stacklevel,
        )

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return durable.writing(f"to the store {self.root}", "--store")


def train(setting: Setting, store: Store | None = None, progress: Progress | None = None) -> Run:
    """The trained network of `setting`, from the store if it was trained before."""
    return (store or Store()).train(setting, progress=progress)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
