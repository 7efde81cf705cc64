"""Tests of what is read off curves: Delta, monotonicity, rapid descent, plateau, and errors packed into bits."""

from __future__ import annotations

from dataclasses import fields
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mli_check import statistics
from mli_check.curves import (
    Curve,
    DescentInterval,
    Outcomes,
    Record,
    Surface,
    delta,
    descent_interval,
    is_monotone,
    plateau,
)
from mli_check.errors import OptionError

NAN, INF = float("nan"), float("inf")
LENGTHS = st.integers(2, 40)
FINITE = arrays(np.float64, LENGTHS, elements=st.floats(-1e300, 1e300))
WHOLE = arrays(np.int64, LENGTHS, elements=st.integers(-64, 64)).map(lambda values: values.astype(np.float64))
READINGS = {"delta": delta, "is_monotone": is_monotone, "descent_interval": descent_interval, "plateau": plateau}
EIGHTH, TAU = 1 / 8, 1 / 64  # dyadic, so that shifting and scaling whole numbers stays exact


@st.composite
def increasing(draw: st.DrawFn, count: int) -> np.ndarray:
    """So many alphas with whole, unequal steps."""
    return np.cumsum(draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))).astype(np.float64)


@st.composite
def falling_curves(draw: st.DrawFn) -> np.ndarray:
    """Whole-numbered curves, with bumps, that end below their start."""
    values = draw(WHOLE)
    values[0] = values[-1] + draw(st.integers(1, 64))
    return values


# ---- Delta


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([3, 2, 1], 0),
        ([2, 2, 2], 0),
        ([3, 1, 2, 0], 1),
        ([3, 2, 1, 1.5], 0.5),
        ([0, 1], 1),
        ([5, 3, 4, 1, 3, 0, 1.5], 2),
        ([5, 1, 4, 3, 3.5], 3),
        ([1, 2, 3], 2),
        ([-3, -1], 2),
        ([0.0, -0.0], 0),
        ([1, INF, 0], INF),
        ([-INF, 0], INF),
        ([INF, 2, 1], 0),
        ([INF, INF, 1], 0),
        ([INF, 1, INF], INF),
        ([INF, INF], 0),
        ([-INF, -INF], 0),
    ],
    ids=str,
)
def test_delta_is_the_largest_rise_above_the_running_minimum(values: list[float], wanted: float):
    assert delta(values) == wanted


@given(values=FINITE)
def test_delta_is_the_largest_rise_over_all_pairs(values: np.ndarray):
    wanted = 0.0
    for i in range(len(values)):
        for j in range(i + 1, len(values)):
            wanted = max(wanted, values[j] - values[i])
    assert delta(values) == wanted


@given(values=FINITE)
def test_delta_is_zero_exactly_for_monotone_curves(values: np.ndarray):
    assert (delta(values) == 0) == is_monotone(values)
    falling = np.sort(values)[::-1]
    assert delta(falling) == 0
    assert is_monotone(falling)


@given(values=WHOLE, shift=st.integers(-100, 100), exponent=st.integers(-20, 20))
def test_delta_is_the_same_above_a_shifted_axis_and_scales_with_the_values(values, shift: int, exponent: int):
    assert delta(values + shift) == delta(values)
    assert delta(values * 2.0**exponent) == delta(values) * 2.0**exponent
    assert is_monotone((values + shift) * 2.0**exponent) == is_monotone(values)


@given(values=FINITE, data=st.data())
def test_one_nan_makes_delta_nan_and_the_curve_not_monotone(values: np.ndarray, data: st.DataObject):
    values[data.draw(st.integers(0, len(values) - 1))] = NAN
    assert np.isnan(delta(values))
    assert is_monotone(values) is False


@given(values=FINITE)
def test_delta_is_at_least_the_rise_from_first_to_last_and_more_points_never_lower_it(values: np.ndarray):
    assert delta(values) >= values[-1] - values[0]
    assert delta(values) >= delta(values[[0, -1]])
    if len(values) > 2:
        assert delta(values) >= delta(values[:-1])


