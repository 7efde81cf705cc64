"""The papers' architectures, built from settings."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from mli_check.errors import UnknownNameError
from mli_check.models.fcn import fcn
from mli_check.models.initialise import kaiming
from mli_check.models.vgg import vgg
from mli_check.settings import ModelSetting

BUILDERS: dict[str, Callable[[ModelSetting, tuple[int, ...], int], nn.Module]] = {"fcn": fcn, "vgg": vgg}


def build(setting: ModelSetting, example_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network of `setting` for inputs of `example_shape` (channels, height, width) and so many classes.

    Draws its weights from torch's global generator. Raises UnknownNameError for a model that does not exist.
    """
    if setting.name not in BUILDERS:
        raise UnknownNameError("model", setting.name, BUILDERS)
    model = BUILDERS[setting.name](setting, example_shape, classes)
    return kaiming(model) if setting.init == "kaiming" else model


__all__ = ["BUILDERS", "build"]
