"""Train many networks of one architecture at once: their tensors stacked, one pass by vmap for all of them.

A member is trained as `fit` would train it: on its own order of the examples, by torch's own optimisers, with running
statistics of its own. Only the order of sums in matrix products may differ, so that it agrees with `fit` within
rounding, not in every bit. No operation mixes members and each keeps its place in the stack, so that one whose loss is
no longer finite changes nothing for the others.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from mli_check.data.augmentation import Draws
from mli_check.data.dataset import Dataset
from mli_check.errors import OptionError
from mli_check.losses import Loss, resolve
from mli_check.precision import full_float32
from mli_check.progress import Progress
from mli_check.settings import Recipe, Setting
from mli_check.training.batches import Order, as_seen, weights_dtype
from mli_check.training.fit import Fit, check, network, on_cpu
from mli_check.training.grouping import kind_of
from mli_check.training.stacked_norm import normalise_stacked
from mli_check.training.steps import GraphedStep, Schedule, Step, optimiser_of

_Updated: TypeAlias = tuple[slice, torch.optim.Optimizer]  # rows of a stack, and what updates them


def fit_together(settings: Sequence[Setting], data: Sequence[Dataset], progress: Progress | None = None) -> list[Fit]:
    """The networks of `settings` of one kind (`grouping.kind_of`), trained at once, in their order.

    `data` has one dataset a setting, whose inputs must be one and the same tensor; targets may differ.
    `progress(done, total)` is called after each epoch. `seconds` of a member is its share of the whole. Raises
    OptionError for no settings, for settings of several kinds, for other inputs, and for what `fit` refuses.
    """
    started = time.perf_counter()
    if not settings or len(settings) != len(data):
        raise OptionError(
            f"expected at least one setting and as many datasets, got {len(settings)} settings and {len(data)} datasets"
        )
    for setting, its in zip(settings, data, strict=True):
        check(setting, its)
        if its.inputs is not data[0].inputs:
            raise OptionError(
                f"networks that are trained at once must share their inputs, and datasets {data[0].name!r} and "
                f"{its.name!r} hold two tensors; make the others with `Dataset.with_random_labels`, or train them apart"
            )
    if len({kind_of(setting) for setting in settings}) != 1:
        raise OptionError(
            "networks that are trained at once must differ only in seeds, init, optimiser, learning rate, milestones, "
            "momentum, weight decay, checkpoints and random labels; train the others apart"
        )
    training = _Ensemble(settings, data)
    training.run(progress)
    return training.fits(seconds=(time.perf_counter() - started) / len(settings))


def _update(recipe: Recipe) -> tuple[Any, ...]:
    """What the optimiser's step depends on: neighbours in the stack that agree in it are updated by one optimiser."""
    return recipe.optimiser, recipe.lr, recipe.momentum, recipe.weight_decay, recipe.milestones, recipe.gamma


class Stack:
    """The tensors of several networks of one architecture, each with one more dimension in front: the member."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.model = models[0]
        self.members = len(models)
        own = [dict(model.named_parameters()) for model in models]
        self.parameters = {name: torch.stack([p[name].detach() for p in own]).requires_grad_() for name in own[0]}
        kept = [dict(model.named_buffers()) for model in models]
        self.buffers = {name: torch.stack([b[name] for b in kept]) for name in kept[0]}
        normalise_stacked(self.model)

    def state(self, member: int) -> dict[str, Tensor]:
        """A copy of one member's state, on the CPU."""
        tensors = self.parameters | self.buffers
        return {name: tensors[name].detach()[member].cpu().clone() for name in self.model.state_dict()}


