"""Random networks as the trials of an exact claim, and the ruling over them: one counterexample refutes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor

from mli_check.strategies import Network, inputs_for
from mli_check.symmetry import Symmetries, scale_symmetries
from mli_check.verdicts import FEWEST_NETWORKS, Ruling, agrees, all_of

EXPONENTS = (-3, -2, -1, 1, 2, 3)  # of factors that are powers of two
LEAST_RESIDUAL = 1e-3  # of the scaled output: ten thousand times float32's rounding
EXACT = "largest relative deviation"
Part = tuple[Mapping[str, float], float, str]


class Case(NamedTuple):
    """A drawn network, inputs for it, and its group of scale symmetries."""

    network: Network
    x: Tensor
    symmetries: Symmetries


def drawn(strategy: st.SearchStrategy[Network], count: int, offset: int) -> list[Case]:
    """The first `count` different networks that hypothesis draws, the same ones at every run for an `offset`."""
    found: dict[str, tuple[Network, Tensor]] = {}

    @seed(offset)
    @settings(
        max_examples=3 * count // 2, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy.flatmap(lambda network: st.tuples(st.just(network), inputs_for(network))))
    def draw(case: tuple[Network, Tensor]) -> None:
        if len(found) < count:
            found.setdefault(case[0].source, case)

    draw()
    return [Case(network, x, scale_symmetries(network.model, x)) for network, x in found.values()]


def no_counterexample(parts: Mapping[str, Part], cases: Sequence[Case]) -> Ruling:
    """No deviation beyond its part's limit, and ten networks at least for each part: see `agrees`.

    Parts are (deviations, limit, label); deviations are named `number of the network: what`. The details hold the
    source of the first network that refutes a part.
    """
    rulings: dict[str, Ruling] = {}
    broken: list[str] = []
    more: dict[str, Any] = {"networks": len(cases)}
    for name, (found, limit, label) in parts.items():
        count = len({key.partition(":")[0] for key in found})
        few = {f"only {count} networks": float("nan")} if count < FEWEST_NETWORKS else {}
        rulings[name] = agrees({**found, **few}, limit, label)
        broken += [key for key, value in found.items() if value > limit]
        more[f"{name}, {label}"] = rulings[name].figure.value
    if broken:
        more["counterexample"] = cases[int(broken[0].partition(":")[0])].network.source
    ruling = all_of(rulings)
    return replace(ruling, details={**ruling.details, **more})


def shortfalls(found: Mapping[str, float], least: float) -> dict[str, float]:
    """How much each value lacks of the least that it has to be; NaN where it is none."""
    return {name: 0.0 if value >= least else least - value for name, value in found.items()}


def apart(got: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest value wanted; 0 if all are equal to the bit."""
    if torch.equal(got, wanted):
        return 0.0
    return float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max().clamp(min=1e-300))


def residual(scaled: Tensor, original: Tensor) -> float:
    """How far `scaled` is from the nearest multiple of `original`, as a share of its own norm."""
    first, second = scaled.double().flatten(), original.double().flatten()
    return float((first - (first @ second) / (second @ second) * second).norm() / first.norm())


def powers_of_two(seeds: Sequence[int], size: int) -> list[float]:
    """Random factors between 2**-3 and 2**3, none of them 1."""
    return [2.0 ** int(k) for k in np.random.default_rng(seeds).choice(EXPONENTS, size)]
