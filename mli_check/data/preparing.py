"""Prepares datasets that are kept as tensors, and keeps the files of pre-trained weights."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch

from mli_check.data import prepared, weights
from mli_check.data.birds import read_birds
from mli_check.data.mail import read_mail
from mli_check.data.news import read_news
from mli_check.data.prepared import Part, PreparedSet
from mli_check.data.publishing import publish, writing
from mli_check.data.weights import Pretrained
from mli_check.errors import DataError, OptionError
from mli_check.locations import data_root
from mli_check.progress import Progress

READERS: dict[str, Callable[[Path, Path, Progress | None], dict[str, Part]]] = {
    "mail": lambda source, root, _: read_mail(source, root),
    "ag-news": lambda source, root, _: read_news(source, root),
    "cub200": lambda source, _, progress: read_birds(source, progress),
}


def prepare(entry: PreparedSet, source: Path, root: str | Path | None, progress: Progress | None = None) -> Path:
    """Read a dataset from `source`, check it, write its parts below the data root and return their folder.

    Raises what its reader raises, and DataError for contents that are not the set's or a root that cannot be written.
    """
    where = data_root(root)
    parts = READERS[entry.name](source, where, progress)
    for split, part in parts.items():
        prepared.check(entry, split, part, str(source))
    folder = where / entry.name
    with writing(folder):
        for split, part in parts.items():
            publish({Path(entry.file(split)).name: prepared.contents(entry, split, part)}, folder)
    return folder


def keep_weights(entry: Pretrained, source: Path, root: str | Path | None) -> Path:
    """Copy the files of pre-trained weights from a folder, or from the one file, and return where they are now.

    Raises OptionError for weights that come in a package, DataError for files that are missing, damaged or others than
    they should be.
    """
    if entry.package:
        raise OptionError(f"the weights of `{entry.name}` come in a package and need no import; {weights.EXTRA}")
    files = {}
    for use, name in entry.files.items():
        file = source / name if source.is_dir() else source
        if file.name != name or not file.is_file():
            raise DataError(f"{source} has no `{name}`; name {entry.source}")
        weights.check(entry, use, file)
        files[name] = file.read_bytes()
        if use == "weights":
            _check_tensors(files[name], file)
    folder = data_root(root) / entry.folder
    with writing(folder):
        publish(files, folder)
    return folder


def _check_tensors(content: bytes, file: Path) -> None:
    """Raise DataError unless the content is a state dict; of a pickle nothing but tensors is read."""
    try:
        if file.suffix == ".safetensors":
            safetensors.torch.load(content)
            return
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no one kind of error for files that it cannot read
        raise DataError(f"{file} holds no weights: {type(error).__name__}: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise DataError(f"{file} is no state dict, a dict of tensors by name")
