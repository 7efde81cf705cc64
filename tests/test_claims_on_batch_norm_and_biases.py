"""Tests of T3, T5, T9, T34 and T38: criteria with an evidence for each verdict, and violations planted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from claim_benches import FALLING, MODULES, NAN, NOT, OPEN, REPRODUCED, TESTS, Bench, Listener, judged, small

from mli_check import states
from mli_check.curves import Curve
from mli_check.paths import LinearPath, Span
from mli_check.runs import Store
from mli_check.verdicts import Ruling
from mli_check.workbench import NOISY

pytestmark = pytest.mark.xdist_group("claims-criteria")

monotone, plateaus, softmax, violations = (
    MODULES[name] for name in ("test_monotone_paths", "test_plateaus", "test_linear_softmax", "test_violations")
)
PLAIN, WITH_BN = small("plain"), small("with BN", batch_norm=True)
FEW = small("fcn4-digits", subset=200)
T3 = plateaus.test_curves_from_unrelated_initialisations_have_the_same_shape
T5 = plateaus.test_scaled_network_is_as_good_at_small_alpha
T9 = softmax.test_linear_softmax_on_digits_falls_from_noise
T34 = violations.test_violators_have_wider_biases
T38 = monotone.test_error_rises_with_the_size_of_added_noise


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("claims") / "store")


# T3


def test_a_shape_forgets_where_a_curve_starts_and_ends() -> None:
    curve = np.array([0.9, 0.7, 0.2, 0.1])
    np.testing.assert_allclose(plateaus.shape(curve), plateaus.shape(0.3 * curve + 0.05))
    assert plateaus.shape(curve)[0] == 1
    assert plateaus.shape(curve)[-1] == 0
    assert np.isnan(plateaus.shape([0.5, 0.5])).all()


def test_the_distance_of_shapes_is_the_mean_gap_over_all_pairs() -> None:
    early, middle, late = [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]
    assert plateaus.distance([early, early, early]) == 0
    assert plateaus.distance([early, middle]) == pytest.approx(1 / 5)
    assert plateaus.distance([early, middle, late]) == pytest.approx((1 + 2 + 1) / 3 / 5)


NEAR = [0.02, 0.03] * 5


@pytest.mark.parametrize(
    ("distances", "verdict"),
    [
        pytest.param(NEAR, REPRODUCED, id="near"),
        pytest.param([10 * value for value in NEAR], NOT, id="far"),
        pytest.param([0.01, 0.09] * 5, OPEN, id="scattered"),
        pytest.param(NEAR[:9], OPEN, id="nine networks"),
        pytest.param([NAN, *NEAR[1:]], OPEN, id="a curve that never falls"),
    ],
)
def test_t3_wants_a_small_mean_distance(distances: list[float], verdict: str) -> None:
    assert plateaus.shape_criterion(distances).verdict is verdict


class LargerDraws(Bench):
    """The second and third initialisation are 4 and 16 times as large as they should be."""

    def left_end(self, index: int, left: str) -> states.State:
        factor = 4.0 ** (int(left.removeprefix("unrelated") or 1) - 1)
        return {n: t * factor if t.is_floating_point() else t for n, t in super().left_end(index, left).items()}


def test_initialisations_of_several_sizes_refute_that_shapes_agree(store: Store) -> None:
    assert judged(T3, WITH_BN, Bench(WITH_BN, store)).verdict is not NOT
    assert judged(T3, WITH_BN, LargerDraws(WITH_BN, store)).verdict is NOT


def test_unrelated_draws_differ_from_the_own_one_and_from_each_other(store: Store) -> None:
    table = Bench(PLAIN, store)
    ends = [states.digest(table.left_end(0, left)) for left in ("own", *plateaus.DRAWS)]
    assert len(set(ends)) == 4
    assert states.digest(table.left_end(0, "unrelated")) == ends[1]


# T5

SMALL, LARGE = [0.01 + 0.001 * (i % 3) for i in range(10)], [0.4 + 0.01 * (i % 3) for i in range(10)]


@pytest.mark.parametrize(
    ("without", "with_bn", "verdict"),
    [
        pytest.param(LARGE, SMALL, REPRODUCED, id="as claimed"),
        pytest.param(LARGE, [0.01, 0.1] * 5, OPEN, id="with BN near the margin"),
        pytest.param(SMALL, LARGE, NOT, id="exchanged"),
        pytest.param(SMALL, SMALL, NOT, id="good without BN too"),
        pytest.param(LARGE[:9], SMALL[:9], OPEN, id="nine pairs"),
    ],
)
def test_t5_wants_little_left_with_bn_and_more_without(without: Any, with_bn: Any, verdict: str) -> None:
    assert plateaus.excess_criterion(without, with_bn).verdict is verdict


class StillFar(Bench):
    """Curves that are read as if alpha had only just left zero."""

    def curves(self, left: str, norm_stats: str | None = None) -> list[Curve]:
        return [replace(found, alphas=found.alphas**0.05) for found in super().curves(left, norm_stats)]


def test_a_network_that_is_good_only_late_refutes_small_alphas(store: Store) -> None:
    pair = replace(PLAIN, name="vgg-digits")
    honest = Bench(PLAIN, store), Bench(WITH_BN, store)
    assert judged(T5, pair, *honest).verdict is not NOT
    assert judged(T5, pair, honest[0], StillFar(WITH_BN, store)).verdict is NOT
    assert judged(T5, pair, honest[1], honest[1]).verdict is NOT


# T9


def falling(rises: int, of: int = 100) -> tuple[list[list[float]], list[list[float]]]:
    """Curves of loss and error, `rises` of which rise on the last step."""
    losses = [[3.0, 1.0, 1.5 if index < rises else 0.5] for index in range(of)]
    return losses, [[0.9, 0.5, 0.1]] * of


@pytest.mark.parametrize(("rises", "verdict"), [(0, REPRODUCED), (8, OPEN), (30, NOT)])
def test_t9_wants_nearly_all_draws_to_fall(rises: int, verdict: str) -> None:
    losses, errors = falling(rises)
    assert softmax.criterion(losses, errors).verdict is verdict
    assert softmax.criterion(errors, losses).verdict is verdict


class Options:
    """Stands in for `pytestconfig`."""

    def getoption(self, name: str) -> int:
        assert name == "--mli-seed-offset"
        return 100


def judged_softmax() -> Ruling:
    mli = Listener()
    T9(mli, Options())
    return mli.ruling


def test_a_classifier_that_is_worse_than_noise_refutes_the_demonstration(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judged_softmax().verdict is not NOT
    honest = softmax.fitted
    monkeypatch.setattr(softmax, "fitted", lambda images, labels: -honest(images, labels))
    assert judged_softmax().verdict is NOT


def test_the_demonstration_evaluates_the_line_of_weights() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((20, 5)), np.arange(20) % 3
    noise, weights = rng.standard_normal((2, 3, 5))
    losses, errors = softmax.along(images, labels, noise, weights, [0.25])
    logits = images @ (0.75 * noise + 0.25 * weights).T
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert losses == [pytest.approx(-np.log(probabilities[np.arange(20), labels]).mean())]
    assert errors == [np.mean(probabilities.argmax(axis=1) != labels)]


# T34


def with_biases(spread: dict[bool, float], *, centre: float = 0.0, rates: tuple[float, ...] = (0.03, 0.1)) -> list[Any]:
    """At each rate six violators and six others, with biases of the spread of their kind."""
    found = []
    for rate in rates:
        for index in range(12):
            violates = index < 6
            size = spread[violates] * (1 + 0.02 * (index % 3))
            biases = [size * (centre + sign) for sign in (-1.0, 1.0)]
            optimiser, delta = ("adam", 0.5) if violates else ("sgd", 0.0)
            found.append(violations.Trained(optimiser, rate, index, 0.05, delta, biases))
    return found


@pytest.mark.parametrize(
    ("networks", "verdict"),
    [
        pytest.param(with_biases({True: 0.4, False: 0.1}), REPRODUCED, id="as claimed"),
        pytest.param(with_biases({True: 0.1, False: 0.4}), NOT, id="exchanged"),
        pytest.param(with_biases({True: 0.1, False: 0.1}), NOT, id="equal"),
        pytest.param(with_biases({True: 0.4, False: 0.1}, centre=3.0), NOT, id="far from zero"),
        pytest.param(with_biases({True: 0.4, False: 0.1})[:12][3:], OPEN, id="three violators"),
        pytest.param([], OPEN, id="none"),
    ],
)
def test_t34_wants_wider_biases_within_a_rate_centred_on_zero(networks: list[Any], verdict: str) -> None:
    assert violations.bias_criterion(networks).verdict is verdict


def test_t34_does_not_take_the_width_of_a_large_rate_for_that_of_violators() -> None:
    small_rate = [n for n in with_biases({True: 0.1, False: 0.1}, rates=(0.01,)) if not n.violates]
    large_rate = [n for n in with_biases({True: 0.9, False: 0.9}, rates=(0.1,)) if n.violates]
    assert violations.bias_criterion(small_rate + large_rate).verdict is OPEN


def test_biases_of_layers_and_shifts_of_bn_are_told_apart(store: Store) -> None:
    state = Bench(WITH_BN, store).run(WITH_BN.settings()[0]).final
    biases, shifts = violations.biases_of(state)
    assert len(biases) == 32 + 32 + 10
    assert len(shifts) == 32 + 32
    assert shifts == [*state["2.bias"].tolist(), *state["5.bias"].tolist()]


def test_exchanged_violators_refute_wider_biases(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network counts as a violator where its biases are narrow for its rate."""
    table = Bench(FEW, store)
    networks, _, _ = violations.measure(table, FEW)
    spreads = {(n.optimiser, n.rate, n.network): violations.spread(n.biases) for n in networks if n.biases}
    medians = {rate: np.median([s for (_, r, _), s in spreads.items() if r == rate]) for rate in violations.RATES}

    def planted(narrow: bool) -> Any:
        return [
            replace(n, delta=float(bool(spreads[n.optimiser, n.rate, n.network] < medians[n.rate]) is narrow))
            for n in networks
            if n.biases
        ]

    for narrow, verdict in ((True, NOT), (False, None)):
        monkeypatch.setattr(violations, "measure", lambda *_, narrow=narrow: (planted(narrow), [], []))
        found = judged(T34, FEW, table)
        assert (found.verdict is NOT) is (verdict is NOT)


