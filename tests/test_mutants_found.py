"""Behaviour that no test had held until scripts/mutants.py planted a fault in it and nothing failed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from symmetry_helpers import output
from torch import nn

import mli_check as mli
from mli_check.statistics import Verdict, rise_test
from mli_check.strategies import fill


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
