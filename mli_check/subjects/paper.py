"""The papers' own recipes: Tao et al. 2024, Appendix B (S1 to S4), and Lucas et al. 2020 (S6, S7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from mli_check.settings import ModelSetting, Recipe, Setting
from mli_check.subjects.standard import FCN4, RESNET20, VGG8, VGG16_BN
from mli_check.subjects.subject import Subject, setting

_S1 = Recipe(optimiser="sgd", lr=0.01, momentum=0.9, epochs=100, batch_size=128)
_S2 = Recipe(
    optimiser="sgd", lr=0.01, momentum=0.9, weight_decay=1e-4, epochs=100, batch_size=128, milestones=(60, 90)
)
_S3 = Recipe(
    optimiser="sgd", lr=0.1, momentum=0.9, weight_decay=1e-4, epochs=160, batch_size=128, milestones=(80, 120),
    augmentation="crop-flip", precision="bfloat16",
)  # fmt: skip
_S4 = Recipe(
    optimiser="sgd", lr=0.1, momentum=0.9, weight_decay=1e-4, epochs=160, batch_size=128, milestones=(60, 90, 120),
    augmentation="crop-flip", precision="bfloat16",
)  # fmt: skip
_S6 = Recipe(optimiser="sgd", lr=0.1, epochs=200, batch_size=512)
_S7 = Recipe(optimiser="sgd", lr=0.01, epochs=100, batch_size=128)

_CHECKPOINTS = (3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000)  # for Figure 5 of Tao et al. 2024

S7_DEPTHS, S7_WIDTHS = (1, 4, 8, 16), (128, 1024, 4096)
S7_ACTIVATIONS, S7_INITS, S7_SEEDS = ("relu", "tanh", "sigmoid"), ("xavier", "kaiming"), (0, 1, 2)


def s7_settings(data: str, **recipe: object) -> Iterator[Setting]:
    """The 432 networks of S7 on `mnist` or `cifar10` (Lucas et al. 2020, Tables 1 and 2).

    That is 72 architectures (depths, widths, activations, with and without BN) by 2 initialisations by 3 seeds.
    `recipe` gives what a table varies, such as optimiser="adam", lr=1e-3. Raises OptionError for values of it that
    cannot be trained.
    """
    for depth, width, activation, batch_norm, init, seed in product(
        S7_DEPTHS, S7_WIDTHS, S7_ACTIVATIONS, (False, True), S7_INITS, S7_SEEDS
    ):
        model = ModelSetting(
            name="fcn", hidden=(width,) * depth, activation=activation, batch_norm=batch_norm, init=init
        )
        yield setting(data, model, _S7).with_recipe(**recipe).with_seeds(seed)


def _paper(name: str, title: str, data: str, model: ModelSetting, recipe: Recipe, choices: str) -> Subject:
    return Subject(
        name=name,
        title=title,
        scale="paper",
        group=name,
        setting=setting(data, model, recipe),
        calibration_examples=5000 if model.batch_norm else 0,
        choices=choices,
    )


_S7_NETWORK = ModelSetting(name="fcn", hidden=(1024,) * 4, init="kaiming")
_S7_CHOICE = "one of the 72 architectures: 4 hidden layers of 1024 ReLUs, no BN, Kaiming, SGD with lr 0.01"

PAPER = (
    _paper(
        "vgg16-bn-cifar10", "S3: VGG16 with BN on CIFAR-10", "cifar10", VGG16_BN,
        replace(_S3, checkpoints=_CHECKPOINTS),
        "one linear layer after the convolutions, batches of 128, random crops and mirror images, bfloat16 autocast",
    ),
    _paper(
        "resnet20-cifar100", "S4: ResNet20 with BN on CIFAR-100", "cifar100", RESNET20,
        replace(_S4, checkpoints=_CHECKPOINTS),
        "shortcuts without parameters, batches of 128, random crops and mirror images, bfloat16 autocast",
    ),
    _paper(
        "resnet20-cifar100-rates", "S4 with SGD and Adam at four learning rates", "cifar100", RESNET20, _S4,
        "as S4; the rate is multiplied by 0.1 at the same epochs for all",
    ),
    _paper(
        "vgg8-svhn", "S2: VGG8 without BN on SVHN", "svhn", VGG8, _S2,
        "5 convolutions of 64 to 512 channels and 3 linear layers, batches of 128, no augmentation",
    ),
    _paper("fcn4-mnist", "S1: FCN4 on MNIST", "mnist", FCN4, _S1, "hidden widths of 1024, batches of 128"),
    _paper(
        "fcn-fashion", "S6: one hidden layer on Fashion-MNIST", "fashion-mnist",
        ModelSetting(name="fcn", hidden=(1000,)), _S6, "learning rate 0.1, batches of 512",
    ),
    _paper("fcn-s7-mnist", "S7: fully connected on MNIST", "mnist", _S7_NETWORK, _S7, _S7_CHOICE),
    _paper("fcn-s7-cifar10", "S7: fully connected on CIFAR-10", "cifar10", _S7_NETWORK, _S7, _S7_CHOICE),
)  # fmt: skip
