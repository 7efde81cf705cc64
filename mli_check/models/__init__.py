"""The papers' architectures, built from settings."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from mli_check.errors import OptionError, UnknownNameError
from mli_check.models.autoencoder import autoencoder
from mli_check.models.fcn import fcn
from mli_check.models.initialise import INITIALISERS
from mli_check.models.lenet import lenet
from mli_check.models.pretrained import BUILDERS as PRETRAINED_BUILDERS
from mli_check.models.pretrained import fine_tuned, with_pretrained
from mli_check.models.resnet import resnet
from mli_check.models.switches import check_hidden_bias, check_layer_norm
from mli_check.models.vgg import vgg
from mli_check.settings import PRETRAINED, ModelSetting

BUILDERS: dict[str, Callable[[ModelSetting, tuple[int, ...], int], nn.Module]] = {
    "fcn": fcn,
    "lenet": lenet,
    "vgg": vgg,
    "resnet": resnet,
    "autoencoder": autoencoder,
    **dict.fromkeys(PRETRAINED_BUILDERS, fine_tuned),
}


def build(setting: ModelSetting, example_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network of `setting` for inputs of `example_shape` (channels, height, width) and so many classes.

    Draws its weights from torch's global generator. Raises UnknownNameError for a model or an initialisation that does
    not exist, OptionError for a field of the setting that the model does not have, MissingDataError for pre-trained
    weights, or a package that they need, which are not there.
    """
    if setting.name not in BUILDERS:
        raise UnknownNameError("model", setting.name, BUILDERS)
    pretrained = setting.init == PRETRAINED
    if not pretrained and setting.init not in INITIALISERS:
        raise UnknownNameError("init", setting.init, INITIALISERS)
    if pretrained and setting.name not in PRETRAINED_BUILDERS:
        raise OptionError(
            f"model `{setting.name}` has no pre-trained weights, got init={setting.init!r}; those that have: "
            f"{', '.join(PRETRAINED_BUILDERS)}"
        )
    if setting.name in PRETRAINED_BUILDERS:
        network = fine_tuned(setting, example_shape, classes)
        return with_pretrained(network, setting.name) if pretrained else INITIALISERS[setting.init](network)
    check_hidden_bias(setting)
    check_layer_norm(setting)
    return INITIALISERS[setting.init](BUILDERS[setting.name](setting, example_shape, classes))


__all__ = ["BUILDERS", "build"]
