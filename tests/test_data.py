"""Tests of whole datasets: the embedded digits, the class Gaussians, and what makes a dataset valid."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits as embedded
from torch import Tensor

from mli_check.data import SPLITS, Dataset, load_dataset
from mli_check.data.digits import MEAN, STD
from mli_check.errors import DataError, OptionError, UnknownNameError
from mli_check.states import digest

SIZES = {
    ("digits", "train"): 1000,
    ("digits", "test"): 797,
    ("digits-gaussian", "train"): 2000,
    ("digits-gaussian", "test"): 20_000,
}
GOLDEN = {
    "train": "f65cd94405b021cb67197964d57f95f2c896b458b427085cbff08e55ed0f1263",
    "test": "00c60e367f4c45d5cb726a53714d5a0223207c954aa2fd0f6d248b891761a092",
}


@pytest.fixture(scope="module")
def loaded() -> dict[tuple[str, str], Dataset]:
    return {key: load_dataset(*key) for key in SIZES}


def digest_of(data: Dataset) -> str:
    assert isinstance(data.inputs, Tensor)
    return digest({"inputs": data.inputs, "targets": data.targets})


def pixels(data: Dataset) -> np.ndarray:
    """The images before normalisation, shape (n, 64), in 0..1."""
    assert isinstance(data.inputs, Tensor)
    return data.inputs.double().flatten(1).numpy() * STD + MEAN


def rows(data: Dataset) -> Counter[tuple[int, ...]]:
    """Every image of the embedded digits, its pixels 0..16, followed by its label."""
    images = np.rint(pixels(data) * 16).astype(int)
    return Counter((*image, label) for image, label in zip(images.tolist(), data.targets.tolist(), strict=True))


# What all embedded sets have in common


@pytest.mark.parametrize("key", SIZES, ids="-".join)
def test_an_embedded_set_has_its_size_shape_and_classes(
    loaded: dict[tuple[str, str], Dataset], key: tuple[str, str]
) -> None:
    data = loaded[key]
    assert len(data) == SIZES[key]
    assert data.name == key[0]
    assert data.example_shape == (1, 8, 8)
    assert data.inputs.dtype == torch.float32
    assert data.targets.dtype == torch.int64
    assert data.classes == 10
    assert torch.isfinite(data.inputs).all()


def test_another_process_loads_the_same_bits(loaded: dict[tuple[str, str], Dataset]) -> None:
    script = (
        "import sys; from mli_check.data import load_dataset; from mli_check.states import digest\n"
        "for name, split in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        "    data = load_dataset(name, split); print(digest({'inputs': data.inputs, 'targets': data.targets}))"
    )
    words = [word for key in SIZES for word in key]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [digest_of(data) for data in loaded.values()]


@pytest.mark.parametrize("key", SIZES, ids="-".join)
def test_what_a_caller_does_to_a_dataset_does_not_reach_the_next(
    loaded: dict[tuple[str, str], Dataset], key: tuple[str, str]
) -> None:
    spoilt = load_dataset(*key)
    spoilt.inputs.zero_()
    spoilt.targets.zero_()
    assert digest_of(load_dataset(*key)) == digest_of(loaded[key])


def test_loading_leaves_the_global_generators_alone() -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    load_dataset("digits-gaussian", "train")
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


# The digits


@pytest.mark.parametrize("split", SPLITS)
def test_the_digits_are_what_they_have_always_been(loaded: dict[tuple[str, str], Dataset], split: str) -> None:
    """A change of these means that stored runs were trained on other data than the name `digits` now gives.

    Restore the split, or give the new one another name; the digest of a setting knows no more than the name.
    """
    assert digest_of(loaded["digits", split]) == GOLDEN[split]


def test_the_two_parts_of_the_digits_are_disjoint_and_together_the_whole(
    loaded: dict[tuple[str, str], Dataset],
) -> None:
    images, labels = embedded(return_X_y=True)
    whole = Counter((*image, label) for image, label in zip(images.astype(int).tolist(), labels.tolist(), strict=True))
    assert len(whole) == 1797  # no image occurs twice, so that equal images are the same image
    train, test = rows(loaded["digits", "train"]), rows(loaded["digits", "test"])
    assert not train & test
    assert train + test == whole


@pytest.mark.parametrize("split", SPLITS)
def test_the_digits_are_stratified(loaded: dict[tuple[str, str], Dataset], split: str) -> None:
    data = loaded["digits", split]
    proportional = np.bincount(embedded().target) * len(data) / 1797
    assert np.abs(np.bincount(data.targets) - proportional).max() < 1


@pytest.mark.parametrize("split", SPLITS)
def test_the_digits_are_shuffled(loaded: dict[tuple[str, str], Dataset], split: str) -> None:
    assert set(loaded["digits", split].targets[:100].tolist()) == set(range(10))
    assert len(set(loaded["digits", split].targets[:10].tolist())) < 10  # embedded in the order 0, 1, ..., 9, 0, ...


def test_the_digits_are_normalised_by_their_training_part(loaded: dict[tuple[str, str], Dataset]) -> None:
    train = pixels(loaded["digits", "train"])
    assert round(float(train.mean()), 4) == MEAN
    assert round(float(train.std()), 4) == STD
    inputs = loaded["digits", "train"].inputs
    assert float(inputs.mean()) == pytest.approx(0, abs=2e-4)  # the constants have four digits
    assert float(inputs.std()) == pytest.approx(1, abs=2e-4)


# The class Gaussians


@pytest.mark.parametrize("split", SPLITS)
def test_the_gaussian_classes_are_balanced(loaded: dict[tuple[str, str], Dataset], split: str) -> None:
    data = loaded["digits-gaussian", split]
    assert torch.bincount(data.targets).tolist() == [len(data) // 10] * 10
    assert torch.bincount(data.subset(500).targets).tolist() == [50] * 10


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("label", range(10))
def test_a_gaussian_class_has_the_mean_and_covariance_of_its_training_images(
    loaded: dict[tuple[str, str], Dataset], split: str, label: int
) -> None:
    """Both hold up to sampling error, stated here; n is the number of draws.

    A pixel's mean has the standard error sigma / sqrt(n); 5 of these are allowed. The squared Frobenius distance of the
    covariances is (tr(S)^2 + |S|^2) / (n - 1) on average; twice that is allowed. Covariances wrong by a factor of 2
    would be |S|^2 apart, which is at least 15 times the average in the smaller set.
    """
    real, drawn = loaded["digits", "train"], loaded["digits-gaussian", split]
    original = pixels(real)[real.targets.numpy() == label]
    draws = pixels(drawn)[drawn.targets.numpy() == label]
    sigma, off = original.std(axis=0, ddof=1), draws.mean(axis=0) - original.mean(axis=0)
    blank = sigma == 0
    assert np.abs(off[blank]).max(initial=0) < 1e-6
    assert (np.abs(off[~blank]) / sigma[~blank] * np.sqrt(len(draws))).max() < 5
    wanted, found = np.cov(original.T), np.cov(draws.T)
    expected = (np.trace(wanted) ** 2 + np.square(wanted).sum()) / (len(draws) - 1)
    assert np.square(found - wanted).sum() < 2 * expected


def test_no_gaussian_image_is_drawn_twice(loaded: dict[tuple[str, str], Dataset]) -> None:
    both = torch.cat([loaded["digits-gaussian", split].inputs.flatten(1) for split in SPLITS])
    assert len(np.unique(both.numpy(), axis=0)) == len(both)


# Datasets by name


@pytest.mark.parametrize(
    ("name", "split", "hint"),
    [
        ("digit", "test", "unknown dataset 'digit'. Did you mean `digits`?"),
        ("imagenet-22k", "test", "Known: digits"),
        ("", "test", "unknown dataset ''"),
        ("digits", "tets", "unknown split 'tets'. Did you mean `test`?"),
        ("digits", "validation", "Known: test, train."),
    ],
    ids=str,
)
def test_an_unknown_dataset_or_split_is_refused_with_those_known(name: str, split: str, hint: str) -> None:
    with pytest.raises(UnknownNameError) as raised:
        load_dataset(name, split)
    assert hint in str(raised.value)


def test_the_test_part_is_the_default_and_embedded_sets_need_no_root() -> None:
    assert len(load_dataset("digits")) == 797
    assert len(load_dataset("digits", root="/nowhere", device="cpu")) == 797


# What makes a dataset valid

ONES, CLASSES = torch.ones(3, 2), torch.tensor([0, 1, 2])
INVALID: dict[str, tuple[Any, Any, str]] = {
    "empty": (torch.ones(0, 2), torch.tensor([], dtype=torch.int64), "'mine' is empty"),
    "empty dict": ({}, CLASSES, "must be tensors"),
    "empty tensors in a dict": ({"a": torch.ones(0)}, torch.ones(0), "is empty"),
    "fewer targets": (ONES, CLASSES[:2], r"unequal lengths {'inputs': 3, 'targets': 2}"),
    "fewer inputs": (ONES[:2], CLASSES, "unequal lengths"),
    "unequal dict": ({"a": ONES, "b": ONES[:2]}, CLASSES, r"unequal lengths {'a': 3, 'b': 2, 'targets': 3}"),
    "scalar targets": (ONES, torch.tensor(1), "unequal lengths"),
    "scalar inputs": (torch.tensor(1.0), CLASSES, "unequal lengths"),
    "scalars": (torch.tensor(1.0), torch.tensor(1), "is empty"),
    "negative class": (ONES, torch.tensor([0, -1, 2]), "negative class indices; number the classes from 0"),
    "inputs in a list": ([[1.0], [1.0], [1.0]], CLASSES, "must be tensors; inputs may be a dict of them"),
    "inputs in an array": (np.ones((3, 2)), CLASSES, "must be tensors"),
    "arrays in a dict": ({"a": np.ones((3, 2))}, CLASSES, "must be tensors"),
    "no inputs": (None, CLASSES, "must be tensors"),
    "targets in a list": (ONES, [0, 1, 2], "must be tensors"),
    "no targets": (ONES, None, "must be tensors"),
}


@pytest.mark.parametrize(("inputs", "targets", "message"), INVALID.values(), ids=INVALID.keys())
def test_an_invalid_dataset_is_refused(inputs: Any, targets: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset(inputs, targets, "mine")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool], ids=str)
def test_class_indices_of_any_integer_type_become_int64(dtype: torch.dtype) -> None:
    data = Dataset(ONES, torch.tensor([0, 1, 1]).to(dtype))
    assert data.targets.dtype == torch.int64
    assert data.targets.tolist() == [0, 1, 1]
    assert data.classes == 2


@pytest.mark.parametrize(
    "targets", [torch.rand(3), torch.rand(3, 2), torch.zeros(3, 2, dtype=torch.int32), -torch.ones(3)],
    ids=["numbers", "vectors", "maps", "negative numbers"],
)  # fmt: skip
def test_other_targets_stay_as_they_are_and_have_no_classes(targets: Tensor) -> None:
    data = Dataset(ONES, targets)
    assert data.targets is targets
    with pytest.raises(OptionError, match="not classes"):
        _ = data.classes


def test_a_dict_of_inputs_has_a_length_but_no_single_shape() -> None:
    data = Dataset({"ids": torch.ones(3, 5), "mask": torch.ones(3)}, CLASSES, "texts")
    assert len(data) == 3
    with pytest.raises(OptionError, match="'texts' has a dict of inputs"):
        _ = data.example_shape


def test_a_subset_takes_the_first_examples_of_every_tensor() -> None:
    part = Dataset({"a": ONES, "b": torch.arange(3)}, CLASSES, "mine").subset(2)
    assert part.inputs["a"].shape == (2, 2)
    assert part.inputs["b"].tolist() == [0, 1]
    assert part.targets.tolist() == [0, 1]
    assert part.name == "mine"


@given(count=st.integers(1, 3))
def test_a_subset_has_as_many_examples_as_asked_for(count: int) -> None:
    assert len(Dataset(ONES, CLASSES).subset(count)) == count


@pytest.mark.parametrize("count", [-1, 0, 4])
def test_a_subset_beyond_the_dataset_is_refused(count: int) -> None:
    with pytest.raises(OptionError, match=f"'mine' takes 1 to 3 examples, got {count}"):
        Dataset(ONES, CLASSES, "mine").subset(count)


@pytest.mark.parametrize("inputs", [ONES, {"a": ONES, "b": ONES}], ids=["tensor", "dict"])
def test_map_reaches_every_tensor_and_leaves_the_original(inputs: Any) -> None:
    data = Dataset(inputs, CLASSES, "mine")
    doubled = data.map(lambda tensor: 2 * tensor)
    parts = doubled.inputs.values() if isinstance(inputs, dict) else [doubled.inputs]
    assert all(torch.equal(part, 2 * ONES) for part in parts)
    assert doubled.targets.tolist() == [0, 2, 4]
    assert doubled.name == "mine"
    assert data.targets.tolist() == [0, 1, 2]


def test_a_dataset_on_its_own_device_is_not_copied() -> None:
    data = Dataset(ONES, CLASSES)
    assert data.to("cpu").inputs is ONES


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_dataset_moves_to_a_device_as_a_whole() -> None:
    data = Dataset({"a": ONES, "b": ONES}, CLASSES).to("cuda")
    assert {part.device.type for part in (*data.inputs.values(), data.targets)} == {"cuda"}
