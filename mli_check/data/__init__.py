"""Whole datasets as tensors on a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mli_check.data.dataset import Dataset
from mli_check.data.digits import load_digits, load_digits_gaussian
from mli_check.errors import UnknownNameError

if TYPE_CHECKING:
    import torch

SPLITS = ("train", "test")

LOADERS: dict[str, Callable[[str, Path | None], Dataset]] = {
    "digits": lambda split, root: load_digits(split),
    "digits-gaussian": lambda split, root: load_digits_gaussian(split),
}


def load_dataset(
    name: str, split: str = "test", root: str | Path | None = None, device: torch.device | str | None = None
) -> Dataset:
    """A named dataset's `train` or `test` part, its inputs normalised as the loader's docstring states.

    `root` is the folder of downloaded data; the embedded sets need none. Raises UnknownNameError for other names.
    """
    if name not in LOADERS:
        raise UnknownNameError("dataset", name, LOADERS)
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    data = LOADERS[name](split, None if root is None else Path(root))
    return data if device is None else data.to(device)


__all__ = ["LOADERS", "SPLITS", "Dataset", "load_dataset"]