# ---- is_monotone


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([2, 1], True),
        ([1, 1, 1], True),
        ([2, 1, 1 + 2**-52], False),
        ([1, 2], False),
        ([INF, 1, 0], True),
        ([INF, INF, 0], True),
        ([1, INF], False),
        ([1, NAN], False),
        ([NAN, 1], False),
        ([NAN, NAN], False),
        ([3, NAN, 1], False),
    ],
    ids=str,
)
def test_monotone_is_meant_literally_and_nan_is_not(values: list[float], wanted: bool):
    assert is_monotone(values) is wanted


# ---- rapid descent


@pytest.mark.parametrize("points", [11, 26, 51, 100])
def test_a_straight_line_descends_from_end_to_end(points: int):
    assert descent_interval(np.linspace(2, 1, points)) == (0, 1)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([1, 1, 0, 0], (1 / 3, 2 / 3)),
        ([1, 0.5, 0.5, 0], (0, 1)),
        ([1, 0.5, 0.9, 0], (0, 1)),
        ([1, 0, 0.5, 0.5], (0, 1 / 3)),
        ([1, 5, 0, 0.5], (1 / 3, 2 / 3)),
        ([1.0, 0.995, 0.99, 0.0], (2 / 3, 1)),
        ([4, 0], (0, 1)),
    ],
    ids=str,
)
def test_rapid_descent_goes_from_the_first_to_the_last_step_of_a_hundredth_of_the_drop(values, wanted):
    assert descent_interval(values) == pytest.approx(wanted)


def test_a_step_of_exactly_tau_is_rapid():
    assert descent_interval([8, 7, 6.5, 6.5, 0], [0, 1, 2, 3, 4], tau=1 / 8) == (0, 4)
    assert descent_interval([8, np.nextafter(7, 8), 6.5, 6.5, 0], [0, 1, 2, 3, 4], tau=1 / 8) == (3, 4)


def test_the_definition_on_a_parabola_reads_the_closed_form():
    """(1 - a)^2 loses 2 (1 - a) h - h^2 in a step h = 0.02 from a: at least 0.01 as long as a <= 0.74."""
    assert descent_interval((1 - np.linspace(0, 1, 51)) ** 2) == pytest.approx((0, 0.76))
    assert descent_interval(np.linspace(1, 0, 51) ** 2, tau=0.02) == pytest.approx((0, 0.5))


@pytest.mark.parametrize("values", [[1, 1], [1, 2], [1, 0, 1], [0, -5, 0.1]], ids=str)
def test_a_curve_that_does_not_end_below_its_start_has_no_descent_interval(values: list[float]):
    assert np.isnan(descent_interval(values)).all()


@pytest.mark.parametrize("points", [102, 201, 1001, 20_001])
def test_a_curve_of_more_than_a_hundred_steps_is_read_at_fifty(points: int):
    fine = np.linspace(0, 1, points)
    assert descent_interval(1 - fine) == (0, 1)
    for shape in (lambda a: (1 - a) ** 2, lambda a: 1 - np.clip((a - 0.2) / 0.4, 0, 1), lambda a: np.cos(3 * a)):
        assert descent_interval(shape(fine)) == pytest.approx(descent_interval(shape(np.linspace(0, 1, 51))))


def test_fifty_steps_are_taken_over_the_alphas_given_also_where_these_are_uneven():
    alphas = np.linspace(0, 1, 301) ** 2
    ramp = 1 - np.clip((alphas - 0.2) / 0.4, 0, 1)
    assert descent_interval(ramp, alphas) == pytest.approx((0.2, 0.6))
    assert descent_interval(ramp, 2 * alphas - 1) == pytest.approx((-0.6, 0.2))


