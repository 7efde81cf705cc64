"""Many networks trained at once, held against the same networks trained one at a time in the same rounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from benchmarks import work
from benchmarks.bars import NARROW, NARROW_BN, ONE_BY_ONE, TRAINED_DEEP, TRAINED_SMALL, TRAINED_WIDE, TRAINED_WIDE_CUDA
from benchmarks.rounds import race
from benchmarks.table import Report
from benchmarks.work import Size, on_cuda
from mli_check.data import Dataset, load_dataset
from mli_check.settings import DataSetting, ModelSetting, Recipe, Setting
from mli_check.training.ensemble import fit_together
from mli_check.training.fit import Fit, fit
from mli_check.training.grouping import groups

_VGG = ModelSetting(name="vgg", variant="tiny", hidden=(32,), init="kaiming")
_KINDS: dict[str, tuple[ModelSetting, int, int]] = {  # the network, how many of them, epochs
    TRAINED_SMALL: (ModelSetting(name="fcn", hidden=(64,)), 64, 3),
    TRAINED_DEEP: (ModelSetting(name="fcn", hidden=(64,) * 4), 64, 3),
    TRAINED_WIDE: (ModelSetting(name="fcn", hidden=(256,)), 64, 1),
    TRAINED_WIDE_CUDA: (ModelSetting(name="fcn", hidden=(256,)), 256, 4),
    NARROW: (_VGG, 20, 3),
    NARROW_BN: (dataclasses.replace(_VGG, batch_norm=True), 20, 3),
}


def settings_of(kind: str, size: Size) -> list[Setting]:
    """As many networks as the kind says, by SGD with momentum; few of them for one epoch at tiny sizes."""
    model, count, epochs = _KINDS[kind]
    count, epochs = (count, epochs) if size is work.FULL else (5, 1)
    recipe = Recipe(optimiser="sgd", lr=0.01, momentum=0.9, epochs=epochs, batch_size=50)
    data = DataSetting(name="digits")
    return [Setting(data=data, model=model, recipe=recipe).with_seeds(seed) for seed in range(count)]


def images_of(kind: str, size: Size, device: str) -> Dataset:
    """The digits' training part, 1,000 images of 8 x 8; for inputs of 784, 2,000 images shaped as MNIST's."""
    if kind not in (TRAINED_WIDE, TRAINED_WIDE_CUDA):
        return load_dataset("digits", "train").subset(1000 if size is work.FULL else 100)
    pictures = work.Pictures.drawn(2000 if size is work.FULL else 100, 28, work.MNIST)
    return pictures.data.to(device)


def together(settings: Sequence[Setting], data: Dataset) -> list[Fit]:
    """In the groups that `train_many` makes."""
    found = []
    for group in groups(settings, lambda _: data):
        found += [fit(group[0], data)] if len(group) == 1 else fit_together(group, [data] * len(group))
    return found


def check(settings: Sequence[Setting], few: Dataset) -> None:
    """Compare some of the networks after one epoch of few images; that warms everyone up, too."""
    short = [setting.with_recipe(epochs=1) for setting in settings[:8]]
    for setting, ours in zip(short, together(short, few), strict=True):
        for name, tensor in fit(setting, few).final.items():
            torch.testing.assert_close(ours.final[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        *(("cpu", kind) for kind in (TRAINED_SMALL, TRAINED_DEEP, TRAINED_WIDE, NARROW, NARROW_BN)),
        on_cuda(TRAINED_WIDE_CUDA),
    ],
)
def test_many_networks_are_trained_faster_than_one_at_a_time(
    device: str, kind: str, size: Size, report: Report, benchmark: Any
) -> None:
    """Timed: from settings to trained states, batches of 50, SGD with momentum. Before anything is timed both give the
    same networks after two batches; later rounding grows, as training does.
    """
    settings, data = settings_of(kind, size), images_of(kind, size, device)
    check(settings, data.subset(100))
    found = race(
        benchmark,
        device,
        lambda: together(settings, data),
        {ONE_BY_ONE: lambda: [fit(setting, data) for setting in settings]},
        size.rounds,
    )
    seen = len(data) * settings[0].recipe.epochs
    note = f"{len(settings)} networks, {seen} images each"
    report([found.row(kind, ONE_BY_ONE, note)])
