"""Text as Markdown: characters that it would read as markup are escaped, tables keep one line a row."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SPECIAL = re.compile(r"([\\`*_\[\]<|~$&])")
_SPACE = re.compile(r"[^\S\u00a0\u202f]+")  # but the spaces that hold a number and its unit together


def escape(text: str) -> str:
    """`text` on one line, such that a reader of the rendered page sees exactly its characters.

    Beside the markup of CommonMark these are the table's bar, GitHub's formulas ($) and pictograms (:name:), and what
    opens a list, a heading or a quotation where a line begins.
    """
    plain = _SPECIAL.sub(r"\\\1", _SPACE.sub(" ", text).strip(" "))
    plain = re.sub(r":(?=[\w+-]+:)", r"\:", plain)
    plain = re.sub(r"^(\d+)([.)])", r"\1\\\2", plain)
    return re.sub(r"^([-+=>#])", r"\\\1", plain)


def code(text: str) -> str:
    """`text` as code, for names and commands in and outside tables."""
    inner = _SPACE.sub(" ", text).strip(" ").replace("|", r"\|")
    longest = max((len(run) for run in re.findall("`+", inner)), default=0)
    fence, pad = "`" * (longest + 1), " " if inner.startswith("`") or inner.endswith("`") else ""
    return f"{fence}{pad}{inner}{pad}{fence}"


def anchor(name: str) -> str:
    """A place on the page that `[...](#name)` leads to."""
    return f'<a id="{name}"></a>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose cells are Markdown already."""
    return [_row(head), "|" + "---|" * len(head), *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
