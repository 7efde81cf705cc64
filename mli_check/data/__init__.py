"""Whole datasets as tensors on a device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mli_check.data.dataset import Dataset, Normalisation
from mli_check.data.digits import load_digits, load_digits_gaussian
from mli_check.data.images import IMAGE_SETS
from mli_check.data.prepared import PREPARED_SETS, load_prepared
from mli_check.data.stored import load_images
from mli_check.errors import UnknownNameError

if TYPE_CHECKING:
    import torch

SPLITS = ("train", "test")

LOADERS: dict[str, Callable[[str, Path | None], Dataset]] = {
    "digits": lambda split, root: load_digits(split),
    "digits-gaussian": lambda split, root: load_digits_gaussian(split),
    **{name: partial(load_images, name) for name in IMAGE_SETS},
    **{name: partial(load_prepared, name) for name in PREPARED_SETS},
}


def load_dataset(
    name: str, split: str = "test", root: str | Path | None = None, device: torch.device | str | None = None
) -> Dataset:
    """A named dataset's `train` or `test` part, normalised as its loader or its record in `IMAGE_SETS` states.

    `root` is the folder of datasets (default: $MLI_CHECK_DATA, else in the user's cache folder); the embedded sets need
    none. Raises UnknownNameError for other names, MissingDataError for a set that is not there, with the
    command that brings it, and DataError for one that is damaged.
    """
    if name not in LOADERS:
        raise UnknownNameError("dataset", name, LOADERS)
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    data = LOADERS[name](split, None if root is None else Path(root))
    return data if device is None else data.to(device)


def sample(data: Dataset, count: int) -> Dataset:
    """`count` examples: the first ones of the embedded sets, which are shuffled; of others those of a seeded draw.

    The files of other datasets are in no random order: the second half of MNIST's test set is the easier one. Zero
    means all. Raises OptionError for more examples than there are.
    """
    if count == 0:
        return data
    return data.subset(count) if data.name.startswith("digits") else data.shuffled().subset(count)


__all__ = ["IMAGE_SETS", "LOADERS", "PREPARED_SETS", "SPLITS", "Dataset", "Normalisation", "load_dataset", "sample"]
