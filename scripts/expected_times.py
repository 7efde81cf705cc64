"""Measure on this machine how long the subjects of a scale take to train and to measure, from a few steps of each.

The data are random, of the dataset's shape and numbers, and pre-trained weights are drawn, so that nothing has to be
there. Prints a table in Markdown: a line a subject, hours for all its networks, minutes for one curve.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from mli_check.data import IMAGE_SETS, PREPARED_SETS, Dataset, load_dataset
from mli_check.evaluation.front import evaluate
from mli_check.paths import ScaledPath
from mli_check.settings import PRETRAINED, Setting
from mli_check.subjects import SCALES, SUBJECTS, Subject
from mli_check.training.fit import fit, network

TOKENS = 1000  # ids that are drawn; any vocabulary has more
FIRST = 2  # steps or points that are timed apart, for what is done once


@dataclass(frozen=True)
class Times:
    """Seconds of one training step and of one curve; `steps` that a network takes, `examples` a point of a curve."""

    step: float
    curve: float
    steps: int
    examples: int

    def training(self, networks: int) -> float:
        """Hours for so many networks, one after the other."""
        return networks * self.steps * self.step / 3600


def sizes(subject: Subject) -> tuple[int, int]:
    """How many training examples a network sees in an epoch, and how many test examples a curve is measured on."""
    name = subject.setting.data.name
    if name in IMAGE_SETS:
        train, test = IMAGE_SETS[name].train.examples, IMAGE_SETS[name].test.examples
    elif name in PREPARED_SETS:
        train, test = (PREPARED_SETS[name].examples[split] for split in ("train", "test"))
    else:
        train, test = (len(load_dataset(name, split)) for split in ("train", "test"))
    return subject.setting.data.subset or train, subject.test_examples or test


def drawn(subject: Subject, count: int, device: str) -> Dataset:
    """`count` random examples that a network takes for those of the subject's dataset."""
    generator, name = torch.Generator().manual_seed(0), subject.setting.data.name
    source = IMAGE_SETS.get(name) or PREPARED_SETS.get(name) or load_dataset(name)
    if isinstance(source, Dataset):
        inputs = torch.randn(count, *source.example_shape, generator=generator)
        normalisation = None
    else:
        normalisation = source.normalisation
        kind, top = (torch.int64, TOKENS) if normalisation is None else (torch.uint8, 256)
        inputs = torch.randint(2, top, (count, *source.shape), generator=generator, dtype=kind)
    targets = torch.arange(count) % source.classes
    return Dataset(inputs, targets, name, n_classes=source.classes, normalisation=normalisation).to(device)


def shortened(subject: Subject) -> Setting:
    """The subject's setting for one epoch of whatever data it gets, from drawn weights."""
    setting = subject.setting
    init = "torch" if setting.model.init == PRETRAINED else setting.model.init
    recipe = replace(setting.recipe, epochs=1, milestones=(), checkpoints=())
    return replace(setting, model=replace(setting.model, init=init), recipe=recipe)


def each(job: Callable[[int], object], few: int, many: int, device: str) -> float:
    """Seconds that `job(n)` takes for each of n, beyond what it does once; the least of two rounds.

    Where so few take no longer than fewer, what `job` does once is not told apart.
    """
    found = []
    for _ in range(2):
        moments = []
        for count in (0, few, many):
            if count:
                job(count)
            if device != "cpu":
                torch.cuda.synchronize()
            moments.append(time.perf_counter())
        shorter, longer = moments[1] - moments[0], moments[2] - moments[1]
        found.append((longer - shorter) / (many - few) if longer > shorter else longer / many)
    return min(found)


def expected(subject: Subject, device: str = "cpu", steps: int = 12) -> Times:
    """How long a training step and a curve of the subject take, from so many steps, and points on two batches."""
    setting = shortened(subject)
    batch = setting.recipe.batch_size
    train, test = sizes(subject)
    data = drawn(subject, steps * batch, device)
    fit(setting, data.subset(batch))  # what is loaded at the first use
    step = each(lambda count: fit(setting, data.subset(count * batch)), FIRST, steps, device)
    few = data.subset(min(2 * batch, len(data)))
    model = network(setting, data).to(device)
    path = ScaledPath({name: tensor.to(device) for name, tensor in model.state_dict().items()})
    calibration = few if subject.setting.model.batch_norm else None
    point = each(
        lambda count: evaluate(model, path, few, points=count, calibration=calibration, device=device), FIRST, steps,
        device,
    )  # fmt: skip
    per_example = point / len(few) / (1 if calibration is None else 2)
    calibrated = (subject.calibration_examples or train) if calibration is not None else 0
    examples = test + calibrated
    return Times(step, per_example * examples * subject.points, subject.setting.recipe.steps(train), examples)


def line(subject: Subject, times: Times) -> str:
    """A row of the table."""
    cells = (
        subject.name, str(subject.networks), f"{times.steps:,}", f"{1000 * times.step:.3g}",
        f"{times.training(subject.networks):.2g}", f"{times.examples:,}", f"{times.curve / 60:.2g}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| subject | networks | steps each | ms a step | hours to train all | examples a point | minutes a curve |\n"
    "|---|---|---|---|---|---|---|"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the subjects of a scale and print the table, a line as soon as it is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", choices=SCALES, default="paper")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--subject", nargs="+", help="only these")
    parser.add_argument("--steps", type=int, default=12, help="timed steps of a network and points of a curve")
    options = parser.parse_args(arguments)
    print(f"{options.device}, torch {torch.__version__}, {torch.get_num_threads()} threads\n\n{HEAD}")
    for subject in SUBJECTS:
        if subject.scale == options.scale and subject.name in (options.subject or [subject.name]):
            print(line(subject, expected(subject, options.device, options.steps)), flush=True)


if __name__ == "__main__":
    main()
