"""T16 and T17: batch normalisation does not see the scale of what feeds it; fully connected layers behind it do."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from math import prod

import pytest
import torch
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from mli_check.errors import SymmetryError
from mli_check.strategies import Network
from mli_check.strategies.network import run
from mli_check.symmetry import nsi, rsi, with_eta
from mli_check.trials import EXACT, LEAST_RESIDUAL, apart, drawn, no_counterexample, powers_of_two, residual, shortfalls

NETWORKS = 12  # a claim
NO_ETA, USUAL_ETA = 1e-30, 1e-5  # torch refuses 0 in training
BY_HAND = 1e-10  # relative; float64


def network(channels, hidden, biased, seed):
    """Convolution, BN and ReLU for each but the first of `channels`; mean over pixels; linear layers, ReLU between."""
    code = []
    for n, m in pairwise(channels):
        code += [f"nn.Conv2d({n}, {m}, 3, padding=1, bias={biased})", f"nn.BatchNorm2d({m})", "nn.ReLU()"]
    code += ["nn.AdaptiveAvgPool2d(1)", "nn.Flatten()"]
    for n, m in pairwise((channels[-1], *hidden, 5)):
        code += [f"nn.Linear({n}, {m})", "nn.ReLU()"]
    source = (
        "from torch import nn\nfrom mli_check.strategies import fill\n\n"
        f"model = fill(nn.Sequential({', '.join(code[:-1])}), seed={seed})\n"
    )
    traits = frozenset({"batch"})
    return Network(run(source), shape=(channels[0], 6, 6), dtype=torch.float32, traits=traits, source=source)


@lru_cache
def normalised(hidden, offset):
    """Such networks with so many hidden linear layers (least, most)."""
    sizes = st.integers(4, 6)
    channels = st.lists(sizes, min_size=1, max_size=3).map(lambda found: (3, *found))
    heads = st.lists(sizes, min_size=hidden[0], max_size=hidden[1])
    return drawn(st.builds(network, channels, heads, st.booleans(), st.integers(0, 999)), NETWORKS, offset)


def named(model, kind):
    """The names of the layers of a kind, in order."""
    return [name for name, module in model.named_modules() if isinstance(module, kind)]


def with_this_eta(model, eta):
    """A copy whose BN layers all have this eta."""
    changed = copy.deepcopy(model)
    for module in changed.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eta
    return changed


def output(model, state, x):
    """What the network computes in a state, with batch statistics; neither is changed."""
    with torch.no_grad():
        return functional_call(model, {name: tensor.clone() for name, tensor in state.items()}, (x,))


def unlike(found, wanted):
    """The largest relative difference between two sets of factors; where none is wanted it is 1."""
    return max(abs(found[name] / wanted.get(name, 1.0) - 1) for name in found)


def spoiled_by_eta(case, layer, factor):
    """What a factor on one convolution does to the BN layer after it, in float64 with the usual eta.

    How far that layer's output is from the formula with eta / a^2, and how far it moves, as a share of the bound.
    """
    model = copy.deepcopy(case.network.model).double()
    norm = named(model, nn.BatchNorm2d)[named(model, nn.Conv2d).index(layer)]
    gamma, beta, seen = model.get_submodule(norm).weight, model.get_submodule(norm).bias, []
    model.get_submodule(norm).register_forward_hook(lambda _, inputs, out: seen.append((inputs[0], out)))
    state = dict(model.state_dict())
    for scale in (1.0, factor):
        named_factors = dict.fromkeys((f"{layer}.weight", f"{layer}.bias"), scale)
        output(model, {name: tensor * named_factors.get(name, 1) for name, tensor in state.items()}, case.x.double())
    (h, before), (_, after) = seen
    gamma, beta = gamma.detach()[:, None, None], beta.detach()[:, None, None]
    variance, mean = torch.var_mean(h, (0, 2, 3), correction=0, keepdim=True)
    predicted = gamma * (h - mean) / (variance + USUAL_ETA / factor**2).sqrt() + beta
    bound = (before - beta).abs() * abs(USUAL_ETA / factor**2 - USUAL_ETA) / (2 * variance)
    share = (after - before).abs().amax((0, 2, 3)) / bound.amax((0, 2, 3))
    return apart(after, predicted), float(share.max())


@pytest.mark.claim(id="T16", expected="reproduced")
def test_normalised_scale_invariance(mli, pytestconfig):
    """12 random networks of 1 to 3 blocks convolution, BN (batch statistics), ReLU, with and without biases in the
    convolutions, then mean over pixels and a linear layer. Weight and bias of every convolution take a random power of
    two of their own, a; `nsi` gives exactly these factors and moves nothing else. With eta = 1e-30 the outputs are
    bit-identical; with eta = 1e-5 they are once `with_eta` gives each BN layer a^2 eta, which is exact as well (all in
    float32). Otherwise eta acts as eta' = eta/a^2: with one convolution scaled its BN layer puts out gamma (h - E) /
    sqrt(V + eta') + beta, h, E, V those of the unscaled network (to 1e-10, float64), so that it moves by no more than
    |gamma h^| |eta' - eta| / (2 V), channel by channel: sqrt((V + eta) / (V + eta')) is that close to 1. Reproduced if
    all of this holds; not reproduced if anything fails; inconclusive for fewer than 10 networks.
    """
    offset = pytestconfig.getoption("--mli-seed-offset")
    cases = normalised((0, 0), offset)
    none, rescaled, formula, shares = {}, {}, {}, {}
    for number, (network, x, symmetries) in enumerate(cases):
        layers, norms = named(network.model, nn.Conv2d), named(network.model, nn.BatchNorm2d)
        factors = dict(zip(layers, powers_of_two([offset, number], len(layers)), strict=True))
        element, state = nsi(symmetries, factors), network.model.state_dict()
        wanted = {f"{name}.{kind}": factor for name, factor in factors.items() for kind in ("weight", "bias")}
        none[f"{number}: factors"] = unlike(element, wanted)
        scaled = symmetries.apply(state, element)
        model = with_this_eta(network.model, NO_ETA)
        none[f"{number}: outputs"] = apart(output(model, scaled, x), output(model, state, x))
        model = with_this_eta(network.model, USUAL_ETA)
        changed = with_eta(model, symmetries, element)
        rescaled[f"{number}: outputs"] = apart(output(changed, scaled, x), output(model, state, x))
        for norm, factor in zip(norms, factors.values(), strict=True):
            rescaled[f"{number}: eta of {norm}"] = abs(changed.get_submodule(norm).eps / (USUAL_ETA * factor**2) - 1)
        for name, factor in factors.items():
            key = f"{number}: {name} * {factor:g}"
            formula[key], shares[key] = spoiled_by_eta(cases[number], name, factor)
    parts = {
        "eta = 1e-30": (none, 0.0, EXACT),
        "eta rescaled": (rescaled, 0.0, EXACT),
        "eta kept": (formula, BY_HAND, "largest relative deviation from the formula with eta / a^2"),
        "effect of eta": (shares, 1 + 1e-6, "largest move of a BN layer's output, as a share of the bound"),
    }
    mli.record(no_counterexample(parts, cases))


def broken(symmetries, factors):
    """What the factors break by the group, by tensor or output: what that should have been multiplied by."""
    found = {}
    for violation in symmetries.violations(factors):
        equation = violation.equation
        name = " and ".join(equation.left.terms) if equation.what not in symmetries.outputs else equation.what
        found[name] = violation.wanted
    return found


def refused(symmetries, layer):
    """Whether `nsi` refuses a layer because its scale reaches the output."""
    try:
        nsi(symmetries, {layer: 2.0})
    except SymmetryError as error:
        return any(equation.what in symmetries.outputs for equation in error.equations)
    return False


def by_rsi(case, model, layers, seeds):
    """Deviations of `rsi` over all linear layers, and over all but the last, which restores."""
    _, x, symmetries = case
    state, found = model.state_dict(), {}
    for restore, count in ((None, len(layers)), ("next", len(layers) - 1)):
        factors = powers_of_two(seeds, count)
        element = rsi(symmetries, dict(zip(layers, factors, strict=False)), restore)
        wanted = {f"{name}.weight": factor for name, factor in zip(layers, factors, strict=False)}
        wanted |= {f"{layers[k]}.bias": prod(factors[: k + 1]) for k in range(count)}
        wanted |= {f"{layers[-1]}.weight": 1 / prod(factors)} if restore else {}
        found[f"factors, restored: {restore}"] = unlike(element, wanted)
        product = 1.0 if restore else prod(factors)
        after = output(model, symmetries.apply(state, element), x)
        found[f"logits, restored: {restore}"] = apart(after, output(model, state, x) * product)
    return found


def by_alpha(case, model, convolutions, layers, alpha):
    """What alpha does on the convolutions (deviation), and on everything or the linear layers (distances)."""
    _, x, symmetries = case
    state = model.state_dict()
    before = output(model, state, x)

    def after(factors):
        return output(model, symmetries.apply(state, factors), x)

    kept = apart(after(nsi(symmetries, dict.fromkeys(convolutions, alpha))), before)
    head = {name: alpha for name in symmetries.tensors if name.rpartition(".")[0] in layers}
    everything = dict.fromkeys(symmetries.tensors, alpha)
    return kept, {"theta": residual(after(everything), before), "linear layers": residual(after(head), before)}


@pytest.mark.claim(id="T17", expected="reproduced")
def test_fully_connected_layers_follow_rsi_and_not_nsi(mli, pytestconfig):
    """12 random networks as for T16 (eta = 1e-30), with 2 or 3 linear layers with biases and without BN at the end.
    Scaling all convolutions by a power of two changes no bit; but `nsi` refuses every linear layer, naming the output
    that would scale, and with alpha = 1/2 times all parameters, or those of the linear layers, the outputs are at least
    0.001 of their norm away from any multiple of the original ones. What alpha*theta breaks by the group is exactly the
    linear layers' biases, that of the k-th wanting alpha^(k+1) as the last BN layer's gamma adds one alpha, and the
    output; left free, the biases alone. RSI holds: `rsi` gives the linear layers' weights random powers of two and
    their biases exactly the cumulative products, and the logits are exactly the product times the original ones, or
    bit-identical where the last weight restores. Reproduced if all of this holds; not reproduced if anything fails;
    inconclusive for fewer than 10 networks.
    """
    offset, alpha = pytestconfig.getoption("--mli-seed-offset"), 0.5
    cases = normalised((1, 2), offset)
    kept, taken, distances, equations, rectified = {}, {}, {}, {}, {}
    for number, case in enumerate(cases):
        model, symmetries = with_this_eta(case.network.model, NO_ETA), case.symmetries
        convolutions, layers = named(model, nn.Conv2d), named(model, nn.Linear)
        kept[f"{number}: convolutions"], found = by_alpha(case, model, convolutions, layers, alpha)
        distances |= {f"{number}: alpha times {what}": value for what, value in found.items()}
        taken |= {f"{number}: {name}": float(not refused(symmetries, name)) for name in layers}
        wanted = {f"{name}.bias": alpha ** (k + 1) for k, name in enumerate(layers, start=1)}
        everything, out = dict.fromkeys(symmetries.tensors, alpha), dict.fromkeys(symmetries.outputs, 1.0)
        equations[f"{number}: fixed"] = float(len(broken(symmetries, everything).items() ^ (wanted | out).items()))
        equations[f"{number}: free"] = float(len(broken(symmetries.free, everything).items() ^ wanted.items()))
        results = by_rsi(case, model, layers, [offset, number])
        rectified |= {f"{number}: {what}": value for what, value in results.items()}
    short = shortfalls(distances, LEAST_RESIDUAL)
    parts = {
        "RSI": (rectified, 0.0, EXACT),
        "NSI of convolutions": (kept, 0.0, EXACT),
        "NSI refused": (taken, 0.0, "linear layers that `nsi` takes"),
        "no multiple": (short, 0.0, f"how much the distance to the nearest multiple lacks of {LEAST_RESIDUAL}"),
        "biases named": (equations, 0.0, "equations missing or named in vain"),
    }
    ruling = no_counterexample(parts, cases)
    mli.record(replace(ruling, details={**ruling.details, "least distance": min(distances.values())}))
