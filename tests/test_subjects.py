"""Tests of the subjects: which there are at which scale, and that the papers' recipes are as printed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest
import torch

from mli_check import subjects
from mli_check.data import LOADERS, Dataset
from mli_check.data.images import IMAGE_SETS
from mli_check.errors import OptionError, UnknownNameError
from mli_check.settings import PRETRAINED, Setting
from mli_check.subjects import DEFAULT_SCALES, GPU_SCALES, SCALES, SUBJECTS, Subject
from mli_check.training.fit import network
from mli_check.verdicts import FEWEST_NETWORKS

EMBEDDED = ("digits", "digits-gaussian")
every_subject = pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: f"{subject.name}-{subject.scale}")


def at(scale: str) -> list[Subject]:
    return [subject for subject in SUBJECTS if subject.scale == scale]


def test_there_are_subjects_at_every_scale_and_at_no_other() -> None:
    assert [scale for scale in SCALES if at(scale)] == list(SCALES)
    assert {subject.scale for subject in SUBJECTS} == set(SCALES)


def test_a_name_is_at_one_of_the_default_scales_at_most() -> None:
    for first, second in combinations(DEFAULT_SCALES, 2):
        assert not {subject.name for subject in at(first)} & {subject.name for subject in at(second)}


def test_no_subject_is_there_twice() -> None:
    assert set(Counter((subject.name, subject.scale) for subject in SUBJECTS).values()) == {1}


@every_subject
def test_a_subject_names_data_that_can_be_loaded_and_a_model_that_can_be_built(subject: Subject) -> None:
    assert subject.setting.data.name in LOADERS
    assert (subject.setting.data.name in EMBEDDED) is (subject.scale not in GPU_SCALES)
    assert len({setting.digest for setting in subject.settings()}) == subject.networks
    assert subject.networks >= (2 if subject.scale == "smoke" else FEWEST_NETWORKS)


@every_subject
def test_a_network_with_bn_says_how_many_examples_recalibrate_it(subject: Subject) -> None:
    assert bool(subject.calibration_examples) is (subject.setting.model.batch_norm or subject.scale == "smoke")


@pytest.mark.parametrize("name", [subject.name for subject in at("standard")])
def test_a_smoke_subject_is_the_standard_one_cut_short_under_digests_of_its_own(name: str) -> None:
    whole, short = subjects.get(name, "standard"), subjects.get(name, "smoke")
    examples = 100 if whole.setting.model.init == PRETRAINED else 2000
    assert (short.setting.data.subset, short.setting.recipe.epochs) == (examples, 1)
    assert short.setting.model == whole.setting.model
    recipe = whole.setting.recipe
    kept = {"epochs": recipe.epochs, "milestones": recipe.milestones, "checkpoints": recipe.checkpoints}
    assert replace(short.setting.recipe, **kept) == recipe
    assert set(short.setting.recipe.checkpoints) <= set(recipe.checkpoints)
    assert not {s.digest for s in short.settings()} & {s.digest for s in whole.settings()}


def log_spaced(steps: int) -> tuple[int, ...]:
    """3, 10, 30, 100, ... iterations, as many as lie before the last of `steps`."""
    return tuple(i for power in range(9) for i in (3 * 10**power, 10 ** (power + 1)) if i < steps)


FROM_CHECKPOINTS = ("vgg-bn-digits", "vgg16-bn-cifar10", "resnet8-cifar10", "resnet20-cifar100")


@pytest.mark.parametrize(
    "subject",
    [subject for subject in SUBJECTS if subject.name in FROM_CHECKPOINTS],
    ids=lambda subject: f"{subject.name}-{subject.scale}",
)
def test_the_networks_of_t28_keep_log_spaced_checkpoints_up_to_their_end(subject: Subject) -> None:
    data, recipe = subject.setting.data, subject.setting.recipe
    examples = data.subset or (1000 if data.name == "digits" else IMAGE_SETS[data.name].train.examples)
    assert recipe.checkpoints == log_spaced(recipe.steps(examples))


def test_the_four_lenets_differ_in_biases_and_bn_alone() -> None:
    base = subjects.get("lenet-digits")
    for words, switches in (
        ("no-bias-", {"bias": False}),
        ("bn-", {"batch_norm": True}),
        ("bn-no-bias-", {"batch_norm": True, "bias": False}),
    ):
        other = subjects.get(f"lenet-{words}digits")
        assert other.setting == replace(base.setting, model=replace(base.setting.model, **switches))
        same = ("scale", "group", "networks", "test_examples", "points")
        assert [getattr(other, name) for name in same] == [getattr(base, name) for name in same]


# The papers' recipes

PRINTED = {  # S1 to S4 of Tao et al. 2024, Appendix B.1; S6 of Lucas et al. 2020
    "fcn4-mnist": {"lr": 0.01, "momentum": 0.9, "epochs": 100, "weight_decay": 0.0, "milestones": ()},
    "vgg8-svhn": {"lr": 0.01, "momentum": 0.9, "epochs": 100, "weight_decay": 1e-4, "milestones": (60, 90)},
    "vgg16-bn-cifar10": {"lr": 0.1, "momentum": 0.9, "epochs": 160, "weight_decay": 1e-4, "milestones": (80, 120)},
    "resnet20-cifar100": {"lr": 0.1, "momentum": 0.9, "epochs": 160, "weight_decay": 1e-4, "milestones": (60, 90, 120)},
    "fcn-fashion": {"epochs": 200, "milestones": ()},
    "fcn-s7-mnist": {"epochs": 100, "batch_size": 128},
    "fcn-s7-cifar10": {"epochs": 100, "batch_size": 128},
}


@pytest.mark.parametrize("name", PRINTED)
def test_a_recipe_is_as_printed_and_says_what_was_chosen(name: str) -> None:
    subject = subjects.get(name, "paper")
    recipe = subject.setting.recipe
    assert {field: getattr(recipe, field) for field in PRINTED[name]} == PRINTED[name]
    assert (recipe.optimiser, recipe.gamma) == ("sgd", 0.1)
    assert subject.choices
    assert subject.setting.data.subset == subject.test_examples == 0


def test_vgg8_starts_from_kaiming_weights_and_zero_biases_and_has_no_bn() -> None:
    model = subjects.get("vgg8-svhn", "paper").setting.model
    assert (model.init, model.batch_norm, model.bias) == ("kaiming", False, True)


def test_the_batches_of_s6_have_at_most_512_images() -> None:
    assert subjects.get("fcn-fashion", "paper").setting.recipe.batch_size <= 512


def test_s7_has_72_architectures_with_two_initialisations_and_three_seeds() -> None:
    settings = list(subjects.s7_settings("cifar10", optimiser="adam", lr=1e-3))
    assert len(settings) == len({setting.digest for setting in settings}) == 432
    architectures = {replace(setting.model, init="torch") for setting in settings}
    assert len(architectures) == 72
    assert Counter(setting.model.init for setting in settings) == {"xavier": 216, "kaiming": 216}
    assert {(setting.recipe.optimiser, setting.recipe.lr) for setting in settings} == {("adam", 1e-3)}


def test_s7_refuses_a_recipe_that_cannot_be_trained() -> None:
    with pytest.raises(OptionError, match="lr"):
        list(subjects.s7_settings("mnist", lr=-1.0))


def layers(setting: Setting) -> int:
    shape = IMAGE_SETS[setting.data.name].shape
    data = Dataset(torch.zeros(1, *shape), torch.zeros(1, dtype=torch.int64), n_classes=10)
    return sum(module.weight.ndim > 1 for module in network(setting, data).modules() if hasattr(module, "weight"))


@pytest.mark.parametrize(
    ("name", "depth"), [("fcn4-mnist", 4), ("vgg8-svhn", 8), ("resnet20-cifar100", 20), ("resnet8-cifar10", 8)]
)
def test_a_network_is_as_deep_as_its_name_says(name: str, depth: int) -> None:
    assert layers(subjects.get(name, "standard").setting) == depth


# Looking one up


def test_a_subject_is_found_at_the_scale_asked_for() -> None:
    assert subjects.get("fcn4-digits").scale == "quick"
    assert subjects.get("fcn4-mnist").scale == "standard"
    assert [subjects.get("fcn4-mnist", scale).scale for scale in GPU_SCALES] == list(GPU_SCALES)
    assert subjects.find("fcn4-digits", ("paper",)) is None


def test_a_name_that_is_no_subjects_is_refused_with_those_known() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown subject 'fcn4-mnits'. Did you mean `fcn4-mnist`"):
        subjects.find("fcn4-mnits")
    with pytest.raises(UnknownNameError, match="unknown subject at scale paper 'vgg8-cifar10'"):
        subjects.get("vgg8-cifar10", "paper")


def test_seeds_start_at_the_offset() -> None:
    subject = subjects.get("fcn4-digits")
    seeds = [setting.recipe.init_seed for setting in subject.settings(100)]
    assert seeds == list(range(100, 100 + subject.networks))


def test_subjects_are_listed_without_importing_torch() -> None:
    code = "import sys; from mli_check import subjects; assert subjects.SUBJECTS; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
