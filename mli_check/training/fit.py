"""Train one network by its recipe; on the CPU the same setting, versions and threads give the same bits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mli_check.data.dataset import Dataset
from mli_check.errors import OptionError
from mli_check.losses import is_classification, resolve
from mli_check.models import build
from mli_check.precision import full_float32
from mli_check.progress import Progress
from mli_check.settings import Recipe, Setting
from mli_check.states import clone
from mli_check.training.batches import Order, as_seen, split, weights_dtype
from mli_check.training.steps import EagerStep, GraphedStep, Schedule, Step, optimiser_of


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A trained network's states, on the CPU, and how training went.

    `history` has one entry an epoch: epoch (from 1), iteration, lr, train_loss (mean over the epoch's batches, nats).
    `diverged_at` is the first epoch with a loss that is not finite, after which training stopped; None if none had.
    `execution` names what made it faster on its device and may change the last bits: fused, channels_last, cuda_graph.
    """

    init: dict[str, Tensor]
    final: dict[str, Tensor]
    checkpoints: dict[int, dict[str, Tensor]]
    history: list[dict[str, Any]]
    diverged_at: int | None
    seconds: float
    device: str
    execution: tuple[str, ...] = ()


def network(setting: Setting, data: Dataset) -> nn.Module:
    """The network of `setting` at initialisation, float32 or float64 as its recipe says; global RNG untouched."""
    classes = 0 if setting.reconstructs else data.classes
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(setting.recipe.init_seed)  # torch.manual_seed would seed the GPUs' too
        model = build(setting.model, data.example_shape, classes)
    return model.to(weights_dtype(setting.recipe))


def fit(setting: Setting, data: Dataset, progress: Progress | None = None) -> Fit:
    """Train the network of `setting` on `data`, on the device where `data` lies, minimising the recipe's mean loss.

    `progress(done, total)` is called after each epoch. Raises OptionError for data that do not fit the recipe,
    checkpoints beyond the last iteration or a batch normalisation that would meet a batch of one example.
    """
    started = time.perf_counter()
    recipe = setting.recipe
    check(setting, data)
    device = data.targets.device
    model = network(setting, data).to(device).train()
    init = on_cpu(model)
    training = _Training(model, data, recipe)
    history: list[dict[str, Any]] = []
    diverged_at = None
    with full_float32():
        for epoch in range(1, recipe.epochs + 1):
            history.append({"epoch": epoch} | training.epoch())
            if progress is not None:
                progress(epoch, recipe.epochs)
            if not torch.isfinite(torch.tensor(history[-1]["train_loss"])):
                diverged_at = epoch
                break
    return Fit(
        init=init,
        final=on_cpu(model),
        checkpoints=training.checkpoints,
        history=history,
        diverged_at=diverged_at,
        seconds=time.perf_counter() - started,
        device=str(device),
        execution=training.execution,
    )


class _Training:
    """A network on its way: `epoch` is one pass over the data, in an order of its own."""

    def __init__(self, model: nn.Module, data: Dataset, recipe: Recipe) -> None:
        self.model, self.data, self.recipe = model, data, recipe
        self.iteration = 0
        self.checkpoints: dict[int, dict[str, Tensor]] = {}
        self._device = data.targets.device
        self._images = len(data.example_shape) == 3 and any(isinstance(part, nn.Conv2d) for part in model.modules())
        if self._channels_last:
            model.to(memory_format=torch.channels_last)
        self._optimiser = optimiser_of(model.parameters(), recipe, self._device)
        self._schedule = Schedule(self._optimiser, recipe, len(data))
        step = EagerStep(model, self._optimiser, resolve(recipe.loss)[1], recipe)
        changing = recipe.schedule == "linear"
        self._step: Step = GraphedStep(step, every_step=changing) if self._device.type == "cuda" else step
        self._order = Order(recipe, len(data))

    @property
    def _channels_last(self) -> bool:
        return self._device.type == "cuda" and self._images

    @property
    def execution(self) -> tuple[str, ...]:
        """What the device let training do; a capture that failed is told with its reason."""
        if not isinstance(self._step, GraphedStep):
            return ()
        failure = self._step.failure
        names = ["fused"] if self.recipe.optimiser != "rmsprop" else []
        names += ["channels_last"] if self._channels_last else []
        names += ["cuda_graph"] if self._step.captures else []
        return (*names, *([f"no cuda_graph: {failure}"] if failure else []))

    def epoch(self) -> dict[str, Any]:
        """Train once on every example: iteration, lr and the mean loss over examples. Synchronises once, at its end."""
        lr = float(self._optimiser.param_groups[0]["lr"])
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for inputs, targets in self._batches():
            total += self._step(inputs, targets)
            self._schedule.after_step()
            self.iteration += 1
            if self.iteration in self.recipe.checkpoints:
                self.checkpoints[self.iteration] = on_cpu(self.model)
        self._schedule.after_epoch()
        return {"iteration": self.iteration, "lr": lr, "train_loss": float(total) / len(self.data)}

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every example once, as the network sees it."""
        shuffled, draws = self._order.epoch()
        shuffled, draws = shuffled.to(self._device), draws and draws.to(self._device)
        dtype = weights_dtype(self.recipe)
        for rows, drawn in split(shuffled, draws, self.recipe.batch_size):
            batch = as_seen(self.data, rows, drawn, dtype)
            if self._channels_last:
                batch = batch.contiguous(memory_format=torch.channels_last)
            yield batch, self.data.targets[rows]


def check(setting: Setting, data: Dataset) -> None:
    """Raise OptionError where the data do not fit the recipe, as `fit` does."""
    recipe, count = setting.recipe, len(data)
    if setting.reconstructs and is_classification(data.targets):
        raise OptionError(
            f"an autoencoder learns its inputs, and dataset {data.name!r} has classes as targets; pass Dataset(x, x)"
        )
    if recipe.augmentation and len(data.example_shape) != 3:
        raise OptionError(
            f"recipe.augmentation={recipe.augmentation!r} crops images (channels, height, width), and examples of "
            f"dataset {data.name!r} have shape {data.example_shape}; leave recipe.augmentation out"
        )
    steps = recipe.steps(count)
    late = [step for step in recipe.checkpoints if step > steps]
    if late:
        raise OptionError(f"recipe.checkpoints {late} lie beyond the last iteration, {steps}; leave them out")
    if setting.model.batch_norm and (count - 1) % recipe.batch_size == 0:
        raise OptionError(
            f"batches of {recipe.batch_size} leave one of {count} examples for a batch of its own, whose statistics BN "
            "cannot take; choose another recipe.batch_size"
        )


def on_cpu(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the network's state on the CPU."""
    return {name: tensor.cpu() for name, tensor in clone(model.state_dict()).items()}
