"""First layers shared between points: along a span they are linear in their weight, so W_j x is computed once a basis.

A layer that sees nothing but data gives sum_j c_j W_j x + b at a point with coefficients c. The products W_j x are the
same for every point; only their combination is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase
from torch.utils import _pytree

from mli_check.data.dataset import Dataset
from mli_check.evaluation.job import Job
from mli_check.evaluation.norm_stats import call
from mli_check.evaluation.sites import Site
from mli_check.evaluation.slots import Slots
from mli_check.paths import Span, combination

LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
PROBED = 64  # examples on which sharing is verified
PAYS = 96  # products per output above which a CPU gains from combining instead (docs/performance.md)
TOLERANCE = 1000  # unit roundoffs of the largest output, by which sharing may differ where it is verified


class _Captured(BaseException):
    """Ends a forward pass whose inputs to the shared layers are all known; models may catch Exception."""


class SharedLayer:
    """A first layer whose forward pass hands out what `ready` was made from the products."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        self.name, self.layer = name, layer
        self.weight = f"{name}.weight" if name else "weight"
        self.bias = (f"{name}.bias" if name else "bias") if layer.bias is not None else None
        self.inputs: Tensor | None = None
        self.ready: Tensor | None = None
        self._products: dict[tuple[int, int], Tensor] = {}
        self._kept: Tensor | None = None
        self.keeps = True

    def forward(self, inputs: Tensor) -> Tensor:
        """What stands in for the layer's own forward pass."""
        if self.ready is not None:
            return self.ready
        self.inputs = inputs
        outputs: Tensor = type(self.layer).forward(self.layer, inputs)
        return outputs

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

    def prepare(self, site: Site, slots: Slots, folded: bool) -> None:
        """Make the layer's output at a site; with `folded`, the bias takes the weight's coefficients everywhere."""
        terms = [
            (c, self._product(state, slots, folded))
            for c, state in zip(site.coefficients(self.weight), site.path.basis, strict=True)
            if c != 0
        ]
        out = self._room(self._product(site.path.basis[0], slots, folded) if not terms else terms[0][1])
        total = combination(terms, out) if terms else out.zero_()
        if self.bias is not None and not folded:
            spread = 1 if isinstance(self.layer, nn.Linear) else 1 + len(self.layer.kernel_size)
            total.add_(self.layer.bias.reshape(-1, *[1] * (spread - 1)))
        kind = total.device.type
        self.ready = total.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else total

    def _room(self, like: Tensor) -> Tensor:
        """Where the output at a site goes: the same memory at every site, if nothing outlives a forward pass."""
        if self._kept is None or self._kept.shape != like.shape or not self.keeps:
            self._kept = torch.empty_like(like)
        return self._kept

    def _product(self, state: Any, slots: Slots, folded: bool) -> Tensor:
        weight = state[self.weight]
        bias = state[self.bias] if folded and self.bias is not None else None
        key = (id(weight), id(bias))
        if key not in self._products:
            slot = self.layer.weight
            here = slots.here(weight, slot)
            own = None if bias is None else slots.here(bias, slot)
            assert self.inputs is not None
            with torch.autocast(slot.device.type, enabled=False):
                self._products[key] = self._apply(self.inputs.to(slot.dtype), here, own)
        return self._products[key]

    def _apply(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if isinstance(self.layer, nn.Linear):
            return functional.linear(inputs, weight, bias)
        outputs: Tensor = self.layer._conv_forward(inputs, weight, bias)  # type: ignore[operator]
        return outputs


class FirstLayers:
    """The shared layers of a job's model; as a context it puts them in place of the layers' own forward passes."""

    def __init__(self, job: Job, layers: list[SharedLayer]) -> None:
        self.layers = layers
        self.omitted = {layer.weight for layer in layers}
        self.slots = Slots(job.model, self.omitted)
        self.bytes_per_example = 0
        self._model = job.model
        self._folded = {
            (layer.name, id(path)): _moves_together(layer, path, job.sites) for layer in layers for path in _paths(job)
        }

    def __enter__(self) -> FirstLayers:
        for shared in self.layers:
            shared.layer.forward = shared.forward  # type: ignore[method-assign]
            shared.layer.weight.fill_(torch.nan)  # whatever else reads it would go unnoticed
        return self

    def __exit__(self, *_: object) -> None:
        for shared in self.layers:
            shared.forget()
            shared.drop_room()
            del shared.layer.forward

    def begin(self, data: Dataset, rows: slice) -> None:
        """Take the layers' inputs from these rows; products of other rows are dropped."""
        for shared in self.layers:
            shared.forget()
        waiting = list(self.layers)

        def seen(layer: nn.Module, *_: object) -> None:
            waiting[:] = [shared for shared in waiting if shared.layer is not layer]
            if not waiting:
                raise _Captured

        hooks = [shared.layer.register_forward_hook(seen) for shared in self.layers]
        try:
            call(self._model, data, rows)
        except _Captured:
            pass
        finally:
            for hook in hooks:
                hook.remove()

    def place(self, site: Site) -> None:
        """Write the site's state into the model and make the layers' outputs there."""
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
                shared.keeps = False
                shared.prepare(site, self.slots, together)
                found.append(shared.ready)
        return [torch.stack(found) for found in outputs]

    def free(self, outputs: Any) -> Any:
        """A model's outputs, copied where they may lie in memory that the next site overwrites."""
        place = outputs.untyped_storage().data_ptr() if isinstance(outputs, Tensor) else None
        for shared in self.layers:
            ready = shared.ready
            if shared.keeps and ready is not None and place in (None, ready.untyped_storage().data_ptr()):
                shared.keeps = False  # from now on every site has new memory
                outputs = _pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, outputs)
        return outputs

    def hand_out(self, outputs: Sequence[Tensor] | None) -> None:
        """Let the layers give these outputs from now on; None takes them back."""
        for shared, output in zip(self.layers, outputs or [None] * len(self.layers), strict=True):
            shared.ready = output


