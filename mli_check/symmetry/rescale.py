"""The four scale invariances of Tao et al. 2024, Section 4.1, as elements of a network's group of symmetries.

Each takes {layer: positive factor} and returns a factor for every tensor. A layer is named as a module (`fc1`), or by
its weight (`fc1.weight`). What has to happen between and after the layers is not counted but solved for, so the
properties hold for skip connections and concatenations too, or say which equation stands in their way.

`restore` says where the scale is taken back: in the weights that come `"next"` after the layers given, in the last ones
before the `"output"`, or not at all (None): then the output is multiplied by `temperature(symmetries, factors)`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal

from torch import nn

from mli_check.errors import OptionError, SymmetryError, UnknownNameError
from mli_check.symmetry.forms import Equation, Form
from mli_check.symmetry.group import Factors, Symmetries

Restore = Literal["next", "output"] | None


def rsi(symmetries: Symmetries, factors: Mapping[str, float], restore: Restore = "next") -> Factors:
    """Rectified scale invariance (Eq. 13 to 15): weights take `factors`, biases the product of all factors before them.

    Raises UnknownNameError for an unknown layer, OptionError for a factor that is not positive or a layer without a
    next one to restore in, SymmetryError naming the equations where no such element exists.
    """
    given = _weights(symmetries, factors)
    followers = [name for name in symmetries.tensors if name not in symmetries.weights]
    return _solved(symmetries, given, followers, restore, "RSI")


def gsi(symmetries: Symmetries, factors: Mapping[str, float], restore: Restore = "next") -> Factors:
    """Generalised scale invariance (Eq. 8 and 9): weights take `factors`, and nothing else but the restoring one moves.

    Raises as `rsi` does; SymmetryError names the biases that would have to move.
    """
    given = _weights(symmetries, factors)
    statistics = [name for name in symmetries.tensors if _is_statistic(name)]
    return _solved(symmetries, given, statistics, restore, "GSI", advice="`rsi` moves the biases along.")


def vsi(symmetries: Symmetries, factors: Mapping[str, float], restore: Restore = "next") -> Factors:
    """Vanilla scale invariance (Eq. 6 and 7): weight and bias of a layer take its factor a, the next weight 1/a.

    Several layers are scaled one after the other: a layer between two of them takes both. Raises as `rsi` does.
    """
    total = dict.fromkeys(symmetries.tensors, 1.0)
    for layer, factor in factors.items():
        one = rsi(symmetries, {layer: factor}, restore)
        total = {name: total[name] * one[name] for name in total}
    return total


def nsi(symmetries: Symmetries, factors: Mapping[str, float]) -> Factors:
    """Normalised scale invariance (Eq. 16 to 18): weight and bias take a factor, which the normalisation takes out.

    No other weight moves; in eval mode the running statistics follow. eta is taken as 0; `with_eta` makes it exact.
    Raises as `rsi` does; SymmetryError where the scale reaches the output, because no normalisation follows.
    """
    given = _weights(symmetries, factors)
    followers = [name for name in symmetries.tensors if name not in symmetries.weights]
    return _solved(symmetries, given, followers, "normalisation", "NSI", advice="A normalisation has to follow.")


def temperature(symmetries: Symmetries, factors: Mapping[str, float]) -> float:
    """The softmax temperature that gives the cross-entropy back: what the logits are multiplied by (Eq. 11)."""
    return symmetries.output_factor(factors)


def rectified(symmetries: Symmetries) -> dict[str, float]:
    """Exponents k of a RectifiedPath: with every weight times alpha, each tensor has to take alpha**k (Eq. 14).

    In a chain of layers with biases k counts the layers up to the bias; after a normalisation it starts again. Raises
    SymmetryError where not all weights can take alpha, as in a skip connection between parts of unequal depth.
    """
    found = rsi(symmetries, dict.fromkeys(symmetries.weights, 2.0), restore=None)
    logs = symmetries.logs(found)
    return {name: logs[name] for name in symmetries.tensors}


def with_eta(model: nn.Module, symmetries: Symmetries, factors: Mapping[str, float]) -> nn.Module:
    """A copy of the model whose normalisations have the eta that makes `factors` exact: times their input's square.

    It shares no memory with the model. Raises SymmetryError where one eta cannot follow, see `eta_factors`.
    """
    changed = copy.deepcopy(model)
    for name, factor in symmetries.eta_factors(factors).items():
        module = changed.get_submodule(name)
        if factor != 1.0:
            if not isinstance(getattr(module, "eps", None), float):
                raise SymmetryError(f"`{name}` normalises without an `eps` of its own, so its eta cannot be rescaled")
            module.eps = module.eps * factor  # type: ignore[operator,assignment]
    return changed


def _is_statistic(name: str) -> bool:
    return name.rpartition(".")[2] in ("running_mean", "running_var")


def _weights(symmetries: Symmetries, factors: Mapping[str, float]) -> Factors:
    """The factors by weight instead of layer."""
    if not isinstance(factors, Mapping) or not factors:
        raise OptionError(f"`factors` must map at least one layer to a positive factor, got {factors!r}")
    names = {weight.removesuffix(".weight"): weight for weight in symmetries.weights}
    names |= {
        other.removesuffix(".weight"): names[first.removesuffix(".weight")]
        for other, first in symmetries.aliases.items()
        if first.removesuffix(".weight") in names
    }
    given: Factors = {}
    for layer, factor in factors.items():
        weight = names.get(str(layer).removesuffix(".weight"))
        if weight is None:
            raise UnknownNameError("layer", str(layer), names)
        if weight in given and given[weight] != factor:
            raise OptionError(f"`{layer}` is tied to another layer that has another factor; give one of them")
        given[weight] = factor
    return symmetries.factors(given)


def _solved(
    symmetries: Symmetries,
    given: Factors,
    followers: list[str],
    restore: Restore | Literal["normalisation"],
    name: str,
    advice: str = "",
) -> Factors:
    """The element with these weights' factors and all other weights at 1, but for those that restore."""
    if restore not in ("next", "output", "normalisation", None):
        raise UnknownNameError("way to restore", str(restore), ("next", "output", "None"))
    group = symmetries.free if restore is None else symmetries.fixed
    restoring: list[str] = []
    more: list[Equation] = []
    if restore == "next":
        restoring, more = _next(symmetries, given)
    elif restore == "output":
        restoring = _last(symmetries, given)
    unknown = [*(follower for follower in followers if follower not in given), *restoring]
    try:
        logs = group.solved(given, unknown, more)
    except SymmetryError as error:
        raise SymmetryError(
            f"{name} does not apply to {', '.join(f'`{weight}`' for weight in given)} here. "
            f"{_listed(error)}\n{advice or _nearest(group, given)}",
            error.equations,
        ) from error
    return {tensor: 2.0 ** logs[tensor] for tensor in symmetries.tensors}


