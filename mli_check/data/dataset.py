"""A whole dataset as tensors: inputs (one tensor, or a dict of them) and targets, example by example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mli_check.errors import DataError, OptionError
from mli_check.losses import is_classification

Inputs: TypeAlias = Tensor | Mapping[str, Tensor]


@dataclass(frozen=True)
class Normalisation:
    """Turns pixels 0..255 into (pixel / 255 - mean) / std, with one mean and one std a channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Pixels (n, channels, height, width) as a new tensor of `dtype`, on the same device."""
        mean, std = (_by_channel(values, pixels.ndim, pixels.device, dtype) for values in (self.mean, self.std))
        return pixels.to(dtype, copy=True).div_(255).sub_(mean).div_(std)


@cache  # a batch on a GPU would wait for them to be copied there
def _by_channel(values: tuple[float, ...], dimensions: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # training may use what an evaluation has made
        shape = (1, len(values)) + (1,) * (dimensions - 2)
        return torch.tensor(values, dtype=torch.float64).view(shape).to(device, dtype)


@dataclass(frozen=True)
class Dataset:
    """Inputs of shape (n, ...), or a dict of such tensors passed as keywords, and targets of shape (n, ...).

    Targets of shape (n,) and an integer dtype are class indices; they are kept as int64, which torch's losses need.
    `n_classes` says how many classes there are where the targets need not hold all of them. With a `normalisation` the
    inputs are pixels of dtype uint8, kept so; `rows` and `normalised` give what a network sees. Raises DataError for an
    empty dataset, unequal lengths, negative class indices or more classes than `n_classes`.
    """

    inputs: Inputs
    targets: Tensor
    name: str = "data"
    n_classes: int | None = None
    normalisation: Normalisation | None = None

    def __post_init__(self) -> None:
        parts = dict(self.inputs) if isinstance(self.inputs, Mapping) else {"inputs": self.inputs}
        if not parts or not all(isinstance(part, Tensor) for part in (*parts.values(), self.targets)):
            raise DataError(f"dataset {self.name!r}: inputs and targets must be tensors; inputs may be a dict of them")
        lengths = {name: len(part) if part.ndim else 0 for name, part in (parts | {"targets": self.targets}).items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"dataset {self.name!r} has unequal lengths {lengths}; give one target for each input")
        if self.targets.ndim == 0 or len(self.targets) == 0:
            raise DataError(f"dataset {self.name!r} is empty; there is nothing to evaluate or train on")
        if is_classification(self.targets):
            object.__setattr__(self, "targets", self.targets.long())
            self._check_classes()
        self._check_pixels()

    def _check_classes(self) -> None:
        if int(self.targets.min()) < 0:
            raise DataError(f"dataset {self.name!r} has negative class indices; number the classes from 0")
        if self.n_classes is not None and int(self.targets.max()) >= self.n_classes:
            raise DataError(
                f"dataset {self.name!r} has class {int(self.targets.max())}, n_classes={self.n_classes} allows 0 to "
                f"{self.n_classes - 1}; correct the labels or leave n_classes out"
            )

    def _check_pixels(self) -> None:
        if self.normalisation is None:
            return
        channels = len(self.normalisation.mean)
        inputs = self.inputs
        if (
            not isinstance(inputs, Tensor)
            or inputs.dtype != torch.uint8
            or inputs.ndim != 4
            or inputs.shape[1] != channels
        ):
            got = f"{inputs.dtype} {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else "a dict"
            raise DataError(
                f"dataset {self.name!r} has a normalisation for uint8 pixels (n, {channels}, height, width), got "
                f"{got}; pass such pixels, or normalise them yourself and leave `normalisation` out"
            )

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """The shape of one input. Raises OptionError where the inputs are a dict."""
        if not isinstance(self.inputs, Tensor):
            raise OptionError(f"dataset {self.name!r} has a dict of inputs, which has no single shape")
        return tuple(self.inputs.shape[1:])

    @property
    def classes(self) -> int:
        """How many classes: `n_classes`, else one more than the largest index. OptionError without class indices."""
        if not is_classification(self.targets):
            raise OptionError(f"dataset {self.name!r} has targets of shape {tuple(self.targets.shape)}, not classes")
        return int(self.targets.max()) + 1 if self.n_classes is None else self.n_classes

    def rows(self, which: slice | Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Some examples' inputs as a network sees them: pixels normalised to `dtype`, other tensors as they are.

        Raises OptionError where the inputs are a dict.
        """
        if not isinstance(self.inputs, Tensor):
            raise OptionError(f"dataset {self.name!r} has a dict of inputs; index its tensors one by one")
        chosen = self.inputs[which]
        return chosen if self.normalisation is None else self.normalisation(chosen, dtype)

    def normalised(self, dtype: torch.dtype = torch.float32) -> Dataset:
        """The dataset with its pixels normalised to `dtype`; itself where it has no normalisation."""
        if self.normalisation is None:
            return self
        return replace(self, inputs=self.rows(slice(None), dtype), normalisation=None)

    def map(self, change: Callable[[Tensor], Tensor]) -> Dataset:
        """The dataset with `change` applied to every tensor."""
        inputs: Any = self.inputs
        inputs = change(inputs) if isinstance(inputs, Tensor) else {k: change(v) for k, v in inputs.items()}
        return replace(self, inputs=inputs, targets=change(self.targets))

    def to(self, device: torch.device | str) -> Dataset:
        """The dataset on a device."""
        return self.map(lambda tensor: tensor.to(device))

    def subset(self, count: int) -> Dataset:
        """The first `count` examples. Raises OptionError unless 1 <= count <= n."""
        if not 1 <= count <= len(self):
            raise OptionError(f"a subset of dataset {self.name!r} takes 1 to {len(self)} examples, got {count}")
        return self.map(lambda tensor: tensor[:count])

    def shuffled(self, seed: int = 0) -> Dataset:
        """The examples in an order drawn by `seed`."""
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(self)))
        return self.map(lambda tensor: tensor[order.to(tensor.device)])

    def with_random_labels(self, share: float, seed: int = 0) -> Dataset:
        """The dataset with the labels of `share` of its examples drawn anew, uniformly over all classes.

        Which examples, and what they get, depends on `seed` and the number of examples alone; a drawn label may be the
        old one (Lucas et al. 2020, Appendix B.2). Raises OptionError unless 0 <= share <= 1 and targets are classes.
        """
        if not 0 <= share <= 1:
            raise OptionError(f"the share of random labels must lie between 0 and 1, got {share!r}")
        classes, generator = self.classes, torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(self), generator=generator)[: round(share * len(self))]
        drawn = torch.randint(classes, (len(chosen),), generator=generator)
        targets = self.targets.clone()
        targets[chosen.to(targets.device)] = drawn.to(targets.device)
        return replace(self, targets=targets, n_classes=classes)
