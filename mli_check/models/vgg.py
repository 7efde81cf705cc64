"""VGG networks (Simonyan & Zisserman 2015) for small images: convolution -> [BN ->] ReLU, as NSI needs."""

from __future__ import annotations

from torch import nn

from mli_check.errors import OptionError, UnknownNameError
from mli_check.settings import ModelSetting

VARIANTS: dict[str, tuple[tuple[int, ...], ...]] = {
    # channels of each 3 x 3 convolution; a 2 x 2 max-pool ends every stage
    "tiny": ((8,), (16,), (32,)),  # for 8 x 8 digits: trains in about a second on one core
}


def vgg(setting: ModelSetting, example_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Stages of 3 x 3 convolutions, each ended by a max-pool, then linear layers of widths `hidden` and the logits.

    Raises UnknownNameError for an unknown variant, OptionError for images that the pools would shrink to nothing.
    """
    if setting.variant not in VARIANTS:
        raise UnknownNameError("variant of vgg", setting.variant, VARIANTS)
    stages = VARIANTS[setting.variant]
    if len(example_shape) != 3 or min(example_shape[1:]) < 2 ** len(stages):
        raise OptionError(
            f"vgg {setting.variant!r} has {len(stages)} pools and needs images (channels, height, width) of at least "
            f"{2 ** len(stages)} pixels a side, got {example_shape}"
        )
    channels, height, width = example_shape
    layers: list[nn.Module] = []
    for stage in stages:
        for wide in stage:
            layers.append(nn.Conv2d(channels, wide, kernel_size=3, padding=1, bias=setting.bias))
            layers += [nn.BatchNorm2d(wide)] if setting.batch_norm else []
            layers.append(nn.ReLU())
            channels = wide
        layers.append(nn.MaxPool2d(2))
        height, width = height // 2, width // 2
    layers.append(nn.Flatten())
    features = channels * height * width
    for hidden in setting.hidden:
        layers += [nn.Linear(features, hidden, bias=setting.bias), nn.ReLU()]
        features = hidden
    layers.append(nn.Linear(features, classes, bias=setting.bias))
    return nn.Sequential(*layers)
