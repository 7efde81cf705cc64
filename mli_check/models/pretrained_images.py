"""EfficientNet-Lite0 and ResNet50 with a head of their own."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mli_check.data.weights import library
from mli_check.models.switches import check_images

ENLARGED = 96  # pixels a side: what CIFAR's 32 become, so that 5 halvings leave something
_MOMENTUM = 0.1  # of running statistics; torch's own default, as in ResNet50
FEATURES = {"efficientnet-lite0": 1280, "resnet50": 2048}


class ImageClassifier(nn.Module):
    """Images (n, 3, height, width) to logits (n, classes): `body` gives features, `head` is linear.

    With `side`, images are first enlarged to that many pixels a side, bilinearly, so that datasets stay small.
    """

    def __init__(self, body: nn.Module, features: int, classes: int, side: int | None = None) -> None:
        super().__init__()
        self.body, self.head, self.side = body, nn.Linear(features, classes), side

    def forward(self, images: Tensor) -> Tensor:
        if self.side is not None:
            images = F.interpolate(images, size=(self.side, self.side), mode="bilinear", align_corners=False)
        logits: Tensor = self.head(self.body(images))
        return logits


def efficientnet_lite0(example_shape: tuple[int, ...], classes: int) -> nn.Module:
    """EfficientNet-Lite0 (BN, ReLU6; no squeeze-and-excitation) on images that are enlarged to 96 x 96 pixels.

    Our choices: no dropout and no drop-connect, so that training repeats, and running statistics that move by a tenth
    with each batch, not by a hundredth, since fine-tuning is short. BN's eta stays 1e-3, as it was trained. Raises
    OptionError for examples that are no colour images, MissingDataError without the package.
    """
    check_images("efficientnet-lite0", example_shape, 8, channels=3)
    package = library("efficientnet_lite_pytorch", "model `efficientnet-lite0`")
    body = package.EfficientNet.from_name(
        "efficientnet-lite0", image_size=ENLARGED, dropout_rate=0.0, drop_connect_rate=0.0, num_classes=1
    )
    body._fc = nn.Identity()
    for layer in body.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = _MOMENTUM
    return ImageClassifier(body, FEATURES["efficientnet-lite0"], classes, ENLARGED)


def resnet50(example_shape: tuple[int, ...], classes: int) -> nn.Module:
    """torchvision's ResNet50 (BN, ReLU). Raises OptionError for examples that are no colour images."""
    from torchvision import models

    check_images("resnet50", example_shape, 32, channels=3)
    body = models.resnet50(weights=None, num_classes=1)
    body.fc = nn.Identity()
    return ImageClassifier(body, FEATURES["resnet50"], classes)
