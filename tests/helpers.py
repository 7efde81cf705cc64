"""What several test files share: tiny settings, networks and datasets, and small state tricks."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from mli_check.data import Dataset
from mli_check.models import build
from mli_check.settings import DataSetting, ModelSetting, Recipe, Setting

SETTINGS = {
    "fcn": ModelSetting(name="fcn", hidden=(16, 12)),
    "fcn-bn": ModelSetting(name="fcn", hidden=(16, 12), batch_norm=True),
    "vgg": ModelSetting(name="vgg", variant="tiny", hidden=(12,)),
    "vgg-bn": ModelSetting(name="vgg", variant="tiny", hidden=(12,), batch_norm=True),
}


def network(name: str) -> nn.Module:
    """One of SETTINGS for images (1, 8, 8) of ten classes, always drawn alike."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(SETTINGS[name], (1, 8, 8), 10)


def module_at(path: Path, name: str) -> ModuleType:
    """The module in a file that lies in no package, such as a script or a claim, under a name of its own."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def tiny_setting(**recipe: object) -> Setting:
    """A network that trains in a few hundredths of a second: FCN 64-8-10, one epoch over 100 digits."""
    options = {"optimiser": "sgd", "lr": 0.1, "epochs": 1, "batch_size": 20} | recipe
    return Setting(
        data=DataSetting(name="digits", subset=100),
        model=ModelSetting(name="fcn", hidden=(8,)),
        recipe=Recipe(**options),
    )


def random_state(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """A state for `model`: normal parameters and running means, positive running variances, counters as they are."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            state[name] = tensor.clone()
            continue
        drawn = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        state[name] = drawn.abs() + 0.5 if name.endswith("running_var") else drawn / max(tensor[0].numel(), 1) ** 0.5
    return state


def images(count: int, *, classes: int = 10, side: int = 8, seed: int = 0) -> Dataset:
    """Normal images (count, 1, side, side) with random classes, each class present if there is room."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 1, side, side, generator=generator)
    targets = torch.randint(classes, (count,), generator=generator)
    targets[: min(classes, count)] = torch.arange(min(classes, count))
    return Dataset(inputs, targets, "random images")


def assert_equal_states(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert list(first) == sorted(second)
    assert all(torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype for name in first)


def script_environment() -> dict[str, str]:
    """With the helpers importable."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
