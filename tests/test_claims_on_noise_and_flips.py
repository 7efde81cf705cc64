"""Tests of X4, X9, X10 and T22: criteria with an evidence for each verdict, and violations planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from claim_benches import MODULES, NAN, NOT, OPEN, REPRODUCED, Bench, Listener, judged, small

from mli_check import states
from mli_check.paths import ScaledPath, Span
from mli_check.runs import Run, Store
from mli_check.settings import Setting
from mli_check.theory import last_bias_flips
from mli_check.training.fit import network
from mli_check.verdicts import Constancy, Ruling

pytestmark = pytest.mark.xdist_group("claims-criteria")

flips, noise, softmax = (MODULES[n] for n in ("test_last_bias_flips", "test_gradient_noise", "test_linear_softmax"))
X4 = flips.test_one_pass_predicts_where_each_example_flips
X9 = noise.test_sign_of_the_slope_of_the_training_loss_under_gradient_noise_is_predicted
T22 = noise.test_error_rises_near_the_end_under_gradient_noise
X10 = softmax.test_loss_of_a_softmax_classifier_is_convex_and_falls_from_any_noise_on_its_side
PLAIN = replace(small("plain"), test_examples=300)
DECAYING = replace(small("decaying", weight_decay=1e-3), test_examples=300)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("claims") / "store")


def with_final(run: Run, final: states.State) -> Run:
    other = replace(run)
    other.__dict__["final"] = final
    return other


# X4: the criterion

SAME = Constancy(unequal=None, changed=0, close=0, predictions=400)
PLATEAUS = {1: 0.1, 3: 0.3, 5: 0.5}


def deep(plateaus: dict[int, float], count: int = 10, **last: Any) -> dict[int, list[Any]]:
    """Networks by depth, all alike but the last one of the deepest."""
    found = {d: [flips.Followed(SAME, 50, 0, plateau) for _ in range(count)] for d, plateau in plateaus.items()}
    found[max(found)][-1] = replace(found[max(found)][-1], **last)
    return found


@pytest.mark.parametrize(
    ("networks", "verdict", "part"),
    [
        pytest.param(deep(PLATEAUS), REPRODUCED, "all", id="as claimed"),
        pytest.param(deep(PLATEAUS, outputs=replace(SAME, close=4)), REPRODUCED, "all", id="few within rounding"),
        pytest.param(deep(PLATEAUS, flips=0), REPRODUCED, "all", id="one network without a flip"),
        pytest.param(deep(PLATEAUS, outputs=replace(SAME, close=5)), OPEN, "every prediction", id="many within it"),
        pytest.param(deep(PLATEAUS, count=9), OPEN, "longer", id="nine seeds"),
        pytest.param(deep(PLATEAUS, plateau=NAN), OPEN, "longer", id="a curve that never falls"),
        pytest.param(deep(PLATEAUS, outputs=replace(SAME, changed=1)), NOT, "every prediction", id="one prediction"),
        pytest.param(deep(PLATEAUS, misplaced=1), NOT, "every flip", id="one flip"),
        pytest.param(deep({1: 0.5, 3: 0.3, 5: 0.1}), NOT, "longer", id="shorter with depth"),
        pytest.param(deep(dict.fromkeys(PLATEAUS, 0.3)), NOT, "longer", id="as long at every depth"),
    ],
)
def test_x4_wants_every_class_and_flip_as_predicted_and_plateaus_that_grow(
    networks: dict[int, list[Any]], verdict: str, part: str
) -> None:
    found = flips.criterion(networks)
    assert found.verdict is verdict
    assert found.reason.startswith(part)


def test_x4_wants_a_flip_at_every_depth() -> None:
    networks = deep(PLATEAUS)
    networks[1] = [replace(one, flips=0) for one in networks[1]]
    found = flips.criterion(networks)
    assert found.verdict is OPEN
    assert "1 deep, no flip" in found.reason


def test_steps_count_as_misplaced_where_they_are_not_both_measured_and_predicted() -> None:
    clear = np.zeros((4, 1, 3))
    clear[..., 0] = 1.0
    measured = np.array([[0], [0], [1], [1]])
    assert flips.misplaced(measured, measured, clear) == 0
    assert flips.misplaced(measured, np.array([[0], [0], [0], [1]]), clear) == 2
    assert flips.misplaced(measured, np.array([[0], [0], [0], [0]]), clear) == 1
    assert flips.misplaced(measured, np.array([[0], [0], [2], [2]]), clear) == 1
    tied = clear.copy()
    tied[2, 0, 1] = 1 - 1e-5
    assert flips.misplaced(measured, np.array([[0], [0], [0], [1]]), tied) == 0


# X4: its networks


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that are trained in a moment."""
    for name, value in (("DEPTHS", (1, 2, 4)), ("WIDTH", 24), ("EPOCHS", 5)):
        monkeypatch.setattr(flips, name, value)


