"""Finds named files in a folder or an archive and reads them, never more of each than it may hold.

Nothing is extracted to disk. A gzipped file counts as the file that it holds.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, Self

from mli_check.errors import DataError

MOST_IN_ARCHIVE = 2 * 2**30  # bytes that all members together may claim; the largest dataset has 0.3 GB
_MOST_IN_HEADER = 2**20  # bytes of a long name or of attributes
_READ_WHOLE = (b"L", b"K", b"x", b"g", b"X")  # the types of these, which tarfile reads into memory unasked
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,  # a name in another encoding, a place before the file's start
    RuntimeError,  # an encrypted member, an unknown compression
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


def read_files(source: Path, limits: Mapping[str, int]) -> dict[str, bytes]:
    """The files among `limits` (name: most bytes) that lie anywhere in `source`, by name.

    `source` is a folder, a tar archive of any compression, a zip archive, or one of the files itself; a file may be
    gzipped. Raises DataError for a source that is missing, damaged, or holds more than it may.
    """
    found: dict[str, bytes] = {}
    with _reading(source):
        for path, stream in _members(source):
            name = _wanted(path, limits)
            if name is not None:
                _add(found, name, _content(stream, path, limits[name], source), source)
    return found


def read_tree(source: Path, wanted: re.Pattern[str], limit: int) -> dict[str, bytes]:
    """The files of `source`, a folder or archive, in whose path `wanted` is found, by its first group.

    Folders in a path are parted by `/`. Raises DataError as `read_files` does; no file may have more than `limit`
    bytes.
    """
    found: dict[str, bytes] = {}
    with _reading(source):
        for path, stream in _members(source):
            match = wanted.search(PurePath(path).as_posix())
            if match:
                _add(found, match.group(1), _content(stream, path, limit, source), source)
    return found


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    if not os.path.exists(source):  # Path.exists raises where a folder may not be read
        raise DataError(f"no such file or folder: {str(source)!r}; name the package's folder or archive")
    try:
        yield
    except _DAMAGE as error:
        said = " ".join(str(error).split())  # tarfile's message has a line for each compression
        raise DataError(f"{str(source)!r} is damaged or cannot be read: {said}") from error


def _add(found: dict[str, bytes], name: str, content: bytes, source: Path) -> None:
    if found.setdefault(name, content) != content:  # equal ones: torchvision leaves a file beside its .gz
        raise DataError(f"{str(source)!r} holds `{name}` twice, and they differ; name the folder of one copy")


def _wanted(path: str, limits: Mapping[str, int]) -> str | None:
    name = PurePosixPath(path).name
    plain = name.removesuffix(".gz")
    return next((candidate for candidate in (name, plain) if candidate in limits), None)


def _content(stream: IO[bytes], path: str, limit: int, source: Path) -> bytes:
    content = (gzip.GzipFile(fileobj=stream) if path.endswith(".gz") else stream).read(limit + 1)
    if len(content) > limit:
        raise DataError(f"`{path}` of {str(source)!r} holds more than the {limit} bytes it may; nothing was written")
    return content


def _members(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Path and stream of every plain file."""
    if source.is_dir():
        for file in sorted(path for path in source.rglob("*") if path.is_file()):
            with open(file, "rb") as stream:
                yield str(file.relative_to(source)), stream
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check_claims((entry.file_size for entry in entries), source)
            for entry in entries:
                with archive.open(entry) as stream:
                    yield entry.filename, stream
    elif _is_tar(source):
        with tarfile.open(source, tarinfo=_Header) as archive:
            yield from _tar_members(archive, source)
    else:
        with open(source, "rb") as stream:
            yield source.name, stream


def _is_tar(source: Path) -> bool:
    """Whether the name says so or the bytes do; a tar that is damaged from its start has only its name."""
    if any(suffix in (".tar", ".tgz", ".tbz2", ".txz") for suffix in source.suffixes[-2:]):
        return True
    try:
        tarfile.open(source, tarinfo=_Header).close()
    except tarfile.TarError:
        return False
    return True


class _Header(tarfile.TarInfo):
    """A tar header, refused if its size is negative, where tarfile would loop, or large for a name or attributes."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _READ_WHOLE and header.size > _MOST_IN_HEADER):
            raise DataError(f"a tar header of {header.size} bytes is refused; nothing was read or written")
        return header


def _tar_members(archive: tarfile.TarFile, source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    total = 0
    for member in archive:  # one by one, so that what a member claims is seen before anything is skipped over
        total += member.size
        if member.size < 0:  # attributes may say so, too
            raise DataError(f"{str(source)!r} claims a file of {member.size} bytes; nothing was written")
        _check_claims((total,), source)
        if member.isfile():
            stream = archive.extractfile(member)
            yield member.name, stream if stream is not None else io.BytesIO()


def _check_claims(sizes: Iterable[int], source: Path) -> None:
    total = sum(sizes)
    if total > MOST_IN_ARCHIVE:
        raise DataError(
            f"{str(source)!r} claims to hold {total} bytes, more than the {MOST_IN_ARCHIVE} that any dataset here has; "
            "nothing was read or written"
        )
