"""Tests of T10 to T17, X1, X2, X6 and X7: what they compute by hand, their criteria, and violations planted in them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from claim_benches import MODULES, NAN, NOT, OPEN, REPRODUCED
from torch import Tensor, nn

from mli_check import trials
from mli_check.errors import SymmetryError
from mli_check.statistics import Verdict
from mli_check.strategies.network import run
from mli_check.symmetry import Symmetries, gsi, nsi, rsi, scale_symmetries, vsi, with_eta
from mli_check.verdicts import Ruling

pytestmark = pytest.mark.xdist_group("claims-symmetries")  # so that networks are drawn and traced once

plain, normalised, group, attention = (
    MODULES[name]
    for name in (
        "test_scale_invariances", "test_normalised_scale_invariance", "test_symmetry_group", "test_attention_scales"
    )
)  # fmt: skip
T10, T11 = plain.test_vanilla_scale_invariance, plain.test_generalised_scale_invariance
T12, T13 = plain.test_scaling_all_layers_changes_the_loss_alone, plain.test_temperature_restores_the_loss
T14 = plain.test_uniform_scaling_is_not_homogeneous_with_biases
T15 = plain.test_rectified_scale_invariance
T16, T17 = (
    normalised.test_normalised_scale_invariance,
    normalised.test_fully_connected_layers_follow_rsi_and_not_nsi,
)
X1, X2 = group.test_powers_of_two_change_no_bit, group.test_zero_path_follows_from_one_forward_pass
X6 = group.test_group_is_the_null_space_of_a_linear_system
X7 = attention.test_layer_normalisation_and_attention_keep_alpha_theta_from_being_a_symmetry
CLAIMS = {
    "T10": T10, "T11": T11, "T12": T12, "T13": T13, "T14": T14, "T15": T15, "T16": T16, "T17": T17, "X1": X1, "X2": X2,
    "X6": X6, "X7": X7,
}  # fmt: skip


class Listener:
    """Stands in for the `mli` fixture and for pytest's configuration."""

    ruling: Ruling

    def record(self, ruling: Ruling) -> None:
        assert not hasattr(self, "ruling")
        self.ruling = ruling

    def getoption(self, name: str) -> int:
        assert name == "--mli-seed-offset"
        return 0


def judged(claim: Callable[..., None]) -> Ruling:
    """What the claim records."""
    listener = Listener()
    claim(listener, listener)
    return listener.ruling


@pytest.mark.parametrize("name", CLAIMS)
def test_the_claims_hold_as_they_stand(name: str) -> None:
    found = judged(CLAIMS[name])
    assert found.verdict is REPRODUCED, found.reason
    assert found.details.get("networks", 10) >= 10  # type: ignore[operator]
    assert "counterexample" not in found.details


# Criteria with evidence by hand


def sources(count: int) -> list[Any]:
    """Stand-ins for cases, of which a criterion reads the source."""
    return [trials.Case(plain.chain((5, 5), False, seed), None, None) for seed in range(count)]


TEN = {f"{number}: outputs": 0.0 for number in range(10)}


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        pytest.param(TEN, TEN, REPRODUCED, id="no deviation"),
        pytest.param(TEN, TEN | {"3: outputs": 1e-9}, REPRODUCED, id="at the limit"),
        pytest.param(TEN | {"3: outputs": 1e-30}, TEN, NOT, id="a bit where none may differ"),
        pytest.param(TEN, TEN | {"3: outputs": 1.1e-9}, NOT, id="beyond the limit"),
        pytest.param(TEN, TEN | {"10: outputs": 1e-8, "11: outputs": NAN}, NOT, id="beyond the limit, one unknown"),
        pytest.param(TEN, TEN | {"3: outputs": NAN}, OPEN, id="one unknown"),
        pytest.param(TEN, dict.fromkeys(list(TEN)[:9], 0.0), OPEN, id="nine networks in one part"),
        pytest.param(TEN, {f"1: {name}": 0.0 for name in TEN}, OPEN, id="ten figures of one network"),
        pytest.param(TEN, {}, OPEN, id="no network in one part"),
    ],
)
def test_all_parts_have_to_keep_their_limits_for_ten_networks(
    first: dict[str, float], second: dict[str, float], verdict: Verdict
) -> None:
    found = trials.no_counterexample(
        {"exact": (first, 0.0, "deviation"), "rounded": (second, 1e-9, "deviation")}, sources(12)
    )
    assert found.verdict is verdict


