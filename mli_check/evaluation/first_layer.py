"""First layers shared between points: along a span they are linear in their weight, so W_j x is computed once a basis.

A layer that sees nothing but data gives sum_j c_j W_j x + b at a point with coefficients c. The products W_j x are the
same for every point; only their combination is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from mli_check.data.dataset import Dataset
from mli_check.evaluation.job import Job
from mli_check.evaluation.norm_stats import call
from mli_check.evaluation.sites import Site
from mli_check.evaluation.slots import Slots
from mli_check.paths import Span, combination

LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
Layer: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


class _Captured(BaseException):
    """Ends a forward pass whose inputs to the shared layers are all known; models may catch Exception."""


class SharedLayer:
    """A first layer whose forward pass hands out what `ready` was made from the products."""

    def __init__(self, name: str, layer: Layer) -> None:
        self.name, self.layer = name, layer
        self.weight = f"{name}.weight" if name else "weight"
        self.bias = (f"{name}.bias" if name else "bias") if layer.bias is not None else None
        self.inputs: Tensor | None = None
        self.ready: Tensor | None = None
        self._products: dict[tuple[int, int], Tensor] = {}
        self._kept: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """What stands in for the layer's own forward pass."""
        if self.ready is not None:
            return self.ready
        return type(self.layer).forward(self.layer, inputs)  # type: ignore[arg-type]

    @property
    def bytes(self) -> int:
        """What the output at a site takes."""
        return 0 if self.ready is None else self.ready.nelement() * self.ready.element_size()

    def forget(self) -> None:
        """Drop what belongs to the last rows."""
        self.inputs, self.ready, self._products = None, None, {}

    def drop_room(self) -> None:
        """Drop the memory of the outputs."""
        self._kept = None

    def keep_only(self, path: Span) -> None:
        """Drop the products of basis states that `path` does not have."""
        wanted = {id(state[self.weight]) for state in path.basis}
        self._products = {key: product for key, product in self._products.items() if key[0] in wanted}

    def prepare(self, site: Site, slots: Slots, folded: bool) -> Tensor:
        """Make `ready`, the output at a site; with `folded`, the bias takes the weight's coefficients everywhere."""
        terms = [
            (c, self._product(state, slots, folded))
            for c, state in zip(site.coefficients(self.weight), site.path.basis, strict=True)
            if c != 0
        ]
        out = self._room(self._product(site.path.basis[0], slots, folded) if not terms else terms[0][1])
        total = combination(terms, out) if terms else out.zero_()
        if self.bias is not None and not folded:
            spread = 1 if isinstance(self.layer, nn.Linear) else 1 + len(self.layer.kernel_size)
            assert self.layer.bias is not None
            total.add_(self.layer.bias.reshape(-1, *[1] * (spread - 1)))
        kind = total.device.type
        self.ready = total.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else total
        return self.ready

    def _room(self, like: Tensor) -> Tensor:
        """Where the output at a site goes: the same memory at every site, if nothing outlives a forward pass."""
        if self._kept is None or self._kept.shape != like.shape:
            self._kept = torch.empty_like(like)
        return self._kept

    def _product(self, state: Any, slots: Slots, folded: bool) -> Tensor:
        weight = state[self.weight]
        bias = state[self.bias] if folded and self.bias is not None else None
        key = (id(weight), id(bias))
        if key not in self._products:
            slot: Tensor = self.layer.weight
            here = slots.here(weight, slot).to(slot.dtype)
            own = None if bias is None else slots.here(bias, slot).to(slot.dtype)
            assert self.inputs is not None
            with torch.autocast(slot.device.type, enabled=False):
                self._products[key] = self._apply(self.inputs.to(slot.dtype), here, own)
        return self._products[key]

    def _apply(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if isinstance(self.layer, nn.Linear):
            return functional.linear(inputs, weight, bias)
        outputs: Tensor = self.layer._conv_forward(inputs, weight, bias)
        return outputs


class FirstLayers:
    """The shared layers of a job's model; as a context it puts them in place of the layers' own forward passes."""

    def __init__(self, job: Job, layers: list[SharedLayer]) -> None:
        self.layers = layers
        self.omitted = {layer.weight for layer in layers}
        self.slots = Slots(job.model, self.omitted)
        self._everything = Slots(job.model)
        self.complete = True  # whether the rows lead through all layers, so that their outputs are given
        self.bytes_per_example = 0
        self._model = job.model
        self._folded = {(layer.name, id(path)): True for layer in layers for path in paths_of(job)}
        for layer in layers:
            for site in job.sites:
                together = layer.bias and site.coefficients(layer.weight) == site.coefficients(layer.bias)
                self._folded[layer.name, id(site.path)] &= bool(together)

    def __enter__(self) -> FirstLayers:
        for shared in self.layers:
            shared.layer.forward = shared.forward  # type: ignore[method-assign,assignment]
        return self

    def __exit__(self, *_: object) -> None:
        for shared in self.layers:
            shared.forget()
            shared.drop_room()
            del shared.layer.forward

    def begin(self, data: Dataset, rows: slice) -> None:
        """Take the layers' inputs from these rows; products of other rows are dropped.

        Where the rows do not lead through all layers, every site runs the layers themselves on these rows.
        """
        for shared in self.layers:
            shared.forget()
        waiting = list(self.layers)

        def see(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
            for shared in [shared for shared in waiting if shared.layer is layer]:
                shared.inputs = arguments[0]
                waiting.remove(shared)
            if not waiting:
                raise _Captured  # before the last layer multiplies in vain

        hooks = [shared.layer.register_forward_pre_hook(see) for shared in self.layers]
        try:
            call(self._model, data, rows)
        except _Captured:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        self.complete = not waiting

    def place(self, site: Site) -> None:
        """Write the site's state into the model and make the layers' outputs there."""
        if not self.complete:
            self._everything.place(site)
            return
        self.slots.place(site)
        for shared in self.layers:
            shared.keep_only(site.path)
            shared.prepare(site, self.slots, self._folded[shared.name, id(site.path)])

    def stacked(self, sites: Sequence[Site]) -> list[Tensor]:
        """Every shared layer's outputs at several sites, stacked along dimension 0."""
        outputs: list[list[Tensor]] = [[] for _ in self.layers]
        for site in sites:
            folded = [self._folded[shared.name, id(site.path)] for shared in self.layers]
            if not all(folded):
                self.slots.place(site)
            for shared, together, found in zip(self.layers, folded, outputs, strict=True):
                shared.drop_room()
                found.append(shared.prepare(site, self.slots, together))
        return [torch.stack(found) for found in outputs]

    def hand_out(self, outputs: Sequence[Tensor] | None) -> None:
        """Let the layers give these outputs from now on; None takes them back."""
        for index, shared in enumerate(self.layers):
            shared.ready = None if outputs is None else outputs[index]


def paths_of(job: Job) -> list[Span]:
    """The paths of a job's sites, each once."""
    return list({id(site.path): site.path for site in job.sites}.values())
