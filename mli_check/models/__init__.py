"""The papers' architectures, built from settings."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from mli_check.errors import UnknownNameError
from mli_check.models.autoencoder import autoencoder
from mli_check.models.fcn import fcn
from mli_check.models.initialise import INITIALISERS
from mli_check.models.lenet import lenet
from mli_check.models.resnet import resnet
from mli_check.models.switches import check_hidden_bias
from mli_check.models.vgg import vgg
from mli_check.settings import ModelSetting

BUILDERS: dict[str, Callable[[ModelSetting, tuple[int, ...], int], nn.Module]] = {
    "fcn": fcn,
    "lenet": lenet,
    "vgg": vgg,
    "resnet": resnet,
    "autoencoder": autoencoder,
}


def build(setting: ModelSetting, example_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network of `setting` for inputs of `example_shape` (channels, height, width) and so many classes.

    Draws its weights from torch's global generator. Raises UnknownNameError for a model or an initialisation that does
    not exist, OptionError for a field of the setting that the model does not have.
    """
    if setting.name not in BUILDERS:
        raise UnknownNameError("model", setting.name, BUILDERS)
    if setting.init not in INITIALISERS:
        raise UnknownNameError("init", setting.init, INITIALISERS)
    check_hidden_bias(setting)
    return INITIALISERS[setting.init](BUILDERS[setting.name](setting, example_shape, classes))


__all__ = ["BUILDERS", "build"]
