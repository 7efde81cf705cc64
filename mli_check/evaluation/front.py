"""evaluate and evaluate_many: check what was asked, choose an engine, turn its results into a curve or surface."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mli_check.curves import Curve, Outcomes, Record, Surface
from mli_check.data.dataset import Dataset
from mli_check.errors import DivergedError, OptionError, UnknownNameError
from mli_check.evaluation import layout, loop, memory, norm_stats
from mli_check.evaluation.loop import Job, PointResult
from mli_check.losses import Loss, is_classification, resolve
from mli_check.paths import Plane, Point, Span, grid
from mli_check.precision import full_float32
from mli_check.progress import Progress, bar
from mli_check.states import check_fits

ENGINES = {"loop": loop.run}
PRECISIONS = ("highest",)
KEEP = ("summary", "examples", "logits")


def evaluate(
    model: nn.Module,
    path: Span,
    data: Dataset,
    points: int = 51,
    *,
    alphas: Sequence[float] | None = None,
    betas: Sequence[float] | None = None,
    loss: str | Loss = "cross_entropy",
    norm_stats: str | None = None,
    calibration: Dataset | None = None,
    calibration_batch: int = 500,
    engine: str = "auto",
    precision: str = "highest",
    memory_limit: int | None = None,
    device: torch.device | str | None = None,
    keep: str = "summary",
    progress: Progress | bool | None = None,
    allow_diverged: bool = False,
) -> Any:
    """Loss and error of `model` at the states of `path`: a Curve, or a Surface for a Plane.

    `model` gives the architecture only: it, the states, the random state and the train/eval mode stay as they are.
    The points are `points` equal steps of alpha on [0, 1], both ends included, or `alphas`; a Plane also takes `betas`
    (default: as many equal steps on [-1, 1]). `loss` is a name or a callable (outputs, targets) -> (n,).
    `norm_stats` is the policy for running statistics, `freeze`, `interpolate` or `recalibrate` (needs `calibration`;
    averages batches of `calibration_batch` examples in their order); left out, it is `recalibrate` where the model
    keeps any. `memory_limit` bounds, in bytes, the memory beside the states and the data as the network sees them (for
    pixels a normalised copy, four times as large); it never changes a figure's meaning, as calibration keeps its own
    batch size. `device` defaults to the model's. `keep="examples"` keeps every
    example's loss, `"logits"` also its outputs. `progress` is True or a callable (done, total).

    Raises StateMismatchError if the states do not fit the model, OptionError and UnknownNameError for bad arguments,
    DivergedError if the loss where the path ends in the trained network is not finite, unless `allow_diverged`.
    """
    options = Options(
        points=points,
        alphas=alphas,
        betas=betas,
        loss=loss,
        norm_stats=norm_stats,
        calibration=calibration,
        calibration_batch=calibration_batch,
        engine=engine,
        precision=precision,
        memory_limit=memory_limit,
        device=device,
        keep=keep,
        progress=progress,
        allow_diverged=allow_diverged,
    )
    return _run(model, [path], data, options)[0]


def evaluate_many(
    model: nn.Module, paths: Sequence[Span], data: Dataset, points: int = 51, **options: Any
) -> list[Any]:
    """The curves (surfaces) of several paths of one architecture over the same data; options as for `evaluate`."""
    known = [entry.name for entry in dataclasses.fields(Options)]
    for name in options:
        if name not in known:
            raise UnknownNameError("option of evaluate_many", name, known)
    return _run(model, list(paths), data, Options(points=points, **options))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `evaluate` takes beside the model, the path and the data; its docstring says what each means."""

    points: int = 51
    alphas: Sequence[float] | None = None
    betas: Sequence[float] | None = None
    loss: str | Loss = "cross_entropy"
    norm_stats: str | None = None
    calibration: Dataset | None = None
    calibration_batch: int = 500
    engine: str = "auto"
    precision: str = "highest"
    memory_limit: int | None = None
    device: torch.device | str | None = None
    keep: str = "summary"
    progress: Progress | bool | None = None
    allow_diverged: bool = False


def _run(model: nn.Module, paths: Sequence[Span], data: Dataset, options: Options) -> list[Curve | Surface]:
    for path in paths:
        check_fits(model, path.final, f"the final state of {path.label}")
    for what, known in (("engine", ("auto", *ENGINES)), ("keep", KEEP), ("precision", PRECISIONS)):
        if getattr(options, what) not in known:
            raise UnknownNameError(what, str(getattr(options, what)), known)
    loss_name, loss = resolve(options.loss)
    axes = [_axes(path, options) for path in paths]
    replica, device = _replica(model, options.device)
    stats = norm_stats.resolve(replica, options.norm_stats, options.calibration, options.calibration_batch)
    dtype = next((tensor.dtype for tensor in replica.parameters() if tensor.is_floating_point()), torch.float32)
    stats = stats.to(device, dtype)
    data = data.to(device).normalised(dtype)
    results = []
    seeded = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=seeded), torch.inference_mode(), full_float32():
        loop.check_outputs(replica, data, one_logit=callable(options.loss))
        notes: tuple[str, ...] = ()
        if layout.works_channels_last(replica, data):
            data, stats, notes = data.map(layout.channels_last), stats.map(layout.channels_last), (layout.NOTE,)
        job = Job(
            model=replica,
            data=data,
            loss_name=loss_name,
            loss=loss,
            norm_stats=stats,
            batch_size=memory.batch_size(replica, data, options.memory_limit),
            keep=options.keep,
            progress=bar("evaluating") if options.progress is True else options.progress or None,
        )
        for path, axis in zip(paths, axes, strict=True):
            results.append(_one(job, path, axis, options, device, notes))
    return results