def test_a_counterexample_is_told_with_its_source() -> None:
    cases = sources(10)
    found = trials.no_counterexample({"exact": (TEN | {"7: outputs": 0.5}, 0.0, "deviation")}, cases)
    assert found.figure.value == 0.5
    assert found.details["counterexample"] == cases[7].network.source
    assert "`7: outputs` deviates by 0.5" in found.reason


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        pytest.param({}, REPRODUCED, id="as claimed"),
        pytest.param({"named": {"all": 1.0}}, NOT, id="an equation in vain"),
        pytest.param({"logits": {"all": 1e-9}}, NOT, id="logits off"),
        pytest.param({"kept": {"none": 1e-9}}, NOT, id="no exact multiple"),
        pytest.param({"distances": {"all": 0.0009}}, NOT, id="almost a multiple"),
        pytest.param({"distances": {"all": NAN}}, OPEN, id="no distance"),
        pytest.param({"kept": {}}, OPEN, id="nothing measured"),
    ],
)
def test_x7_wants_exact_symmetries_and_clear_departures(change: dict[str, Any], verdict: Verdict) -> None:
    evidence = {"named": {"all": 0.0}, "logits": {"all": 0.0}, "kept": {"none": 0.0}, "distances": {"all": 0.3}}
    assert attention.criterion(**(evidence | change)).verdict is verdict


# What they compute by hand


def test_networks_are_different_and_follow_from_the_offset() -> None:
    strategy = group.networks(norms=(None,))
    first, again, other = (trials.drawn(strategy, 6, offset) for offset in (0, 0, 1))
    texts = [[case.network.source for case in cases] for cases in (first, again, other)]
    assert len(set(texts[0])) == 6
    assert texts[0] == texts[1] != texts[2]
    assert all(torch.equal(one.x, two.x) for one, two in zip(first, again, strict=True))


def test_factors_by_hand_are_those_of_the_paper() -> None:
    model = plain.chain((5, 6, 7, 4), True, 0).model
    assert plain.layers_of(model) == ["0", "2", "4"]
    vanilla = {"0.weight": 2.0, "0.bias": 2.0, "2.weight": 0.5, "2.bias": 1.0, "4.weight": 1.0, "4.bias": 1.0}
    assert plain.by_hand(model, 0, [2.0]) == vanilla
    rectified = {"0.weight": 2.0, "0.bias": 2.0, "2.weight": 4.0, "2.bias": 8.0, "4.weight": 0.125, "4.bias": 1.0}
    assert plain.by_hand(model, 0, [2.0, 4.0]) == rectified
    everything = plain.by_hand(model, 0, [2.0, 4.0, 0.25], restore=False)
    assert everything == rectified | {"4.weight": 0.25, "4.bias": 2.0}


@pytest.mark.parametrize("biased", [True, False])
def test_the_recursion_is_the_chain(biased: bool) -> None:
    network, x = plain.chain((5, 6, 7, 4), biased, 3), torch.randn(6, 5)
    found = plain.recursion(network.model, x)
    assert [tuple(h.shape) for h in found] == [(6, 6), (6, 7), (6, 4)]
    torch.testing.assert_close(found[-1], network.model(x))
    torch.testing.assert_close(found[0], network.model[:2](x))
    seen = plain.outputs(network.model, network.model.state_dict(), x)
    assert torch.equal(seen[-1], seen[-2])
    torch.testing.assert_close(seen[1].relu(), found[1])