def test_a_curve_of_a_hundred_steps_is_read_as_it_is():
    """A step of 0.01 from a takes 0.02 (1 - a) - 0.0001 of the drop of (1 - a)^2, at least 0.01 up to a = 0.49."""
    assert descent_interval((1 - np.linspace(0, 1, 101)) ** 2) == pytest.approx((0, 0.5))


@given(values=WHOLE, data=st.data())
def test_rapid_descent_is_the_span_of_all_rapid_steps(values: np.ndarray, data: st.DataObject):
    alphas = data.draw(increasing(len(values)))
    drop = values[0] - values[-1]
    rapid = [k for k in range(len(values) - 1) if drop > 0 and values[k] - values[k + 1] >= TAU * drop]
    found = descent_interval(values, alphas, tau=TAU)
    if rapid:
        assert found == DescentInterval(alphas[min(rapid)], alphas[max(rapid) + 1])
    else:
        assert drop <= 0
        assert np.isnan(found).all()


# ---- plateau


@pytest.mark.parametrize(
    ("values", "fraction", "wanted"),
    [
        ([1, 0], 0.1, 0.1),
        ([1, 1, 0], 0.1, 0.55),
        ([2, 1.9, 1], 0.5, 0.5 + 0.5 * 4 / 9),
        ([1, 0.9, 0], 0.1, 0.5),
        ([1, 2, 0], 0.1, 0.775),
        ([1, 0.5, 1, 0], 0.1, 1 / 15),
        ([1, 0, 0], 0.9, 0.45),
        ([4, 2, 2, 0], 0.5, 1 / 3),
        ([4, 2, 3, 0], 0.5, 1 / 3),
    ],
    ids=str,
)
def test_the_plateau_ends_where_a_share_of_the_drop_is_lost(values: list[float], fraction: float, wanted: float):
    assert plateau(values, fraction=fraction) == pytest.approx(wanted)


@pytest.mark.parametrize("points", [2, 11, 51, 501])
def test_the_plateau_of_a_straight_line_is_a_tenth_on_any_grid(points: int):
    assert plateau(np.linspace(3, 1, points)) == pytest.approx(0.1)


def test_the_plateau_is_read_on_the_alphas_given():
    assert plateau([1, 1, 0], [-1, 0, 4]) == pytest.approx(0.4)
    alphas = np.linspace(0, 1, 2001) ** 1.5
    assert plateau(1 - alphas**3, alphas) == pytest.approx(0.1 ** (1 / 3), abs=1e-6)


@pytest.mark.parametrize("values", [[1, 1], [1, 2], [1, 0, 1], [0, -5, 0.1]], ids=str)
def test_a_curve_that_does_not_end_below_its_start_has_no_plateau(values: list[float]):
    assert np.isnan(plateau(values))


@given(values=falling_curves(), data=st.data(), fraction=st.sampled_from([1 / 16, EIGHTH, 1 / 2, 7 / 8]))
def test_before_the_plateau_ends_the_curve_lies_above_the_level_that_it_meets_there(values, data, fraction: float):
    alphas = data.draw(increasing(len(values)))
    level = values[0] - fraction * (values[0] - values[-1])
    end = plateau(values, alphas, fraction)
    assert alphas[0] < end <= alphas[-1]
    assert np.interp(end, alphas, values) == pytest.approx(level)
    assert np.all(values[alphas < end * (1 - 1e-12)] > level)


@given(values=FINITE, fraction=st.floats(0.01, 0.99))
def test_the_plateau_lies_on_the_grid_or_is_nan(values: np.ndarray, fraction: float):
    end = plateau(values / 4, fraction=fraction)
    assert (0 <= end <= 1) if values[-1] / 4 < values[0] / 4 else np.isnan(end)


@given(values=falling_curves(), first=st.floats(0.01, 0.99), second=st.floats(0.01, 0.99))
def test_a_larger_share_of_the_drop_is_never_lost_earlier(values: np.ndarray, first: float, second: float):
    assert plateau(values, fraction=min(first, second)) <= plateau(values, fraction=max(first, second))


# ---- what both share


