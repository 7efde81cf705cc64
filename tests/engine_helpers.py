"""What the tests of the engines share: a reference written here on its own, and how a curve is held against it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from helpers import random_state
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

from mli_check.evaluation.front import evaluate
from mli_check.paths import LinearPath

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mli_check.curves import Curve, Surface
    from mli_check.data import Dataset
    from mli_check.paths import Point, Span

ENGINES = ("loop", "first_layer", "stacked")
ALPHAS = (0.0, 0.2, 0.5, 0.7, 1.0)
CLOSE = 1e-5  # of the largest logit: two classes nearer than this may swap
FEW = 0.02  # examples that may be as close


@dataclass(frozen=True)
class Truth:
    """Mean losses, shape (points,), and outputs, shape (points, examples, ...), of plain forward passes."""

    loss: np.ndarray
    logits: np.ndarray


def linear(model: nn.Module, start: int = 0, end: int = 1, **options: Any) -> LinearPath:
    return LinearPath(random_state(model, start), random_state(model, end), **options)


def called(model: nn.Module, inputs: Any) -> Any:
    return model(**inputs) if isinstance(inputs, dict) else model(inputs)


def truth(
    model: nn.Module,
    path: Span,
    data: Dataset,
    points: Sequence[Point] = tuple((alpha,) for alpha in ALPHAS),
    *,
    policy: str | None = None,
    calibration: Dataset | None = None,
    calibration_batch: int = 500,
    loss: Callable[..., Tensor] | None = None,
) -> Truth:
    """What a path comes to: a new network for every point, all examples in one forward pass on a copy of the data."""
    losses, outputs = [], []
    trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for point in points:
        net = copy.deepcopy(model)
        net.load_state_dict(dict(path.tensors(point, "interpolate" if policy == "interpolate" else "freeze", trained)))
        if calibration is not None and policy in (None, "recalibrate"):
            update_bn(DataLoader(TensorDataset(calibration.inputs), batch_size=calibration_batch), net)
        net.eval()
        with torch.no_grad():
            found = called(net, copy.deepcopy(data.inputs))
            each = loss(found, data.targets) if loss else nn.CrossEntropyLoss(reduction="none")(found, data.targets)
        losses.append(each.double().mean().item())
        if isinstance(found, Tensor):
            outputs.append(found.detach().clone().float().numpy())
    return Truth(np.array(losses), np.array(outputs))


def near(wanted: np.ndarray) -> int:
    """How many rows of logits have two top classes within CLOSE of the largest logit of all, but no exact tie."""
    return int(sum(_margins(point)[1].sum() for point in wanted))


def _margins(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each row's top classes tie exactly, and whether they nearly do."""
    top = np.sort(logits, axis=1)[:, -2:]
    gap = top[:, 1] - top[:, 0]
    return gap == 0, (gap > 0) & (gap <= CLOSE * np.abs(logits).max())


def check_predictions(found: np.ndarray, wanted: np.ndarray) -> None:
    """Predictions are those of `wanted` but where two of its logits are as good as equal, which is rare."""
    unsure = 0
    for ours, theirs in zip(found, wanted, strict=True):
        if not np.isfinite(theirs).all():
            assert np.array_equal(np.isnan(ours).any(1), np.isnan(theirs).any(1))
            continue
        tied, close = _margins(theirs)
        unsure += int(close.sum())
        sure = ~tied & ~close
        assert np.array_equal(ours[sure].argmax(1), theirs[sure].argmax(1))
        nearly = np.logical_or(*_margins(ours))
        assert nearly[tied].all(), "an exact tie came apart"
    assert unsure <= FEW * wanted.shape[0] * wanted.shape[1]


def check(found: Curve | Surface, wanted: Truth, targets: Tensor, *, rel: float = 1e-5) -> None:
    """The curve's losses, and where there are classes its errors and predictions, are the reference's."""
    assert found.loss.ravel() == pytest.approx(wanted.loss, rel=rel, abs=1e-9, nan_ok=True)
    logits = wanted.logits
    kept = getattr(found, "logits", None)
    if kept is not None:
        scale = np.nan_to_num(np.abs(logits), nan=0, posinf=0).max()
        assert kept.shape == logits.shape
        assert kept == pytest.approx(logits, rel=1e-4, abs=1e-5 * scale, nan_ok=True)
    if found.error is None or logits.ndim != 3:
        return
    if kept is not None:
        check_predictions(kept, logits)
    for ours, theirs in zip(found.error.ravel(), logits, strict=True):
        errors = tie_aware(theirs, targets.numpy())
        allowed = (np.isfinite(theirs).all() and _margins(theirs)[1].sum()) / len(errors)
        assert ours == pytest.approx(errors.mean(), abs=allowed + 1e-6)


def tie_aware(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Each row's error, shape (examples,): 1, 0, or what is left of 1 where the target is among several on top."""
    values = []
    for row, target in zip(logits, targets, strict=True):
        top = np.flatnonzero(row == row.max()) if not np.isnan(row).any() else np.array([], int)
        values.append(1 - (target in top) / max(len(top), 1))
    return np.array(values)


def measured(model: nn.Module, path: Span, data: Dataset, **options: Any) -> dict[str, Any]:
    """The curve of every engine, and of `auto`."""
    options = {"alphas": ALPHAS, "keep": "logits"} | options
    return {engine: evaluate(model, path, data, engine=engine, **options) for engine in (*ENGINES, "auto")}


def check_engines(model: nn.Module, path: Span, data: Dataset, wanted: Truth | None = None, **options: Any) -> dict:
    """Every engine gives what plain forward passes give; returns the curves by engine."""
    wanted = truth(model, path, data) if wanted is None else wanted
    found = measured(model, path, data, **options)
    for curve in found.values():
        check(curve, wanted, data.targets)
    return found
