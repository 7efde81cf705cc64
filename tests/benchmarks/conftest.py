"""Sizes for the benchmarks, and the table of ratios at the end of a run that measured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from benchmarks.bars import BARS
from benchmarks.table import Growth, Report, Row, Table
from benchmarks.work import FULL, TINY, Size

TABLE = pytest.StashKey[Table]()


@pytest.fixture
def size(benchmark: Any) -> Iterator[Size]:
    """How much work there is: the full one only where benchmarks are enabled.

    Tiny work keeps to one thread: threads that wait for each other on busy cores take longer than what they do.
    """
    if benchmark.enabled:
        yield FULL
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield TINY
    torch.set_num_threads(threads)


@pytest.fixture
def report(benchmark: Any, request: pytest.FixtureRequest) -> Report:
    """Takes rows and growths into the table and the JSON record, then fails for rows that miss their bar.

    Does nothing where benchmarks are disabled, since what tiny sizes take means nothing.
    """

    def take(rows: list[Row] | None = None, growths: list[Growth] | None = None) -> None:
        if not benchmark.enabled:
            return
        rows, growths = rows or [], growths or []
        table = request.config.stash.setdefault(TABLE, Table())
        table.rows += rows
        table.growths += growths
        if rows:
            benchmark.extra_info["rows"] = [row.record() for row in rows]
        if growths:
            benchmark.extra_info["growths"] = [growth.record() for growth in growths]
        missed = [row for row in rows if row.verdict == "missed"]
        if missed:
            told = "; ".join(f"{row.against}: {row.ratio:.3g}, the bar is {BARS[row.key]:g}" for row in missed)
            pytest.fail(f"{missed[0].workload} on {missed[0].device} missed {told}", pytrace=False)

    return take


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table, if there is one."""
    table = config.stash.get(TABLE, None)
    if table is None:
        return
    terminalreporter.section("ratios to what else computes the same curves (medians of the rounds' ratios)")
    machine = f"torch {torch.__version__}, {torch.get_num_threads()} threads on {os.cpu_count()} cores"
    if hasattr(os, "getloadavg"):
        machine += f", load averages {', '.join(f'{load:.1f}' for load in os.getloadavg())} at the end"
    if torch.cuda.is_available():
        machine += f", {torch.cuda.get_device_name()}"
    terminalreporter.write_line(machine)
    for line in table.lines():
        terminalreporter.write_line(line)
