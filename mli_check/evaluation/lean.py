"""Stock layers that write into memory of ours: ReLU over its input, a linear layer into a buffer that is kept.

New memory for every activation costs up to a fifth of a CPU's time, because the system hands it out page by page. Only
layers are changed for which the same bits come out, on examples that would show a difference.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mli_check.evaluation.job import Job
from mli_check.evaluation.norm_stats import call
from mli_check.evaluation.sites import telling
from mli_check.evaluation.slots import Slots

PROBED = 64  # examples on which the change is verified


class Lean:
    """As a context, runs some layers of a model in place; what a pass gives is overwritten by the next."""

    def __init__(self, rectifiers: list[nn.ReLU], linears: list[nn.Linear]) -> None:
        self._rectifiers, self._linears = rectifiers, linears
        self._buffers: dict[nn.Linear, Tensor] = {}

    @property
    def bytes_per_example(self) -> int:
        """What the kept buffers take."""
        return sum(layer.out_features * layer.weight.element_size() for layer in self._linears)

    def __enter__(self) -> Lean:
        for rectifier in self._rectifiers:
            rectifier.inplace = True
        for layer in self._linears:
            layer.forward = partial(self._linear, layer)  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        for rectifier in self._rectifiers:
            rectifier.inplace = False
        for layer in self._linears:
            del layer.forward

    def _linear(self, layer: nn.Linear, inputs: Tensor) -> Tensor:
        if layer not in self._buffers or len(self._buffers[layer]) < len(inputs):
            self._buffers[layer] = inputs.new_empty(len(inputs), layer.out_features)
        out = self._buffers[layer][: len(inputs)]
        if layer.bias is None:
            return torch.mm(inputs, layer.weight.t(), out=out)
        return torch.addmm(layer.bias, inputs, layer.weight.t(), out=out)


def find(job: Job, without: set[str]) -> Lean:
    """The layers of the job's model that run in place with the same bits, but those whose weights are in `without`.

    Nothing is found for a model on a GPU, whose allocator keeps memory, or under autocast.
    """
    nothing = Lean([], [])
    if job.data.targets.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return nothing
    slots, verified, found = Slots(job.model), False, nothing
    for site in telling(job.sites):
        slots.place(site)
        plain = call(job.model, job.data, slice(0, PROBED))
        if not isinstance(plain, Tensor):
            return nothing
        if not plain.isfinite().all():
            continue
        wanted = plain.clone()
        if not verified:
            found = _candidates(job, without)
        try:
            with found:
                again = call(job.model, job.data, slice(0, PROBED))
        except RuntimeError:  # some tensors cannot be written in place
            return nothing
        if not torch.equal(wanted, again):
            return nothing
        verified = True
    return found if verified else nothing


FRESH = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm)


def _candidates(job: Job, without: set[str]) -> Lean:
    """Layers that are called so that they could write in place, on inputs that would show it if they may not.

    A ReLU's input must be what a stock layer gave in the same pass: other tensors may be somebody's.
    """
    suited: dict[nn.Module, bool] = {}
    fresh: list[Tensor] = []

    def look(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        given = arguments[0] if len(arguments) == 1 else None
        if not isinstance(given, Tensor):
            suited[layer] = False
        elif isinstance(layer, nn.ReLU):
            shows = any(given is output for output in fresh) and bool((given < 0).any())
            suited[layer] = suited.get(layer, True) and shows
        else:
            suited[layer] = layer not in suited and given.ndim == 2 and given.dtype == layer.weight.dtype

    names = {f"{name}.weight" if name else "weight": layer for name, layer in job.model.named_modules()}
    stock = [
        layer
        for weight, layer in names.items()
        if (type(layer) is nn.Linear and weight not in without) or (type(layer) is nn.ReLU and not layer.inplace)
        if not (layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer))
    ]
    makers = [layer for layer in job.model.modules() if type(layer) in FRESH and not layer._forward_hooks]
    hooks = [layer.register_forward_pre_hook(look) for layer in stock]
    hooks += [layer.register_forward_hook(lambda *seen: fresh.append(seen[2])) for layer in makers]
    try:
        call(job.model, job.data, slice(0, PROBED))
    finally:
        for hook in hooks:
            hook.remove()
    chosen = [layer for layer, fits in suited.items() if fits]
    return Lean(
        [layer for layer in chosen if isinstance(layer, nn.ReLU)],
        [layer for layer in chosen if isinstance(layer, nn.Linear)],
    )
