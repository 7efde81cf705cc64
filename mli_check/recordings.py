"""Reading recordings: what a `Recorder` saved of the user's own training, checked against its checksums."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from mli_check.errors import OptionError, StoreError
from mli_check.locations import store_root
from mli_check.run_files import CHECKPOINTS, FINAL, INIT, MANIFEST, signed
from mli_check.runs import Listed, Store

RECORDED = "recorded"
FORMAT = 1
_REPLACED = ".old+"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


def folder_of(root: Path, name: str) -> Path:
    """Where the recording of that name is, or would be. Raises OptionError for a name that no folder should have."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None or name.endswith("."):
        raise OptionError(
            f"name={name!r} cannot name a recording; expected 1 to 100 letters, digits, `.`, `_` or `-`, "
            "neither beginning nor ending with a dot, such as 'mlp-seed0'"
        )
    return root / RECORDED / name


def replaced(folder: Path) -> Path:
    """Where a whole recording lies from when it leaves its folder until another is there: for good, if killed then."""
    return folder.with_name(f"{_REPLACED}{folder.name}")


def checkpoint_file(iteration: int) -> str:
    """The path, in the folder of a recording, of the state after so many iterations."""
    return f"{CHECKPOINTS}/{iteration:08d}.safetensors"


def root_of(store: Store | str | Path | None) -> Path:
    """The root of a store given as a Store, a folder or None (the default store)."""
    return store.root if isinstance(store, Store) else store_root(store)


class Checkpoints(Mapping[int, dict[str, Tensor]]):
    """The states by iteration, in ascending order; each is read, and checked, anew when it is asked for."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._iterations = tuple(sorted(recording.manifest["checkpoints"]))

    def __getitem__(self, iteration: int) -> dict[str, Tensor]:
        if iteration not in self._iterations:
            raise KeyError(f"no checkpoint at iteration {iteration!r}; there are {list(self._iterations)}")
        return self._recording.read(checkpoint_file(iteration))

    def __iter__(self) -> Iterator[int]:
        return iter(self._iterations)

    def __len__(self) -> int:
        return len(self._iterations)

    def __repr__(self) -> str:
        return f"Checkpoints({list(self._iterations)})"


@dataclass(frozen=True, repr=False)
class Recording:
    """A training that a `Recorder` saved. States are read when asked for, on the CPU, and their checksums verified."""

    name: str
    folder: Path
    manifest: Mapping[str, Any]

    @cached_property
    def init(self) -> dict[str, Tensor]:
        """theta_0, the state when the recorder was made."""
        return self.read(INIT)

    @cached_property
    def final(self) -> dict[str, Tensor]:
        """The state at `finish()`. Raises StoreError if the training did not get there."""
        if not self.finished:
            kept = self.manifest["checkpoints"]
            hint = f"the last checkpoint is .checkpoints[{max(kept)}]" if kept else "no checkpoint was kept"
            raise StoreError(f"the recording {self.name!r} is unfinished, so it has no final state; {hint}")
        return self.read(FINAL)

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The states kept on the way, by iteration."""
        return Checkpoints(self)

    @property
    def finished(self) -> bool:
        """Whether the training came to its end, `finish()`."""
        return bool(self.manifest["finished"])

    @property
    def iterations(self) -> int:
        """How many optimiser steps were counted when the recording was last written."""
        return int(self.manifest["iterations"])

    @property
    def history(self) -> list[dict[str, Any]]:
        """One entry a checkpoint and one at the end: iteration, loss (None where not given or not finite)."""
        return list(self.manifest["history"])

    @property
    def optimizer(self) -> list[dict[str, Any]]:
        """The optimisers' settings at iteration 0 and at each checkpoint: iteration, optimizers (class, groups)."""
        return list(self.manifest["optimizer"])

    def read(self, file: str) -> dict[str, Tensor]:
        """The state in a file of the recording. Raises StoreError, naming the file, if it is missing or damaged."""
        path = self.folder / file
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read {path} of the recording {self.name!r}: {error.strerror or error}") from error
        if hashlib.sha256(content).hexdigest() != self.manifest["checksums"].get(file):
            raise StoreError(f"{path} of the recording {self.name!r} {self._fault(file)}")
        return dict(sorted(safetensors.torch.load(content).items()))  # load's own order changes from call to call

    def _fault(self, file: str) -> str:
        """Why a file does not have the bytes that it had."""
        with contextlib.suppress(StoreError):
            if read_manifest(self.folder)["checksums"].get(file) != self.manifest["checksums"].get(file):
                return "was recorded anew since this recording was loaded; load it again"
        return (
            "is damaged: it does not match its checksum; use the recording's other states, or restore the file from a "
            "copy"
        )

    def __repr__(self) -> str:
        state = "finished" if self.finished else "unfinished"
        return f"<Recording {self.name!r}, {state}, {self.iterations} iterations, {len(self.checkpoints)} checkpoints>"


def load_recording(name: str, store: Store | str | Path | None = None) -> Recording:
    """The recording of that name in `store` (default: the store that `Recorder` writes to by default).

    Raises StoreError if there is none or its manifest is damaged.
    """
    root = root_of(store)
    folder = _found(folder_of(root, name))
    if not folder.is_dir():
        known = ", ".join(names(root)) or "none"
        raise StoreError(f"no recording {name!r} in {root}; recorded there: {known}")
    return Recording(name, folder, read_manifest(folder))


def _found(folder: Path) -> Path:
    """The folder, or where its recording was left by a process that was killed while it replaced it."""
    return replaced(folder) if replaced(folder).is_dir() and not folder.is_dir() else folder


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a recording. Raises StoreError if it is missing, damaged or of another version."""
    path = folder / MANIFEST
    try:
        written = path.read_bytes()
        manifest = json.loads(written)
        sound = isinstance(manifest, dict) and signed(manifest) == written
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError:
        sound = False
    if not sound:
        raise StoreError(
            f"{path} is damaged: it does not match its checksum; `mli.load_state` still reads the .safetensors files "
            "beside it, unchecked"
        )
    if manifest.get("format") != FORMAT:
        raise StoreError(f"{path} has format {manifest.get('format')!r}, expected {FORMAT}; use a newer mli-check")
    return dict(manifest)


def names(root: Path) -> list[str]:
    """The names of all recordings in a store, sorted."""
    found = {folder.name.removeprefix(_REPLACED) for folder in (root / RECORDED).glob("*") if folder.is_dir()}
    return sorted(name for name in found if _NAME.fullmatch(name))


def listed(store: Store) -> list[Listed]:
    """All recordings as `runs list` shows them, oldest first, the damaged ones too: they cannot be trained again."""
    return sorted((_entry(store.root, name) for name in names(store.root)), key=lambda entry: entry.created)


def _entry(root: Path, name: str) -> Listed:
    folder, digest = _found(folder_of(root, name)), f"{RECORDED}/{name}"
    size = _size(folder)
    try:
        manifest = read_manifest(folder)
    except StoreError:
        return Listed(digest, f"recording {name}: damaged manifest", "", "", 0.0, size, True)
    state = "finished" if manifest["finished"] else "unfinished"
    kind = manifest["model"]["class"].rpartition(".")[2]
    summary = f"recording {name}: {kind}, {manifest['iterations']} iterations, {state}"
    return Listed(digest, summary, manifest["created"], manifest["device"], manifest["seconds"], size, True)


def _size(folder: Path) -> int:
    """The bytes of its states; 0 where another recording takes its place meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    return 0