def find(job: Job, least: int = 0) -> FirstLayers | str:
    """The job's first layers that can be shared, verified against the model as it is; else why there are none.

    Layers with fewer than `least` products an output are left alone.
    """
    if not all(isinstance(state, dict) for path in _paths(job) for state in path.basis):
        return "a basis state is no dict of tensors"
    slots, middle = Slots(job.model), len(job.sites) // 2
    seen = []
    for site in (job.sites[middle], job.sites[-1 if middle else 0]):
        slots.place(site)
        seen.append(_inputs(job))
    reasons: dict[str, str] = {}
    layers = []
    for name, inputs in seen[0].items():
        layer = job.model.get_submodule(name)
        reasons[name] = _obstacle(job, name, layer, inputs, seen[1].get(name)) or _small(layer, least)
        if not reasons[name]:
            layers.append(SharedLayer(name, layer))
    if not layers:
        told = next(((f"`{name}` {reason}") for name, reason in reasons.items()), "the model calls none")
        return f"no first layer to share: {told}"
    shared = FirstLayers(job, layers)
    for site in _representatives(job):
        if not _agrees(job, shared, slots, site):
            return f"sharing `{layers[0].name}` changed the outputs of {site.path.label} at {site.point}"
    return shared


def _inputs(job: Job) -> dict[str, Any]:
    """What each linear layer and convolution is given, in the order of calls; None if called otherwise than once.

    Layers that follow a normalisation with running statistics see more than data, and are left out.
    """
    found: dict[str, Any] = {}
    normalised = False

    def look(name: str, layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        nonlocal normalised
        if isinstance(layer, _NormBase):
            normalised = True
        elif not normalised:
            plain = len(arguments) == 1 and name not in found
            found[name] = arguments[0].clone() if plain and isinstance(arguments[0], Tensor) else None

    hooks = [
        layer.register_forward_pre_hook(lambda layer, arguments, name=name: look(name, layer, arguments))
        for name, layer in job.model.named_modules()
        if type(layer) in LINEAR or (isinstance(layer, _NormBase) and layer.running_mean is not None)
    ]
    try:
        call(job.model, job.data, slice(0, PROBED))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _obstacle(job: Job, name: str, layer: nn.Module, first: Any, second: Any) -> str:
    """Why a layer cannot be shared; empty if it can."""
    names = [other for other, p in job.model.named_parameters(remove_duplicate=False) if p is layer.weight]
    weight = f"{name}.weight" if name else "weight"
    if first is None or second is None:
        return "is not called once with one tensor"
    if not torch.equal(first, second):
        return "sees more than data"
    if names != [weight]:
        return "shares its weight"
    if layer.weight.dtype not in (torch.float32, torch.float64):
        return f"computes in {layer.weight.dtype}"
    if layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer):
        return "has hooks or a forward of its own"
    products = {id(path.basis[j][weight]) for path in _paths(job) for j in range(len(path.basis))}
    if len(products) >= len(job.sites):
        return f"would need {len(products)} products for {len(job.sites)} points"
    return ""


def _small(layer: nn.Module, least: int) -> str:
    each = layer.weight[0].numel()
    return f"has only {each} products an output, and combining outputs costs as much" if each < least else ""


def _paths(job: Job) -> list[Span]:
    return list({id(site.path): site.path for site in job.sites}.values())


def _moves_together(layer: SharedLayer, path: Span, sites: Sequence[Site]) -> bool:
    """Whether the bias takes the weight's coefficients at every site of a path."""
    if layer.bias is None:
        return False
    bias = layer.bias
    return all(site.coefficients(layer.weight) == site.coefficients(bias) for site in sites if site.path is path)


def _representatives(job: Job) -> list[Site]:
    """For each kind of path one site in its middle."""
    by_kind: dict[type[Span], list[Site]] = {}
    for site in job.sites:
        by_kind.setdefault(type(site.path), []).append(site)
    return [sites[len(sites) // 2] for sites in by_kind.values()]


def _agrees(job: Job, shared: FirstLayers, slots: Slots, site: Site) -> bool:
    rows = slice(0, min(PROBED, len(job.data)))
    slots.place(site)
    plain = call(job.model, job.data, rows)
    with shared:
        shared.begin(job.data, rows)
        shared.place(site)
        shared.bytes_per_example = sum(layer.bytes for layer in shared.layers) // rows.stop
        return agree(plain, call(job.model, job.data, rows))


def agree(wanted: Any, found: Any) -> bool:
    """Whether two outputs, tensors or structures of them, are the same but for rounding."""
    (ours, shape), (theirs, other) = _pytree.tree_flatten(wanted), _pytree.tree_flatten(found)
    return shape == other and all(map(_close, ours, theirs))


def _close(wanted: Any, found: Any) -> bool:
    if not isinstance(wanted, Tensor) or not wanted.is_floating_point():
        return True
    scale = wanted.nan_to_num(0, 0, 0).abs().max() if wanted.numel() else 0
    allowed = float(TOLERANCE * torch.finfo(wanted.dtype).eps * scale)
    return torch.allclose(wanted, found, rtol=0, atol=allowed, equal_nan=True)
