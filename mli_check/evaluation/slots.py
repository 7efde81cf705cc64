"""Writing the states of sites into a model, in place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mli_check.evaluation.sites import Site
from mli_check.paths import Coefficients, Span, is_affine


@dataclass(frozen=True)
class _Plan:
    """What a path writes: `moving` names with every basis state's tensor, the `still` ones, and the `mixed`.

    Mixed are names whose tensors have another dtype than the model's: they are combined in their own first.
    """

    moving: dict[str, tuple[Tensor, ...]]
    still: dict[str, Tensor]
    mixed: tuple[str, ...]


class Slots:
    """The tensors of a model, to write states into, but for those that `omit` names."""

    def __init__(self, model: nn.Module, omit: Collection[str] = ()) -> None:
        kept = model.state_dict(keep_vars=True)
        last = {id(tensor): name for name, tensor in kept.items()}  # of tied weights, as load_state_dict does
        self._slots = {n: t.detach() for n, t in kept.items() if last[id(t)] == n and n not in omit}
        self._trained = frozenset(name for name, _ in model.named_parameters(remove_duplicate=False))
        self._here: dict[int, tuple[Tensor, Tensor]] = {}
        self._plans: dict[tuple[int, str], tuple[Span, _Plan]] = {}

    def place(self, site: Site) -> None:
        """Write the site's state into the model; no new tensor is made."""
        plan = self._plan(site.path, site.of_path)
        common, own = site.path.coefficients(site.point), site.path.tensor_coefficients(site.point)
        groups: dict[Coefficients, list[str]] = defaultdict(list)
        for name in plan.moving:
            groups[own.get(name, common)].append(name)
        for coefficients, names in groups.items():
            bases = zip(*(plan.moving[name] for name in names), strict=True)
            fill([self._slots[name] for name in names], [list(basis) for basis in bases], coefficients)
        if plan.still:
            torch._foreach_copy_([self._slots[name] for name in plan.still], list(plan.still.values()))
        for name in plan.mixed:
            self._slots[name].copy_(site.path.combine(name, own.get(name, common)))

    def here(self, tensor: Tensor, slot: Tensor) -> Tensor:
        """A tensor of a state on the slot's device; a copy is made once."""
        if tensor.device == slot.device:
            return tensor.detach()
        if id(tensor) not in self._here:
            self._here[id(tensor)] = tensor, tensor.detach().to(slot.device)  # the first keeps the id taken
        return self._here[id(tensor)][1]

    def _plan(self, path: Span, of_path: str) -> _Plan:
        key = (id(path), of_path)
        if key not in self._plans:
            moving, still, mixed = {}, {}, []
            for name, slot in self._slots.items():
                if not path.moves(name, of_path, self._trained):
                    still[name] = self.here(path.final[name], slot)
                elif any(state[name].dtype != slot.dtype for state in path.basis):
                    mixed.append(name)
                else:
                    moving[name] = tuple(self.here(state[name], slot) for state in path.basis)
            self._plans[key] = path, _Plan(moving, still, tuple(mixed))
        return self._plans[key][1]


def fill(slots: list[Tensor], bases: Sequence[list[Tensor]], coefficients: Coefficients) -> None:
    """Write sum_j c_j * bases[j] into `slots`, as `Span.combine` would make it."""
    terms = [(c, basis) for c, basis in zip(coefficients, bases, strict=True) if c != 0]
    if not terms:
        torch._foreach_zero_(slots)
        return
    if is_affine([c for c, _ in terms]):
        for slot, start, end in zip(slots, terms[0][1], terms[1][1], strict=True):
            torch.lerp(start, end, terms[1][0], out=slot)
        return
    (first, basis), *others = terms
    torch._foreach_copy_(slots, basis)
    if first != 1:
        torch._foreach_mul_(slots, first)
    for coefficient, basis in others:
        torch._foreach_add_(slots, basis, alpha=coefficient)
