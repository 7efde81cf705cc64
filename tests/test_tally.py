"""Sums, errors and outcomes do not depend on the order and the blocks in which outputs arrive."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from mli_check.curves import Outcomes
from mli_check.data import Dataset
from mli_check.errors import OptionError
from mli_check.evaluation.tally import Tally, class_weights
from mli_check.losses import LOSSES, Loss, tie_aware_error

CLASSES = 4


def data_of(count: int, seed: int = 0) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    return Dataset(torch.zeros(count, 1), torch.randint(CLASSES, (count,), generator=generator))


def outputs_of(sites: int, count: int, seed: int = 0, *, ties: bool = True, nans: bool = False) -> Tensor:
    """Small whole numbers, of which many tie, or normal ones; some rows are NaN."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(sites, count, CLASSES, generator=generator)
    drawn = drawn.mul(1.5).round() if ties else drawn
    if nans:
        drawn[torch.rand(sites, count, generator=generator) < 0.2] = torch.nan
    return drawn


def own(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets, reduction="none")


def tally_of(data: Dataset, sites: int, outcomes: int, loss: Loss | None = None, keep: str = "logits") -> Tally:
    name = "cross_entropy" if loss is None else "own"
    return Tally(data, loss or LOSSES[name], name, sites=sites, outcomes=outcomes, keep=keep)


def check(tally: Tally, data: Dataset, outputs: Tensor, outcomes: int) -> None:
    """The tally holds what all outputs at once come to."""
    sites, count = outputs.shape[:2]
    everywhere = range(sites)
    losses = torch.stack([own(one, data.targets) for one in outputs])
    errors = torch.stack([tie_aware_error(one, data.targets) for one in outputs])
    weights = class_weights(data.targets)
    assert tally.loss(everywhere) == pytest.approx(losses.double().mean(1).numpy(), rel=1e-6, nan_ok=True)
    assert tally.error(everywhere) == pytest.approx(errors.double().mean(1).numpy(), rel=1e-12)
    assert tally.balanced_error(everywhere) == pytest.approx((errors.double() @ weights).numpy(), rel=1e-9, abs=1e-12)
    assert tally.losses(everywhere) == pytest.approx(losses.numpy(), rel=1e-5, abs=1e-6, nan_ok=True)
    assert np.array_equal(tally.logits(everywhere), outputs.numpy(), equal_nan=True)
    if outcomes:
        found = tally.outcomes(range(outcomes))
        wanted = Outcomes.pack([one.numpy() for one in errors[:outcomes]])
        assert np.array_equal(found.errors(), errors[:outcomes].numpy().T)
        assert np.array_equal(found.bits, wanted.bits)
        assert found.examples == count
        assert found.ties.keys() == wanted.ties.keys()
        for site, (where, fractions) in wanted.ties.items():
            assert np.array_equal(found.ties[site][0], where)
            assert np.array_equal(found.ties[site][1], fractions)


@st.composite
def arrivals(draw: st.DrawFn, sites: int, count: int) -> list[tuple[list[int], slice, bool]]:
    """Blocks of sites and rows that hold each pair once, in any order; whether to settle after each."""
    cuts = sorted(draw(st.sets(st.integers(1, max(count - 1, 1)), max_size=5)) - {count})
    bounds = [0, *cuts, count]
    blocks = []
    for start, stop in pairwise(bounds):
        order, left = draw(st.permutations(range(sites))), []
        while order:
            size = draw(st.integers(1, len(order)))
            left.append(list(order[:size]))
            order = order[size:]
        blocks += [(group, slice(start, stop)) for group in left]
    return [(group, rows, draw(st.booleans())) for group, rows in draw(st.permutations(blocks))]


@settings(max_examples=120)
@given(
    st.data(), st.integers(1, 6), st.integers(1, 40), st.integers(0, 2**16), st.booleans(), st.booleans(), st.booleans()
)
def test_any_order_and_any_blocks_come_to_the_same(
    data: st.DataObject, sites: int, count: int, seed: int, ties: bool, nans: bool, callers_own: bool
) -> None:
    examples, outputs = data_of(count, seed), outputs_of(sites, count, seed, ties=ties, nans=nans)
    outcomes = data.draw(st.integers(0, sites))
    tally = tally_of(examples, sites, outcomes, own if callers_own else None)
    tally.limit(data.draw(st.sampled_from([0, 100, 10**9])))
    for group, rows, settle in data.draw(arrivals(sites, count)):
        if len(group) == 1 and settle:
            tally.add(group[0], rows, outputs[group[0], rows])
        else:
            tally.add_stacked(group, rows, outputs[group][:, rows])
        if settle:
            tally.settle()
    tally.settle(all=True)
    check(tally, examples, outputs, outcomes)


