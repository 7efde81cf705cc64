"""One optimiser step on a batch: as torch runs it, and on CUDA recorded once and replayed as a graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import cache
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from mli_check.losses import Loss
from mli_check.settings import Recipe

Step: TypeAlias = Callable[[Tensor, Tensor], Tensor]
_WARM_UP = 3  # steps on a side stream before a capture: they make the optimiser's buffers and choose kernels


def optimiser_of(weights: Iterable[Tensor], recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    """The recipe's optimiser; on CUDA all weights are updated by one kernel, in a form that a graph can hold."""
    lr, decay = recipe.lr, recipe.weight_decay
    cuda = device.type == "cuda"
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(weights, lr=lr, momentum=recipe.momentum, weight_decay=decay, fused=cuda or None)
    if recipe.optimiser == "rmsprop":
        return torch.optim.RMSprop(weights, lr=lr, momentum=recipe.momentum, weight_decay=decay, capturable=cuda)
    return torch.optim.Adam(weights, lr=lr, weight_decay=decay, fused=cuda or None, capturable=cuda)


class Schedule:
    """Changes an optimiser's learning rate as the recipe says, over its epochs of so many examples each."""

    def __init__(self, optimiser: torch.optim.Optimizer, recipe: Recipe, examples: int) -> None:
        self._epochs = lr_scheduler.MultiStepLR(optimiser, list(recipe.milestones), recipe.gamma)
        self._steps: lr_scheduler.LRScheduler | None = None
        if recipe.schedule == "linear":
            steps = recipe.steps(examples)
            self._steps = lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=steps)

    def after_step(self) -> None:
        """One optimiser step has been taken."""
        if self._steps is not None:
            self._steps.step()

    def after_epoch(self) -> None:
        """All examples have been seen once more."""
        self._epochs.step()


class EagerStep:
    """Minimises the mean of `loss` over a batch by one step; returns the sum of its losses, float64, on the device."""

    def __init__(self, model: nn.Module, optimiser: torch.optim.Optimizer, loss: Loss, recipe: Recipe) -> None:
        self.model, self.optimiser, self.loss = model, optimiser, loss
        self._half = recipe.precision == "bfloat16"

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rate, which a captured step holds as a constant."""
        return (float(self.optimiser.param_groups[0]["lr"]),)

    def forget(self) -> None:
        """Drop the gradients."""
        self.optimiser.zero_grad(set_to_none=True)

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        self.forget()
        # without the cache of cast weights, which must not outlive a capture
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self._half, cache_enabled=False):
            outputs = self.model(inputs)
        losses = self.loss(outputs.float() if self._half else outputs, targets)
        losses.mean().backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return losses.detach().sum(dtype=torch.float64)


class Capturable(Protocol):
    """A step that a CUDA graph can hold for as long as its learning rates stay what they are."""

    @property
    def rates(self) -> tuple[float, ...]: ...

    def forget(self) -> None: ...

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor: ...


class GraphedStep:
    """The same step as a CUDA graph: one launch instead of hundreds, which is most of a small network's time.

    The first batches are trained on as usual; then the step is captured, without being run, and replayed on every
    further batch of the first one's shape. Other shapes (the last, smaller batch) are stepped as usual. A graph holds
    the learning rates as constants, so that the step is captured anew when one changes; `captures` counts. Where a
    capture fails, `failure` says why, and training goes on as usual; likewise where rates change at `every_step`.
    """

    def __init__(self, step: Capturable, *, every_step: bool = False) -> None:
        self._step = step
        self._warm = 0
        self._shapes: tuple[torch.Size, torch.Size] | None = None
        self._captured: _Captured | None = None
        self.captures = 0
        self.failure = "the learning rate changes at every step" if every_step else ""

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        shapes = inputs.shape, targets.shape
        self._shapes = self._shapes or shapes
        if self._warm < _WARM_UP:
            self._warm += 1
            return self._aside(inputs, targets)
        if shapes == self._shapes and not self.failure:
            rates = self._step.rates
            if self._captured is None or self._captured.rates != rates:
                self._capture(inputs, targets, rates)
        if self._captured is None or shapes != self._shapes:
            return self._step(inputs, targets)
        return self._captured.replay(inputs, targets)

    def _capture(self, inputs: Tensor, targets: Tensor, rates: tuple[float, ...]) -> None:
        self._captured = None  # frees its memory first
        try:
            self._captured = _Captured(self._step, inputs, targets, rates)
            self.captures += 1
        except RuntimeError as error:
            self.failure = str(error).strip().partition("\n")[0] or type(error).__name__

    def _aside(self, inputs: Tensor, targets: Tensor) -> Tensor:
        here, side = torch.cuda.current_stream(inputs.device), _side_stream(inputs.device)
        side.wait_stream(here)
        with torch.cuda.stream(side), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")  # told once
            total = self._step(inputs, targets)
        here.wait_stream(side)
        return total


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Where warm-ups and captures run: one stream a device, as each keeps memory of its own for matrix products."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class _Captured:
    """A captured step with the tensors that it reads and writes."""

    def __init__(self, step: Capturable, inputs: Tensor, targets: Tensor, rates: tuple[float, ...]) -> None:
        self.rates = rates
        self._inputs, self._targets = inputs.clone(), targets.clone()
        step.forget()  # so that gradients lie in the graph's own memory
        side = _side_stream(inputs.device)
        # The outer context makes the stream's device current, and leaves the stream where ending a capture fails.
        with torch.cuda.stream(side):
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=side):
                self._total = step(self._inputs, self._targets)

    def replay(self, inputs: Tensor, targets: Tensor) -> Tensor:
        self._inputs.copy_(inputs)
        self._targets.copy_(targets)
        self._graph.replay()
        return self._total.clone()  # the next replay writes it anew
