"""Tests of settings, their canonical JSON and their digests."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from typing import Any

import pytest
from helpers import tiny_setting
from hypothesis import given
from hypothesis import strategies as st

from mli_check.errors import OptionError, UnknownNameError
from mli_check.settings import (
    ACTIVATIONS,
    AUGMENTATIONS,
    INITIALISATIONS,
    LOSSES,
    OPTIMISERS,
    PRECISIONS,
    SCHEDULES,
    TRAINING_VERSION,
    DataSetting,
    ModelSetting,
    Recipe,
    Setting,
    from_json,
)

REQUIRED: dict[str, dict[str, Any]] = {
    "data": {"name": "digits"},
    "model": {"name": "fcn"},
    "recipe": {"optimiser": "sgd", "lr": 0.1, "epochs": 3, "batch_size": 20},
}
ABSENT_MEANS: dict[str, dict[str, Any]] = {
    "data": {"subset": 0, "label_noise": 0.0, "label_seed": 0},
    "model": {"hidden": (), "variant": "", "batch_norm": False, "bias": True, "init": "torch", "activation": "relu",
              "hidden_bias": True, "layer_norm": False},
    "recipe": {
        "momentum": 0.0, "weight_decay": 0.0, "milestones": (), "gamma": 0.1, "init_seed": 0, "order_seed": 0,
        "checkpoints": (), "precision": "float32", "augmentation": "", "loss": "cross_entropy",
        "schedule": "steps",
    },
}  # fmt: skip
FIRST: dict[str, dict[str, Any]] = {  # of the fields that the first release had
    "data": {"name": "digits-gaussian", "subset": 500},
    "model": {"name": "vgg", "hidden": (64, 32), "variant": "tiny", "batch_norm": True, "bias": False,
              "init": "kaiming"},
    "recipe": {
        "optimiser": "rmsprop", "lr": 0.003, "epochs": 15, "batch_size": 50, "momentum": 0.9, "weight_decay": 1e-4,
        "milestones": (10, 13), "gamma": 0.5, "init_seed": 3, "order_seed": 4, "checkpoints": (1, 7),
        "precision": "float64",
    },
}  # fmt: skip
LATER: dict[str, dict[str, Any]] = {
    "data": {"label_noise": 0.25, "label_seed": 2},
    "model": {"activation": "tanh", "hidden_bias": False, "layer_norm": True},
    "recipe": {"augmentation": "crop-flip", "loss": "squared_error", "schedule": "linear"},
}
OTHER = {part: FIRST[part] | LATER[part] for part in FIRST}  # values that are neither absent nor in REQUIRED
KINDS = {"data": DataSetting, "model": ModelSetting, "recipe": Recipe}
FIELDS = [(part, name) for part, fields in OTHER.items() for name in fields]


def setting(**changes: dict[str, Any]) -> Setting:
    """The smallest setting with changes by part, such as setting(recipe={"lr": 0.2})."""
    return Setting(**{part: kind(**(REQUIRED[part] | changes.get(part, {}))) for part, kind in KINDS.items()})


@st.composite
def settings(draw: st.DrawFn) -> Setting:
    increasing = st.sets(st.integers(1, 10**6), max_size=4).map(sorted)
    optimiser = draw(st.sampled_from(OPTIMISERS))
    return Setting(
        data=DataSetting(
            name=draw(st.text(max_size=9)),
            subset=draw(st.integers(0, 10**6)),
            label_noise=draw(st.floats(0, 1)),
            label_seed=draw(st.integers(0, 10**6)),
        ),
        model=ModelSetting(
            name=draw(st.text(max_size=9)),
            hidden=draw(st.lists(st.integers(1, 10**4), max_size=4)),
            variant=draw(st.text(max_size=9)),
            batch_norm=draw(st.booleans()),
            bias=draw(st.booleans()),
            init=draw(st.sampled_from(INITIALISATIONS)),
            activation=draw(st.sampled_from(ACTIVATIONS)),
            hidden_bias=draw(st.booleans()),
            layer_norm=draw(st.booleans()),
        ),
        recipe=Recipe(
            optimiser=optimiser,
            lr=draw(st.floats(0, exclude_min=True, allow_infinity=False)),
            epochs=draw(st.integers(1, 10**4)),
            batch_size=draw(st.integers(1, 10**4)),
            momentum=0 if optimiser == "adam" else draw(st.floats(0, 1, exclude_max=True)),
            weight_decay=draw(st.floats(0, allow_infinity=False)),
            milestones=draw(increasing),
            gamma=draw(st.floats(0, exclude_min=True, allow_infinity=False)),
            init_seed=draw(st.integers(-(2**63), 2**63)),
            order_seed=draw(st.integers(-(2**63), 2**63)),
            checkpoints=draw(increasing),
            precision=draw(st.sampled_from(PRECISIONS)),
            augmentation=draw(st.sampled_from(AUGMENTATIONS)),
            loss=draw(st.sampled_from(LOSSES)),
            schedule=draw(st.sampled_from(SCHEDULES)),
        ),
    )


# What a digest depends on

GOLDEN = {
    "smallest": (
        setting(),
        "f91391af809c6a33be1111dddb379ffa388d2ca04853686b27f90138495579b9",
    ),
    "tests/helpers.tiny_setting": (
        tiny_setting(),
        "d743a4a66573d7be5665e0b86f660e11953cae7a1bf7568c4cd7334f65fd31b3",
    ),
    "VGG with BN": (
        Setting(
            data=DataSetting(name="digits"),
            model=ModelSetting(name="vgg", variant="tiny", hidden=(32,), init="kaiming", batch_norm=True),
            recipe=Recipe(
                optimiser="sgd", lr=0.02, momentum=0.9, weight_decay=1e-4, epochs=15, batch_size=50, milestones=(10, 13)
            ),
        ),
        "6a3a882182c1e2796a8efd31820bcf9c231685b80a26472c8103ae83598993c6",
    ),
    "every first field": (
        setting(**FIRST),
        "944c1875aa3837d61a32e212535963c27c352eac65337609f4d10d1dbff12dee",
    ),
}


@pytest.mark.parametrize(("trained", "digest"), GOLDEN.values(), ids=GOLDEN.keys())
def test_digests_are_what_they_have_always_been(trained: Setting, digest: str) -> None:
    """A change of these means that every stored run is lost: nobody's store has the new digests.

    So never paste new ones here to make this pass. Give a new field an "absent means" value that leaves old digests as
    they were; and where the trainer itself changes, raise TRAINING_VERSION deliberately and only then renew these.
    """
    assert trained.digest == digest


def test_the_canonical_json_is_sorted_terse_and_without_absent_fields() -> None:
    assert tiny_setting().canonical() == (
        '{"data":{"name":"digits","subset":100},"model":{"hidden":[8],"name":"fcn"},'
        '"recipe":{"batch_size":20,"epochs":1,"lr":0.1,"optimiser":"sgd"},"training_version":1}'
    )


def test_what_an_absent_field_means_never_changes() -> None:
    """A stored setting without a field was trained with this value, whatever the default of new settings becomes."""
    stored = json.dumps({"training_version": TRAINING_VERSION} | REQUIRED)
    assert from_json(stored) == setting(**ABSENT_MEANS)
    assert {part: list(REQUIRED[part] | ABSENT_MEANS[part]) for part in KINDS} == {
        part: [field.name for field in dataclasses.fields(kind)] for part, kind in KINDS.items()
    }


@pytest.mark.parametrize(("part", "name"), FIELDS, ids=[f"{part}.{name}" for part, name in FIELDS])
def test_a_digest_depends_on_every_field(part: str, name: str) -> None:
    changed = setting(**{part: {name: OTHER[part][name]}})
    assert changed.digest != setting().digest
    assert name in json.loads(changed.canonical())[part]


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ({"lr": 1}, {"lr": 1.0}),
        ({"epochs": 3.0}, {"epochs": 3}),
        ({"momentum": -0.0}, {"momentum": 0.0}),
        ({"momentum": 0}, {}),
        ({"epochs": True}, {"epochs": 1}),
        ({"milestones": [1, 2.0]}, {"milestones": (1, 2)}),
        ({"checkpoints": range(1, 3)}, {"checkpoints": (1, 2)}),
        ({"checkpoints": []}, {}),
    ],
    ids=str,
)
def test_values_that_are_equal_give_the_same_digest(given: dict[str, Any], same: dict[str, Any]) -> None:
    first, second = setting(recipe=given), setting(recipe=same)
    assert first.canonical() == second.canonical()
    assert first == second
    assert hash(first) == hash(second)


def test_truth_values_and_widths_are_coerced_too() -> None:
    assert (
        setting(model={"bias": 0, "hidden": [8.0]}).canonical()
        == setting(model={"bias": False, "hidden": (8,)}).canonical()
    )


@given(trained=settings(), random=st.randoms())
def test_a_digest_does_not_depend_on_the_order_of_keys(trained: Setting, random: Any) -> None:
    def shuffled(content: dict[str, Any]) -> dict[str, Any]:
        names = list(content)
        random.shuffle(names)
        return {name: shuffled(content[name]) if isinstance(content[name], dict) else content[name] for name in names}

    turned = json.dumps(shuffled(json.loads(trained.canonical())), indent=2)
    assert from_json(turned).digest == trained.digest


def test_settings_are_digested_without_torch_whatever_the_hash_seed() -> None:
    script = (
        "import sys; from mli_check.settings import from_json; print(from_json(sys.argv[1]).digest); "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    trained = setting(**OTHER)
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", script, trained.canonical()],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip() == trained.digest


# Reading JSON


@given(trained=settings())
def test_a_setting_survives_its_json(trained: Setting) -> None:
    read = from_json(trained.canonical())
    assert read == trained
    assert read.canonical() == trained.canonical()
    assert len(trained.digest) == 64


CANONICAL = setting().canonical()
BAD_JSON = {
    "no JSON": ("{", "not the JSON of a setting"),
    "a list": ("[]", "not the JSON of a setting"),
    "null": ("null", "not the JSON of a setting"),
    "no training version": (CANONICAL.replace(f',"training_version":{TRAINING_VERSION}', ""), "training_version"),
    "an older trainer's": (
        CANONICAL.replace(f'"training_version":{TRAINING_VERSION}', '"training_version":0'),
        "training version 0, expected",
    ),
    "no recipe": ('{"training_version":1,"data":{"name":"a"},"model":{"name":"b"}}', "'recipe'"),
    "a part that is no object": ('{"training_version":1,"data":3,"model":{},"recipe":{}}', "not the JSON of a setting"),
    "a field missing": (CANONICAL.replace('"lr":0.1,', ""), "lr"),
    "an unknown field": (CANONICAL.replace('"lr"', '"rate":1,"lr"'), "rate"),
    "an unknown part": (CANONICAL.replace('{"data"', '{"extra":{},"data"'), r"unknown fields \['extra'\]"),
    "a value that is not finite": (CANONICAL.replace('"lr":0.1', '"lr":NaN'), "recipe.lr=nan"),
    "a whole number that is infinite": (CANONICAL.replace('"epochs":3', '"epochs":1e999'), "recipe.epochs=inf"),
    "an unknown optimiser": (CANONICAL.replace('"sgd"', '"sdg"'), "Did you mean `sgd`"),
}


@pytest.mark.parametrize(("text", "message"), BAD_JSON.values(), ids=BAD_JSON.keys())
def test_text_that_is_no_setting_is_refused(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        from_json(text)


# Values that cannot be trained

BAD_VALUES: list[tuple[str, dict[str, Any], str]] = [
    ("recipe", {"lr": 0}, "recipe.lr=0.0 must be positive"),
    ("recipe", {"lr": -0.1}, "must be positive"),
    ("recipe", {"lr": math.nan}, "not finite"),
    ("recipe", {"lr": math.inf}, "not finite"),
    ("recipe", {"lr": 10**400}, "cannot be read as float"),
    ("recipe", {"lr": "fast"}, "recipe.lr='fast' cannot be read as float"),
    ("recipe", {"lr": None}, "cannot be read as float"),
    ("recipe", {"epochs": 0}, "at least 1"),
    ("recipe", {"epochs": 1.5}, "not a whole number"),
    ("recipe", {"epochs": "3"}, "not a whole number"),
    ("recipe", {"epochs": math.inf}, "cannot be read as int"),
    ("recipe", {"epochs": math.nan}, "cannot be read as int"),
    ("recipe", {"epochs": None}, "cannot be read as int"),
    ("recipe", {"batch_size": 0}, "at least 1"),
    ("recipe", {"batch_size": -20}, "at least 1"),
    ("recipe", {"momentum": 1}, r"in \[0, 1\)"),
    ("recipe", {"momentum": -0.1}, r"in \[0, 1\)"),
    ("recipe", {"optimiser": "adam", "momentum": 0.9}, "0 for adam"),
    ("recipe", {"weight_decay": -1e-4}, "not negative"),
    ("recipe", {"gamma": 0}, "positive"),
    ("recipe", {"milestones": (3, 2)}, "increasing epochs"),
    ("recipe", {"milestones": (2, 2)}, "increasing epochs"),
    ("recipe", {"milestones": (-1, 2)}, "not negative"),
    ("recipe", {"milestones": 2}, "cannot be read as tuple"),
    ("recipe", {"milestones": (1.5,)}, "not a whole number"),
    ("recipe", {"milestones": (math.inf,)}, "cannot be read as tuple"),
    ("recipe", {"checkpoints": (0,)}, "iterations from 1"),
    ("recipe", {"checkpoints": (5, 3)}, "increasing iterations"),
    ("recipe", {"checkpoints": (3, 3)}, "increasing iterations"),
    ("recipe", {"checkpoints": "12"}, "not a whole number"),
    ("recipe", {"init_seed": 0.5}, "not a whole number"),
    ("data", {"name": 3}, "data.name=3 cannot be read as str"),
    ("data", {"subset": -1}, "data.subset=-1 must not be negative"),
    ("data", {"label_noise": 1.5}, "data.label_noise=1.5 must be a share"),
    ("data", {"label_noise": -0.1}, "must be a share between 0 and 1"),
    ("model", {"name": "autoencoder"}, "squared_error for an autoencoder"),
    ("model", {"hidden": 64}, "cannot be read as tuple"),
    ("model", {"hidden": (8, 0)}, "positive widths"),
    ("model", {"batch_norm": "yes"}, "not a truth value"),
    ("model", {"bias": 2}, "not a truth value"),
    ("model", {"variant": None}, "cannot be read as str"),
]


@pytest.mark.parametrize(
    ("part", "values", "message"), BAD_VALUES, ids=[f"{part}: {values}" for part, values, _ in BAD_VALUES]
)
def test_a_value_that_cannot_be_trained_is_refused(part: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        setting(**{part: values})


def test_an_autoencoder_has_no_labels_to_be_random() -> None:
    trained = {"model": {"name": "autoencoder", "hidden": (5,)}, "recipe": {"loss": "squared_error"}}
    assert setting(**trained).reconstructs
    with pytest.raises(OptionError, match=r"label_noise=0\.5 goes with classes"):
        setting(**trained, data={"label_noise": 0.5})
    with pytest.raises(OptionError, match="not its targets"):
        setting(model=trained["model"], recipe=trained["recipe"] | {"augmentation": "crop"})


@pytest.mark.parametrize(
    ("part", "values", "hint"),
    [
        ("recipe", {"optimiser": "SGD "}, "unknown optimiser 'SGD '. Known: adam, rmsprop, sgd"),
        ("recipe", {"precision": "float46"}, "Did you mean `float64`"),
        ("model", {"init": "kaming"}, "Did you mean `kaiming`"),
        ("model", {"activation": "Relu"}, "Did you mean `relu`"),
        ("recipe", {"augmentation": "flip"}, "unknown augmentation 'flip'"),
        ("recipe", {"loss": "mse"}, "unknown loss 'mse'. Known: cross_entropy, squared_error"),
    ],
    ids=["optimiser", "precision", "init", "activation", "augmentation", "loss"],
)
def test_an_unknown_name_is_refused_with_those_known(part: str, values: dict[str, Any], hint: str) -> None:
    with pytest.raises(UnknownNameError) as raised:
        setting(**{part: values})
    assert hint in str(raised.value)


@pytest.mark.parametrize("part", KINDS)
def test_a_part_of_another_kind_is_refused(part: str) -> None:
    parts = {name: getattr(setting(), name) for name in KINDS}
    with pytest.raises(OptionError, match=f"`{part}` must be a {KINDS[part].__name__}, got"):
        Setting(**(parts | {part: {"name": "digits"}}))


def test_every_change_is_checked_again() -> None:
    with pytest.raises(OptionError, match="lr"):
        tiny_setting().with_recipe(lr=-1)


# Changing and describing


def test_new_seeds_change_nothing_else() -> None:
    trained = tiny_setting(momentum=0.9)
    again = trained.with_seeds(5)
    assert (again.recipe.init_seed, again.recipe.order_seed) == (5, 5)
    assert again.with_seeds(0) == trained
    apart = trained.with_seeds(5, order_seed=7)
    assert (apart.recipe.init_seed, apart.recipe.order_seed) == (5, 7)
    assert len({trained.digest, again.digest, apart.digest}) == 3


def test_a_changed_recipe_keeps_data_and_model() -> None:
    changed = tiny_setting().with_recipe(lr=0.2, optimiser="adam")
    assert changed == tiny_setting(lr=0.2, optimiser="adam")


@pytest.mark.parametrize(
    ("trained", "line"),
    [
        (tiny_setting(), "fcn 8, no BN, digits[:100], sgd lr 0.1, 1 epochs of batches of 20, seeds 0/0"),
        (
            setting(**OTHER),
            "vgg 64-32, BN, LN, no bias, no hidden bias, tanh, digits-gaussian[:500], 0.25 of labels random, "
            "crop-flip, rmsprop lr 0.003, momentum 0.9, wd 0.0001, x0.5 at (10, 13), linear to 0, 15 epochs of "
            "batches of 50, squared error, seeds 3/4",
        ),
        (
            setting(recipe={"precision": "bfloat16"}),
            "fcn, no BN, digits, sgd lr 0.1, 3 epochs of batches of 20, bfloat16, seeds 0/0",
        ),
        (setting(), "fcn, no BN, digits, sgd lr 0.1, 3 epochs of batches of 20, seeds 0/0"),
    ],
    ids=["tiny", "every field", "bfloat16", "smallest"],
)
def test_a_setting_has_a_line_for_people(trained: Setting, line: str) -> None:
    assert trained.summary == line
