"""Tests of the rise test, intervals and matched proportions."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from helpers import module_at
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from mli_check.errors import OptionError
from mli_check.statistics import (
    RiseTest,
    Verdict,
    mean_interval,
    paired_proportions,
    rank_correlation,
    rise_test,
    wilson,
)

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

POINTS = 51
FAST = {"replicates": 200}  # of the bootstrap, where its precision does not matter


def step_curve(*knots: tuple[int, float]) -> NDArray[np.floating]:
    points, values = zip(*knots, strict=True)
    return np.interp(np.arange(POINTS), points, values)


def sample(curve: NDArray[np.floating], examples: int, seed: int = 0) -> NDArray[np.floating]:
    """Errors per example with means `curve`: one difficulty each, so none changes where it is flat."""
    difficulty = np.random.default_rng(seed).random(examples)
    return (difficulty[:, None] < curve).astype(np.float64)


def unbalanced_labels(examples: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).choice(4, size=examples, p=[0.55, 0.25, 0.12, 0.08])


def paired_rises(errors: NDArray[np.floating], labels: NDArray[np.int64]) -> dict[tuple[int, int], tuple[float, float]]:
    """D_ij and SE_ij of every pair from the textbook formula of a stratified mean, one pair and class at a time."""
    names, found = np.unique(labels), {}
    smallest = min(int(np.sum(labels == name)) for name in names)
    pseudo_count = math.sqrt(2) / (len(names) * smallest)
    for i, j in combinations(range(errors.shape[1]), 2):
        rise = variance = 0.0
        for name in names:
            change = errors[labels == name, j] - errors[labels == name, i]
            rise += change.mean() / len(names)
            variance += change.var(ddof=1) / len(change) / len(names) ** 2
        found[i, j] = rise, math.sqrt(variance + pseudo_count**2)
    return found


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    path = Path(__file__).parents[1] / "scripts" / "simulate_rise_test.py"
    return module_at(path, "simulate_rise_test")


# What the figures are


@pytest.mark.parametrize("seed", range(5))
def test_rises_and_bounds_match_the_textbook_formula_pair_by_pair(seed: int) -> None:
    labels = unbalanced_labels(120, seed)
    errors = np.random.default_rng(seed).choice([0.0, 0.5, 1.0], size=(120, 7))
    test, pairs = rise_test(errors, labels), paired_rises(errors, labels)
    where, (largest, _) = max(pairs.items(), key=lambda item: item[1][0])
    assert test.estimate == pytest.approx(largest, abs=1e-12)
    assert test.where == where
    assert test.upper == pytest.approx(max(rise + 1.959964 * se for rise, se in pairs.values()), abs=1e-6)
    assert test.lower == pytest.approx(max(rise - test.critical * se for rise, se in pairs.values()), abs=1e-12)


def test_without_classes_all_examples_weigh_the_same() -> None:
    errors = np.random.default_rng(0).random((90, 5))
    test, pairs = rise_test(errors), paired_rises(errors, np.zeros(90, dtype=np.int64))
    assert test.estimate == pytest.approx(max(rise for rise, _ in pairs.values()), abs=1e-12)
    assert test.upper == pytest.approx(max(rise + 1.959964 * se for rise, se in pairs.values()), abs=1e-6)
    assert test.drop == pytest.approx(errors[:, 0].mean() - errors[:, -1].mean(), abs=1e-12)
    assert test.threshold == pytest.approx(max(0.05 * test.drop, 0), abs=1e-12)


def test_the_critical_value_is_the_quantile_of_the_largest_of_correlated_normal_rises() -> None:
    errors = sample(step_curve((0, 0.9), (10, 0.9), (40, 0.1), (50, 0.1)), 500)
    flips = np.random.default_rng(1).random(errors.shape) < 0.1
    errors = np.abs(errors - flips)
    centred = errors - errors.mean(axis=0)
    draws = np.random.default_rng(2).multivariate_normal(np.zeros(POINTS), centred.T @ centred / 500**2, size=20_000)
    se = {pair: se for pair, (_, se) in paired_rises(errors, np.zeros(500, dtype=np.int64)).items()}
    largest = np.max([(draws[:, j] - draws[:, i]) / se[i, j] for i, j in se], axis=0)
    test = rise_test(errors, replicates=2000)
    assert test.critical == pytest.approx(np.quantile(largest, 0.95), abs=0.1)
    strict = rise_test(errors, replicates=2000, level=0.005)
    assert strict.critical == pytest.approx(np.quantile(largest, 0.995), abs=0.25)


def test_two_points_need_no_correction() -> None:
    errors = np.random.default_rng(0).choice([0.0, 1.0], size=(5000, 2))
    assert rise_test(errors, replicates=2000).critical == pytest.approx(stats.norm.ppf(0.95), abs=0.1)


def test_a_flat_curve_has_no_rise_no_margin_and_the_bound_of_its_pseudo_counts() -> None:
    errors = np.tile(np.array([[0.0], [1.0]]), (100, 6))
    test = rise_test(errors)
    assert (test.estimate, test.drop, test.threshold, test.examples) == (0.0, 0.0, 0.0, 200)
    assert test.upper == pytest.approx(1.959964 * math.sqrt(2) / 200, rel=1e-6)
    assert test.lower <= 0
    assert (test.strictly_monotone, test.certain_rise) == (True, False)
    assert (test.decision, test.needed) == (Verdict.INCONCLUSIVE, None)


def test_the_same_call_gives_the_same_figures_and_another_seed_nearly_the_same() -> None:
    errors = np.random.default_rng(0).choice([0.0, 1.0], size=(300, 20))
    assert rise_test(errors) == rise_test(errors)
    other = rise_test(errors, seed=1)
    assert other.critical != rise_test(errors).critical
    assert other.critical == pytest.approx(rise_test(errors).critical, abs=0.3)


# Verdicts on curves whose truth is known


def test_a_steady_descent_is_reproduced() -> None:
    errors = sample(step_curve((0, 0.9), (10, 0.9), (40, 0.1), (50, 0.1)), 797)
    test = rise_test(errors, np.arange(797) % 10)
    assert (test.decision, test.needed, test.strictly_monotone) == (Verdict.REPRODUCED, None, True)


@pytest.mark.parametrize("examples", [797, 20_000])
def test_a_rise_on_the_last_step_alone_is_found(examples: int) -> None:
    errors = sample(step_curve((0, 0.9), (40, 0.1), (49, 0.1), (50, 0.25)), examples)
    test = rise_test(errors, np.arange(examples) % 10)
    assert test.decision is Verdict.NOT_REPRODUCED
    assert test.where[1] == POINTS - 1
    assert test.estimate == pytest.approx(0.15, abs=0.04)
    assert test.certain_rise
    assert not test.strictly_monotone


def test_a_rise_on_the_first_step_alone_is_found() -> None:
    test = rise_test(sample(step_curve((0, 0.7), (1, 0.9), (40, 0.1), (50, 0.1)), 2000))
    assert (test.decision, test.where) == (Verdict.NOT_REPRODUCED, (0, 1))


def test_a_rise_spread_over_many_small_steps_is_found() -> None:
    test = rise_test(sample(step_curve((0, 0.9), (20, 0.1), (50, 0.2)), 20_000))
    assert (test.decision, test.where) == (Verdict.NOT_REPRODUCED, (20, 50))


def test_a_curve_that_only_rises_is_not_reproduced() -> None:
    test = rise_test(sample(step_curve((0, 0.1), (50, 0.5)), 20_000))
    assert test.decision is Verdict.NOT_REPRODUCED
    assert (test.where, test.threshold) == ((0, 50), 0.0)
    assert test.drop == pytest.approx(-0.4, abs=0.02)


def test_a_wider_margin_forgives_a_small_rise() -> None:
    errors = sample(step_curve((0, 0.9), (20, 0.5), (22, 0.56), (50, 0.1)), 20_000)
    verdicts = [rise_test(errors, margin=margin).decision for margin in (0.02, 0.2)]
    assert verdicts == [Verdict.NOT_REPRODUCED, Verdict.REPRODUCED]


@pytest.mark.parametrize(("worse", "certain"), [(2, False), (4, False), (5, True), (40, True)])
def test_between_two_points_a_certain_rise_takes_five_examples_as_with_mcnemar(worse: int, certain: bool) -> None:
    assert (0.5**worse <= 0.05) == certain  # McNemar's exact one-sided p-value
    errors = np.stack([np.zeros(1000), np.arange(1000) < worse], axis=1)
    assert rise_test(errors).certain_rise == certain


def test_two_examples_that_both_get_worse_prove_nothing() -> None:
    assert rise_test([[0, 1], [0, 1]]).decision is Verdict.INCONCLUSIVE


# Class balance and ties


def test_naming_one_class_always_has_chance_error_whatever_the_class_sizes() -> None:
    labels = unbalanced_labels(1000)
    errors = np.stack([*(labels != name for name in range(4)), np.zeros(1000)], axis=1)
    test = rise_test(errors, labels)
    assert test.drop == pytest.approx(0.75, abs=1e-12)
    assert test.estimate == pytest.approx(0, abs=1e-12)
    assert test.strictly_monotone
    assert rise_test(errors).estimate > 0.4  # unbalanced, the plateau jumps when another class is named


def test_chance_in_single_precision_is_not_below_a_plateau_at_chance() -> None:
    labels = np.arange(1000) % 10
    tie, plateau, end = np.full(1000, 0.9), labels != 3, np.zeros(1000)
    test = rise_test(np.stack([tie, plateau, end], axis=1).astype(np.float32), labels)
    assert test.strictly_monotone
    assert test.decision is Verdict.REPRODUCED


def test_a_rise_in_the_smallest_class_is_not_missed_for_having_few_examples() -> None:
    sizes = [400, 250, 160, 100, 60, 40, 25, 16, 10, 5]
    labels = np.repeat(np.arange(10), sizes)
    errors = np.stack([np.full(1066, 0.9), np.zeros(1066), np.zeros(1066)], axis=1)
    assert rise_test(errors, labels, margin=0.02).decision is Verdict.INCONCLUSIVE
    assert rise_test(errors, np.arange(1066) % 10, margin=0.02).decision is Verdict.REPRODUCED


def test_a_class_of_one_example_leaves_the_verdict_open() -> None:
    labels = np.array([0] * 500 + [1])
    errors = np.stack([np.ones(501), np.zeros(501), np.zeros(501)], axis=1)
    assert rise_test(errors, labels).decision is Verdict.INCONCLUSIVE


# Invariances


def ragged(seed: int = 0) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """A noisy descent with unbalanced classes."""
    errors = sample(step_curve((0, 0.9), (10, 0.9), (20, 0.5), (22, 0.6), (50, 0.1)), 400, seed)
    flips = np.random.default_rng(seed + 100).random(errors.shape) < 0.05
    return np.abs(errors - flips), unbalanced_labels(400, seed)


def test_the_order_of_the_examples_changes_neither_estimate_nor_upper_bound() -> None:
    errors, labels = ragged()
    order = np.random.default_rng(5).permutation(len(errors))
    one, other = rise_test(errors, labels), rise_test(errors[order], labels[order])
    assert one.where == other.where
    for figure in ("estimate", "upper", "drop", "threshold"):
        assert getattr(one, figure) == pytest.approx(getattr(other, figure), abs=1e-12)
    assert one.critical == pytest.approx(other.critical, abs=0.3)  # other multipliers for each example


def test_the_names_of_the_classes_do_not_matter() -> None:
    errors, labels = ragged()
    one, other = rise_test(errors, labels), rise_test(errors, np.array(["d", "b", "c", "a"])[labels])
    assert (one.where, one.decision) == (other.where, other.decision)
    for figure in ("estimate", "upper", "lower", "drop"):
        assert getattr(one, figure) == pytest.approx(getattr(other, figure), abs=1e-6)


def test_errors_half_as_large_halve_the_rise_the_drop_and_the_margin() -> None:
    errors, labels = ragged()
    one, half = rise_test(errors, labels), rise_test(errors / 2, labels)
    assert one.where == half.where
    for figure in ("estimate", "drop", "threshold"):
        assert getattr(half, figure) == pytest.approx(getattr(one, figure) / 2, abs=1e-12)


def test_what_an_example_always_adds_to_the_error_does_not_matter() -> None:
    errors, labels = ragged()
    offsets = np.random.default_rng(7).random((400, 1)) / 2
    one, other = rise_test(errors / 2, labels), rise_test(errors / 2 + offsets, labels)
    for figure in ("estimate", "upper", "drop"):
        assert getattr(one, figure) == pytest.approx(getattr(other, figure), abs=1e-9)
    assert one.lower == pytest.approx(other.lower, abs=1e-4)  # the bootstrap works in single precision
    assert one.decision is other.decision


def test_doubling_every_example_narrows_the_bounds_as_the_root_of_the_sample_size() -> None:
    errors, labels = ragged()
    once, four_times = rise_test(errors, labels), rise_test(np.repeat(errors, 4, axis=0), np.repeat(labels, 4))
    assert four_times.estimate == pytest.approx(once.estimate, abs=1e-12)
    assert (four_times.upper - once.estimate) / (once.upper - once.estimate) == pytest.approx(0.5, abs=0.05)


# The sample size that would decide


@pytest.mark.parametrize(
    ("bump", "verdict"), [(0.03, Verdict.REPRODUCED), (0.07, Verdict.NOT_REPRODUCED)], ids=["below", "above"]
)
@pytest.mark.parametrize("seed", range(4))
def test_the_sample_repeated_up_to_needed_decides_and_half_of_that_does_not(
    bump: float, verdict: Verdict, seed: int
) -> None:
    errors = sample(step_curve((0, 0.9), (18, 0.5), (20, 0.5 + bump), (50, 0.05)), 300, seed)
    few = rise_test(errors)
    assert few.decision is Verdict.INCONCLUSIVE
    assert few.needed is not None
    assert few.needed > 300
    ratio = math.ceil(few.needed / 300)
    assert rise_test(np.repeat(errors, ratio, axis=0)).decision is verdict
    assert rise_test(np.repeat(errors, max(ratio // 2, 1), axis=0)).decision is Verdict.INCONCLUSIVE


def test_no_sample_size_decides_a_rise_of_exactly_the_margin() -> None:
    errors = np.zeros((400, 3))
    errors[:, 0] = 1
    errors[:20, 2] = 1  # drop 0.95, rise 0.05
    test = rise_test(errors, margin=0.05 / 0.95)
    assert (test.decision, test.needed) == (Verdict.INCONCLUSIVE, None)


# Error rates


@pytest.mark.parametrize("length", [0.1, 0.3])
def test_a_rise_of_the_margin_is_rarely_called_absent_or_proven(simulation: ModuleType, length: float) -> None:
    shapes = [simulation.on_plateau(0.05), simulation.in_descent(0.05), simulation.on_last_step(0.05)]
    cells = simulation.simulate(shapes, 797, length, 100, 20)
    for outcome in ("reproduced", "not reproduced"):
        assert sum(cell.counts[outcome] for cell in cells) <= 0.06 * 300, cells


@pytest.mark.parametrize("length", [0.1, 0.3])
def test_curves_that_never_rise_are_rarely_said_to(simulation: ModuleType, length: float) -> None:
    for cell in simulation.simulate(simulation.flat()[:3], 797, length, 80, 21):
        assert cell.counts["not reproduced"] <= 0.10 * 80, cell
        assert cell.counts["certain rise"] <= 0.10 * 80, cell


def test_the_simulated_examples_have_the_error_they_should(simulation: ModuleType) -> None:
    for scenario in (simulation.two_bumps(0.05), simulation.on_last_step(0.2), *simulation.flat()):
        curve = step_curve(*scenario.knots)
        assert scenario.errors().mean(axis=0) == pytest.approx(curve, abs=1e-12)
        assert np.max(curve - np.minimum.accumulate(curve)) == pytest.approx(scenario.rise, abs=1e-12)
    assert simulation.class_sizes(797).sum() == 797
    factor, grid = simulation.process_factor(0.3), np.linspace(0, 1, POINTS)
    assert factor.T @ factor == pytest.approx(np.exp(-((grid[:, None] - grid) ** 2) / (2 * 0.3**2)), abs=1e-6)


# Properties


@st.composite
def outcomes(draw: st.DrawFn) -> tuple[NDArray[np.floating], NDArray[np.int64] | None]:
    """Errors per example and point, ties among them, and perhaps classes."""
    shape = draw(st.tuples(st.integers(2, 40), st.integers(2, 8)))
    errors = draw(arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.5, 0.9, 1.0])))
    return errors, draw(st.none() | arrays(np.int64, shape[0], elements=st.integers(0, 3)))


@settings(deadline=None)
@given(outcomes())
def test_where_no_example_gets_worse_no_rise_is_found(
    drawn: tuple[NDArray[np.floating], NDArray[np.int64] | None],
) -> None:
    errors, classes = drawn
    test = rise_test(np.minimum.accumulate(errors, axis=1), classes, **FAST)
    assert test.decision is not Verdict.NOT_REPRODUCED
    assert test.estimate <= 1e-12
    assert test.strictly_monotone
    assert not test.certain_rise


@settings(deadline=None)
@given(outcomes(), st.floats(0, 0.5))
def test_the_verdict_follows_from_the_bounds(
    drawn: tuple[NDArray[np.floating], NDArray[np.int64] | None], margin: float
) -> None:
    test = rise_test(*drawn, margin=margin, **FAST)
    assert test.lower <= test.estimate <= test.upper
    assert (test.decision is Verdict.REPRODUCED) == (test.upper <= test.threshold)
    assert (test.decision is Verdict.NOT_REPRODUCED) == (test.lower > test.threshold)
    assert test.certain_rise == (test.lower > 0)
    assert test.where[0] < test.where[1]
    assert test.critical > 1.64
    assert test.threshold == max(margin * test.drop, 0)
    if test.needed is not None:
        assert test.decision is Verdict.INCONCLUSIVE
        assert test.needed >= test.examples


@settings(deadline=None)
@given(outcomes(), st.floats(0, 0.5))
def test_a_verdict_of_reproduced_stands_at_every_wider_margin(
    drawn: tuple[NDArray[np.floating], NDArray[np.int64] | None], margin: float
) -> None:
    narrow, wide = (rise_test(*drawn, margin=width, **FAST) for width in (margin, margin + 0.1))
    assert wide.decision is Verdict.REPRODUCED or narrow.decision is not Verdict.REPRODUCED
    assert narrow.decision is Verdict.NOT_REPRODUCED or wide.decision is not Verdict.NOT_REPRODUCED


# Arguments that cannot be used

GOOD = np.eye(4)


@pytest.mark.parametrize(
    ("errors", "options", "message"),
    [
        pytest.param(np.ones(5), {}, r"got shape \(5,\)", id="one dimension"),
        pytest.param(np.ones((1, 5)), {}, r"got shape \(1, 5\)", id="one example"),
        pytest.param(np.ones((5, 1)), {}, r"got shape \(5, 1\)", id="one point"),
        pytest.param(np.ones((2, 3, 4)), {}, r"got shape \(2, 3, 4\)", id="three dimensions"),
        pytest.param(np.where(GOOD == 1, np.nan, 0), {}, "got nan to nan", id="not a number"),
        pytest.param(2.3 * GOOD, {}, "got 0.0 to 2.3", id="losses"),
        pytest.param(GOOD - 0.5, {}, "got -0.5 to 0.5", id="negative errors"),
        pytest.param(GOOD, {"classes": [0, 1]}, r"shape \(4,\) like `errors`, got \(2,\)", id="too few classes"),
        pytest.param(GOOD, {"classes": GOOD}, r"shape \(4,\) like `errors`, got \(4, 4\)", id="one-hot classes"),
        pytest.param(GOOD, {"margin": -0.1}, "margin=-0.1", id="negative margin"),
        pytest.param(GOOD, {"margin": math.nan}, "margin=nan", id="margin not a number"),
        pytest.param(GOOD, {"level": 0.0}, "level=0.0", id="level zero"),
        pytest.param(GOOD, {"level": 95}, "level=95", id="level in per cent"),
    ],
)
def test_the_rise_test_says_what_is_wrong_with(errors: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        rise_test(errors, **options)


@pytest.mark.parametrize("counts", [(1, 0), (0, 0), (-1, 5), (6, 5)])
def test_a_proportion_refuses_impossible_counts(counts: tuple[int, int]) -> None:
    with pytest.raises(OptionError, match=f"got {counts[0]} of {counts[1]}"):
        wilson(*counts)


@pytest.mark.parametrize(
    "values", [[], [1.0], [1.0, math.nan], [1.0, math.inf], [[1.0, 2.0], [3.0, 4.0]]], ids=lambda v: repr(v)
)
def test_a_mean_refuses_values_without_an_interval(values: list[Any]) -> None:
    with pytest.raises(OptionError, match="at least 2 finite values"):
        mean_interval(values)


@pytest.mark.parametrize(("first", "second"), [([], []), ([True], []), ([True], [True, False])])
def test_matched_pairs_refuse_lists_that_do_not_match(first: list[bool], second: list[bool]) -> None:
    with pytest.raises(OptionError, match=f"got {len(first)} and {len(second)}"):
        paired_proportions(first, second)


# Intervals


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_are_those_of_newcombe_1998(successes: int, n: int, low: float, high: float) -> None:
    interval = wilson(successes, n)
    assert (interval.estimate, interval.n) == (successes / n, n)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


def test_ten_networks_of_ten_leave_room_for_a_quarter_that_fail() -> None:
    assert wilson(10, 10).low == pytest.approx(10 / (10 + 1.959964**2), abs=1e-6)


def test_the_interval_of_a_mean_is_that_of_students_sleep_data() -> None:
    extra_hours = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]  # Student (1908), drug 2 less drug 1
    interval = mean_interval(extra_hours)
    assert (interval.estimate, interval.n) == (pytest.approx(1.58), 10)
    assert (interval.low, interval.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_the_interval_of_a_mean_agrees_with_scipy(confidence: float) -> None:
    values = np.random.default_rng(0).normal(size=12)
    expected = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    interval = mean_interval(values, confidence)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def pairs(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    table = [(True, True)] * both + [(True, False)] * first + [(False, True)] * second + [(False, False)] * neither
    return [a for a, _ in table], [b for _, b in table]


@pytest.mark.parametrize(
    ("cells", "estimate", "low", "high"),
    [
        ((794, 150, 86, 570), 0.04, 0.021217, 0.058683),  # Agresti (2002), table 10.1: approval asked twice of 1600
        ((2, 5, 0, 3), 0.5, 0.093427, 0.739907),  # 5/12 and 1.96 sqrt(6 - 25/12) / 12
        ((5, 0, 0, 5), 0.0, -0.163330, 0.163330),  # 1.96 / 12
        ((0, 1, 0, 0), 1.0, -0.510101, 1.0),  # 1/3 and 1.96 sqrt(2 - 1/3) / 3, cut at 1
    ],
)
def test_matched_proportions_have_the_interval_of_agresti_and_min(
    cells: tuple[int, int, int, int], estimate: float, low: float, high: float
) -> None:
    interval = paired_proportions(*pairs(*cells))
    assert (interval.estimate, interval.n) == (estimate, sum(cells))
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-6)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_matched_proportions_turn_round_with_their_lists_and_always_have_width(table: list[tuple[bool, bool]]) -> None:
    first, second = [a for a, _ in table], [b for _, b in table]
    one, other = paired_proportions(first, second), paired_proportions(second, first)
    assert (one.estimate, one.low, one.high) == pytest.approx((-other.estimate, -other.high, -other.low))
    assert -1 <= one.low <= one.estimate <= one.high <= 1
    assert one.high > one.low


def test_matched_proportions_take_arrays() -> None:
    first, second = pairs(2, 5, 0, 3)
    assert paired_proportions(np.array(first), np.array(second)) == paired_proportions(first, second)


def test_a_rise_test_cannot_be_changed_once_made() -> None:
    test = rise_test(GOOD)
    assert isinstance(test, RiseTest)
    with pytest.raises(AttributeError):
        test.decision = Verdict.REPRODUCED  # type: ignore[misc]


# A threshold in units of error


def test_a_threshold_in_units_of_error_replaces_the_share_of_the_drop() -> None:
    errors = sample(step_curve((0, 0.3), (20, 0.33), (50, 0.29)), 20_000)
    share, absolute = rise_test(errors, **FAST), rise_test(errors, threshold=0.045, **FAST)
    assert share.decision is Verdict.NOT_REPRODUCED
    assert absolute.decision is Verdict.REPRODUCED
    assert absolute.threshold == 0.045
    assert (absolute.estimate, absolute.upper, absolute.lower) == (share.estimate, share.upper, share.lower)
    assert rise_test(errors, threshold=0.05 * share.drop, **FAST) == share


def test_a_negative_threshold_is_refused() -> None:
    with pytest.raises(OptionError, match=r"threshold=-0\.1"):
        rise_test(np.zeros((10, 3)), threshold=-0.1)


# Rank correlation


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ([1, 2, 3], [0.1, 0.5, 9.0], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 1, 0, 2], 0.31622777),
        ([1, 2, 3], [1, 1, 1], 0.0),
        ([1, 2, 3], [1, float("nan"), 2], float("nan")),
        ([1, 2, float("inf")], [1, 3, 2], float("nan")),
    ],
)
def test_the_rank_correlation_is_spearmans(first: list[float], second: list[float], wanted: float) -> None:
    assert rank_correlation(first, second) == pytest.approx(wanted, nan_ok=True)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-3, 3)), min_size=3, max_size=12))
def test_the_rank_correlation_is_scipys(pairs: list[tuple[int, float]]) -> None:
    first, second = zip(*pairs, strict=True)
    assume(len(set(first)) > 1 and len(set(second)) > 1)
    assert rank_correlation(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)


def test_lists_of_two_lengths_have_no_rank_correlation() -> None:
    with pytest.raises(OptionError, match=r"got shapes \(2,\) and \(3,\)"):
        rank_correlation([1, 2], [1, 2, 3])
