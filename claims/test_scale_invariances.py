"""T10 to T15: the scale invariances of networks without normalisation (Tao et al. 2024, Sections 4.1.1 to 4.1.3)."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch.func import functional_call

from mli_check.losses import cross_entropy, tie_aware_error
from mli_check.strategies import Network, networks
from mli_check.strategies.drawing import normal
from mli_check.strategies.generic import is_generic
from mli_check.strategies.network import run
from mli_check.symmetry import gsi, rsi, temperature, vsi
from mli_check.trials import EXACT, LEAST_RESIDUAL, apart, drawn, no_counterexample, powers_of_two, residual, shortfalls

CHAINS, OTHERS = 10, 6  # networks with biases, and as many without
LEAST_LOSS = 1e-3  # nats: ten thousand times float32's rounding of a loss


def chain(widths, biased, seed):
    """The network of Eq. 5: linear layers with ReLU between them."""
    code = ", nn.ReLU(), ".join(f"nn.Linear({n}, {m}, bias={biased})" for n, m in pairwise(widths))
    source = (
        "from torch import nn\nfrom mli_check.strategies import fill\n\n"
        f"model = fill(nn.Sequential({code}), seed={seed})\n"
    )
    return Network(run(source), shape=widths[:1], dtype=torch.float32, traits=frozenset({"chain"}), source=source)


@lru_cache
def sequences(biased, offset):
    """Chains, then other networks of layers one after the other: convolutions, poolings, ReLU here and there."""
    widths = st.lists(st.integers(5, 8), min_size=4, max_size=7).map(tuple)
    chains = st.builds(chain, widths, st.just(biased), st.integers(0, 999))
    alive = chains.filter(lambda one: is_generic(one.model, normal((8, *one.shape), one.dtype, 0)))
    options = {"norms": (None,), "skips": False, "concatenations": False, "tied": False}
    others = networks(biases=(biased,), activations=(None, "relu"), **options)
    several = others.filter(lambda one: len(layers_of(one.model)) > 1)
    return [*drawn(alive, CHAINS, offset), *drawn(several, OTHERS, offset)]


# By hand


def layers_of(model):
    """The names of a sequence's linear layers and convolutions, in order."""
    return [name.removesuffix(".weight") for name, tensor in model.named_parameters() if tensor.ndim > 1]


def by_hand(model, start, factors, restore=True):
    """Eq. 6 to 15: weight l+i takes a_{l+i}, its bias a_l ... a_{l+i}, the next weight 1 / (a_l ... a_{l+r})."""
    found, names, total = {name: 1.0 for name, _ in model.named_parameters()}, layers_of(model), 1.0
    for name, factor in zip(names[start:], factors, strict=False):
        total *= factor
        found[f"{name}.weight"] = factor
        if f"{name}.bias" in found:
            found[f"{name}.bias"] = total
    if restore:
        found[f"{names[start + len(factors)]}.weight"] = 1 / total
    return found


def recursion(model, x, start=0, factors=()):
    """h_1, ..., h_L of a chain as Eq. 5, 14 and 15 write them: no module, no transformed state."""
    state, names, total, h, found = model.state_dict(), layers_of(model), 1.0, x, []
    for index, name in enumerate(names):
        weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias", torch.zeros(()))
        if start <= index < start + len(factors):
            total *= factors[index - start]
            weight, bias = factors[index - start] * weight, total * bias
        elif index == start + len(factors):
            weight = weight / total
        h = h @ weight.T + bias
        h = h.relu() if index < len(names) - 1 else h
        found.append(h)
    return found


def outputs(model, state, x):
    """What every layer puts out before its activation, by hooks, and last what the network does."""
    seen = []
    hooks = [
        model.get_submodule(name).register_forward_hook(lambda _, __, out: seen.append(out.clone()))  # ReLU in place
        for name in layers_of(model)
    ]
    with torch.no_grad():
        last = functional_call(model, state, (x,))
    for hook in hooks:
        hook.remove()
    return [*seen, last]


def unlike(found, wanted):
    """The largest relative difference between two sets of factors."""
    return max(abs(found.get(name, 0.0) / wanted.get(name, 1.0) - 1) for name in {*found, *wanted})