def test_hooks_see_a_layer_before_an_activation_in_place_overwrites_it() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True))
    x = torch.randn(6, 3)
    first, last = plain.outputs(model, model.state_dict(), x)
    assert (first < 0).any()
    assert torch.equal(first.relu(), last)


def test_nothing_is_apart_from_itself_and_anything_else_is() -> None:
    values = torch.tensor([1.0, -2.0, 0.0])
    assert trials.apart(values, values.clone()) == 0
    assert trials.apart(values + torch.tensor([0.0, 0.0, 1.0]), values) == 0.5
    assert 0 < trials.apart(torch.nextafter(values, torch.tensor(9.0)), values) < 1e-6
    assert not trials.apart(values * NAN, values) <= 0


def test_a_multiple_has_no_distance_and_a_shifted_one_has() -> None:
    values = torch.randn(6, 4, dtype=torch.float64)
    assert trials.residual(0.3 * values, values) == pytest.approx(0, abs=1e-12)
    assert trials.residual(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 0.0]])) == pytest.approx(0.5**0.5)


def test_the_rounding_bound_lies_above_rounding_and_far_below_any_mistake() -> None:
    for case in plain.sequences(True, 0)[: plain.CHAINS]:
        factors = plain.by_hand(case.network.model, 0, [3.0])
        before, after, bound = plain.in_float64(case, factors)
        assert ((after - before).abs() <= bound).all()
        mistaken = plain.in_float64(case, factors | {f"{plain.layers_of(case.network.model)[0]}.bias": 3 + 1e-9})
        assert ((mistaken[1] - mistaken[0]).abs() > bound).any()
        assert (bound < 1e-10).all()


def test_path_lengths_are_counted_with_multiplicity() -> None:
    class Skip(nn.Module):
        def __init__(self, *, deep: bool) -> None:
            super().__init__()
            self.one, self.two, self.three = (nn.Linear(4, 4, bias=False) for _ in range(3))
            self.deep = deep

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.two(self.one(x)).relu()
            z: Tensor = y + self.two(self.three(x)) if self.deep else self.three(y + x)
            return z

    def length(model: nn.Module) -> int | None:
        found: int | None = group.length_of_all_paths(SimpleNamespace(model=model), torch.randn(6, 4))
        return found

    assert length(Skip(deep=True)) == 2
    assert length(Skip(deep=False)) is None
    assert length(plain.chain((4, 5, 6, 3), False, 1).model) == 3


def test_a_null_space_is_measured_or_left_open() -> None:
    matrix = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1e-2], [1.0, 1.0, 1e-2]], dtype=torch.float64)
    assert group.nullity(matrix) == 1
    assert group.nullity(matrix[:1]) == 2
    assert group.nullity(torch.zeros(5, 3, dtype=torch.float64)) == 3
    assert group.nullity(torch.full((5, 3), 1e-12, dtype=torch.float64)) == 3
    matrix[1, 2] = matrix[2, 2] = 1e-7
    assert math.isnan(group.nullity(matrix))


def test_magnitudes_see_every_result_but_zeros() -> None:
    values = torch.tensor([0.0, 3.0, -1e-3])
    with group.Magnitudes() as seen:
        (values.relu() * 2).sum()
    assert (seen.smallest, seen.largest) == (3, 6)
    with group.Magnitudes() as seen:
        values.mul_(-2)
    assert seen.smallest == pytest.approx(2e-3)
    with group.Magnitudes() as seen:
        values.relu() * 1e30 * 1e30
    assert seen.largest == math.inf


def test_the_equations_of_a_block_are_counted_by_hand() -> None:
    whole = {"softmax": True, "gelu": True, "additions": True}
    bare = dict.fromkeys(whole, False)
    everything = Counter([("softmax", 4, 0), ("gelu", 2, 0), ("additions", 3, 1)])
    assert attention.broken_by_hand(whole, 1, 1, 1) == everything
    assert attention.broken_by_hand(whole, 1, 0, 0)[("softmax", 2, 0)] == 1
    assert attention.broken_by_hand(whole, 0, 1, 0) == Counter([("softmax", 2, 0), ("additions", 1, 0)])
    assert attention.broken_by_hand(bare, 1, 1, 1) == Counter()


