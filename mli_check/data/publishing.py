"""Writes the files of a dataset so that a reader finds all of them whole, or the ones before."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mli_check.errors import DataError


def publish(files: Mapping[str, bytes], folder: Path) -> None:
    """Write all files in a temporary folder beside their places, then rename each into its place."""
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".import-", dir=folder))
    try:
        for name, content in files.items():
            with open(staging / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for name in files:
            os.replace(staging / name, folder / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def writing(where: Path) -> Iterator[None]:
    """Turn an OSError into a DataError that says where nothing can be written."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write to {where}: {error.strerror or error}; free space there, or name another folder with "
            "--data-root or MLI_CHECK_DATA"
        ) from error
