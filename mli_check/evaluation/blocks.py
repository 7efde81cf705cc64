"""The engine that shares first layers: a block of examples at a time, all points on it while it is in the cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mli_check.evaluation import lean, loop, recognition
from mli_check.evaluation.batches import Batches
from mli_check.evaluation.first_layer import FirstLayers
from mli_check.evaluation.job import Job, Ticker, Used
from mli_check.evaluation.lean import Lean
from mli_check.evaluation.norm_stats import Recalibration, call, recalibrate, tracking_layers
from mli_check.evaluation.slots import Slots

NAME = "first_layer"


def run(job: Job, least: int = 0) -> Used:
    """Share what can be shared; where nothing can, run the plain loop and say why.

    Layers with fewer than `least` products an output are not shared.
    """
    shared = recognition.find(job, least)
    if isinstance(shared, FirstLayers):
        thrift = lean.find(job, shared.omitted)
        each = job.bases * shared.bytes_per_example + thrift.bytes_per_example
        if job.room.holds(1, each):
            return _run(job, shared, thrift, each)
        shared = "the first layer's products do not fit into memory_limit"
    used = loop.run(job)
    return Used(used.engine, used.batch_size, (shared, *used.notes))


def _run(job: Job, shared: FirstLayers, thrift: Lean, each: int) -> Used:
    """Every block of examples at every site, with `each` bytes an example of products and buffers."""
    batches, statistics = Batches(len(job.data), job.room.batch(len(job.data), each)), Statistics(job.model)
    chunk, ticker = job.room.chunk(len(job.sites), statistics.bytes), Ticker(job)
    for first in range(0, len(job.sites), chunk):
        numbers = range(first, min(first + chunk, len(job.sites)))
        _recalibrate(job, shared, numbers, each, statistics)

        def measure(rows: slice, number: int) -> None:
            shared.place(job.sites[number])
            statistics.restore(number)
            with thrift:
                job.tally.add(number, rows, call(job.model, job.data, rows))

        def after(rows: slice) -> None:
            job.tally.settle()
            ticker.tick(rows)

        with shared:
            for rows in batches:
                batches.visit(rows, numbers, measure, begin=lambda rows: shared.begin(job.data, rows), after=after)
    job.tally.settle(all=True)
    return Used(NAME, batches.size, batches.notes)


def _recalibrate(job: Job, shared: FirstLayers, numbers: Sequence[int], each: int, statistics: Statistics) -> None:
    """Keep the recalibrated statistics of every site that wants them."""
    stats = job.norm_stats
    statistics.forget()
    wanted = [number for number in numbers if job.sites[number].recalibrated]
    if not wanted or stats.calibration is None or stats.batch is None:
        return
    if not job.room.holds(stats.batch, each):
        slots = Slots(job.model)
        for number in wanted:
            slots.place(job.sites[number])
            recalibrate(job.model, stats)
            statistics.keep(number)
        return
    with shared, Recalibration(job.model) as layers:
        for index, rows in enumerate(stats.batches()):
            shared.begin(stats.calibration, rows)
            for number in wanted:
                shared.place(job.sites[number])
                statistics.restore(number)
                layers.expect(index)
                call(job.model, stats.calibration, rows)
                statistics.keep(number)


class Statistics:
    """The running statistics of a model, kept for some sites."""

    def __init__(self, model: nn.Module) -> None:
        self._buffers = [buffer for layer in tracking_layers(model) for buffer in layer.buffers(recurse=False)]
        self._kept: dict[int, list[Tensor]] = {}

    @property
    def bytes(self) -> int:
        """What one site takes."""
        return sum(buffer.nelement() * buffer.element_size() for buffer in self._buffers)

    def keep(self, number: int) -> None:
        """Remember the model's as those of a site."""
        if number in self._kept:
            torch._foreach_copy_(self._kept[number], self._buffers)
        else:
            self._kept[number] = [buffer.clone() for buffer in self._buffers]

    def restore(self, number: int) -> None:
        """Give the model those of a site, where they were kept."""
        if number in self._kept:
            torch._foreach_copy_(self._buffers, self._kept[number])

    def forget(self) -> None:
        """Drop all sites."""
        self._kept = {}