# Violations planted in the claims themselves

Element = Callable[..., dict[str, float]]


def without_its_biases(element: Element) -> Element:
    """An element that forgets that biases have to scale along."""

    def planted(*given: Any, **options: Any) -> dict[str, float]:
        found = element(*given, **options)
        return {name: 1.0 if name.endswith(".bias") else factor for name, factor in found.items()}

    return planted


def biases_as_their_weights(symmetries: Symmetries, factors: dict[str, float], *restore: Any) -> dict[str, float]:
    """RSI as uniform scaling has it: each bias takes its own layer's factor, not the product so far."""
    found = rsi(symmetries, factors, *restore)
    own = {f"{name}.bias": factor for name, factor in factors.items()}
    return {name: own.get(name, factor) for name, factor in found.items()}


def restores_one_factor(symmetries: Symmetries, factors: dict[str, float]) -> dict[str, float]:
    """GSI whose next weight takes the inverse of the last factor instead of that of the product."""
    total, last = math.prod(factors.values()), list(factors.values())[-1]
    given = {f"{name}.weight" for name in factors}
    found = gsi(symmetries, factors)
    return {name: 1 / last if name not in given and factor == 1 / total else factor for name, factor in found.items()}


def slightly_wrong(element: Element) -> Element:
    """Right for powers of two, off by 1e-9 for all other factors."""

    def planted(*given: Any, **options: Any) -> dict[str, float]:
        found = element(*given, **options)
        return {name: f if math.log2(f).is_integer() else f * (1 + 1e-9) for name, f in found.items()}

    return planted


def in_float32(case: Any, factors: dict[str, float]) -> tuple[Tensor, ...]:
    before, after, bound = RIGHT_IN_FLOAT64(case, factors)
    rounded: Tensor = after.float().double()
    return before, rounded, bound


def equally_broken(symmetries: Symmetries, alpha: float) -> dict[str, float]:
    """The right biases, each said to want alpha^2."""
    return dict.fromkeys(RIGHT_BROKEN(symmetries, alpha), alpha**2)


def shifts_gamma(symmetries: Symmetries, factors: dict[str, float]) -> dict[str, float]:
    """NSI that scales the last normalisation's weight too."""
    norms = [name for name in symmetries.tensors if name.startswith("norm") or name == "1.weight"]
    return nsi(symmetries, factors) | dict.fromkeys(norms[-1:], 2.0)


def never_refuses(symmetries: Symmetries, factors: dict[str, float]) -> dict[str, float]:
    try:
        return nsi(symmetries, factors)
    except SymmetryError:
        return rsi(symmetries, factors, restore=None)


def eta_by_the_factor(model: nn.Module, symmetries: Symmetries, factors: dict[str, float]) -> nn.Module:
    """eta times a instead of a^2."""
    return with_eta(model, symmetries, {name: factor**0.5 for name, factor in factors.items()})


def without_head_biases(source: str) -> nn.Module:
    return run(re.sub(r"Linear\((\d+, \d+)\)", r"Linear(\1, bias=False)", source))


RIGHT_IN_FLOAT64, RIGHT_SEQUENCES, RIGHT_BROKEN = plain.in_float64, plain.sequences, plain.broken_by
RIGHT_TEMPERATURE, RIGHT_LENGTH = plain.temperature, group.length_of_all_paths
RIGHT_IN_DTYPE, RIGHT_CASES = group.in_dtype, group.of_any_kind


