"""Tests of the paths: formulas by hand, exact end points, parts of a state, powers, planes and grids."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from helpers import images, random_state
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mli_check.errors import OptionError, StateMismatchError, UnknownNameError
from mli_check.models import build
from mli_check.paths import LinearPath, Plane, ScaledPath, Span, grid
from mli_check.settings import ModelSetting
from mli_check.states import digest

if TYPE_CHECKING:
    from collections.abc import Mapping

ALPHAS = st.floats(-2, 3)


def network() -> nn.Module:
    return build(ModelSetting(name="fcn", hidden=(5, 4), batch_norm=True), (1, 3, 3), 3)


def pair(dtype: torch.dtype = torch.float64) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two states with weights, biases, running statistics and counters, the counters 7 and 11."""
    init, final = random_state(network().to(dtype), 0), random_state(network().to(dtype), 1)
    for state, count in ((init, 7), (final, 11)):
        state.update({name: torch.tensor(count) for name in state if name.endswith("num_batches_tracked")})
    return init, final


INIT, FINAL = pair()
MOVING = [name for name in FINAL if not name.endswith("num_batches_tracked")]
STATISTICS = [name for name in MOVING if "running_" in name]


def formula(first: float, one: Tensor, second: float = 0.0, other: Tensor | None = None) -> Tensor:
    total = first * one.numpy() + (0 if other is None else second * other.numpy())
    return torch.from_numpy(np.asarray(total))


