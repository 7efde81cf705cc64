"""Networks, examples, names, factors and states that do not fit are refused, and the message says what would."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from symmetry_cases import said
from torch import Tensor, nn

from mli_check.errors import (
    MliCheckError,
    OptionError,
    StateMismatchError,
    TraceError,
    UnknownNameError,
    UnknownOperationError,
)
from mli_check.symmetry import Symmetries, register_rule, scale_symmetries

INPUTS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))


def relu_network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


@cache
def group() -> Symmetries:
    return scale_symmetries(relu_network(), INPUTS)


# Networks and examples


def quantised() -> nn.Module:
    model = nn.Linear(4, 2)
    model.weight = nn.Parameter(torch.ones(2, 4, dtype=torch.int8), requires_grad=False)
    return model


@pytest.mark.parametrize(
    ("model", "example", "words"),
    [
        (nn.ReLU(), INPUTS, ["has no parameters", "pass a network with weights"]),
        (quantised(), INPUTS, ["`weight`", "torch.int8", "floating-point"]),
        (nn.Linear(4, 2, dtype=torch.complex64), INPUTS, ["`weight`", "torch.complex64", "floating-point"]),
        (nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(2)), INPUTS, ["`1.weight`", "call the model once"]),
        (nn.Sequential(nn.Linear(4, 4), nn.LazyBatchNorm1d()), INPUTS, ["`1.weight`", "call the model once"]),
        (relu_network, INPUTS, ["torch.nn.Module", "function"]),
        (relu_network(), "digits", ["a tensor, a tuple of arguments or a dict", "got str"]),
        (relu_network(), None, ["a tensor, a tuple of arguments or a dict", "got NoneType"]),
    ],
    ids=["no weights", "whole numbers", "complex", "lazy", "lazy norm", "no module", "text", "nothing"],
)
def test_what_is_no_network_or_no_example_is_an_option_error(model: Any, example: Any, words: list[str]) -> None:
    message = said(OptionError, lambda: scale_symmetries(model, example))
    assert all(word in message for word in words)


def test_another_kind_of_output_is_named_with_those_that_there_are() -> None:
    message = said(UnknownNameError, lambda: scale_symmetries(relu_network(), INPUTS, output="loose"))  # type: ignore[arg-type]
    assert "'loose'" in message
    assert "fixed, free" in message


# Names of operations


BAD_NAMES = ["relu", "aten.relu", "aten::relu.default", "a::b::c", "::relu", "aten::", " aten::relu", "", None, 3]


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_a_name_that_no_operation_can_have_is_an_option_error(name: Any) -> None:
    message = said(OptionError, lambda: register_rule(name))
    assert f"`aten::relu`, namespace first and overload left out; got {name!r}" in message


def test_a_rule_without_a_name_is_an_option_error() -> None:
    assert "`aten::relu`" in said(OptionError, lambda: register_rule(lambda call: call))  # type: ignore[arg-type]


# Factors and states that do not fit


BAD_FACTORS = [0, 0.0, True, -2.0, float("nan"), float("inf"), "2", None, 2j, pytest.param(10**400, id="1e400")]


@pytest.mark.parametrize("factor", BAD_FACTORS, ids=repr)
@pytest.mark.parametrize("method", ["factors", "violations", "complete", "apply"])
def test_a_factor_that_is_no_positive_finite_number_is_an_option_error(method: str, factor: Any) -> None:
    given: Any = {"0.weight": factor}
    arguments = [relu_network().state_dict(), given] if method == "apply" else [given]
    message = said(OptionError, lambda: getattr(group(), method)(*arguments))
    assert "`0.weight` must be a positive, finite number, got" in message


def test_a_factor_of_an_unknown_tensor_is_named_with_the_one_that_was_meant() -> None:
    message = said(UnknownNameError, lambda: group().violations({"0.wieght": 2.0}))
    assert "'0.wieght'" in message
    assert "Did you mean `0.weight`?" in message


@pytest.mark.parametrize("factor", [1e300, 1e-300], ids=["over", "under"])
def test_a_product_out_of_its_dtypes_range_is_an_option_error(factor: float) -> None:
    message = said(OptionError, lambda: group().apply(relu_network().state_dict(), {"0.weight": factor}))
    assert "`0.weight`" in message
    assert "range of torch.float32" in message


def tied_network() -> nn.Sequential:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return nn.Sequential(first, nn.ReLU(), second)


def test_factors_of_one_tied_tensor_may_not_differ() -> None:
    found = scale_symmetries(tied_network(), INPUTS)
    message = said(OptionError, lambda: found.violations({"0.weight": 2.0, "2.weight": 3.0}))
    assert all(word in message for word in ("`0.weight`", "`2.weight`", "2.0", "3.0", "tied"))
    assert found.factors({"0.weight": 2.0, "2.weight": 2.0}) == found.factors({"2.weight": 2.0}) == {"0.weight": 2.0}


def test_a_state_that_does_not_fit_lists_all_differences() -> None:
    state = relu_network().state_dict()
    state["0.bias"], state["3.weight"] = torch.ones(7), state.pop("2.weight")
    lines = said(StateMismatchError, lambda: group().apply(state, {"0.weight": 2.0}))
    assert "`2.weight` is missing" in lines
    assert "`3.weight` is not of this network" in lines
    assert "`0.bias` has shape (7,), expected (3,)" in lines
    assert "train or eval" in lines


def test_a_state_in_which_a_tied_tensor_lacks_its_other_name_does_not_fit() -> None:
    state = tied_network().state_dict()
    del state["2.weight"]
    found = scale_symmetries(tied_network(), INPUTS)
    assert "`2.weight` is missing" in said(StateMismatchError, lambda: found.apply(state, {}))


class Masked(nn.Module):
    """A layer and a mask that is not saved."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        found = self.layer(x) * self.mask
        assert isinstance(found, Tensor)
        return found


def test_a_buffer_that_is_shared_and_not_saved_is_no_part_of_a_state() -> None:
    mask = torch.ones(4)
    model = nn.Sequential(Masked(mask), Masked(mask))
    found = scale_symmetries(model, INPUTS)
    assert list(found.apply(model.state_dict(), found.sample())) == list(model.state_dict())


def test_all_errors_are_the_packages_own() -> None:
    """So that the command line turns each into exit code 2."""
    for error in (TraceError, UnknownOperationError, UnknownNameError, OptionError, StateMismatchError):
        assert issubclass(error, MliCheckError)
    assert issubclass(UnknownOperationError, TraceError)