@pytest.mark.parametrize(
    ("claim", "name", "planted", "part"),
    [
        pytest.param(T10, "vsi", without_its_biases(vsi), "powers of two", id="T10, bias forgotten"),
        pytest.param(T10, "vsi", lambda s, f: vsi(s, f, None), "powers of two", id="T10, not restored"),
        pytest.param(T10, "vsi", slightly_wrong(vsi), "their elements", id="T10, slightly wrong factors"),
        pytest.param(T10, "in_float64", in_float32, "other factors", id="T10, outputs beyond rounding"),
        pytest.param(T11, "gsi", restores_one_factor, "Eq. 8 and 9", id="T11, one factor restored"),
        pytest.param(T12, "gsi", lambda s, *_, restore: dict.fromkeys(s.tensors, 1.0), "Eq. 10", id="T12, unscaled"),
        pytest.param(T12, "cross_entropy", lambda z, _: z[:, 0] * 0, "loss", id="T12, a loss that never moves"),
        pytest.param(T12, "tie_aware_error", lambda z, _: z[:, 0], "error", id="T12, an error that sees scale"),
        pytest.param(T13, "temperature", lambda s, f: 1 / RIGHT_TEMPERATURE(s, f), "powers of two", id="T13, inverse"),
        pytest.param(T13, "temperature", lambda s, f: max(f.values()), "powers of two", id="T13, one factor"),
        pytest.param(T13, "gsi", slightly_wrong(gsi), "their temperature", id="T13, slightly wrong factors"),
        pytest.param(T13, "in_float64", in_float32, "other factors", id="T13, a loss beyond rounding"),
        pytest.param(T14, "sequences", lambda _, seed: RIGHT_SEQUENCES(False, seed), "no common", id="T14, no biases"),
        pytest.param(T14, "broken_by", lambda s, a: {}, "biases named", id="T14, no bias named"),
        pytest.param(T14, "broken_by", equally_broken, "biases named", id="T14, wrong powers"),
        pytest.param(T15, "rsi", biases_as_their_weights, "Eq. 14 and 15", id="T15, biases not cumulative"),
        pytest.param(T15, "rsi", without_its_biases(rsi), "Eq. 14 and 15", id="T15, biases forgotten"),
        pytest.param(T16, "nsi", without_its_biases(nsi), "eta = 1e-30", id="T16, bias forgotten"),
        pytest.param(T16, "NO_ETA", 1e-5, "eta = 1e-30", id="T16, eta not neglected"),
        pytest.param(T16, "with_eta", lambda model, *_: model, "eta rescaled", id="T16, eta not rescaled"),
        pytest.param(T16, "with_eta", eta_by_the_factor, "eta rescaled", id="T16, eta rescaled by a"),
        pytest.param(T16, "USUAL_ETA", 2e-5, "eta kept", id="T16, another eta than the network's"),
        pytest.param(T17, "rsi", biases_as_their_weights, "RSI", id="T17, biases not cumulative"),
        pytest.param(T17, "nsi", shifts_gamma, "NSI of convolutions", id="T17, gamma scaled"),
        pytest.param(T17, "nsi", never_refuses, "NSI refused", id="T17, nothing refused"),
        pytest.param(T17, "broken", lambda s, f: {}, "biases named", id="T17, nothing named"),
        pytest.param(X1, "vsi", lambda s, f: vsi(s, dict.fromkeys(f, 3.0)), "float16", id="X1, VSI by 3"),
        pytest.param(X1, "rsi", lambda s, f: rsi(s, dict.fromkeys(f, 3.0)), "float16", id="X1, RSI by 3"),
        pytest.param(X2, "length_of_all_paths", lambda n, x: 2, "powers of two", id="X2, always two weights"),
        pytest.param(X2, "length_of_all_paths", lambda n, x: None, "paths that differ", id="X2, paths always differ"),
        pytest.param(X2, "residual", lambda *_: 0.0005, "paths that differ", id="X2, skips are homogeneous"),
        pytest.param(X6, "vsi", without_its_biases(vsi), "VSI", id="X6, bias forgotten"),
        pytest.param(X6, "nsi", shifts_gamma, "NSI", id="X6, gamma scaled"),
        pytest.param(X7, "residual", lambda *_: 0.0005, "no multiple", id="X7, outputs are almost multiples"),
    ],
)
def test_a_planted_violation_is_not_reproduced(
    claim: Any, name: str, planted: Any, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(claim.__globals__, name, planted)
    monkeypatch.setattr(attention, "DRAWS", 1)  # for speed, as are fewer dtypes
    monkeypatch.setattr(group, "DTYPES", (torch.float16, torch.float32))
    found = judged(claim)
    assert found.verdict is NOT
    refuted = [one for one, told in found.details.items() if str(told).startswith("not reproduced")]
    assert any(one.startswith(part) for one in refuted)


def test_linear_layers_without_biases_refute_their_departure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalised, "run", without_head_biases)
    monkeypatch.setattr(normalised, "normalised", normalised.normalised.__wrapped__)  # past the cache
    found = judged(T17)
    assert found.verdict is NOT
    assert str(found.details["no multiple"]).startswith("not reproduced")


