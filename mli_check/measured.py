"""Curves and surfaces that were measured before, kept beside the runs: what is asked for is measured once, then read.

A curve is addressed by everything that its figures follow from: the states, the data, the options, the code of this
package, torch, the device and its threads. So what is read is what would be measured. Folders of other code are
dropped when a curve of new code is first kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import shutil
import uuid
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mli_check.curves import Curve, Outcomes, Record, Surface
from mli_check.errors import DamagedRunWarning
from mli_check.locations import CURVES, code_fingerprint

ARRAYS = ("alphas", "loss", "error", "balanced_error", "classes", "losses", "logits")
SURFACE = ("alphas", "betas", "loss", "error", "balanced_error")  # the arrays of one: no single examples
_TIES = ("tie_points", "tie_examples", "tie_errors")


class Measured:
    """The curves kept in a store whose folder is `root`."""

    def __init__(self, root: Path) -> None:
        self.folder = root / CURVES / code_fingerprint()

    def curves(
        self, keys: Sequence[Mapping[str, Any]], measure: Callable[[list[int]], Sequence[Curve | Surface]]
    ) -> list[Any]:
        """The curves (surfaces) of keys that json can write: read if they are kept, else measured together and kept.

        `measure` takes the places of the missing ones in `keys` and returns their curves. A damaged file is measured
        again, with a DamagedRunWarning; a store that cannot be written keeps nothing.
        """
        files = [self.folder / f"{digest(key)}.npz" for key in keys]
        found = {place: curve for place, file in enumerate(files) if (curve := _read(file)) is not None}
        missing = [place for place in range(len(keys)) if place not in found]
        for place, curve in zip(missing, measure(missing) if missing else [], strict=True):
            self._keep(files[place], to_bytes(curve))
            found[place] = curve
        return [found[place] for place in range(len(keys))]

    def _keep(self, file: Path, content: bytes) -> None:
        """Write in one piece, so that whoever reads sees a whole curve or none."""
        temporary = file.with_name(f"{file.stem}-{os.getpid()}-{uuid.uuid4().hex}.part")
        try:
            if not self.folder.exists():
                for other in self.folder.parent.glob("*/"):
                    if other != self.folder:  # which another process may have made by now
                        shutil.rmtree(other, ignore_errors=True)
                self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            os.replace(temporary, file)
        except OSError:  # a read-only or full store costs time, not the figure
            with contextlib.suppress(OSError):
                temporary.unlink()


def _read(file: Path) -> Curve | Surface | None:
    """The curve or surface that is kept in a file; None where there is none or it is damaged."""
    try:
        return from_bytes(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        warnings.warn(f"the curve {file} is damaged ({error}) and is measured again", DamagedRunWarning, stacklevel=4)
        return None


def digest(key: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a key and of what else figures follow from: torch, its threads and the CPU's instructions."""
    where = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    return hashlib.sha256(json.dumps({**key, "where": where}, sort_keys=True, allow_nan=False).encode()).hexdigest()


def to_bytes(curve: Curve | Surface) -> bytes:
    """A curve or surface as the bytes of an .npz file without pickles; a checksum of the arrays goes with them."""
    found = {name: getattr(curve, name) for name in (SURFACE if isinstance(curve, Surface) else ARRAYS)}
    arrays: dict[str, NDArray[Any]] = {name: array for name, array in found.items() if array is not None}
    header: dict[str, Any] = {"record": dataclasses.asdict(curve.record), "checkpoint": None, "examples": None}
    if isinstance(curve, Curve):
        header["checkpoint"] = curve.checkpoint
    if isinstance(curve, Curve) and curve.outcomes is not None:
        ties = [(point, where, errors) for point, (where, errors) in sorted(curve.outcomes.ties.items())]
        header["examples"] = curve.outcomes.examples
        arrays["bits"] = curve.outcomes.bits
        arrays["tie_points"] = np.repeat([p for p, _, _ in ties], [len(w) for _, w, _ in ties]).astype(np.int64)
        arrays["tie_examples"] = np.concatenate([np.zeros(0, np.int64), *(where for _, where, _ in ties)])
        arrays["tie_errors"] = np.concatenate([np.zeros(0, np.float32), *(errors for _, _, errors in ties)])
    header["checksum"] = _checksum(arrays)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def from_bytes(content: bytes) -> Curve | Surface:
    """What `to_bytes` wrote. Raises EOFError, ValueError, KeyError, TypeError or BadZipFile for anything else."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays.pop("header").tobytes())
    if _checksum(arrays) != header["checksum"]:
        raise ValueError("its checksum does not fit its arrays")
    outcomes = None
    if header["examples"] is not None:
        points, where, errors = (arrays[name] for name in _TIES)
        ties = {int(point): (where[points == point], errors[points == point]) for point in np.unique(points)}
        outcomes = Outcomes(bits=arrays["bits"], examples=header["examples"], ties=ties)
    record = header["record"]
    shift = record["calibration_shift"]
    record |= {"notes": tuple(record["notes"]), "calibration_shift": None if shift is None else tuple(shift)}
    if "betas" in arrays:
        return Surface(**{name: arrays.get(name) for name in SURFACE}, record=Record(**record))  # type: ignore[arg-type]
    fields: dict[str, Any] = {name: arrays.get(name) for name in ARRAYS}
    return Curve(**fields, outcomes=outcomes, record=Record(**record), checkpoint=header["checkpoint"])


def _checksum(arrays: Mapping[str, NDArray[Any]]) -> str:
    content = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        content.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        content.update(array.tobytes())
    return content.hexdigest()
