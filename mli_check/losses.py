"""Per-example losses and errors of a batch of outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from mli_check.errors import OptionError, UnknownNameError

Loss: TypeAlias = Callable[[Any, Any], Tensor]


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(outputs)[target] in nats: outputs (n, classes), targets (n,) of class indices; returns (n,)."""
    return functional.cross_entropy(outputs, targets, reduction="none")


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """||output - target||^2 of each example, summed over its elements; class indices become one-hot. Returns (n,)."""
    if is_classification(targets) and outputs.ndim == 2:
        targets = functional.one_hot(targets, outputs.shape[1])
    if outputs.shape != targets.shape:
        raise OptionError(
            f"squared_error needs outputs and targets of one shape, got {tuple(outputs.shape)}, {tuple(targets.shape)}"
        )
    return (outputs - targets.to(outputs.dtype)).square().reshape(len(outputs), -1).sum(1)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "squared_error": squared_error}


def resolve(loss: str | Loss) -> tuple[str, Loss]:
    """The name and function of a loss given by name or as a callable (outputs, targets) -> (n,)."""
    if callable(loss):
        return getattr(loss, "__name__", type(loss).__name__), loss
    if loss not in LOSSES:
        raise UnknownNameError("loss", str(loss), LOSSES)
    return loss, LOSSES[loss]


def is_classification(targets: Any) -> bool:
    """Whether targets are class indices: a 1-D tensor of integers."""
    return isinstance(targets, Tensor) and targets.ndim == 1 and not targets.is_floating_point()


def tie_aware_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 - [y in T] / |T|, T the set of classes that share the largest output; 1 where outputs are NaN.

    Outputs (n, classes), targets (n,) of class indices; returns (n,) float32. With all outputs equal, as at alpha = 0,
    this is chance error 1 - 1 / classes whatever the tie rule of argmax.
    """
    top = outputs == outputs.amax(dim=1, keepdim=True)  # NaN equals nothing: no top class, error 1
    hit = top.gather(1, targets[:, None]).squeeze(1).to(torch.float32)
    return 1 - hit / top.sum(dim=1).clamp(min=1)


def check_losses(values: Tensor, count: int, name: str) -> Tensor:
    """`values` as they are if they are one loss per example; else an OptionError that says what to return."""
    if not isinstance(values, Tensor) or values.shape != (count,):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise OptionError(
            f"the loss `{name}` returned {got} for {count} examples, expected shape ({count},): "
            "return one loss per example (reduction='none')"
        )
    return values
