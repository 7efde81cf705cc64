"""What the outputs at every site come to: losses and errors, summed and packed as they arrive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mli_check.curves import Outcomes
from mli_check.data.dataset import Dataset
from mli_check.errors import OptionError
from mli_check.losses import LOSSES, Loss, check_losses, is_classification, tie_aware_error

PENDING = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}  # bytes of outputs after which they are settled together


@dataclass(frozen=True)
class _Run:
    """Outputs that lie one after another in what waits, from element `start`: one of each site, all of some rows."""

    sites: list[int]
    rows: slice
    shape: torch.Size
    start: int


class Tally:
    """Collects outputs, of any block of examples at any site, in any order, each once.

    Outputs wait until enough are there to be settled in a few large operations: with ten classes, the loss of a
    single batch costs more in calls than in arithmetic. On a GPU settling is what waits for the device.
    """

    def __init__(self, data: Dataset, loss: Loss, name: str, *, sites: int, outcomes: int, keep: str) -> None:
        """`outcomes` sites, the first ones, keep their errors example by example (the cells of a surface do not)."""
        self._data, self._loss, self._name, self._keep = data, loss, name, keep
        self._stackable = loss in LOSSES.values()
        device, self._classified = data.targets.device, is_classification(data.targets)
        self._sums = torch.zeros(3, sites, dtype=torch.float64, device=device)  # loss, error, balanced error
        self._weights = class_weights(data.targets) if self._classified else None
        self._bits = np.zeros((outcomes if self._classified else 0, -(-len(data) // 8)), np.uint8)
        self._ties: dict[int, list[tuple[NDArray[np.int64], NDArray[np.float32]]]] = {}
        kept = (sites, len(data))
        self._losses = np.zeros(kept, np.float32) if keep != "summary" else None
        self._logits: NDArray[np.float32] | None = None
        self._pending: list[_Run] = []
        self._waiting: Tensor | None = None
        self._filled = 0
        self._limit = PENDING.get(device.type, PENDING["cpu"])
        self._has_errors = False

    def limit(self, size: int) -> None:
        """Let no more than `size` bytes of outputs wait."""
        self._limit = min(self._limit, size)

    def add(self, site: int, rows: slice, outputs: Any) -> None:
        """The outputs of some examples at one site, as the model gives them."""
        self.add_stacked([site], rows, outputs[None] if isinstance(outputs, Tensor) else outputs)

    def add_stacked(self, sites: Sequence[int], rows: slice, outputs: Any) -> None:
        """The outputs of some examples at several sites, along dimension 0.

        They are copied into memory kept for it, for a model may give its outputs in memory that its next pass writes
        to, and small tensors that live long would lie scattered between the large ones that come and go.
        """
        if not isinstance(outputs, Tensor) or outputs.nelement() * outputs.element_size() > self._limit // 2:
            self.settle(all=True)
            self._take(sites, rows, None if isinstance(outputs, Tensor) else outputs, _tensor(outputs))
            return
        if self._waiting is None or self._waiting.dtype != outputs.dtype:
            self.settle(all=True)
            self._waiting = outputs.new_empty(self._limit // outputs.element_size())
        if self._filled + outputs.nelement() > len(self._waiting):
            self.settle(all=True)
        place = self._waiting[self._filled : self._filled + outputs.nelement()]
        place.view(outputs.shape).copy_(outputs)
        last = self._pending[-1] if self._pending else None
        if last is not None and last.rows == rows and last.shape == outputs.shape[1:]:
            last.sites.extend(sites)
        else:
            self._pending.append(_Run(list(sites), rows, outputs.shape[1:], self._filled))
        self._filled += outputs.nelement()

    def settle(self, *, all: bool = False) -> None:
        """Work through what waits, if it is much, or `all` of it."""
        if self._waiting is None or not (all or self._filled > len(self._waiting) // 2):
            return
        pending, self._pending, self._filled = self._pending, [], 0
        for run in pending:
            count = len(run.sites) * run.shape.numel()
            self._take(run.sites, run.rows, None, self._waiting[run.start : run.start + count].view(-1, *run.shape))

    def _take(self, sites: Sequence[int], rows: slice, outputs: Any, stacked: Tensor | None) -> None:
        targets = self._data.targets[rows]
        where = torch.tensor(sites).to(targets.device, non_blocking=True)
        losses = self._losses_of(targets, outputs, stacked)
        self._sums[0].index_add_(0, where, losses.sum(1, dtype=torch.float64))
        if self._losses is not None:
            self._losses[sites, rows] = _host(losses)
        if self._keep == "logits":
            self._keep_logits(sites, rows, stacked)
        if self._weights is not None and stacked is not None and stacked.ndim == 3 and stacked.shape[2] > 1:
            errors = tie_aware_error(stacked.flatten(0, 1), targets.repeat(len(sites))).view(len(sites), -1)
            self._sums[1].index_add_(0, where, errors.sum(1, dtype=torch.float64))
            self._sums[2].index_add_(0, where, errors.double() @ self._weights[rows])
            self._has_errors = True
            self._pack(sites, rows, errors)

    def _losses_of(self, targets: Tensor, outputs: Any, stacked: Tensor | None) -> Tensor:
        """Shape (sites, examples). A caller's own loss sees the outputs of one site at a time."""
        if stacked is None:
            return check_losses(self._loss(outputs, targets), len(targets), self._name)[None]
        if not self._stackable:
            each = [check_losses(self._loss(part, targets), len(targets), self._name) for part in stacked]
            return torch.stack(each)
        count = len(stacked)
        repeated = targets if count == 1 else targets.repeat(count, *[1] * (targets.ndim - 1))
        return self._loss(stacked.flatten(0, 1), repeated).view(count, -1)

    def _pack(self, sites: Sequence[int], rows: slice, errors: Tensor) -> None:
        wanted = [index for index, site in enumerate(sites) if site < len(self._bits)]
        if not wanted:
            return
        values = _host(errors)[wanted]
        first, shift = divmod(rows.start, 8)
        bits = np.packbits(np.pad(values == 1, ((0, 0), (shift, 0))), axis=1)
        for index, row, packed in zip(wanted, values, bits, strict=True):
            self._bits[sites[index], first : first + len(packed)] |= packed
            fractional = np.flatnonzero((row != 0) & (row != 1))
            if len(fractional):
                self._ties.setdefault(sites[index], []).append((fractional + rows.start, row[fractional]))

    def _keep_logits(self, sites: Sequence[int], rows: slice, stacked: Tensor | None) -> None:
        if stacked is None:
            raise OptionError("keep='logits' keeps a model's output where it is one tensor; use keep='examples'")
        if self._logits is None:
            self._logits = np.zeros((self._sums.shape[1], len(self._data), *stacked.shape[2:]), np.float32)
        self._logits[sites, rows] = _host(stacked)

    def loss(self, sites: Sequence[int]) -> NDArray[np.float64]:
        """The mean loss at some sites."""
        return self._means(0, sites) / len(self._data)

    def error(self, sites: Sequence[int]) -> NDArray[np.float64] | None:
        """The mean error at some sites; None without class indices."""
        return self._means(1, sites) / len(self._data) if self._has_errors else None

    def balanced_error(self, sites: Sequence[int]) -> NDArray[np.float64] | None:
        """The mean error with every class weighing alike; None without class indices."""
        return self._means(2, sites) if self._has_errors else None

    def _means(self, which: int, sites: Sequence[int]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = self._sums[which].cpu().numpy()[list(sites)]
        return values

    def outcomes(self, sites: Sequence[int]) -> Outcomes | None:
        """Every example's error at some of the first sites."""
        if not self._has_errors:
            return None
        ties = {}
        for point, site in enumerate(sites):
            if site in self._ties:
                where, fractions = (np.concatenate(parts) for parts in zip(*self._ties[site], strict=True))
                order = np.argsort(where)
                ties[point] = where[order], fractions[order]
        return Outcomes(bits=self._bits[list(sites)], examples=len(self._data), ties=ties)

    def losses(self, sites: Sequence[int]) -> NDArray[np.float32] | None:
        """Every example's loss, where it was to be kept."""
        return None if self._losses is None else self._losses[list(sites)]

    def logits(self, sites: Sequence[int]) -> NDArray[np.float32] | None:
        """Every example's output, where it was to be kept."""
        return None if self._logits is None else self._logits[list(sites)]


def class_weights(targets: Tensor) -> Tensor:
    """What each example weighs so that every class of the data weighs alike; float64, with sum 1."""
    sizes = torch.bincount(targets)
    return (1 / ((sizes > 0).sum() * sizes.clamp(min=1)).double())[targets]


def _host(values: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = values.to("cpu", torch.float32).numpy()
    return found


def _tensor(outputs: Any) -> Tensor | None:
    return outputs if isinstance(outputs, Tensor) else None
