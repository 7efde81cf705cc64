"""What an evaluation works on: a network's replica, the data, the sites to visit, and where their outputs go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from mli_check.data.dataset import Dataset
from mli_check.evaluation.memory import Room
from mli_check.evaluation.norm_stats import NormStats
from mli_check.evaluation.sites import Site
from mli_check.evaluation.tally import Tally
from mli_check.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Job:
    """One evaluation: `model` is the evaluator's own replica, in eval mode, where `data` lies.

    Engines add the outputs of every example at every site to `tally`.
    """

    model: nn.Module
    data: Dataset
    norm_stats: NormStats
    sites: Sequence[Site]
    tally: Tally
    room: Room
    progress: Progress | None = None

    @property
    def bases(self) -> int:
        """The largest number of basis states of any path."""
        return max((len(site.path.basis) for site in self.sites), default=0)


@dataclass(frozen=True)
class Used:
    """Which engine did the work, with how many examples at a time, and what is to be known about it."""

    engine: str
    batch_size: int
    notes: tuple[str, ...] = ()


class Ticker:
    """Reports progress in sites; work that takes all sites block by block counts for all of them alike."""

    def __init__(self, job: Job) -> None:
        self._progress, self._sites, self._examples = job.progress, len(job.sites), len(job.data)
        self._rows = self._shown = 0

    def tick(self, rows: slice, sites: int = 1) -> None:
        """So many examples are done at so many sites."""
        self._rows += (rows.stop - rows.start) * sites
        if self._progress is None:
            return
        for done in range(self._shown + 1, self._rows // self._examples + 1):
            self._progress(done, self._sites)
            self._shown = done
