"""Image datasets from files: what is imported or fetched is loaded bit for bit, and what is wrong is never written.

Every test has small files of the real formats, made by the writers below, which share no code with the readers, and
records that are true of them in the place of the real ones.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from http.client import IncompleteRead
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageFile
from scipy.io import savemat

from mli_check import locations
from mli_check.data import IMAGE_SETS, SPLITS, Normalisation, archives, cifar10, load_dataset
from mli_check.data.formats import read_cifar, read_idx, read_label_list, read_sprite, read_svhn, write_cifar
from mli_check.data.images import ImageSet
from mli_check.data.importing import fetch_dataset, import_dataset
from mli_check.errors import DataError, MissingDataError, UnknownNameError

Files = dict[str, bytes]
LIST = {"train": "train_lables.json", "test": "test_lables.json"}
MARK = 7  # the label that a test changes, and back


# Writers of the real formats


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def python2(value: Any) -> bytes:
    """What Python 2 wrote for a value with protocol 2: text as byte strings, and arrays by numpy's old names."""
    if isinstance(value, str):
        return python2(value.encode())
    if isinstance(value, bytes):
        return (b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value))) + value
    if isinstance(value, int):
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(python2(part) for pair in value.items() for part in pair) + b"u"
    kind = b"cnumpy\ndtype\nU\x02u1K\0K\1\x87R(K\3U\1|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\1b\x87R"
    shape = b"(" + b"".join(map(python2, value.shape)) + b"t"
    return empty + b"(K\1" + shape + kind + b"\x89" + python2(value.tobytes()) + b"tb"


def batch(pixels: np.ndarray, labels: np.ndarray, key: str = "labels", title: str = "training batch 1 of 5") -> bytes:
    names = [f"leptodactylus_pentadactylus_s_{index:06d}.png" for index in range(len(pixels))]
    content = {"batch_label": title, key: labels.tolist(), "data": pixels.reshape(-1, 3072), "filenames": names}
    return b"\x80\x02" + python2(content) + b"."


def matlab(pixels: np.ndarray, labels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tens = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
    savemat(buffer, {"X": pixels.transpose(2, 3, 1, 0), "y": tens}, **{"do_compression": True} | options)
    return buffer.getvalue()


def png(pixels: np.ndarray) -> bytes:
    """A picture with a row for each image."""
    buffer = io.BytesIO()
    rows = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)).reshape(len(pixels), -1, pixels.shape[1])
    Image.fromarray(rows).save(buffer, "PNG")
    return buffer.getvalue()


def forged_png(width: int, height: int, colour: int = 2) -> bytes:
    """A picture that claims a size, with next to nothing in it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


# Small sets: files, what is in them, and a record that is true of them


@dataclass(frozen=True)
class Small:
    entry: ImageSet
    pixels: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    files: Files

    @property
    def sprites(self) -> Files:
        """The same in the layout of the npm package that has pictures."""
        made = {LIST[split]: json.dumps(self.labels[split].tolist()).encode() for split in SPLITS}
        for split in SPLITS:
            names = self.entry.part(split).files
            parts = np.split(self.pixels[split], len(names))
            made |= {f"{name}.png": png(part) for name, part in zip(names, parts, strict=True)}
        return made


@cache
def small(name: str) -> Small:
    real, generator = IMAGE_SETS[name], np.random.default_rng(len(name))
    pixels, labels, files = {}, {}, {}
    for split, count in (("train", 20), ("test", 6)):
        part = real.part(split)
        pixels[split] = generator.integers(0, 256, (count, *real.shape), np.uint8)
        labels[split] = generator.integers(0, real.classes, count)
        labels[split][[0, 1]] = 0, MARK
        files |= files_of(real, part.files, pixels[split], labels[split])
    if name == "cifar100":
        files["meta"] = pickle.dumps({"fine_label_names": [f"kind {index}" for index in range(100)]}, 2)
    return Small(adapted(real, pixels, labels, files), pixels, labels, files)


def files_of(real: ImageSet, names: tuple[str, ...], pixels: np.ndarray, labels: np.ndarray) -> Files:
    if real.kind == "idx":
        return {names[0]: idx(pixels[:, 0]), names[1]: idx(labels.astype(np.uint8))}
    if real.kind == "svhn":
        return {names[0]: matlab(pixels, labels)}
    parts = zip(names, np.split(pixels, len(names)), np.split(labels, len(names)), strict=True)
    return {name: batch(part, marks, real.label_key) for name, part, marks in parts}


def adapted(real: ImageSet, pixels: dict[str, np.ndarray], labels: dict[str, np.ndarray], files: Files) -> ImageSet:
    parts = {}
    for split in SPLITS:
        content = pixels[split].tobytes() + labels[split].astype(np.uint8).tobytes()
        levels = pixels[split].astype(np.float64) / 255
        parts[split] = replace(
            real.part(split),
            counts=tuple(int((labels[split] == index).sum()) for index in range(real.classes)),
            mean=tuple(levels.mean((0, 2, 3)).round(4)),
            std=tuple(levels.std((0, 2, 3)).round(4)),
            digest=hashlib.sha256(content).hexdigest() if real.part(split).digest else "",
        )
    return replace(real, **parts, md5={file: md5(files[file]) for file in real.md5})


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


SMALL = {name: small(name) for name in IMAGE_SETS}  # before any test puts a small record in the place of a real one
every_set = pytest.mark.parametrize("name", SMALL)


@pytest.fixture(autouse=True)
def small_records(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "real_records" not in request.fixturenames:
        put_small_records(monkeypatch)


@pytest.fixture
def real_records() -> None:
    """For a test of the records and files themselves."""


def put_small_records(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, made in SMALL.items():
        monkeypatch.setitem(IMAGE_SETS, name, made.entry)


# Sources and what is below a root


def folder_of(files: Files, folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def tar_of(files: Files, path: Path, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def zip_of(files: Files, path: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def inside(prefix: str, files: Files) -> Files:
    return {f"{prefix}/{name}": content for name, content in files.items()}


def gzipped(files: Files) -> Files:
    return {f"{name}.gz": gzip.compress(content) for name, content in files.items()}


def packaged(files: Files) -> Files:
    """As npm packs it: in a folder, with other files around."""
    return {"package/package.json": b"{}", "package/README.md": b"# data"} | inside("package/data", files)


SOURCES: dict[str, Callable[[Files, Path], Path]] = {
    "folder": lambda files, where: folder_of(files, where / "copy"),
    "nested folder": lambda files, where: folder_of(inside("usr/share/datasets/set", files), where / "copy"),
    "gzipped files": lambda files, where: folder_of(gzipped(files), where / "copy"),
    "each file beside its .gz": lambda files, where: folder_of(files | gzipped(files), where / "copy"),
    "tgz": lambda files, where: tar_of(files, where / "copy.tgz"),
    "tar.gz without its name": lambda files, where: tar_of(files, where / "copy"),
    "tar": lambda files, where: tar_of(inside("a/b", files), where / "copy.tar", "w"),
    "tar.xz": lambda files, where: tar_of(files, where / "copy.tar.xz", "w:xz"),
    "tar of gzipped files": lambda files, where: tar_of(gzipped(files), where / "copy.tar", "w"),
    "zip": lambda files, where: zip_of(inside("archive (1)", files), where / "copy.zip"),
    "zip of gzipped files": lambda files, where: zip_of(gzipped(files), where / "copy.zip", zipfile.ZIP_STORED),
    "package": lambda files, where: tar_of(packaged(files), where / "set-1.2.6.tgz"),
}


def below(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: the bytes of files, None for folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def assert_refused(name: str, source: Path, message: str, tmp_path: Path) -> None:
    """The source is refused in one line, before anything is written, also where there is a good import already."""
    bare, good = tmp_path / "bare", tmp_path / "good"
    import_dataset(name, folder_of(SMALL[name].files, tmp_path / "good source"), good)
    before = below(good)
    for root in (bare, good):
        with pytest.raises(DataError, match=message) as raised:
            import_dataset(name, source, root)
        assert "\n" not in str(raised.value)
    assert not bare.exists()
    assert below(good) == before


def outcome_of(action: Callable[[], Any]) -> tuple[Any, str]:
    """What it returns, or None and the message of its DataError; any other exception is the test's failure."""
    try:
        return action(), ""
    except DataError as error:
        return None, str(error)


