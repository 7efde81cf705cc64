"""Tests of the claims: each criterion with an evidence for each verdict, and violations planted in real networks.

A planted violation goes through the claim itself: networks are trained, curves evaluated and judged, and the claim has
to come out `not reproduced`. The networks are small FCNs on the digits, trained in a fraction of a second each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from claim_benches import FALLING, MODULES, NAN, NOT, OPEN, REPRODUCED, TESTS, UNDECIDED, Bench, judged, small

from mli_check import catalogue, curves, states, subjects
from mli_check.curves import Curve, DescentInterval
from mli_check.paths import LinearPath, ScaledPath, Span
from mli_check.runs import Run, Store
from mli_check.settings import Setting
from mli_check.statistics import RiseTest, Verdict
from mli_check.verdicts import FEWEST_NETWORKS
from mli_check.workbench import LEFT_ENDS, Workbench

pytestmark = pytest.mark.xdist_group("claims-criteria")  # so that the networks are trained once

RISING = TESTS[NOT]
definitions, monotone, norm_stats, plateaus, violations = (
    MODULES[name]
    for name in ("test_definitions", "test_monotone_paths", "test_norm_stats", "test_plateaus", "test_violations")
)
CLAIMS = [
    (mark.kwargs["id"], function)
    for module in MODULES.values()
    for name, function in vars(module).items()
    if name.startswith("test_")
    for mark in getattr(function, "pytestmark", [])
    if mark.name == "claim"
]


def subjects_of(claim: Callable[..., None]) -> list[str]:
    """The subjects that a claim is parametrised with; none for one that brings its own networks."""
    marks: list[Any] = claim.pytestmark  # type: ignore[attr-defined]
    return next((m.args[1] for m in marks if m.name == "parametrize" and m.args[0] == "subject"), [])


# The claims as a whole


def test_every_claim_of_the_catalogue_is_covered_by_one_test_or_planned() -> None:
    tested = [claim_id for claim_id, _ in CLAIMS]
    assert len(tested) == len(set(tested))
    assert set(tested) == {claim.id for claim in catalogue.CLAIMS if claim.status == "covered"}
    assert all(catalogue.get(claim_id).planned == "" for claim_id in tested)


def test_every_test_in_the_folder_is_a_claim() -> None:
    functions = [f for m in MODULES.values() for name, f in vars(m).items() if name.startswith("test_")]
    assert sorted(f.__name__ for f in functions) == sorted(f.__name__ for _, f in CLAIMS)


@pytest.mark.parametrize(("claim_id", "claim"), CLAIMS, ids=[claim_id for claim_id, _ in CLAIMS])
def test_every_claim_states_its_criterion(claim_id: str, claim: Callable[..., None]) -> None:
    text = " ".join((claim.__doc__ or "").split())
    assert len([line for line in (claim.__doc__ or "").splitlines() if line.strip()]) >= 2
    assert "reproduced" in text.lower() or "judged like T1" in text
    assert text.endswith(".")


# a classifier without hidden layers, identities on random networks, and networks with a last bias of their own
WITHOUT_SUBJECT = ("T9", *(f"T{number}" for number in (*range(10, 18), 19)), "X1", "X2", "X6", "X7", "X10")


@pytest.mark.parametrize(("claim_id", "claim"), CLAIMS, ids=[claim_id for claim_id, _ in CLAIMS])
def test_every_claim_has_ten_networks_of_each_subject(claim_id: str, claim: Callable[..., None]) -> None:
    names = subjects_of(claim)
    assert names or claim_id in WITHOUT_SUBJECT
    assert len(names) == len(set(names))
    for name in {*names, *(other for subject in names for other in plateaus.PAIRS.get(subject, ()))}:
        found = [subject for subject in subjects.SUBJECTS if subject.name == name and subject.scale != "smoke"]
        assert found
        for subject in found:
            assert subject.networks >= FEWEST_NETWORKS
            assert len({setting.digest for setting in subject.settings()}) == subject.networks


def test_every_subject_is_judged_by_some_claim() -> None:
    assert {name for _, claim in CLAIMS for name in subjects_of(claim)} | {
        name for pair in plateaus.PAIRS.values() for name in pair
    } == set(subjects.names())


def test_an_unexpected_outcome_always_comes_with_its_reason() -> None:
    for _, claim in CLAIMS:
        mark = next(mark for mark in claim.pytestmark if mark.name == "claim")  # type: ignore[attr-defined]
        expected = mark.kwargs.get("expected")
        values = set(expected.values()) if isinstance(expected, Mapping) else {expected}
        assert values <= {None, *Verdict}
        assert mark.kwargs.get("reason") or values <= {None, REPRODUCED}


def test_the_two_arms_of_the_plateau_claim_differ_in_batch_normalisation_alone() -> None:
    for without, with_bn in plateaus.PAIRS.values():
        first, second = subjects.get(without), subjects.get(with_bn)
        assert not first.setting.model.batch_norm
        assert replace(first.setting.model, batch_norm=True) == second.setting.model
        assert (first.setting.data, first.setting.recipe) == (second.setting.data, second.setting.recipe)
        assert (first.networks, first.test_examples) == (second.networks, second.test_examples)


def test_the_rates_of_the_violation_claim_are_ten_times_each_other() -> None:
    assert all(large == pytest.approx(10 * small) for small, large in violations.TENFOLD_OF.items())
    assert {*violations.TENFOLD_OF, *violations.TENFOLD} == set(violations.RATES)


# Criteria with evidence by hand


@pytest.mark.parametrize("verdict", list(Verdict))
def test_t1_t2_and_t4_judge_by_the_worst_of_ten_networks(verdict: Verdict) -> None:
    assert monotone.criterion([FALLING] * 9 + [TESTS[verdict]]).verdict is verdict
    assert monotone.criterion([TESTS[verdict]] * 10).verdict is verdict


LONG = [0.5 + 0.01 * (index % 3) for index in range(10)]
SHORT = [0.2 + 0.01 * (index % 2) for index in range(10)]
LIKE_LONG, LIKE_SHORT = ([values[0] + 0.3 * (-1) ** index for index in range(10)] for values in (LONG, SHORT))


@pytest.mark.parametrize(
    ("without", "with_bn", "verdict"),
    [
        pytest.param([LONG, LONG, LONG], [SHORT, SHORT, SHORT], REPRODUCED, id="longer on all paths"),
        pytest.param([LONG, LONG, LONG], [SHORT, SHORT, LIKE_LONG], OPEN, id="unclear on one path"),
        pytest.param([LONG, LONG, LONG], [SHORT, SHORT, LONG], NOT, id="equal on one path"),
        pytest.param([SHORT, SHORT, SHORT], [LONG, LONG, LONG], NOT, id="exchanged"),
        pytest.param([LONG[:9]] * 3, [SHORT[:9]] * 3, OPEN, id="nine pairs"),
        pytest.param([LONG, LONG, [NAN, *LONG[1:]]], [SHORT] * 3, OPEN, id="a curve that never falls"),
    ],
)
def test_t6_wants_longer_plateaus_on_all_three_paths(
    without: list[list[float]], with_bn: list[list[float]], verdict: Verdict
) -> None:
    arms = (dict(zip(LEFT_ENDS, values, strict=True)) for values in (without, with_bn))
    assert plateaus.criterion(*arms).verdict is verdict


def test_t6_refuses_arms_of_unequal_length() -> None:
    with pytest.raises(ValueError, match="zip"):
        plateaus.criterion({"own": LONG}, {"own": SHORT[:9]})


def policies(recalibrate: Any, freeze: Any, interpolate: Any) -> dict[str, Any]:
    return {"recalibrate": recalibrate, "freeze": freeze, "interpolate": interpolate}


@pytest.mark.parametrize(
    ("tests", "lengths", "verdict"),
    [
        pytest.param((FALLING, FALLING, FALLING), (SHORT, LONG, LONG), REPRODUCED, id="as claimed"),
        pytest.param((FALLING, UNDECIDED, FALLING), (SHORT, LONG, LONG), OPEN, id="undecided when frozen"),
        pytest.param((FALLING, FALLING, FALLING), (SHORT, LONG, LIKE_SHORT), OPEN, id="unclear when interpolated"),
        pytest.param((FALLING, FALLING, RISING), (SHORT, LONG, LONG), NOT, id="rising when interpolated"),
        pytest.param((RISING, FALLING, FALLING), (SHORT, LONG, LONG), NOT, id="rising when recalculated"),
        pytest.param((FALLING, FALLING, FALLING), (LONG, SHORT, LONG), NOT, id="exchanged"),
        pytest.param((UNDECIDED, FALLING, FALLING), (SHORT, SHORT, LONG), NOT, id="refuted beside undecided"),
    ],
)
def test_t27_wants_monotone_curves_under_each_policy_and_the_shortest_plateau_when_recalculated(
    tests: tuple[RiseTest, ...], lengths: tuple[list[float], ...], verdict: Verdict
) -> None:
    found = norm_stats.criterion(policies(*([test] * 10 for test in tests)), policies(*lengths))
    assert found.verdict is verdict


def trained(violating: Callable[[str, float, int], bool], loss: float = 0.05) -> list[Any]:
    """Ten networks of each optimiser and rate; `violating` says which break monotonicity."""
    return [
        violations.Trained(optimiser, rate, index, loss, 0.5 if violating(optimiser, rate, index) else 0.0)
        for optimiser in violations.OPTIMISERS
        for rate in violations.RATES
        for index in range(10)
    ]


def as_claimed(optimiser: str, rate: float, index: int) -> bool:
    return rate >= 0.1 and (optimiser == "adam" or index == 0)


@pytest.mark.parametrize(
    ("violating", "verdict"),
    [
        pytest.param(as_claimed, REPRODUCED, id="as claimed"),
        pytest.param(lambda o, r, i: r == 0.1 and (o == "adam" or i > 1), OPEN, id="two more for Adam"),
        pytest.param(lambda o, r, i: as_claimed({"sgd": "adam", "adam": "sgd"}[o], r, i), NOT, id="exchanged"),
        pytest.param(lambda o, r, i: as_claimed(o, 0.4 - r, i), NOT, id="small rates violate"),
        pytest.param(lambda o, r, i: False, NOT, id="none violates"),
        pytest.param(lambda o, r, i: o == "adam", NOT, id="Adam at any rate"),
        pytest.param(lambda o, r, i: r >= 0.1, NOT, id="large rates of either"),
    ],
)
def test_t33_wants_more_violations_with_adam_and_with_large_rates(violating: Any, verdict: Verdict) -> None:
    assert violations.criterion(trained(violating)).verdict is verdict


@pytest.mark.parametrize("loss", [NAN, 2.3, float("inf")])
def test_t33_counts_no_network_that_did_not_train(loss: float) -> None:
    assert violations.criterion(trained(as_claimed, loss)).verdict is OPEN
    assert violations.criterion([]).verdict is OPEN


def test_t33_matches_networks_by_seed_and_leaves_out_those_without_partner() -> None:
    first = lambda n: n.network if n.optimiser == "adam" else None  # noqa: E731
    second = lambda n: n.network if n.optimiser == "sgd" else None  # noqa: E731
    networks = [
        violations.Trained("adam", 0.1, 1, 0.05, 1.0),
        violations.Trained("adam", 0.1, 2, 0.05, 0.0),
        violations.Trained("adam", 0.1, 3, 2.3, 1.0),
        violations.Trained("sgd", 0.1, 2, 0.05, 1.0),
        violations.Trained("sgd", 0.1, 1, 0.05, 0.0),
        violations.Trained("sgd", 0.1, 3, 0.05, 0.0),
        violations.Trained("sgd", 0.1, 4, 0.05, 1.0),
    ]
    assert violations.matched(networks, first, second) == ([True, False], [False, True])


# Violations planted in real networks


PLAIN, WITH_BN = small("plain"), small("with BN", batch_norm=True)
FEW = small("fcn4-digits", subset=200)  # for 80 networks, trained by the recipes of the claim itself


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("claims") / "store")


T1 = monotone.test_error_falls_from_the_own_initialisation
T2 = monotone.test_error_falls_from_an_unrelated_initialisation
T4 = monotone.test_error_falls_from_zero
T6 = plateaus.test_plateau_is_shorter_with_batch_normalisation
T23 = definitions.test_rapid_descent_interval
T24 = definitions.test_relative_scale
T27 = norm_stats.test_error_falls_under_every_policy_and_recalculation_shortens_the_plateau
T33 = violations.test_adam_and_large_learning_rates_break_monotonicity
L11 = definitions.test_delta_monotonicity


class FromAnotherNetwork(Bench):
    """Paths start at the final state of the next network: good at both ends, with a barrier between."""

    def left_end(self, index: int, left: str) -> states.State:
        return self.run(self.settings[(index + 1) % len(self.settings)]).final


class Backwards(Bench):
    """Paths lead from the trained network to where they should start; that from zero, which has no state, is left."""

    def path(self, index: int, left: str) -> Span:
        if left == "zero":
            return super().path(index, left)
        return LinearPath(self.run(self.settings[index]).final, self.left_end(index, left))


class LateUnit(Bench):
    """Networks with one unit that wakes up late along alpha * theta and then outvotes all others.

    Unit 0 of the second hidden layer gets weights 1 and the bias -0.6 s, s being the mean sum of the first layer's
    activations: it is silent for alpha below about 0.6, and at alpha = 1 its outgoing weight of 10 names class 0 for
    nearly every image. A last bias alone could not do this: relative to the logits it only loses weight as alpha grows.
    """

    def path(self, index: int, left: str) -> Span:
        final = states.clone(self.run(self.settings[index]).final)
        assert isinstance(self.train.inputs, type(final["1.weight"]))
        hidden = (self.train.inputs.flatten(1) @ final["1.weight"].T + final["1.bias"]).relu()
        final["3.weight"][0], final["3.bias"][0] = 1.0, -0.6 * hidden.sum(1).mean()
        final["5.weight"][:, 0], final["5.weight"][0, 0] = 0.0, 10.0
        return ScaledPath(final)


@pytest.mark.parametrize(
    ("claim", "planted"),
    [
        pytest.param(T1, FromAnotherNetwork, id="T1, a barrier between two networks"),
        pytest.param(T1, Backwards, id="T1, from final to init"),
        pytest.param(T2, FromAnotherNetwork, id="T2, a barrier between two networks"),
        pytest.param(T2, Backwards, id="T2, from final to init"),
        pytest.param(T4, LateUnit, id="T4, a unit that wakes up late"),
    ],
)
def test_a_path_that_rises_is_not_reproduced(claim: Any, planted: type[Workbench], store: Store) -> None:
    assert judged(claim, PLAIN, Bench(PLAIN, store)).verdict is not NOT
    found = judged(claim, PLAIN, planted(PLAIN, store))
    assert found.verdict is NOT
    assert found.details["networks surely beyond it"] == 10


def test_a_planted_barrier_leaves_both_ends_good(store: Store) -> None:
    for curve in FromAnotherNetwork(PLAIN, store).curves("own"):
        errors = curve.values("balanced_error")
        assert max(errors[0], errors[-1]) < 0.2
        assert errors.max() > max(errors[0], errors[-1]) + 0.1


def test_one_planted_network_among_ten_is_enough(store: Store) -> None:
    class OneBackwards(Backwards):
        def path(self, index: int, left: str) -> Span:
            return Backwards.path(self, index, left) if index == 7 else Workbench.path(self, index, left)

    found = judged(T1, PLAIN, OneBackwards(PLAIN, store))
    assert found.verdict is NOT
    assert found.details["networks surely beyond it"] == 1


@pytest.fixture(scope="module")
def plain_and_normalised(store: Store) -> tuple[Workbench, Workbench]:
    """Networks of the same seeds and recipe without and with BN."""
    return Bench(PLAIN, store), Bench(WITH_BN, store)


def test_exchanged_networks_refute_the_shorter_plateau(plain_and_normalised: tuple[Workbench, Workbench]) -> None:
    without, with_bn = plain_and_normalised
    pair = replace(PLAIN, name="vgg-digits")
    assert judged(T6, pair, without, with_bn).verdict is not NOT
    assert judged(T6, pair, with_bn, without).verdict is NOT
    assert judged(T6, pair, with_bn, with_bn).verdict is NOT


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param({None: "freeze", "freeze": None}, id="frozen and recalculated exchanged"),
        pytest.param({"freeze": None, "interpolate": None}, id="always recalculated"),
        pytest.param({"interpolate": None}, id="interpolated taken for recalculated"),
    ],
)
def test_exchanged_policies_refute_the_longer_plateaus(
    plain_and_normalised: tuple[Workbench, Workbench], policy: dict[str | None, str | None], store: Store
) -> None:
    _, honest = plain_and_normalised

    class Exchanged(Bench):
        def curves(self, left: str, norm_stats: str | None = None) -> list[Curve]:
            return honest.curves(left, policy.get(norm_stats, norm_stats))

    assert judged(T27, WITH_BN, honest).verdict is not NOT
    found = judged(T27, WITH_BN, Exchanged(WITH_BN, store))
    assert found.verdict is NOT
    assert found.reason.startswith("longer plateaus: ")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        pytest.param(
            lambda recipe: {"optimiser": {"sgd": "adam", "adam": "sgd"}[recipe.optimiser]},
            "Adam: ",
            id="optimisers exchanged",
        ),
        pytest.param(
            lambda recipe: {"lr": {0.01: 0.1, 0.1: 0.01, 0.03: 0.3, 0.3: 0.03}[recipe.lr]},
            "large learning rate: ",
            id="rates exchanged",
        ),
    ],
)
def test_exchanged_recipes_refute_that_adam_and_large_rates_violate(change: Any, part: str, store: Store) -> None:
    class Exchanged(Bench):
        def runs(self, settings: Sequence[Setting]) -> list[Run]:
            return super().runs([setting.with_recipe(**change(setting.recipe)) for setting in settings])

    honest = judged(T33, FEW, Bench(FEW, store))
    assert honest.verdict is not NOT
    found = judged(T33, FEW, Exchanged(FEW, store))
    assert found.verdict is NOT
    assert found.reason.startswith(part)


# Definitions: a wrong implementation is planted


def ends_a_step_early(values: Any, alphas: Any = None, tau: float = 0.01) -> DescentInterval:
    start, end = RIGHT_INTERVAL(values, alphas, tau)
    return DescentInterval(start, end - 0.02)


def lacks_its_start(values: Any, alphas: Any = None, tau: float = 0.01) -> DescentInterval:
    return RIGHT_INTERVAL(values, alphas, tau)._replace(start=NAN)


def lacks_its_end(values: Any, alphas: Any = None, tau: float = 0.01) -> DescentInterval:
    return RIGHT_INTERVAL(values, alphas, tau)._replace(end=NAN)


def without_the_last_step(values: Any) -> float:
    """As the code of Lucas et al. 2021 has it: a rise on the last step alone is dropped."""
    return RIGHT_DELTA(np.asarray(values)[:-1])


def of_closed_bumps_only(values: Any) -> float:
    """Definition 1 read to the letter: a bump that never comes back down does not count."""
    curve = np.asarray(values)
    return max(
        (later.max() - start for i, start in enumerate(curve) for later in [curve[i:]] if (later[1:] <= start).any()),
        default=0.0,
    )


def upside_down(init: states.State, final: states.State) -> float:
    return 1 / RIGHT_SCALE(init, final)


def of_norms(init: states.State, final: states.State) -> float:
    """The ratio of Euclidean norms instead of mean absolute values."""
    norms = [sum(float(t.double().square().sum()) for t in state.values()) ** 0.5 for state in (init, final)]
    return norms[0] / norms[1]


RIGHT_INTERVAL, RIGHT_DELTA, RIGHT_SCALE = curves.descent_interval, curves.delta, states.delta


@pytest.mark.parametrize(
    ("claim", "module", "name", "planted"),
    [
        pytest.param(T23, curves, "descent_interval", ends_a_step_early, id="T23, a step early"),
        pytest.param(T24, states, "delta", upside_down, id="T24, upside down"),
        pytest.param(T24, states, "delta", of_norms, id="T24, of norms"),
        pytest.param(L11, curves, "delta", without_the_last_step, id="L11, without the last step"),
        pytest.param(L11, curves, "delta", of_closed_bumps_only, id="L11, of closed bumps only"),
    ],
)
def test_a_wrong_implementation_of_a_definition_is_not_reproduced(
    claim: Any, module: ModuleType, name: str, planted: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Bench(PLAIN, store)
    assert judged(claim, PLAIN, table).verdict is REPRODUCED
    monkeypatch.setattr(module, name, planted)
    assert judged(claim, PLAIN, table).verdict is NOT


@pytest.mark.parametrize(
    ("claim", "module", "name", "planted"),
    [
        pytest.param(T23, curves, "descent_interval", lacks_its_start, id="T23, no start"),
        pytest.param(T23, curves, "descent_interval", lacks_its_end, id="T23, no end"),
        pytest.param(T24, states, "delta", lambda *_: NAN, id="T24"),
        pytest.param(L11, curves, "delta", lambda *_: NAN, id="L11"),
    ],
)
def test_a_definition_that_gives_no_number_is_never_reproduced(
    claim: Any, module: ModuleType, name: str, planted: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Bench(PLAIN, store)
    monkeypatch.setattr(module, name, planted)
    assert judged(claim, PLAIN, table).verdict is not REPRODUCED
