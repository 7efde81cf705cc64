"""Residual networks for CIFAR (He et al. 2016, Section 4.2), with shortcuts that have no parameters (option A)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mli_check.errors import UnknownNameError
from mli_check.models.switches import check_images, check_no_hidden, check_relu
from mli_check.settings import ModelSetting

_WIDTHS = (16, 32, 64)
VARIANTS: dict[str, tuple[int, tuple[int, int, int]]] = {
    # n, the blocks of a stage (the depth is 6n + 2), and the channels of the three stages
    "8-narrow": (1, (8, 16, 32)),  # for 8 x 8 digits: a quarter of the arithmetic
    "8": (1, _WIDTHS),
    "20": (3, _WIDTHS),
    "32": (5, _WIDTHS),
}


class Block(nn.Module):
    """Two 3 x 3 convolutions around a ReLU, added to the shortcut before the last ReLU (He et al. 2016, Figure 2).

    (n, channels, height, width) -> (n, wide, height, width); a block that widens also halves height and width, rounded
    up. Its shortcut then takes every second pixel and appends channels of zeros.
    """

    def __init__(self, setting: ModelSetting, channels: int, wide: int) -> None:
        super().__init__()
        self.extra = wide - channels
        self.residual = nn.Sequential(
            *_convolution(setting, channels, wide, stride=2 if self.extra else 1),
            nn.ReLU(),
            *_convolution(setting, wide, wide),
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.extra)) if self.extra else x
        return F.relu(self.residual(x) + shortcut)


def resnet(setting: ModelSetting, example_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A convolution -> [BN ->] ReLU, three stages of n blocks, the mean over all pixels, and a linear layer of logits.

    Convolutions have biases where `bias` is on and `batch_norm` off: BN would undo them, and the paper's have none. The
    last layer's bias follows `bias` alone. Raises UnknownNameError for an unknown variant, OptionError for `hidden`,
    another activation than ReLU, or examples that are not images.
    """
    check_relu(setting)
    check_no_hidden(setting)
    if setting.variant not in VARIANTS:
        raise UnknownNameError("variant of resnet", setting.variant, VARIANTS)
    check_images(f"resnet {setting.variant!r}", example_shape, 1)
    blocks, widths = VARIANTS[setting.variant]
    channels = widths[0]
    layers: list[nn.Module] = [*_convolution(setting, example_shape[0], channels), nn.ReLU()]
    for wide in widths:
        for _ in range(blocks):
            layers.append(Block(setting, channels, wide))
            channels = wide
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes, bias=setting.bias)]
    return nn.Sequential(*layers)


def _convolution(setting: ModelSetting, channels: int, wide: int, stride: int = 1) -> list[nn.Module]:
    biased = setting.bias and not setting.batch_norm
    convolution = nn.Conv2d(channels, wide, kernel_size=3, stride=stride, padding=1, bias=biased)
    return [convolution, nn.BatchNorm2d(wide)] if setting.batch_norm else [convolution]
