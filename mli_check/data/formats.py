"""The file formats that image datasets come in: bytes in, pixels (n, channels, height, width) and labels (n,) out.

Nothing that is read is run: pickled batches go through an unpickler that knows arrays and plain containers only. Every
reader raises DataError, naming the file, for what is damaged or of another shape.
"""

from __future__ import annotations

import io
import json
import pickle
import warnings
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mli_check.errors import DataError

Pixels: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]

_UNSIGNED_BYTES = 0x08  # the type code of IDX files
_ARRAY_NAMES = {  # what a pickled array is rebuilt with, by the names that numpy has had for them
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("_codecs", "encode"),  # a bytes object as Python 3 writes it in old protocols
}


def read_idx(content: bytes, where: str) -> Pixels:
    """The array of an IDX file of unsigned bytes, in its own shape."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTES:
        raise DataError(f"{where} is no IDX file of unsigned bytes: it begins with {content[:4].hex() or 'nothing'}")
    dimensions = content[3]
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(f"{where} is truncated inside its header of {header} bytes: got {len(content)}")
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4))
    wanted = header + int(np.prod(shape, dtype=object))
    if len(content) != wanted:
        kind = "truncated" if len(content) < wanted else "too long"
        raise DataError(f"{where} is {kind}: got {len(content)} bytes, its header {shape} means {wanted}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_cifar(content: bytes, label_key: str, where: str) -> tuple[Pixels, Labels]:
    """One pickled batch of CIFAR: `data` of shape (n, 3072), channel by channel, and a list of labels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # numpy.core, by which the original files name arrays
            batch = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    except DataError as error:
        raise DataError(f"{where} is refused: {error}") from error
    except Exception as error:  # on damaged bytes the unpickler raises IndexError, ValueError, KeyError, ...
        raise DataError(f"{where} is not a whole pickled batch: {type(error).__name__}: {error}") from error
    if not isinstance(batch, dict) or not {"data", label_key} <= batch.keys():
        found = sorted(map(str, batch)) if isinstance(batch, dict) else type(batch).__name__
        raise DataError(f"{where} has no `data` and `{label_key}`; got {found}")
    data = batch["data"]
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        got = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(f"{where} has `data` of {got}, expected uint8 (n, 3072)")
    return data.reshape(-1, 3, 32, 32), as_labels(batch[label_key], where)


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds arrays and plain containers; anything else that a pickle could call is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY_NAMES:
            raise DataError(f"its pickle wants to call {module}.{name}, which a batch of images does not need")
        return super().find_class(module, name)


def write_cifar(pixels: Pixels, labels: Labels, label_key: str, title: str) -> bytes:
    """A pickled batch that torchvision reads; it lacks the original's file names, so it has another checksum."""
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    content = {"batch_label": title, label_key: [int(label) for label in labels], "data": rows}
    buffer = io.BytesIO()
    _PlainArrays(buffer, protocol=4).dump(content)
    return buffer.getvalue()


class _PlainArrays(pickle.Pickler):
    """Writes an array as numpy.ndarray(shape, dtype, bytes): the same bytes under every version of numpy."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return np.ndarray, (value.shape, value.dtype.str, value.tobytes())
        return NotImplemented


def read_svhn(content: bytes, examples: int, where: str) -> tuple[Pixels, Labels]:
    """SVHN's cropped digits: `X` (32, 32, 3, n) and `y` (n, 1), where label 10 means the digit 0.

    More images than `examples` are refused before they are decompressed.
    """
    from scipy.io import loadmat, whosmat

    try:
        listed = {name: (shape, kind) for name, shape, kind in whosmat(io.BytesIO(content))}
        images, kind = listed.get("X", ((), ""))
        if images[:3] != (32, 32, 3) or kind != "uint8" or int(np.prod(listed.get("y", ((0,), ""))[0])) != images[-1]:
            raise DataError(f"{where} has no uint8 images `X` (32, 32, 3, n) with n labels `y`; got {listed}")
        if images[-1] > examples:  # before anything is decompressed
            raise DataError(f"{where} has {images[-1]} images, expected {examples}")
        loaded = loadmat(io.BytesIO(content), variable_names=("X", "y"))
    except DataError:
        raise
    except Exception as error:  # scipy's reader raises ValueError, TypeError, zlib.error, ... on damaged bytes
        raise DataError(f"{where} is not a whole MATLAB file: {type(error).__name__}: {error}") from error
    pixels = loaded["X"]
    labels = as_labels(np.asarray(loaded["y"]).reshape(-1), where)
    return np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)), np.where(labels == 10, 0, labels)


def read_sprite(content: bytes, examples: int, side: int, where: str) -> Pixels:
    """A PNG with an RGB image of `side` x `side` pixels a row. Its size is checked before a pixel is decoded."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.size != (side * side, examples) or image.mode != "RGB":
                raise DataError(
                    f"{where} is a picture of {image.size[0]} x {image.size[1]} pixels, mode {image.mode}; expected "
                    f"{side * side} x {examples} RGB, a row for each image"
                )
            rows = np.asarray(image)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{where} is not a whole PNG: {error}") from error
    return np.ascontiguousarray(rows.reshape(examples, side, side, 3).transpose(0, 3, 1, 2))


def read_label_list(content: bytes, where: str) -> Labels:
    """A JSON list of class indices."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not a whole JSON list of labels: {error}") from error
    return as_labels(values, where)


def as_labels(values: Any, where: str) -> Labels:
    """Class indices 0 to 255 as int64, shape (n,)."""
    try:
        labels = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{where} has labels that are no list of whole numbers: {error}") from error
    whole = labels.ndim == 1 and labels.dtype.kind in "iu"
    if not whole or not np.all((labels >= 0) & (labels < 256)):
        raise DataError(f"{where} has labels that are no list of class indices: {labels.dtype} of shape {labels.shape}")
    return labels.astype(np.int64)
