"""Tests of the verdicts on one amount over networks, and of the stratified difference behind one of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mli_check.errors import OptionError
from mli_check.statistics import Verdict, mean_interval, stratified_difference, wilson
from mli_check.verdicts import Figure, Ruling, at_least, at_most, larger_within, undecided, usually

REPRODUCED, NOT, OPEN = Verdict.REPRODUCED, Verdict.NOT_REPRODUCED, Verdict.INCONCLUSIVE
Strata = dict[str, tuple[list[float], list[float]]]
numbers = st.floats(-100, 100)
sides = st.lists(numbers, min_size=1, max_size=5)


def by_least_squares(strata: list[tuple[list[float], list[float]]]) -> tuple[float, float, float]:
    """The same difference as the coefficient of a linear model with a dummy for each stratum."""
    rows, values = [], []
    for index, both in enumerate(strata):
        for kind, side in enumerate(both):
            for value in side:
                rows.append([1.0 - kind] + [float(index == other) for other in range(len(strata))])
                values.append(value)
    design, target = np.array(rows), np.array(values)
    coefficients, *_ = np.linalg.lstsq(design, target, rcond=None)
    free = len(target) - design.shape[1]
    variance = ((target - design @ coefficients) ** 2).sum() / free * np.linalg.inv(design.T @ design)[0, 0]
    half = stats.t.ppf(0.975, free) * np.sqrt(variance)
    return coefficients[0], coefficients[0] - half, coefficients[0] + half


@given(strata=st.lists(st.tuples(sides, sides), min_size=1, max_size=4))
def test_a_stratified_difference_is_that_of_a_linear_model(strata: list[tuple[list[float], list[float]]]) -> None:
    total = sum(len(side) for both in strata for side in both)
    if total < len(strata) + 2:
        with pytest.raises(OptionError, match="more values than strata"):
            stratified_difference(strata)
        return
    found = stratified_difference(strata)
    assert (found.estimate, found.low, found.high) == pytest.approx(by_least_squares(strata), abs=1e-6)
    assert found.n == total


def test_one_stratum_gives_students_test_of_two_samples() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 1, 12), rng.normal(0, 1, 9)
    found = stratified_difference([(first, second)])
    wanted = stats.ttest_ind(first, second).confidence_interval()
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_a_stratified_difference_forgets_what_strata_differ_in() -> None:
    strata = [([1.0, 2.0], [0.0, 1.5]), ([3.0], [2.5, 1.0])]
    shifted = [([v + 10 * i for v in a], [v + 10 * i for v in b]) for i, (a, b) in enumerate(strata)]
    assert stratified_difference(shifted).estimate == pytest.approx(stratified_difference(strata).estimate)


@pytest.mark.parametrize("strata", [[], [([1.0], [])], [([1.0, 2.0], [float("nan"), 1.0])], [([1.0], [2.0])]])
def test_a_stratified_difference_refuses_what_it_cannot_estimate(strata: list[tuple[list[float], list[float]]]) -> None:
    with pytest.raises(OptionError, match="finite values on both sides of every stratum"):
        stratified_difference(strata)


# at_most


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.02, 0.03] * 5, REPRODUCED),
        ([0.05] * 10, REPRODUCED),
        ([0.2, 0.3] * 5, NOT),
        ([0.0, 0.1] * 5, OPEN),
        ([0.02] * 9, OPEN),
        ([float("inf")] + [0.02] * 9, OPEN),
        ([], OPEN),
    ],
)
def test_at_most_wants_the_whole_interval_on_one_side(values: list[float], verdict: Verdict) -> None:
    assert at_most(values, 0.05, "size").verdict is verdict


@given(values=st.lists(st.floats(0, 1), min_size=10, max_size=30), limit=st.floats(0, 1))
def test_at_most_follows_the_interval(values: list[float], limit: float) -> None:
    found, interval = at_most(values, limit, "size"), mean_interval(values)
    assert found.verdict is (REPRODUCED if interval.high <= limit else NOT if interval.low > limit else OPEN)
    assert found.needed is None or found.verdict is OPEN
    assert found.figure.value == interval.estimate


def test_at_most_says_how_many_networks_would_decide() -> None:
    few = [0.0, 0.08] * 5
    needed = at_most(few, 0.05, "size").needed
    assert needed is not None
    assert at_most([0.0, 0.08] * (needed // 2 + 2), 0.05, "size").verdict is REPRODUCED


def test_at_most_gives_the_mean_of_too_few_networks_and_how_many_it_wants() -> None:
    found = at_most([0.1, 0.3, float("nan")], 0.5, "size")
    assert (found.verdict, found.figure.value, found.needed) == (OPEN, pytest.approx(0.2), 10)
    assert found.reason == "2 of 3 networks have a finite value; all must, and at least 10"
    assert at_most([float("nan")] + [0.1] * 10, 0.5, "size").needed is None


# at_least


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.4, 0.5] * 5, REPRODUCED),
        ([0.25] * 10, REPRODUCED),
        ([0.1, 0.11] * 5, NOT),
        ([0.0, 0.6] * 5, OPEN),
        ([0.3] * 9, OPEN),
        ([float("nan")] + [0.3] * 9, OPEN),
        ([], OPEN),
    ],
)
def test_at_least_wants_the_whole_interval_on_one_side(values: list[float], verdict: Verdict) -> None:
    assert at_least(values, 0.25, "size").verdict is verdict


@given(values=st.lists(st.floats(0, 1), min_size=10, max_size=30), limit=st.floats(0, 1))
def test_at_least_follows_the_interval(values: list[float], limit: float) -> None:
    found, interval = at_least(values, limit, "size"), mean_interval(values)
    assert found.verdict is (REPRODUCED if interval.low >= limit else NOT if interval.high < limit else OPEN)
    assert found.needed is None or found.verdict is OPEN
    assert found.figure.value == interval.estimate


@given(values=st.lists(st.floats(-1, 1), max_size=30), limit=st.floats(-1, 1))
def test_at_least_is_at_most_seen_from_below(values: list[float], limit: float) -> None:
    found, mirrored = at_least(values, limit, "size"), at_most([-value for value in values], -limit, "size")
    assert (found.verdict, found.needed) == (mirrored.verdict, mirrored.needed)


def test_at_least_says_on_which_side_of_the_limit_the_mean_lies() -> None:
    assert at_least([0.3] * 10, 0.02, "size").reason.endswith("is at least 0.3, no less than 0.02")
    assert at_least([0.01] * 10, 0.02, "size").reason.endswith("is at most 0.01, short of 0.02")


def test_at_least_says_how_many_networks_would_decide() -> None:
    needed = at_least([0.0, 0.08] * 5, 0.03, "size").needed
    assert needed is not None
    assert at_least([0.0, 0.08] * (needed // 2 + 2), 0.03, "size").verdict is REPRODUCED


# usually


@pytest.mark.parametrize(("count", "verdict"), [(100, REPRODUCED), (97, REPRODUCED), (92, OPEN), (80, NOT), (0, NOT)])
def test_usually_follows_wilsons_interval(count: int, verdict: Verdict) -> None:
    found = usually([True] * count + [False] * (100 - count), 0.9, "share")
    assert found.verdict is verdict
    interval = wilson(count, 100)
    assert (found.figure.value, found.figure.low, found.figure.high) == (
        interval.estimate, interval.low, interval.high,
    )  # fmt: skip


@pytest.mark.parametrize(("holding", "draws", "share"), [(3, 13, 0.5), (22, 25, 0.85), (9, 10, 0.8)])
def test_as_many_draws_as_needed_decide(holding: int, draws: int, share: float) -> None:
    needed = usually([True] * holding + [False] * (draws - holding), share, "share").needed
    assert needed is not None
    assert needed > draws
    times = -(-needed // draws)
    assert usually(([True] * holding + [False] * (draws - holding)) * times, share, "share").verdict is not OPEN


def test_a_share_on_the_limit_is_never_decided() -> None:
    assert usually([True, False] * 5, 0.5, "share").needed is None


def test_no_draws_leave_usually_open() -> None:
    assert usually([], 0.9, "share").verdict is OPEN


# larger_within

WIDE, NARROW = [1.0, 1.1, 1.2, 1.3], [0.0, 0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("strata", "verdict"),
    [
        ({"a": (WIDE, NARROW), "b": (WIDE, NARROW)}, REPRODUCED),
        ({"a": (NARROW, WIDE), "b": (NARROW, WIDE)}, NOT),
        ({"a": (NARROW, NARROW), "b": (WIDE, WIDE)}, OPEN),
        ({"a": (WIDE * 9, NARROW * 9), "b": (NARROW, WIDE)}, REPRODUCED),
        ({"a": (WIDE, []), "b": ([], NARROW)}, OPEN),
        ({"a": (WIDE[:2], NARROW * 3)}, OPEN),
        ({"a": (WIDE, NARROW)}, OPEN),
        ({"a": ([float("nan"), *WIDE], NARROW * 3)}, OPEN),
        ({}, OPEN),
    ],
    ids=["wider", "narrower", "equal", "mostly wider", "apart", "two of a kind", "eight in all", "not finite", "none"],
)
def test_larger_within_compares_within_strata_only(strata: Strata, verdict: Verdict) -> None:
    assert larger_within(strata, 0.1, "width").verdict is verdict


def test_a_difference_between_strata_alone_is_no_difference_within() -> None:
    between = {"small": (NARROW[:1], NARROW * 3), "large": ([5 + v for v in NARROW] * 3, [5 + v for v in NARROW[:1]])}
    assert larger_within(between, 0.1, "width").verdict is not REPRODUCED


# undecided


@pytest.mark.parametrize("verdict", list(Verdict))
def test_an_undecided_ruling_keeps_its_figure_and_says_what_it_would_be(verdict: Verdict) -> None:
    ruling = Ruling(verdict=verdict, reason="so it is", figure=Figure(label="f", value=1.0), needed=3, needed_unit="n")
    found = undecided(ruling)
    assert (found.verdict, found.figure, found.needed) == (OPEN, ruling.figure, None)
    assert found.reason.endswith(f"it would be {verdict}: so it is")