# T38


@pytest.mark.parametrize("sign", list(NOISY))
def test_noisy_ends_are_the_network_with_its_initialisation_added_or_taken_away(sign: str, store: Store) -> None:
    table = Bench(WITH_BN, store)
    run, found = table.run(table.settings[0]), table.left_end(0, sign)
    for name, tensor in run.final.items():
        trained = name in states.parameters(run.final)
        wanted = tensor + NOISY[sign] * run.init[name] if trained else tensor
        assert (found[name] == wanted).all()


HURTS = [0.3 + 0.01 * (index % 3) for index in range(10)]


@pytest.mark.parametrize("verdict", [REPRODUCED, OPEN, NOT])
def test_t38_wants_both_signs_to_fall(verdict: Any) -> None:
    good, other = [FALLING] * 10, [FALLING] * 9 + [TESTS[verdict]]
    for first, second in ((good, other), (other, good)):
        tests = {"plus": first, "minus": second}
        assert monotone.noise_criterion(tests, {"plus": HURTS, "minus": HURTS}).verdict is verdict


@pytest.mark.parametrize(
    ("increases", "verdict"),
    [
        pytest.param(HURTS, REPRODUCED, id="noise hurts"),
        pytest.param([0.001, -0.001] * 5, NOT, id="noise does nothing"),
        pytest.param([0.3, -0.2] * 5, OPEN, id="scattered"),
        pytest.param(HURTS[:9], OPEN, id="nine networks"),
    ],
)
def test_t38_wants_noise_of_either_sign_to_hurt(increases: list[float], verdict: str) -> None:
    tests = {"plus": [FALLING] * 10, "minus": [FALLING] * 10}
    for one, other in ((HURTS, increases), (increases, HURTS)):
        assert monotone.noise_criterion(tests, {"plus": one, "minus": other}).verdict is verdict


class BetterWithNoise(Bench):
    """Adding the noise leads away from the trained network and back to another good one."""

    def path(self, index: int, left: str) -> Span:
        finals = [self.run(self.settings[(index + step) % len(self.settings)]).final for step in (1, 0)]
        return LinearPath(*finals)


def test_noise_that_leads_to_another_good_network_refutes_robustness(store: Store) -> None:
    for table, refuted in ((Bench(PLAIN, store), False), (BetterWithNoise(PLAIN, store), True)):
        found = judged(T38, PLAIN, table)
        assert ("surely rises by more" in found.reason) is refuted
    assert found.verdict is NOT
