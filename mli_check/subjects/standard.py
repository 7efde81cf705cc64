"""Subjects on the papers' datasets, sized for minutes on one GPU, and the same ones cut down to a smoke test."""

from __future__ import annotations

from mli_check.settings import DataSetting, ModelSetting, Recipe, Setting
from mli_check.subjects.subject import Subject, setting, smoke

FCN4 = ModelSetting(name="fcn", hidden=(1024, 1024, 1024))
VGG8 = ModelSetting(name="vgg", variant="8", hidden=(512, 512), init="kaiming")
VGG8_BN = ModelSetting(name="vgg", variant="8", hidden=(512, 512), init="kaiming", batch_norm=True)
VGG16_BN = ModelSetting(name="vgg", variant="16", batch_norm=True)
RESNET8 = ModelSetting(name="resnet", variant="8", batch_norm=True)
RESNET20 = ModelSetting(name="resnet", variant="20", batch_norm=True)

_FCN4_RECIPE = Recipe(optimiser="sgd", lr=0.01, momentum=0.9, epochs=5, batch_size=128)
_VGG8_RECIPE = Recipe(
    optimiser="sgd", lr=0.01, momentum=0.9, weight_decay=1e-4, epochs=10, batch_size=128, milestones=(7, 9),
    precision="bfloat16",
)  # fmt: skip
_SMALL_RECIPE = Recipe(
    optimiser="sgd", lr=0.1, momentum=0.9, weight_decay=1e-4, epochs=8, batch_size=128, milestones=(5, 7),
    augmentation="crop-flip", precision="bfloat16", checkpoints=(3, 10, 30, 100, 300),
)  # fmt: skip
_DEEP_RECIPE = Recipe(
    optimiser="sgd", lr=0.1, momentum=0.9, weight_decay=1e-4, epochs=10, batch_size=128, milestones=(6, 9),
    augmentation="crop-flip", precision="bfloat16", checkpoints=(3, 10, 30, 100, 300, 1000, 3000),
)  # fmt: skip
_WIDTHS = "hidden widths of 1024, batches of 128"
_VGG8_LAYERS = "5 convolutions of 64 to 512 channels and 3 linear layers, batches of 128, no augmentation"
_PAIR = "vgg8-cifar10"  # the group of two subjects that T5 and T6 compare
_CIFAR = "batches of 128, random crops and mirror images"


def _standard(
    name: str, title: str, data: str, model: ModelSetting, recipe: Recipe, choices: str, group: str = ""
) -> Subject:
    deep = model.name != "fcn"
    return Subject(
        name=name,
        title=title,
        scale="standard",
        group=group or name,
        setting=setting(data, model, recipe),
        test_examples=5000 if deep else 0,
        calibration_examples=1000 if model.batch_norm else 0,
        choices=choices,
    )


_RESNET8_CIFAR10 = Subject(
    name="resnet8-cifar10",
    title="ResNet8 with BN on 10,000 images of CIFAR-10",
    scale="standard",
    group="resnet8-cifar10",
    setting=Setting(data=DataSetting(name="cifar10", subset=10_000), model=RESNET8, recipe=_SMALL_RECIPE),
    test_examples=2000,
    calibration_examples=250,
    choices="small enough to be trained and measured on a CPU, in about an hour",
)

STANDARD = (
    _standard("vgg16-bn-cifar10", "VGG16 with BN on CIFAR-10", "cifar10", VGG16_BN, _DEEP_RECIPE, _CIFAR),
    _standard("resnet20-cifar10", "ResNet20 with BN on CIFAR-10", "cifar10", RESNET20, _DEEP_RECIPE, _CIFAR),
    _standard("resnet20-cifar100", "ResNet20 with BN on CIFAR-100", "cifar100", RESNET20, _DEEP_RECIPE, _CIFAR),
    _standard("vgg8-cifar10", "VGG8 without BN on CIFAR-10", "cifar10", VGG8, _VGG8_RECIPE, _VGG8_LAYERS, _PAIR),
    _standard("vgg8-bn-cifar10", "VGG8 with BN on CIFAR-10", "cifar10", VGG8_BN, _VGG8_RECIPE, _VGG8_LAYERS, _PAIR),
    _standard("vgg8-svhn", "VGG8 without BN on SVHN", "svhn", VGG8, _VGG8_RECIPE, _VGG8_LAYERS),
    _RESNET8_CIFAR10,
    _standard("fcn4-mnist", "FCN4 on MNIST", "mnist", FCN4, _FCN4_RECIPE, _WIDTHS),
    _standard("fcn4-fashion", "FCN4 on Fashion-MNIST", "fashion-mnist", FCN4, _FCN4_RECIPE, _WIDTHS),
)
SMOKE = tuple(smoke(subject) for subject in STANDARD)
