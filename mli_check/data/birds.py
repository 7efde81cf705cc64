"""CUB-200-2011 (Wah et al. 2011): photographs of birds of 200 kinds, cut to one size."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mli_check.data.prepared import Part, get
from mli_check.errors import DataError
from mli_check.progress import Progress

_LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt")
_SHORTER_SIDE = 256  # pixels before the middle is cut out, as is usual where the middle has 224


def read_birds(source: Path, progress: Progress | None = None) -> dict[str, Part]:
    """Training and test set from the folder CUB_200_2011: pixels (n, 3, 224, 224), in the order of images.txt.

    Each photograph is shrunk to a shorter side of 256 pixels, then its middle is cut out. `progress(done, total)` is
    called after each. Raises DataError for files that are missing, damaged or do not fit each other.
    """
    names, labels, training = (_listed(source / file) for file in _LISTS)
    if not names.keys() == labels.keys() == training.keys():
        raise DataError(f"{', '.join(_LISTS)} in {source} do not list the same images; unpack the archive again")
    entry = get("cub200")
    parts: dict[str, Part] = {}
    done = 0
    for split, flag in (("train", "1"), ("test", "0")):
        chosen = [number for number in names if training[number] == flag]
        pixels = np.empty((len(chosen), *entry.shape), np.uint8)
        for row, number in enumerate(chosen):
            pixels[row] = _photograph(source / "images", names[number], entry.shape[1])
            done += 1
            if progress is not None:
                progress(done, len(names))
        parts[split] = pixels, np.array([int(labels[number]) - 1 for number in chosen], np.int64)
    return parts


def _listed(file: Path) -> Mapping[str, str]:
    """The lines of a list, `number value`, by number."""
    try:
        rows = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}; name the folder CUB_200_2011") from error
    for number, row in enumerate(rows, start=1):
        if len(row) != 2 or (file.name != _LISTS[0] and not row[1].isdecimal()):
            raise DataError(f"{file}, line {number}: expected an image's number and what belongs to it, got {row}")
    return dict(rows)


def _photograph(folder: Path, name: str, side: int) -> NDArray[np.uint8]:
    """The middle of a photograph, (3, side, side); grey ones have three equal channels."""
    from PIL import Image, UnidentifiedImageError

    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise DataError(f"images.txt names {name!r}, which is not below {folder}; nothing was read")
    try:
        with Image.open(io.BytesIO((folder / name).read_bytes())) as opened:
            image = opened.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the photograph {folder / name}: {error}") from error
    scale = _SHORTER_SIDE / min(image.size)
    width, height = (max(round(length * scale), _SHORTER_SIDE) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    middle = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + side, top + side))
    return np.asarray(middle, np.uint8).transpose(2, 0, 1)
