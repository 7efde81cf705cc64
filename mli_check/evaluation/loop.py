"""The plain loop over sites and batches: the reference that every engine must match."""

from __future__ import annotations

from mli_check.evaluation.batches import Batches
from mli_check.evaluation.job import Job, Ticker, Used
from mli_check.evaluation.norm_stats import call, recalibrate
from mli_check.evaluation.slots import Slots

NAME = "loop"


def run(job: Job) -> Used:
    """Write one site's state into the model after another, and run the data through it."""
    slots, ticker = Slots(job.model), Ticker(job)
    batches = Batches(len(job.data), job.room.batch(len(job.data)))

    def measure(rows: slice, number: int) -> None:
        job.tally.add(number, rows, call(job.model, job.data, rows))

    def after(rows: slice) -> None:
        job.tally.settle()
        ticker.tick(rows)

    for number, site in enumerate(job.sites):
        slots.place(site)
        if site.recalibrated:
            recalibrate(job.model, job.norm_stats)
        for rows in batches:
            batches.visit(rows, [number], measure, after=after)
    job.tally.settle(all=True)
    return Used(NAME, batches.size, batches.notes)
