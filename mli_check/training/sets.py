"""The training sets that settings name."""

from __future__ import annotations

from torch import Tensor

from mli_check.data import Dataset, load_dataset, sample
from mli_check.errors import OptionError
from mli_check.settings import Setting


def training_data(setting: Setting) -> Dataset:
    """The training set that `setting` names: its subset drawn, its labels made random, as it says.

    For an autoencoder inputs and targets are the pixels in 0..1.
    """
    return targeted(examples(setting), setting)


def examples(setting: Setting) -> Dataset:
    """The training examples that `setting` names, as they are labelled; for an autoencoder their pixels."""
    data = sample(load_dataset(setting.data.name, "train"), setting.data.subset)
    return reconstruction(data) if setting.reconstructs else data


def targeted(data: Dataset, setting: Setting) -> Dataset:
    """The examples with as many random labels as `setting` wants."""
    noise, seed = setting.data.label_noise, setting.data.label_seed
    return data.with_random_labels(noise, seed) if noise else data


def reconstruction(data: Dataset) -> Dataset:
    """The dataset with its inputs as targets: pixels in 0..1 where it keeps pixels, else its inputs as they are."""
    if not isinstance(data.inputs, Tensor):
        raise OptionError(f"dataset {data.name!r} has a dict of inputs, which an autoencoder does not take")
    pixels = data.inputs if data.normalisation is None else data.inputs.float().div_(255)
    return Dataset(pixels, pixels, data.name)
