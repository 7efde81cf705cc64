"""Recording the user's own training loop: theta_0, log-spaced checkpoints and theta_F, with the optimiser's settings.

Each state is written to a temporary name, fsynced and renamed, and the manifest after it, so that a process killed at
any moment leaves a readable recording, marked unfinished, of all that was saved until then.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import time
import warnings
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.optim import Optimizer

from mli_check import __version__, durable
from mli_check.errors import OptionError, StoreError
from mli_check.recordable import (
    checked_checkpoints,
    checked_loss,
    checked_model,
    checked_optimizers,
    checked_readable,
    class_of,
    device_of,
    finite,
    settings_of,
    state_bytes,
    unwrapped,
)
from mli_check.recordings import (
    FORMAT,
    RECORDED,
    Recording,
    checkpoint_file,
    folder_of,
    read_manifest,
    replaced,
    root_of,
)
from mli_check.run_files import FINAL, INIT, MANIFEST, signed
from mli_check.runs import Store

LOG_DIGITS = (1, 2, 3, 5)
LONGEST_REPR = 20_000


def is_log_spaced(iteration: int) -> bool:
    """Whether checkpoints="log" keeps the state after so many iterations: 1, 2, 3, 5, 10, 20, 30, 50, 100, ..."""
    if iteration < 1:
        return False
    while iteration % 10 == 0:
        iteration //= 10
    return iteration in LOG_DIGITS


class Recorder:
    """Saves a training as it goes: theta_0 when it is made, checkpoints at `step()`, the final state at `finish()`.

    `checkpoints`: "log" (after 1, 2, 3, 5, 10, 20, 30, 50, 100, ... steps), the iterations to keep, or None.
    `optimizer`: one, or several in a list, whose settings to keep. `store`: a Store or a folder, by default the store
    of trained networks. `overwrite=True` replaces a recording of that name. It draws no random numbers and changes
    nothing in the model. As a context manager it finishes on a normal exit and leaves the recording unfinished on an
    exception.
    Raises StoreError if the name is taken, another recorder is writing it, or the store cannot be written.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer] | None = None,
        *,
        name: str,
        store: Store | str | Path | None = None,
        checkpoints: str | Iterable[int] | None = "log",
        overwrite: bool = False,
    ) -> None:
        self._model = checked_model(model)
        self._optimizers = checked_optimizers(optimizer)
        self._wanted = checked_checkpoints(checkpoints)
        self._root = root_of(store)
        self.folder = folder_of(self._root, name)
        self.name = name
        self.iterations = 0
        self._loss: Any = None
        self._began = time.monotonic()
        self._process = os.getpid()
        self._manifest = self._first_manifest()
        self._note_settings()
        init = checked_readable(state_bytes(self._model))
        self._lock = self._locked()
        try:
            self._create(init, overwrite)
        except BaseException:
            self._lock.release()
            raise
        self._open = True

    def step(self, loss: float | Tensor | None = None) -> None:
        """Count one optimiser step, and save a checkpoint if one is due. Call it after `optimizer.step()`.

        `loss` is read only where it is kept, at checkpoints and at the end, so that a loss on a GPU makes no other step
        wait. Raises OptionError after `finish()` or `close()`, StoreError if the checkpoint cannot be written.
        """
        self.advance(1, loss)

    def advance(self, steps: int, loss: float | Tensor | None = None) -> None:
        """Count several optimiser steps at once; where one of them was due, the state now is kept under its number."""
        if not self._open:
            raise OptionError(f"the recording {self.name!r} is closed; call step() before finish(), or make a Recorder")
        if steps < 1:
            raise OptionError(f"steps={steps!r}, expected at least 1")
        self._loss = checked_loss(loss)
        passed = range(self.iterations + 1, self.iterations + steps + 1)
        self.iterations += steps
        if any(map(self._is_due, passed)):
            self._save(checkpoint_file(self.iterations))
            self._manifest["checkpoints"].append(self.iterations)
            self._note_settings()
            self.note_loss(self.iterations, self._loss)
            self._write_manifest()

    def note_loss(self, iteration: int, loss: float | Tensor | None) -> None:
        """Put a loss of that iteration into the history, which is written with the next state."""
        history, value = self._manifest["history"], finite(loss)
        if history and history[-1]["iteration"] == iteration:
            history[-1]["loss"] = history[-1]["loss"] if value is None else value
        else:
            history.append({"iteration": iteration, "loss": value})

    def finish(self) -> Recording:
        """Save the final state, mark the recording finished, and return it. Once finished, it only returns it."""
        if self._open:
            if self.iterations == 0:
                warnings.warn(
                    f"the recording {self.name!r} is finished without one step(); call step() after optimizer.step()",
                    stacklevel=2,
                )
            self._save(FINAL)
            self.note_loss(self.iterations, self._loss)
            self._write_manifest(finished=True)
            self.close()
        if not self._manifest["finished"]:
            raise OptionError(f"the recording {self.name!r} was closed unfinished; it cannot be finished any more")
        return Recording(self.name, self.folder, read_manifest(self.folder))

    def close(self) -> None:
        """Stop recording and let others write that name; a recording that is not finished stays unfinished."""
        self._open = False
        self._loss = None
        if os.getpid() == self._process:
            self._lock.release()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._open:
            self.finish()
        else:
            self.close()

    def __repr__(self) -> str:
        return f"<Recorder {self.name!r}, {self.iterations} iterations, {'open' if self._open else 'closed'}>"

    def _is_due(self, iteration: int) -> bool:
        return is_log_spaced(iteration) if self._wanted == "log" else iteration in self._wanted

    def _locked(self) -> FileLock:
        with self._writing():
            (self._root / "locks").mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._root / "locks" / f"{RECORDED}-{self.name}.lock", mode=0o666, thread_local=False)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise StoreError(
                    f"another recorder is writing {self.name!r} in {self._root} right now, in another process or in "
                    "this one; wait for it, call close() on it, or choose another name (in distributed training record "
                    "on rank 0 alone)"
                ) from None
        return lock

    def _create(self, init: bytes, overwrite: bool) -> None:
        """Build the folder, with theta_0 and the manifest, beside its place, and put it there by one rename."""
        new, old = self.folder.with_name(f".new+{self.name}"), replaced(self.folder)
        with self._writing():
            if old.is_dir() and not self.folder.exists():  # its process died between the two renames below
                os.rename(old, self.folder)
            if self.folder.exists() and not overwrite:
                raise StoreError(_taken(self.folder))
            _delete(old, new)
            new.joinpath(checkpoint_file(0)).parent.mkdir(parents=True)
            self._put(new, INIT, init)
            self._put(new, MANIFEST, signed(self._manifest))
            if self.folder.exists():
                os.rename(self.folder, old)
            os.rename(new, self.folder)
            durable.sync(self.folder.parent)
            _delete(old, new)

    def _save(self, file: str) -> None:
        if os.getpid() != self._process:
            raise OptionError(
                f"the recording {self.name!r} belongs to process {self._process}, and this one, {os.getpid()}, was "
                "forked from it; make the Recorder in the process that trains"
            )
        with self._writing():
            self._put(self.folder, file, state_bytes(self._model))

    def _write_manifest(self, *, finished: bool = False) -> None:
        now, seconds = datetime.now(UTC).isoformat(timespec="seconds"), round(time.monotonic() - self._began, 3)
        self._manifest |= {"iterations": self.iterations, "updated": now, "seconds": seconds}
        with self._writing():
            durable.replace(self.folder / MANIFEST, signed(self._manifest | {"finished": finished}))
        self._manifest["finished"] = finished

    def _put(self, folder: Path, file: str, content: bytes) -> None:
        """Write a file of the recording; the manifest is to have the checksum of every state."""
        durable.replace(folder / file, content)
        if file != MANIFEST:
            self._manifest["checksums"][file] = hashlib.sha256(content).hexdigest()

    def _note_settings(self) -> None:
        settings = [settings_of(optimizer) for optimizer in self._optimizers]
        if settings:
            self._manifest["optimizer"].append({"iteration": self.iterations, "optimizers": settings})

    def _first_manifest(self) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        inner = unwrapped(self._model)
        versions = {"mli_check": __version__, "torch": torch.__version__, "python": platform.python_version()}
        return {
            "format": FORMAT,
            "name": self.name,
            "finished": False,
            "iterations": 0,
            "created": now,
            "updated": now,
            "seconds": 0.0,
            "device": device_of(self._model),
            "threads": torch.get_num_threads(),
            "versions": versions,
            "model": {"class": class_of(inner), "repr": repr(inner)[:LONGEST_REPR]},
            "optimizer": [],
            "history": [],
            "checkpoints": [],
            "checksums": {},
        }

    def _writing(self) -> AbstractContextManager[None]:
        return durable.writing(f"the recording {self.name!r} to the store {self._root}", "store=")


def _delete(folder: Path, trash: Path) -> None:
    """Delete a folder, if there, out of its place: a process that dies half-way leaves what nobody reads."""
    shutil.rmtree(trash, ignore_errors=True)
    if folder.is_dir():
        os.rename(folder, trash)
        shutil.rmtree(trash, ignore_errors=True)


def _taken(folder: Path) -> str:
    try:
        manifest = read_manifest(folder)
        state = "finished" if manifest["finished"] else "unfinished"
        what = f"{state}, {manifest['iterations']} iterations, of {manifest['created']}"
    except StoreError:
        what = "with a damaged manifest"
    return (
        f"there is a recording {folder.name!r} already ({what}) in {folder.parent}; choose another name, or pass "
        "overwrite=True to lose it"
    )
