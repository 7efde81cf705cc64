"""Random crops and mirror images of a whole batch at once, on the device where it lies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mli_check.errors import OptionError

PADDING = 4  # pixels on each side before a crop of the old size, as is usual for CIFAR (He et al. 2016, Section 4.2)


@dataclass(frozen=True)
class Draws:
    """What is done to each example: where its crop begins, (n, 2) from 0 to 2 * PADDING, and whether it is mirrored."""

    corners: Tensor
    mirrored: Tensor

    def __getitem__(self, rows: slice) -> Draws:
        return Draws(self.corners[rows], self.mirrored[rows])

    def to(self, device: torch.device) -> Draws:
        """The draws on a device."""
        return Draws(self.corners.to(device), self.mirrored.to(device))


def draw(kind: str, count: int, generator: torch.Generator) -> Draws:
    """Draws for `count` examples, from a generator on the CPU, so that they are the same on every device."""
    corners = torch.randint(2 * PADDING + 1, (count, 2), generator=generator)
    mirrored = torch.rand(count, generator=generator) < 0.5
    return Draws(corners, mirrored if kind == "crop-flip" else torch.zeros_like(mirrored))


def augment(images: Tensor, draws: Draws) -> Tensor:
    """Images (n, channels, height, width), padded by zeros, cropped back to their size and mirrored as drawn.

    Raises OptionError for inputs that are no images.
    """
    if images.ndim != 4:
        raise OptionError(
            f"augmentation needs images (n, channels, height, width), got inputs of shape {tuple(images.shape)}; leave "
            "recipe.augmentation out"
        )
    count, channels, height, width = images.shape
    padded = functional.pad(images, (PADDING,) * 4)
    device = images.device
    rows = draws.corners[:, :1] + torch.arange(height, device=device)
    steps = torch.arange(width, device=device)
    columns = draws.corners[:, 1:] + torch.where(draws.mirrored[:, None], steps.flip(0), steps)
    return padded[
        torch.arange(count, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]
