"""A whole dataset as tensors: inputs (one tensor, or a dict of them) and targets, example by example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from mli_check.errors import DataError, OptionError
from mli_check.losses import is_classification

Inputs: TypeAlias = Tensor | Mapping[str, Tensor]


@dataclass(frozen=True)
class Dataset:
    """Inputs of shape (n, ...), or a dict of such tensors passed as keywords, and targets of shape (n, ...).

    Targets of shape (n,) and an integer dtype are class indices; they are kept as int64, which torch's losses need.
    Raises DataError for an empty dataset, unequal lengths or negative class indices.
    """

    inputs: Inputs
    targets: Tensor
    name: str = "data"

    def __post_init__(self) -> None:
        parts = dict(self.inputs) if isinstance(self.inputs, Mapping) else {"inputs": self.inputs}
        if not parts or not all(isinstance(part, Tensor) for part in (*parts.values(), self.targets)):
            raise DataError(f"dataset {self.name!r}: inputs and targets must be tensors; inputs may be a dict of them")
        lengths = {name: len(part) if part.ndim else 0 for name, part in (parts | {"targets": self.targets}).items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"dataset {self.name!r} has unequal lengths {lengths}; give one target for each input")
        if self.targets.ndim == 0 or len(self.targets) == 0:
            raise DataError(f"dataset {self.name!r} is empty; there is nothing to evaluate or train on")
        if is_classification(self.targets) and int(self.targets.min()) < 0:
            raise DataError(f"dataset {self.name!r} has negative class indices; number the classes from 0")
        if is_classification(self.targets):
            object.__setattr__(self, "targets", self.targets.long())

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
        """One more than the largest class index. Raises OptionError for targets that are not class indices."""
        if not is_classification(self.targets):
            raise OptionError(f"dataset {self.name!r} has targets of shape {tuple(self.targets.shape)}, not classes")
        return int(self.targets.max()) + 1

    def map(self, change: Callable[[Tensor], Tensor]) -> Dataset:
        """The dataset with `change` applied to every tensor."""
        inputs: Any = self.inputs
        inputs = change(inputs) if isinstance(inputs, Tensor) else {k: change(v) for k, v in inputs.items()}
        return Dataset(inputs, change(self.targets), self.name)

    def to(self, device: torch.device | str) -> Dataset:
        """The dataset on a device."""
        return self.map(lambda tensor: tensor.to(device))

    def subset(self, count: int) -> Dataset:
        """The first `count` examples. Raises OptionError unless 1 <= count <= n."""
        if not 1 <= count <= len(self):
            raise OptionError(f"a subset of dataset {self.name!r} takes 1 to {len(self)} examples, got {count}")
        return self.map(lambda tensor: tensor[:count])
