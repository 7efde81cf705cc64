"""X1, X2, X6: what scale invariance says of IEEE arithmetic, of the zero path, and of any network at all."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import lru_cache
from math import inf

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.overrides import TorchFunctionMode

from mli_check.errors import OptionError, SymmetryError
from mli_check.strategies import fill, networks
from mli_check.symmetry import gsi, nsi, rsi, vsi
from mli_check.trials import EXACT, LEAST_RESIDUAL, apart, drawn, no_counterexample, residual, shortfalls

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NO_ETA = 1e-30  # torch refuses 0 in training
NULL, CLEAR = 1e-9, 1e-6  # derivatives as shares of the outputs' norm: what counts as 0, and what surely does not


@lru_cache
def without_biases(offset):
    """Networks of weights and ReLUs alone: 12 of two or more layers in a row, then 16 with skip connections."""
    options = {"norms": (None,), "biases": (False,), "activations": (None, "relu")}
    rows = networks(skips=False, concatenations=False, tied=False, **options)
    rows = rows.filter(lambda network: len(list(network.model.parameters())) > 1)
    skipping = networks(**options).filter(lambda network: "skip" in network.traits)
    return drawn(rows, 12, offset) + drawn(skipping, 16, offset)


@lru_cache
def of_any_kind(norms, count, offset):
    """Networks of everything that can be drawn, with these norms."""
    return drawn(networks(norms=norms), count, offset)


def output(model, state, x):
    """What the network computes in a state; neither is changed."""
    with torch.no_grad():
        return functional_call(model, {name: tensor.clone() for name, tensor in state.items()}, (x,), tie_weights=False)


def element(property_, symmetries, seeds, longest, exponents):
    """What a property gives for random powers of two on one to `longest` weights in a row, from the first of 4 random
    starts where it applies: the factors as words, and the element. None where it does not.
    """
    draw, names = np.random.default_rng(seeds), symmetries.weights
    for start in draw.permutation(len(names))[:4]:
        most = min(longest, max(1, len(names) - 1 - start))  # the last weight has none to restore in
        chosen = names[start : start + draw.integers(1, most + 1)]
        factors = {name: 2.0 ** int(k) for name, k in zip(chosen, draw.choice(exponents, len(chosen)), strict=True)}
        try:
            found = property_(symmetries, factors)
        except (SymmetryError, OptionError):  # an addition stands in the way, or no layer comes next
            continue
        return ", ".join(f"{name} * {factor:g}" for name, factor in factors.items()), found
    return None


class Magnitudes(TorchFunctionMode):
    """The smallest and the largest magnitude of what any function of torch returns, zeros left out."""

    def __init__(self):
        super().__init__()
        self.smallest, self.largest = inf, 0.0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.is_floating_point() and out.any():
            sizes = out.detach().abs()
            self.smallest = min(self.smallest, float(sizes[sizes != 0].min()))
            self.largest = max(self.largest, float(sizes.max()))
        return out


def in_dtype(case, dtype):
    """The model and its inputs; these are 32 times as large in float16, to keep values clear of subnormal numbers."""
    return copy.deepcopy(case.network.model).to(dtype), (case.x * (32 if dtype == torch.float16 else 1)).to(dtype)


@pytest.mark.claim(id="X1", expected="reproduced")
def test_powers_of_two_change_no_bit(mli, pytestconfig):
    """26 random networks without normalisation (skips, concatenations, poolings, tied weights; 16 of them without
    biases), each in float16, bfloat16, float32 and float64, random layers of them, and random powers of two: 1/2 and 2
    in float16, 1/8 to 8 elsewhere, on one layer for VSI and on up to three in a row for GSI and RSI, where the property
    applies; the next weights restore. Outputs are compared bit by bit. Set aside is a network some of whose values
    (results of any function of torch, before or after) are not normal numbers of the dtype, zeros excepted. Reproduced
    if all outputs are identical; not reproduced if any bit differs; inconclusive with fewer than 10 networks for a
    dtype or property.
    """
    offset = pytestconfig.getoption("--mli-seed-offset")
    cases = without_biases(offset)[:16] + of_any_kind((None,), 10, offset)
    properties, parts, aside = {"VSI": vsi, "GSI": gsi, "RSI": rsi}, {}, 0
    runs = [(*one, name, wide) for one in enumerate(cases) for name in properties for wide in (False, True)]
    for number, case, name, wide in runs:
        longest, exponents = 1 if name == "VSI" else 3, (-3, -2, -1, 1, 2, 3) if wide else (-1, 1)
        found = element(properties[name], case.symmetries, [offset, number], longest, exponents)
        for dtype in () if found is None else DTYPES[1:] if wide else DTYPES[:1]:
            words, factors = found
            model, x = in_dtype(case, dtype)
            with Magnitudes() as seen:
                before = output(model, model.state_dict(), x)
                after = output(model, case.symmetries.apply(model.state_dict(), factors), x)
            if not torch.finfo(dtype).tiny <= seen.smallest <= seen.largest <= torch.finfo(dtype).max:
                aside += 1
                continue
            for part in (str(dtype).removeprefix("torch."), name):
                parts.setdefault(part, {})[f"{number}: {name}, {words}, {dtype}"] = apart(after, before)
    ruling = no_counterexample({part: (found, 0.0, EXACT) for part, found in parts.items()}, cases)
    mli.record(replace(ruling, details={**ruling.details, "elements set aside": aside}))


def in_float64(state):
    """The state with its floating-point tensors in float64."""
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def length_of_all_paths(network, x):
    """The number of weights on every path from input to output, or None if paths differ.

    With absolute weights and inputs the outputs are sums over paths, without cancellation: doubling all weights
    multiplies every one of them by 2^L if and only if all paths have L weights.
    """
    state, x = {name: tensor.abs() for name, tensor in in_float64(network.model.state_dict()).items()}, x.double().abs()
    doubled = {name: tensor * 2 for name, tensor in state.items()}
    lengths = (output(network.model, doubled, x) / output(network.model, state, x)).log2()
    length = float(lengths.flatten()[0].round())
    return int(length) if (lengths - length).abs().max() < NULL else None


@pytest.mark.claim(id="X2", expected="reproduced")
def test_zero_path_follows_from_one_forward_pass(mli, pytestconfig):
    """28 random bias-free networks without normalisation, activations ReLU or none, in float64; 16 of them with skip
    connections. L is counted with absolute weights (`length_of_all_paths`). Where all paths have the same number L of
    weights, the logits at alpha theta are alpha^L z, z those at theta: exactly for alpha = 1/2, 1/4, 1/8 and 1/16, and
    to 1e-12 of the largest logit at the 49 inner points of the usual grid. Where paths differ, the logits at theta/2
    are at least 0.001 of their norm away from every multiple of z. The group says the same: with the output left free,
    alpha*theta violates nothing and scales it by alpha^L, or else it violates something. Reproduced if all of this
    holds; not reproduced if anything fails; inconclusive with fewer than 10 networks of either kind.
    """
    cases = without_biases(pytestconfig.getoption("--mli-seed-offset"))
    exact, rounded, distances, group = {}, {}, {}, {}
    for number, (network, x, symmetries) in enumerate(cases):
        state, length = in_float64(network.model.state_dict()), length_of_all_paths(network, x)
        logits = {
            alpha: output(network.model, {name: tensor * alpha for name, tensor in state.items()}, x.double())
            for alpha in (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16, *np.linspace(0, 1, 51)[1:-1])
        }
        halved = dict.fromkeys(symmetries.tensors, 0.5)
        violated = symmetries.free.violations(halved)
        if length is None:
            distances[f"{number}: 0.5"] = residual(logits[0.5], logits[1.0])
            group[f"{number}: violations"] = float(not violated)
            continue
        group[f"{number}: violations"] = float(len(violated))
        group[f"{number}: factor"] = abs(symmetries.output_factor(halved) / 0.5**length - 1)
        for alpha, found in logits.items():
            kind = exact if np.log2(alpha).is_integer() else rounded
            kind[f"{number}: alpha = {alpha:g}"] = apart(found, logits[1.0] * alpha**length)
    short = shortfalls(distances, LEAST_RESIDUAL)
    parts = {
        "powers of two": (exact, 0.0, EXACT),
        "whole path": (rounded, 1e-12, EXACT),
        "paths that differ": (short, 0.0, f"how much the distance to the nearest multiple lacks of {LEAST_RESIDUAL}"),
        "group": (group, 0.0, "violations in vain or missing, deviation of the output's factor"),
    }
    ruling = no_counterexample(parts, cases)
    least = min(distances.values(), default=None)
    mli.record(replace(ruling, details={**ruling.details, "least distance where paths differ": least}))


def jacobian(network, symmetries, x, draw):
    """The derivatives (outputs, tensors) of the outputs by the log-scales, for one draw of the weights, eta = 1e-30;
    as shares of the outputs' norm.
    """
    model = fill(copy.deepcopy(network.model), draw).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
            module.eps = NO_ETA
    state = {name: tensor.detach() for name, tensor in model.state_dict().items() if name not in symmetries.aliases}

    def outputs(logs):
        scaled = {name: state[name] * log.exp() for name, log in zip(symmetries.tensors, logs, strict=True)}
        rest = {name: tensor.clone() for name, tensor in state.items() if name not in scaled}
        return functional_call(model, scaled | rest, (x.double(),)).flatten()

    at = torch.zeros(len(symmetries.tensors), dtype=torch.float64)
    return (jacrev(outputs)(at) / outputs(at).norm()).detach()


def nullity(matrix):
    """The dimension of the null space; NaN where a singular value may or may not be 0."""
    sizes = torch.linalg.svdvals(matrix)
    unclear = ((sizes > NULL) & (sizes < CLEAR)).any()
    return float("nan") if unclear else float(matrix.shape[1] - (sizes > NULL).sum())


@pytest.mark.claim(id="X6", expected="reproduced")
def test_group_is_the_null_space_of_a_linear_system(mli, pytestconfig):
    """28 random networks (14 with batch, layer and group norm, skips, concatenations, tied weights, poolings and
    homogeneous activations, 14 of those of X2), train mode, float64, eta = 1e-30. The outputs' derivatives by the
    log-scale of every tensor are taken at three draws of the weights, since the group is that of weights in general
    position, and stacked. The dimension of the group is the dimension of the null space of that matrix (singular values
    below 1e-9 of the outputs' norm are 0; one below 1e-6 that is not leaves it open), every basis vector lies in it (to
    1e-9), and so do the elements that VSI, GSI, RSI and NSI give, for random powers of two on random layers where they
    apply, none of which violates an equation. Reproduced if all of this holds; not reproduced if anything fails;
    inconclusive with fewer than 10 networks, in all or for one of the four.
    """
    offset = pytestconfig.getoption("--mli-seed-offset")
    cases = of_any_kind(("batch", "layer", "group"), 14, offset) + without_biases(offset)[2:16]
    dimensions, basis = {}, {}
    kinds = {"VSI": (vsi, {}), "GSI": (gsi, {}), "RSI": (rsi, {}), "NSI": (nsi, {})}
    for number, (network, x, symmetries) in enumerate(cases):
        matrix = torch.cat([jacobian(network, symmetries, x, draw) for draw in range(3)])

        def moved(logs, matrix=matrix, symmetries=symmetries):
            vector = torch.tensor([float(logs.get(name, 0)) for name in symmetries.tensors], dtype=torch.float64)
            return float((matrix @ vector).norm() / vector.norm())

        dimensions[f"{number}: dimension"] = abs(symmetries.dimension - nullity(matrix))
        basis |= {f"{number}: vector {i}": moved(vector) for i, vector in enumerate(symmetries.basis)}
        for name, (property_, found) in kinds.items():
            given = element(property_, symmetries, [offset, number], 3 if name in ("GSI", "RSI") else 1, (-2, -1, 1, 2))
            if given is not None:
                words, factors = given
                broken = len(symmetries.violations(factors))
                found[f"{number}: {name}, {words}"] = broken + moved(symmetries.logs(factors))
    parts = {"dimension": (dimensions, 0.0, "largest difference of the two dimensions")}
    parts["basis"] = (basis, NULL, "largest derivative of the outputs along a basis vector (of its norm)")
    parts |= {name: (found, NULL, "violations, and derivative along it") for name, (_, found) in kinds.items()}
    mli.record(no_counterexample(parts, cases))