@given(values=falling_curves(), shift=st.integers(-1000, 1000), exponent=st.integers(-30, 30))
def test_plateau_and_descent_do_not_depend_on_the_height_or_the_unit_of_a_curve(values, shift: int, exponent: int):
    changed = (values + shift) * 2.0**exponent
    assert plateau(changed, fraction=EIGHTH) == plateau(values, fraction=EIGHTH)
    assert descent_interval(changed, tau=TAU) == descent_interval(values, tau=TAU)


@given(values=falling_curves(), data=st.data())
def test_plateau_and_descent_move_with_the_alphas(values: np.ndarray, data: st.DataObject):
    alphas = data.draw(increasing(len(values)))
    assert plateau(values, 4 * alphas, EIGHTH) == 4 * plateau(values, alphas, EIGHTH)
    assert descent_interval(values, 4 * alphas, TAU) == tuple(4 * end for end in descent_interval(values, alphas, TAU))


def test_readings_take_lists_float32_and_whole_numbers():
    for values in ([3, 1, 2, 0], np.array([3, 1, 2, 0], np.float32), np.array([3, 1, 2, 0])):
        assert (delta(values), is_monotone(values), plateau(values, fraction=0.5)) == (1.0, False, 0.25)
    assert all(type(found) is float for found in (delta([1, 0]), plateau([1, 0]), *descent_interval([1, 0])))


@given(values=FINITE)
def test_readings_do_not_change_the_values(values: np.ndarray):
    before = values.copy()
    for reading in READINGS.values():
        reading(values / 4)
        reading(np.full(300, 1.0))
    delta(values)
    assert np.array_equal(values, before)


# ---- NaN and infinity


@pytest.mark.parametrize("values", [[NAN, 1, 0], [1, 0.5, NAN], [NAN, NAN]], ids=str)
def test_a_curve_with_nan_at_an_end_has_neither_plateau_nor_descent_interval(values: list[float]):
    assert np.isnan(plateau(values))
    assert np.isnan(descent_interval(values)).all()


def test_a_plateau_that_ends_in_nan_is_nan_and_later_nan_does_not_matter():
    assert np.isnan(plateau([1, NAN, 0.5, 0]))
    assert plateau([1, 0.5, NAN, 0], fraction=0.25) == pytest.approx(1 / 6)


def test_a_step_from_or_to_nan_is_not_rapid():
    assert descent_interval([1, 0.5, NAN, 0.2, 0]) == (0, 1)
    assert descent_interval([1, NAN, 0.9, 0.2, NAN, 0]) == pytest.approx((0.4, 0.6))
    assert np.isnan(descent_interval([1, NAN, 0])).all()


def test_an_infinite_start_has_no_plateau_and_falls_in_the_step_that_leaves_it():
    """Without a warning too: the suite turns warnings into errors."""
    assert np.isnan(plateau([INF, 1, 0]))
    assert np.isnan(plateau([INF, INF, 1]))
    assert descent_interval([INF, 1, 0]) == (0, 0.5)
    assert descent_interval([INF, INF, 1, 0]) == pytest.approx((1 / 3, 2 / 3))
    assert descent_interval([INF] * 200 + [1.0] * 201) == (0.48, 0.5)


@pytest.mark.parametrize("values", [[INF, INF], [INF, 1, INF], [1, INF], [-INF, 1]], ids=str)
def test_a_curve_that_ends_infinite_or_starts_at_minus_infinity_never_descends(values: list[float]):
    assert np.isnan(plateau(values))
    assert np.isnan(descent_interval(values)).all()


def test_an_infinite_bump_leaves_no_plateau_and_no_warning():
    assert np.isnan(plateau([1, INF, 0]))
    assert descent_interval([1, INF, 0]) == (0.5, 1)
    assert descent_interval([1, INF, INF, 0]) == pytest.approx((2 / 3, 1))


# ---- bad arguments


