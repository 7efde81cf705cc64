"""What the folder of a trained run holds: the names of its files and their bytes."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import torch

from mli_check.settings import TRAINING_VERSION, Setting
from mli_check.states import to_bytes
from mli_check.training.fit import Fit

SETTINGS, MANIFEST, HISTORY = "settings.json", "manifest.json", "history.json"
INIT, FINAL, CHECKPOINTS = "init.safetensors", "final.safetensors", "checkpoints"


def contents(setting: Setting, result: Fit, *, trainer: str, group: str | None) -> dict[str, bytes]:
    """Every file of the run by its path in the folder, the manifest with the checksums of the others last."""
    files = _trained(setting, result)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return files | {MANIFEST: signed(_manifest(setting, result, sums, trainer, group))}


def _trained(setting: Setting, result: Fit) -> dict[str, bytes]:
    history = [
        {key: None if isinstance(value, float) and value * 0 != 0 else value for key, value in entry.items()}
        for entry in result.history
    ]
    states = {INIT: result.init, FINAL: result.final}
    states |= {f"{CHECKPOINTS}/{step:08d}.safetensors": state for step, state in result.checkpoints.items()}
    files = {name: to_bytes(state) for name, state in states.items()}
    return files | {SETTINGS: setting.canonical().encode(), HISTORY: _json(history)}


def _manifest(
    setting: Setting, result: Fit, sums: Mapping[str, str], trainer: str, group: str | None
) -> dict[str, Any]:
    return {
        "digest": setting.digest,
        "summary": setting.summary,
        "training_version": TRAINING_VERSION,
        "trainer": trainer,
        "group": group,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(result.seconds, 3),
        "device": result.device,
        "threads": torch.get_num_threads(),
        "execution": list(result.execution),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "diverged_at": result.diverged_at,
        "checksums": dict(sums),
    }


def signed(manifest: Mapping[str, Any]) -> bytes:
    """The manifest's bytes, with a checksum of its own entries, so that a flipped byte in it is found too."""
    entries = {name: value for name, value in manifest.items() if name != "checksum"}
    return _json(entries | {"checksum": hashlib.sha256(_json(entries)).hexdigest()})


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
