"""Tests of T30, T31 and T35: criteria with an evidence for each verdict, and violations planted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from claim_benches import (
    FALLING,
    MODULES,
    NAN,
    NOT,
    OPEN,
    RECORD,
    REPRODUCED,
    RISING,
    TESTS,
    UNDECIDED,
    Bench,
    judged,
    line,
    small,
)

from mli_check import states, subjects
from mli_check.curves import Surface
from mli_check.runs import Store

pytestmark = pytest.mark.xdist_group("claims-criteria")

plateaus, planes = MODULES["test_plateaus"], MODULES["test_planes"]
PLAIN, WITH_BN = small("plain"), small("with BN", batch_norm=True)
PAIR = replace(PLAIN, name="vgg-digits")
T30 = plateaus.test_bn_beside_biases_shortens_the_plateau_from_zero
T31 = planes.test_error_falls_as_alpha_grows_beside_constant_noise
T35 = planes.test_surface_has_a_monotone_diagonal_and_is_asymmetric_in_beta


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("claims") / "store")


# T30

LONG, SHORT = [0.3 + 0.01 * (i % 3) for i in range(10)], [0.1 + 0.01 * (i % 2) for i in range(10)]


@pytest.mark.parametrize(
    ("without", "with_bn", "verdict"),
    [
        pytest.param(LONG, SHORT, REPRODUCED, id="as claimed"),
        pytest.param(LONG, [0.1, 0.6] * 5, OPEN, id="scattered"),
        pytest.param(LONG[:9], SHORT[:9], OPEN, id="nine pairs"),
        pytest.param([NAN, *LONG[1:]], SHORT, OPEN, id="a curve that never falls"),
        pytest.param(LONG, LONG, NOT, id="equal"),
        pytest.param(SHORT, LONG, NOT, id="exchanged"),
    ],
)
def test_t30_wants_a_shorter_plateau_with_bn(without: list[float], with_bn: list[float], verdict: str) -> None:
    assert plateaus.zero_criterion(without, with_bn).verdict is verdict


def test_exchanged_networks_refute_t30(store: Store) -> None:
    without, with_bn = Bench(PLAIN, store), Bench(WITH_BN, store)
    assert judged(T30, PAIR, without, with_bn).verdict is not NOT
    assert judged(T30, PAIR, with_bn, without).verdict is NOT
    assert judged(T30, PAIR, with_bn, with_bn).verdict is NOT


def test_the_pairs_of_t30_and_t35_differ_in_batch_normalisation_alone() -> None:
    for without, with_bn in (*plateaus.WITH_BIASES.values(), *planes.PAIRS.values()):
        first, second = subjects.get(without), subjects.get(with_bn)
        assert replace(first.setting.model, batch_norm=True) == second.setting.model != first.setting.model
        assert first.setting.model.bias
        assert (first.setting.data, first.setting.recipe) == (second.setting.data, second.setting.recipe)
        assert (first.networks, first.test_examples) == (second.networks, second.test_examples)


# T31

NONE, SCATTERED = [0.001, -0.001] * 5, [0.3, -0.2] * 5
DROPS = [0.7 + 0.01 * (i % 3) for i in range(10)]


@pytest.mark.parametrize("verdict", [REPRODUCED, OPEN, NOT])
def test_t31_judges_by_the_worst_of_ten_networks(verdict: Any) -> None:
    assert planes.noise_criterion([FALLING] * 9 + [TESTS[verdict]], DROPS).verdict is verdict


@pytest.mark.parametrize(("drops", "verdict"), [(DROPS, REPRODUCED), (SCATTERED, OPEN), (NONE, NOT)])
def test_t31_wants_a_drop(drops: list[float], verdict: str) -> None:
    assert planes.noise_criterion([FALLING] * 10, drops).verdict is verdict


def test_the_noise_stays_constant_while_alpha_grows(store: Store) -> None:
    table = Bench(WITH_BN, store)
    run, path = table.run(table.settings[3]), planes.noisy_path(table, 3)
    for alpha in (0.0, 0.3, 1.0):
        found = path.state(alpha)
        for name, noise in states.parameters(run.init).items():
            torch.testing.assert_close(found[name], alpha * run.final[name] + noise)


class TheOtherWay(Bench):
    """The noise is there with the trained network at alpha = 0 and without it at 1."""

    def left_end(self, index: int, left: str) -> states.State:
        return super().left_end(index, {"own": "plus", "plus": "own"}[left])


class NoiseAlone(Bench):
    """Nothing is added to the noise as alpha grows."""

    def left_end(self, index: int, left: str) -> states.State:
        return super().left_end(index, "own")


@pytest.mark.parametrize(
    ("planted", "part"),
    [pytest.param(TheOtherWay, "never rises", id="rising"), pytest.param(NoiseAlone, "falls", id="noise alone")],
)
def test_an_error_that_does_not_fall_refutes_t31(planted: type[Bench], part: str, store: Store) -> None:
    assert judged(T31, PLAIN, Bench(PLAIN, store)).verdict is not NOT
    found = judged(T31, PLAIN, planted(PLAIN, store))
    assert found.verdict is NOT
    assert found.reason.startswith(part)


def test_points_of_another_grid_stand_where_they_were_measured() -> None:
    curve = replace(line([0.9, 0.4, 0.3, 0.1]), alphas=np.array([0.0, 1 / 64, 0.5, 1.0]))
    np.testing.assert_equal(planes.on_grid(curve, np.linspace(0, 1, 5)), [NAN, NAN, 0.3, NAN, 0.1])


# T35


def plane(errors: Any) -> Surface:
    """A surface of class-balanced errors over the grid of T35."""
    values = np.broadcast_to(errors, (len(planes.ALPHAS), len(planes.BETAS))).copy()
    axes = np.array(planes.ALPHAS), np.array(planes.BETAS)
    return Surface(alphas=axes[0], betas=axes[1], loss=values, error=values, balanced_error=values, record=RECORD)


def test_the_grid_of_t35_has_the_diagonal_and_both_axes() -> None:
    points = {(alpha, beta) for alpha in planes.ALPHAS for beta in planes.BETAS}
    assert {(alpha, 0.0) for alpha in planes.ALPHAS} | {(1.0, beta) for beta in planes.BETAS} <= points
    np.testing.assert_allclose(planes.ALPHAS, 1 - np.array(planes.BETAS[10:])[::-1])
    assert [-beta for beta in planes.BETAS[::-1]] == list(planes.BETAS)


def test_the_asymmetry_compares_the_two_sides_of_beta_0() -> None:
    alphas, betas = np.array(planes.ALPHAS)[:, None], np.array(planes.BETAS)
    assert planes.asymmetry(plane(np.abs(betas))) == pytest.approx(0)
    assert planes.asymmetry(plane(-betas)) == pytest.approx(2 * np.mean(planes.BETAS[11:]))
    assert planes.asymmetry(plane(-alphas * betas), least_alpha=1.0) == pytest.approx(1.1)
    at_zero_alone = plane(np.where(alphas == 0, -betas, 0.0))
    assert planes.asymmetry(at_zero_alone) == 0


WIDE, SLIGHT = [0.4 + 0.01 * (i % 3) for i in range(10)], [0.2 - 0.01 * (i % 3) for i in range(10)]


@pytest.mark.parametrize(
    ("last", "without", "with_bn", "verdict"),
    [
        pytest.param(FALLING, SLIGHT, WIDE, REPRODUCED, id="as claimed"),
        pytest.param(FALLING, [-v for v in SLIGHT], WIDE, REPRODUCED, id="the other side"),
        pytest.param(UNDECIDED, SLIGHT, WIDE, OPEN, id="an undecided diagonal"),
        pytest.param(FALLING, SLIGHT, [0.1, 0.7] * 5, OPEN, id="scattered"),
        pytest.param(FALLING, SLIGHT[:9], WIDE[:9], OPEN, id="nine pairs"),
        pytest.param(RISING, SLIGHT, WIDE, NOT, id="a rising diagonal"),
        pytest.param(FALLING, WIDE, SLIGHT, NOT, id="exchanged"),
        pytest.param(FALLING, WIDE, WIDE, NOT, id="equal"),
        pytest.param(FALLING, NONE, WIDE, NOT, id="symmetric without BN"),
    ],
)
def test_t35_wants_monotone_diagonals_and_asymmetry_most_with_bn(
    last: Any, without: list[float], with_bn: list[float], verdict: str
) -> None:
    tests = {"without BN": [FALLING] * 10, "with BN": [FALLING] * 9 + [last]}
    found = planes.surface_criterion(tests, {"without BN": without, "with BN": with_bn})
    assert found.verdict is verdict


@pytest.mark.parametrize(("values", "verdict"), [(SLIGHT, REPRODUCED), ([0.0, 0.05] * 5, OPEN), (NONE, NOT)])
def test_t35_compares_no_kinds_where_there_is_one(values: list[float], verdict: str) -> None:
    found = planes.surface_criterion({"without BN": [FALLING] * 10}, {"without BN": values})
    assert found.verdict is verdict


class WeakNoise(Bench):
    """The initialisation beside the trained network is a third as large."""

    def left_end(self, index: int, left: str) -> states.State:
        return {n: t / 3 if t.is_floating_point() else t for n, t in super().left_end(index, left).items()}


class NoNoise(Bench):
    """There is none."""

    def left_end(self, index: int, left: str) -> states.State:
        return {n: torch.zeros_like(t) for n, t in super().left_end(index, left).items()}


class FromAnotherNetwork(Bench):
    """In the place of theta_0 is another trained network."""

    def left_end(self, index: int, left: str) -> states.State:
        return self.run(self.settings[(index + 1) % len(self.settings)]).final


def test_an_asymmetry_that_is_larger_without_bn_refutes_t35(store: Store) -> None:
    weak_without = WeakNoise(PLAIN, store), Bench(WITH_BN, store)
    weak_with = Bench(PLAIN, store), WeakNoise(WITH_BN, store)
    assert judged(T35, PAIR, *weak_without).verdict is REPRODUCED
    found = judged(T35, PAIR, *weak_with)
    assert found.verdict is NOT
    assert found.reason.startswith("more so with BN")


@pytest.mark.parametrize(
    ("planted", "part"),
    [
        pytest.param(NoNoise, "asymmetric without BN", id="no noise"),
        pytest.param(FromAnotherNetwork, "monotone diagonal without BN", id="a barrier between two networks"),
    ],
)
def test_a_symmetric_surface_or_a_rising_diagonal_refutes_t35(planted: type[Bench], part: str, store: Store) -> None:
    assert judged(T35, PLAIN, WeakNoise(PLAIN, store)).verdict is REPRODUCED
    found = judged(T35, PLAIN, planted(PLAIN, store))
    assert found.verdict is NOT
    assert found.reason.startswith(part)


def test_the_surface_has_the_mli_curve_on_its_diagonal(store: Store) -> None:
    table = Bench(WITH_BN, store)
    surface = planes.surfaces_of(table, "own", alphas=planes.ALPHAS, betas=planes.BETAS)[0]
    curve = table.curves("own")[0]
    diagonal = [surface.balanced_error[i, planes.BETAS.index((10 - i) / 10)] for i in range(11)]
    np.testing.assert_allclose(diagonal, curve.balanced_error[::5], atol=0.005)  # an image may change by rounding


def test_the_chart_has_beta_upwards_and_alpha_to_the_right() -> None:
    values = np.arange(11)[:, None] / 10 - np.arange(-10, 11) / 10
    first, mean = planes.surface_charts("with BN", [plane(values), plane(values + 1)], [0.1, 0.2])
    for chart, shift in ((first, 0.0), (mean, 0.5)):
        assert (chart.x, chart.y) == (planes.ALPHAS, planes.BETAS)
        assert chart.values[0][10] == pytest.approx(2 + shift)  # at beta = -1 and alpha = 1
        assert chart.values[20][0] == pytest.approx(-1 + shift)
        assert "+0.150" in chart.caption
    assert len(first.lines) == 3