def test_values_below_the_normal_numbers_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def tiny(case: Any, dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
        model, x = RIGHT_IN_DTYPE(case, dtype)
        return model, x * (1e-4 if dtype == torch.float16 else 1.0)

    monkeypatch.setattr(group, "in_dtype", tiny)
    found = judged(X1)
    assert found.verdict is OPEN
    assert found.reason.startswith("float16: no finite deviation for: only")
    assert found.details["elements set aside"] > 10  # type: ignore[operator]


def change_groups(change: Callable[[Symmetries], Symmetries]) -> Callable[..., Any]:
    """Ten cases of X6 with another group."""
    return lambda *given: [case._replace(symmetries=change(case.symmetries)) for case in RIGHT_CASES(*given)[:10]]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda s: replace(s, constraints=s.constraints[:-1]), id="an equation short"),
        pytest.param(lambda s: replace(s, constraints=(*s.constraints, *s.removed)), id="what is removed is demanded"),
        pytest.param(lambda s: replace(s, output="free"), id="the output left free"),
    ],
)
def test_another_group_is_not_the_null_space(
    change: Callable[[Symmetries], Symmetries], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "of_any_kind", change_groups(change))
    monkeypatch.setattr(group, "without_biases", lambda _: [])
    found = judged(X6)
    assert found.verdict is NOT
    assert str(found.details["dimension"]).startswith("not reproduced")


def blind_to(word: str) -> Callable[..., Symmetries]:
    """A group that knows nothing of an operation."""

    def found(model: nn.Module, x: Tensor) -> Symmetries:
        right = scale_symmetries(model, x)
        return replace(right, constraints=tuple(one for one in right.constraints if word not in one.like))

    return found


class BiasedQuery(attention.Block):  # type: ignore[name-defined,misc]
    """A block whose query has a bias that does not scale along."""

    def __init__(self, **kind: bool) -> None:
        super().__init__(**kind)
        self.query = nn.Linear(8, 8)


@pytest.mark.parametrize(
    ("name", "planted", "part"),
    [
        pytest.param("scale_symmetries", blind_to("softmax"), "equations named", id="blind to softmax"),
        pytest.param("scale_symmetries", blind_to("gelu"), "equations named", id="blind to GELU"),
        pytest.param("scale_symmetries", blind_to("added"), "equations named", id="blind to additions"),
        pytest.param("Block", BiasedQuery, "attention logits", id="a bias in the query"),
    ],
)
def test_another_group_or_block_refutes_x7(name: str, planted: Any, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, name, planted)
    monkeypatch.setattr(attention, "DRAWS", 1)
    monkeypatch.setattr(attention, "product", lambda *_, repeat: [(True,) * repeat])  # the whole block alone
    found = judged(X7)
    assert found.verdict is NOT
    assert str(found.details[part]).startswith("not reproduced")