def _listed(error: SymmetryError) -> str:
    lines = "\n  ".join(map(str, error.equations))
    return f"These equations stand in the way, together with the factors given:\n  {lines}"


def _nearest(group: Symmetries, given: Factors) -> str:
    """What `complete` offers instead: an element that keeps as many of the factors, in their order, as it can."""
    kept: Factors = {}
    found = group.complete(kept)
    for name, factor in given.items():
        try:
            found = group.complete({**kept, name: factor})
        except SymmetryError:
            continue
        kept[name] = factor
    moved = [f"`{name}` * {factor:g}" for name, factor in found.items() if factor != 1.0 and name not in kept]
    rest = f" and {len(moved) - 6} more" if len(moved) > 6 else ""
    names = ", ".join(f"{name!r}: {factor:g}" for name, factor in kept.items())
    return f"The nearest symmetry, `complete({{{names}}})`, moves {', '.join(moved[:6]) or 'nothing else'}{rest}."


def _next(symmetries: Symmetries, given: Factors) -> tuple[list[str], list[Equation]]:
    """The weights that come next after the given ones, and the demand that the scale ends with them."""
    following = [layer for layer in symmetries.layers if layer.weight not in given and layer.before & given.keys()]
    if not following:
        raise OptionError(
            f"no layer comes next after {', '.join(f'`{name}`' for name in given)}; "
            'use restore="output", or restore=None with `temperature`'
        )
    equations = [
        Equation(form, Form(), f"what `{layer.weight}` makes", "1, as it restores the scale")
        for layer in following
        for form in layer.after
    ]
    return list(dict.fromkeys(layer.weight for layer in following)), equations


def _last(symmetries: Symmetries, given: Factors) -> list[str]:
    """The weights that scale the outputs last."""
    found = [name for name in symmetries.weights if name in symmetries.last and name not in given]
    if not found:
        raise OptionError("the last layer is among those given, so nothing is left to restore in; use restore=None")
    return found
