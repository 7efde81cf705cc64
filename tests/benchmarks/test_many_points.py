"""A plane and a hundred noises, where the loop is timed on a random part and extrapolated."""

from __future__ import annotations

from typing import Any

import numpy as np

import mli_check as mli
from benchmarks import work
from benchmarks.bars import LOOP, NOISES, PLANE, SHALLOW
from benchmarks.rounds import Race, race
from benchmarks.table import Report
from benchmarks.work import Size

SMALL, LARGE = "the loop, small part", "the loop, large part"


def test_a_plane_costs_a_fraction_of_the_loop(size: Size, report: Report, benchmark: Any) -> None:
    """Timed: ours at all 51 x 51 cells of a plane through 784-1024-10, 10,000 images. The loop is timed on random
    3 x 3 and 7 x 7 subgrids before and after; what 40 cells more take is what a cell takes, so that what a call costs
    once is not multiplied. A cell's cost does not depend on where it is.
    """
    test = work.Pictures.drawn(size.examples, 28, work.MNIST)
    job = work.draw(work.connected(SHALLOW), test, "cpu")
    plane, data = mli.Plane(job.final, work.noise(job.final, seed=1)), test.data
    alphas, betas = np.linspace(0, 1, size.side), np.linspace(-1, 1, size.side)
    generator = np.random.default_rng(0)

    def loop(side: int) -> Any:
        rows, columns = (np.sort(generator.choice(size.side, side, replace=False)) for _ in range(2))
        part = {"alphas": alphas[rows], "betas": betas[columns], "engine": "loop"}
        return rows, columns, mli.evaluate(job.model, plane, data, **part)

    few, many = size.sampled
    found = race(
        benchmark,
        "cpu",
        lambda: mli.evaluate(job.model, plane, data, alphas=alphas, betas=betas),
        {SMALL: lambda: loop(few), LARGE: lambda: loop(many)},
        rounds=1,
        around=True,
    )
    rows, columns, surface = found.results[LARGE]
    whole = found.last_of_ours
    np.testing.assert_allclose(surface.loss, whole.loss[np.ix_(rows, columns)], rtol=1e-4)
    np.testing.assert_allclose(surface.error, whole.error[np.ix_(rows, columns)], atol=3.5 / size.examples)
    extrapolate(found, few**2, many**2, size.side**2)
    note = f"{size.side**2} cells, one round; the loop extrapolated from random grids of {few**2} and {many**2} cells"
    report([found.row(PLANE, LOOP, note)])


def test_a_hundred_noises_cost_a_fraction_of_the_loop(size: Size, report: Report, benchmark: Any) -> None:
    """Timed: ours over 51 points from each of 100 noises to one network 784-1024-10, 10,000 images. The loop is timed
    on the first noise and on the first two before and after, and extrapolated by what the second one's points take;
    all lines end in the same state, which is evaluated once.
    """
    test = work.Pictures.drawn(size.examples, 28, work.MNIST)
    job = work.draw(work.connected(SHALLOW), test, "cpu")
    paths = [mli.LinearPath(work.noise(job.final, seed), job.final) for seed in range(size.noises)]
    data = test.data
    found = race(
        benchmark,
        "cpu",
        lambda: mli.evaluate_many(job.model, paths, data, size.points),
        {
            SMALL: lambda: mli.evaluate_many(job.model, paths[:1], data, size.points, engine="loop"),
            LARGE: lambda: mli.evaluate_many(job.model, paths[:2], data, size.points, engine="loop"),
        },
        rounds=1,
        around=True,
    )
    for own, other in zip(found.last_of_ours, found.results[LARGE], strict=False):
        np.testing.assert_allclose(other.loss, own.loss, rtol=1e-4)
        np.testing.assert_allclose(other.error, own.error, atol=3.5 / size.examples)
    one = size.points - 1
    extrapolate(found, one + 1, 2 * one + 1, size.noises * one + 1)
    note = f"{size.noises * one + 1} points, one round; the loop extrapolated from one noise and two"
    report([found.row(NOISES, LOOP, note)])


def extrapolate(found: Race, few: int, many: int, all_of_them: int) -> None:
    """Give the race the loop's seconds for all points: those of the large part, and the others at the points' rate."""
    small, large = found.seconds[SMALL], found.seconds[LARGE]
    each = [(long - short) / (many - few) for short, long in zip(small, large, strict=True)]
    found.seconds[LOOP] = [long + (all_of_them - many) * one for long, one in zip(large, each, strict=True)]