@pytest.mark.parametrize("size", [1, 3, 7, 8, 9, 13, 29])
def test_blocks_that_do_not_end_at_whole_bytes_fill_the_same_bits(size: int) -> None:
    data, outputs = data_of(29), outputs_of(2, 29)
    tally = tally_of(data, 2, 2)
    for start in range(0, 29, size):
        for site in (1, 0):
            rows = slice(start, min(start + size, 29))
            tally.add(site, rows, outputs[site, rows])
            tally.settle()
    tally.settle(all=True)
    check(tally, data, outputs, 2)


def test_outputs_that_are_nan_are_errors_of_one_and_others_stay() -> None:
    data, outputs = data_of(20), outputs_of(2, 20, ties=False)
    outputs[0, 3], outputs[1] = torch.nan, torch.nan
    tally = tally_of(data, 2, 2)
    tally.add_stacked([0, 1], slice(0, 20), outputs)
    tally.settle(all=True)
    check(tally, data, outputs, 2)
    assert tally.outcomes([0, 1]).errors()[3].tolist() == [1, 1]
    assert tally.error([1]).tolist() == [1]
    assert np.isnan(tally.loss([0, 1])).all()


def test_infinite_outputs_that_tie_share_the_top() -> None:
    data = Dataset(torch.zeros(2, 1), torch.tensor([0, 2]))
    outputs = torch.tensor([[[torch.inf, torch.inf, 0, 0], [torch.inf, torch.inf, 0, 0]]])
    tally = tally_of(data, 1, 1)
    tally.add(0, slice(0, 2), outputs[0])
    tally.settle(all=True)
    assert tally.outcomes([0]).errors()[:, 0].tolist() == [0.5, 1.0]


def test_what_waits_below_the_limit_is_settled_at_the_end_only() -> None:
    data, outputs = data_of(16), outputs_of(1, 16)
    tally = tally_of(data, 1, 1)
    tally.limit(16 * CLASSES * 4)
    tally.add(0, slice(0, 8), outputs[0, :8])
    tally.settle()
    assert tally.error([0]) is None
    tally.add(0, slice(8, 16), outputs[0, 8:])
    tally.settle()
    check(tally, data, outputs, 1)


def test_sites_in_another_order_and_twice_are_those_asked_for() -> None:
    data, outputs = data_of(11), outputs_of(3, 11)
    tally = tally_of(data, 3, 3)
    tally.add_stacked([2, 0, 1], slice(0, 11), outputs[[2, 0, 1]])
    tally.settle(all=True)
    errors = torch.stack([tie_aware_error(one, data.targets) for one in outputs]).numpy()
    assert np.array_equal(tally.outcomes([2, 0, 2]).errors().T, errors[[2, 0, 2]])
    assert tally.error([2, 0, 2]) == pytest.approx(errors.mean(1, dtype=np.float64)[[2, 0, 2]])


def test_structured_outputs_have_losses_and_no_errors_or_logits() -> None:
    data, outputs = data_of(9), outputs_of(2, 9)
    tally = tally_of(data, 2, 2, lambda found, targets: own(found["logits"], targets), keep="examples")
    for rows in (slice(4, 9), slice(0, 4)):
        for site in range(2):
            tally.add(site, rows, {"logits": outputs[site, rows]})
        tally.settle()
    assert tally.loss([0, 1]) == pytest.approx([float(own(one, data.targets).mean()) for one in outputs], rel=1e-6)
    assert tally.error([0]) is tally.outcomes([0]) is tally.logits([0]) is None
    keeping = tally_of(data, 1, 1, lambda found, targets: own(found["logits"], targets), keep="logits")
    with pytest.raises(OptionError, match="keep='logits' keeps a model's output where it is one tensor"):
        keeping.add(0, slice(0, 9), {"logits": outputs[0]})


def test_every_class_weighs_alike() -> None:
    weights = class_weights(torch.tensor([0, 0, 0, 2]))
    assert weights.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