def in_float64(case, factors):
    """The outputs of a chain before and after its tensors take `factors`, and what rounding may do to them.

    A layer of n inputs adds n + 1 terms in any order: a relative error (n + 1) u of the sum of their absolute values. A
    factor is rounded, and so is what it multiplies; what restores costs two more: 4 u a layer. ReLU magnifies no error.
    So they differ by gamma_K M at most, entry by entry, but for the factor of the output: K is the sum of 2 (n + 1) + 4
    over layers, gamma_K = K u / (1 - K u), u = 2**-53, and M the output for absolute weights, biases and inputs.
    """
    model, x = case.network.model, case.x.double()
    state = {name: tensor.double() for name, tensor in model.state_dict().items()}
    scaled = {name: tensor * factors[name] for name, tensor in state.items()}
    absolute = {name: tensor.abs() for name, tensor in state.items()}
    terms = sum(2 * (state[f"{name}.weight"].shape[1] + 1) + 4 for name in layers_of(model)) * 2.0**-53
    before, after, largest = (
        functional_call(model, *one) for one in ((state, (x,)), (scaled, (x,)), (absolute, (x.abs(),)))
    )
    return before, after, terms / (1 - terms) * largest


# What is measured


def other_factors(seeds, size):
    """Random factors between 1/8 and 8 that are no powers of two."""
    return [2.0 ** float(k) for k in np.random.default_rng(seeds).uniform(-3, 3, size)]


def as_printed(case, start, factors, found):
    """How far the element `found` is from the paper's equations, in its factors and in every layer's output."""
    network, x, symmetries = case
    state = network.model.state_dict()
    results = {"factors": unlike(found, by_hand(network.model, start, factors))}
    before, after = outputs(network.model, state, x), outputs(network.model, symmetries.apply(state, found), x)
    pairs = {"output of layer": (before, after)}
    if "chain" in network.traits:
        pairs["Eq. 14, h"] = (recursion(network.model, x), recursion(network.model, x, start, factors))
    for what, (old, new) in pairs.items():
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            inside = start <= index < start + len(factors)
            results[f"{what} {index + 1}"] = apart(other, one * prod(factors[: index - start + 1] if inside else ()))
    return results


def over_some_layers(element, cases, offset, longest=None):
    """`as_printed` for random powers of two on layers l to l+r of every network, for every l; the next one restores."""
    found = {}
    for number, case in enumerate(cases):
        names = layers_of(case.network.model)
        for start in range(len(names) - 1):
            size = min(longest or len(names), 1 + (number + start) % (len(names) - 1 - start))
            factors = powers_of_two([offset, number, start], size)
            given = dict(zip(names[start:], factors, strict=False))
            results = as_printed(case, start, factors, element(case.symmetries, given))
            words = ", ".join(f"{name} * {factor:g}" for name, factor in given.items())
            found |= {f"{number}: {words}: {what}": value for what, value in results.items()}
    return found


@pytest.mark.claim(id="T10", expected="reproduced")
def test_vanilla_scale_invariance(mli, pytestconfig):
    """32 random networks without normalisation, layer after layer (20 of the fully connected ReLU chains of Eq. 5, 12
    with convolutions, poolings and fewer ReLUs), half of them without biases, and every layer l but the last: its
    weight and bias take a, the next weight 1/a. With a random power of two, `vsi` gives exactly these factors, the
    layer's output is a times what it was and every other one is bit-identical. With other a between 1/8 and 8, in the
    chains, `vsi` gives them to 1e-14, and the outputs differ by no more than rounding can do in float64: gamma_K M
    entry by entry, K the number of roundings that depth and widths give, M the output for absolute weights (see
    `in_float64`).
    Reproduced if nothing deviates by more; not reproduced if anything does; inconclusive for fewer than 10 networks.
    """
    offset = pytestconfig.getoption("--mli-seed-offset")
    cases = sequences(True, offset) + sequences(False, offset)
    exact = over_some_layers(vsi, cases, offset, longest=1)
    factors, rounded = {}, {}
    for number, case in enumerate(cases):
        chained = "chain" in case.network.traits
        for start, name in enumerate(layers_of(case.network.model)[:-1] if chained else ()):
            chosen = other_factors([offset, number, start], 1)
            wanted = by_hand(case.network.model, start, chosen)
            factors[f"{number}: {name}"] = unlike(vsi(case.symmetries, {name: chosen[0]}), wanted)
            before, after, bound = in_float64(case, wanted)
            rounded[f"{number}: {name} * {chosen[0]:g}"] = float(((after - before).abs() / bound).max())
    parts = {
        "powers of two": (exact, 0.0, EXACT),
        "other factors": (rounded, 1.0, "largest deviation of an output, in units of what rounding can do"),
        "their elements": (factors, 1e-14, "largest relative deviation of a factor"),
    }
    mli.record(no_counterexample(parts, cases))