def assert_loads(name: str, root: Path) -> None:
    for split in SPLITS:
        data = load_dataset(name, split, root)
        assert data.inputs.dtype == torch.uint8
        assert np.array_equal(data.inputs.numpy(), SMALL[name].pixels[split])
        assert data.targets.dtype == torch.int64
        assert np.array_equal(data.targets.numpy(), SMALL[name].labels[split])
        assert (data.name, data.n_classes) == (name, 100 if name == "cifar100" else 10)
        assert data.normalisation == IMAGE_SETS[name].normalisation


def by_torchvision(name: str, split: str, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, channels, height, width) and labels as torchvision's own classes read them."""
    if name == "svhn":
        read = torchvision.datasets.SVHN(root, split)
        return read.data, read.labels
    kinds = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar100": "CIFAR100"}
    kind = cifar10.CIFAR10 if name == "cifar10" else getattr(torchvision.datasets, kinds[name])
    read = kind(root, train=split == "train")
    if name in ("cifar10", "cifar100"):
        return read.data.transpose(0, 3, 1, 2), np.array(read.targets)
    return read.data.numpy()[:, None], read.targets.numpy()


def tell_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision expect the small files' checksums where it compares any."""
    files = SMALL["cifar100"].files
    kind = torchvision.datasets.CIFAR100
    monkeypatch.setattr(kind, "train_list", [["train", md5(files["train"])]])
    monkeypatch.setattr(kind, "test_list", [["test", md5(files["test"])]])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(files["meta"])})
    known = {split: ["", f"{split}_32x32.mat", md5(SMALL["svhn"].files[f"{split}_32x32.mat"])] for split in SPLITS}
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", known)


# What is imported is loaded


@every_set
@pytest.mark.parametrize("form", SOURCES)
def test_a_set_is_imported_from_any_source_and_loaded_bit_for_bit(name: str, form: str, tmp_path: Path) -> None:
    source = SOURCES[form](SMALL[name].files, tmp_path)
    folder = import_dataset(name, source, tmp_path / "root")
    assert folder == tmp_path / "root" / SMALL[name].entry.folder
    assert_loads(name, tmp_path / "root")
    written = {path for path, content in below(folder).items() if content is not None}
    assert written == SMALL[name].files.keys() | ({"batches.meta"} if name == "cifar10" else set())


@pytest.mark.parametrize("form", SOURCES)
def test_cifar10_is_imported_from_pictures(form: str, tmp_path: Path) -> None:
    import_dataset("cifar10", SOURCES[form](SMALL["cifar10"].sprites, tmp_path), tmp_path / "root")
    assert_loads("cifar10", tmp_path / "root")


@every_set
def test_an_import_replaces_a_damaged_one(name: str, tmp_path: Path) -> None:
    source = folder_of(SMALL[name].files, tmp_path / "source")
    folder = import_dataset(name, source, tmp_path / "root")
    before = below(folder)
    for file in SMALL[name].files:
        (folder / file).write_bytes(b"damaged")
    import_dataset(name, source, tmp_path / "root")
    assert below(folder) == before


@every_set
def test_what_was_imported_can_be_imported_from_there(name: str, tmp_path: Path) -> None:
    import_dataset(name, folder_of(SMALL[name].files, tmp_path / "source"), tmp_path / "first")
    import_dataset(name, tmp_path / "first", tmp_path / "second")
    assert below(tmp_path / "first") == below(tmp_path / "second")


@every_set
def test_torchvisions_own_classes_read_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_torchvision(monkeypatch)
    import_dataset(name, folder_of(SMALL[name].files, tmp_path / "source"), tmp_path / "root")
    for split in SPLITS:
        pixels, labels = by_torchvision(name, split, tmp_path / "root")
        assert np.array_equal(pixels, SMALL[name].pixels[split])
        assert np.array_equal(labels, SMALL[name].labels[split])


@pytest.mark.parametrize("form", ["batches", "pictures"])
def test_imported_cifar10_is_as_torchvision_has_it_with_the_classes_names(form: str, tmp_path: Path) -> None:
    made = SMALL["cifar10"]
    source = folder_of(made.files if form == "batches" else made.sprites, tmp_path / "source")
    folder = import_dataset("cifar10", source, tmp_path)
    assert md5((folder / "batches.meta").read_bytes()) == torchvision.datasets.CIFAR10.meta["md5"]
    assert cifar10.CIFAR10(tmp_path).classes[:3] == ["airplane", "automobile", "bird"]
    pixels, labels = by_torchvision("cifar10", "train", tmp_path)
    assert np.array_equal(pixels, made.pixels["train"])
    assert labels.tolist() == made.labels["train"].tolist()


def test_the_same_pictures_give_the_same_bytes(tmp_path: Path) -> None:
    source = tar_of(packaged(SMALL["cifar10"].sprites), tmp_path / "package.tgz")
    first, second = (import_dataset("cifar10", source, tmp_path / root) for root in "ab")
    assert below(first) == below(second)


@pytest.mark.usefixtures("real_records")
def test_the_known_checksums_are_torchvisions() -> None:
    """Of the batches of CIFAR-10 none is known, since those from pictures have others; their contents are checked."""
    cifar, svhn = torchvision.datasets.CIFAR100, torchvision.datasets.SVHN
    known = {**dict(cifar.train_list), **dict(cifar.test_list), cifar.meta["filename"]: cifar.meta["md5"]}
    assert IMAGE_SETS["cifar100"].md5 == known
    assert IMAGE_SETS["svhn"].md5 == {file: md5 for _, file, md5 in (svhn.split_list[split] for split in SPLITS)}
    for entry in IMAGE_SETS.values():
        assert all(entry.part(split).digest or entry.md5.keys() >= set(entry.part(split).files) for split in SPLITS)