@pytest.mark.usefixtures("shallow")
def test_a_network_of_x4_has_no_bias_but_that_of_the_logits(store: Store) -> None:
    table = Bench(PLAIN, store)
    names = list(network(flips.of_depth(PLAIN.setting, 4), table.train).state_dict())
    assert names == ["1.weight", "3.weight", "5.weight", "7.weight", "9.weight", "9.bias"]


@pytest.mark.usefixtures("shallow")
def test_curves_of_several_depths_are_kept_apart(store: Store) -> None:
    settings = [flips.of_depth(PLAIN.setting, depth) for depth in (1, 2)]

    def found() -> list[Any]:
        table = Bench(PLAIN, store)
        paths = [[ScaledPath(run.final)] for run in table.runs(settings)]
        models = [network(setting, table.train) for setting in settings]
        return [table.measure(p, model=m)[0] for p, m in zip(paths, models, strict=True)]

    first, second = found(), found()
    assert not np.array_equal(first[0].loss, first[1].loss)
    assert [one.loss.tolist() for one in second] == [one.loss.tolist() for one in first]
    assert [one.record.seconds for one in second] == [one.record.seconds for one in first], "they were measured again"


@pytest.mark.usefixtures("shallow")
def test_the_predicted_error_is_the_one_that_is_measured(store: Store) -> None:
    table = Bench(PLAIN, store)
    (run,) = table.runs([flips.of_depth(PLAIN.setting, 2)])
    model = network(run.setting, table.train)
    before = states.digest(model.state_dict())
    (curve,) = table.measure([ScaledPath(run.final)], model=model, keep="logits")
    scores, bias = flips.one_pass(model, run.final, table.test)
    np.testing.assert_allclose(scores + bias, curve.logits[-1], rtol=1e-4, atol=1e-4)
    predicted = flips.predicted_error(last_bias_flips(scores, bias, 3), curve)
    np.testing.assert_allclose(predicted, curve.balanced_error, atol=1e-6)
    assert curve.plateau("balanced_error") > 0
    assert states.digest(model.state_dict()) == before


class Squared(Bench):
    """In one network of all the last bias moves as alpha^2."""

    planted = False

    def measure(self, paths: Sequence[Span], *args: Any, **options: Any) -> list[Any]:
        if not self.planted:
            (name,) = (name for name in paths[7].final if name.endswith("bias"))
            paths = [*paths[:7], ScaledPath(paths[7].final, exponents={name: 2.0}), *paths[8:]]
            self.planted = True
        return super().measure(paths, *args, **options)


BIAS_FACTORS = {1: 40.0, 2: 0.05, 4: 1e-5}  # by hidden layers: the plateau then shrinks with depth


class LargeShallowBiases(Bench):
    """The last bias is many times as large after a single hidden layer, and a part of itself after more."""

    def runs(self, settings: Sequence[Setting]) -> list[Run]:
        return [with_final(run, self.changed(run)) for run in super().runs(settings)]

    def changed(self, run: Run) -> states.State:
        factor = BIAS_FACTORS[len(run.setting.model.hidden)]
        return {n: t * factor if n.endswith("bias") else t for n, t in run.final.items()}


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize(
    ("planted", "part"),
    [
        pytest.param(Squared, "every prediction", id="a bias that moves otherwise"),
        pytest.param(LargeShallowBiases, "longer with depth", id="shallow networks with large biases"),
    ],
)
def test_networks_that_do_otherwise_refute_x4(planted: type[Bench], part: str, store: Store) -> None:
    assert judged(X4, PLAIN, Bench(PLAIN, store)).verdict is not NOT
    found = judged(X4, PLAIN, planted(PLAIN, store))
    assert found.verdict is NOT
    assert found.reason.startswith(part)


class OneDiverged(Bench):
    """One of all networks diverged in training."""

    def runs(self, settings: Sequence[Setting]) -> list[Run]:
        found = super().runs(settings)
        found[12] = replace(found[12], manifest={**found[12].manifest, "diverged_at": 3})
        return found


