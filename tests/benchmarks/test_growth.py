"""How our cost grows with points, examples and basis states."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import mli_check as mli
from benchmarks import work
from benchmarks.bars import SHALLOW
from benchmarks.rounds import Runner, race
from benchmarks.table import Growth, Report
from benchmarks.work import Size


def measured(benchmark: Any, runs: dict[int, Runner], rounds: int, of: str, setting: str) -> Growth:
    """The median seconds of every size; the sizes take turns, and the largest is what pytest-benchmark records."""
    runs[min(runs)]()  # warm
    largest = max(runs)
    others = {str(number): run for number, run in runs.items() if number != largest}
    found = race(benchmark, "cpu", runs[largest], others, rounds)
    seconds: Sequence[list[float]] = [found.seconds[name] for name in others] + [found.ours]
    return Growth(of=of, setting=setting, sizes=list(runs), seconds=[median(each) for each in seconds])


def test_the_cost_of_points_is_written_down(size: Size, report: Report, benchmark: Any) -> None:
    """Timed: 11 to 201 points of 784-1024-10 on 10,000 images."""
    test = work.Pictures.drawn(size.examples, 28, work.MNIST)
    job = work.draw(work.connected(SHALLOW), test, "cpu")
    runs = {n: lambda n=n: mli.evaluate(job.model, job.path, test.data, n) for n in size.growing_points}
    report(growths=[measured(benchmark, runs, size.rounds, "points", f"{SHALLOW}, {size.examples} images")])


def test_the_cost_of_examples_is_written_down(size: Size, report: Report, benchmark: Any) -> None:
    """Timed: 51 points of 784-1024-10 on 1,000 to 20,000 images."""
    test = work.Pictures.drawn(max(size.growing_examples), 28, work.MNIST)
    job, data = work.draw(work.connected(SHALLOW), test, "cpu"), test.data
    parts = {n: data.subset(n) for n in size.growing_examples}
    runs = {n: lambda part=part: mli.evaluate(job.model, job.path, part, size.points) for n, part in parts.items()}
    report(growths=[measured(benchmark, runs, size.rounds, "examples", f"{SHALLOW}, {size.points} points")])


def test_the_cost_of_basis_states_is_written_down(size: Size, report: Report, benchmark: Any) -> None:
    """Timed: lines from 1 to 32 noises to one network 784-1024-10, 21 points each, on 2,000 images."""
    points, examples = size.many
    test = work.Pictures.drawn(examples, 28, work.MNIST)
    job, data = work.draw(work.connected(SHALLOW), test, "cpu"), test.data
    paths = [mli.LinearPath(work.noise(job.final, seed), job.final) for seed in range(max(size.growing_noises))]
    runs = {n: lambda n=n: mli.evaluate_many(job.model, paths[:n], data, points) for n in size.growing_noises}
    setting = f"{SHALLOW}, {points} points a noise, {examples} images"
    report(growths=[measured(benchmark, runs, size.rounds, "noises", setting)])
