"""AG News (Zhang et al. 2015): title and description of each piece of news as one text."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from mli_check.data.archives import read_files
from mli_check.data.prepared import Part, get
from mli_check.data.tokens import token_ids
from mli_check.errors import DataError

_MOST_BYTES = 2**26  # of a file; the larger one has 29 MB


def read_news(source: Path, root: Path | None = None) -> dict[str, Part]:
    """Training and test set from train.csv and test.csv: token ids for `roberta`, and labels from 0.

    A line has a class from 1 to 4, a title and a description, and no header is above them. Raises DataError for files
    that are missing or of another form, and what `token_ids` raises.
    """
    entry = get("ag-news")
    found = read_files(source, dict.fromkeys(("train.csv", "test.csv"), _MOST_BYTES))
    parts = {}
    for split in ("train", "test"):
        if f"{split}.csv" not in found:
            raise DataError(f"{str(source)!r} lacks `{split}.csv` of {entry.name}; name the folder or archive of both")
        texts, labels = _rows(found[f"{split}.csv"], entry.classes, f"`{split}.csv` in {str(source)!r}")
        parts[split] = token_ids(texts, "roberta", entry.shape[0], root), np.array(labels, np.int64)
    return parts


def _rows(content: bytes, classes: int, where: str) -> tuple[list[str], list[int]]:
    texts, labels = [], []
    try:
        for number, row in enumerate(csv.reader(io.StringIO(content.decode("utf-8"), newline="")), start=1):
            if len(row) != 3 or row[0] not in map(str, range(1, classes + 1)):
                raise DataError(f"{where}, row {number}: expected a class 1 to {classes}, a title and a description")
            labels.append(int(row[0]) - 1)
            texts.append(f"{row[1]} {row[2]}".replace("\\", " "))  # the files have backslashes for line ends
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where} cannot be read: {error}") from error
    return texts, labels