@pytest.mark.usefixtures("shallow")
def test_a_seed_of_which_a_network_diverged_is_left_out_of_x4(store: Store) -> None:
    found = judged(X4, PLAIN, OneDiverged(PLAIN, store))
    assert found.verdict is OPEN
    assert found.details["seeds left out, a network diverged"] == 1
    assert str(found.details["longer with depth"]).startswith("inconclusive: too few networks")
    assert found.details["every prediction, predictions compared"] == 27 * 50 * 300


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize(
    ("name", "planted", "part"),
    [
        pytest.param("last_bias_flips", lambda s, b, n: last_bias_flips(s, b, n + 1), "every flip", id="L + 1"),
        pytest.param("last_bias_flips", lambda s, b, n: last_bias_flips(s, -b, n), "every flip", id="minus b"),
        pytest.param("outputs_at", lambda a, s, b, n: s + b / a[:, None, None], "every prediction", id="no power"),
    ],
)
def test_another_prediction_refutes_x4(
    name: str, planted: Any, part: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flips, name, planted)
    found = judged(X4, PLAIN, Bench(PLAIN, store))
    assert found.verdict is NOT
    assert found.reason.startswith(part)


# T22


@pytest.mark.parametrize(
    ("rises", "verdict"),
    [
        pytest.param([0.0004, 0.003] * 5, REPRODUCED, id="a slight rise"),
        pytest.param([0.004, -0.003] * 5, OPEN, id="scattered"),
        pytest.param([0.002] * 9, OPEN, id="nine networks"),
        pytest.param([0.0, 0.0002] * 5, NOT, id="less than a tenth of a point"),
        pytest.param([-0.01, -0.02] * 5, NOT, id="a fall"),
    ],
)
def test_t22_wants_a_rise_of_the_test_error_at_the_end(rises: list[float], verdict: str) -> None:
    assert noise.criterion(rises).verdict is verdict


def towards(at_nine_tenths: Callable[[states.State], states.State]) -> Callable[..., states.State]:
    """In the place of `noise`: what makes the path pass through another state at alpha = 0.9."""

    def planted(kind: str, final: states.State, **_: Any) -> states.State:
        assert kind == "gradient"
        passed = at_nine_tenths(final)
        return {name: (passed[name] - 0.9 * tensor) / 0.1 for name, tensor in final.items()}

    return planted


def jumbled(state: states.State) -> states.State:
    """The state with the classes of its logits in another order."""
    return {name: tensor.roll(1, 0) if name.startswith("5.") else tensor for name, tensor in state.items()}


def unjumbled(state: states.State) -> states.State:
    return {name: tensor.roll(-1, 0) if name.startswith("5.") else tensor for name, tensor in state.items()}


class Jumbled(Bench):
    """Trained networks whose classes have got into another order at the very end."""

    def runs(self, settings: Sequence[Setting]) -> list[Run]:
        return [with_final(run, jumbled(run.final)) for run in super().runs(settings)]


def test_a_network_that_is_worse_than_what_lies_before_it_reproduces_t22(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise, "noise", towards(unjumbled))
    found = judged(T22, PLAIN, Jumbled(PLAIN, store))
    assert found.verdict is REPRODUCED
    assert found.figure.value > 0.5


def test_a_fall_at_the_end_refutes_t22(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "noise", towards(jumbled))
    found = judged(T22, PLAIN, Bench(PLAIN, store))
    assert found.verdict is NOT
    assert found.figure.value < -0.5


def test_t22_tells_how_near_its_path_is_to_the_zero_path(store: Store) -> None:
    table = Bench(PLAIN, store)
    details = judged(T22, PLAIN, table).details
    assert 0 < details["mean M(epsilon) / M(theta_F)"] < 0.1
    assert details["largest such distance from alpha = 0.9 on"] < 0.05
    ends = [noise.Ends(table.model.double(), run.final, table.train) for run in table.runs(table.settings)]
    rising = sum(one.predicted > 0 for one in ends)
    assert details["networks whose training loss rises at the end (X9)"] == rising > 0


# X9: the criterion

FALLS, RISES, LOST = noise.Slope(-0.2, -0.21, 0.01), noise.Slope(0.3, 0.29, 0.01), noise.Slope(1e-4, -1e-3, 0.01)
GOOD = noise.Softmax(norm=1e-12, predicted=-0.09 * (1 + 1e-10), formula=-0.09, losses=[0.3, 0.2, 0.1])


def signs(last: Any = FALLS, count: int = 10) -> dict[str, list[Any]]:
    return {"theta_F": [FALLS] * (count - 1) + [last], "theta_0": [RISES, LOST] * 5}


