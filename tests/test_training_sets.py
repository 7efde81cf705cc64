"""Tests of what networks are trained on: subsets, random labels, pixels for autoencoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from helpers import assert_equal_states

from mli_check import data as datasets
from mli_check.data import Dataset, Normalisation, load_dataset
from mli_check.errors import OptionError
from mli_check.runs import Store
from mli_check.settings import DataSetting, ModelSetting, Recipe, Setting
from mli_check.training.fit import fit, network
from mli_check.training.sets import reconstruction, training_data

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """The training part of an image dataset `shapes`: 120 images of ten classes, sorted by them."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (120, 1, 6, 8), generator=generator, dtype=torch.uint8)
    whole = Dataset(pixels, torch.arange(120) // 12, "shapes", 10, Normalisation((0.3,), (0.2,)))

    def load(split: str, root: Path | None) -> Dataset:
        assert split == "train"
        return whole

    monkeypatch.setitem(datasets.LOADERS, "shapes", load)
    return whole


def of_shapes(model: ModelSetting, loss: str = "cross_entropy", **data: Any) -> Setting:
    recipe = Recipe(optimiser="adam", lr=1e-3, epochs=1, batch_size=20, loss=loss)
    return Setting(data=DataSetting(name="shapes", **data), model=model, recipe=recipe)


FCN, AUTOENCODER = ModelSetting(name="fcn", hidden=(8,)), ModelSetting(name="autoencoder", hidden=(4,))


def rows_of(part: Tensor, whole: Tensor) -> list[int]:
    """Where in `whole` each of these images is, which holds it once."""
    return [int((whole == image).flatten(1).all(1).nonzero()) for image in part]


def test_the_training_data_of_a_setting_are_the_whole_set_unless_it_says_otherwise(shapes: Dataset) -> None:
    assert training_data(of_shapes(FCN)) is shapes


def test_a_subset_is_drawn_from_a_sorted_set_and_the_same_each_time(shapes: Dataset) -> None:
    part, again = (training_data(of_shapes(FCN, subset=50)) for _ in range(2))
    rows = rows_of(part.inputs, shapes.inputs)
    assert len(set(rows)) == 50
    assert len(part.targets.unique()) == 10
    assert torch.equal(part.targets, shapes.targets[rows])
    assert torch.equal(part.inputs, again.inputs)
    assert (part.n_classes, part.normalisation) == (10, shapes.normalisation)
    smaller = training_data(of_shapes(FCN, subset=20))
    assert torch.equal(smaller.inputs, part.inputs[:20])


def test_a_subset_that_lacks_classes_trains_a_network_for_all_of_them(shapes: Dataset, tmp_path: Path) -> None:
    setting = of_shapes(FCN, subset=10)
    data = training_data(setting)
    assert len(data.targets.unique()) < 10
    assert data.classes == 10
    assert network(setting, data)(data.rows(slice(2))).shape == (2, 10)
    assert Store(tmp_path).train(setting).final["3.weight"].shape == (10, 8)


def test_a_subset_beyond_the_set_is_refused(shapes: Dataset) -> None:
    with pytest.raises(OptionError, match="takes 1 to 120 examples, got 121"):
        training_data(of_shapes(FCN, subset=121))


@pytest.mark.parametrize("subset", [0, 60], ids=["whole", "subset"])
def test_label_noise_changes_a_share_of_the_labels_and_nothing_else(shapes: Dataset, subset: int) -> None:
    clean = training_data(of_shapes(FCN, subset=subset))
    noisy, again = (training_data(of_shapes(FCN, subset=subset, label_noise=0.5)) for _ in range(2))
    assert torch.equal(noisy.inputs, clean.inputs)
    assert torch.equal(noisy.targets, again.targets)
    changed = int((noisy.targets != clean.targets).sum())
    assert 0.3 * len(clean) < changed <= 0.5 * len(clean)  # a drawn label may be the old one
    assert (noisy.n_classes, noisy.normalisation) == (10, shapes.normalisation)
    assert torch.equal(shapes.targets, torch.arange(120) // 12)


def test_the_label_seed_draws_the_noise(shapes: Dataset) -> None:
    first, second = (training_data(of_shapes(FCN, label_noise=1.0, label_seed=seed)).targets for seed in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(training_data(of_shapes(FCN, label_seed=1)).targets, shapes.targets)


@pytest.mark.parametrize("subset", [0, 30], ids=["whole", "subset"])
def test_an_autoencoder_learns_pixels_from_0_to_1(shapes: Dataset, subset: int, tmp_path: Path) -> None:
    setting = of_shapes(AUTOENCODER, "squared_error", subset=subset)
    data, classes = training_data(setting), training_data(of_shapes(FCN, subset=subset))
    assert torch.equal(data.inputs, classes.inputs.float() / 255)
    assert torch.equal(data.targets, data.inputs)
    assert data.inputs.dtype == data.targets.dtype == torch.float32
    assert (float(data.inputs.min()), float(data.inputs.max())) == (0, 1)
    assert data.normalisation is None
    assert data.name == "shapes"
    assert shapes.inputs.dtype == torch.uint8
    assert_equal_states(Store(tmp_path).train(setting).final, fit(setting, data).final)


def test_a_reconstruction_of_what_keeps_no_pixels_is_of_its_inputs_as_they_are() -> None:
    digits = load_dataset("digits", "train").subset(20)
    data = reconstruction(digits)
    assert torch.equal(data.inputs, digits.inputs)
    assert torch.equal(data.targets, digits.inputs)


def test_a_dict_of_inputs_is_not_reconstructed() -> None:
    with pytest.raises(OptionError, match="'words' has a dict of inputs"):
        reconstruction(Dataset({"ids": torch.ones(4, 2)}, torch.arange(4), "words"))
