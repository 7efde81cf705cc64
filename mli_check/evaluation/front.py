"""evaluate and evaluate_many: check what was asked, have it measured, give it back as curves and surfaces."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree

from mli_check.curves import Curve, Record, Surface
from mli_check.data.dataset import Dataset
from mli_check.errors import OptionError, UnknownNameError
from mli_check.evaluation import engines, layout, memory, norm_stats
from mli_check.evaluation.assembly import Axes, Request, assemble, check_end
from mli_check.evaluation.job import Job, Used
from mli_check.evaluation.norm_stats import NormStats, call
from mli_check.evaluation.sites import Site, distinct
from mli_check.evaluation.tally import Tally
from mli_check.losses import LOSSES, Loss, is_classification, resolve
from mli_check.paths import Plane, Span, grid
from mli_check.precision import PRECISIONS, arithmetic
from mli_check.progress import Progress, bar
from mli_check.states import check_fits

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
    calibration_subset: int | None = None,
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
    keeps any. `calibration_subset` takes only so many examples, drawn by a fixed seed, and the record says by how much
    that moved loss and error at the path's ends and middle. `engine` is `loop`, `first_layer` (products of the first
    layer shared by all points), `stacked` (many points in one pass, by vmap) or `auto`; the record says which did the
    work, and why where it is another than asked for. `precision` of products is `highest`, `tf32` (CUDA) or `bf16`.
    `memory_limit` bounds, in bytes, the memory beside the states and the data as the network sees them (for pixels a
    normalised copy, four times as large); it never changes a figure's meaning, as calibration keeps its own batch size.
    `device` defaults to the model's. `keep="examples"` keeps every example's loss, `"logits"` also its outputs.
    `progress` is True or a callable (done, total).

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
        calibration_subset=calibration_subset,
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
    calibration_subset: int | None = None
    engine: str = "auto"
    precision: str = "highest"
    memory_limit: int | None = None
    device: torch.device | str | None = None
    keep: str = "summary"
    progress: Progress | bool | None = None
    allow_diverged: bool = False


def _run(model: nn.Module, paths: Sequence[Span], data: Dataset, options: Options) -> list[Curve | Surface]:
    started = time.perf_counter()
    if not paths:
        return []
    for path in paths:
        check_fits(model, path.final, f"the final state of {path.label}")
    for what, known in (("engine", ("auto", *engines.ENGINES)), ("keep", KEEP), ("precision", PRECISIONS)):
        if getattr(options, what) not in known:
            raise UnknownNameError(what, str(getattr(options, what)), known)
    loss_name, loss = resolve(options.loss)
    requests = [Request(path, _axes(path, options)) for path in paths]
    replica, device = _replica(model, options.device)
    whole = norm_stats.resolve(replica, options.norm_stats, options.calibration, options.calibration_batch)
    stats = whole.on_subset(options.calibration_subset)
    dtype = next((tensor.dtype for tensor in replica.parameters() if tensor.is_floating_point()), torch.float32)
    whole, stats, data = whole.to(device, dtype), stats.to(device, dtype), data.to(device).normalised(dtype)
    seeded = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=seeded), torch.inference_mode(), arithmetic(options.precision, device):
        check_outputs(replica, data, loss)
        engine = engines.choose(options.engine, replica, data)
        notes: tuple[str, ...] = ()
        if engine != "stacked" and layout.works_channels_last(replica, data):  # vmap lacks rules for that layout
            data, stats = data.map(layout.channels_last), stats.map(layout.channels_last)
            whole = stats if options.calibration_subset is None else whole.map(layout.channels_last)
            notes = (layout.NOTE,)
        memory.room(replica, data, options.memory_limit, whole)  # refuses a limit before anything is measured
        sites, requests = _sites(requests, stats, bool(norm_stats.tracking_layers(replica)))
        work = _Work(replica, data, loss_name, loss, options, engine)
        curves = [place for request in requests if len(request.axes) == 1 for place in request.places]
        tally, used = work.measure(sites, stats, outcomes=max(curves, default=-1) + 1)
        shifts = work.shifts(sites, requests, whole, tally) if options.calibration_subset is not None else {}
    results = []
    for number, request in enumerate(requests):
        if not options.allow_diverged:
            check_end(request, tally)
        record = Record(
            path=request.path.label,
            loss=loss_name,
            norm_stats=stats.policy,
            calibration_batch=stats.batch,
            calibration_examples=None if stats.calibration is None else len(stats.calibration),
            calibration_shift=shifts.get(number),
            engine=used.engine,
            precision=options.precision,
            device=str(device),
            examples=len(data),
            batch_size=used.batch_size,
            seconds=(time.perf_counter() - started) / len(requests),
            notes=(*notes, *used.notes),
        )
        results.append(assemble(request, tally, data, record))
    return results


@dataclasses.dataclass(frozen=True)
class _Work:
    """A model laid out for its data, and how its outputs are measured."""

    model: nn.Module
    data: Dataset
    loss_name: str
    loss: Loss
    options: Options
    engine: str

    def measure(self, sites: Sequence[Site], stats: NormStats, outcomes: int = 0) -> tuple[Tally, Used]:
        """What the sites come to; the first `outcomes` keep their errors example by example."""
        options, data = self.options, self.data
        tally = Tally(data, self.loss, self.loss_name, sites=len(sites), outcomes=outcomes, keep=options.keep)
        room = memory.room(self.model, data, options.memory_limit, stats)
        tally.limit(room.waiting)
        progress = bar("evaluating") if options.progress is True else options.progress or None
        job = Job(model=self.model, data=data, norm_stats=stats, sites=sites, tally=tally, room=room, progress=progress)
        return tally, engines.run(job, self.engine, freely=options.engine == "auto")

    def shifts(
        self, sites: Sequence[Site], requests: Sequence[Request], whole: NormStats, tally: Tally
    ) -> dict[int, tuple[float, float | None]]:
        """Each path's largest change of loss and error, at both ends and the middle, that a calibration subset made."""
        ends = [[r.places[0], r.places[len(r.places) // 2], r.places[-1]] for r in requests]
        chosen = sorted({place for places in ends for place in places})
        quiet = dataclasses.replace(self.options, keep="summary", progress=None)
        exact, _ = dataclasses.replace(self, options=quiet, engine="loop").measure([sites[p] for p in chosen], whole)
        found: dict[int, tuple[float, float | None]] = {}
        for number, places in enumerate(ends):
            ours, there = tally.error(places), [chosen.index(place) for place in places]
            theirs, loss = exact.error(there), np.abs(exact.loss(there) - tally.loss(places)).max()
            error = None if ours is None or theirs is None else float(np.abs(ours - theirs).max())
            found[number] = float(loss), error
        return found


def _sites(requests: list[Request], stats: NormStats, tracking: bool) -> tuple[list[Site], list[Request]]:
    """The distinct sites of all requests, those of curves first, and the requests with the places of theirs."""
    recalibrated = stats.policy == "recalibrate" and tracking
    order = sorted(range(len(requests)), key=lambda number: len(requests[number].axes))
    asked = [requests[number].sites(stats.of_path, recalibrated) for number in order]
    own = [Site(r.path, r.path.end, "freeze", False) for r in requests if recalibrated and len(r.axes) == 1]
    sites, places = distinct(site for group in (*asked, own) for site in group)
    found, start, checkpoints = list(requests), 0, iter(places[len(places) - len(own) :])
    for number, group in zip(order, asked, strict=True):
        found[number] = dataclasses.replace(requests[number], places=places[start : start + len(group)])
        start += len(group)
    if own:
        found = [dataclasses.replace(r, checkpoint=next(checkpoints)) if len(r.axes) == 1 else r for r in found]
    return sites, found


def check_outputs(model: nn.Module, data: Dataset, loss: Loss) -> None:
    """Raise OptionError if class indices do not fit the model's logits (on a GPU that would end the process).

    A model of a single output is let through with a loss of the caller's own, which may be binary.
    """
    rows, named = slice(0, min(2, len(data))), loss in LOSSES.values()
    kept = _pytree.tree_map(lambda tensor: tensor[rows].clone(), data.inputs)
    outputs = call(model, data, rows)
    for before, after in zip(_pytree.tree_leaves(kept), _pytree.tree_leaves(data.inputs), strict=True):
        if not torch.equal(before.nan_to_num(), after[rows].nan_to_num()):
            after[rows] = before
            raise OptionError(
                "the model writes into its inputs, which every point needs as they are; have it clone them first"
            )
    classes = is_classification(data.targets) and isinstance(outputs, Tensor) and outputs.ndim == 2
    if classes and (named or outputs.shape[1] > 1) and data.classes > outputs.shape[1]:
        raise OptionError(
            f"dataset {data.name!r} has class {data.classes - 1}, the model gives {outputs.shape[1]} logits "
            f"(classes 0 to {outputs.shape[1] - 1}); use a model with at least {data.classes} outputs"
        )
    if named:
        loss(outputs, data.targets[rows])


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


def _axes(path: Span, options: Options) -> Axes:
    alphas = grid(options.points, options.alphas)
    if isinstance(path, Plane):
        if options.keep != "summary":
            raise OptionError(f"a Surface keeps no single examples; leave keep={options.keep!r} out for a Plane")
        return alphas, 2 * grid(options.points) - 1 if options.betas is None else grid(options.points, options.betas)
    if options.betas is not None:
        raise OptionError(f"`betas` belongs to a Plane, and {path.label} has only alphas; leave it out")
    return (alphas,)
