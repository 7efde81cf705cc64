"""Properties of the group of scale symmetries on random networks: exact, not too small, not too large."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from symmetry_helpers import numerical_dimensions, output, redrawn, rounding_bound, without_eta
from torch import nn

from mli_check.strategies import inputs_for, networks, scale_factors
from mli_check.symmetry import scale_symmetries
from mli_check.symmetry.algebra import null_space

if TYPE_CHECKING:
    from mli_check.strategies import Network
    from mli_check.symmetry import Equation, Symmetries

EXAMPLES = 2000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 200
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)  # explaining takes longer than reading
on_networks = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow], phases=PHASES
)
REACH = {torch.float16: 4.0, torch.bfloat16: 24.0, torch.float32: 24.0, torch.float64: 24.0}
WIDE = networks(dtypes=(torch.float64,))
ANY = networks(dtypes=tuple(REACH))
modes = st.sampled_from(["train", "eval"])


def prepared(network: Network, mode: str) -> nn.Module:
    """The drawn model without eta, in its mode."""
    return without_eta(network.model).train(mode == "train")


# Exactness


@on_networks
@given(network=ANY, mode=modes, data=st.data())
def test_powers_of_two_change_no_bit(network: Network, mode: str, data: st.DataObject) -> None:
    """The output is the original times an exact factor, the loss at that temperature and the predictions are equal."""
    model, inputs = prepared(network, mode), data.draw(inputs_for(network))
    free = scale_symmetries(model, inputs).free.exact
    factors = data.draw(scale_factors(free, reach=REACH[network.dtype]))
    before = output(model, model.state_dict(), inputs)
    assume(bool(before.isfinite().all()))  # a channel that is dead for all examples has variance 0, and eta is nearly 0
    after = output(model, free.apply(model.state_dict(), factors), inputs)
    temperature = free.output_factor(factors)
    assert torch.equal(after, before * temperature)
    assert torch.equal(after.argmax(1), before.argmax(1))
    targets = torch.arange(len(before)) % before.shape[1]
    losses = [nn.functional.cross_entropy(logits, targets) for logits in (before, after / temperature)]
    assert torch.equal(*losses)


@on_networks
@given(network=networks(), mode=modes, data=st.data())
def test_other_factors_stay_within_rounding(network: Network, mode: str, data: st.DataObject) -> None:
    """The bound, in depth, unit roundoff and sensitivity to the weights, is that of `rounding_bound`."""
    model, inputs = prepared(network, mode), data.draw(inputs_for(network))
    group = scale_symmetries(model, inputs)
    for elements in (group.exact, group):
        factors = data.draw(scale_factors(elements, dyadic=False, spread=2))
        state = elements.apply(model.state_dict(), factors)
        deviation = (output(model, state, inputs) - output(model, model.state_dict(), inputs)).abs().max()
        assert deviation <= rounding_bound(model, state, inputs)


# Not too small, not too large


@on_networks
@given(network=WIDE, mode=st.just("train"), data=st.data())
def test_the_dimension_is_that_of_numerical_jacobians(network: Network, mode: str, data: st.DataObject) -> None:
    model, inputs = prepared(network, mode), data.draw(inputs_for(network, batch=48))
    group = scale_symmetries(model, inputs)
    assert (group.dimension, group.free.dimension) == numerical_dimensions(model, group, inputs)


@on_networks
@given(network=WIDE, mode=modes, data=st.data())
def test_every_independent_equation_is_needed(network: Network, mode: str, data: st.DataObject) -> None:
    """Without it there is a further element, and that one changes what the network computes."""
    model, inputs = prepared(network, mode), data.draw(inputs_for(network, batch=16))
    group = scale_symmetries(model, inputs)
    for equation in group.independent:
        factors = broken(group, equation)
        assert equation in [violation.equation for violation in group.violations(factors)]
        if is_statistic(equation):
            continue  # that statistics stay those of their input is asked beside the function
        assert any(changes(other, group, factors, inputs) for other in redrawn(model)), equation


def broken(group: Symmetries, equation: Equation) -> dict[str, float]:
    """An element of the larger group that all equations but this one leave."""
    others = [other for other in group.independent if other is not equation]
    vectors = null_space(others, group.tensors)
    vector = next(vector for vector in vectors if equation.form.rational_at(vector) != 0)
    return {name: 2.0 ** float(vector.get(name, 0)) for name in group.tensors}


def is_statistic(equation: Equation) -> bool:
    return "running_var" in equation.what


def changes(model: nn.Module, group: Symmetries, factors: dict[str, float], inputs: torch.Tensor) -> bool:
    """Whether the factors change the output by more than rounding can."""
    before = output(model, model.state_dict(), inputs)
    after = output(model, group.apply(model.state_dict(), factors), inputs)
    return bool((after - before).abs().max() > 1e-9 * before.abs().max())


@on_networks
@given(network=networks(), mode=modes, seed=st.integers(0, 2**16))
def test_samples_span_the_group_and_move_its_tensors(network: Network, mode: str, seed: int) -> None:
    model = prepared(network, mode)
    group = scale_symmetries(model, torch.ones(6, *network.shape))
    drawn = [group.sample(seed + index) for index in range(group.dimension + 3)]
    logs = torch.tensor([[group.logs(one)[name] for name in group.tensors] for one in drawn], dtype=torch.float64)
    assert torch.equal(logs, logs.round())
    assert int(torch.linalg.matrix_rank(logs)) == group.dimension
    free = {name for vector in group.basis for name in vector}
    for one in drawn:
        assert group.violations(one) == []
        assert 2 * sum(one[name] != 1.0 for name in free) >= len(free)


# What is drawn


def test_the_networks_are_of_many_kinds() -> None:
    """Each kind is at least 15% of what is drawn, and no output is the same for every input."""
    seen: Counter[str] = Counter()

    @settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate], derandomize=True)
    @given(network=networks(), data=st.data())
    def count(network: Network, data: st.DataObject) -> None:
        inputs = data.draw(inputs_for(network))
        logits = output(network.model, network.model.state_dict(), inputs)
        assert not torch.equal(logits, logits[:1].expand_as(logits))
        seen.update(network.traits)
        seen["dimension >= 2"] += scale_symmetries(without_eta(network.model), inputs).dimension >= 2
        seen["all"] += 1

    count()
    kinds = ("dimension >= 2", "skip", "concatenation", "batch", "layer", "tied")
    shares = {kind: seen[kind] / seen["all"] for kind in kinds}
    print({kind: f"{share:.0%}" for kind, share in shares.items()})
    assert min(shares.values()) >= 0.15, shares
