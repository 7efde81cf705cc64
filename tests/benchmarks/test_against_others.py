"""One evaluation held against what else computes the same curve, in the same rounds."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

import mli_check as mli
from benchmarks import baselines, work
from benchmarks.bars import DEEP, LANDSCAPES, LOOP, PRODUCTS, PRODUCTS_ALIKE, SHALLOW, TENSORS, TORCHVISION, WIDE
from benchmarks.rounds import Race, Runner, race
from benchmarks.table import Report, Row
from benchmarks.work import Size, Work, on_cuda

TF32 = "ours in TF32"
Competitors = dict[str, Callable[[np.ndarray], Any]]


def agree(curve: mli.Curve, other: Any, examples: int, rtol: float = 1e-4) -> None:
    """Raise AssertionError unless `other`, a curve or (losses, errors), has the losses of `curve` but for rounding.

    Errors may differ by three examples, whose two largest outputs lie within rounding.
    """
    losses, errors = (other.loss, other.error) if isinstance(other, mli.Curve) else other
    np.testing.assert_allclose(losses, curve.loss, rtol=rtol)
    np.testing.assert_allclose(errors, curve.error, atol=3.5 / examples)


def check_all(competitors: Competitors, ours: Callable[[np.ndarray], mli.Curve], examples: int) -> None:
    """Compare both ends and the middle, on all examples, before anything is timed; that warms everyone up, too."""
    alphas = np.linspace(0, 1, 3)
    curve = ours(alphas)
    for compute in competitors.values():
        agree(curve, compute(alphas), examples)


def evaluated(job: Work, **options: Any) -> Callable[[np.ndarray], mli.Curve]:
    """Our evaluation at given points; pixels and labels come from the CPU's memory, as the competitors' do."""
    data, path = job.test.data, job.path
    calibration = None if job.calibration is None else job.calibration.data
    options |= {"device": job.device, "calibration": calibration}
    return lambda alphas: mli.evaluate(job.model, path, data, alphas=alphas, **options)


@pytest.mark.parametrize(
    ("device", "widths"),
    [("cpu", SHALLOW), ("cpu", DEEP), on_cuda(SHALLOW), on_cuda(DEEP), on_cuda(WIDE)],
)
def test_a_fully_connected_network_is_evaluated_faster_than_by_everyone_else(
    device: str, widths: str, size: Size, report: Report, benchmark: Any, tmp_path: Path
) -> None:
    """Timed: loss and error of 10,000 MNIST-shaped images at 51 points, from pixels in memory (for torchvision: from
    its dataset, already loaded) to numbers; loss-landscapes gets normalised images and computes no error. In the same
    rounds the machine multiplies matrices, square ones and some shaped as the work's, for deep networks.
    """
    test = work.Pictures.drawn(size.examples, 28, work.MNIST)
    job = work.draw(work.connected(widths), test, device)
    ours, alphas = evaluated(job), np.linspace(0, 1, size.points)
    stored, ready = baselines.mnist(test, tmp_path), baselines.tensors(test)
    competitors: Competitors = {
        TORCHVISION: lambda alphas: baselines.hand_written(job, stored, alphas, size.batch),
        TENSORS: lambda alphas: baselines.hand_written(job, ready, alphas, size.batch),
        LOOP: evaluated(job, engine="loop"),
    }
    check_all(competitors, ours, size.examples)
    landscapes = baselines.landscapes(job)
    if landscapes is not None:  # it starts one step after alpha = 0, so its own points are compared
        np.testing.assert_allclose(landscapes(3), ours(np.arange(1, 4) / 3).loss, rtol=1e-3)

    others: dict[str, Runner] = {name: lambda run=run: run(alphas) for name, run in competitors.items()}
    if landscapes is not None:
        others[LANDSCAPES] = lambda: landscapes(size.points)
    rates = _products(device, widths, size)
    others |= {name: run for name, (run, _) in rates.items()}
    if device == "cuda":
        in_tf32 = evaluated(job, precision="tf32")
        others[TF32] = lambda: in_tf32(alphas)
    found = race(benchmark, device, lambda: ours(alphas), others, size.rounds)

    curve = found.last_of_ours
    for name in competitors:
        agree(curve, found.results[name], size.examples)
    if landscapes is not None:
        np.testing.assert_allclose(found.results[LANDSCAPES][-1], curve.loss[-1], rtol=1e-3)
    if device == "cuda":
        np.testing.assert_allclose(found.results[TF32].loss, curve.loss, rtol=0.05)
    rows = [found.row(widths, name) for name in (TORCHVISION, TENSORS, LANDSCAPES, LOOP) if name in others]
    flop = work.remaining_flop(widths, size.points, size.examples)
    report(rows + [_share(found, widths, flop, name, made) for name, (_, made) in rates.items()])
    if landscapes is None:
        pytest.skip(baselines.NO_LANDSCAPES)


def _products(device: str, widths: str, size: Size) -> dict[str, tuple[Runner, int]]:
    """Matrix products to run in each round, with their operations: a CPU's in float32, a GPU's in TF32.

    None for a network with one hidden layer: what sharing leaves of it is no work for matrix products.
    """
    if widths == SHALLOW:
        return {}
    precision, more = ("tf32", 10) if device == "cuda" else ("highest", 1)
    side, hidden = size.product[device], int(widths.split("-")[1])
    shapes = {PRODUCTS: ((side, side, side), 3 * more), PRODUCTS_ALIKE: ((size.rows, hidden, hidden), 20 * more)}
    return {
        name: (baselines.products(*shape, repeats, device, precision), 2 * prod(shape) * repeats)
        for name, (shape, repeats) in shapes.items()
    }


def _share(found: Race, widths: str, flop: int, name: str, made: int) -> Row:
    """Which share of the rate of products an evaluation reaches over the operations that sharing leaves."""
    who = TF32 if found.device == "cuda" else None
    own = [flop / seconds / 1e9 for seconds in (found.seconds[who] if who else found.ours)]
    rates = [made / seconds / 1e9 for seconds in found.seconds[name]]
    return Row(
        workload=widths,
        device=found.device,
        against=name,
        ours=median(own),
        theirs=median(rates),
        ratios=[a / b for a, b in zip(own, rates, strict=True)],
        unit="GFLOP/s",
        note=f"of {flop / 1e9:.0f} GFLOP, the products that sharing leaves{', in TF32' if who else ''}",
    )


@pytest.mark.parametrize(("device", "variant"), [("cpu", "8"), on_cuda("20")])
def test_a_residual_network_is_recalibrated_at_every_point_faster_than_by_hand(
    device: str, variant: str, size: Size, report: Report, benchmark: Any
) -> None:
    """Timed: loss and error of CIFAR-shaped images, batch normalisation reset and averaged at every point: ResNet8 at
    7 points over 2,000 images each, on CUDA ResNet20 at 21 points over 10,000 each. Ours also evaluates the
    checkpoint, one point more; the loops by hand use torch.optim.swa_utils.update_bn and load_state_dict. At most
    three rounds.
    """
    points, examples, calibrating = size.residual[variant]
    test, train = (work.Pictures.drawn(n, 32, work.CIFAR, seed) for seed, n in enumerate((examples, calibrating)))
    job = work.draw(work.residual(variant), test, device, train)
    ours, alphas = evaluated(job), np.linspace(0, 1, points)
    sources = {TORCHVISION: baselines.OneByOne, TENSORS: baselines.tensors}
    datasets = {name: (make(test), make(train)) for name, make in sources.items()}
    competitors: Competitors = {
        name: lambda alphas, pair=pair: baselines.hand_written(job, pair[0], alphas, size.batch, pair[1])
        for name, pair in datasets.items()
    }
    competitors[LOOP] = evaluated(job, engine="loop")
    check_all(competitors, ours, examples)
    others: dict[str, Runner] = {name: lambda run=run: run(alphas) for name, run in competitors.items()}
    found = race(benchmark, device, lambda: ours(alphas), others, min(size.rounds, 3))
    for name in competitors:
        agree(found.last_of_ours, found.results[name], examples)
    note = f"{points} points, {examples} images, recalibrated over {calibrating}; ours includes one point more"
    report([found.row(f"resnet {variant}", name, note) for name in competitors])
