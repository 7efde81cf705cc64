"""The file formats that image datasets come in: bytes in, pixels (n, channels, height, width) and labels (n,) out.

Nothing that is read is run: pickled batches go through an unpickler that knows arrays of bytes and plain containers
only. Every reader raises DataError, naming the file, for what is damaged or of another shape.
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
_END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"


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
    try:
        return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
    except ValueError as error:  # more dimensions than numpy knows, or beside a 0 larger ones than it knows
        raise DataError(f"{where} has a shape that no array can have: {error}") from error


def read_cifar(content: bytes, label_key: str, where: str) -> tuple[Pixels, Labels]:
    """One pickled batch of CIFAR: `data` of shape (n, 3072), channel by channel, and a list of labels."""
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    except DataError as error:
        raise DataError(f"{where} is refused: {error}") from error
    except Exception as error:  # on damaged bytes the unpickler raises IndexError, ValueError, KeyError, ...
        raise DataError(f"{where} is not a whole pickled batch: {type(error).__name__}: {error}") from error
    if not isinstance(batch, dict) or not {"data", label_key} <= batch.keys():
        keys = batch if isinstance(batch, dict) else ()
        found = sorted(key for key in keys if isinstance(key, str)) or type(batch).__name__
        raise DataError(f"{where} has no `data` and `{label_key}`; got {found}")
    data = batch["data"]
    if not isinstance(data, _Array) or data.pixels.ndim != 2 or data.pixels.shape[1] != 3072:
        got = f"shape {data.pixels.shape}" if isinstance(data, _Array) else f"type {type(data).__name__}"
        raise DataError(f"{where} has `data` of {got}, expected an array (n, 3072) of unsigned bytes")
    return data.pixels.reshape(-1, 3, 32, 32), as_labels(batch[label_key], where)


class _ByteType:
    """Stands for numpy.dtype("u1") while a batch is unpickled; other types are refused."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in ("u1", "|u1"):
            raise DataError("its pickle has an array that is not of unsigned bytes")

    def __setstate__(self, state: Any) -> None:
        """A byte order and the like, which bytes do not need."""


class _Array:
    """Stands for numpy.ndarray(shape, type, bytes), as `write_cifar` has it.

    numpy's own classes trust a pickle: told that bytes are Python objects, they take them for addresses.
    """

    pixels: Pixels = np.empty(0, np.uint8)

    def __init__(self, shape: Any, kind: Any, content: Any, order: str = "C") -> None:
        raw = content.encode("latin1") if isinstance(content, str) else content  # str: bytes as Python 2 wrote them
        if not isinstance(raw, bytes | bytearray):
            raise DataError(f"its pickle has an array made from {type(raw).__name__}, not from bytes")
        if not isinstance(kind, _ByteType):
            _ByteType(kind)
        self.pixels = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if order == "F" else "C")

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, content = state
        _Array.__init__(self, shape, kind, content, "F" if by_columns else "C")


class _Filled(_Array):
    """An array as protocols up to 4 have it: empty, then filled from a state."""

    def __init__(self, *_: Any) -> None:
        pass


class _Buffer(_Array):
    """An array as protocol 5 has it."""

    def __init__(self, content: Any, kind: Any, shape: Any, order: str) -> None:
        super().__init__(shape, kind, content, order)


_STANDS_FOR: dict[tuple[str, str], type] = {  # by the names that numpy has had for them
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _ByteType,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Filled for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Buffer for core in ("core", "_core")},
}


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds arrays of bytes and plain containers; anything else that a pickle could call is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):  # a bytes object as Python 3 writes it in old protocols
            return super().find_class(module, name)
        if (module, name) not in _STANDS_FOR:
            raise DataError(f"its pickle wants to call {module}.{name}, which a batch of images does not need")
        return _STANDS_FOR[module, name]


def write_cifar(pixels: Pixels, labels: Labels, label_key: str, title: str) -> bytes:
    """A pickled batch that torchvision reads; it lacks the original's file names, so it has another checksum."""
    rows = np.ascontiguousarray(pixels).reshape(-1, 3072)
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
        variables = whosmat(io.BytesIO(content))
        listed = {name: (shape, kind) for name, shape, kind in variables}
        (images, kind), (labelled, _) = listed.get("X", ((), "")), listed.get("y", ((), ""))
        fits = len(images) == 4 and images[:3] == (32, 32, 3) and kind == "uint8" and labelled == (images[3], 1)
        if not fits or len(listed) < len(variables):  # of two by one name, the listing may show the smaller
            raise DataError(f"{where} has no uint8 images `X` (32, 32, 3, n) with labels `y` (n, 1); got {variables}")
        if images[3] > examples:  # before anything is decompressed
            raise DataError(f"{where} has {images[3]} images, expected {examples}")
        loaded = loadmat(io.BytesIO(content), variable_names=("X", "y"))
    except DataError:
        raise
    except Exception as error:  # scipy's reader raises ValueError, TypeError, zlib.error, ... on damaged bytes
        raise DataError(f"{where} is not a whole MATLAB file: {type(error).__name__}: {error}") from error
    labels = as_labels(loaded["y"].reshape(-1), where)
    return np.ascontiguousarray(loaded["X"].transpose(3, 2, 0, 1)), np.where(labels == 10, 0, labels)


def read_sprite(content: bytes, examples: int, side: int, where: str) -> Pixels:
    """A PNG with an RGB image of `side` x `side` pixels a row. Its size is checked before a pixel is decoded."""
    from PIL import Image, UnidentifiedImageError

    if not content.endswith(_END_OF_PNG):
        raise DataError(f"{where} is not a whole PNG: it does not end as one")
    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(io.BytesIO(content), formats=("PNG",)) as image,
        ):
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
    """Class indices 0 to 255, from a list or an array of shape (n,), as int64."""
    if isinstance(values, list) and all(type(value) is int and 0 <= value < 256 for value in values):
        return np.array(values, np.int64)
    array = isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iu"
    if array and np.all((values >= 0) & (values < 256)):
        return np.asarray(values, np.int64)
    got = f"{values.dtype} of shape {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
    raise DataError(f"{where} has labels that are no list of class indices 0 to 255: got {got}")
