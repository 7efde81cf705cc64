"""Behaviour that no test had held until scripts/mutants.py planted a fault in it and nothing failed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from claim_benches import Bench, small
from symmetry_helpers import output
from torch import nn
from torch.nn.functional import cross_entropy

import mli_check as mli
from mli_check.data import load_dataset
from mli_check.runs import Store
from mli_check.statistics import Verdict, rise_test
from mli_check.strategies import fill
from mli_check.verdicts import usually


@pytest.mark.parametrize("kind", [mli.rsi, mli.vsi])
def test_the_next_weight_restores_though_a_normalisation_behind_it_would_take_the_scale_out(
    kind: Callable[..., dict[str, float]],
) -> None:
    """Equation 15: the scale ends in the weight that comes next, so what that makes is what it was, before any BN."""
    model = fill(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Linear(5, 4)), 0)
    inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    group = mli.scale_symmetries(model.train(), inputs)
    factors = kind(group, {"0": 4.0})
    assert {name: k for name, k in factors.items() if k != 1} == {"0.weight": 4.0, "0.bias": 4.0, "2.weight": 0.25}
    upto, changed = model[:3], group.apply(model.state_dict(), factors)
    state = {name: changed[name] for name in upto.state_dict()}
    assert torch.equal(output(upto, state, inputs), output(upto, upto.state_dict(), inputs))


def test_one_example_of_ten_thousand_that_gets_worse_breaks_strict_monotonicity() -> None:
    errors = np.ones((10_000, 3))
    errors[:5000, 1:] = 0
    assert rise_test(errors, replicates=200).strictly_monotone
    errors[0, 2] = 1
    assert not rise_test(errors, replicates=200).strictly_monotone


def test_a_bound_that_equals_the_threshold_is_within_it() -> None:
    errors = (np.random.default_rng(0).random((400, 1)) < np.linspace(0.8, 0.1, 6)).astype(float)
    errors[:200, -1] = 1
    found = rise_test(errors, replicates=200)
    assert found.lower > 0
    assert rise_test(errors, threshold=found.upper, replicates=200).decision is Verdict.REPRODUCED
    assert rise_test(errors, threshold=found.lower, replicates=200).decision is Verdict.INCONCLUSIVE


def test_every_example_has_a_multiplier_of_its_own_however_many_there_are() -> None:
    """Two halves of opposite deviations: with multipliers that come again after a block they would cancel."""
    half = np.random.default_rng(0).integers(0, 2, (4096, 11)).astype(float)
    wanted = rise_test(half).critical
    assert rise_test(np.concatenate([half, 1 - half])).critical == pytest.approx(wanted, abs=0.2)


def test_what_never_happens_is_not_more_often_than_never() -> None:
    assert usually([False] * 20, 0.0, "share").verdict is Verdict.INCONCLUSIVE


def test_gaussian_digits_vary_as_much_as_a_sample_says_that_their_population_does() -> None:
    """The variances summed over pixels and classes, each within a class: 2000 draws a class know their sum to 0.25%.

    Divided by n = 100 images in place of n - 1 it would be 1% too small.
    """
    real, drawn = load_dataset("digits", "train"), load_dataset("digits-gaussian", "test")
    wanted, found = (
        sum(float(data.inputs[data.targets == label].var(0).sum()) for label in range(10)) for data in (real, drawn)
    )
    assert found == pytest.approx(wanted, rel=0.005)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(small("found", epochs=1), Store(tmp_path_factory.mktemp("store")))


def test_training_loss_is_measured_on_the_training_examples(bench: Bench) -> None:
    run = bench.runs(bench.settings)[0]
    bench.model.load_state_dict(run.final)
    with torch.no_grad():
        wanted = cross_entropy(bench.model.eval()(bench.train.inputs), bench.train.targets)
    assert bench.loss_curves([run])[0].loss[-1] == pytest.approx(float(wanted), rel=1e-5)


def test_rise_tests_in_several_parts_of_a_claim_are_each_at_a_stricter_level(bench: Bench) -> None:
    curves = bench.curves("own")
    level = 0.05 / (2 * len(curves))
    assert bench.rise_tests(curves, parts=2) == [curve.rise_test(level=level) for curve in curves]
    assert bench.rise_tests(curves, parts=2) != bench.rise_tests(curves)
