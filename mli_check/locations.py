"""Where trained runs, downloaded data and results lie; apart from `runs`, so that reading it does not import torch."""

from __future__ import annotations

import os
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
