"""Which networks can be trained at once, and where that pays: limits from measurements (docs/performance.md)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mli_check.data.dataset import Dataset
from mli_check.settings import DataSetting, Setting
from mli_check.training.batches import as_seen, weights_dtype
from mli_check.training.fit import network

MOST = 128  # of one ensemble, each of whose members holds a lock file open: some systems allow 256 in all
LEAST = 4  # fewer gain nothing: the overhead of vmap takes what they save
# On a CPU an ensemble saves the overhead of small operations; it loses where its tensors no longer fit the caches.
STACKED_PARAMETERS = 3_200_000  # of all members together
PARAMETERS = 256_000  # of one network
ACTIVATION = 64_000  # numbers in the largest output of a convolution for one batch
# On a GPU small networks leave most of it idle. Not measured yet: as many as fit a part of its memory.
GPU_PARAMETERS = 2_000_000
GPU_SHARE = 0.25


def kind_of(setting: Setting) -> Hashable:
    """What networks that are trained at once must share: architecture, inputs, epochs, batch size, precision, loss.

    And whether the learning rate changes at every step. So they may differ in seeds, form of the init, optimiser,
    learning rate and its milestones, momentum, weight decay, checkpoints and random labels.
    """
    recipe = setting.recipe
    data = DataSetting(name=setting.data.name, subset=setting.data.subset)
    model = dataclasses.replace(setting.model, init="torch")
    shared = ("epochs", "batch_size", "precision", "augmentation", "loss", "schedule")
    return data, model, *(getattr(recipe, name) for name in shared)


def groups(settings: Sequence[Setting], data_of: Callable[[Setting], Dataset]) -> list[list[Setting]]:
    """The settings in groups to be trained at once, those of one for which that does not pay.

    Groups are even; kinds follow each other as their first settings do, and a kind's settings stay in their order.
    """
    kinds: dict[Hashable, list[Setting]] = {}
    for setting in settings:
        kinds.setdefault(kind_of(setting), []).append(setting)
    found = []
    for alike in kinds.values():
        most = most_together(alike[0], data_of(alike[0])) if len(alike) >= LEAST else 1
        count = -(-len(alike) // most) if most > 1 else len(alike)
        size, larger = divmod(len(alike), count)
        ends = [number * size + min(number, larger) for number in range(count + 1)]
        found += [alike[start:end] for start, end in itertools.pairwise(ends)]
    return found


def most_together(setting: Setting, data: Dataset) -> int:
    """How many networks like `setting` are best trained at once on the device of `data`; 1 where that does not pay."""
    if not isinstance(data.inputs, Tensor) or setting.recipe.precision == "bfloat16":
        return 1  # `fit` says what is wrong with a dict; sums in another order move bfloat16 by more than rounding
    model = network(setting, data)
    parameters = sum(weight.numel() for weight in model.parameters())
    largest, whole = _outputs(model, setting, data)
    if data.targets.device.type == "cuda":
        if parameters > GPU_PARAMETERS:
            return 1
        free, _ = torch.cuda.mem_get_info(data.targets.device)
        most = int(GPU_SHARE * free / (4 * (4 * parameters + 2 * whole)))  # weights, gradients, two of the optimiser's
    elif parameters > PARAMETERS or largest > ACTIVATION:
        return 1
    else:
        most = STACKED_PARAMETERS // parameters
    return min(most, MOST) if most >= 2 * LEAST else 1  # so that no even group is smaller than LEAST


def _outputs(model: nn.Module, setting: Setting, data: Dataset) -> tuple[int, int]:
    """How many numbers a batch has in the largest output of a convolution, and in the outputs of all layers."""
    sizes: list[tuple[bool, int]] = []

    def note(layer: nn.Module, args: Any, output: Tensor) -> None:
        sizes.append((isinstance(layer, nn.Conv2d), output[0].numel()))

    layers = [layer for layer in model.modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            rows = torch.zeros(1, dtype=torch.int64, device=data.targets.device)
            model.eval()(as_seen(data, rows, None, weights_dtype(setting.recipe)).cpu())
    finally:
        for handle in handles:
            handle.remove()
    batch = min(setting.recipe.batch_size, len(data))
    largest = max((size for convolves, size in sizes if convolves), default=0)
    return batch * largest, batch * sum(size for _, size in sizes)
