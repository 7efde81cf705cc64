"""The embedded digits: scikit-learn's 1797 images of 8 x 8 pixels, and class Gaussians fitted to their training part.

`digits` is small, so its test set decides little; `digits-gaussian` draws as many fresh images as a test needs.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from mli_check.data.dataset import Dataset

TRAIN = 1000  # images of the stratified split; the other 797 are the test set
GAUSSIAN_TRAIN, GAUSSIAN_TEST = 2000, 20_000
MEAN, STD = 0.3046, 0.3760  # of the training part's pixels, scaled to 0..1
_SPLIT_SEED, _DRAW_SEED = 0, 1


def load_digits(split: str) -> Dataset:
    """Stratified, seeded split of scikit-learn's digits: 1000 train, 797 test; inputs (n, 1, 8, 8), classes 0-9.

    Pixels are divided by 16, then normalised by the training part's mean 0.3046 and standard deviation 0.3760.
    """
    images, labels = _split()[split]
    return _dataset(images, labels, "digits")


def load_digits_gaussian(split: str) -> Dataset:
    """Fresh images from Gaussians with the mean and covariance of each class of the digits' training part.

    2,000 train and 20,000 test images, classes balanced, shapes and normalisation as `digits`. Draws use the
    centred training images themselves as the covariance's factor, so no matrix factorisation, whose signs differ
    between machines, enters; pixel values are not clipped.
    """
    count, stream = (GAUSSIAN_TRAIN, 0) if split == "train" else (GAUSSIAN_TEST, 1)
    rng = np.random.default_rng((_DRAW_SEED, stream))
    images, labels = _split()["train"]
    drawn = np.empty((count, images.shape[1]))
    classes = np.arange(count) % 10
    for label in range(10):
        members = images[labels == label]
        centred = members - members.mean(axis=0)
        where = np.flatnonzero(classes == label)
        normals = rng.standard_normal((len(where), len(members)))
        drawn[where] = members.mean(axis=0) + normals @ centred / np.sqrt(len(members) - 1)
    return _dataset(drawn, classes, "digits-gaussian")


@cache
def _split() -> dict[str, tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Pixels in 0..1, shape (n, 64), and labels. A class gives its largest-remainder share of the training part."""
    from sklearn.datasets import load_digits as embedded

    images, labels = embedded(return_X_y=True)
    rng = np.random.default_rng(_SPLIT_SEED)
    shares = np.bincount(labels) * TRAIN / len(labels)
    quotas = np.floor(shares).astype(int)
    quotas[np.argsort(quotas - shares, kind="stable")[: TRAIN - quotas.sum()]] += 1
    chosen = np.zeros(len(labels), dtype=bool)
    for label, quota in enumerate(quotas):
        chosen[rng.permutation(np.flatnonzero(labels == label))[:quota]] = True
    order = rng.permutation(len(labels))
    parts = {"train": order[chosen[order]], "test": order[~chosen[order]]}
    return {name: (images[index] / 16, labels[index].astype(np.int64)) for name, index in parts.items()}


def _dataset(images: NDArray[np.float64], labels: NDArray[np.int64], name: str) -> Dataset:
    normalised = ((images - MEAN) / STD).astype(np.float32).reshape(-1, 1, 8, 8)
    return Dataset(torch.from_numpy(normalised), torch.tensor(labels), name, n_classes=10)  # labels are a copy
