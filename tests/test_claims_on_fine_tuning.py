"""Tests of T7 and T8: criteria with an evidence for each verdict, violations planted, and the subjects compared."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from claim_benches import FALLING, MODULES, NAN, NOT, OPEN, REPRODUCED, RISING, UNDECIDED, Bench, judged, small

from mli_check import subjects
from mli_check.paths import LinearPath, ScaledPath
from mli_check.runs import Store
from mli_check.statistics import RiseTest
from mli_check.workbench import LEFT_ENDS

pytestmark = pytest.mark.xdist_group("claims-criteria")

tuning = MODULES["test_fine_tuning"]
T7 = tuning.test_error_of_fine_tuned_networks_falls_from_any_left_end
T8 = tuning.test_layer_normalisation_leaves_networks_less_scale_invariant_than_batch_normalisation


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("claims") / "store")


# T7


@pytest.mark.parametrize("left", LEFT_ENDS)
@pytest.mark.parametrize(
    ("last", "networks", "verdict"),
    [
        pytest.param(FALLING, 10, REPRODUCED, id="all fall"),
        pytest.param(FALLING, 9, OPEN, id="too few networks"),
        pytest.param(UNDECIDED, 10, OPEN, id="one undecided"),
        pytest.param(RISING, 10, NOT, id="one rises"),
        pytest.param(RISING, 3, NOT, id="one of few rises"),
    ],
)
def test_t7_wants_every_network_to_fall_on_every_path(left: str, last: RiseTest, networks: int, verdict: str) -> None:
    tests = {other: [FALLING] * networks for other in LEFT_ENDS}
    tests[left] = [*tests[left][1:], last]
    assert tuning.monotone_criterion(tests).verdict is verdict


def test_a_path_that_rises_is_named_in_t7() -> None:
    tests = {left: [FALLING] * 10 for left in LEFT_ENDS} | {"own": [*[FALLING] * 9, RISING]}
    assert tuning.monotone_criterion(tests).reason.startswith("from the pre-trained weights: the error of 1 of 10")


def test_t7_judges_small_networks_on_all_three_paths(store: Store) -> None:
    found = judged(T7, small("plain"), Bench(small("plain"), store))
    assert found.verdict is not NOT
    for title in tuning.TITLES.values():
        assert found.details[f"mean error at the left end, {title}"] > 0.5
    assert found.details["mean error of the fine-tuned networks"] < 0.2


class WrongWayRound(Bench):
    """A bench whose paths from the own initialisation end there."""

    def path(self, index: int, left: str) -> Any:
        found = super().path(index, left)
        return LinearPath(found.final, self.left_end(index, left)) if left == "own" else found


def test_a_path_on_which_the_error_rises_refutes_t7(store: Store) -> None:
    found = judged(T7, small("plain"), WrongWayRound(small("plain"), store))
    assert found.verdict is NOT
    assert found.reason.startswith("from the pre-trained weights: ")


# T8


def curve_of(errors: list[float]) -> Any:
    return SimpleNamespace(alphas=np.linspace(0, 1, len(errors)), balanced_error=np.array(errors))


def test_the_departure_is_the_mean_height_above_the_end_in_units_of_the_drop() -> None:
    assert tuning.departure(curve_of([0.9, 0.1, 0.1, 0.1])) == pytest.approx(0)
    assert tuning.departure(curve_of([0.9, 0.9, 0.1])) == pytest.approx(0.5)
    assert tuning.departure(curve_of([0.5, 0.5, 0.5, 0.5, 0.1])) == pytest.approx(5 / 6)
    assert tuning.departure(curve_of([0.5, 0.3, 0.1, 0.1, 0.1])) == pytest.approx(0.5 * 0.5 / 3)


def test_the_height_at_zero_itself_does_not_count() -> None:
    low, high = curve_of([0.6, 0.3, 0.2]), curve_of([0.9, 0.3, 0.2])
    assert tuning.departure(low) * 0.4 == pytest.approx(tuning.departure(high) * 0.7)


def test_an_error_that_does_not_drop_has_no_departure() -> None:
    assert np.isnan(tuning.departure(curve_of([0.5, 0.6, 0.5])))


@pytest.mark.parametrize(
    ("with_ln", "with_bn", "verdict"),
    [
        pytest.param([0.30, 0.32] * 5, [0.10, 0.11] * 5, REPRODUCED, id="surely farther"),
        pytest.param([0.30, 0.32] * 4, [0.10, 0.11] * 4, OPEN, id="too few pairs"),
        pytest.param([0.30, 0.10] * 5, [0.20, 0.15] * 5, OPEN, id="sometimes farther"),
        pytest.param([0.10, 0.11] * 5, [0.10, 0.11] * 5, NOT, id="alike"),
        pytest.param([0.115, 0.116] * 5, [0.105, 0.107] * 5, NOT, id="surely by less than 0.02"),
        pytest.param([0.10, 0.11] * 5, [0.30, 0.32] * 5, NOT, id="BN farther"),
        pytest.param([NAN] + [0.3] * 9, [0.1] * 10, OPEN, id="an error that does not drop"),
    ],
)
def test_t8_wants_networks_with_ln_to_depart_farther(with_ln: list[float], with_bn: list[float], verdict: str) -> None:
    assert tuning.departure_criterion(with_ln, with_bn).verdict is verdict


class LargeBiases(Bench):
    """A bench whose trained networks have biases eight times as large, so that alpha * theta_F departs far."""

    def path(self, index: int, left: str) -> ScaledPath:
        final = super().path(index, left).final
        return ScaledPath({name: tensor * 8 if name.endswith("bias") else tensor for name, tensor in final.items()})


def test_t8_is_refuted_where_the_networks_with_bn_are_those_that_depart(store: Store) -> None:
    subject = small("minilm-mail")
    tables = Bench(subject, store), LargeBiases(subject, store)
    assert judged(T8, subject, *tables).verdict is NOT
    assert judged(T8, subject, *reversed(tables)).verdict is REPRODUCED


# The subjects


@pytest.mark.parametrize("name", tuning.FINE_TUNED)
def test_fine_tuned_subjects_begin_with_pre_trained_weights(name: str) -> None:
    for scale in ("smoke", "standard", "paper"):
        found = subjects.find(name, (scale,))
        assert found is None or found.setting.model.init == "pretrained"
    assert subjects.find(name, ("standard",)) or subjects.find(name, ("paper",))


@pytest.mark.parametrize(("with_ln", "with_bn"), tuning.PAIRS.items())
def test_the_partner_of_a_network_with_ln_has_bn_and_runs_in_one_process_with_it(with_ln: str, with_bn: str) -> None:
    for scale in subjects.SCALES:
        first, second = subjects.find(with_ln, (scale,)), subjects.find(with_bn, (scale,))
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            assert (first.setting.model.layer_norm, second.setting.model.batch_norm) == (True, True)
            same = ("group", "networks", "points")
            assert [getattr(first, field) for field in same] == [getattr(second, field) for field in same]


def test_the_quick_pair_differs_in_the_normalisation_alone() -> None:
    plain, with_bn, with_ln = (subjects.get(f"fcn4-{words}digits") for words in ("", "bn-", "ln-"))
    for found, switch in ((with_bn, {"batch_norm": True}), (with_ln, {"layer_norm": True})):
        assert found.setting == replace(plain.setting, model=replace(plain.setting.model, **switch))


S5 = {  # as printed in Appendix B.2
    "resnet50-cub200": {
        "optimiser": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "epochs": 95, "lr": 1e-3, "gamma": 0.1,
        "milestones": (30, 60, 90), "schedule": "steps",
    },
    "roberta-ag-news": {
        "optimiser": "adam", "weight_decay": 1e-4, "epochs": 5, "lr": 5e-5, "milestones": (), "schedule": "linear",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", S5)
def test_the_recipes_of_s5_are_as_printed_and_say_what_was_chosen(name: str) -> None:
    found = subjects.get(name, "paper")
    assert {field: getattr(found.setting.recipe, field) for field in S5[name]} == S5[name]
    assert "batches of 32" in found.choices
    assert found.setting.data.subset == found.test_examples == 0


def test_fine_tuned_smoke_subjects_are_small() -> None:
    for name in ("efficientnet-cifar10", "minilm-mail"):
        found = subjects.get(name, "smoke")
        assert (found.setting.data.subset, found.test_examples, found.points, found.networks) == (100, 40, 4, 2)
        assert found.setting.digest != subjects.get(name, "standard").setting.digest
