"""Where trained runs, downloaded data and results lie; apart from `runs`, so that reading it does not import torch."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

STORE_VARIABLE, DATA_VARIABLE = "MLI_CHECK_STORE", "MLI_CHECK_DATA"
RESULTS = Path("mli-check-results") / "results.json"  # unless told otherwise, in the folder where the user stands
COMMAND_VARIABLE = "MLI_CHECK_COMMAND"  # what the user typed, passed on to pytest for the results


def store_root(given: str | Path | None = None) -> Path:
    """The folder of the store: as given, else the environment's MLI_CHECK_STORE, else in the user's cache folder."""
    return _chosen(given, STORE_VARIABLE, "store")


def data_root(given: str | Path | None = None) -> Path:
    """The folder of image datasets: as given, else the environment's MLI_CHECK_DATA, else in the user's cache."""
    return _chosen(given, DATA_VARIABLE, "data")


def _chosen(given: str | Path | None, variable: str, folder: str) -> Path:
    chosen = given or os.environ.get(variable)
    return Path(chosen).expanduser().absolute() if chosen else _cached(folder)


def users_data() -> Path:
    """The folder of image datasets in the user's cache."""
    return _cached("data")


def _cached(folder: str) -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("mli-check") / folder


CURVES = "curves"


@cache
def code_fingerprint() -> str:
    """SHA-256 (hex) of this package's modules: curves measured by other code are other curves."""
    root, content = Path(__file__).parent, hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        if "_claims" not in file.relative_to(root).parts:
            content.update(f"{file.relative_to(root).as_posix()}|".encode() + file.read_bytes())
    return content.hexdigest()
