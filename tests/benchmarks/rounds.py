"""Competitors that take turns round by round, timed with the device waited for."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from benchmarks.table import Row

OURS = "ours"
Runner = Callable[[], Any]


@dataclass
class Race:
    """The seconds that everyone took in every round, and what each one's last run returned."""

    device: str
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    results: dict[str, Any] = field(default_factory=dict)

    def run(self, name: str, runner: Runner) -> float:
        """Run one competitor and return its seconds; a GPU has finished before the clock starts and stops."""
        synchronise(self.device)
        started = time.perf_counter()
        self.results[name] = runner()
        synchronise(self.device)
        return time.perf_counter() - started

    @property
    def ours(self) -> list[float]:
        """Our seconds."""
        return self.seconds[OURS]

    @property
    def last_of_ours(self) -> Any:
        """What our last run returned."""
        return self.results[OURS]

    def row(self, workload: str, name: str, note: str = "") -> Row:
        """The table's row of a competitor."""
        return Row(
            workload=workload,
            device=self.device,
            against=name,
            ours=median(self.ours),
            theirs=median(self.seconds[name]),
            ratios=[theirs / own for theirs, own in zip(self.seconds[name], self.ours, strict=True)],
            note=note,
        )


def synchronise(device: str) -> None:
    """Wait until a GPU has done what it was given; a CPU has."""
    if device == "cuda":
        torch.cuda.synchronize()


def race(
    benchmark: Any, device: str, ours: Runner, others: Mapping[str, Runner], rounds: int, *, around: bool = False
) -> Race:
    """Time ours and the others in turns; pytest-benchmark keeps the record of ours.

    In each round the others run one after another and then ours. With `around` they run once more after ours, and the
    mean of both counts: for rounds so long that a machine may change within one. Disabled benchmarks run one round.
    """
    found = Race(device)

    def theirs() -> None:
        for name, runner in others.items():
            found.seconds[name].append(found.run(name, runner))

    def again() -> None:
        for name, runner in others.items():
            found.seconds[name][-1] = (found.seconds[name][-1] + found.run(name, runner)) / 2

    def own() -> None:
        found.ours.append(found.run(OURS, ours))

    benchmark.pedantic(own, setup=theirs, teardown=again if around else None, rounds=rounds)
    return found
