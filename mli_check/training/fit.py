"""Train one network by its recipe; the same setting, versions and threads give the same bits."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mli_check.data.dataset import Dataset
from mli_check.errors import OptionError
from mli_check.losses import cross_entropy
from mli_check.models import build
from mli_check.progress import Progress
from mli_check.settings import Recipe, Setting
from mli_check.states import clone


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A trained network's states, on the CPU, and how training went.

    `history` has one entry an epoch: epoch (from 1), iteration, lr, train_loss (mean over the epoch's batches, nats).
    `diverged_at` is the first epoch with a loss that is not finite, after which training stopped; None if none had.
    """

    init: dict[str, Tensor]
    final: dict[str, Tensor]
    checkpoints: dict[int, dict[str, Tensor]]
    history: list[dict[str, Any]]
    diverged_at: int | None
    seconds: float
    device: str


@dataclass
class _Progressed:
    iteration: int = 0
    checkpoints: dict[int, dict[str, Tensor]] = field(default_factory=dict)


def network(setting: Setting, data: Dataset) -> nn.Module:
    """The network of `setting` at initialisation, float32 or float64 as its recipe says; global RNG untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(setting.recipe.init_seed)  # torch.manual_seed would seed the GPUs' too
        model = build(setting.model, data.example_shape, data.classes)
    return model.to(getattr(torch, setting.recipe.precision))


def fit(setting: Setting, data: Dataset, progress: Progress | None = None) -> Fit:
    """Train the network of `setting` on `data`, on the device where `data` lies, minimising the mean cross-entropy.

    `progress(done, total)` is called after each epoch. Raises OptionError for checkpoints beyond the last iteration or
    a batch normalisation that would meet a batch of one example.
    """
    started = time.perf_counter()
    recipe = setting.recipe
    _check_batches(setting, len(data))
    dtype = getattr(torch, recipe.precision)
    model = network(setting, data)
    inputs = data.inputs
    assert isinstance(inputs, Tensor)  # example_shape, read by `network`, refuses dicts
    device = inputs.device
    model.to(device).train()
    init = _on_cpu(model)
    optimiser = _optimiser(model, recipe)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, list(recipe.milestones), recipe.gamma)
    order = torch.Generator().manual_seed(recipe.order_seed)
    state, history, diverged_at = _Progressed(), [], None
    inputs = inputs.to(dtype)
    for epoch in range(1, recipe.epochs + 1):
        lr = optimiser.param_groups[0]["lr"]
        shuffled = torch.randperm(len(data), generator=order).to(device)
        loss = _epoch(model, optimiser, recipe, inputs[shuffled], data.targets[shuffled], state)
        schedule.step()
        history.append({"epoch": epoch, "iteration": state.iteration, "lr": lr, "train_loss": loss})
        if progress is not None:
            progress(epoch, recipe.epochs)
        if not torch.isfinite(torch.tensor(loss)):
            diverged_at = epoch
            break
    return Fit(
        init=init,
        final=_on_cpu(model),
        checkpoints=state.checkpoints,
        history=history,
        diverged_at=diverged_at,
        seconds=time.perf_counter() - started,
        device=str(device),
    )


def _epoch(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
    inputs: Tensor,
    targets: Tensor,
    state: _Progressed,
) -> float:
    """One pass over examples already shuffled; the mean loss over examples. Synchronises once, at its end."""
    total = torch.zeros((), dtype=torch.float64, device=inputs.device)
    for start in range(0, len(targets), recipe.batch_size):
        batch = slice(start, start + recipe.batch_size)
        losses = cross_entropy(model(inputs[batch]), targets[batch])
        optimiser.zero_grad(set_to_none=True)
        losses.mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += losses.detach().sum(dtype=torch.float64)
        state.iteration += 1
        if state.iteration in recipe.checkpoints:
            state.checkpoints[state.iteration] = _on_cpu(model)
    return float(total) / len(targets)


def _optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    weights, lr, decay = model.parameters(), recipe.lr, recipe.weight_decay
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(weights, lr=lr, momentum=recipe.momentum, weight_decay=decay)
    if recipe.optimiser == "rmsprop":
        return torch.optim.RMSprop(weights, lr=lr, momentum=recipe.momentum, weight_decay=decay)
    return torch.optim.Adam(weights, lr=lr, weight_decay=decay)


def _check_batches(setting: Setting, count: int) -> None:
    recipe = setting.recipe
    steps = -(-count // recipe.batch_size) * recipe.epochs
    late = [step for step in recipe.checkpoints if step > steps]
    if late:
        raise OptionError(f"recipe.checkpoints {late} lie beyond the last iteration, {steps}; leave them out")
    if setting.model.batch_norm and (count - 1) % recipe.batch_size == 0:
        raise OptionError(
            f"batches of {recipe.batch_size} leave one of {count} examples for a batch of its own, whose statistics BN "
            "cannot take; choose another recipe.batch_size"
        )


def _on_cpu(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in clone(model.state_dict()).items()}