@pytest.mark.parametrize(
    ("slopes", "last", "verdict", "part"),
    [
        pytest.param(signs(), GOOD, REPRODUCED, "all", id="as claimed"),
        pytest.param(signs(replace(FALLS, unsure=0.5)), GOOD, REPRODUCED, "all", id="one unsure"),
        pytest.param({"theta_F": [FALLS] * 10}, GOOD, OPEN, "the sign", id="one sign only"),
        pytest.param({"theta_F": [LOST] * 10}, GOOD, OPEN, "the sign", id="all unsure"),
        pytest.param(signs(count=9), GOOD, OPEN, "the sign", id="nine networks"),
        pytest.param({}, GOOD, OPEN, "the sign", id="none"),
        pytest.param(signs(), replace(GOOD, norm=1e-9), OPEN, "the formula", id="not stationary"),
        pytest.param(signs(replace(FALLS, measured=0.2)), GOOD, NOT, "the sign", id="one goes the other way"),
        pytest.param(signs(replace(FALLS, measured=NAN)), GOOD, NOT, "the sign", id="no number"),
        pytest.param(signs(), replace(GOOD, predicted=-0.09001), NOT, "the formula", id="another formula"),
        pytest.param(signs(), replace(GOOD, losses=[0.3, 0.1, 0.2]), NOT, "no rise", id="a rise at the end"),
    ],
)
def test_x9_wants_every_sign_and_the_formula_and_no_rise(slopes: Any, last: Any, verdict: str, part: str) -> None:
    found = noise.sign_criterion(slopes, {1e-3: GOOD, 0.1: last})
    assert found.verdict is verdict
    assert found.reason.startswith(part)


# X9: its networks


def test_slopes_are_those_of_the_loss_on_the_path(store: Store) -> None:
    table = Bench(PLAIN, store)
    run = table.run(table.settings[0])
    ends = noise.Ends(table.model.double(), run.final, table.train)
    found = ends.measure()
    assert found.judged
    assert found.predicted == pytest.approx((ends.loss(1 + 1e-6) - ends.loss(1 - 1e-6)) / 2e-6, rel=1e-4)
    assert found.measured == pytest.approx(found.predicted, abs=found.unsure)
    assert ends.residual(0.0) > 0
    assert ends.square == pytest.approx(sum(float(t.double().square().sum()) for t in run.final.values()))


@pytest.mark.parametrize("strength", [1e-3, 0.1, 3.0])
def test_the_regression_is_stationary_and_rises_where_the_decay_exceeds_one(strength: float, store: Store) -> None:
    found = noise.regression(Bench(PLAIN, store).train, strength)
    assert found.norm < noise.STATIONARY
    assert found.predicted == pytest.approx(found.formula, rel=1e-8)
    assert len(found.losses) == 6
    assert (np.diff(found.losses) > 0).all() if strength > 1 else (np.diff(found.losses) < 0).all()


@pytest.mark.parametrize("subject", [PLAIN, DECAYING], ids=["without weight decay", "with weight decay"])
def test_x9_holds_for_small_networks(subject: Any, store: Store) -> None:
    found = judged(X9, subject, Bench(subject, store))
    assert found.verdict is REPRODUCED
    assert found.details["the sign, examples"] > 20
    told = [name for name in found.details if name.startswith("mean ||grad L + lambda theta_F||")]
    assert bool(told) is (subject is DECAYING)
    assert all(found.details[name] > 0.1 for name in told)


def honest_slope(state: states.State, negative: states.State, linear: float, square: float) -> float:
    pairs = [(state[name], tensor) for name, tensor in negative.items()]
    return sum(float((-linear * minus * theta).sum() + square * minus.square().sum()) for theta, minus in pairs)


@pytest.mark.parametrize(
    ("linear", "square"),
    [pytest.param(1, 0, id="no square"), pytest.param(-1, 1, id="wrong sign"), pytest.param(1, -1, id="minus square")],
)
def test_another_slope_refutes_x9(linear: int, square: int, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "slope", lambda state, negative: honest_slope(state, negative, linear, square))
    found = judged(X9, PLAIN, Bench(PLAIN, store))
    assert found.verdict is NOT
    assert str(found.details["the sign"]).startswith(str(NOT))


