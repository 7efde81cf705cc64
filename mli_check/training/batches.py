"""In which order a network sees the examples, and as what: by its recipe's seed, the same on every device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mli_check.data.augmentation import Draws, augment, draw
from mli_check.data.dataset import Dataset
from mli_check.settings import Recipe

_AUGMENTATION = 2**31  # added to the order's seed for a stream of its own: torch reads the lowest 32 bits of a seed


class Order:
    """The order of `count` examples in one epoch after the other, and how each is augmented; drawn on the CPU."""

    def __init__(self, recipe: Recipe, count: int) -> None:
        self._kind, self._count = recipe.augmentation, count
        self._order = torch.Generator().manual_seed(recipe.order_seed)
        self._draws = torch.Generator().manual_seed(recipe.order_seed + _AUGMENTATION)

    def epoch(self) -> tuple[Tensor, Draws | None]:
        """Every example's index once, (n,), and the augmentation of each in that order, where there is one."""
        shuffled = torch.randperm(self._count, generator=self._order)
        return shuffled, draw(self._kind, self._count, self._draws) if self._kind else None


def split(shuffled: Tensor, draws: Draws | None, size: int) -> Iterator[tuple[Tensor, Draws | None]]:
    """The examples of an epoch in batches of `size`, the last one smaller where they do not divide."""
    for start in range(0, len(shuffled), size):
        rows = slice(start, start + size)
        yield shuffled[rows], draws and draws[rows]


def as_seen(data: Dataset, rows: Tensor, draws: Draws | None, dtype: torch.dtype) -> Tensor:
    """The inputs of the examples `rows`, (b,), as the network sees them: augmented, normalised, of its own dtype.

    Inputs of dtype int64 are indices, such as those of tokens, and stay so.
    """
    inputs = data.inputs
    assert isinstance(inputs, Tensor)  # `network` has read their shape, which a dict does not have
    batch = inputs[rows]
    if draws is not None:
        batch = augment(batch, draws)
    if data.normalisation is not None:
        batch = data.normalisation(batch, dtype)
    return batch if batch.dtype == torch.int64 else batch.to(dtype)


def weights_dtype(recipe: Recipe) -> torch.dtype:
    """float64 where the recipe says so, else float32: with `bfloat16` only the forward pass is cast."""
    return torch.float64 if recipe.precision == "float64" else torch.float32
