"""Tests of T18, T19, T29, T32, X3, X5 and X11: criteria with an evidence for each verdict, and violations planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from claim_benches import MODULES, NAN, NOT, OPEN, REPRODUCED, Bench, Listener, judged, small

from mli_check import evaluate, states
from mli_check.curves import Curve
from mli_check.paths import RectifiedPath, ScaledPath
from mli_check.runs import Run, Store
from mli_check.settings import Setting
from mli_check.subjects import Subject
from mli_check.symmetry import with_eta
from mli_check.verdicts import Constancy, Ruling, compare, unchanged
from mli_check.workbench import POWERS, SCALES, with_eta_as_tensor

pytestmark = pytest.mark.xdist_group("claims-criteria")

scaled, zero, apart = (MODULES[n] for n in ("test_scaled_networks", "test_zero_paths", "test_output_differences"))
T18 = scaled.test_gap_between_alpha_theta_and_theta_is_set_by_the_biases
T19 = apart.test_outputs_of_alpha_theta_and_rsi_differ_by_the_last_bias
T29 = scaled.test_error_of_scale_invariant_networks_is_flat
T32 = scaled.test_biases_of_the_fully_connected_layers_weaken_nsi
X3 = zero.test_zero_path_of_a_network_with_bn_is_moved_by_the_last_bias_and_by_eta_alone
X5 = zero.test_biases_that_move_as_powers_of_alpha_leave_no_plateau
X11 = zero.test_distance_moved_depends_on_the_choice_among_equal_networks


def changed(subject: Subject, **fields: Any) -> Subject:
    """The subject with another model, and few test images."""
    setting = replace(subject.setting, model=replace(subject.setting.model, **fields))
    return replace(subject, setting=setting, test_examples=200)


PLAIN, WITH_BN = changed(small("plain")), changed(small("with BN", batch_norm=True))
NO_BIAS = changed(PLAIN, bias=False)
LENET = replace(
    changed(small("lenet", batch_norm=True, subset=300, lr=0.02), name="lenet", variant="tiny", hidden=()),
    calibration_examples=100,
    test_examples=100,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("claims") / "store")


def with_final(run: Run, final: states.State) -> Run:
    other = replace(run)
    other.__dict__["final"] = final
    return other


# Outputs that must not change

LOGITS = np.array([[[3.0, 1.0], [-2.0, 5.0]], [[6.0, 2.0], [-4.0, 10.0]]], np.float32)
EXACT = np.array([True, False])
SAME = Constancy(unequal=0, changed=0, close=0, predictions=400)


def test_equal_outputs_are_constant() -> None:
    assert compare(LOGITS, LOGITS, EXACT) == Constancy(unequal=0, changed=0, close=0, predictions=4)
    assert compare(LOGITS, LOGITS, ~EXACT & EXACT).unequal is None


def test_bits_are_compared_where_equality_is_exact_and_predictions_everywhere() -> None:
    nudged = LOGITS * np.float32(1 + 1e-6)
    assert compare(nudged, LOGITS, EXACT) == Constancy(unequal=4, changed=0, close=0, predictions=4)
    swapped = LOGITS[..., ::-1].copy()
    assert compare(swapped, LOGITS, EXACT) == Constancy(unequal=4, changed=4, close=0, predictions=4)
    assert compare(LOGITS * NAN, LOGITS, EXACT).changed == 4


def test_predictions_within_rounding_are_counted_and_not_judged() -> None:
    near = np.array([[[1.0, 1.00005], [1.0, 1.001]]], np.float32)
    found = compare(near[..., ::-1].copy(), near, EXACT[1:])
    assert (found.changed, found.close) == (1, 1)
    ties = np.zeros((1, 2, 3), np.float32)
    assert compare(ties, ties, EXACT[1:]).close == 2


@pytest.mark.parametrize(
    ("last", "verdict"),
    [
        pytest.param({}, REPRODUCED, id="the same"),
        pytest.param({"close": 4}, REPRODUCED, id="few within rounding"),
        pytest.param({"close": 5}, OPEN, id="too many within rounding"),
        pytest.param({"unequal": None}, REPRODUCED, id="exact nowhere"),
        pytest.param({"unequal": 1}, NOT, id="one bit"),
        pytest.param({"changed": 1}, NOT, id="one prediction"),
        pytest.param({"unequal": 1, "close": 5}, NOT, id="one bit, and many within rounding"),
    ],
)
def test_outputs_are_unchanged_if_those_of_every_network_are(last: dict[str, Any], verdict: str) -> None:
    assert unchanged([SAME] * 9 + [replace(SAME, **last)]).verdict is verdict


def test_no_network_shows_nothing() -> None:
    assert unchanged([]).verdict is OPEN


# What the workbench measures


def test_eta_on_the_path_is_eta_set_by_hand(store: Store) -> None:
    table = Bench(WITH_BN, store)
    final = table.run(table.settings[0]).final
    path = RectifiedPath(final, table.symmetries)
    curve = table.scaled_curve(path, eta_follows=True)
    for alpha in POWERS[:2]:
        factors = {name: alpha**k for name, k in path.exponents.items()}
        model = with_eta(table.model, table.symmetries, factors)
        by_hand = evaluate(model, path, table.test, alphas=[0.0, alpha], calibration=table.calibration, keep="logits")
        np.testing.assert_array_equal(by_hand.logits[1], curve.logits[SCALES.index(alpha)])  # type: ignore[index]
        assert (table.scaled_curve(path).logits[SCALES.index(alpha)] != by_hand.logits[1]).any()  # type: ignore[index]


def test_eta_as_a_tensor_changes_neither_the_model_nor_what_it_computes(store: Store) -> None:
    table = Bench(WITH_BN, store)
    names = list(table.model.state_dict())
    found = with_eta_as_tensor(table.model)
    inputs = table.train.rows(slice(0, 20))
    assert list(table.model.state_dict()) == names
    assert set(found.state_dict()) - set(names) == {"2.eta", "5.eta"}
    assert torch.equal(found(inputs), table.model(inputs))


def test_a_curve_is_measured_once_for_each_path_and_eta(store: Store) -> None:
    table = Bench(WITH_BN, store)
    final = table.run(table.settings[0]).final
    one, other = ScaledPath(final), ScaledPath(final, exponents={"7.bias": 2.0})
    found = [table.scaled_curve(path, eta_follows=f) for path in (one, other) for f in (True, False)]
    assert len({id(curve) for curve in found}) == 4
    assert table.scaled_curve(ScaledPath(states.clone(final)), eta_follows=True) is found[0]
    doubled = {name: tensor * 2 if tensor.is_floating_point() else tensor for name, tensor in final.items()}
    assert table.scaled_curve(ScaledPath(doubled), eta_follows=True) is not found[0]


def test_constancy_takes_the_factor_of_the_output_into_account(store: Store) -> None:
    table = Bench(NO_BIAS, store)
    path = ScaledPath(table.run(table.settings[0]).final)
    curve = table.scaled_curve(path)
    assert table.constancy(path, curve).unequal == 0
    assert table.constancy(ScaledPath(path.final, exponents={"1.weight": 2.0}), curve).unequal != 0


# T29


class AlphaTheta(Bench):
    """Biases are scaled like weights, whatever the path says."""

    def scaled_curve(self, path: ScaledPath, *, eta_follows: bool = False) -> Curve:
        return super().scaled_curve(ScaledPath(path.final), eta_follows=eta_follows)


class UsualEta(Bench):
    """eta stays as it was trained with."""

    def scaled_curve(self, path: ScaledPath, *, eta_follows: bool = False) -> Curve:
        return super().scaled_curve(path)


class OneAlphaTheta(Bench):
    """In one network of ten the last bias is scaled like a weight."""

    def scaled_curve(self, path: ScaledPath, *, eta_follows: bool = False) -> Curve:
        if states.digest(path.final) == states.digest(self.run(self.settings[7]).final):
            path = ScaledPath(path.final, exponents={**path.exponents, "5.bias": 1.0})
        return super().scaled_curve(path, eta_follows=eta_follows)


def wrong_gsi(symmetries: Any, factors: Any, restore: Any) -> dict[str, float]:
    return {**dict.fromkeys(symmetries.tensors, 2.0), "5.weight": 1.0}


@pytest.mark.parametrize(
    "subject",
    [PLAIN, NO_BIAS, WITH_BN, changed(WITH_BN, bias=False)],
    ids=["with biases", "neither", "with both", "with BN"],
)
def test_t29_holds_for_small_networks_of_each_group(subject: Subject, store: Store) -> None:
    assert judged(T29, subject, Bench(subject, store)).verdict is REPRODUCED


@pytest.mark.parametrize(
    ("subject", "planted"),
    [
        pytest.param(PLAIN, AlphaTheta, id="biases scaled like weights"),
        pytest.param(PLAIN, OneAlphaTheta, id="one bias of one network"),
        pytest.param(WITH_BN, AlphaTheta, id="with BN, biases scaled like weights"),
        pytest.param(WITH_BN, UsualEta, id="the usual eta"),
    ],
)
def test_a_path_that_is_no_symmetry_is_not_flat(subject: Subject, planted: type[Bench], store: Store) -> None:
    assert judged(T29, subject, planted(subject, store)).verdict is NOT


def test_without_biases_and_bn_the_path_is_that_of_gsi(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Bench(NO_BIAS, store)
    final = table.run(table.settings[0]).final
    assert scaled.invariant(table, final).exponents == {"1.weight": 1.0, "3.weight": 1.0, "5.weight": 1.0}
    monkeypatch.setattr(scaled, "gsi", wrong_gsi)
    assert scaled.invariant(table, final).exponents["5.weight"] == 0.0


def test_the_alpha_from_which_curves_have_settled() -> None:
    class Falling:
        def __init__(self, last_off: int) -> None:
            self.balanced_error = np.where(np.arange(len(SCALES)) <= last_off, 0.5, 0.1)

    assert scaled.settled([Falling(2), Falling(4)]) == SCALES[5]
    assert scaled.settled([Falling(-1)]) == SCALES[0]


# T32

WEAKENED, NO_EXCESS, UNCLEAR = [0.3, 0.4] * 5, [0.001, -0.001] * 5, [0.3, -0.2] * 5
BROKEN = replace(SAME, changed=1)


@pytest.mark.parametrize(
    ("excesses", "rectified", "head", "verdict"),
    [
        pytest.param(WEAKENED, SAME, SAME, REPRODUCED, id="as claimed"),
        pytest.param(UNCLEAR, SAME, SAME, OPEN, id="scattered"),
        pytest.param(WEAKENED[:9], SAME, SAME, OPEN, id="nine networks"),
        pytest.param(NO_EXCESS, SAME, SAME, NOT, id="NSI holds"),
        pytest.param(WEAKENED, BROKEN, SAME, NOT, id="RSI does not"),
        pytest.param(WEAKENED, SAME, BROKEN, NOT, id="not by the head alone"),
    ],
)
def test_t32_wants_an_excess_that_the_biases_of_the_head_explain(
    excesses: list[float], rectified: Constancy, head: Constancy, verdict: str
) -> None:
    assert scaled.head_criterion(excesses, [rectified] * 10, [head] * 10).verdict is verdict


class WithoutHeadBiases(Bench):
    """The biases of the linear layers are zero."""

    def run(self, setting: Setting) -> Run:
        found = super().run(setting)
        heads = ("9.bias", "11.bias", "13.bias")
        return with_final(found, {n: torch.zeros_like(t) if n in heads else t for n, t in found.final.items()})


@pytest.mark.parametrize(
    ("planted", "part"),
    [
        pytest.param(WithoutHeadBiases, "NSI is weakened", id="no biases in the head"),
        pytest.param(UsualEta, "RSI holds", id="the usual eta"),
    ],
)
def test_networks_that_nsi_fits_or_rsi_does_not_refute_t32(planted: type[Bench], part: str, store: Store) -> None:
    assert judged(T32, LENET, Bench(LENET, store)).verdict is REPRODUCED
    found = judged(T32, LENET, planted(LENET, store))
    assert found.verdict is NOT
    assert str(found.details[part]).startswith(str(NOT))


def test_an_excess_from_elsewhere_than_the_head_refutes_t32(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaled, "head_path", lambda table, final: ScaledPath(final))
    found = judged(T32, LENET, Bench(LENET, store))
    assert found.verdict is NOT
    assert found.reason.startswith("by the head's biases alone")


# T18

GROWING = {0.25: [0.1] * 10, 0.5: [0.2] * 10, 1.0: [0.3, 0.31] * 5, 2.0: [0.4] * 10}
LEVEL = dict.fromkeys(GROWING, [0.2, 0.21] * 5)


def test_the_gap_is_the_mean_height_above_the_end() -> None:
    class Stairs:
        alphas = np.array([0.0, 0.2, 0.6, 1.0])
        balanced_error = np.array([0.9, 0.5, 0.3, 0.1])

    assert scaled.gap(Stairs) == pytest.approx((0.4 * 0.3 + 0.4 * 0.1) / 0.8)


@pytest.mark.parametrize(
    ("gaps", "without", "verdict"),
    [
        pytest.param(GROWING, SAME, REPRODUCED, id="as claimed"),
        pytest.param({c: values[:9] for c, values in GROWING.items()}, SAME, OPEN, id="nine networks"),
        pytest.param({**GROWING, 2.0: [0.9, -0.4] * 5}, SAME, OPEN, id="unclear at the end"),
        pytest.param(LEVEL, SAME, NOT, id="no growth"),
        pytest.param(dict(zip(GROWING, reversed(GROWING.values()), strict=True)), SAME, NOT, id="shrinking"),
        pytest.param(GROWING, BROKEN, NOT, id="changed without biases"),
    ],
)
def test_t18_wants_a_gap_that_grows_with_the_biases_and_none_without(
    gaps: dict[float, list[float]], without: Constancy, verdict: str
) -> None:
    assert scaled.size_criterion(gaps, [without] * 10).verdict is verdict


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [([0.01] * 10, REPRODUCED), ([0.02, 0.08] * 5, OPEN), ([0.01] * 9, OPEN), ([0.2] * 10, NOT)],
)
def test_t18_wants_no_gap_without_biases_or_with_bn(shares: list[float], verdict: str) -> None:
    assert scaled.alike_criterion(shares).verdict is verdict


def scale(state: states.State, factor: float) -> dict[str, torch.Tensor]:
    return {name: tensor * factor if name.endswith("bias") else tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("planted", "part"),
    [
        pytest.param(lambda s, c: scale(s, 0.25 / c if c else 0.0), "grows with the biases", id="the other way round"),
        pytest.param(lambda s, c: scale(s, float(c > 0)), "grows with the biases", id="biases never change"),
        pytest.param(lambda s, c: scale(s, max(c, 0.1)), "none without biases", id="biases stay"),
    ],
)
def test_biases_of_another_size_refute_t18(
    planted: Callable[..., Any], part: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Bench(PLAIN, store)
    assert judged(T18, PLAIN, table).verdict is REPRODUCED
    monkeypatch.setattr(scaled, "with_biases", planted)
    found = judged(T18, PLAIN, table)
    assert found.verdict is NOT
    assert found.reason.startswith(part)


def test_networks_with_biases_are_not_alike(store: Store) -> None:
    assert judged(T18, NO_BIAS, Bench(NO_BIAS, store)).verdict is REPRODUCED
    assert judged(T18, NO_BIAS, Bench(PLAIN, store)).verdict is NOT


# T19

CONSTANTS, ALPHAS = np.array([-1.0, 0.5, 1.0]), np.array([0.25, 0.5, 1.0])


def differences(plain: Callable[[Any, Any], Any], restored: Callable[[Any, Any], Any]) -> Any:
    b, alphas = CONSTANTS[:, None], ALPHAS[None, :]
    return apart.Differences(plain(b, alphas), restored(b, alphas), restored(b, alphas))


def true_plain(b: Any, a: Any) -> Any:
    return (a * (1 - a) * b) ** 2


def true_restored(b: Any, a: Any) -> Any:
    return ((1 - a) / a * b) ** 2


@pytest.mark.parametrize(
    ("last", "verdict", "part"),
    [
        pytest.param((true_plain, true_restored), REPRODUCED, "all", id="as claimed"),
        pytest.param((lambda b, a: 1.1 * true_plain(b, a), true_restored), NOT, "closed form", id="another form"),
        pytest.param((true_plain, true_plain), NOT, "closed form", id="not restored"),
        pytest.param((true_plain, lambda b, a: NAN * a * b), OPEN, "closed form", id="no number"),
    ],
)
def test_t19_wants_the_closed_form_in_every_network(last: Any, verdict: str, part: str) -> None:
    found = [differences(true_plain, true_restored)] * 9 + [differences(*last)]
    ruling = apart.last_bias_criterion(found, CONSTANTS, ALPHAS)
    assert ruling.verdict is verdict
    assert ruling.reason.startswith(part)


@pytest.mark.parametrize(
    ("restored", "part"),
    [
        pytest.param(lambda b, a: true_restored(1 / b, a), "grows with |b|", id="shrinks with b"),
        pytest.param(lambda b, a: true_restored(b, 1.25 - a), "falls with alpha", id="rises with alpha"),
    ],
)
def test_t19_wants_growth_with_the_constant_and_a_fall_with_alpha(restored: Any, part: str) -> None:
    ruling = apart.last_bias_criterion([differences(true_plain, restored)] * 10, CONSTANTS, ALPHAS)
    assert str(ruling.details[part]).startswith(str(NOT))


class Options:
    """Stands in for `pytestconfig`."""

    def getoption(self, name: str) -> int:
        assert name == "--mli-seed-offset"
        return 100


def judged_differences() -> Ruling:
    mli = Listener()
    T19(mli, Options())
    return mli.ruling


class LastBiasLikeAWeight(RectifiedPath):
    def __init__(self, final: states.State, symmetries: Any) -> None:
        super().__init__(final, symmetries)
        self.exponents["3.bias"] = 1.0


class RestoredByOneLayer(RectifiedPath):
    def temperature(self, point: Any) -> float:
        return float(super().temperature(point) ** 0.5)


@pytest.mark.parametrize("planted", [LastBiasLikeAWeight, RestoredByOneLayer])
def test_another_rsi_refutes_t19(planted: type[RectifiedPath], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "STEPS", np.array([0.25, 0.5, 1.0]))
    assert judged_differences().verdict is REPRODUCED
    monkeypatch.setattr(apart, "RectifiedPath", planted)
    assert judged_differences().verdict is NOT


# X3


class OnlyTheLastBias(Bench):
    """Networks with BN whose layers have no biases but the last, which is ten times as large."""

    def run(self, setting: Setting) -> Run:
        found = super().run(setting)
        factors = {"1.bias": 0.0, "4.bias": 0.0, "7.bias": 10.0}
        return with_final(found, {n: t * factors[n] if n in factors else t for n, t in found.final.items()})


class OnlyTheLastBiasUsualEta(OnlyTheLastBias):
    def scaled_curve(self, path: ScaledPath, *, eta_follows: bool = False) -> Curve:
        return super().scaled_curve(path)


@pytest.mark.parametrize(
    ("moved", "flat", "verdict"),
    [(SAME, SAME, REPRODUCED), (SAME, BROKEN, NOT), (BROKEN, SAME, NOT), (replace(SAME, close=40), SAME, OPEN)],
)
def test_x3_wants_the_predicted_outputs_and_a_flat_error_without_bias(
    moved: Constancy, flat: Constancy, verdict: str
) -> None:
    assert zero.last_layer_criterion([moved] * 10, [flat] * 10).verdict is verdict


def test_x3_predicts_the_outputs_of_a_network_with_bn(store: Store) -> None:
    assert judged(X3, WITH_BN, OnlyTheLastBias(WITH_BN, store)).verdict is REPRODUCED


def test_the_usual_eta_refutes_x3(store: Store) -> None:
    found = judged(X3, WITH_BN, OnlyTheLastBiasUsualEta(WITH_BN, store))
    assert found.verdict is NOT
    assert str(found.details["flat without the last bias"]).startswith(str(NOT))


def test_another_prediction_refutes_x3(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero, "predicted", lambda curve, bias: np.stack([curve.logits[-1] + bias.numpy()] * 10))
    found = judged(X3, WITH_BN, OnlyTheLastBias(WITH_BN, store))
    assert found.verdict is NOT
    assert found.reason.startswith("argmax")


# X5

LONG, SHORT = [0.3, 0.31] * 5, [0.01] * 10


@pytest.mark.parametrize(
    ("tensors", "outputs", "plateaus", "verdict"),
    [
        pytest.param([0] * 10, SAME, (LONG, SHORT), REPRODUCED, id="as claimed"),
        pytest.param([0] * 9 + [1], SAME, (LONG, SHORT), NOT, id="one tensor differs"),
        pytest.param([0] * 10, BROKEN, (LONG, SHORT), NOT, id="outputs change"),
        pytest.param([0] * 10, SAME, (SHORT, SHORT), NOT, id="no plateau to explain"),
        pytest.param([0] * 10, SAME, ([0.4, -0.3] * 5, SHORT), OPEN, id="scattered"),
        pytest.param([0] * 9, SAME, (LONG[:9], SHORT[:9]), OPEN, id="nine networks"),
    ],
)
def test_x5_wants_equal_paths_constant_outputs_and_a_plateau_that_goes(
    tensors: list[int], outputs: Constancy, plateaus: Any, verdict: str
) -> None:
    assert zero.mismatch_criterion(tensors, [outputs] * 10, plateaus).verdict is verdict


def one_layer_late(model: torch.nn.Module) -> dict[str, float]:
    return {name: k + 1 for name, k in RIGHT_COUNT(model).items()}


class Scaled(ScaledPath):
    """alpha * theta in the place of RSI."""

    def __init__(self, final: states.State, symmetries: Any) -> None:
        super().__init__(final)


RIGHT_COUNT = zero.counted


@pytest.mark.parametrize(
    ("name", "planted"),
    [
        pytest.param("counted", one_layer_late, id="counted one layer late"),
        pytest.param("counted", lambda model: {}, id="no bias counted"),
        pytest.param("RectifiedPath", Scaled, id="RSI without its exponents"),
    ],
)
def test_other_exponents_refute_x5(name: str, planted: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Bench(PLAIN, store)
    assert RIGHT_COUNT(table.model) == {"1.bias": 1, "3.bias": 2, "5.bias": 3}
    assert judged(X5, PLAIN, table).verdict is not NOT
    monkeypatch.setattr(zero, name, planted)
    found = judged(X5, PLAIN, table)
    assert found.verdict is NOT
    assert found.reason.startswith("RSI is alpha^l")


def test_networks_whose_biases_are_zero_have_no_plateau_to_explain(store: Store) -> None:
    class ZeroBiases(Bench):
        def run(self, setting: Setting) -> Run:
            found = super().run(setting)
            return with_final(found, scale(found.final, 0.0))

    found = judged(X5, PLAIN, ZeroBiases(PLAIN, store))
    assert found.verdict is NOT
    assert found.reason.startswith("the plateau is gone")


# X11

FAR, FLAT, EQUAL = ({"a": value, "b": value} for value in (8.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("outputs", "growth", "deltas", "verdict"),
    [
        pytest.param(EQUAL, FAR, FLAT, REPRODUCED, id="as claimed"),
        pytest.param({**EQUAL, "b": 3.0}, FAR, FLAT, NOT, id="another function"),
        pytest.param(EQUAL, {**FAR, "b": 3.9}, FLAT, NOT, id="not far enough"),
        pytest.param(EQUAL, FAR, {**FLAT, "b": 0.01}, NOT, id="a rise"),
        pytest.param(EQUAL, FAR, {**FLAT, "b": NAN}, OPEN, id="no number"),
        pytest.param({}, {}, {}, OPEN, id="no network"),
    ],
)
def test_x11_wants_the_same_function_far_away_and_no_rise(outputs: Any, growth: Any, deltas: Any, verdict: str) -> None:
    assert zero.distance_criterion(outputs, growth, deltas).verdict is verdict


class Everyone(Bench):
    """A bench whose networks all count as monotone themselves."""

    def loss_curves(self, runs: Sequence[Run]) -> list[Curve]:
        return [replace(found, loss=np.sort(found.loss)[::-1]) for found in super().loss_curves(runs)]


class FromAnotherNetwork(Everyone):
    """The rescaled networks are approached from another network, with a barrier between."""

    def losses_on_lines(self, ends: Sequence[tuple[states.State, states.State]]) -> list[Curve]:
        return super().losses_on_lines([(self.run(self.settings[3]).final, final) for _, final in ends])


def uncompensated(symmetries: Any, factors: Any) -> dict[str, float]:
    return {f"{layer.removesuffix('.weight')}.weight": factor for layer, factor in factors.items()}


def unmoved(symmetries: Any, factors: Any) -> dict[str, float]:
    return dict.fromkeys(symmetries.tensors, 1.0)


@pytest.mark.parametrize(
    ("vsi", "bench", "part"),
    [
        pytest.param(uncompensated, Everyone, "the same function", id="nothing compensates"),
        pytest.param(unmoved, Everyone, "farther", id="nothing moves"),
        pytest.param(zero.vsi, FromAnotherNetwork, "monotone", id="a barrier"),
    ],
)
def test_a_rescaling_that_shows_nothing_refutes_x11(
    vsi: Any, bench: type[Bench], part: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zero, "vsi", vsi)
    found = judged(X11, PLAIN, bench(PLAIN, store))
    assert found.verdict is NOT
    assert found.reason.startswith(part)


def test_networks_that_are_not_monotone_themselves_are_left_out_of_x11(store: Store) -> None:
    class Backwards(Bench):
        def loss_curves(self, runs: Sequence[Run]) -> list[Curve]:
            return [replace(found, loss=found.loss[::-1]) for found in super().loss_curves(runs)]

    found = judged(X11, PLAIN, Backwards(PLAIN, store))
    assert found.verdict is OPEN
    assert found.details["networks left out, not monotone themselves"] == 10