@pytest.mark.parametrize("name", READINGS)
@pytest.mark.parametrize("values", [[], [1], 3.0, [[1, 0], [1, 0]]], ids=["none", "one", "a number", "two dimensions"])
def test_a_curve_needs_two_values_in_one_dimension(name: str, values: object):
    with pytest.raises(OptionError, match="a curve needs at least 2 values in one dimension, got shape "):
        READINGS[name](values)


@pytest.mark.parametrize("name", ["descent_interval", "plateau"])
@pytest.mark.parametrize("alphas", [[0, 1], [0, 0.5, 0.5], [1, 0.5, 0], [0, NAN, 1], [[0, 0.5, 1]]], ids=str)
def test_alphas_must_increase_one_a_value(name: str, alphas: object):
    with pytest.raises(OptionError, match="`alphas` must be 3 increasing numbers, one a value, got "):
        READINGS[name]([2, 1, 0], alphas)


@pytest.mark.parametrize("share", [0, 1, -0.1, 2, NAN, INF])
def test_tau_and_fraction_lie_between_zero_and_one(share: float):
    with pytest.raises(OptionError, match=f"`tau` must lie between 0 and 1, got tau={share!r}"):
        descent_interval([1, 0], tau=share)
    with pytest.raises(OptionError, match=f"`fraction` must lie between 0 and 1, got fraction={share!r}"):
        plateau([1, 0], fraction=share)


# ---- errors in bits

TIES = [np.float32(1) - np.float32(1) / np.float32(size) for size in range(2, 12)]


@st.composite
def error_rows(draw: st.DrawFn) -> list[np.ndarray]:
    """Errors of some points: mostly right or wrong, now and then a tie."""
    points, examples = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    kinds = st.one_of(st.sampled_from([0.0, 1.0]), st.sampled_from(TIES))
    return [draw(arrays(np.float32, examples, elements=kinds)) for _ in range(points)]


@given(rows=error_rows())
def test_errors_come_back_from_their_bits_exactly_with_ties(rows: list[np.ndarray]):
    errors = Outcomes.pack(rows).errors()
    assert errors.dtype == np.float32
    assert errors.shape == (len(rows[0]), len(rows))
    assert np.array_equal(errors.T, np.stack(rows))


@given(rows=error_rows())
def test_only_ties_are_kept_apart(rows: list[np.ndarray]):
    outcomes = Outcomes.pack(rows)
    for point, row in enumerate(rows):
        tied = np.flatnonzero((row > 0) & (row < 1))
        assert (point in outcomes.ties) == (len(tied) > 0)
        if len(tied):
            assert np.array_equal(outcomes.ties[point][0], tied)


def test_an_untied_error_takes_one_bit():
    rng = np.random.default_rng(0)
    rows = list(rng.integers(0, 2, (51, 10_003)).astype(np.float32))
    outcomes = Outcomes.pack(rows)
    assert outcomes.bits.shape == (51, 1251)
    assert outcomes.bits.dtype == np.uint8
    assert outcomes.bits.nbytes == 51 * 1251
    assert outcomes.examples == 10_003
    assert not outcomes.ties
    assert outcomes.errors().nbytes == 4 * 51 * 10_003


def test_packing_does_not_change_the_rows_and_unpacking_gives_an_array_of_its_own():
    rows = [np.array([0, 1, 0.5], np.float32)]
    outcomes = Outcomes.pack(rows)
    outcomes.errors()[:] = 7
    assert rows[0].tolist() == [0, 1, 0.5]
    assert outcomes.errors()[:, 0].tolist() == [0, 1, 0.5]


# ---- Curve and Surface


def record(**changes: object) -> Record:
    known = {
        "path": "LinearPath",
        "loss": "cross_entropy",
        "norm_stats": None,
        "calibration_batch": None,
        "engine": "loop",
        "precision": "highest",
        "device": "cpu",
        "examples": 4,
        "batch_size": 4,
        "seconds": 0.1,
    }
    return Record(**known | changes)


