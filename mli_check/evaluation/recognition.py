"""Which first layers a job can share: recognised by what they are given, verified against the model as it is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase
from torch.utils import _pytree

from mli_check.evaluation.first_layer import LINEAR, FirstLayers, Layer, SharedLayer, paths_of
from mli_check.evaluation.job import Job
from mli_check.evaluation.norm_stats import call
from mli_check.evaluation.sites import Site, telling
from mli_check.evaluation.slots import Slots

PROBED = 64  # examples on which sharing is verified
PATHS = 16  # of a job's paths, spread evenly, on whose points inputs are compared
PAYS = 96  # products per output above which a CPU gains from combining instead (docs/performance.md)
TOLERANCE = 1000  # unit roundoffs of the largest output, by which sharing may differ where it is verified


def find(job: Job, least: int = 0) -> FirstLayers | str:
    """The job's first layers that can be shared, verified against the model as it is; else why there are none.

    Layers with fewer than `least` products an output are left alone.
    """
    if not all(isinstance(state, dict) for path in paths_of(job) for state in path.basis):
        return "no first layer to share: a basis state is no dict of tensors"
    try:
        return _found(job, least)
    except torch.OutOfMemoryError:
        return "no first layer to share: trying it ran out of memory"


def _found(job: Job, least: int) -> FirstLayers | str:
    slots, seen = Slots(job.model), []
    for site in _spread(job):
        slots.place(site)
        seen.append(_inputs(job))
    bound, layers, told = _bound(job), [], "the model calls none"
    for name, inputs in seen[0].items():
        layer: Any = job.model.get_submodule(name)
        alike = all(_same(inputs, other.get(name)) for other in seen)
        obstacle = "sees more than data, or is not called once with one tensor" if name in bound or not alike else ""
        obstacle = obstacle or _obstacle(job, name, layer, least)
        if not obstacle:
            layers.append(SharedLayer(name, layer))
        elif told == "the model calls none":
            told = f"`{name}` {obstacle}"
    if not layers:
        return f"no first layer to share: {told}"
    shared, verified = FirstLayers(job, layers), False
    for site in telling(job.sites):
        slots.place(site)
        plain = _cloned(call(job.model, job.data, slice(0, PROBED)))
        verified = verified or _finite(plain)
        if not agree(plain, _outputs(job, shared, site)):
            return f"sharing `{layers[0].name}` changed the outputs of {site.path.label} at {site.point}"
    return shared if verified else "no first layer to share: the outputs are not finite where it was tried"


def _outputs(job: Job, shared: FirstLayers, site: Site) -> Any:
    """The outputs at a site with shared layers; whatever else reads their weights reads NaN."""
    rows = slice(0, min(PROBED, len(job.data)))
    with shared:
        shared.begin(job.data, rows)
        shared.place(site)
        shared.bytes_per_example = sum(layer.bytes for layer in shared.layers) // rows.stop
        before = [layer.layer.weight.clone() for layer in shared.layers]
        for layer in shared.layers:
            layer.layer.weight.fill_(torch.nan)
        try:
            return call(job.model, job.data, rows)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # a model that checks its own figures: it reads the weights elsewhere
            return None
        finally:
            for layer, weight in zip(shared.layers, before, strict=True):
                layer.layer.weight.copy_(weight)


def _spread(job: Job) -> list[Site]:
    """The first, the middle and the last site of some paths."""
    paths = paths_of(job)
    chosen = {id(path) for path in paths[:: -(-len(paths) // PATHS)]}
    groups: dict[int, list[Site]] = {}
    for site in job.sites:
        if id(site.path) in chosen:
            groups.setdefault(id(site.path), []).append(site)
    return [group[place] for group in groups.values() for place in (len(group) // 2, 0, -1)]


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


def _bound(job: Job) -> set[str]:
    """The layers whose inputs follow, by the chain rule, from a tensor that is not the same at every site."""
    trained = {name for name, _ in job.model.named_parameters(remove_duplicate=False)}
    varied, found = _varied(job.sites, list(job.model.state_dict()), trained), set()

    def look(name: str, arguments: tuple[Any, ...]) -> None:
        if any(isinstance(argument, Tensor) and argument.requires_grad for argument in arguments):
            found.add(name)

    hooks = [
        layer.register_forward_pre_hook(lambda _, arguments, name=name: look(name, arguments))
        for name, layer in job.model.named_modules()
        if type(layer) in LINEAR
    ]
    try:
        with torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a hook may read a tensor's value, which torch tells of under autograd
            kept = job.model.state_dict(keep_vars=True)
            moving = {id(kept[name]) for name in varied}
            state = {}
            for name, tensor in {id(tensor): (name, tensor) for name, tensor in kept.items()}.values():
                differentiable = id(tensor) in moving and tensor.is_floating_point()
                state[name] = tensor.detach().clone().requires_grad_(differentiable)  # of tied weights one name
            part = _pytree.tree_map(lambda tensor: tensor[:PROBED].clone(), job.data.inputs)
            arguments = ((part,), {}) if isinstance(part, Tensor) else ((), dict(part))
            functional_call(job.model, state, *arguments)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # autograd refuses some models, in-place writes among them: comparing inputs has to do
        return set()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _varied(sites: Sequence[Site], names: list[str], trained: set[str]) -> list[str]:
    """The tensors that are not the same at every site."""
    seen: dict[str, set[Any]] = {name: set() for name in names}
    for site in sites:
        common, own = site.path.coefficients(site.point), site.path.tensor_coefficients(site.point)
        for name, kinds in seen.items():
            if site.path.moves(name, site.of_path, trained):
                terms = zip(own.get(name, common), site.path.basis, strict=True)
                kinds.add(tuple((c, id(state[name])) for c, state in terms if c != 0))
            else:
                kinds.add(((1, id(site.path.final[name])),))
    return [name for name, kinds in seen.items() if len(kinds) > 1]


def _obstacle(job: Job, name: str, layer: Layer, least: int) -> str:
    """Why a layer that sees nothing but data cannot be shared all the same; empty if it can."""
    names = [other for other, p in job.model.named_parameters(remove_duplicate=False) if p is layer.weight]
    weight, each = f"{name}.weight" if name else "weight", layer.weight[0].numel()
    if names != [weight]:
        return "shares its weight"
    if layer.weight.dtype not in (torch.float32, torch.float64):
        return f"computes in {layer.weight.dtype}"
    if layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer):
        return "has hooks or a forward of its own"
    products = {id(state[weight]) for path in paths_of(job) for state in path.basis}
    if len(products) >= len(job.sites):
        return f"would need {len(products)} products for {len(job.sites)} points"
    return f"has only {each} products an output, and combining outputs costs as much" if each < least else ""


def agree(wanted: Any, found: Any) -> bool:
    """Whether two outputs, tensors or structures of them, are the same but for rounding."""
    (ours, shape), (theirs, other) = _pytree.tree_flatten(wanted), _pytree.tree_flatten(found)
    return shape == other and all(map(_close, ours, theirs))


def _close(wanted: Any, found: Any) -> bool:
    if not isinstance(wanted, Tensor) or not isinstance(found, Tensor) or not wanted.is_floating_point():
        return type(wanted) is type(found)
    scale = float(wanted.nan_to_num(0, 0, 0).abs().max()) if wanted.numel() else 0.0
    coarser = max(torch.finfo(tensor.dtype).eps for tensor in (wanted, found))
    allowed = min(TOLERANCE * coarser, 0.1) * scale
    return torch.allclose(wanted.double(), found.double(), rtol=0, atol=allowed, equal_nan=True)


def _same(first: Any, second: Any) -> bool:
    return isinstance(first, Tensor) and isinstance(second, Tensor) and torch.equal(first, second)


def _cloned(outputs: Any) -> Any:
    return _pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, outputs)


def _finite(outputs: Any) -> bool:
    return all(bool(leaf.isfinite().all()) for leaf in _pytree.tree_leaves(outputs) if isinstance(leaf, Tensor))
