"""Tests of theory: the flips that a last bias makes, by hand, against a dense grid, and in a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from mli_check.errors import OptionError
from mli_check.paths import ScaledPath, grid
from mli_check.theory import Flips, last_bias_flips

NAN = float("nan")


def assert_flips(found: Flips, alphas: list[float], classes: list[int]) -> None:
    """The flips of a single example."""
    np.testing.assert_allclose(found.alphas, [alphas])
    assert found.classes.tolist() == [classes]


# By hand


def test_a_class_overtakes_where_the_scaled_scores_make_up_for_the_bias() -> None:
    assert_flips(last_bias_flips([[0.0, 4.0]], [1.0, 0.0], 2), [0.25], [0, 1])
    assert_flips(last_bias_flips([[0.0, 4.0]], [1.0, 0.0], 3), [0.5], [0, 1])


def test_flips_move_towards_one_with_depth() -> None:
    found = [last_bias_flips([[0.0, 4.0]], [1.0, 0.0], layers).alphas[0, 0] for layers in (2, 3, 5, 9, 200)]
    assert found == sorted(found)
    assert found[-1] > 0.99


def test_a_class_in_between_leads_for_a_while() -> None:
    assert_flips(last_bias_flips([[0.0, 4.0, 10.0]], [2.0, 1.0, -1.0], 2), [0.25, 1 / 3], [0, 1, 2])


def test_a_class_in_between_that_comes_too_late_never_leads() -> None:
    assert_flips(last_bias_flips([[0.0, 4.0, 40.0]], [2.0, 1.0, -1.0], 2), [0.075, NAN], [0, 2, -1])


def test_a_class_that_would_overtake_beyond_one_does_not() -> None:
    assert_flips(last_bias_flips([[0.0, 4.0]], [5.0, 0.0], 2), [NAN], [0, -1])
    assert_flips(last_bias_flips([[0.0, 4.0]], [4.0, 0.0], 2), [NAN], [0, -1])


def test_equal_biases_leave_the_largest_score_in_front_throughout() -> None:
    assert_flips(last_bias_flips([[1.0, 3.0, 2.0]], [0.5, 0.5, 0.5], 4), [NAN, NAN], [1, -1, -1])


def test_where_three_lines_meet_the_steepest_wins() -> None:
    assert_flips(last_bias_flips([[0.0, 2.0, 4.0]], [2.0, 1.0, 0.0], 2), [0.5, NAN], [0, 2, -1])


def test_the_lowest_of_equal_classes_is_predicted() -> None:
    assert_flips(last_bias_flips([[1.0, 1.0]], [0.0, 0.0], 2), [NAN], [0, -1])
    assert_flips(last_bias_flips([[0.0, 4.0, 4.0]], [1.0, 0.0, 0.0], 2), [0.25, NAN], [0, 1, -1])


def test_each_example_has_flips_of_its_own() -> None:
    found = last_bias_flips([[0.0, 4.0], [4.0, 0.0], [0.0, 2.0]], [1.0, 0.0], 2)
    np.testing.assert_allclose(found.alphas, [[0.25], [NAN], [0.5]])
    assert found.classes.tolist() == [[0, 1], [0, -1], [0, 1]]


# The classes at given alphas


def test_a_class_is_predicted_from_its_flip_on() -> None:
    found = last_bias_flips([[0.0, 4.0], [4.0, 0.0]], [1.0, 0.0], 2)
    assert found.at([0.1, 0.25, 1.0]).tolist() == [[0, 0], [1, 0], [1, 0]]
    assert found.at([]).shape == (0, 2)


@pytest.mark.parametrize("alphas", [[0.0, 0.5], [-0.1], [1.1], [NAN], 0.5, [[0.5]]])
def test_alphas_outside_the_path_are_an_error(alphas: Any) -> None:
    with pytest.raises(OptionError, match="numbers above 0 and up to 1"):
        last_bias_flips([[0.0, 4.0]], [1.0, 0.0], 2).at(alphas)


# Against outputs computed at many alphas

numbers = st.integers(-40, 40).map(lambda k: k / 8)
cases = st.integers(2, 6).flatmap(
    lambda classes: st.tuples(
        arrays(np.float64, st.tuples(st.integers(1, 4), st.just(classes)), elements=numbers),
        arrays(np.float64, classes, elements=numbers),
        st.integers(2, 9),
    )
)


@given(cases)
def test_the_predicted_class_has_the_largest_output_at_every_alpha(case: tuple[Any, Any, int]) -> None:
    scores, bias, layers = case
    alphas = np.linspace(0.01, 1, 60)
    outputs = alphas[:, None, None] ** (layers - 1) * scores + bias
    chosen = np.take_along_axis(outputs, last_bias_flips(*case).at(alphas)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(chosen, outputs.max(axis=-1), rtol=0, atol=1e-9)


@given(cases)
def test_flips_come_in_order_and_each_brings_a_larger_score(case: tuple[Any, Any, int]) -> None:
    scores, bias, layers = case
    found = last_bias_flips(scores, bias, layers)
    for row, alphas, classes in zip(scores, found.alphas, found.classes, strict=True):
        count = int(np.isfinite(alphas).sum())
        assert np.isnan(alphas[count:]).all()
        assert (classes[count + 1 :] == -1).all()
        assert (np.diff(row[classes[: count + 1]]) > 0).all()
        assert (np.diff(bias[classes[: count + 1]]) < 0).all()
        assert (np.diff(alphas[:count]) > -1e-12).all()
        assert ((alphas[:count] > 0) & (alphas[:count] <= 1)).all()


def test_a_network_flips_where_one_pass_at_its_end_says() -> None:
    shapes = {"0.weight": (8, 6), "2.weight": (8, 8), "4.weight": (4, 8), "4.bias": (4,)}
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    inputs = torch.randn(30, 6, generator=generator, dtype=torch.float64)
    hidden = [nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 8, bias=False), nn.ReLU()]
    model = nn.Sequential(*hidden, nn.Linear(8, 4)).double()
    model.load_state_dict(drawn)
    bias = model[-1].bias.detach()
    scores = model(inputs).detach() - bias
    flips = last_bias_flips(scores, bias, 3)
    alphas, path = grid(401)[1:], ScaledPath(model.state_dict())
    states = [path.state(float(alpha)) for alpha in alphas]
    measured = [torch.func.functional_call(model, state, (inputs,)).argmax(1).numpy() for state in states]
    assert np.isfinite(flips.alphas).any(axis=1).sum() > 10
    assert (flips.at(alphas) == np.stack(measured)).all()


# Errors


@pytest.mark.parametrize(
    ("scores", "bias", "layers", "told"),
    [
        pytest.param([0.0, 1.0], [0.0, 1.0], 2, r"got shapes \(2,\) and \(2,\)", id="one example without its axis"),
        pytest.param([[0.0, 1.0]], [0.0], 2, r"got shapes \(1, 2\) and \(1,\)", id="a bias of another length"),
        pytest.param([[0.0]], [0.0], 2, "at least 2 classes", id="one class"),
        pytest.param([[0.0, NAN]], [0.0, 1.0], 2, "not all finite", id="a score that is no number"),
        pytest.param([[0.0, 1.0]], [0.0, float("inf")], 2, "not all finite", id="an infinite bias"),
        pytest.param([[0.0, 1.0]], [0.0, 1.0], 1, "layers=1 must be 2 or more", id="one layer"),
    ],
)
def test_what_has_no_flips_is_an_error(scores: Any, bias: Any, layers: int, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        last_bias_flips(scores, bias, layers)