@every_set
def test_loaded_pixels_are_the_callers_to_change(name: str, tmp_path: Path) -> None:
    import_dataset(name, folder_of(SMALL[name].files, tmp_path / "source"), tmp_path / "root")
    for split in SPLITS:
        load_dataset(name, split, tmp_path / "root").inputs.zero_()
    assert_loads(name, tmp_path / "root")


# What is wrong in a file


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]


def called(function: Callable[..., Any], *arguments: Any) -> Any:
    """An object whose pickle calls a function."""

    class Call:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return function, arguments

    return Call()


def of_objects() -> bytes:
    """A batch with an array of Python objects, made from bytes: an address each, if one believes it."""
    return pickle.dumps({"data": called(np.ndarray, (2,), "O", bytes(16)), "labels": [0, 1]}, 4)


def with_y(**others: Any) -> bytes:
    """SVHN's test file with other variables."""
    made = SMALL["svhn"]
    buffer = io.BytesIO()
    content = {"X": made.pixels["test"].transpose(2, 3, 1, 0), "y": made.labels["test"].astype(np.uint8)[:, None]}
    savemat(buffer, {name: value for name, value in (content | others).items() if value is not None})
    return buffer.getvalue()


def twice(content: bytes) -> bytes:
    """A MATLAB file with all its variables twice."""
    return content + content[128:]


IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
MNIST, CIFAR, SVHN = SMALL["mnist"], SMALL["cifar10"], SMALL["svhn"]
TEST = {"cifar10": "test_batch", "cifar100": "test", "svhn": "test_32x32.mat"}
mnist_images, mnist_labels = MNIST.pixels["test"][:, 0], MNIST.labels["test"].astype(np.uint8)
cifar_images, cifar_labels = CIFAR.pixels["test"], CIFAR.labels["test"]
other = np.where(np.arange(6) == 1, MARK + 1, mnist_labels).astype(np.uint8)
swapped = [1, 0, 2, 3, 4, 5]
bright = mnist_images.copy()
bright[3] = 255
dot = mnist_images.copy()
dot[0, 0, 0] ^= 1

