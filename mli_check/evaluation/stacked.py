"""The engine that runs many points in one pass: their states stacked, the model mapped over them by `vmap`.

Where a network is so small that starting its operations takes longer than computing them, this takes a chunk of points
for the price of one. Where products take the time, as mostly on a CPU, it gains nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from mli_check.data.dataset import Dataset
from mli_check.evaluation import blocks, recognition
from mli_check.evaluation.batches import Batches
from mli_check.evaluation.first_layer import FirstLayers
from mli_check.evaluation.job import Job, Ticker, Used
from mli_check.evaluation.norm_stats import Recalibration, call
from mli_check.evaluation.sites import Site
from mli_check.evaluation.slots import Slots

NAME = "stacked"
CHUNK = 64  # points in one pass at most
FEWEST = 64  # examples in a batch, below which no more points are worth it


def run(job: Job) -> Used:
    """Map the model over chunks of sites; where it cannot be mapped, run the next best engine and say why."""
    found = recognition.find(job)
    shared = found if isinstance(found, FirstLayers) else None
    stack = _Stack(job, shared)
    reason = stack.obstacle()
    if reason:
        used = blocks.run(job)
        return Used(used.engine, used.batch_size, (reason, *used.notes))
    notes = () if shared else (str(found),)
    size = stack.run()
    return Used(NAME, size, (*notes, *stack.notes))


class _Stack:
    """The states of a chunk of sites, dimension 0 over the sites, and the passes over them."""

    def __init__(self, job: Job, shared: FirstLayers | None) -> None:
        self.job, self.shared = job, shared
        self.notes: tuple[str, ...] = ()
        self._slots = shared.slots if shared else Slots(job.model)
        self._omitted = shared.omitted if shared else set()
        self._state: dict[str, Tensor] = {}
        kept = job.model.state_dict()
        self._size: int = sum(tensor.nelement() * tensor.element_size() for tensor in kept.values())
        extra = (shared.bytes_per_example if shared else 0) * (job.bases + 1)
        self._each = job.room.each + extra

    def obstacle(self) -> str:
        """Why the model cannot be mapped; empty if two sites, mapped, give what they give one by one."""
        sites = [self.job.sites[len(self.job.sites) // 2]] * 2
        rows = slice(0, min(recognition.PROBED, len(self.job.data)))
        slots = Slots(self.job.model)
        slots.place(sites[0])
        if self._chunk(min(FEWEST, len(self.job.data))) < min(2, len(self.job.sites)):
            return "not stacked: memory_limit holds one point at a time"
        try:
            plain = call(self.job.model, self.job.data, rows)
            if not isinstance(plain, Tensor):
                return "not stacked: the model's output is not one tensor"
            with self._sharing(), warnings.catch_warnings():
                warnings.filterwarnings("error", "There is a performance drop")  # an operation without a batching rule
                self._load(sites)
                mapped = self._outputs(self.job.data, rows, sites)
        except (RuntimeError, ValueError, TypeError, UserWarning) as error:
            return f"not stacked: {str(error).splitlines()[0]}"
        return "" if recognition.agree(plain, mapped[1]) else "not stacked: mapped, the model gives other outputs"

    def run(self) -> int:
        """All sites and examples; returns the examples of a batch."""
        job = self.job
        batch = min(len(job.data), job.room.most)
        while batch > FEWEST and self._chunk(batch) < min(8, len(job.sites)):
            batch = -(-batch // 2)
        chunk, ticker = self._chunk(batch), Ticker(job)
        batches = Batches(len(job.data), batch)
        start = 0
        while start < len(job.sites):
            numbers = range(start, min(start + chunk, len(job.sites)))
            sites = [job.sites[number] for number in numbers]
            try:
                with self._sharing():
                    self._load(sites)
                    self._recalibrate(sites)
            except torch.OutOfMemoryError:
                if chunk == 1:
                    raise
                chunk = -(-chunk // 2)
                self.notes = (f"out of memory: went on with {chunk} points at once",)
                continue
            self._measure(numbers, sites, batches, ticker)
            start = numbers.stop
        job.tally.settle(all=True)
        self.notes += batches.notes
        return batches.size

    def _measure(self, numbers: Sequence[int], sites: Sequence[Site], batches: Batches, ticker: Ticker) -> None:
        def step(rows: slice, _: None) -> None:
            self.job.tally.add_stacked(numbers, rows, self._outputs(self.job.data, rows, sites))

        def after(rows: slice) -> None:
            self.job.tally.settle()
            ticker.tick(rows, len(sites))

        with self._sharing():
            for rows in batches:
                batches.visit(rows, [None], step, after=after)

    def _chunk(self, batch: int) -> int:
        """How many sites fit beside each other with a batch of so many examples, and with a calibration batch."""
        largest = max(batch, self.job.norm_stats.batch or 0)
        fit: int = (self.job.room.total - self.job.room.waiting) // (2 * self._size + largest * self._each)
        return max(1, min(CHUNK, len(self.job.sites), fit))

    def _sharing(self) -> Any:
        return self.shared if self.shared is not None else torch.no_grad()

    def _load(self, sites: Sequence[Site]) -> None:
        """Stack the states of the sites."""
        kept = {n: t for n, t in self.job.model.state_dict().items() if n not in self._omitted}
        self._state = {n: t.new_empty(len(sites), *t.shape) for n, t in kept.items()}
        for index, site in enumerate(sites):
            self._slots.place(site)
            torch._foreach_copy_([stack[index] for stack in self._state.values()], list(kept.values()))

    def _recalibrate(self, sites: Sequence[Site]) -> None:
        """Average the running statistics of all sites at once; those that keep their own get them back."""
        stats = self.job.norm_stats
        if stats.calibration is None or not any(site.recalibrated for site in sites):
            return
        own = {n: t.clone() for n, t in self._state.items()} if not all(s.recalibrated for s in sites) else {}
        with Recalibration(self.job.model) as layers:
            for index, rows in enumerate(stats.batches()):
                layers.expect(index)
                if index == 0:
                    fresh = self.job.model.state_dict()
                    for name in layers.names:
                        self._state[name].copy_(fresh[name])
                self._outputs(stats.calibration, rows, sites)
        for index, site in enumerate(sites):
            if not site.recalibrated:
                for name in layers.names:
                    self._state[name][index] = own[name][index]

    def _outputs(self, data: Dataset, rows: slice, sites: Sequence[Site]) -> Tensor:
        """The outputs of some examples at every site, shape (sites, examples, ...)."""
        inputs = data.inputs
        part = inputs[rows] if isinstance(inputs, Tensor) else {name: tensor[rows] for name, tensor in inputs.items()}
        if self.shared is not None:
            self.shared.begin(data, rows)
            if not self.shared.complete:
                return self._one_by_one(data, rows, sites)
        firsts = self.shared.stacked(sites) if self.shared is not None else []

        def one(state: Mapping[str, Tensor], ready: Sequence[Tensor]) -> Tensor:
            if self.shared is not None:
                self.shared.hand_out(ready)
            arguments = ((part,), {}) if isinstance(part, Tensor) else ((), part)
            return functional_call(self.job.model, dict(state), *arguments)  # type: ignore[no-any-return]

        try:
            outputs: Tensor = vmap(one)(self._state, firsts)
        finally:
            if self.shared is not None:
                self.shared.hand_out(None)
        return outputs

    def _one_by_one(self, data: Dataset, rows: slice, sites: Sequence[Site]) -> Tensor:
        """The same for rows that do not lead through all shared layers."""
        assert self.shared is not None
        kept, outputs = self.job.model.state_dict(), []
        for index, site in enumerate(sites):
            self.shared.place(site)
            for name, stack in self._state.items():
                kept[name].copy_(stack[index])
            outputs.append(call(self.job.model, data, rows).clone())
            for name, stack in self._state.items():
                stack[index].copy_(kept[name])
        return torch.stack(outputs)
