"""The named settings that claims are judged on. A subject is a family of networks that differ in their seeds alone."""

from __future__ import annotations

from dataclasses import dataclass

from mli_check.errors import UnknownNameError
from mli_check.settings import DataSetting, ModelSetting, Recipe, Setting

SCALES = ("quick",)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A setting, how many networks of it a claim takes, and how they are measured.

    `test_examples` and `calibration_examples` take the first so many (0: all) of the test and training set; both sets
    are shuffled by their loaders. Subjects of one `group` run in one process, so that they share their curves.
    """

    name: str
    title: str
    scale: str
    group: str
    setting: Setting
    networks: int = 10
    test_examples: int = 0
    calibration_examples: int = 0

    def settings(self, offset: int = 0) -> tuple[Setting, ...]:
        """One setting a network: seeds `offset`, `offset` + 1, ..., for the init and the order alike."""
        return tuple(self.setting.with_seeds(offset + index) for index in range(self.networks))


_FCN4 = ModelSetting(name="fcn", hidden=(64, 64, 64))
_FCN4_RECIPE = Recipe(optimiser="sgd", lr=0.05, momentum=0.9, epochs=20, batch_size=50)
_VGG = ModelSetting(name="vgg", variant="tiny", hidden=(32,), init="kaiming")
_VGG_BN = ModelSetting(name="vgg", variant="tiny", hidden=(32,), init="kaiming", batch_norm=True)
_VGG_RECIPE = Recipe(
    optimiser="sgd", lr=0.02, momentum=0.9, weight_decay=1e-4, epochs=15, batch_size=50, milestones=(10, 13)
)


def _setting(data: str, model: ModelSetting, recipe: Recipe) -> Setting:
    return Setting(data=DataSetting(name=data), model=model, recipe=recipe)


SUBJECTS = (  # the slowest group first: claims run in this order, and no worker should be left with it at the end
    Subject(
        name="vgg-bn-digits",
        title="VGG with BN on the embedded digits",
        scale="quick",
        group="vgg-digits",
        setting=_setting("digits", _VGG_BN, _VGG_RECIPE),
        calibration_examples=250,
    ),
    Subject(
        name="vgg-digits",
        title="VGG without BN on the embedded digits",
        scale="quick",
        group="vgg-digits",
        setting=_setting("digits", _VGG, _VGG_RECIPE),
    ),
    Subject(
        name="fcn4-digits",
        title="FCN4 on the embedded digits",
        scale="quick",
        group="fcn4-digits",
        setting=_setting("digits", _FCN4, _FCN4_RECIPE),
    ),
    Subject(
        name="fcn4-gaussian",
        title="FCN4 on class Gaussians of the digits",
        scale="quick",
        group="fcn4-gaussian",
        setting=_setting("digits-gaussian", _FCN4, _FCN4_RECIPE),
        test_examples=4_000,
    ),
)


def get(name: str) -> Subject:
    """The subject of that name. Raises UnknownNameError for others."""
    for subject in SUBJECTS:
        if subject.name == name:
            return subject
    raise UnknownNameError("subject", name, [subject.name for subject in SUBJECTS])
