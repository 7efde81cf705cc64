"""Tests of per-example losses and errors."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from mli_check.errors import OptionError, UnknownNameError
from mli_check.losses import (
    LOSSES,
    check_losses,
    cross_entropy,
    is_classification,
    resolve,
    squared_error,
    tie_aware_error,
)

INF, NAN = math.inf, math.nan
CLASSES = 4
TARGETS = torch.tensor([2, 0, 3])


@st.composite
def batches(draw: st.DrawFn, logits: st.SearchStrategy[float]) -> tuple[Tensor, Tensor]:
    """Outputs (n, CLASSES) in float64 and targets (n,)."""
    count = draw(st.integers(1, 5))
    outputs = draw(arrays("float64", (count, CLASSES), elements=logits))
    targets = draw(st.lists(st.integers(0, CLASSES - 1), min_size=count, max_size=count))
    return torch.from_numpy(outputs), torch.tensor(targets)


# Losses


@given(batch=batches(st.floats(-30, 30)))
def test_cross_entropy_is_the_negative_log_of_the_softmax(batch: tuple[Tensor, Tensor]) -> None:
    outputs, targets = batch
    by_hand = [
        math.log(sum(math.exp(logit) for logit in row)) - row[target]
        for row, target in zip(outputs.tolist(), targets.tolist(), strict=True)
    ]
    assert cross_entropy(outputs, targets).tolist() == pytest.approx(by_hand, abs=1e-12)


def test_cross_entropy_of_equal_outputs_is_the_log_of_the_number_of_classes() -> None:
    assert cross_entropy(torch.zeros(3, CLASSES), TARGETS).tolist() == pytest.approx([math.log(CLASSES)] * 3)


def test_cross_entropy_of_huge_outputs_does_not_overflow() -> None:
    outputs = torch.tensor([[0.0, 0.0, 1e4, 0.0]]).expand(3, CLASSES)
    assert cross_entropy(outputs, TARGETS).tolist() == [0, 1e4, 1e4]


@given(batch=batches(st.floats(-30, 30)))
def test_squared_error_of_classes_is_against_one_hot_targets(batch: tuple[Tensor, Tensor]) -> None:
    outputs, targets = batch
    by_hand = [
        sum((value - (index == target)) ** 2 for index, value in enumerate(row))
        for row, target in zip(outputs.tolist(), targets.tolist(), strict=True)
    ]
    assert squared_error(outputs, targets).tolist() == pytest.approx(by_hand)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 5), (3, 1, 2, 2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_squared_error_is_summed_over_each_example(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(shape, generator=generator, dtype=dtype)
    targets = torch.randn(shape, generator=generator)
    by_hand = [float((outputs[i].double() - targets[i].double()).square().sum()) for i in range(3)]
    losses = squared_error(outputs, targets)
    assert losses.shape == (3,)
    assert losses.dtype == dtype
    assert losses.tolist() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize(
    ("outputs", "targets"), [((3, 1), (3,)), ((3,), (3, 1)), ((3, 4), (3, 1)), ((3, 4), (4,))], ids=str
)
def test_squared_error_never_broadcasts(outputs: tuple[int, ...], targets: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match=r"of one shape, got \(.*\), \(.*\)"):
        squared_error(torch.zeros(outputs), torch.zeros(targets))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_losses_can_be_differentiated(loss: Any) -> None:
    outputs = torch.zeros(3, CLASSES, requires_grad=True)
    loss(outputs, TARGETS).sum().backward()
    assert outputs.grad is not None
    assert outputs.grad.abs().sum() > 0


# The tie-aware error


@pytest.mark.parametrize(
    ("outputs", "error"),
    [
        ([0.0, 1.0, 2.0, 1.0], 0),
        ([3.0, 1.0, 2.0, 1.0], 1),
        ([0.0, 0.0, 0.0, 0.0], 3 / 4),
        ([-1e30, -1e30, -1e30, -1e30], 3 / 4),
        ([0.0, 2.0, 2.0, 1.0], 1 / 2),
        ([2.0, 2.0, 2.0, 1.0], 2 / 3),
        ([2.0, 2.0, 1.0, 2.0], 1),
        ([0.0, -0.0, -0.0, -1.0], 2 / 3),
        ([0.0, 1.0, INF, 1.0], 0),
        ([0.0, INF, INF, 1.0], 1 / 2),
        ([INF, 1.0, 2.0, 1.0], 1),
        ([-INF, -INF, -INF, -INF], 3 / 4),
        ([-INF, -INF, 0.0, -INF], 0),
        ([NAN, NAN, NAN, NAN], 1),
        ([NAN, 0.0, 5.0, 0.0], 1),
        ([0.0, 0.0, NAN, 0.0], 1),
        ([NAN, 0.0, INF, 0.0], 1),
    ],
    ids=str,
)
def test_the_error_shares_a_hit_among_the_top_classes(outputs: list[float], error: float) -> None:
    found = tie_aware_error(torch.tensor([outputs]), torch.tensor([2]))
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([error])


@given(batch=batches(st.integers(-2, 2).map(float)))
def test_the_error_is_what_a_fair_choice_among_the_top_classes_expects(batch: tuple[Tensor, Tensor]) -> None:
    outputs, targets = batch
    by_hand = []
    for row, target in zip(outputs.tolist(), targets.tolist(), strict=True):
        top = [index for index, value in enumerate(row) if value == max(row)]
        by_hand.append(sum(choice != target for choice in top) / len(top))
    assert tie_aware_error(outputs, targets).tolist() == pytest.approx(by_hand)


@given(batch=batches(st.floats(-5, 5)), order=st.permutations(range(CLASSES)))
def test_the_error_does_not_depend_on_the_numbering_of_the_classes(
    batch: tuple[Tensor, Tensor], order: list[int]
) -> None:
    outputs, targets = batch
    renumbered = tie_aware_error(outputs[:, order], torch.tensor(order).argsort()[targets])
    assert torch.equal(renumbered, tie_aware_error(outputs, targets))


# Losses by name, and losses of the user


def test_losses_have_names() -> None:
    assert resolve("cross_entropy") == ("cross_entropy", cross_entropy)
    assert resolve("squared_error") == ("squared_error", squared_error)


def test_a_callable_is_taken_as_it_is_and_named() -> None:
    partial, module = functools.partial(cross_entropy), torch.nn.CrossEntropyLoss(reduction="none")
    assert resolve(squared_error) == ("squared_error", squared_error)
    assert resolve(partial) == ("partial", partial)
    assert resolve(module) == ("CrossEntropyLoss", module)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("cross-entropy", "Did you mean `cross_entropy`?"), ("hinge", "Known: cross_entropy, squared_error."),
     ("", "Known: cross_entropy"), (None, "unknown loss 'None'")],
    ids=repr,
)  # fmt: skip
def test_an_unknown_loss_is_refused_with_those_known(name: Any, hint: str) -> None:
    with pytest.raises(UnknownNameError) as raised:
        resolve(name)
    assert hint in str(raised.value)


@pytest.mark.parametrize(
    ("values", "got"),
    [
        (torch.tensor(1.0), r"\(\)"),
        (torch.ones(1), r"\(1,\)"),
        (torch.ones(3, 1), r"\(3, 1\)"),
        (torch.ones(4), r"\(4,\)"),
        (1.0, "float"),
        ([1.0, 1.0, 1.0], "list"),
        (None, "NoneType"),
    ],
    ids=["mean", "one value", "column", "one too many", "number", "list", "none"],
)
def test_a_callable_must_return_one_loss_per_example(values: Any, got: str) -> None:
    with pytest.raises(OptionError, match=rf"the loss `mine` returned {got} for 3 examples, expected shape \(3,\)"):
        check_losses(values, 3, "mine")


def test_one_loss_per_example_passes_unchanged() -> None:
    values = torch.rand(3)
    assert check_losses(values, 3, "mine") is values


@pytest.mark.parametrize(
    ("targets", "expected"),
    [(torch.tensor([0, 1]), True), (torch.tensor([0, 1], dtype=torch.uint8), True), (torch.tensor([0.0, 1.0]), False),
     (torch.zeros(2, 3), False), (torch.zeros(2, 3, dtype=torch.int64), False), ([0, 1], False)],
    ids=["int64", "uint8", "floats", "soft classes", "maps of classes", "list"],
)  # fmt: skip
def test_class_indices_are_one_dimensional_integers(targets: Any, expected: bool) -> None:
    assert is_classification(targets) is expected