BAD_FILES: dict[str, tuple[str, str, bytes, str]] = {
    "IDX truncated": ("mnist", IMAGES, idx(mnist_images)[:-1], "`t10k-images-idx3-ubyte` in .* is truncated: got"),
    "IDX truncated in its header": ("mnist", IMAGES, idx(mnist_images)[:9], "truncated inside its header of 16 bytes"),
    "IDX too long": ("mnist", IMAGES, idx(mnist_images) + b"\0", "is too long: got"),
    "IDX empty": ("mnist", LABELS, b"", "no IDX file of unsigned bytes: it begins with nothing"),
    "IDX of another magic": ("mnist", IMAGES, b"\x89PNG" + idx(mnist_images)[4:], "begins with 89504e47"),
    "IDX of floats": ("mnist", IMAGES, b"\0\0\x0d\3" + idx(mnist_images)[4:], "no IDX file of unsigned bytes"),
    "IDX of 255 dimensions": ("mnist", IMAGES, b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"\0", "a shape that no array"),
    "IDX beyond any memory": ("mnist", IMAGES, b"\0\0\x08\4" + bytes(4) + b"\xff" * 12, "a shape that no array"),
    "a page instead of a file": ("mnist", IMAGES, b"<!DOCTYPE html><title>404</title>", "begins with 3c21444f"),
    "images of another side": ("mnist", IMAGES, idx(mnist_images[:, 1:]), r"shape \(6, 1, 27, 28\), expected"),
    "images in two dimensions": ("mnist", IMAGES, idx(mnist_images.reshape(6, -1)), r"images of shape \(6, 784\)"),
    "fewer images": ("mnist", IMAGES, idx(mnist_images[:5]), r"images of shape \(5, 1, 28, 28\), expected \(6,"),
    "fewer labels": ("mnist", LABELS, idx(mnist_labels[:5]), "5 labels for 6 images"),
    "labels in two dimensions": ("mnist", LABELS, idx(mnist_labels[:, None]), r"shape \(6, 1\), expected one label"),
    "label out of range": ("mnist", LABELS, idx(np.where(other > MARK, 10, other).astype(np.uint8)), "of the classes"),
    "one label changed": ("mnist", LABELS, idx(other), "examples of the classes, expected"),
    "labels in another order": ("mnist", LABELS, idx(mnist_labels[swapped]), "other pixels or another order"),
    "images in another order": ("mnist", IMAGES, idx(mnist_images[swapped]), "other pixels or another order"),
    "one pixel changed": ("mnist", IMAGES, idx(dot), "other pixels or another order"),
    "brighter pixels": ("mnist", IMAGES, idx(bright), "has pixels of mean 0.[0-9]{4}, expected 0.[0-9]+"),
    "another set": ("mnist", IMAGES, SMALL["fashion-mnist"].files[IMAGES], "has pixels of|other pixels"),
    "batch truncated": ("cifar10", "test_batch", CIFAR.files["test_batch"][:-2], "is not a whole pickled batch"),
    "batch empty": ("cifar10", "test_batch", b"", "is not a whole pickled batch: EOFError"),
    "batch with another pixel": ("cifar10", "test_batch", batch(cifar_images ^ 1, cifar_labels), "other pixels"),
    "batch of another order": (
        "cifar10", "test_batch", batch(cifar_images[swapped], cifar_labels[swapped]), "other pixels or another order"
    ),
    "batch without pixels": ("cifar10", "test_batch", pickle.dumps({"labels": [1]}), "no `data` and `labels`; got"),
    "batch of CIFAR-100": ("cifar10", "test_batch", batch(cifar_images, cifar_labels, "fine_labels"), "`labels`; got"),
    "batch that is a list": ("cifar10", "test_batch", pickle.dumps([1, 2]), "no `data` and `labels`; got list"),
    "batch of a list of pixels": ("cifar10", "test_batch", pickle.dumps({"data": [1], "labels": [1]}), "of type list"),
    "batch of grey pictures": (
        "cifar10", "test_batch", pickle.dumps({"data": np.zeros((6, 1024), np.uint8), "labels": [0] * 6}, 2),
        r"`data` of shape \(6, 1024\), expected an array \(n, 3072\)",
    ),
    "batch of floats": (
        "cifar10", "test_batch", pickle.dumps({"data": np.zeros((6, 3072)), "labels": [0] * 6}, 2),
        "is refused: its pickle has an array that is not of unsigned bytes",
    ),
    "batch of objects": ("cifar10", "test_batch", of_objects(), "an array that is not of unsigned bytes"),
    "batch of a made-up size": (
        "cifar10", "test_batch", pickle.dumps({"data": called(np.ndarray, (2**40, 3072), "u1", b"1"), "labels": []}, 4),
        "is not a whole pickled batch: ValueError",
    ),
    "batch of no bytes at all": (
        "cifar10", "test_batch", pickle.dumps({"data": called(np.ndarray, (2**40,), "u1", 2**40), "labels": []}, 4),
        "an array made from int, not from bytes",
    ),
    "batch with labels in text": (
        "cifar10", "test_batch", pickle.dumps({"data": cifar_images.reshape(6, 3072), "labels": ["a"] * 6}, 2),
        "labels that are no list of class indices 0 to 255: got list",
    ),
    "fewer batches' labels": ("cifar10", "test_batch", batch(cifar_images, cifar_labels[:5]), "5 labels for 6 images"),
    "CIFAR-100 changed": ("cifar100", "test", batch(cifar_images, cifar_labels, "fine_labels"), "not have the MD5"),
    "CIFAR-100's names changed": ("cifar100", "meta", pickle.dumps({"fine_label_names": []}), "`meta` .* MD5 "),
    "SVHN truncated": ("svhn", "test_32x32.mat", SVHN.files["test_32x32.mat"][:-9], "is damaged or another file"),
    "SVHN changed": ("svhn", "test_32x32.mat", matlab(SVHN.pixels["test"] ^ 1, SVHN.labels["test"]), "have the MD5"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "file", "content", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_set_with_a_bad_file_is_refused_before_anything_is_written(
    name: str, file: str, content: bytes, message: str, tmp_path: Path
) -> None:
    source = tar_of(SMALL[name].files | {file: content}, tmp_path / "copy.tgz")
    assert_refused(name, source, message, tmp_path)


PICTURE = CIFAR.sprites["test_batch.png"]
BAD_PICTURES: dict[str, tuple[str, bytes, str]] = {
    "truncated": ("test_batch.png", PICTURE[: len(PICTURE) // 2], "`test_batch.png` in .* is not a whole PNG"),
    "changed": ("test_batch.png", flipped(PICTURE, len(PICTURE) // 2), "is not a whole PNG"),
    "empty": ("test_batch.png", b"", "is not a whole PNG"),
    "a JPEG": ("test_batch.png", b"\xff\xd8\xff\xe0" + PICTURE, "is not a whole PNG"),
    "a row too few": ("test_batch.png", png(cifar_images[:5]), "1024 x 5 pixels, mode RGB; expected 1024 x 6 RGB"),
    "another side": ("test_batch.png", png(cifar_images[:, :, 1:, :]), "picture of 992 x 6 pixels"),
    "grey": ("test_batch.png", forged_png(1024, 6, colour=0), "mode L; expected 1024 x 6 RGB"),
    "with transparency": ("test_batch.png", forged_png(1024, 6, colour=6), "mode RGBA; expected"),
    "claims 100 million pixels": ("test_batch.png", forged_png(10_000, 10_000), "10000 x 10000 pixels"),
    "claims 2 billion pixels": ("test_batch.png", forged_png(2**31 - 1, 1), "is not a whole PNG: Image size"),
    "pixels missing": ("test_batch.png", forged_png(1024, 6), "is not a whole PNG"),
    "another batch": ("data_batch_2.png", CIFAR.sprites["data_batch_1.png"], "pixels of|other pixels"),
    "labels truncated": (LIST["test"], b"[1, 2", "`test_lables.json` in .* is not a whole JSON list of labels"),
    "labels nested too deep": (LIST["test"], b"[" * 100_000, "is not a whole JSON list of labels"),
    "labels in a dict": (LIST["test"], b'{"labels": [1]}', "no list of class indices 0 to 255: got dict"),
    "labels nested": (LIST["test"], b"[[1], [2]]", "no list of class indices"),
    "labels with halves": (LIST["test"], b"[1.5, 2, 3, 4, 5, 6]", "no list of class indices"),
    "labels true or false": (LIST["test"], b"[true, 2, 3, 4, 5, 6]", "no list of class indices"),
    "labels below 0": (LIST["test"], b"[-1, 2, 3, 4, 5, 6]", "no list of class indices"),
    "labels above 255": (LIST["test"], b"[256, 2, 3, 4, 5, 6]", "no list of class indices"),
    "labels above any integer type": (LIST["test"], b"[1" + b"0" * 100 + b"]", "no list of class indices"),
    "labels too few": (LIST["test"], b"[1, 2, 3, 4, 5]", "has 5 labels, expected 6, one an image"),
    "one label changed": (LIST["test"], json.dumps(other.tolist()).encode(), "examples of the classes, expected"),
}


@pytest.mark.parametrize(("file", "content", "message"), BAD_PICTURES.values(), ids=BAD_PICTURES.keys())
def test_pictures_that_are_wrong_are_refused_before_anything_is_written(
    file: str, content: bytes, message: str, tmp_path: Path
) -> None:
    source = folder_of(CIFAR.sprites | {file: content}, tmp_path / "package" / "src")
    assert_refused("cifar10", source, message, tmp_path)


@pytest.mark.parametrize(
    "size", [(10_000, 10_000), (1024, 7), (100_000, 1024)], ids=["huge", "a row too many", "another side"]
)
def test_a_picture_of_another_size_is_refused_without_decoding_it(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("a pixel was decoded"))
    with pytest.raises(DataError, match=f"a picture of {size[0]} x {size[1]} pixels"):
        read_sprite(forged_png(*size), 6, 32, "it")


BAD_MATLAB: dict[str, tuple[bytes, str]] = {
    "no images": (with_y(X=None), r"no uint8 images `X` \(32, 32, 3, n\) with labels `y` \(n, 1\); got \[\('y'"),
    "no labels": (with_y(y=None), "no uint8 images `X`"),
    "other names": (with_y(X=None, images=np.zeros((32, 32, 3, 6), np.uint8)), "no uint8 images `X`"),
    "images of floats": (with_y(X=np.zeros((32, 32, 3, 6))), "no uint8 images `X`"),
    "complex images": (with_y(X=np.zeros((32, 32, 3, 6), np.complex128)), "no uint8 images `X`"),
    "images the other way": (with_y(X=np.zeros((6, 3, 32, 32), np.uint8)), "no uint8 images `X`"),
    "as many labels as channels": (
        with_y(X=np.zeros((32, 32, 3), np.uint8), y=np.zeros((3, 1), np.uint8)), "no uint8 images `X`"
    ),
    "labels fewer": (with_y(y=np.zeros((5, 1), np.uint8)), "no uint8 images `X`"),
    "labels in a row": (with_y(y=np.zeros((1, 6), np.uint8)), "no uint8 images `X`"),
    "labels of floats": (with_y(y=np.zeros((6, 1))), "no list of class indices 0 to 255: got float64"),
    "labels in text": (with_y(y=np.array([["a"]] * 6)), "no list of class indices 0 to 255"),
    "every variable twice": (twice(SVHN.files["test_32x32.mat"]), "no uint8 images `X`"),
    "more images": (
        with_y(X=np.zeros((32, 32, 3, 7), np.uint8), y=np.zeros((7, 1), np.uint8)), "has 7 images, expected 6"
    ),
    "empty": (b"", "is not a whole MATLAB file"),
    "version 7.3": (b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM", "is not a whole MATLAB file: NotImplementedError"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), BAD_MATLAB.values(), ids=BAD_MATLAB.keys())
def test_a_matlab_file_of_something_else_is_refused_even_if_its_checksum_is_right(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(IMAGE_SETS, "svhn", replace(SVHN.entry, md5={}))
    source = folder_of(SVHN.files | {"test_32x32.mat": content}, tmp_path / "copy")
    assert_refused("svhn", source, message, tmp_path)


def test_more_images_than_expected_are_not_decompressed() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 3, 32, 32), np.uint8)
    many = matlab(pixels, np.zeros(1000, int))
    assert peak_of(lambda: read_svhn(many, 6, "it"), "has 1000 images, expected 6") < 1e6 < len(many)


@pytest.mark.parametrize(
    "call",
    [
        lambda mark: called(os.system, f"touch {mark}"),
        lambda mark: called(eval, f"open({str(mark)!r}, 'w')"),
        lambda mark: called(open, str(mark), "w"),
        lambda mark: called(getattr, called(__import__, "os"), "mkdir"),
        lambda mark: called(np.ndarray.tofile, np.zeros(3), str(mark)),
        lambda mark: np.dtype("O"),
        lambda mark: np.array([object()]),
    ],
    ids=["os.system", "eval", "open", "import", "tofile", "a type of objects", "an array of objects"],
)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(
    call: Callable[[Path], Any], protocol: int, tmp_path: Path
) -> None:
    mark = tmp_path / "it ran"
    content = {"data": np.zeros((6, 3072), np.uint8), "labels": [0] * 6, "extra": call(mark)}
    source = folder_of(CIFAR.files | {"test_batch": pickle.dumps(content, protocol)}, tmp_path / "copy")
    assert_refused(
        "cifar10", source, "`test_batch` in .* is refused: its pickle (wants to call|has an array)", tmp_path
    )
    assert not mark.exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_batch_is_read_whatever_pickled_it(protocol: int, order: str) -> None:
    rows = np.array(cifar_images.reshape(6, 3072), order=order)
    content = pickle.dumps({"data": rows, "labels": cifar_labels.tolist(), "filenames": ["a"] * 6}, protocol)
    for written in (content, content.replace(b"numpy._core", b"numpy.core")):
        pixels, labels = read_cifar(written if protocol < 4 else content, "labels", "it")
        assert np.array_equal(pixels, cifar_images)
        assert np.array_equal(labels, cifar_labels)


def test_a_batch_of_the_writers_is_what_python_reads() -> None:
    assert pickle.loads(batch(cifar_images, cifar_labels), encoding="latin1").keys() == {
        "batch_label", "labels", "data", "filenames",
    }  # fmt: skip


# What is wrong with a source


def peak_of(action: Callable[[], Any], message: str) -> int:
    """The most bytes that were allocated at once until DataError."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


MEGABYTES_100 = gzip.compress(bytes(2**20)) * 100  # several gzipped files in a row are one


def claiming_zip(path: Path, size: int) -> Path:
    """A zip archive whose listing gives its first file another size."""
    content = bytearray(zip_of(MNIST.files, path).read_bytes())
    struct.pack_into("<I", content, content.index(b"PK\1\2") + 24, size)
    path.write_bytes(content)
    return path


def encrypted_zip(path: Path) -> Path:
    content = bytearray(zip_of(MNIST.files, path).read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    return path


def named_zip(path: Path) -> Path:
    """A zip archive with a name that is not in the encoding it claims."""
    content = bytearray(zip_of({"é": b""} | MNIST.files, path).read_bytes())
    path.write_bytes(content.replace("é".encode(), b"\xff\xff"))
    return path


def tar_with(path: Path, form: int = tarfile.GNU_FORMAT, **fields: Any) -> Path:
    """A tar archive that begins with a member of such a header, and has nothing of it."""
    member = tarfile.TarInfo("train-images-idx3-ubyte")
    for name, value in fields.items():
        setattr(member, name, value)
    path.write_bytes(member.tobuf(form) + bytes(1024))
    return path


def changed(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path


BAD_SOURCES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda where: where / "nowhere", "no such file or folder: '.*nowhere'; name the package's"),
    "a name beyond every file system": (lambda where: where / ("x" * 5000), "no such file or folder"),
    "empty folder": (lambda where: folder_of({"a/b": b""}, where / "copy"), "it has none of its files"),
    "empty file": (lambda where: folder_of({"x": b""}, where / "copy") / "x", "it has none of its files"),
    "tgz truncated": (
        lambda where: changed(tar_of(MNIST.files, where / "x.tgz"), lambda content: content[: len(content) // 2]),
        "x.tgz' is damaged or cannot be read: Compressed file ended before",
    ),
    "tgz truncated at once": (
        lambda where: changed(tar_of(MNIST.files, where / "x.tgz"), lambda content: content[:5]), "is damaged or cannot"
    ),
    "tgz that is a page": (
        lambda where: folder_of({"x.tgz": b"<html>"}, where / "copy") / "x.tgz", "is damaged or cannot be read"
    ),
    "tgz with a changed byte": (
        lambda where: changed(tar_of(MNIST.files, where / "x.tgz"), lambda content: flipped(content, 9000)),
        "is damaged or cannot be read|has pixels of|other pixels",  # the checksum is behind the last file
    ),
    "tar truncated": (
        lambda where: changed(tar_of(MNIST.files, where / "x.tar", "w"), lambda content: content[:9000]),
        "is damaged or cannot be read: unexpected end of data",
    ),
    "tar with a changed byte": (
        lambda where: changed(tar_of(MNIST.files, where / "x.tar", "w"), lambda content: flipped(content, 9000)),
        "has pixels of|other pixels",
    ),
    "zip with a changed byte": (
        lambda where: changed(zip_of(MNIST.files, where / "x.zip"), lambda content: flipped(content, 9000)),
        "x.zip' is damaged or cannot be read",
    ),
    "stored zip with a changed byte": (
        lambda where: changed(
            zip_of(MNIST.files, where / "x.zip", zipfile.ZIP_STORED), lambda content: flipped(content, 9000)
        ),
        "damaged or cannot be read: Bad CRC-32",
    ),
    "zip truncated": (
        lambda where: changed(zip_of(MNIST.files, where / "x.zip"), lambda content: content[:-40]),
        "it has none of its files|is damaged",
    ),
    "zip encrypted": (lambda where: encrypted_zip(where / "x.zip"), "is damaged or cannot be read: .*encrypted"),
    "zip with a strange name": (lambda where: named_zip(where / "x.zip"), "cannot be read: 'utf-8' codec"),
    "zip that claims 3 GB": (
        lambda where: claiming_zip(where / "x.zip", 3 * 2**30), "claims to hold 32[0-9]+ bytes, more than"
    ),
    "zip that claims less than it has": (lambda where: claiming_zip(where / "x.zip", 100), "Bad CRC-32"),
    "tar that claims 10 GB": (
        lambda where: tar_with(where / "x.tar", size=10 * 2**30), "claims to hold 10737418240 bytes, more than"
    ),
    "tar that claims 10 GB of another file": (
        lambda where: tar_with(where / "x.tar", name="else", size=10 * 2**30), "claims to hold 10737418240 bytes"
    ),
    "tar with a name of 1 GB": (
        lambda where: tar_with(where / "x.tar", type=tarfile.GNUTYPE_LONGNAME, size=2**30), "tar header of 1073741824"
    ),
    "tar with attributes of 1 GB": (
        lambda where: tar_with(where / "x.tar", type=tarfile.XHDTYPE, size=2**30), "tar header of 1073741824 bytes"
    ),
    "tar that goes back": (lambda where: tar_with(where / "x.tar", size=-512), "tar header of -512 bytes"),
    "tar whose attributes go back": (
        lambda where: tar_with(where / "x.tar", tarfile.PAX_FORMAT, pax_headers={"size": "-512"}),
        "claims a file of -512 bytes",
    ),
    "gzipped file truncated": (
        lambda where: folder_of(
            gzipped(MNIST.files) | {f"{IMAGES}.gz": gzip.compress(MNIST.files[IMAGES])[:-9]}, where / "copy"
        ),
        "is damaged or cannot be read: Compressed file ended",
    ),
    "gzipped file with another checksum": (
        lambda where: folder_of(
            gzipped(MNIST.files) | {f"{IMAGES}.gz": flipped(gzip.compress(MNIST.files[IMAGES]), -6)}, where / "copy"
        ),
        "is damaged or cannot be read: CRC check failed",
    ),
    "file too long": (
        lambda where: folder_of(MNIST.files | {LABELS: bytes(2**21)}, where / "copy"), f"`{LABELS}` .* more than the"
    ),
    "two that differ": (
        lambda where: folder_of(inside("a", MNIST.files) | {f"b/{IMAGES}": b"x"}, where / "copy"),
        f"holds `{IMAGES}` twice, and they differ; name the folder of one copy",
    ),
    "two sets": (
        lambda where: folder_of(
            inside("MNIST/raw", MNIST.files) | inside("FashionMNIST/raw", SMALL["fashion-mnist"].files), where / "copy"
        ),
        "twice, and they differ",
    ),
    "two in an archive": (
        lambda where: zip_of({"a/" + IMAGES: b"x", "b/" + IMAGES: b"y"}, where / "x.zip"), "twice, and they differ"
    ),
    "a file missing": (
        lambda where: folder_of({name: MNIST.files[name] for name in MNIST.files if name != LABELS}, where / "copy"),
        f"lacks `{LABELS}` of mnist; it has `t10k-images-idx3-ubyte`, `train-images",
    ),
    "one file alone": (
        lambda where: folder_of(MNIST.files, where / "copy") / IMAGES,
        f"lacks `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `{LABELS}` of mnist; it has `{IMAGES}`. Name the",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), BAD_SOURCES.values(), ids=BAD_SOURCES.keys())
def test_a_bad_source_is_refused_before_anything_is_written(
    make: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    (tmp_path / "sources").mkdir()
    assert_refused("mnist", make(tmp_path / "sources"), message, tmp_path)


INCOMPLETE: dict[str, tuple[str, Files, str]] = {
    "a picture": ("test_batch.png", CIFAR.sprites, "lacks `test_batch.png` of cifar10; it has"),
    "a list of labels": (LIST["train"], CIFAR.sprites, "lacks `train_lables.json` of cifar10; it has"),
    "a batch": ("data_batch_3", CIFAR.files, "lacks `data_batch_3` of cifar10; it has"),
    "a name list": ("meta", SMALL["cifar100"].files, "lacks `meta` of cifar100; it has"),
    "a MATLAB file": ("train_32x32.mat", SVHN.files, "lacks `train_32x32.mat` of svhn; it has"),
}


@pytest.mark.parametrize(("file", "files", "message"), INCOMPLETE.values(), ids=INCOMPLETE.keys())
def test_an_incomplete_source_is_refused_with_what_it_lacks(
    file: str, files: Files, message: str, tmp_path: Path
) -> None:
    source = folder_of({name: files[name] for name in files if name != file}, tmp_path / "copy")
    assert_refused(message.split(" of ")[1].split(";")[0], source, message, tmp_path)


BOMBS: dict[str, Callable[[Path], Path]] = {
    "gzipped file": lambda where: folder_of({f"{IMAGES}.gz": MEGABYTES_100}, where / "copy"),
    "file": lambda where: folder_of({IMAGES: bytes(100 * 2**20)}, where / "copy"),
    "tgz": lambda where: tar_of({IMAGES: bytes(100 * 2**20)}, where / "x.tgz"),
    "zip": lambda where: zip_of({IMAGES: bytes(100 * 2**20)}, where / "x.zip"),
    "gzipped file in a zip": lambda where: zip_of({f"{IMAGES}.gz": MEGABYTES_100}, where / "x.zip"),
}


@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS.keys())
def test_of_a_file_that_expands_no_more_than_it_may_hold_is_read(make: Callable[[Path], Path], tmp_path: Path) -> None:
    source, root = make(tmp_path), tmp_path / "root"
    limit = 6 * (28 * 28 + 200) + 2**20
    message = f"`.*{IMAGES}(.gz)?` of .* holds more than the {limit} bytes it may"
    assert peak_of(lambda: import_dataset("mnist", source, root), message) < 10e6
    assert not root.exists()


@pytest.fixture(scope="module")
def archive_bytes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("archives")
    files = {"a/one": bytes(range(100)), "b/two": b"two"}
    return {
        "x.zip": zip_of(files, folder / "x.zip").read_bytes(),
        "x.tar": tar_of(files, folder / "x.tar", "w").read_bytes(),
        "x.tgz": tar_of(files, folder / "x.tgz").read_bytes(),
        "one.gz": gzip.compress(files["a/one"]),
    }


@given(data=st.data())
def test_a_damaged_archive_is_read_or_refused_and_nothing_else(
    archive_bytes: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(archive_bytes)))
    content = bytearray(archive_bytes[name])
    used = min(len(content), 2000)  # the rest of a tar is padding
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, used - 1), st.integers(0, 255)), max_size=4)):
        content[at] = value
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content[: data.draw(st.integers(0, used) | st.just(len(content)))])
    found, refusal = outcome_of(lambda: archives.read_files(path, {"one": 100, "two": 100}))
    assert "\n" not in refusal
    assert refusal or found.keys() <= {"one", "two"}
    assert refusal or all(len(part) <= 100 for part in found.values())


# A disk that is full, a root that cannot be written


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("good", range(2))
def test_a_full_disk_leaves_what_was_there_and_no_temporary_folder(
    call: str, good: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, root = folder_of(MNIST.files, tmp_path / "source"), tmp_path / "root"
    folder = import_dataset("mnist", source, root)
    before, real, calls = below(root), getattr(os, call), []

    def failing(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) > good:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*arguments)

    monkeypatch.setattr(os, call, failing)
    for where in (root, tmp_path / "bare"):
        calls.clear()
        with pytest.raises(DataError) as raised:
            import_dataset("mnist", source, where)
        assert str(raised.value) == (
            f"cannot write to {where / 'MNIST' / 'raw'}: No space left on device; free space there, or name another "
            "folder with --data-root or MLI_CHECK_DATA"
        )
    assert below(root) == before
    assert len([content for content in below(tmp_path / "bare").values() if content is not None]) <= good
    assert not [path for where in (root, tmp_path / "bare") for path in where.rglob("*") if ".import" in path.name]
    assert folder.is_dir()


@pytest.mark.parametrize("place", ["root", "root/MNIST", "root/MNIST/raw"])
def test_a_file_in_the_place_of_a_folder_is_an_error_and_stays(place: str, tmp_path: Path) -> None:
    source = folder_of(MNIST.files, tmp_path / "source")
    folder_of({place: b"a file"}, tmp_path / "disk")
    with pytest.raises(DataError, match=r"cannot write to .*MNIST/raw: .*name another folder with --data-root"):
        import_dataset("mnist", source, tmp_path / "disk" / "root")
    with pytest.raises(MissingDataError):
        load_dataset("mnist", root=tmp_path / "disk" / "root")
    assert (tmp_path / "disk" / place).read_bytes() == b"a file"


def test_another_name_is_unknown_before_the_source_is_looked_at(tmp_path: Path) -> None:
    for bring in (lambda name: import_dataset(name, tmp_path / "nowhere", tmp_path), lambda name: fetch_dataset(name)):
        with pytest.raises(UnknownNameError, match=r"unknown image dataset 'mnsit'\. Did you mean `mnist`?"):
            bring("mnsit")
        with pytest.raises(UnknownNameError, match="unknown image dataset 'digits'"):
            bring("digits")


# Loading what is missing or damaged


@every_set
def test_a_missing_set_is_an_error_with_the_commands_that_bring_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = tmp_path / "my data"
    with pytest.raises(MissingDataError, match=f"dataset '{name}' is not in {where} ") as raised:
        load_dataset(name, root=where)
    assert f"`mli-check data fetch {name} --data-root '{where}'`" in str(raised.value)
    assert f"`mli-check data import {name} PATH --data-root '{where}'`" in str(raised.value)
    monkeypatch.setenv("MLI_CHECK_DATA", str(where))
    with pytest.raises(MissingDataError) as again:
        load_dataset(name)
    assert str(again.value) == str(raised.value)
    assert not where.exists()


@every_set
def test_the_commands_name_no_folder_where_it_is_the_users_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLI_CHECK_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingDataError, match=f"`mli-check data fetch {name}`, or from .*import {name} PATH`"):
        load_dataset(name)


def test_a_set_with_a_file_missing_is_missing_and_its_other_part_is_not(tmp_path: Path) -> None:
    folder = import_dataset("mnist", folder_of(MNIST.files, tmp_path / "source"), tmp_path)
    (folder / LABELS).unlink()
    with pytest.raises(MissingDataError, match=f"no MNIST/raw/{LABELS}"):
        load_dataset("mnist", "test", tmp_path)
    assert len(load_dataset("mnist", "train", tmp_path)) == 20


def test_the_root_is_the_environments_unless_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLI_CHECK_DATA", str(tmp_path / "root"))
    folder = import_dataset("mnist", folder_of(MNIST.files, tmp_path / "source"))
    assert folder == tmp_path / "root" / "MNIST" / "raw"
    assert len(load_dataset("mnist")) == 6


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a changed byte": lambda content: flipped(content, len(content) * 2 // 3),
    "truncated": lambda content: content[:-100],
    "empty": lambda content: b"",
    "replaced": lambda content: b"<!DOCTYPE html>",
    "far too long": lambda content: content + bytes(3 * 2**20),
}


@every_set
@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_set_is_an_error_with_the_command_that_brings_it_again(
    name: str, change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    source, root = folder_of(SMALL[name].files, tmp_path / "source"), tmp_path / "root"
    folder = import_dataset(name, source, root)
    changed(folder / SMALL[name].entry.test.files[0], change)
    if name == "cifar10" and len(change(b"x" * 200)) > 200:  # what follows the end of a pickle is not read
        assert_loads(name, root)
        return
    with pytest.raises(DataError, match=f"dataset '{name}' is damaged: ") as raised:
        load_dataset(name, "test", root)
    assert not isinstance(raised.value, MissingDataError)
    assert str(raised.value).endswith(f"Bring it again with `mli-check data fetch {name} --data-root {root}`")
    assert len(load_dataset(name, "train", root)) == 20


# Fetching with torchvision's downloader


@dataclass
class Hosts:
    """In the place of torchvision's downloader: serves small files, or fails for addresses that begin so."""

    served: Files
    failing: dict[str, Exception]
    asked: list[tuple[str, str, str]]

    def download(self, url: str, root: Path, filename: str, md5: str) -> None:
        self.asked.append((url, filename, md5))
        for beginning, error in self.failing.items():
            if url.startswith(beginning):
                (Path(root) / filename).write_bytes(b"half a file")
                raise error
        (Path(root) / filename).write_bytes(self.served[filename])


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    return put_hosts(tmp_path, monkeypatch)


def put_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    served = gzipped(MNIST.files) | SVHN.files
    for name in ("cifar10", "cifar100"):
        entry = SMALL[name].entry
        archive = tar_of(inside(entry.folder, SMALL[name].files), tmp_path / f"{name}.tgz")
        served[getattr(torchvision.datasets, entry.torchvision).filename] = archive.read_bytes()
    made = Hosts(served, {}, [])
    monkeypatch.setattr("torchvision.datasets.utils.download_url", made.download)
    return made


def wanted_of(name: str) -> list[tuple[str, str, str]]:
    """What torchvision would download: addresses, file names and MD5."""
    kind = getattr(torchvision.datasets, SMALL[name].entry.torchvision)
    if name in ("mnist", "fashion-mnist"):
        return [(kind.mirrors[0] + file, file, md5) for file, md5 in kind.resources]
    if name == "svhn":
        return [tuple(kind.split_list[split]) for split in SPLITS]
    return [(kind.url, kind.filename, kind.tgz_md5)]


@every_set
def test_a_set_is_fetched_from_where_torchvision_has_it(name: str, hosts: Hosts, tmp_path: Path) -> None:
    hosts.served |= gzipped(SMALL[name].files)
    progress: list[tuple[int, int]] = []
    folder = fetch_dataset(name, tmp_path / "root", lambda done, total: progress.append((done, total)))
    assert hosts.asked == wanted_of(name)
    assert progress == [(index + 1, len(hosts.asked)) for index in range(len(hosts.asked))]
    assert_loads(name, tmp_path / "root")
    import_dataset(name, folder_of(SMALL[name].files, tmp_path / "source"), tmp_path / "imported")
    assert below(tmp_path / "root") == below(tmp_path / "imported")
    assert folder == tmp_path / "root" / SMALL[name].entry.folder


def test_where_the_first_mirror_fails_the_second_is_asked(hosts: Hosts, tmp_path: Path) -> None:
    first, second = torchvision.datasets.MNIST.mirrors
    hosts.failing[first] = URLError("no route to host")
    fetch_dataset("mnist", tmp_path / "root")
    files = [file for file, _ in torchvision.datasets.MNIST.resources]
    assert [address for address, _, _ in hosts.asked] == [mirror + file for file in files for mirror in (first, second)]
    assert_loads("mnist", tmp_path / "root")


FAILURES: dict[str, Exception] = {
    "no route": URLError("no route to host"),
    "another checksum": RuntimeError("File not found or corrupted."),
    "connection lost": ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    "transfer cut short": IncompleteRead(b"half"),
    "round in circles": RecursionError("exceeded 3 redirects"),
    "disk full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
}


@every_set
@pytest.mark.parametrize("error", FAILURES.values(), ids=FAILURES.keys())
def test_a_failed_fetch_names_every_address_and_the_way_around_and_leaves_nothing(
    name: str, error: Exception, hosts: Hosts, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    hosts.failing["http"] = error
    with pytest.raises(DataError, match=f"cannot download `.*` of {name} ") as raised:
        fetch_dataset(name, root)
    message = str(raised.value)
    kind = getattr(torchvision.datasets, SMALL[name].entry.torchvision)
    mirrors = kind.mirrors if name in ("mnist", "fashion-mnist") else [wanted_of(name)[0][0]]
    assert len(hosts.asked) == len(mirrors)
    assert all(f"{mirror}" in message for mirror in mirrors)
    assert str(error) in message
    assert f"`mli-check data import {name} PATH --data-root {root}`" in message or message.endswith(
        f"mli-check data import {name} PATH --data-root {root}"
    )
    assert below(root) == {}


def test_a_failed_fetch_leaves_an_earlier_import_as_it_was(hosts: Hosts, tmp_path: Path) -> None:
    import_dataset("mnist", folder_of(MNIST.files, tmp_path / "source"), tmp_path / "root")
    before = below(tmp_path / "root")
    hosts.failing[torchvision.datasets.MNIST.mirrors[0] + "t10k"] = URLError("gone")
    hosts.failing[torchvision.datasets.MNIST.mirrors[1] + "t10k"] = URLError("gone")
    with pytest.raises(DataError, match="cannot download `t10k-images"):
        fetch_dataset("mnist", tmp_path / "root")
    assert below(tmp_path / "root") == before


def test_what_was_fetched_is_checked_before_it_is_written(hosts: Hosts, tmp_path: Path) -> None:
    hosts.served |= gzipped({IMAGES: idx(dot)})
    with pytest.raises(DataError, match="other pixels or another order"):
        fetch_dataset("mnist", tmp_path / "root")
    assert below(tmp_path / "root") == {}


def test_a_fetch_to_a_root_that_cannot_be_written_asks_no_host(hosts: Hosts, tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(b"a file")
    with pytest.raises(DataError, match=r"cannot write to .*root: File exists; free space there"):
        fetch_dataset("mnist", tmp_path / "root")
    assert hosts.asked == []


# Every reader, on anything

READERS: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "idx": (lambda content: read_idx(content, "it"), idx(mnist_images[0, :3])),
    "cifar": (lambda content: read_cifar(content, "labels", "it"), batch(cifar_images[:1], cifar_labels[:1])),
    "our cifar": (
        lambda content: read_cifar(content, "labels", "it"),
        write_cifar(cifar_images[:1], cifar_labels[:1], "labels", ""),
    ),
    "svhn": (lambda content: read_svhn(content, 1, "it"), matlab(cifar_images[:1] & 1, cifar_labels[:1])),
    "sprite": (lambda content: read_sprite(content, 1, 32, "it"), png(cifar_images[:1] & 1)),
    "label list": (lambda content: read_label_list(content, "it"), b"[1, 2, 3, 0]"),
}  # fmt: skip
every_reader = pytest.mark.parametrize(("read", "valid"), READERS.values(), ids=READERS.keys())


@every_reader
def test_a_reader_reads_a_valid_file_and_refuses_it_truncated_at_any_byte(
    read: Callable[[bytes], Any], valid: bytes
) -> None:
    read(valid)
    for length in range(len(valid)):
        with pytest.raises(DataError, match=r"^it "):
            read(valid[:length])


@every_reader
@given(content=st.binary(max_size=300))
def test_a_reader_refuses_any_bytes_with_a_data_error(
    read: Callable[[bytes], Any], valid: bytes, content: bytes
) -> None:
    for given_bytes in (content, valid[:4] + content, valid[: len(valid) // 2] + content):
        _, refusal = outcome_of(partial(read, given_bytes))
        assert refusal == "" or refusal.startswith("it ")


@every_reader
@given(data=st.data())
def test_a_reader_reads_or_refuses_a_damaged_file_and_nothing_else(
    read: Callable[[bytes], Any], valid: bytes, data: st.DataObject
) -> None:
    content = bytearray(valid)
    places = st.integers(0, len(valid) - 1) | st.integers(0, min(len(valid), 300) - 1)
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)):
        content[at] = value
    _, refusal = outcome_of(lambda: read(bytes(content)))
    assert refusal == "" or refusal.startswith("it ")


@given(array=arrays(np.uint8, array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6)))
def test_an_idx_file_is_read_as_it_was_written(array: np.ndarray) -> None:
    read = read_idx(idx(array), "it")
    assert read.dtype == np.uint8
    assert read.shape == array.shape
    assert np.array_equal(read, array)


@given(
    labels=st.lists(st.integers(0, 255), max_size=4),
    seed=st.integers(0, 99),
    key=st.sampled_from(["labels", "fine_labels"]),
)
def test_a_cifar_batch_is_read_as_it_was_written(labels: list[int], seed: int, key: str) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3, 32, 32), np.uint8)
    content = write_cifar(pixels, np.array(labels, np.int64), key, "training batch 1 of 5")
    read, found = read_cifar(content, key, "it")
    assert np.array_equal(read, pixels)
    assert found.dtype == np.int64
    assert found.tolist() == labels
    plain = pickle.loads(content, encoding="latin1")
    assert np.array_equal(plain["data"], pixels.reshape(len(labels), 3072))
    assert plain[key] == labels


@pytest.mark.parametrize("options", [{}, {"do_compression": False}], ids=["compressed", "plain"])
def test_svhns_label_10_is_the_digit_0(options: dict[str, Any]) -> None:
    labels = np.array([0, 1, 9, 0, 5, 2])
    pixels, found = read_svhn(matlab(cifar_images, labels, **options), 6, "it")
    assert np.array_equal(pixels, cifar_images)
    assert found.tolist() == labels.tolist()
    assert pixels.flags.c_contiguous


# The real files, where they are

FIRST = {"mnist": [7, 2, 1, 0, 4], "fashion-mnist": [9, 2, 1, 1, 6], "cifar10": [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]}


@pytest.mark.usefixtures("real_records")
@pytest.mark.parametrize("name", FIRST)
def test_the_real_set_is_what_torchvision_has(name: str) -> None:
    for split in SPLITS:
        try:
            data = load_dataset(name, split)
        except MissingDataError as error:
            pytest.skip(str(error))
        pixels, labels = by_torchvision(name, split, locations.data_root())
        assert np.array_equal(data.inputs.numpy(), pixels)
        assert np.array_equal(data.targets.numpy(), labels)
        assert isinstance(data.normalisation, Normalisation)
        if split == "train":
            levels = pixels.mean((0, 2, 3)) / 255
            assert data.normalisation.mean == tuple(levels.round(4))
    assert data.targets[: len(FIRST[name])].tolist() == FIRST[name]