@pytest.mark.claim(id="T11", expected="reproduced")
def test_generalised_scale_invariance(mli, pytestconfig):
    """16 random bias-free networks as for T10, and for every l a random r: the weights of layers l to l+r take random
    powers of two, the next weight the inverse of their product. `gsi` gives exactly these factors, the output of layer
    l+i is the product of the first i+1 factors times what it was (Eq. 8), and every later one, the network's included,
    is bit-identical (Eq. 9), in the network's own layers (by hooks) and, in 10 chains, where Eq. 8 and 9 are written
    out. Reproduced if nothing deviates; not reproduced if anything does; inconclusive for fewer than 10 networks.
    """
    offset = pytestconfig.getoption("--mli-seed-offset")
    cases = sequences(False, offset)
    mli.record(no_counterexample({"Eq. 8 and 9": (over_some_layers(gsi, cases, offset), 0.0, EXACT)}, cases))


def random_targets(logits, number):
    """A class an example."""
    return torch.randint(logits.shape[1], (len(logits),), generator=torch.Generator().manual_seed(number))


def unrestored(cases, offset):
    """GSI over all layers of every network by random powers of two, with nothing restored.

    One tuple a network: its number, logits before and after, targets, the product of the factors, the group's own
    temperature, and how far its element is from the factors.
    """
    for number, (network, x, symmetries) in enumerate(cases):
        names, state = layers_of(network.model), network.model.state_dict()
        factors = powers_of_two([offset, number], len(names))
        if prod(factors) == 1:
            factors[0] *= 4
        element = gsi(symmetries, dict(zip(names, factors, strict=True)), restore=None)
        logits = [outputs(network.model, one, x)[-1] for one in (state, symmetries.apply(state, element))]
        wrong = unlike(element, by_hand(network.model, 0, factors, restore=False))
        found = temperature(symmetries, element)
        yield number, *logits, random_targets(logits[0], number), prod(factors), found, wrong


@pytest.mark.claim(id="T12", expected="reproduced")
def test_scaling_all_layers_changes_the_loss_alone(mli, pytestconfig):
    """16 random bias-free networks as for T11; all weights take random powers of two, whose product is at least 2 or at
    most 1/2, and nothing is restored. `gsi` gives exactly these factors, the logits are multiplied by exactly their
    product (Eq. 10), and every example has the same predicted class and the same error (ties count as shared) for
    random targets; but the cross-entropy moves, by 0.001 nats at least, the mean over examples of its absolute change.
    Reproduced if all of this holds for all networks; not reproduced if it fails for one; inconclusive for fewer than 10
    networks.
    """
    offset = pytestconfig.getoption("--mli-seed-offset")
    cases = sequences(False, offset)
    logits, errors, changes = {}, {}, {}
    for number, before, after, targets, product, _, wrong in unrestored(cases, offset):
        logits[f"{number}: factors"] = wrong
        logits[f"{number}: logits"] = apart(after, before * product)
        errors[f"{number}: class"] = float((after.argmax(1) != before.argmax(1)).sum())
        moved = tie_aware_error(after, targets) - tie_aware_error(before, targets)
        errors[f"{number}: error"] = float(moved.abs().sum())
        change = cross_entropy(after, targets) - cross_entropy(before, targets)
        changes[f"{number}: * {product:g}"] = float(change.abs().mean())
    short = shortfalls(changes, LEAST_LOSS)
    parts = {
        "Eq. 10": (logits, 0.0, EXACT),
        "error": (errors, 0.0, "examples of a network whose class or error changes"),
        "loss": (short, 0.0, f"how much the mean change of the cross-entropy lacks of {LEAST_LOSS} nats"),
    }
    ruling = no_counterexample(parts, cases)
    mli.record(replace(ruling, details={**ruling.details, "least change of the loss (nats)": min(changes.values())}))