ROWS = [np.array(row, np.float32) for row in ([1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 1, 0])]
LOSS = np.array([3.0, 2.0, 2.5, 1.0])
ERROR = np.array([1.0, 0.75, 1.0, 0.25])
BALANCED = np.array([1.0, 0.75, 1.0, 0.375])


def curve(**changes: object) -> Curve:
    known = {
        "alphas": np.array([0.0, 0.5, 1.0, 2.0]),
        "loss": LOSS,
        "error": ERROR,
        "balanced_error": BALANCED,
        "outcomes": Outcomes.pack(ROWS),
        "classes": np.array([0, 0, 1, 0]),
        "record": record(),
    }
    return Curve(**known | changes)


def regression() -> Curve:
    return curve(error=None, balanced_error=None, outcomes=None, classes=None)


def test_a_curve_is_read_as_its_values_are_on_its_own_alphas():
    read = curve()
    for quantity, values in (("loss", LOSS), ("error", ERROR), ("balanced_error", BALANCED)):
        assert read.values(quantity) is values
        assert read.delta(quantity) == delta(values)
        assert read.is_monotone(quantity) == is_monotone(values)
        assert read.plateau(quantity, 0.3) == plateau(values, read.alphas, 0.3)
        assert read.descent_interval(quantity, 0.4) == descent_interval(values, read.alphas, 0.4)


def test_delta_and_monotonicity_are_of_the_loss_and_descent_of_the_error_when_nothing_is_said():
    read = curve(loss=np.array([3.0, 2.0, 1.0, 0.5]))
    assert read.delta() == 0
    assert read.is_monotone()
    assert read.plateau() == plateau(ERROR, read.alphas)
    assert read.descent_interval() == descent_interval(ERROR, read.alphas)


def test_the_rise_test_of_a_curve_is_over_its_own_examples_and_classes():
    read = curve()
    wanted = statistics.rise_test(np.stack(ROWS).T, read.classes, margin=0.1, replicates=50, seed=3)
    assert read.rise_test(0.1, replicates=50, seed=3) == wanted
    assert wanted.estimate == pytest.approx(0.25 * 2 / 3)
    assert wanted.where == (1, 2)


@pytest.mark.parametrize("quantity", ["accuracy", "Loss", "losses", ""])
def test_an_unknown_quantity_is_named_with_the_known_ones(quantity: str):
    for read in (lambda c: c.values(quantity), lambda c: c.delta(quantity), lambda c: c.plateau(quantity)):
        with pytest.raises(OptionError, match=r"unknown quantity .* loss, error, balanced_error"):
            read(curve())


@pytest.mark.parametrize("quantity", ["error", "balanced_error"])
def test_a_curve_without_classes_says_that_it_has_no_error_and_what_to_read(quantity: str):
    for name in ("values", "delta", "is_monotone", "plateau", "descent_interval"):
        with pytest.raises(OptionError, match=f"has no {quantity}: its targets are not class indices; read `loss`"):
            getattr(regression(), name)(quantity)
    assert regression().delta() == 0.5


def test_a_curve_without_classes_has_no_rise_test():
    with pytest.raises(OptionError, match="the rise test needs classification targets"):
        regression().rise_test()


def test_a_surface_gives_its_values_by_name():
    loss = np.zeros((2, 3))
    surface = Surface(
        alphas=np.arange(2.0), betas=np.arange(3.0), loss=loss, error=None, balanced_error=None, record=record()
    )
    assert surface.values("loss") is loss
    with pytest.raises(OptionError, match="has no error"):
        surface.values("error")


def test_curves_and_records_cannot_be_changed_by_accident():
    for thing in (curve(), record(), Outcomes.pack(ROWS)):
        with pytest.raises(AttributeError):
            setattr(thing, fields(thing)[0].name, None)


def test_every_pair_of_points_is_a_curve_of_its_own():
    """Delta of the whole is the largest Delta of any two points in order."""
    assert delta(LOSS) == max(delta(LOSS[[i, j]]) for i, j in combinations(range(4), 2))
