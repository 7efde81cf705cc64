"""Progress of long work: a callable (done, total), drawn as a bar with the time left where a person watches."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int], None]


def bar(label: str) -> Progress:
    """A bar on standard error that closes itself when `done` reaches `total`; silent where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    drawn = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    task = drawn.add_task(label)

    def advance(done: int, total: int) -> None:
        if not drawn.live.is_started and done < total:
            drawn.start()
        drawn.update(task, completed=done, total=total)
        if done >= total:
            drawn.stop()

    return advance
