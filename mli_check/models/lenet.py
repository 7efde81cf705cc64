"""LeNet-5 (LeCun et al. 1998) with ReLU and max-pools, as it is used today (Tao et al. 2024, Appendix A.5)."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from mli_check.errors import UnknownNameError
from mli_check.models.switches import check_images, check_no_hidden, check_relu
from mli_check.settings import ModelSetting

VARIANTS: dict[str, tuple[int, int]] = {
    # side of the convolutions' kernels, and of the smallest images that two pools leave something of
    "": (5, 12),
    "tiny": (3, 4),  # padded, for 8 x 8 digits
}
CHANNELS = (6, 16)
WIDTHS = (120, 84)
UNPADDED_SIDE = 32  # what LeNet-5 was drawn for; the 28 x 28 pixels of MNIST are padded to it


def lenet(setting: ModelSetting, example_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Twice convolution -> [BN ->] ReLU -> 2 x 2 max-pool, then linear layers of 120, 84 (ReLU) and the logits.

    BN follows the convolutions alone, as in Appendix A.5. The kernels are 5 x 5 without padding, but images with a side
    under 32 pixels are padded by 2 in the first convolution. Variant `tiny` has 3 x 3 kernels, padded by 1. Raises
    UnknownNameError for another variant, OptionError for `hidden`, another activation than ReLU, or images too small.
    """
    check_relu(setting)
    check_no_hidden(setting)
    if setting.variant not in VARIANTS:
        raise UnknownNameError("variant of lenet", setting.variant, map(repr, VARIANTS))
    kernel, smallest = VARIANTS[setting.variant]
    check_images(f"lenet {setting.variant!r}", example_shape, smallest)
    channels, height, width = example_shape
    layers: list[nn.Module] = []
    for wide, padding in zip(CHANNELS, _paddings(setting, min(height, width)), strict=True):
        layers.append(nn.Conv2d(channels, wide, kernel_size=kernel, padding=padding, bias=setting.bias))
        layers += [nn.BatchNorm2d(wide)] if setting.batch_norm else []
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        height, width = ((side + 2 * padding - kernel + 1) // 2 for side in (height, width))
        channels = wide
    layers.append(nn.Flatten())
    for before, after in pairwise((channels * height * width, *WIDTHS)):
        layers += [nn.Linear(before, after, bias=setting.bias), nn.ReLU()]
    layers.append(nn.Linear(WIDTHS[-1], classes, bias=setting.bias))
    return nn.Sequential(*layers)


def _paddings(setting: ModelSetting, side: int) -> tuple[int, int]:
    """The padding of each convolution, for images whose shorter side is so long."""
    if setting.variant == "tiny":
        return 1, 1
    return (2 if side < UNPADDED_SIDE else 0), 0
