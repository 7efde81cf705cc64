"""Behaviour that no test had held until scripts/mutants.py planted a fault in it and nothing failed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from symmetry_helpers import output
from torch import nn

import mli_check as mli
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