def assert_close(actual: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(actual, wanted, rtol=1e-12, atol=1e-12)


def assert_equal_states(actual: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert list(actual) == list(wanted)
    for name, tensor in wanted.items():
        assert actual[name].dtype == tensor.dtype, name
        assert torch.equal(actual[name], tensor), name


def with_counters_of_final(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor if name in MOVING else FINAL[name] for name, tensor in state.items()}


# ---- formulas


@given(alpha=ALPHAS)
def test_a_linear_path_is_one_minus_alpha_times_init_plus_alpha_times_final(alpha: float):
    state = LinearPath(INIT, FINAL).state(alpha)
    for name in MOVING:
        assert_close(state[name], formula(1 - alpha, INIT[name], alpha, FINAL[name]))


@given(alpha=ALPHAS)
def test_a_scaled_path_is_alpha_times_final(alpha: float):
    state = ScaledPath(FINAL).state(alpha)
    for name in MOVING:
        assert_close(state[name], formula(alpha, FINAL[name]))


@given(alpha=ALPHAS, beta=ALPHAS)
def test_a_plane_is_alpha_times_final_plus_beta_times_noise(alpha: float, beta: float):
    state = Plane(FINAL, INIT).state((alpha, beta))
    for name in MOVING:
        assert_close(state[name], formula(alpha, FINAL[name], beta, INIT[name]))


def test_a_scaled_path_is_the_linear_path_from_the_origin():
    origin = {name: torch.zeros_like(tensor) for name, tensor in FINAL.items()}
    for alpha in (0.0, 0.3, 0.7, 1.0):
        assert_equal_states(ScaledPath(FINAL).state(alpha), LinearPath(origin, FINAL).state(alpha))


def test_the_axis_of_a_plane_is_the_scaled_path():
    for alpha in (-0.5, 0.0, 0.3, 1.0):
        assert_equal_states(Plane(FINAL, INIT).state((alpha, 0.0)), ScaledPath(FINAL).state(alpha))


@given(steps=st.integers(-20, 20))
def test_scaling_by_a_power_of_two_is_exact_to_the_bit(steps: int):
    final = pair(torch.float32)[1]
    state = ScaledPath(final).state(2.0**steps)
    for name in MOVING:
        assert np.array_equal(state[name].numpy(), np.ldexp(final[name].numpy(), steps))


def test_a_path_of_ones_own_over_three_states_needs_its_coefficients_alone():
    middle = random_state(network().double(), 2)

    class Bezier(Span):
        basis, anchor, label = (INIT, middle, FINAL), 2, "Bezier"

        def coefficients(self, point: tuple[float, ...]) -> tuple[float, ...]:
            return ((1 - point[0]) ** 2, 2 * point[0] * (1 - point[0]), point[0] ** 2)

    path = Bezier()
    assert_equal_states(path.state(0.0), with_counters_of_final(INIT))
    assert_equal_states(path.state(1.0), FINAL)
    for name in MOVING:
        wanted = 0.49 * INIT[name] + 0.42 * middle[name] + 0.09 * FINAL[name]
        assert_close(path.state(0.3)[name], wanted)


# ---- end points


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_the_ends_of_a_linear_path_are_the_states_to_the_bit(dtype: torch.dtype):
    init, final = pair(dtype)
    path = LinearPath(init, final)
    assert_equal_states(path.state(1.0), final)
    assert_equal_states(path.state(0.0), init | {name: final[name] for name in final if name not in MOVING})


def test_the_end_of_every_kind_of_path_is_its_final_state_to_the_bit():
    exponents = dict.fromkeys(MOVING, 2)
    paths = [
        LinearPath(INIT, FINAL),
        LinearPath(INIT, FINAL, only="*.bias"),
        LinearPath(INIT, FINAL, exponents=exponents),
        ScaledPath(FINAL),
        ScaledPath(FINAL, exponents=exponents),
        Plane(FINAL, INIT),
    ]
    for path in paths:
        assert_equal_states(path.state(path.end), FINAL)
        assert path.final is FINAL


def test_a_point_may_be_a_number_of_python_or_numpy_or_a_tuple():
    path = LinearPath(INIT, FINAL)
    wanted = path.state((0.5,))
    for point in (0.5, np.float64(0.5), [0.5], np.array([0.5])):
        assert_equal_states(path.state(point), wanted)
    assert_equal_states(path.state(1), FINAL)


@pytest.mark.parametrize("first", [torch.float16, torch.float64], ids=str)
def test_states_of_two_floating_dtypes_give_the_final_states_dtype_everywhere(first: torch.dtype):
    init, final = pair(first)[0], pair(torch.float32)[1]
    same = {name: tensor.to(final[name].dtype) for name, tensor in init.items()}
    for alpha in (0.0, 0.3, 1.0):
        assert_equal_states(LinearPath(init, final).state(alpha), LinearPath(same, final).state(alpha))


# ---- a zero coefficient


def filled(value: float) -> dict[str, Tensor]:
    return {n: torch.full_like(t, value) if n in MOVING else t for n, t in FINAL.items()}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_basis_state_full_of_nan_does_not_matter_where_its_coefficient_is_zero(value: float):
    broken = filled(value)
    assert_equal_states(LinearPath(broken, FINAL).state(1.0), FINAL)
    assert_equal_states(LinearPath(INIT, broken).state(0.0), with_counters_of_final(INIT))
    assert_equal_states(Plane(FINAL, broken).state((1.0, 0.0)), FINAL)


def test_what_only_leaves_at_final_does_not_see_a_broken_init():
    state = LinearPath(filled(float("nan")), FINAL, only="7.*").state(0.5)
    assert all(torch.equal(state[name], FINAL[name]) for name in FINAL if not name.startswith("7."))
    assert state["7.bias"].isnan().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_origin_is_zero_even_of_a_diverged_network(value: float):
    state = ScaledPath(filled(value)).state(0.0)
    assert all(not state[name].any() for name in MOVING)


def test_nan_is_seen_where_its_coefficient_is_not_zero():
    state = LinearPath(filled(float("nan")), FINAL).state(0.999)
    assert all(state[name].isnan().all() for name in MOVING)


# ---- integers and running statistics


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("norm_stats", ["interpolate", "freeze"])
def test_integer_tensors_stay_the_final_states(alpha: float, norm_stats: str):
    for path in (LinearPath(INIT, FINAL), ScaledPath(FINAL)):
        state = path.state(alpha, norm_stats)
        assert state["2.num_batches_tracked"] == 11
        assert state["2.num_batches_tracked"].dtype == torch.int64


def test_running_statistics_move_with_the_path_or_stay_frozen():
    moved, frozen = (LinearPath(INIT, FINAL).state(0.25, policy) for policy in ("interpolate", "freeze"))
    assert STATISTICS == ["2.running_mean", "2.running_var", "5.running_mean", "5.running_var"]
    for name in STATISTICS:
        assert_close(moved[name], formula(0.75, INIT[name], 0.25, FINAL[name]))
        assert torch.equal(frozen[name], FINAL[name])
    for name in set(MOVING) - set(STATISTICS):
        assert torch.equal(moved[name], frozen[name])


def test_running_statistics_move_unless_frozen_when_nothing_is_said():
    path = LinearPath(INIT, FINAL)
    assert_equal_states(path.state(0.25), path.state(0.25, "interpolate"))


def test_a_policy_that_a_path_does_not_have_is_named():
    with pytest.raises(UnknownNameError, match=r"unknown policy for norm_stats 'frezze'. Did you mean `freeze`\?"):
        LinearPath(INIT, FINAL).state(0.5, "frezze")


# ---- only


def moves(path: LinearPath) -> set[str]:
    """The tensors that are not the final state's at alpha = 0."""
    state = path.state(0.0)
    return {name for name in state if not torch.equal(state[name], FINAL[name])}


def test_only_a_pattern_moves_its_tensors_and_leaves_the_rest_at_final():
    path = LinearPath(INIT, FINAL, only="*.bias")
    assert moves(path) == {"1.bias", "2.bias", "4.bias", "5.bias", "7.bias"}
    assert torch.equal(path.state(0.0)["1.bias"], INIT["1.bias"])
    assert_close(path.state(0.5)["4.bias"], formula(0.5, INIT["4.bias"], 0.5, FINAL["4.bias"]))


def test_several_patterns_move_what_any_of_them_matches():
    assert moves(LinearPath(INIT, FINAL, only=("7.*", "1.weight"))) == {"7.weight", "7.bias", "1.weight"}
    assert moves(LinearPath(INIT, FINAL, only=["[12].weight"])) == {"1.weight", "2.weight"}


def test_a_pattern_for_everything_is_the_whole_path():
    assert_equal_states(LinearPath(INIT, FINAL, only="*").state(0.3), LinearPath(INIT, FINAL).state(0.3))


def test_patterns_tell_capitals_apart():
    with pytest.raises(OptionError, match=re.escape("`only` pattern '*.BIAS' matches no tensor of 1.weight, 1.bias")):
        LinearPath(INIT, FINAL, only="*.BIAS")


def test_a_pattern_without_a_match_is_an_error_also_beside_one_with_matches():
    with pytest.raises(OptionError, match=r"pattern 'head\.\*' matches no tensor"):
        LinearPath(INIT, FINAL, only=("*.bias", "head.*"))


def test_no_pattern_at_all_is_an_error():
    with pytest.raises(OptionError, match="`only` is empty"):
        LinearPath(INIT, FINAL, only=[])


def test_what_only_leaves_out_has_no_power_either():
    path = LinearPath(INIT, FINAL, only="*.weight", exponents={"1.bias": 2, "1.weight": 2})
    assert torch.equal(path.state(0.5)["1.bias"], FINAL["1.bias"])
    assert_close(path.state(0.5)["1.weight"], formula(0.25, INIT["1.weight"], 0.25, FINAL["1.weight"]))


def test_the_label_says_which_part_moves():
    assert LinearPath(INIT, FINAL).label == "LinearPath"
    assert LinearPath(INIT, FINAL, only="*.bias").label == "LinearPath(only='*.bias')"
    assert (ScaledPath(FINAL).label, Plane(FINAL, INIT).label) == ("ScaledPath", "Plane")


# ---- exponents


@given(alpha=st.floats(0, 1), exponent=st.floats(0.25, 6))
def test_exponents_raise_both_coefficients_of_the_tensors_they_name(alpha: float, exponent: float):
    linear = LinearPath(INIT, FINAL, exponents={"1.bias": exponent}).state(alpha)
    scaled = ScaledPath(FINAL, exponents={"1.bias": exponent}).state(alpha)
    one, other = (1 - alpha) ** exponent, alpha**exponent
    assert_close(linear["1.bias"], formula(one, INIT["1.bias"], other, FINAL["1.bias"]))
    assert_close(scaled["1.bias"], formula(other, FINAL["1.bias"]))
    assert torch.equal(scaled["4.bias"], ScaledPath(FINAL).state(alpha)["4.bias"])


def test_an_exponent_of_zero_keeps_a_tensor_at_both_ends_since_zero_to_the_zero_is_one():
    path = ScaledPath(FINAL, exponents={"1.bias": 0})
    for alpha in (0.0, 0.5, 1.0):
        assert torch.equal(path.state(alpha)["1.bias"], FINAL["1.bias"])
    both = LinearPath(INIT, FINAL, exponents={"1.bias": 0})
    for alpha in (0.0, 0.5, 1.0):
        assert torch.equal(both.state(alpha)["1.bias"], INIT["1.bias"] + FINAL["1.bias"])


@pytest.mark.parametrize("exponent", [-1, -1e-9, float("nan")])
@pytest.mark.parametrize(
    "make", [lambda e: LinearPath(INIT, FINAL, exponents=e), lambda e: ScaledPath(FINAL, exponents=e)]
)
def test_negative_exponents_are_an_error(make, exponent: float):
    with pytest.raises(OptionError, match=rf"`exponents` has {exponent} for '1.bias'; exponents must not be negative"):
        make({"4.bias": 2, "1.bias": exponent})


@pytest.mark.parametrize(
    "make", [lambda e: LinearPath(INIT, FINAL, exponents=e), lambda e: ScaledPath(FINAL, exponents=e)]
)
def test_exponents_of_an_unknown_tensor_are_an_error_that_lists_the_known(make):
    with pytest.raises(OptionError, match=r"`exponents` names '1\.bais', which the state does not have: 1\.weight, "):
        make({"1.bais": 2})


@pytest.mark.parametrize("alpha", [-0.5, 1.5])
def test_a_fractional_power_of_a_negative_coefficient_is_an_error_and_no_complex_number(alpha: float):
    with pytest.raises(OptionError, match=r"-0\.5 has no power 0\.5; with fractional `exponents` keep alpha between"):
        LinearPath(INIT, FINAL, exponents={"1.bias": 0.5}).state(alpha)


def test_whole_powers_of_negative_coefficients_are_fine():
    state = LinearPath(INIT, FINAL, exponents={"1.bias": 2.0, "4.bias": 3}).state(1.5)
    assert_close(state["1.bias"], formula(0.25, INIT["1.bias"], 2.25, FINAL["1.bias"]))
    assert_close(state["4.bias"], formula(-0.125, INIT["4.bias"], 3.375, FINAL["4.bias"]))


@given(steps=st.integers(0, 12))
def test_biases_with_the_power_of_their_depth_make_the_network_homogeneous(steps: int):
    """With k the depth of a layer, alpha * W_k and alpha**k * b_k give alpha**3 times the logits, bit for bit."""
    model = build(ModelSetting(name="fcn", hidden=(6, 5)), (1, 8, 8), 10)
    final, inputs = random_state(model, 0), images(7).inputs
    path = ScaledPath(final, exponents={"3.bias": 2, "5.bias": 3})
    with torch.no_grad():
        model.load_state_dict(path.state(1.0))
        logits = model(inputs)
        model.load_state_dict(path.state(2.0**-steps))
        assert torch.equal(model(inputs), logits * 2.0 ** (-3 * steps))


@given(first=st.floats(0, 2), second=st.floats(0, 2))
def test_scaling_twice_is_scaling_by_the_product(first: float, second: float):
    exponents = {"1.bias": 2, "4.bias": 0.5, "7.bias": 0}
    once = ScaledPath(FINAL, exponents=exponents).state(first)
    twice = ScaledPath(once, exponents=exponents).state(second)
    for name, tensor in ScaledPath(FINAL, exponents=exponents).state(first * second).items():
        assert_close(twice[name], tensor)


# ---- the caller's states


def every_path(init: dict[str, Tensor], final: dict[str, Tensor]) -> list[Span]:
    return [LinearPath(init, final), LinearPath(init, final, only="*.bias"), ScaledPath(final), Plane(final, init)]


@pytest.mark.parametrize("index", range(4), ids=["linear", "only", "scaled", "plane"])
def test_states_are_neither_changed_nor_shared(index: int):
    init, final = pair()
    before = digest(init), digest(final)
    path = every_path(init, final)[index]
    for alpha in (0.0, 0.5, 1.0):
        for norm_stats in ("interpolate", "freeze"):
            state = path.state((alpha, 0.0) if path.dimension == 2 else alpha, norm_stats)
            for tensor in state.values():
                tensor.add_(1)
    assert (digest(init), digest(final)) == before
    assert all(tensor._version == 0 for state in (init, final) for name, tensor in state.items() if name in MOVING)


def test_a_path_refers_to_its_states_without_copying_them():
    init, final = pair()
    assert LinearPath(init, final).basis == (init, final)
    assert ScaledPath(final).basis[0] is final


def test_parameters_that_want_gradients_give_plain_tensors():
    final = dict(network().named_parameters())
    for alpha in (0.0, 0.5, 1.0):
        assert not any(tensor.requires_grad for tensor in ScaledPath(final).state(alpha).values())


@pytest.mark.parametrize("make", [LinearPath, lambda first, second: Plane(second, first)], ids=["linear", "plane"])
def test_states_that_do_not_fit_are_an_error_that_lists_every_difference(make):
    first, second = dict(INIT), dict(FINAL)
    first["extra"], second["other"] = torch.zeros(2), torch.zeros(3)
    first["1.weight"] = torch.zeros(2, 2)
    second["7.bias"] = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(StateMismatchError) as caught:
        make(first, second)
    message = str(caught.value)
    assert "4 difference(s)" in message
    for part in ("`extra` is in", "`other` is in", "`1.weight` has shape (2, 2) in", "`7.bias` is torch.float64 in"):
        assert part in message
    assert "(5, 9) in final" in message


@pytest.mark.parametrize(
    ("path", "point"),
    [
        (LinearPath(INIT, FINAL), (0.5, 0.5)),
        (LinearPath(INIT, FINAL), ()),
        (ScaledPath(FINAL), (0.1, 0.2)),
        (Plane(FINAL, INIT), 0.5),
        (Plane(FINAL, INIT), (0.5,)),
        (Plane(FINAL, INIT), (1.0, 0.0, 0.0)),
    ],
    ids=lambda value: value.label if isinstance(value, Span) else str(value),
)
def test_a_wrong_number_of_coordinates_is_an_error(path: Span, point: object):
    with pytest.raises(OptionError, match=rf"a point of {path.label} has {path.dimension} coordinate\(s\), got \("):
        path.state(point)


# ---- grid


def test_a_grid_has_equal_steps_with_both_ends():
    assert grid().tolist() == pytest.approx([index / 50 for index in range(51)], abs=1e-15)
    assert grid(2).tolist() == [0.0, 1.0]


@given(points=st.integers(2, 2000))
def test_a_grid_begins_at_zero_and_ends_at_one_exactly(points: int):
    alphas = grid(points)
    assert (alphas[0], alphas[-1], len(alphas)) == (0.0, 1.0, points)
    assert np.all(np.diff(alphas) > 0)


def test_alphas_are_taken_as_given():
    for alphas in ([-0.5, 0, 1.5], (0.25, 0.5), np.array([0.0, 1.0]), torch.tensor([0.0, 0.5])):
        assert grid(51, alphas).tolist() == [float(alpha) for alpha in alphas]


@pytest.mark.parametrize("points", [1, 0, -3, 2.0, 51.5, True, "51", None], ids=repr)
def test_too_few_or_broken_points_are_an_error(points: object):
    with pytest.raises(OptionError, match=rf"`points` must be a whole number of at least 2, got points={points!r}"):
        grid(points)


@pytest.mark.parametrize(
    "alphas",
    [[], [0.5], [0, 0], [1, 0], [0, float("nan")], [0, float("inf")], [[0, 1]], 0.5],
    ids=["none", "one", "twice", "falling", "nan", "infinite", "two dimensions", "a number"],
)
def test_alphas_that_do_not_increase_are_an_error(alphas: object):
    with pytest.raises(OptionError, match="`alphas` must be at least 2 finite, increasing numbers, got "):
        grid(51, alphas)
