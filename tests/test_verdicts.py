"""Tests of the rules that turn evidence into a verdict: one evidence by hand for each verdict, and the edges."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mli_check.errors import OptionError
from mli_check.statistics import RiseTest, Verdict, mean_interval, paired_proportions, rise_test
from mli_check.verdicts import (
    FEWEST_NETWORKS,
    LEAST_EXCESS,
    LEAST_SHIFT,
    Figure,
    Ruling,
    agrees,
    all_of,
    all_positive,
    level_for,
    more_often,
    never_rises,
)

REPRODUCED, NOT, OPEN = Verdict.REPRODUCED, Verdict.NOT_REPRODUCED, Verdict.INCONCLUSIVE
NAN, INF = float("nan"), float("inf")

FALLING = RiseTest(
    decision=REPRODUCED,
    estimate=-0.001,
    where=(3, 4),
    upper=0.02,
    lower=-0.03,
    drop=0.8,
    threshold=0.04,
    critical=3.2,
    examples=797,
    strictly_monotone=True,
    certain_rise=False,
    needed=None,
)
RISING = replace(
    FALLING, decision=NOT, estimate=0.2, upper=0.25, lower=0.12, strictly_monotone=False, certain_rise=True
)
UNDECIDED = replace(FALLING, decision=OPEN, estimate=0.03, upper=0.06, lower=0.01, needed=2000, strictly_monotone=False)


def ruling(verdict: Verdict, label: str = "figure", **options: object) -> Ruling:
    return Ruling(verdict=verdict, reason=f"because {label}", figure=Figure(label=label, value=1.0), **options)


def spread(mean: float, half: float, count: int = FEWEST_NETWORKS) -> list[float]:
    """Differences whose 95% interval is mean ± half."""
    pattern = np.resize([-1.0, 1.0], count)
    pattern -= pattern.mean()
    unit = mean_interval(pattern).high - mean_interval(pattern).estimate
    return list(mean + pattern * half / unit)


# The rise test's own networks


def test_networks_that_never_rise_reproduce() -> None:
    found = never_rises([FALLING] * 10)
    assert found.verdict is REPRODUCED
    assert found.needed is None
    assert found.figure.value == FALLING.estimate
    assert found.details["networks within the margin"].startswith("10 of 10 (95% interval 0.72 to 1.00")


def test_one_network_that_surely_rises_refutes_always() -> None:
    found = never_rises([FALLING] * 11 + [RISING])
    assert found.verdict is NOT
    assert found.needed is None
    assert (found.figure.value, found.figure.low, found.figure.high) == (0.2, 0.12, 0.25)
    assert found.reason.startswith("the error of 1 of 12 networks surely rises")


def test_one_undecided_network_leaves_always_open_with_the_examples_that_would_decide() -> None:
    found = never_rises([FALLING] * 9 + [UNDECIDED, replace(UNDECIDED, needed=3000)])
    assert found.verdict is OPEN
    assert (found.needed, found.needed_unit) == (3000, "test examples")
    assert "2 of 11 networks stay undecided on 797 test examples" in found.reason


def test_an_undecided_network_that_no_sample_size_would_decide_needs_nothing() -> None:
    found = never_rises([FALLING] * 9 + [replace(UNDECIDED, needed=None)])
    assert (found.verdict, found.needed) == (OPEN, None)


@pytest.mark.parametrize("count", [1, 9])
def test_fewer_than_ten_networks_reproduce_nothing_about_every_network(count: int) -> None:
    found = never_rises([FALLING] * count)
    assert found.verdict is OPEN
    assert "needs at least 10" in found.reason


def test_a_single_counterexample_refutes_however_few_the_networks() -> None:
    assert never_rises([RISING]).verdict is NOT


def test_no_networks_leave_never_rises_open() -> None:
    found = never_rises([])
    assert found.verdict is OPEN
    assert (found.figure.value, found.figure.low, found.figure.high) == (None, None, None)
    assert found.details == {"networks": 0}


def test_never_rises_counts_the_literal_answers_beside_the_verdict() -> None:
    found = never_rises([FALLING] * 10 + [RISING] * 2)
    assert found.details["networks strictly monotone on this test set"] == 10
    assert found.details["networks with some certain rise"] == 2
    assert found.details["networks surely beyond it"] == 2


def test_a_planted_rise_goes_through_the_rise_test_and_is_not_reproduced() -> None:
    curve = np.r_[np.linspace(0.9, 0.1, 40), np.linspace(0.1, 0.5, 11)]
    tests = []
    for seed in range(10):
        difficulty = np.random.default_rng(seed).random(800)
        errors = (difficulty[:, None] < (curve if seed == 4 else np.linspace(0.9, 0.1, 51))).astype(float)
        tests.append(rise_test(errors, level=level_for(10)))
    assert never_rises(tests).verdict is NOT
    assert never_rises([test for seed, test in enumerate(tests) if seed != 4] + [tests[0]]).verdict is REPRODUCED


def test_the_bounds_of_the_figure_hold_its_value_though_they_come_from_several_networks() -> None:
    wide = replace(UNDECIDED, estimate=0.01, lower=-0.2, upper=0.3)
    figure = never_rises([wide, UNDECIDED]).figure
    assert figure.low == UNDECIDED.lower
    assert figure.high == wide.upper
    assert figure.low <= figure.value <= figure.high


rise_tests = st.builds(
    lambda kind, estimate, slack, needed: replace(
        kind,
        estimate=estimate,
        lower=estimate - slack,
        upper=estimate + slack,
        needed=needed if kind is UNDECIDED else None,
    ),
    st.sampled_from([FALLING, UNDECIDED, RISING]),
    st.floats(-1, 1),
    st.floats(0, 1),
    st.integers(2, 10**6),
)


@given(tests=st.lists(rise_tests, max_size=14), data=st.data())
def test_the_order_of_the_networks_does_not_matter_for_never_rises(tests: list[RiseTest], data: st.DataObject) -> None:
    assert never_rises(data.draw(st.permutations(tests))) == never_rises(tests)


@given(tests=st.lists(rise_tests, min_size=1, max_size=14))
def test_never_rises_gives_the_documented_verdict_for_any_mixture(tests: list[RiseTest]) -> None:
    decisions = {test.decision for test in tests}
    if NOT in decisions:
        wanted = NOT
    else:
        wanted = REPRODUCED if decisions == {REPRODUCED} and len(tests) >= FEWEST_NETWORKS else OPEN
    assert never_rises(tests).verdict is wanted


# Larger in every comparison


def test_differences_surely_above_zero_in_every_comparison_reproduce() -> None:
    found = all_positive({"own": spread(0.3, 0.1), "zero": spread(0.1, 0.05)}, "difference")
    assert found.verdict is REPRODUCED
    assert found.needed is None
    assert found.figure.value == pytest.approx(0.1)
    assert (found.figure.low, found.figure.high) == pytest.approx((0.05, 0.15))


def test_one_comparison_surely_below_the_least_shift_refutes_and_gives_the_figure() -> None:
    found = all_positive({"open": spread(0.0, 0.5), "own": spread(0.3, 0.1), "none": spread(0.0, 0.005)}, "difference")
    assert found.verdict is NOT
    assert found.figure.high == pytest.approx(0.005)
    assert found.reason.endswith(": none")


def test_an_interval_with_both_nothing_and_the_least_shift_stays_open() -> None:
    found = all_positive({"own": spread(0.05, 0.06)}, "difference")
    assert found.verdict is OPEN
    assert (found.needed, found.needed_unit) == (15, "networks")


def test_a_planted_reversal_of_the_two_arms_is_not_reproduced() -> None:
    rng = np.random.default_rng(0)
    without, with_bn = rng.normal(0.5, 0.05, 12), rng.normal(0.3, 0.05, 12)
    assert all_positive({"own": without - with_bn}, "plateau").verdict is REPRODUCED
    assert all_positive({"own": with_bn - without}, "plateau").verdict is NOT


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [(0.5, REPRODUCED), (LEAST_SHIFT, REPRODUCED), (0.019, NOT), (0.0, NOT), (-0.5, NOT)],
)
def test_intervals_of_zero_width_are_judged_by_where_they_lie(difference: float, verdict: Verdict) -> None:
    assert all_positive({"own": [difference] * 10}, "difference").verdict is verdict


def test_a_sure_but_tiny_difference_counts_as_none() -> None:
    assert all_positive({"own": spread(0.01, 0.005)}, "difference").verdict is NOT


def test_the_interval_that_refutes_is_wider_the_more_comparisons_there_are() -> None:
    none = spread(0.0, LEAST_SHIFT * 0.95)
    assert all_positive({"own": none}, "difference").verdict is NOT
    assert all_positive({"own": none, "a": spread(1, 0.1), "b": spread(1, 0.1)}, "difference").verdict is OPEN


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([], id="none"),
        pytest.param([0.5], id="one"),
        pytest.param([0.5] * 9, id="nine"),
        pytest.param([0.5] * 11 + [NAN], id="a NaN plateau"),
        pytest.param([INF] + [0.5] * 11, id="an infinite one"),
    ],
)
def test_too_few_networks_or_a_plateau_that_is_not_a_number_leave_it_open(values: list[float]) -> None:
    found = all_positive({"own": spread(0.3, 0.1), "zero": values}, "difference")
    assert found.verdict is OPEN
    assert "zero" in found.reason
    assert "own" not in found.reason


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        pytest.param(spread(0.002, 0.001), REPRODUCED, id="surely above 0"),
        pytest.param(spread(0.0005, 0.001), OPEN, id="nothing or one of interest"),
        pytest.param(spread(0.0, 0.0009), NOT, id="surely less than of interest"),
        pytest.param(spread(0.0005, 0.0002), NOT, id="surely above 0, and less than of interest"),
    ],
)
def test_a_claim_can_name_a_smaller_difference_of_interest(differences: list[float], verdict: Verdict) -> None:
    found = all_positive({"end": differences}, "rise", least=0.001)
    assert found.verdict is verdict
    assert ("0.001" in found.reason) is (verdict is not REPRODUCED)


def test_differences_are_told_to_a_tenth_of_the_least_of_interest() -> None:
    differences = {"end": spread(0.00244, 0.00122)}
    wide = all_positive(differences, "rise").details["end"]
    narrow = all_positive(differences, "rise", least=0.001).details["end"]
    assert wide == "0.002 (95% interval 0.001 to 0.004, n = 10)"
    assert narrow == "0.0024 (95% interval 0.0012 to 0.0037, n = 10)"


def test_the_networks_needed_follow_the_least_of_interest() -> None:
    differences = spread(0.0002, 0.001)
    found = all_positive({"end": differences}, "rise", least=0.001)
    assert (found.verdict, found.needed) == (OPEN, 16)
    assert all_positive({"end": list(np.resize(differences, 2 * found.needed))}, "rise", least=0.001).verdict is NOT


@pytest.mark.parametrize("least", [0.0, -0.02, NAN, INF])
def test_a_difference_of_interest_that_is_none_is_an_error(least: float) -> None:
    with pytest.raises(OptionError, match="must be positive and finite, got"):
        all_positive({"end": spread(0.3, 0.1)}, "rise", least=least)


def test_a_comparison_without_enough_networks_does_not_hide_one_that_refutes() -> None:
    assert all_positive({"own": [NAN] * 10, "zero": spread(-0.3, 0.1)}, "difference").verdict is NOT


def test_no_comparison_leaves_all_positive_open() -> None:
    found = all_positive({}, "difference")
    assert found.verdict is OPEN
    assert found.figure == Figure(label="difference", value=None)


@pytest.mark.parametrize(
    "differences",
    [
        pytest.param({"own": spread(0.05, 0.06)}, id="towards reproduced"),
        pytest.param({"own": spread(0.001, 0.03)}, id="towards not reproduced"),
        pytest.param({"own": spread(-0.01, 0.04)}, id="negative, not yet refuted"),
        pytest.param({"wide": spread(0.3, 0.5), "small": spread(0.03, 0.031)}, id="the widest is not the slowest"),
    ],
)
def test_with_as_many_networks_as_needed_the_same_means_and_spreads_decide(differences: dict[str, list[float]]) -> None:
    found = all_positive(differences, "difference")
    assert found.verdict is OPEN
    assert found.needed > 10
    repeated = {name: list(np.resize(values, 2 * (found.needed // 2 + 1))) for name, values in differences.items()}
    assert all_positive(repeated, "difference").verdict is not OPEN


# More often in the first of two matched arms


def pairs(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    table = [(True, True)] * both + [(True, False)] * first + [(False, True)] * second + [(False, False)] * neither
    return [a for a, _ in table], [b for _, b in table]


def test_what_surely_happens_more_often_in_the_first_reproduces() -> None:
    found = more_often(*pairs(2, 8, 0, 2), "excess")
    assert found.verdict is REPRODUCED
    assert found.figure.value == pytest.approx(8 / 12)
    assert found.reason == "10 of 12 against 2 of 12"


def test_what_surely_happens_at_most_a_tenth_more_often_is_not_reproduced() -> None:
    found = more_often(*pairs(0, 0, 8, 4), "excess")
    assert found.verdict is NOT
    assert found.figure.high < LEAST_EXCESS


def test_an_interval_with_both_equal_shares_and_a_tenth_more_stays_open() -> None:
    found = more_often(*pairs(5, 2, 1, 4), "excess")
    assert found.verdict is OPEN
    assert found.needed > 12
    assert found.needed_unit == "pairs"
    assert "includes both" in found.reason


def test_exchanged_arms_are_not_reproduced() -> None:
    first, second = pairs(2, 8, 0, 2)
    assert more_often(first, second, "excess").verdict is REPRODUCED
    assert more_often(second, first, "excess").verdict is NOT


def test_equal_shares_over_many_pairs_are_not_reproduced() -> None:
    assert more_often(*pairs(200, 10, 10, 200), "excess").verdict is NOT


def test_the_interval_is_never_of_zero_width_though_all_pairs_agree() -> None:
    few, many = (more_often([True] * count, [True] * count, "excess") for count in (10, 100))
    assert few.figure.low < 0 < few.figure.high
    assert (few.verdict, many.verdict) == (OPEN, NOT)


def test_fewer_than_ten_pairs_reproduce_nothing_and_say_that_they_are_few() -> None:
    found = more_often([True] * 8, [False] * 8, "excess")
    assert found.verdict is OPEN
    assert found.figure.low > 0
    assert "8 pairs" in found.reason
    assert "at least 10" in found.reason
    assert found.needed == 10


def test_no_pairs_leave_more_often_open() -> None:
    found = more_often([], [], "excess")
    assert found.verdict is OPEN
    assert found.figure == Figure(label="excess", value=None)


def test_arms_of_unequal_length_are_an_error() -> None:
    with pytest.raises(OptionError, match="matched pairs"):
        more_often([True] * 3, [True] * 4, "excess")


counts = st.tuples(*[st.integers(0, 12)] * 4).filter(any)


@given(counts)
def test_more_often_needs_more_pairs_than_there_are_and_at_least_ten(table: tuple[int, int, int, int]) -> None:
    first, second = pairs(*table)
    found = more_often(first, second, "excess")
    assert (found.needed is None) == (found.verdict is not OPEN)
    if found.needed is not None:
        assert found.needed >= FEWEST_NETWORKS
        assert found.needed > len(first) or found.figure.low > 0
        interval = paired_proportions(first, second)
        assert not (interval.low > 0 and "includes both" in found.reason)


# Definitions and identities


def test_deviations_within_the_tolerance_reproduce() -> None:
    found = agrees({"a": 0.0, "b": 1e-9}, 1e-8, "deviation")
    assert found.verdict is REPRODUCED
    assert found.figure == Figure(label="deviation", value=1e-9)
    assert found.details == {"examples": 2, "tolerance": 1e-8}


def test_a_deviation_equal_to_the_tolerance_is_within_it() -> None:
    assert agrees({"a": 0.5}, 0.5, "deviation").verdict is REPRODUCED
    assert agrees({"a": 0.0}, 0.0, "deviation").verdict is REPRODUCED


@pytest.mark.parametrize("other", [0.0, NAN, INF])
def test_one_deviation_beyond_the_tolerance_refutes_whatever_the_others_are(other: float) -> None:
    found = agrees({"a": other, "planted": 0.1}, 1e-8, "deviation")
    assert found.verdict is NOT
    assert "`planted`" in found.reason


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_deviation_that_is_not_finite_leaves_it_open_and_is_named(value: float) -> None:
    found = agrees({"a": 0.0, "strange": value}, 1e-8, "deviation")
    assert found.verdict is OPEN
    assert "strange" in found.reason


def test_no_deviations_leave_agrees_open() -> None:
    found = agrees({}, 1e-8, "deviation")
    assert found.verdict is OPEN
    assert found.figure.value is None


# Parts joined


@pytest.mark.parametrize(
    ("verdicts", "wanted"),
    [
        ([REPRODUCED, REPRODUCED], REPRODUCED),
        ([REPRODUCED, OPEN], OPEN),
        ([OPEN, NOT], NOT),
        ([NOT, OPEN, REPRODUCED], NOT),
        ([REPRODUCED, NOT], NOT),
    ],
)
def test_not_reproduced_goes_before_inconclusive_before_reproduced(verdicts: list[Verdict], wanted: Verdict) -> None:
    parts = {f"part {index}": ruling(verdict, f"figure {index}") for index, verdict in enumerate(verdicts)}
    found = all_of(parts)
    first = verdicts.index(wanted)
    assert found.verdict is wanted
    assert found.figure.label == f"figure {first} (part {first})"
    assert ("all 2 parts hold" if wanted is REPRODUCED else f"because figure {first}") in found.reason


def test_the_joined_details_name_their_parts() -> None:
    found = all_of({"a": ruling(REPRODUCED, details={"networks": 10}), "b": ruling(OPEN)})
    assert found.details == {"a": "reproduced: because figure", "a, networks": 10, "b": "inconclusive: because figure"}


def test_the_figure_of_the_deciding_part_keeps_bounds_and_unit() -> None:
    part = Ruling(verdict=OPEN, reason="r", figure=Figure(label="x", value=1.0, low=0.5, high=1.5, unit="nats"))
    assert all_of({"a": ruling(REPRODUCED), "b": part}).figure == replace(part.figure, label="x (b)")


def test_sample_sizes_of_different_units_are_not_compared() -> None:
    examples = ruling(OPEN, needed=5000, needed_unit="test examples")
    networks = ruling(OPEN, needed=14, needed_unit="networks")
    assert (all_of({"a": networks, "b": examples}).needed, all_of({"a": networks}).needed_unit) == (14, "networks")
    assert all_of({"a": examples, "b": networks, "c": replace(examples, needed=6000)}).needed == 6000


def test_nothing_is_needed_once_a_part_has_refuted_the_claim() -> None:
    assert all_of({"a": ruling(OPEN, needed=14, needed_unit="networks"), "b": ruling(NOT)}).needed is None


def test_no_parts_leave_all_of_open() -> None:
    found = all_of({})
    assert found.verdict is OPEN
    assert found.figure.value is None


# All rules


@given(tests=st.lists(rise_tests, max_size=12))
def test_never_rises_is_pure(tests: list[RiseTest]) -> None:
    before = list(tests)
    assert never_rises(tests) == never_rises(list(before))
    assert tests == before


shifts = st.one_of(st.floats(-1, 1), st.sampled_from([NAN, INF, 0.0, LEAST_SHIFT]))


@given(st.dictionaries(st.sampled_from(["own", "unrelated", "zero"]), st.lists(shifts, max_size=14)))
def test_all_positive_is_pure_and_needs_more_networks_than_it_had(differences: dict[str, list[float]]) -> None:
    before = {name: list(values) for name, values in differences.items()}
    found = all_positive(differences, "x")
    assert repr(found) == repr(all_positive(before, "x"))
    assert repr(differences) == repr(before)
    if found.needed is not None:
        assert found.verdict is OPEN
        assert found.needed > min(len(values) for values in differences.values())


@given(counts, st.dictionaries(st.text(max_size=3), st.floats(0, 2)), st.floats(0, 2))
def test_more_often_and_agrees_are_pure(
    table: tuple[int, int, int, int], deviations: dict[str, float], tolerance: float
) -> None:
    assert more_often(*pairs(*table), "x") == more_often(*pairs(*table), "x")
    found = agrees(deviations, tolerance, "x")
    assert found == agrees(dict(deviations), tolerance, "x")
    assert (found.verdict is NOT) == any(value > tolerance for value in deviations.values())


@given(st.lists(st.sampled_from([REPRODUCED, NOT, OPEN]), max_size=5))
def test_all_of_is_pure_and_no_part_outvotes_a_worse_one(verdicts: list[Verdict]) -> None:
    parts = {str(index): ruling(verdict) for index, verdict in enumerate(verdicts)}
    found = all_of(parts)
    assert found == all_of(dict(parts))
    order = [NOT, OPEN, REPRODUCED]
    assert order.index(found.verdict) == min((order.index(verdict) for verdict in verdicts), default=1)


@pytest.mark.parametrize(("networks", "parts"), [(1, 1), (10, 1), (10, 3), (37, 2)])
def test_all_rise_tests_together_reject_a_true_claim_at_most_in_five_percent(networks: int, parts: int) -> None:
    assert level_for(networks, parts) * networks * parts == pytest.approx(0.05)


def test_the_level_of_no_networks_is_that_of_one() -> None:
    assert level_for(0) == level_for(1) == 0.05


def test_the_level_shrinks_with_every_network() -> None:
    assert all(fewer > more for fewer, more in pairwise(level_for(count) for count in range(1, 40)))


def test_a_ruling_compares_by_value_and_cannot_be_changed() -> None:
    one = ruling(REPRODUCED)
    assert one == ruling(REPRODUCED)
    with pytest.raises(AttributeError):
        one.verdict = NOT  # type: ignore[misc]


def test_the_needed_pairs_of_equal_shares_lie_where_the_interval_falls_below_a_tenth() -> None:
    found = more_often([True] * 10, [True] * 10, "excess")
    assert math.isclose(found.needed, 10 * (found.figure.high / LEAST_EXCESS) ** 2, abs_tol=1)