class StackedStep:
    """One optimiser step of every member on its own batch; returns the sum of each one's losses, (members,) float64.

    `optimisers` are given with the rows of the stack that each updates.
    """

    def __init__(self, stack: Stack, optimisers: Sequence[_Updated], loss: Loss, recipe: Recipe) -> None:
        self._stack, self._loss = stack, loss
        self._half = recipe.precision == "bfloat16"
        self._optimisers = optimisers

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates, which a captured step holds as constants."""
        return tuple(float(optimiser.param_groups[0]["lr"]) for _, optimiser in self._optimisers)

    def forget(self) -> None:
        """Drop the gradients."""
        for _, optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        stack = self._stack
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self._half, cache_enabled=False):
            losses = vmap(self._losses)(stack.parameters, stack.buffers, inputs, targets)
        gradients = torch.autograd.grad(losses.mean(1).sum(), list(stack.parameters.values()))
        for rows, optimiser in self._optimisers:
            for weight, gradient in zip(optimiser.param_groups[0]["params"], gradients, strict=True):
                weight.grad = gradient[rows]
            optimiser.step()
        return losses.detach().sum(1, dtype=torch.float64)

    def _losses(self, parameters: Any, buffers: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        outputs = functional_call(self._stack.model, (parameters, buffers), (inputs,))
        return self._loss(outputs.float() if self._half else outputs, targets)


@dataclass
class _Member:
    """What is kept of one network while the ensemble is trained; `final` once it has diverged."""

    setting: Setting
    init: dict[str, Tensor]
    history: list[dict[str, Any]]
    checkpoints: dict[int, dict[str, Tensor]]
    diverged_at: int | None = None
    final: dict[str, Tensor] | None = None


class _Ensemble:
    """Members on their way. Each keeps its place in the stack, on which some processors' rounding depends."""

    def __init__(self, settings: Sequence[Setting], data: Sequence[Dataset]) -> None:
        self._recipe = settings[0].recipe  # what members share is read from it
        self._targets = _Targets(data)
        self._data, self._device = data[0], data[0].targets.device
        models = [network(setting, its).to(self._device).train() for setting, its in zip(settings, data, strict=True)]
        self._members = [
            _Member(setting, on_cpu(model), [], {}) for setting, model in zip(settings, models, strict=True)
        ]
        self._stack = Stack(models)
        self._optimisers, self._schedules = list[_Updated](), []
        for rows in _runs([_update(setting.recipe) for setting in settings]):
            weights = [tensor.detach()[rows] for tensor in self._stack.parameters.values()]
            recipe = settings[rows.start].recipe
            optimiser = optimiser_of(weights, recipe, self._device)
            self._optimisers.append((rows, optimiser))
            self._schedules.append(Schedule(optimiser, recipe, len(self._data)))
        step = StackedStep(self._stack, self._optimisers, resolve(self._recipe.loss)[1], self._recipe)
        changing = self._recipe.schedule == "linear"
        self._step: Step = GraphedStep(step, every_step=changing) if self._device.type == "cuda" else step
        self._orders = [Order(setting.recipe, len(self._data)) for setting in settings]
        self._iteration = 0

    def run(self, progress: Progress | None) -> None:
        """All epochs, or as many as some member's losses stay finite."""
        with full_float32():
            for epoch in range(1, self._recipe.epochs + 1):
                self._epoch(epoch)
                if progress is not None:
                    progress(epoch, self._recipe.epochs)
                if all(member.diverged_at for member in self._members):
                    return

    def fits(self, seconds: float) -> list[Fit]:
        """Every member as `fit` would return it."""
        return [
            Fit(
                init=member.init,
                final=self._stack.state(row) if member.final is None else member.final,
                checkpoints=member.checkpoints,
                history=member.history,
                diverged_at=member.diverged_at,
                seconds=seconds,
                device=str(self._device),
                execution=self._execution,
            )
            for row, member in enumerate(self._members)
        ]

    @property
    def _execution(self) -> tuple[str, ...]:
        if not isinstance(self._step, GraphedStep):
            return ("vmap",)
        failure = self._step.failure
        names = ["vmap", *(["cuda_graph"] if self._step.captures else [])]
        return (*names, *([f"no cuda_graph: {failure}"] if failure else []))

    def _epoch(self, epoch: int) -> None:
        rates = [float(o.param_groups[0]["lr"]) for rows, o in self._optimisers for _ in range(rows.start, rows.stop)]
        total = torch.zeros(len(self._members), dtype=torch.float64, device=self._device)
        for inputs, targets in self._batches():
            total += self._step(inputs, targets)
            for schedule in self._schedules:
                schedule.after_step()
            self._iteration += 1
            self._keep_checkpoints()
        for schedule in self._schedules:
            schedule.after_epoch()
        losses = (total / len(self._data)).tolist()
        for row, (member, lr, loss) in enumerate(zip(self._members, rates, losses, strict=True)):
            if member.diverged_at:
                continue
            entry = {"epoch": epoch, "iteration": self._iteration, "lr": lr, "train_loss": loss}
            member.history.append(entry)
            if not torch.isfinite(torch.tensor(loss)):  # in single precision, as `fit` has it
                member.diverged_at, member.final = epoch, self._stack.state(row)

    def _keep_checkpoints(self) -> None:
        for row, member in enumerate(self._members):
            if self._iteration in member.setting.recipe.checkpoints and not member.diverged_at:
                member.checkpoints[self._iteration] = self._stack.state(row)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every example once for every member: inputs (members, b, ...) as the networks see them, and targets."""
        drawn = [order.epoch() for order in self._orders]
        shuffled = torch.stack([rows for rows, _ in drawn]).to(self._device)
        draws = _stacked([draws for _, draws in drawn], self._device)
        dtype, size = weights_dtype(self._recipe), self._recipe.batch_size
        for start in range(0, len(self._data), size):
            rows = shuffled[:, start : start + size]
            here = draws and Draws(
                draws.corners[:, start : start + size].flatten(0, 1), draws.mirrored[:, start : start + size].flatten()
            )
            seen = as_seen(self._data, rows.flatten(), here, dtype)
            yield seen.view(*rows.shape, *seen.shape[1:]), self._targets(rows)


class _Targets:
    """The targets of every member's examples, kept once for members with the same."""

    def __init__(self, data: Sequence[Dataset]) -> None:
        distinct = list({id(its): its for its in data}.values())
        self._stacked = torch.stack([its.targets for its in distinct])
        numbers = {id(its): number for number, its in enumerate(distinct)}
        self._which = torch.tensor([numbers[id(its)] for its in data], device=self._stacked.device)[:, None]

    def __call__(self, rows: Tensor) -> Tensor:
        """Of the examples `rows`, (members, b), each member's own."""
        return self._stacked[self._which, rows]


def _stacked(draws: Sequence[Draws | None], device: torch.device) -> Draws | None:
    """The draws of all members, with one more dimension in front."""
    given = [drawn for drawn in draws if drawn is not None]
    if not given:
        return None
    return Draws(torch.stack([d.corners for d in given]), torch.stack([d.mirrored for d in given])).to(device)


def _runs(keys: Sequence[object]) -> Iterator[slice]:
    """The longest slices of equal neighbours."""
    start = 0
    for end in range(1, len(keys) + 1):
        if end == len(keys) or keys[end] != keys[start]:
            yield slice(start, end)
            start = end
