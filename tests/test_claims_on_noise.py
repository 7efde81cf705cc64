"""Tests of T20, T21, T25, T26, T36 and T37: criteria with an evidence for each verdict, and violations planted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from claim_benches import FALLING, MODULES, NOT, OPEN, REPRODUCED, RISING, UNDECIDED, Bench, judged, small

from mli_check.curves import Curve
from mli_check.paths import LinearPath
from mli_check.runs import Store
from mli_check.verdicts import stays

pytestmark = pytest.mark.xdist_group("claims-criteria")

noise, joint, violations = (MODULES[n] for n in ("test_noise", "test_joint_determination", "test_violations"))
T20 = noise.test_error_rises_as_the_noise_takes_over
T21 = noise.test_nearly_all_noise_curves_are_monotone
T25 = noise.test_plateau_grows_with_the_size_of_the_initialisation
T26 = noise.test_error_falls_from_a_constant_initialisation
T36 = joint.test_error_curve_follows_from_scale_invariance_and_noise_together
T37 = violations.test_biases_that_move_homogeneously_remove_the_violation
DELTAS = len(noise.DELTAS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("claims") / "store")


# Criteria


@pytest.mark.parametrize(
    ("rises", "verdict"),
    [
        ([0.0] * 95 + [0.2] * 5, REPRODUCED),
        ([0.0] * 90 + [0.2] * 10, OPEN),
        ([0.0] * 70 + [0.2] * 30, NOT),
        ([0.05] * 95 + [float("inf")] * 5, REPRODUCED),  # a curve that does not fall does not count as monotone
        ([float("nan")] * 100, NOT),
        ([], OPEN),
    ],
)
def test_t21_counts_curves_within_the_margin(rises: list[float], verdict: Any) -> None:
    assert noise.nearly_all(rises).verdict is verdict


STARTS = np.tile(np.linspace(0.1, 0.5, DELTAS), (10, 1)) + 0.001 * np.arange(10)[:, None]


@pytest.mark.parametrize(
    ("tests", "starts", "ends", "verdict"),
    [
        ([FALLING] * 50, STARTS, STARTS + 0.3, REPRODUCED),
        ([FALLING] * 49 + [UNDECIDED], STARTS, STARTS + 0.3, OPEN),
        ([FALLING] * 49 + [RISING], STARTS, STARTS + 0.3, NOT),
        ([FALLING] * 50, 0.2 + 0 * STARTS, STARTS + 0.5, NOT),  # alpha_S stays
        ([FALLING] * 50, STARTS[:, ::-1], STARTS[:, ::-1] + 0.3, NOT),  # alpha_S falls
        ([FALLING] * 50, STARTS, STARTS + np.linspace(0.1, 0.4, DELTAS), NOT),  # the length grows
        ([FALLING] * 50, np.where(STARTS > 0.505, np.nan, STARTS), STARTS + 0.3, OPEN),  # one network has no interval
        ([FALLING] * 45, STARTS[:9], STARTS[:9] + 0.3, OPEN),
    ],
)
def test_t25_wants_growing_starts_and_lengths_that_stay(tests: Any, starts: Any, ends: Any, verdict: Any) -> None:
    assert noise.size_criterion(tests, starts, ends).verdict is verdict


def test_the_trend_is_what_a_line_in_log_delta_changes() -> None:
    assert noise.trend(np.log10(noise.DELTAS)) == pytest.approx(2.0)
    assert noise.trend([0.3] * DELTAS) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ([0.05, -0.05] * 5, REPRODUCED),
        ([0.2, -0.2] * 5, OPEN),
        ([0.2, 0.21] * 5, NOT),
        ([-0.2, -0.21] * 5, NOT),
        ([0.0] * 9, OPEN),
        ([0.0] * 9 + [float("nan")], OPEN),
    ],
)
def test_what_stays_about_the_same_is_tested_for_equivalence(changes: list[float], verdict: Any) -> None:
    ruling = stays(changes, 0.1, "change")
    assert ruling.verdict is verdict
    if verdict is OPEN and len(changes) == 10 and np.isfinite(changes).all():
        assert ruling.needed is not None
        assert ruling.needed > 10


NEAR, FAR = [0.02 + 0.001 * i for i in range(10)], [0.2 + 0.001 * i for i in range(10)]


@pytest.mark.parametrize(
    ("scale", "alone", "both", "verdict"),
    [
        (FAR, FAR, NEAR, REPRODUCED),
        (NEAR, FAR, NEAR, NOT),  # scale invariance alone does as well
        (FAR, NEAR, NEAR, NOT),  # noise alone does as well
        (FAR, FAR, [0.04, 0.065] * 5, OPEN),
        (FAR[::-1], FAR, [0.15] * 10, NOT),  # both together are not near
        (FAR[:9], FAR[:9], NEAR[:9], OPEN),
    ],
)
def test_t36_wants_both_near_and_neither_as_near(scale: Any, alone: Any, both: Any, verdict: Any) -> None:
    assert joint.criterion({"scale": scale, "noise": alone, "both": both}).verdict is verdict


def test_shares_of_right_answers_multiply_up_to_chance() -> None:
    found = joint.together(np.array([0.9, 0.55, 0.1]), np.array([0.9, 0.55, 0.1]), 0.1, 0.9)
    assert found == pytest.approx([0.9, 1 - 0.45**2 / 0.9, 0.1])


def test_the_distance_of_curves_is_a_share_of_the_drop() -> None:
    alphas = np.linspace(0, 1, 11)
    assert joint.distance(1 - 0.5 * alphas, 1.1 - 0.5 * alphas, alphas) == pytest.approx(0.2)
    assert np.isnan(joint.distance(np.ones(11), np.ones(11), alphas))


@pytest.mark.parametrize(
    ("deltas", "verdict"), [([1e-4] * 12, REPRODUCED), ([1e-4] * 6 + [0.1] * 5, OPEN), ([0.1] * 12, NOT), ([], OPEN)]
)
def test_t37_counts_violations_that_are_gone(deltas: list[float], verdict: Any) -> None:
    assert violations.removal_criterion(deltas).verdict is verdict


# Violations planted


class Rising(Bench):
    """Curves that rise once, by a quarter, from a point of the plateau or near the end."""

    at: int

    def measure(self, paths: Any, part: str = "test", model: Any = None, **options: Any) -> Any:
        return [raised(curve, self.at) for curve in super().measure(paths, part, model, **options)]


def raised(curve: Curve, at: int) -> Curve:
    """The curve with errors of every fourth example that hold from the point `at` on for three points."""
    assert curve.outcomes is not None
    errors = curve.outcomes.errors().T.copy()
    errors[at : at + 3, ::4] = 1.0
    balanced = curve.balanced_error.copy() if curve.balanced_error is not None else None
    assert balanced is not None
    balanced[at : at + 3] = 0.25 + 0.75 * balanced[at : at + 3]
    return replace(curve, outcomes=type(curve.outcomes).pack(list(errors)), balanced_error=balanced)


PLAIN = replace(small("plain"), test_examples=400)


@pytest.mark.parametrize("claim", [T20, T25, T26], ids=["T20", "T25", "T26"])
def test_a_rise_near_the_end_of_noise_curves_refutes(claim: Any, store: Store) -> None:
    bench = Rising(PLAIN, store)
    bench.at = 44
    ruling = judged(claim, PLAIN, bench)
    assert ruling.verdict is NOT
    assert str(ruling.details["beyond the plateau"]).startswith("not reproduced")


def test_a_rise_on_the_plateau_leaves_the_weaker_reading(store: Store) -> None:
    """Recorded beside T20's verdict: nothing rises once the plateau is left."""
    share = np.interp(np.arange(51), [0, 5, 8, 12, 20, 40, 50], [0.9, 0.9, 0.83, 0.9, 0.9, 0.05, 0.05])
    rows = [(np.arange(4000) < round(4000 * value)).astype(np.float32) for value in share]
    bench = Bench(PLAIN, store)
    (measured,) = bench.measure([noise.to_final(bench, 0, noise.drawn(bench, 0, "binary"))])
    assert measured.outcomes is not None
    outcomes = type(measured.outcomes).pack(rows)
    dented = replace(measured, balanced_error=share, outcomes=outcomes, classes=np.tile(np.arange(10), 400))
    tests = bench.rise_tests([dented] * 10)
    assert {test.decision for test in tests} == {NOT}
    assert noise.weaker([dented] * 10, tests)["beyond the plateau"].startswith("reproduced")
    late = replace(dented, outcomes=type(outcomes).pack([*rows[:45], *rows[25:26] * 6]))
    assert noise.weaker([late] * 10, bench.rise_tests([late] * 10))["beyond the plateau"].startswith("not reproduced")


