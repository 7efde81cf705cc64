"""Files that outlive a crash: written whole and fsynced before they are told of, so that no reader sees half of one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from mli_check.errors import StoreError
from mli_check.locations import STORE_VARIABLE


def write(path: Path, content: bytes) -> None:
    """Write a new file; FileExistsError if there is one."""
    _write(path, content, "xb")


def replace(path: Path, content: bytes) -> None:
    """Write a file, or another in its place, by a rename: at any moment the old content is there or the new."""
    temporary = path.with_name(f".{path.name}.tmp")
    _write(temporary, content, "wb")
    os.replace(temporary, path)
    sync(path.parent)


def sync(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writing(what: str, option: str) -> Iterator[None]:
    """Turn an OSError into a StoreError that says what could not be written, and by which option to write elsewhere."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write {what}: {error.strerror or error}; free space there, or name another folder with {option} "
            f"or {STORE_VARIABLE}"
        ) from error


def _write(path: Path, content: bytes, mode: str) -> None:
    with open(path, mode) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