@pytest.mark.claim(id="T13", expected="reproduced")
def test_temperature_restores_the_loss(mli, pytestconfig):
    """16 random bias-free networks and powers of two as for T12: `temperature` is exactly the product of the factors,
    and with logits divided by it every example's cross-entropy is bit-identical to the original one (Eq. 11, float32).
    In 10 chains also with factors between 1/8 and 8 that are no powers of two: `temperature` is their product to 1e-14,
    and in float64 each cross-entropy moves by at most twice what rounding can do to a logit, gamma_K M as for T10, as
    the slopes of -log softmax add up to 2 at most in absolute value, plus 1e-14 for its own rounding.
    Reproduced if nothing deviates by more; not reproduced if anything does; inconclusive for fewer than 10 networks.
    """
    offset = pytestconfig.getoption("--mli-seed-offset")
    cases = sequences(False, offset)
    exact, rounded, found = {}, {}, {}
    for number, before, after, targets, product, t, _ in unrestored(cases, offset):
        exact[f"{number}: temperature"] = abs(t / product - 1)
        exact[f"{number}: loss"] = apart(cross_entropy(after / t, targets), cross_entropy(before, targets))
    for number, (network, _, symmetries) in enumerate(cases[:CHAINS]):
        names = layers_of(network.model)
        factors = other_factors([offset, number], len(names))
        element = gsi(symmetries, dict(zip(names, factors, strict=True)), restore=None)
        found[f"{number}: temperature"] = abs(temperature(symmetries, element) / prod(factors) - 1)
        before, after, bound = in_float64(cases[number], by_hand(network.model, 0, factors, restore=False))
        targets = random_targets(before, number)
        change = cross_entropy(after / prod(factors), targets) - cross_entropy(before, targets)
        rounded[f"{number}: * {prod(factors):g}"] = float((change.abs() / (2 * bound.amax(1) + 1e-14)).max())
    parts = {
        "powers of two": (exact, 0.0, EXACT),
        "other factors": (rounded, 1.0, "largest change of a cross-entropy, in units of what rounding can do"),
        "their temperature": (found, 1e-14, "largest relative deviation of the temperature"),
    }
    mli.record(no_counterexample(parts, cases))


def broken_by(symmetries, alpha):
    """The biases that alpha * theta breaks by the group, with the factor that each should have had."""
    found = symmetries.free.violations(dict.fromkeys(symmetries.tensors, alpha))
    return {" and ".join(violation.equation.left.terms): violation.wanted for violation in found}


@pytest.mark.claim(id="T14", expected="reproduced")
def test_uniform_scaling_is_not_homogeneous_with_biases(mli, pytestconfig):
    """16 random networks as for T10, all of whose layers have biases; alpha = 1/2 times all parameters. Layer 1 gives
    exactly alpha times its output; at every later layer, and for the network, no factor k is common to all outputs: the
    distance to the nearest multiple k of the original ones is at least 0.001 of the scaled outputs' norm (Eq. 12). And
    the group of symmetries, the network's own output left free, names the biases of layers 2 to L and nothing else:
    that of layer l should have scaled as alpha^l. Reproduced if all of this holds for all networks; not reproduced if
    it fails for one; inconclusive for fewer than 10 networks.
    """
    offset, alpha = pytestconfig.getoption("--mli-seed-offset"), 0.5
    cases = sequences(True, offset)
    first, residuals, named = {}, {}, {}
    for number, (network, x, symmetries) in enumerate(cases):
        names, state = layers_of(network.model), network.model.state_dict()
        halved = symmetries.apply(state, dict.fromkeys(symmetries.tensors, alpha))
        before, after = outputs(network.model, state, x), outputs(network.model, halved, x)
        first[f"{number}: layer 1"] = apart(after[0], before[0] * alpha)
        pairs = list(zip(after, before, strict=True))[1:]
        residuals |= {f"{number}: output {index}": residual(*pair) for index, pair in enumerate(pairs, start=2)}
        wanted = {f"{name}.bias": alpha**depth for depth, name in enumerate(names, start=1) if depth > 1}
        named[f"{number}: biases"] = float(len(broken_by(symmetries, alpha).items() ^ wanted.items()))
    short = shortfalls(residuals, LEAST_RESIDUAL)
    parts = {
        "no common factor": (short, 0.0, f"how much the distance to the nearest multiple lacks of {LEAST_RESIDUAL}"),
        "first layer": (first, 0.0, EXACT),
        "biases named": (named, 0.0, "biases missing or named in vain"),
    }
    ruling = no_counterexample(parts, cases)
    mli.record(replace(ruling, details={**ruling.details, "least distance": min(residuals.values())}))


@pytest.mark.claim(id="T15", expected="reproduced")
def test_rectified_scale_invariance(mli, pytestconfig):
    """32 random networks as for T10, half of them without biases, and for every l a random r: the weights of layers l
    to l+r take random powers of two, the bias of layer l+i the product of the first i+1 of them, the next weight the
    inverse of all. `rsi` gives exactly these factors, the output of layer l+i is multiplied by the product of the first
    i+1 factors (Eq. 14), and every later one, the network's included, is bit-identical (Eq. 15), in the network's own
    layers (by hooks) and, in 20 chains, where Eq. 14 and 15 are written out. Reproduced if nothing deviates at all; not
    reproduced if anything does; inconclusive for fewer than 10 networks.
    """
    offset = pytestconfig.getoption("--mli-seed-offset")
    cases = sequences(True, offset) + sequences(False, offset)
    mli.record(no_counterexample({"Eq. 14 and 15": (over_some_layers(rsi, cases, offset), 0.0, EXACT)}, cases))