def test_t21_sees_curves_that_rise(store: Store) -> None:
    bench = Rising(PLAIN, store)
    bench.at = 44
    ruling = judged(T21, PLAIN, bench)
    assert ruling.verdict is NOT
    assert str(ruling.details["within the margin"]).startswith("0 of 100")
    assert ruling.details["rise test: not reproduced"] == 100


def test_t36_of_a_network_whose_noise_is_nothing_needs_no_noise(store: Store) -> None:
    """Where theta_0 is tiny the path is the zero path: scale invariance alone predicts it."""

    class Quiet(Bench):
        def left_end(self, index: int, left: str) -> Any:
            state = super().left_end(index, left)
            return {name: tensor * 1e-6 for name, tensor in state.items()}

        def path(self, index: int, left: str) -> Any:
            if left == "zero":
                return super().path(index, left)
            return LinearPath(self.here(self.left_end(index, left)), self.here(self.run(self.settings[index]).final))

    ruling = judged(T36, PLAIN, Quiet(PLAIN, store))
    assert ruling.verdict is NOT
    assert "scale invariance alone" in ruling.reason


def test_t37_moves_biases_by_their_depth_and_weights_straight(store: Store) -> None:
    bench = Bench(PLAIN, store)
    run = bench.run(bench.settings[0])
    path = violations.homogeneous(bench, run)
    assert path.exponents == {"1.bias": 1, "3.bias": 2, "5.bias": 3}
    at = path.state(0.5)
    torch.testing.assert_close(at["3.bias"], 0.25 * (run.init["3.bias"] + run.final["3.bias"]))
    torch.testing.assert_close(at["3.weight"], 0.5 * (run.init["3.weight"] + run.final["3.weight"]))


def test_t37_is_refuted_where_the_violation_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(table: Any, subject: Any) -> Any:
        networks = [violations.Trained("adam", 0.1, i, 0.1, 0.5) for i in range(10)]
        return networks, list(table.settings), []

    monkeypatch.setattr(violations, "measure", measured)
    rising, flat = (lambda _, run: LinearPath(run.final, run.init)), (lambda _, run: LinearPath(run.final, run.final))
    monkeypatch.setattr(violations, "homogeneous", rising)
    assert judged(T37, PLAIN, Bench(PLAIN, store)).verdict is NOT
    monkeypatch.setattr(violations, "homogeneous", flat)
    assert judged(T37, PLAIN, Bench(PLAIN, store)).verdict is REPRODUCED