def _one(
    job: Job,
    path: Span,
    axes: tuple[np.ndarray, ...],
    options: Options,
    device: torch.device,
    notes: tuple[str, ...],
) -> Curve | Surface:
    """The curve or surface of one path."""
    started = time.perf_counter()
    name = "loop" if options.engine == "auto" else options.engine
    points = _points(axes)
    measured = ENGINES[name](job, path, points)
    if not options.allow_diverged:
        _check_end(path, points, measured)
    checkpoint = _checkpoint(job, path)
    record = Record(
        path=path.label,
        loss=job.loss_name,
        norm_stats=job.norm_stats.policy,
        calibration_batch=job.norm_stats.batch,
        engine=name,
        precision=options.precision,
        device=str(device),
        examples=len(job.data),
        batch_size=job.batch_size,
        seconds=time.perf_counter() - started,
        notes=notes,
    )
    return _assemble(job, axes, measured, record, checkpoint)


def _replica(model: nn.Module, device: torch.device | str | None) -> tuple[nn.Module, torch.device]:
    """A copy of `model` of our own, in eval mode, with the device it lies on."""
    tensors = [*model.parameters(), *model.buffers()]
    where = torch.device(device) if device is not None else (tensors[0].device if tensors else torch.device("cpu"))
    try:
        replica = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise OptionError(
            f"the model cannot be copied ({error}); pass a freshly built model of the same architecture"
        ) from error
    return replica.to(where).eval().requires_grad_(False), where


def _axes(path: Span, options: Options) -> tuple[np.ndarray, ...]:
    alphas = grid(options.points, options.alphas)
    if isinstance(path, Plane):
        if options.keep != "summary":
            raise OptionError(f"a Surface keeps no single examples; leave keep={options.keep!r} out for a Plane")
        return alphas, 2 * grid(options.points) - 1 if options.betas is None else grid(options.points, options.betas)
    if options.betas is not None:
        raise OptionError(f"`betas` belongs to a Plane, and {path.label} has only alphas; leave it out")
    return (alphas,)


def _points(axes: tuple[np.ndarray, ...]) -> list[Point]:
    crossed = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    return [tuple(map(float, point)) for point in crossed.reshape(-1, len(axes))]


def _check_end(path: Span, points: list[Point], results: list[PointResult]) -> None:
    for point, result in zip(points, results, strict=True):
        if point == path.end and not math.isfinite(result.loss):
            raise DivergedError(
                f"the loss at the end of {path.label} is {result.loss}: the network diverged in training; "
                "train it with a smaller learning rate, or pass allow_diverged=True to see the curve all the same"
            )


def _checkpoint(job: Job, path: Span) -> dict[str, float] | None:
    """The final state's own loss and error under its own buffers, where recalibration makes the curve's end differ."""
    if path.dimension > 1 or job.norm_stats.policy != "recalibrate" or not norm_stats.tracking_layers(job.model):
        return None
    loop.Slots(job.model).place(path, path.end, "freeze")
    result = loop.measure(job)
    own = {"loss": result.loss}
    return own if result.errors is None else own | {"error": float(result.errors.mean(dtype=np.float64))}


def _stacked(rows: list[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    """All points' arrays as one; None where they were not kept."""
    kept = [row for row in rows if row is not None]
    return np.stack(kept) if kept else None


def _assemble(
    job: Job,
    axes: tuple[np.ndarray, ...],
    results: list[PointResult],
    record: Record,
    checkpoint: dict[str, float] | None,
) -> Curve | Surface:
    shape = tuple(len(axis) for axis in axes)
    loss = np.array([result.loss for result in results]).reshape(shape)
    rows = [result.errors for result in results if result.errors is not None]
    classes = job.data.targets.cpu().numpy() if is_classification(job.data.targets) else None
    error = balanced = outcomes = None
    if rows and classes is not None:
        error = np.array([row.mean(dtype=np.float64) for row in rows]).reshape(shape)
        sizes = np.bincount(classes)
        weights = (1 / (np.count_nonzero(sizes) * np.maximum(sizes, 1)))[classes]
        balanced = np.array([row @ weights for row in rows]).reshape(shape)
        outcomes = Outcomes.pack(rows)
    if len(axes) == 2:
        return Surface(alphas=axes[0], betas=axes[1], loss=loss, error=error, balanced_error=balanced, record=record)
    return Curve(
        alphas=axes[0],
        loss=loss,
        error=error,
        balanced_error=balanced,
        outcomes=outcomes,
        classes=classes,
        record=record,
        checkpoint=checkpoint,
        losses=_stacked([result.losses for result in results]),
        logits=_stacked([result.logits for result in results]),
    )
