"""What tests of many networks at once share: kinds of networks, recipes, and how a member is held against `fit`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import torch
from helpers import tiny_setting

from mli_check.settings import ModelSetting
from mli_check.training.ensemble import fit_together
from mli_check.training.fit import fit
from mli_check.training.sets import reconstruction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from mli_check.data import Dataset
    from mli_check.settings import Setting
    from mli_check.training.fit import Fit

MODELS = {
    "fcn": ModelSetting(name="fcn", hidden=(16, 11)),
    "fcn-bn": ModelSetting(name="fcn", hidden=(16, 11), batch_norm=True),
    "fcn-bn without biases": ModelSetting(name="fcn", hidden=(16, 11), batch_norm=True, bias=False, activation="tanh"),
    "vgg": ModelSetting(name="vgg", variant="tiny"),
    "vgg-bn": ModelSetting(name="vgg", variant="tiny", batch_norm=True, bias=False),
    "lenet": ModelSetting(name="lenet", variant="tiny"),
    "lenet-bn": ModelSetting(name="lenet", variant="tiny", batch_norm=True),
    "resnet-bn": ModelSetting(name="resnet", variant="8-narrow", batch_norm=True),
    "autoencoder": ModelSetting(name="autoencoder", hidden=(4,)),
}
RECIPES: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.05},
    "momentum": {"lr": 0.05, "momentum": 0.9},
    "weight decay": {"lr": 0.05, "weight_decay": 0.01},
    "adam": {"optimiser": "adam", "lr": 0.01},
    "adam with weight decay": {"optimiser": "adam", "lr": 0.01, "weight_decay": 0.1},
    "rmsprop": {"optimiser": "rmsprop", "lr": 0.01},
    "rmsprop with both": {"optimiser": "rmsprop", "lr": 1e-3, "momentum": 0.5, "weight_decay": 0.01},
}
GENTLE = {"loss": "squared_error", "lr": 1e-3}  # an autoencoder's sum over 64 pixels is large


def setting_of(model: str, seed: int = 0, **recipe: Any) -> Setting:
    """A network of MODELS on 100 digits, in batches of 20."""
    options = (GENTLE if model == "autoencoder" else {}) | recipe
    return dataclasses.replace(tiny_setting(**options), model=MODELS[model]).with_seeds(seed)


def data_of(model: str, data: Dataset) -> Dataset:
    """The data as a network of MODELS takes them."""
    return reconstruction(data) if model == "autoencoder" else data


def labelled_anew(setting: Setting, share: float, seed: int = 0) -> Setting:
    """The same network on random labels."""
    return dataclasses.replace(setting, data=dataclasses.replace(setting.data, label_noise=share, label_seed=seed))


def states(result: Fit) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every state of a fit with its name."""
    yield from [("init", result.init), ("final", result.final)]
    yield from ((f"after {step}", state) for step, state in result.checkpoints.items())


def assert_agrees(found: Fit, wanted: Fit, tolerance: float) -> None:
    """The same states within the tolerance, with NaN in the same places, and the same of all that is counted."""
    assert list(found.checkpoints) == list(wanted.checkpoints)
    for (name, state), (_, other) in zip(states(found), states(wanted), strict=True):
        assert list(state) == list(other), name
        for part, tensor in state.items():
            exact = name == "init" or not tensor.is_floating_point()
            near = {"rtol": 0.0 if exact else tolerance, "atol": 0.0 if exact else tolerance}
            where = f"{name}, {part}: "
            torch.testing.assert_close(tensor, other[part], **near, equal_nan=True, msg=lambda text, w=where: w + text)
    assert (found.diverged_at, found.device) == (wanted.diverged_at, wanted.device)
    assert [list(entry) for entry in found.history] == [list(entry) for entry in wanted.history]
    for entry, other in zip(found.history, wanted.history, strict=True):
        loss = pytest.approx(other["train_loss"], rel=max(tolerance, 1e-12), nan_ok=True)
        assert entry == other | {"train_loss": loss}


def assert_each_agrees(settings: Sequence[Setting], data: Sequence[Dataset], tolerance: float) -> list[Fit]:
    """Train at once and one by one, and hold each member against itself; the members."""
    found = fit_together(settings, data)
    assert len(found) == len(settings)
    for setting, its, member in zip(settings, data, found, strict=True):
        assert_agrees(member, fit(setting, its), tolerance)
    return found


def same_bits(first: Fit, second: Fit) -> bool:
    """Whether all states and the history are equal in every bit."""
    pairs = zip(states(first), states(second), strict=True)
    equal = all(torch.equal(state[part], other[part]) for (_, state), (_, other) in pairs for part in state)
    return equal and first.history == second.history and first.diverged_at == second.diverged_at
