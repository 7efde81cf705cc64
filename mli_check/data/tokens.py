"""Texts as token ids of one length, by the tokenizers that pre-trained encoders come with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mli_check.data import weights
from mli_check.errors import DataError

Ids: TypeAlias = NDArray[np.uint16]

PADDING = {"minilm": 0, "roberta": 1}  # the id that fills up short texts, by the model that reads them


def token_ids(texts: Sequence[str], model: str, length: int, root: Path | None = None) -> Ids:
    """The first `length` tokens of each text for `minilm` or `roberta`, (n, length), padded; ids are below 65,536.

    The marks for begin and end of a text count as tokens. Raises MissingDataError without the package `tokenizers` or
    the model's vocabulary, with what brings them, and DataError for a vocabulary that is damaged.
    """
    tokenizer = _word_pieces() if model == "minilm" else _byte_pairs(root)
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=PADDING[model])
    found = tokenizer.encode_batch(list(texts))
    return np.array([encoding.ids for encoding in found], np.uint16).reshape(-1, length)


def _word_pieces() -> Any:
    """MiniLM's own tokenizer, lower case."""
    tokenizers = weights.library("tokenizers", "reading texts")
    return tokenizers.Tokenizer.from_file(str(weights.find("minilm", "tokenizer")))


def _byte_pairs(root: Path | None) -> Any:
    """RoBERTa's byte-level tokenizer, from its vocabulary and merges."""
    tokenizers = weights.library("tokenizers", "reading texts")
    vocabulary, merges = (weights.find("roberta", use, root) for use in ("vocabulary", "merges"))
    try:
        ids = json.loads(vocabulary.read_text(encoding="utf-8"))
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(str(vocabulary), str(merges)))
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        ends = (("</s>", ids["</s>"]), ("<s>", ids["<s>"]))
        tokenizer.post_processor = tokenizers.processors.RobertaProcessing(*ends, add_prefix_space=False)
    except Exception as error:  # the library raises Exception itself
        raise DataError(f"{vocabulary} and {merges} are not RoBERTa's: {error}; bring them again") from error
    return tokenizer
