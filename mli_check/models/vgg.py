"""VGG networks (Simonyan & Zisserman 2015) for small images: convolution -> [BN ->] ReLU, as NSI needs."""

from __future__ import annotations

from torch import nn

from mli_check.errors import UnknownNameError
from mli_check.models.switches import check_images, check_relu
from mli_check.settings import ModelSetting

VARIANTS: dict[str, tuple[tuple[int, ...], ...]] = {
    # channels of each 3 x 3 convolution; a 2 x 2 max-pool ends every stage
    "tiny": ((8,), (16,), (32,)),  # for 8 x 8 digits: trains in about a second on one core
    "8": ((64,), (128,), (256,), (512,), (512,)),  # not printed in Tao et al. 2024 (B.1.2): our choice, see vgg
    "16": ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),  # configuration D
    "19": ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),  # configuration E
}


def vgg(setting: ModelSetting, example_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Stages of 3 x 3 convolutions, each ended by a max-pool, then linear layers of widths `hidden` and the logits.

    The numbers of 8, 16 and 19 count three linear layers, so `hidden` of two widths; without `hidden`, one linear layer
    takes the 512 features of a 32 x 32 image to the logits, as is usual for CIFAR. There is no dropout. VGG8 is one
    convolution a stage: Tao et al. 2024 name it without its layers. Biases and BN are independent switches. Raises
    UnknownNameError for an unknown variant, OptionError for another activation than ReLU and for images that the pools
    would shrink to nothing.
    """
    check_relu(setting)
    if setting.variant not in VARIANTS:
        raise UnknownNameError("variant of vgg", setting.variant, VARIANTS)
    stages = VARIANTS[setting.variant]
    check_images(f"vgg {setting.variant!r} has {len(stages)} pools and", example_shape, 2 ** len(stages))
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
