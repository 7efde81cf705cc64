"""The engines by name, and which one a job is given."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from mli_check.data.dataset import Dataset
from mli_check.evaluation import blocks, loop, memory, recognition, stacked
from mli_check.evaluation.job import Job, Used

ENGINES: dict[str, Callable[[Job], Used]] = {loop.NAME: loop.run, blocks.NAME: blocks.run, stacked.NAME: stacked.run}
LAUNCH_BOUND = 2**28  # products of a pass that a GPU makes in the time that ten operations take to start


def choose(asked: str, model: nn.Module, data: Dataset) -> str:
    """The engine for a model and its data: the one `asked` for, or for `auto` the one that pays.

    A CPU shares first layers, since there stacking was never faster (docs/performance.md); a GPU stacks what takes
    longer to start than to compute.
    """
    if asked != "auto":
        return asked
    kind = data.targets.device.type
    batch = min(len(data), memory.MOST_EXAMPLES.get(kind, 0))
    launch_bound = kind == "cuda" and batch * memory.products_per_example(model, data) < LAUNCH_BOUND
    return stacked.NAME if launch_bound else blocks.NAME


def run(job: Job, name: str, *, freely: bool) -> Used:
    """Do the job with an engine; `freely` leaves alone first layers too small for sharing to pay."""
    if name == blocks.NAME and freely and job.data.targets.device.type == "cpu":
        return blocks.run(job, recognition.PAYS)
    return ENGINES[name](job)
