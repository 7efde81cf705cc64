"""Tests of whole datasets: the embedded digits, the class Gaussians, what makes one valid, pixels, random labels."""

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

from mli_check.data import SPLITS, Dataset, Normalisation, load_dataset, sample
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
        ("imagenet-22k", "test", "Known: ag-news, cifar10, cifar100, cub200, digits, digits-gaussian"),
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


# Pixels, kept as bytes until a network sees them

COLOURS = Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def pictures(count: int = 12, classes: int = 5, side: int = 4, normalisation: Normalisation = COLOURS) -> Dataset:
    """Bytes drawn at random, among them all 256, with labels of which the highest is not among the first."""
    generator = torch.Generator().manual_seed(1)
    shape = (count, len(normalisation.mean), side, side)
    inputs = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    inputs.view(-1)[:256] = torch.arange(256, dtype=torch.uint8)[: inputs.numel()]
    return Dataset(inputs, torch.arange(count) % (classes - 1), "pictures", classes, normalisation)


@DTYPES
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_normalised_by_the_same_operations_as_anywhere(channels: int, dtype: torch.dtype) -> None:
    """Bit for bit (x / 255 - mean) / std in that dtype, and that in float64 but for rounding."""
    given = Normalisation(COLOURS.mean[:channels], COLOURS.std[:channels])
    data = pictures(normalisation=given)
    found = given(data.inputs, dtype)
    mean, std = (np.array(values).reshape(1, -1, 1, 1) for values in (given.mean, given.std))
    kind = np.float32 if dtype == torch.float32 else np.float64
    same = (data.inputs.numpy().astype(kind) / kind(255) - mean.astype(kind)) / std.astype(kind)
    assert found.dtype == dtype
    assert np.array_equal(found.numpy(), same)
    exact = (data.inputs.numpy().astype(np.float64) / 255 - mean) / std
    assert np.abs(found.numpy() - exact).max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_normalising_leaves_the_pixels_as_they_were(dtype: torch.dtype) -> None:
    pixels = pictures().inputs.to(dtype)
    before = pixels.clone()
    COLOURS(pixels)
    assert torch.equal(pixels, before)


@DTYPES
def test_rows_by_slice_and_by_index_and_the_whole_agree_bit_for_bit(dtype: torch.dtype) -> None:
    data = pictures()
    whole = data.normalised(dtype)
    assert whole.normalisation is None
    assert whole.inputs.dtype == dtype
    order = torch.tensor([3, 3, 0, 11])
    assert torch.equal(data.rows(slice(2, 9), dtype), whole.inputs[2:9])
    assert torch.equal(data.rows(order, dtype), whole.inputs[order])
    assert torch.equal(data.rows(data.targets == 2, dtype), whole.inputs[data.targets == 2])
    assert torch.equal(whole.rows(order, dtype), whole.inputs[order])
    assert data.inputs.dtype == torch.uint8


def test_what_needs_no_normalisation_is_taken_as_it_is() -> None:
    data = Dataset(ONES, CLASSES)
    assert data.normalised() is data
    assert torch.equal(data.rows(slice(1, 3), torch.float64), ONES[1:])
    assert data.rows(slice(None), torch.float64).dtype == ONES.dtype


def test_rows_of_a_dict_are_refused() -> None:
    with pytest.raises(OptionError, match="'texts' has a dict of inputs; index its tensors one by one"):
        Dataset({"a": ONES}, CLASSES, "texts").rows(slice(2))


GREY = Normalisation((0.5,), (0.5,))
BYTES = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
NOT_PIXELS: dict[str, tuple[Any, Normalisation, str]] = {
    "floats": (BYTES.float(), GREY, r"for uint8 pixels \(n, 1, height, width\), got torch.float32 \(3, 1, 4, 4\)"),
    "other integers": (BYTES.long(), GREY, "got torch.int64"),
    "other channels": (BYTES, COLOURS, r"uint8 pixels \(n, 3, height, width\), got torch.uint8 \(3, 1, 4, 4\)"),
    "channels last": (BYTES.movedim(1, 3), GREY, r"got torch.uint8 \(3, 4, 4, 1\)"),
    "no channels": (BYTES[:, 0], GREY, r"got torch.uint8 \(3, 4, 4\)"),
    "flat": (BYTES.flatten(1), GREY, r"got torch.uint8 \(3, 16\)"),
    "dict": ({"a": BYTES}, GREY, "got a dict; pass such pixels, or normalise them yourself"),
}


@pytest.mark.parametrize(("inputs", "given", "message"), NOT_PIXELS.values(), ids=NOT_PIXELS.keys())
def test_a_normalisation_is_for_pixels_only(inputs: Any, given: Normalisation, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset(inputs, CLASSES, "mine", normalisation=given)


@pytest.mark.parametrize("classes", [1, 2, 0, -1])
def test_more_classes_than_stated_are_refused(classes: int) -> None:
    with pytest.raises(DataError, match=f"'mine' has class 2, n_classes={classes} allows 0 to {classes - 1}; correct"):
        Dataset(ONES, CLASSES, "mine", n_classes=classes)


def test_the_classes_are_those_stated_or_those_seen() -> None:
    assert Dataset(ONES, CLASSES, n_classes=7).classes == 7
    assert Dataset(ONES, CLASSES, n_classes=3).classes == 3
    assert Dataset(ONES, CLASSES).classes == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.map(lambda tensor: tensor.clone()),
        lambda data: data.to("cpu"),
        lambda data: data.subset(3),
        lambda data: data.shuffled(),
        lambda data: data.with_random_labels(0.5),
        lambda data: sample(data, 3),
    ],
    ids=["map", "to", "subset", "shuffled", "with_random_labels", "sample"],
)
def test_a_changed_dataset_keeps_its_name_classes_and_normalisation(change: Any) -> None:
    data = pictures()
    made = change(data)
    assert (made.name, made.n_classes, made.classes, made.normalisation) == ("pictures", 5, 5, COLOURS)
    assert made.inputs.dtype == torch.uint8


