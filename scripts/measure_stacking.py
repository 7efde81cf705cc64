"""Measure where training at once pays on this machine: the limits of mli_check/training/grouping.py come from this.

Prints, for each kind of network, how many times as fast so many members are trained at once as one after the other
(steps and all that is around them, medians of interleaved rounds). Limits are not asked: everything is stacked.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch

from mli_check.data import Dataset
from mli_check.settings import DataSetting, ModelSetting, Recipe, Setting
from mli_check.training.ensemble import fit_together
from mli_check.training.fit import fit, network

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
KINDS = (  # name, network, shape of an image, batch size, batches, members
    ("64-64-10", ModelSetting(name="fcn", hidden=(64,)), DIGITS, 50, 40, (2, 3, 4, 8, 64)),
    ("64-64-64-64-64-10", ModelSetting(name="fcn", hidden=(64,) * 4), DIGITS, 50, 40, (4, 16, 64)),
    ("64-64-10 with BN", ModelSetting(name="fcn", hidden=(64,), batch_norm=True), DIGITS, 50, 40, (8, 64)),
    ("784-256-10", ModelSetting(name="fcn", hidden=(256,)), MNIST, 50, 20, (4, 12, 64)),
    ("784-512-10", ModelSetting(name="fcn", hidden=(512,)), MNIST, 128, 10, (4, 8)),
    ("narrow VGG", ModelSetting(name="vgg", variant="tiny", hidden=(32,)), DIGITS, 50, 20, (5, 20)),
    ("narrow ResNet8", ModelSetting(name="resnet", variant="8-narrow", batch_norm=True), DIGITS, 50, 10, (5, 20)),
    ("LeNet", ModelSetting(name="lenet"), MNIST, 32, 10, (4, 16)),
    ("narrow VGG", ModelSetting(name="vgg", variant="tiny", hidden=(32,)), CIFAR, 64, 5, (8,)),
    ("ResNet8", ModelSetting(name="resnet", variant="8", batch_norm=True), CIFAR, 128, 2, (8,)),
)


def ratio(model: ModelSetting, shape: tuple[int, ...], batch: int, batches: int, members: int, rounds: int) -> float:
    """Seconds of `members` networks one after the other over theirs at once, the median of the rounds."""
    generator = torch.Generator().manual_seed(0)
    data = Dataset(torch.randn(batch * batches, *shape, generator=generator), torch.arange(batch * batches) % 10)
    recipe = Recipe(optimiser="sgd", lr=0.01, momentum=0.9, epochs=1, batch_size=batch)
    one = Setting(data=DataSetting(name="drawn"), model=model, recipe=recipe)
    settings = [one.with_seeds(seed) for seed in range(members)]
    fit(one, data)
    found = []
    for _ in range(rounds):
        times = [time.perf_counter()]
        for setting in settings[:8]:
            fit(setting, data)
        times.append(time.perf_counter())
        fit_together(settings, [data] * members)
        times.append(time.perf_counter())
        alone = (times[1] - times[0]) / len(settings[:8])
        found.append(alone * members / (times[2] - times[1]))
    return median(found)


def main() -> None:
    """Measure all kinds and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads: times as fast at once as one after the other")
    for name, model, shape, batch, batches, counts in KINDS:
        example = Dataset(torch.zeros(10, *shape), torch.arange(10))
        setting = Setting(
            data=DataSetting(name="drawn"),
            model=model,
            recipe=Recipe(optimiser="sgd", lr=0.01, epochs=1, batch_size=batch),
        )
        parameters = sum(weight.numel() for weight in network(setting, example).parameters())
        ratios = (f"{n}: {ratio(model, shape, batch, batches, n, options.rounds):.2f}" for n in counts)
        side = "x".join(map(str, shape))
        print(f"{name}, {side}, batches of {batch}, {parameters} parameters | members {', '.join(ratios)}", flush=True)


if __name__ == "__main__":
    main()