def test_a_gradient_of_the_regularised_loss_refutes_x9(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = noise.gradient

    def regularised(model: Any, state: states.State, data: Any) -> dict[str, torch.Tensor]:
        return {name: tensor + 0.01 * state[name] for name, tensor in honest(model, state, data).items()}

    monkeypatch.setattr(noise, "gradient", regularised)
    found = judged(X9, PLAIN, Bench(PLAIN, store))
    assert found.verdict is not REPRODUCED


# X10: the criterion

ON, BEYOND = softmax.Line(True, [8.0, 4.0, 2.0, 1.0]), softmax.Line(False, [3.0, 1.0, 0.5, 1.0])


def lines(last: Any = ON, control: Any = BEYOND, count: int = 100) -> dict[Any, Any]:
    return dict.fromkeys(range(count - 1), ON) | {"last": last, "control": control}


@pytest.mark.parametrize(
    ("found", "norm", "verdict", "part"),
    [
        pytest.param(lines(), 1e-12, REPRODUCED, "all", id="as claimed"),
        pytest.param(lines(softmax.Line(True, [2.0] * 4)), 1e-12, REPRODUCED, "all", id="a constant loss"),
        pytest.param(lines(count=99), 1e-12, OPEN, "convex", id="too few"),
        pytest.param(lines(), 1e-9, OPEN, "W is stationary", id="not stationary"),
        pytest.param(lines(control=replace(ON, holds=False)), 1e-12, OPEN, "controls rise", id="no control rises"),
        pytest.param(lines(softmax.Line(True, [8.0, 4.0, 3.0, 1.0])), 1e-12, NOT, "convex", id="a bend"),
        pytest.param(lines(softmax.Line(True, [8.0, 4.0, 4.1, 5.0])), 1e-12, NOT, "falls", id="a rise"),
        pytest.param(lines(softmax.Line(True, [8.0, NAN, 2.0, 1.0])), 1e-12, OPEN, "convex", id="no number"),
    ],
)
def test_x10_wants_convex_lines_that_fall_and_controls_that_rise(
    found: Any, norm: float, verdict: str, part: str
) -> None:
    ruling = softmax.convex_criterion({1e-2: lines(), 1.0: found}, {1e-2: 1e-12, 1.0: norm})
    assert ruling.verdict is verdict
    assert ruling.reason.startswith(part)


# X10: its draws


class Options:
    """Stands in for `pytestconfig`."""

    def getoption(self, name: str) -> int:
        assert name == "--mli-seed-offset"
        return 100


def judged_lines() -> Ruling:
    mli = Listener()
    X10(mli, Options())
    return mli.ruling


@pytest.fixture
def one_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """One draw a kind and scale; DRAWS follows."""
    monkeypatch.setattr(softmax, "RANDOM", 1)
    monkeypatch.setattr(softmax, "DRAWS", 40)
    monkeypatch.setattr(softmax, "STRENGTHS", (0.01, 1.0))


def test_the_noises_lie_where_their_names_say() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((10, 64))
    for (kind, scale, _), drawn in softmax.random_noises(weights, rng).items():
        inner = (weights * drawn).sum() / softmax.size(weights) ** 2
        if kind == "W . N = ||W||^2":
            assert inner == pytest.approx(1)
            continue
        assert softmax.size(drawn) / softmax.size(weights) == pytest.approx(scale)
        assert kind != "orthogonal to W" or abs(inner) < 1e-10
        assert (kind == "sparse") == (np.count_nonzero(drawn) < 60)


def test_the_losses_of_a_line_are_those_at_its_points() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.random((30, 4)), np.arange(30) % 3
    start, end = rng.standard_normal((2, 3, 4))
    found = softmax.followed(images, labels, start, end)
    np.testing.assert_allclose(found.losses, softmax.along(images, labels, start, end, np.linspace(0, 1, 51))[0])
    assert found.holds is bool((end * (end - start)).sum() >= 0)
    assert softmax.followed(images, labels, end, end).holds
    assert not softmax.followed(images, labels, 1.01 * end, end).holds


@pytest.mark.usefixtures("one_draw")
def test_a_classifier_that_is_no_minimum_refutes_x10(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judged_lines().verdict is REPRODUCED
    honest = softmax.stationary
    monkeypatch.setattr(softmax, "stationary", lambda *args: (-honest(*args)[0], 0.0))
    found = judged_lines()
    assert found.verdict is NOT
    assert found.reason.startswith("falls")


@pytest.mark.usefixtures("one_draw")
def test_another_loss_refutes_x10(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = softmax.cross_entropy
    monkeypatch.setattr(softmax, "cross_entropy", lambda outputs, targets: honest(outputs, targets).sqrt())
    found = judged_lines()
    assert found.verdict is NOT
    assert found.reason.startswith("convex")


@pytest.mark.usefixtures("one_draw")
def test_a_classifier_fitted_carelessly_leaves_x10_open(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = softmax.stationary

    def careless(images: Any, labels: Any, strength: float) -> tuple[Any, float]:
        weights = honest(images, labels, strength)[0] * (1 + 1e-6)
        return weights, softmax.size(softmax.gradient(images, labels, weights) + strength * weights)

    monkeypatch.setattr(softmax, "stationary", careless)
    found = judged_lines()
    assert found.verdict is OPEN
    assert found.reason.startswith("W is stationary")