def test_normalised_pixels_keep_the_name_and_the_classes() -> None:
    made = pictures().normalised()
    assert (made.name, made.n_classes, made.normalisation) == ("pictures", 5, None)


# Another order, a sample


def numbered(count: int, name: str = "mine") -> Dataset:
    """Examples that know where they were."""
    return Dataset({"a": torch.arange(count), "b": -torch.arange(count)}, torch.arange(count), name)


@given(count=st.integers(1, 200), seed=st.integers(0, 2**32))
def test_a_shuffled_dataset_has_every_example_once_with_its_target(count: int, seed: int) -> None:
    made = numbered(count).shuffled(seed)
    assert sorted(made.targets.tolist()) == list(range(count))
    assert torch.equal(made.inputs["a"], made.targets)
    assert torch.equal(made.inputs["b"], -made.targets)
    assert torch.equal(made.targets, numbered(count).shuffled(seed).targets)


def test_the_order_is_the_seeds_and_always_the_same() -> None:
    orders = [tuple(numbered(10).shuffled(seed).targets.tolist()) for seed in range(5)]
    assert len(set(orders)) == 5
    assert tuple(numbered(10).shuffled().targets.tolist()) == orders[0] == (4, 6, 2, 7, 3, 5, 9, 0, 8, 1)


@pytest.mark.parametrize("name", ["digits", "digits-gaussian"])
def test_a_sample_of_an_embedded_set_has_its_first_examples(name: str) -> None:
    assert sample(numbered(20, name), 5).targets.tolist() == [0, 1, 2, 3, 4]


def test_a_sample_of_another_set_is_a_seeded_draw() -> None:
    drawn = sample(numbered(1000, "mnist"), 50).targets.tolist()
    assert drawn == sample(numbered(1000, "mnist"), 50).targets.tolist()
    assert drawn == sample(numbered(1000, "mnist"), 60).targets.tolist()[:50]
    assert len(set(drawn)) == 50
    assert 350 < np.mean(drawn) < 650


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_a_sample_of_no_number_is_everything_in_its_order_and_too_many_are_refused(name: str) -> None:
    data = numbered(20, name)
    assert sample(data, 0) is data
    assert sorted(sample(data, 20).targets.tolist()) == list(range(20))
    for count in (21, -1):
        with pytest.raises(OptionError, match=f"takes 1 to 20 examples, got {count}"):
            sample(data, count)


# Random labels


def ends(count: int, classes: int = 10) -> Dataset:
    """Targets that no draw gives but by chance: all of them the last class."""
    return Dataset(torch.zeros(count, 1), torch.full((count,), classes - 1), "mine", classes)


@pytest.mark.parametrize("share", [0, 0.0, 1e-9])
def test_no_share_changes_no_label(share: float) -> None:
    data = pictures()
    assert torch.equal(data.with_random_labels(share).targets, data.targets)


def test_the_whole_share_is_uniform_over_all_classes() -> None:
    """The chi-square statistic with 9 degrees of freedom is above 27.9 once in a thousand times; the seed is fixed."""
    drawn = ends(20_000).with_random_labels(1).targets
    counts = torch.bincount(drawn, minlength=10).double()
    assert len(counts) == 10
    assert float(((counts - 2000) ** 2 / 2000).sum()) < 27.9


@given(count=st.integers(1, 300), share=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_exactly_the_share_is_chosen(count: int, share: float, seed: int) -> None:
    """With a million classes next to no drawn label is the old one, so that those changed are those chosen."""
    data = ends(count, 10**6)
    made = data.with_random_labels(share, seed)
    changed = int((made.targets != data.targets).sum())
    assert changed <= round(share * count)
    assert changed >= round(share * count) - 1
    assert torch.equal(data.targets, torch.full((count,), 10**6 - 1))
    assert torch.equal(made.inputs, data.inputs)
    assert torch.equal(made.targets, data.with_random_labels(share, seed).targets)


def test_a_drawn_label_may_be_the_old_one() -> None:
    data = Dataset(torch.zeros(1000, 1), torch.zeros(1000, dtype=torch.int64), n_classes=2)
    assert 400 < int((data.with_random_labels(1).targets == 0).sum()) < 600


def test_the_chosen_examples_are_spread_and_the_seeds() -> None:
    data = ends(1000, 10**6)
    changed = [data.with_random_labels(0.3, seed).targets != data.targets for seed in (0, 1)]
    assert not torch.equal(*changed)
    assert all(100 < int(part[:500].sum()) < 200 for part in changed)


def test_random_labels_depend_on_the_number_of_examples_alone() -> None:
    """So that a network trained on other inputs, or on another device, has the same labels."""
    one, two = ends(100), Dataset(torch.rand(100, 1, 2, 2), torch.full((100,), 9), "other")
    assert torch.equal(one.with_random_labels(0.5, 3).targets, two.with_random_labels(0.5, 3).targets)


def test_random_labels_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    ends(100).with_random_labels(0.5)
    ends(100).shuffled()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), float("inf"), -float("inf")], ids=str)
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(OptionError, match="the share of random labels must lie between 0 and 1, got "):
        ends(10).with_random_labels(share)


def test_targets_that_are_no_classes_get_no_random_labels() -> None:
    with pytest.raises(OptionError, match="not classes"):
        Dataset(ONES, torch.rand(3)).with_random_labels(0.5)
