"""The plain loop over points and batches: the reference that every engine must match."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mli_check.data.dataset import Dataset
from mli_check.errors import OptionError
from mli_check.evaluation.norm_stats import NormStats, call, recalibrate
from mli_check.losses import Loss, check_losses, is_classification, tie_aware_error
from mli_check.paths import Point, Span
from mli_check.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the paths of one evaluation share: `model` is the engine's own replica, in eval mode, where `data` lies."""

    model: nn.Module
    data: Dataset
    loss_name: str
    loss: Loss
    norm_stats: NormStats
    batch_size: int
    keep: str
    progress: Progress | None


@dataclass(frozen=True)
class PointResult:
    """What one point gave: the mean loss, and per example errors, losses and logits where they are wanted."""

    loss: float
    errors: NDArray[np.float32] | None
    losses: NDArray[np.float32] | None
    logits: NDArray[np.float32] | None


def run(job: Job, path: Span, points: list[Point]) -> list[PointResult]:
    """Evaluate every point of the path in order."""
    results = []
    slots = Slots(job.model)
    for index, point in enumerate(points):
        slots.place(path, point, job.norm_stats.of_path)
        if job.norm_stats.calibration is not None and job.norm_stats.batch is not None:
            recalibrate(job.model, job.norm_stats.calibration, job.norm_stats.batch)
        results.append(measure(job))
        if job.progress is not None:
            job.progress(index + 1, len(points))
    return results


class Slots:
    """The tensors of a model, to write states into."""

    def __init__(self, model: nn.Module) -> None:
        self._targets = model.state_dict()
        self._trained = frozenset(name for name, _ in model.named_parameters(remove_duplicate=False))

    def place(self, path: Span, point: Point, of_path: str) -> None:
        """Write the path's state at `point` into the model, tensor by tensor."""
        for name, tensor in path.tensors(point, of_path, self._trained):
            self._targets[name].copy_(tensor)


def measure(job: Job) -> PointResult:
    """Losses and errors of the job's model as it stands, over all of the job's data."""
    losses, errors, logits = [], [], []
    for start in range(0, len(job.data), job.batch_size):
        rows = slice(start, start + job.batch_size)
        outputs, targets = call(job.model, job.data, rows), job.data.targets[rows]
        losses.append(check_losses(job.loss(outputs, targets), len(targets), job.loss_name))
        if is_classification(targets) and isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[1] > 1:
            errors.append(tie_aware_error(outputs, targets))
        if job.keep == "logits":
            logits.append(outputs)
    every = torch.cat(losses)
    return PointResult(
        loss=float(every.sum(dtype=torch.float64)) / len(job.data),
        errors=_host(errors) if errors else None,
        losses=_host([every]) if job.keep != "summary" else None,
        logits=_host(logits) if logits else None,
    )


def check_outputs(model: nn.Module, data: Dataset, one_logit: bool) -> None:
    """Raise OptionError if class indices do not fit the model's logits (on a GPU that would end the process).

    A model of a single output is let through with `one_logit`, for a binary loss of the caller's own.
    """
    outputs = call(model, data, slice(0, 1))
    if not is_classification(data.targets) or not isinstance(outputs, Tensor) or outputs.ndim != 2:
        return
    if one_logit and outputs.shape[1] == 1:
        return
    if data.classes > outputs.shape[1]:
        raise OptionError(
            f"dataset {data.name!r} has class {data.classes - 1}, the model gives {outputs.shape[1]} logits "
            f"(classes 0 to {outputs.shape[1] - 1}); use a model with at least {data.classes} outputs"
        )


def _host(parts: list[Tensor]) -> NDArray[np.float32]:
    values: NDArray[np.float32] = torch.cat(parts).to("cpu", torch.float32).numpy()
    return values
