"""The rows of a dataset, in blocks that halve where a device runs out of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


class Batches:
    """Slices of `count` rows, at most `size` at a time and even; they shrink for good when memory runs out."""

    def __init__(self, count: int, size: int) -> None:
        blocks = -(-count // size)
        self.count, self.halved = count, False
        self.size: int = -(-count // blocks)

    def __iter__(self) -> Iterator[slice]:
        start = 0
        while start < self.count:
            stop = min(start + self.size, self.count)
            yield slice(start, stop)
            start = stop

    def visit(
        self,
        rows: slice,
        items: Sequence[T],
        step: Callable[[slice, T], None],
        *,
        begin: Callable[[slice], None] | None = None,
        after: Callable[[slice], None] | None = None,
    ) -> None:
        """`begin` once, then `step` and `after` for every item, on all of `rows`.

        What runs out of memory in `begin` or `step` goes on with halves of the rows; no item's rows are taken twice.
        Raises torch.OutOfMemoryError where a single row does not fit.
        """
        done = 0
        try:
            if begin is not None:
                begin(rows)
            for item in items:
                step(rows, item)
                done += 1
                if after is not None:
                    after(rows)
            return
        except torch.OutOfMemoryError:
            length = rows.stop - rows.start
            if length == 1:
                raise
            self.size, self.halved = min(self.size, -(-length // 2)), True
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        start = rows.start
        while start < rows.stop:  # the size may shrink on the way
            part = slice(start, min(start + self.size, rows.stop))
            self.visit(part, items[done:], step, begin=begin, after=after)
            start = part.stop

    @property
    def notes(self) -> tuple[str, ...]:
        """What a record should say about the blocks."""
        return (f"out of memory: went on with batches of {self.size}",) if self.halved else ()
