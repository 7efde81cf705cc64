"""What a subject is: a family of networks that differ in their seeds alone, at one scale."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mli_check.settings import DataSetting, ModelSetting, Recipe, Setting

SCALES = ("quick", "smoke", "standard", "paper")  # by the time they take
GPU_SCALES = ("smoke", "standard", "paper")  # meant for a GPU; another device has to be asked for


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A setting, how many networks of it a claim takes, and how they are measured.

    `test_examples` and `calibration_examples` take so many (0: all) of the test and training set, as `data.sample`
    does; curves have `points` points. Subjects of one `group` run in one process, so that they share their curves.
    `choices` says what the paper leaves open and how it is filled.
    """

    name: str
    title: str
    scale: str
    group: str
    setting: Setting
    networks: int = 10
    test_examples: int = 0
    calibration_examples: int = 0
    points: int = 51
    choices: str = ""

    def settings(self, offset: int = 0) -> tuple[Setting, ...]:
        """One setting a network: seeds `offset`, `offset` + 1, ..., for the init and the order alike."""
        return tuple(self.setting.with_seeds(offset + index) for index in range(self.networks))


def setting(data: str, model: ModelSetting, recipe: Recipe) -> Setting:
    """The setting of a whole dataset."""
    return Setting(data=DataSetting(name=data), model=model, recipe=recipe)


def smoke(subject: Subject, examples: int = 2000, measured: int = 50, points: int = 6) -> Subject:
    """The subject cut down to show that it runs: two networks, one epoch, 2,000 examples, few points and test examples.

    Its recipe or its examples differ from the subject's, so that its networks are kept under digests of their own.
    """
    recipe = subject.setting.recipe
    shortened = replace(recipe, epochs=1, milestones=(), checkpoints=())
    kept = tuple(step for step in recipe.checkpoints if step < shortened.steps(examples))
    data = replace(subject.setting.data, subset=examples)
    return replace(
        subject,
        scale="smoke",
        setting=replace(subject.setting, data=data, recipe=replace(shortened, checkpoints=kept)),
        networks=2,
        test_examples=measured,
        calibration_examples=measured,
        points=points,
    )
