"""Which first layers a job can share: recognised by what they are given, verified against the model as it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils import _pytree

from mli_check.evaluation.first_layer import LINEAR, FirstLayers, Layer, SharedLayer, paths_of
from mli_check.evaluation.job import Job
from mli_check.evaluation.norm_stats import call
from mli_check.evaluation.sites import Site
from mli_check.evaluation.slots import Slots
from mli_check.paths import Span

PROBED = 64  # examples on which sharing is verified
PAYS = 96  # products per output above which a CPU gains from combining instead (docs/performance.md)
TOLERANCE = 1000  # unit roundoffs of the largest output, by which sharing may differ where it is verified


def find(job: Job, least: int = 0) -> FirstLayers | str:
    """The job's first layers that can be shared, verified against the model as it is; else why there are none.

    Layers with fewer than `least` products an output are left alone.
    """
    if not all(isinstance(state, dict) for path in paths_of(job) for state in path.basis):
        return "a basis state is no dict of tensors"
    slots, middle = Slots(job.model), len(job.sites) // 2
    seen = []
    for site in (job.sites[middle], job.sites[-1 if middle else 0]):
        slots.place(site)
        seen.append(_inputs(job))
    reasons: dict[str, str] = {}
    layers = []
    for name, inputs in seen[0].items():
        layer: Any = job.model.get_submodule(name)
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


def _obstacle(job: Job, name: str, layer: Layer, first: Any, second: Any) -> str:
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
    products = {id(path.basis[j][weight]) for path in paths_of(job) for j in range(len(path.basis))}
    if len(products) >= len(job.sites):
        return f"would need {len(products)} products for {len(job.sites)} points"
    return ""


def _small(layer: Layer, least: int) -> str:
    each = layer.weight[0].numel()
    return f"has only {each} products an output, and combining outputs costs as much" if each < least else ""


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
