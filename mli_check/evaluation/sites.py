"""The states that an evaluation visits: points of paths, each measured once however many paths meet there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mli_check.paths import Coefficients, Point, Span
from mli_check.states import State


@dataclass(frozen=True)
class Site:
    """A point of a path, and what becomes of running statistics there.

    `of_path` is how the path treats them, `interpolate` or `freeze`; with `recalibrated` they are then overwritten.
    """

    path: Span
    point: Point
    of_path: str
    recalibrated: bool

    def coefficients(self, name: str) -> Coefficients:
        """One coefficient a basis state for a tensor that moves."""
        return self.path.tensor_coefficients(self.point).get(name, self.path.coefficients(self.point))


def distinct(asked: Iterable[Site]) -> tuple[list[Site], list[int]]:
    """The sites without those that coincide, and for each site asked for the index of the one that stands for it.

    Sites coincide where the same tensors get the same coefficients: alpha = 1 of many noises around one theta_F.
    """
    identities = Identities()
    known: dict[Any, int] = {}
    sites: list[Site] = []
    places = []
    for site in asked:
        key = _key(site, identities)
        if key not in known:
            known[key] = len(sites)
            sites.append(site)
        places.append(known[key])
    return sites, places


def telling(sites: Sequence[Site]) -> list[Site]:
    """A few sites to try something on: for each kind of path the middle, a quarter, both ends."""
    by_kind: dict[type[Span], list[Site]] = {}
    for site in sites:
        by_kind.setdefault(type(site.path), []).append(site)
    places = [(group, part) for part in (1 / 2, 1 / 4, 0, 1) for group in by_kind.values()]
    return [group[round(part * (len(group) - 1))] for group, part in places]


class Identities:
    """Numbers states so that two have one number exactly where they are the same tensors, by identity."""

    def __init__(self) -> None:
        self._by_mapping: dict[int, int] = {}
        self._by_tensors: dict[Any, int] = {}

    def __call__(self, state: State) -> int:
        if id(state) not in self._by_mapping:
            # only a plain dict keeps its tensors alive, so that their ids stay theirs
            plain = isinstance(state, dict)
            content = tuple((name, id(state[name])) for name in sorted(state)) if plain else id(state)
            self._by_mapping[id(state)] = self._by_tensors.setdefault(content, len(self._by_tensors))
        return self._by_mapping[id(state)]


def _key(site: Site, identities: Identities) -> Any:
    numbers = [identities(state) for state in site.path.basis]

    def resolved(coefficients: Coefficients) -> Any:
        return tuple(sorted((number, c) for number, c in zip(numbers, coefficients, strict=True) if c != 0))

    common = resolved(site.path.coefficients(site.point))
    own = {name: resolved(found) for name, found in site.path.tensor_coefficients(site.point).items()}
    apart = frozenset((name, found) for name, found in own.items() if found != common)
    return identities(site.path.final), site.of_path, site.recalibrated, common, apart
