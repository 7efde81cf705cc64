"""Tests of T28: its criterion with an evidence for each verdict, and violations planted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from claim_benches import FALLING, MODULES, NOT, OPEN, REPRODUCED, RISING, UNDECIDED, Bench, judged, line, small

from mli_check import subjects
from mli_check.paths import LinearPath, Span
from mli_check.runs import Store

pytestmark = pytest.mark.xdist_group("claims-criteria")

norm_stats = MODULES["test_norm_stats"]
T28 = norm_stats.test_interpolated_statistics_make_a_barrier_from_checkpoints_and_recalculated_ones_none
WITH_BN = small("with BN", batch_norm=True, checkpoints=(3, 10, 30))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("claims") / "store")


HIGH, NONE, SCATTERED = [0.1 + 0.01 * (i % 3) for i in range(10)], [0.001, -0.001] * 5, [0.3, -0.2] * 5


@pytest.mark.parametrize(
    ("barriers", "last", "verdict"),
    [
        pytest.param({"30": HIGH, "100": HIGH}, FALLING, REPRODUCED, id="as claimed"),
        pytest.param({"100": HIGH}, FALLING, REPRODUCED, id="one checkpoint good enough"),
        pytest.param({"30": HIGH, "100": SCATTERED}, FALLING, OPEN, id="scattered"),
        pytest.param({"30": HIGH, "100": HIGH}, UNDECIDED, OPEN, id="an undecided rise"),
        pytest.param({"100": HIGH[:9]}, FALLING, OPEN, id="nine networks"),
        pytest.param({}, FALLING, OPEN, id="no checkpoint good enough"),
        pytest.param({"30": HIGH, "100": NONE}, FALLING, NOT, id="no barrier from one"),
        pytest.param({"30": HIGH, "100": HIGH}, RISING, NOT, id="a rise when recalculated"),
    ],
)
def test_t28_wants_barriers_when_interpolated_and_no_rise_when_recalculated(
    barriers: dict[str, list[float]], last: Any, verdict: str
) -> None:
    tests = {"3": [FALLING] * 10, "100": [FALLING] * 9 + [last]}
    assert norm_stats.checkpoint_criterion(barriers, tests).verdict is verdict


def test_a_barrier_is_the_mean_height_over_a_fixed_stretch() -> None:
    assert norm_stats.barrier(line([0.1] + [0.3] * 10 + [0.9] * 10)) == pytest.approx(0.2)
    beyond = line([0.1, 0.9] + [0.1] * 9 + [0.9] * 10)  # at alpha = 0.05 and from 0.55
    assert norm_stats.barrier(beyond) == pytest.approx(0)


def test_a_checkpoint_counts_where_every_network_is_better_than_half_of_chance() -> None:
    good, bad = line([0.44, 0.1]), line([0.46, 0.1])
    assert norm_stats.can_show_a_barrier([good] * 10, 0.9)
    assert not norm_stats.can_show_a_barrier([good] * 9 + [bad], 0.9)


def test_quick_subjects_are_calibrated_on_all_and_larger_ones_on_their_sample(store: Store) -> None:
    few = replace(WITH_BN, calibration_examples=100)
    table = Bench(norm_stats.calibrated_on_all(few), store)
    assert len(table.calibration) == len(table.train) == 1000
    assert table.settings == Bench(few, store).settings
    large = subjects.get("resnet8-cifar10")
    assert norm_stats.calibrated_on_all(large) is large


class Exchanged(Bench):
    """What is asked for with interpolated statistics is measured with recalculated ones, and the other way round."""

    def measure(self, paths: Sequence[Span], *args: Any, norm_stats: str, **options: Any) -> list[Any]:
        other = {"interpolate": "recalibrate", "recalibrate": "interpolate"}[norm_stats]
        return super().measure(paths, *args, norm_stats=other, **options)


class WithBarriers(Bench):
    """Under `policies`, paths start at the final state of another network, good, with a barrier between."""

    policies: tuple[str, ...] = ("interpolate",)

    def measure(self, paths: Sequence[Span], *args: Any, norm_stats: str, **options: Any) -> list[Any]:
        if norm_stats in self.policies:
            finals = [path.final for path in paths]
            paths = [LinearPath(*ends) for ends in zip([*finals[1:], finals[0]], finals, strict=True)]
        return super().measure(paths, *args, norm_stats=norm_stats, **options)


class ExchangedBarriers(WithBarriers):
    policies = ("recalibrate",)


class BarriersAlways(WithBarriers):
    policies = ("interpolate", "recalibrate")


@pytest.mark.parametrize(
    ("planted", "part"),
    [
        pytest.param(ExchangedBarriers, "barriers when interpolated", id="the other way round"),
        pytest.param(BarriersAlways, "monotone when recalculated", id="recalculation does not help"),
        pytest.param(Exchanged, "barriers when interpolated", id="policies exchanged"),
    ],
)
def test_barriers_elsewhere_than_claimed_refute_t28(planted: type[Bench], part: str, store: Store) -> None:
    assert judged(T28, WITH_BN, *[WithBarriers(WITH_BN, store)] * 2).verdict is REPRODUCED
    found = judged(T28, WITH_BN, *[planted(WITH_BN, store)] * 2)
    assert found.verdict is NOT
    assert found.reason.startswith(part)


def test_t28_says_which_checkpoints_cannot_show_a_barrier(store: Store) -> None:
    found = judged(T28, WITH_BN, *[Bench(WITH_BN, store)] * 2)
    errors = {name: found.details[f"error of the checkpoint, {name}"] for name in ("iteration 3", "iteration 30")}
    assert errors["iteration 3"] > 0.45 > errors["iteration 30"]  # type: ignore[operator]
    assert str(found.details["left out of the barriers for their error"]).startswith("iteration 3")
    assert "barriers when interpolated, iteration 30" in found.details
