"""Subjects on data that need no download: seconds each on two CPU cores."""

from __future__ import annotations

from mli_check.settings import ModelSetting, Recipe
from mli_check.subjects.subject import Subject, setting

MANY = 20  # of the subjects of claims about what always or tends to happen

_FCN4 = ModelSetting(name="fcn", hidden=(64, 64, 64))
_FCN4_BN = ModelSetting(name="fcn", hidden=(64, 64, 64), batch_norm=True)
_FCN4_LN = ModelSetting(name="fcn", hidden=(64, 64, 64), layer_norm=True)
_FCN4_RECIPE = Recipe(optimiser="sgd", lr=0.05, momentum=0.9, epochs=20, batch_size=50)
_VGG = ModelSetting(name="vgg", variant="tiny", hidden=(32,), init="kaiming")
_VGG_BN = ModelSetting(name="vgg", variant="tiny", hidden=(32,), init="kaiming", batch_norm=True)
_VGG_RECIPE = Recipe(
    optimiser="sgd", lr=0.02, momentum=0.9, weight_decay=1e-4, epochs=15, batch_size=50, milestones=(10, 13),
    checkpoints=(3, 10, 30, 100),
)  # fmt: skip

_LENET = ModelSetting(name="lenet", variant="tiny")
_LENET_BN = ModelSetting(name="lenet", variant="tiny", batch_norm=True)
_LENET_NO_BIAS = ModelSetting(name="lenet", variant="tiny", bias=False)
_LENET_BN_NO_BIAS = ModelSetting(name="lenet", variant="tiny", batch_norm=True, bias=False)
_RESNET8 = ModelSetting(name="resnet", variant="8-narrow", batch_norm=True)
_RESNET8_RECIPE = Recipe(
    optimiser="sgd", lr=0.05, momentum=0.9, weight_decay=1e-4, epochs=10, batch_size=50, milestones=(7, 9)
)

QUICK = (  # the slowest group first: claims run in this order, and no worker should be left with it at the end
    Subject(
        name="vgg-bn-digits",
        title="VGG with BN on the embedded digits",
        scale="quick",
        group="vgg-digits",
        networks=MANY,
        setting=setting("digits", _VGG_BN, _VGG_RECIPE),
        calibration_examples=250,
    ),
    Subject(
        name="vgg-digits",
        title="VGG without BN on the embedded digits",
        scale="quick",
        group="vgg-digits",
        networks=MANY,
        setting=setting("digits", _VGG, _VGG_RECIPE),
    ),
    Subject(
        name="resnet8-digits",
        title="ResNet8 with BN on the embedded digits",
        scale="quick",
        group="resnet8-digits",
        setting=setting("digits", _RESNET8, _RESNET8_RECIPE),
        calibration_examples=250,
        choices="half the channels of a CIFAR ResNet: 8, 16, 32",
    ),
    Subject(
        name="lenet-digits",
        title="LeNet on the embedded digits",
        scale="quick",
        group="lenet-digits",
        setting=setting("digits", _LENET, _VGG_RECIPE),
    ),
    Subject(
        name="lenet-no-bias-digits",
        title="LeNet without biases on the embedded digits",
        scale="quick",
        group="lenet-digits",
        setting=setting("digits", _LENET_NO_BIAS, _VGG_RECIPE),
    ),
    Subject(
        name="lenet-bn-digits",
        title="LeNet with BN after its convolutions on the embedded digits",
        scale="quick",
        group="lenet-digits",
        setting=setting("digits", _LENET_BN, _VGG_RECIPE),
        calibration_examples=250,
    ),
    Subject(
        name="lenet-bn-no-bias-digits",
        title="LeNet with BN after its convolutions and without biases on the embedded digits",
        scale="quick",
        group="lenet-digits",
        setting=setting("digits", _LENET_BN_NO_BIAS, _VGG_RECIPE),
        calibration_examples=250,
        choices="BN keeps its shifts: without biases are the convolutions and linear layers",
    ),
    Subject(
        name="fcn4-digits",
        title="FCN4 on the embedded digits",
        scale="quick",
        group="fcn4-digits",
        networks=MANY,
        setting=setting("digits", _FCN4, _FCN4_RECIPE),
    ),
    Subject(
        name="fcn4-bn-digits",
        title="FCN4 with BN on the embedded digits",
        scale="quick",
        group="fcn4-norm-digits",
        setting=setting("digits", _FCN4_BN, _FCN4_RECIPE),
        calibration_examples=250,
    ),
    Subject(
        name="fcn4-ln-digits",
        title="FCN4 with layer normalisation on the embedded digits",
        scale="quick",
        group="fcn4-norm-digits",
        setting=setting("digits", _FCN4_LN, _FCN4_RECIPE),
    ),
    Subject(
        name="fcn4-gaussian",
        title="FCN4 on class Gaussians of the digits",
        scale="quick",
        group="fcn4-gaussian",
        networks=MANY,
        setting=setting("digits-gaussian", _FCN4, _FCN4_RECIPE),
        test_examples=4_000,
    ),
)
