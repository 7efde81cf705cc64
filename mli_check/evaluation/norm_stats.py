"""What becomes of normalisation layers' running statistics along a path (Tao et al. 2024, Section 5.2).

`freeze` keeps the final state's, `interpolate` moves them with the path's own coefficients, and `recalibrate` resets
them at every point and takes the exact cumulative average over calibration batches of a fixed size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from mli_check.data.dataset import Dataset
from mli_check.errors import OptionError, UnknownNameError

POLICIES = ("freeze", "interpolate", "recalibrate")


@dataclass(frozen=True)
class NormStats:
    """A policy with what it needs; `calibration` is None unless the policy is `recalibrate`."""

    policy: str | None
    calibration: Dataset | None = None
    batch: int | None = None

    @property
    def of_path(self) -> str:
        """How the path itself treats the statistics: what it sets is overwritten by a recalibration."""
        return "interpolate" if self.policy == "interpolate" else "freeze"

    def batches(self) -> list[slice]:
        """The rows of the calibration data, batch by batch."""
        if self.calibration is None or self.batch is None:
            return []
        return [slice(start, start + self.batch) for start in range(0, len(self.calibration), self.batch)]

    def on_subset(self, count: int | None) -> NormStats:
        """The same policy on `count` drawn examples of the calibration data; itself for None.

        Raises OptionError where there is no calibration data, or fewer, or where one example would be left for a batch.
        """
        if count is None:
            return self
        if self.calibration is None or self.batch is None:
            raise OptionError(
                f"calibration_subset={count!r} needs norm_stats='recalibrate' with `calibration`; leave it out"
            )
        if not isinstance(count, int) or isinstance(count, bool) or not 2 <= count <= len(self.calibration):
            raise OptionError(f"`calibration_subset` must be 2 to {len(self.calibration)} examples, got {count!r}")
        batch = checked_batch(self.batch, count)
        return replace(self, calibration=self.calibration.shuffled().subset(count), batch=batch)

    def to(self, device: torch.device, dtype: torch.dtype) -> NormStats:
        """The same policy with its calibration data on a device, pixels as a network of `dtype` sees them."""
        if self.calibration is None:
            return self
        return replace(self, calibration=self.calibration.to(device).normalised(dtype))

    def map(self, change: Callable[[Tensor], Tensor]) -> NormStats:
        """The same policy with `change` applied to its calibration data."""
        return self if self.calibration is None else replace(self, calibration=self.calibration.map(change))


def tracking_layers(model: nn.Module) -> list[_NormBase]:
    """The layers that keep running statistics."""
    return [layer for layer in model.modules() if isinstance(layer, _NormBase) and layer.running_mean is not None]


def resolve(model: nn.Module, policy: str | None, calibration: Dataset | None, batch: int) -> NormStats:
    """Check the policy against the model and the calibration data; None as a policy means `recalibrate` if it matters.

    Raises UnknownNameError for another policy and OptionError for `recalibrate` without calibration data: test data
    is never used in its place.
    """
    if policy is not None and policy not in POLICIES:
        raise UnknownNameError("policy for norm_stats", policy, POLICIES)
    if policy is None and not tracking_layers(model):
        return NormStats(None)
    if policy in ("freeze", "interpolate"):
        return NormStats(policy)
    if calibration is None:
        raise OptionError(
            "norm_stats='recalibrate' needs `calibration`, a dataset to take batch statistics from (the training set); "
            "pass calibration=..., or choose norm_stats='freeze' (the final network's statistics) or 'interpolate'"
        )
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 2:
        raise OptionError(f"`calibration_batch` must be a whole number of at least 2, got {batch!r}")
    return NormStats("recalibrate", calibration, checked_batch(batch, len(calibration)))


def checked_batch(batch: int, examples: int) -> int:
    """The size of calibration batches of so many examples. Raises OptionError if one is left for a batch of its own."""
    if examples % batch == 1:
        raise OptionError(
            f"calibration_batch={batch} leaves one of {examples} examples for a batch of its own, which has no "
            "variance; choose another size or drop an example"
        )
    return min(batch, examples)


class Recalibration:
    """The normalisation layers of a model in training mode, averaging batches; they come back as they were.

    Only these layers are put into training mode, so dropout stays off. Changes their running statistics.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = tracking_layers(model)
        named = model.named_modules(remove_duplicate=False)
        tracking = [(name, layer) for name, layer in named if layer in self._layers]
        self.names = [f"{n}.{b}" if n else b for n, layer in tracking for b, _ in layer.named_buffers(recurse=False)]
        self._momenta = [layer.momentum for layer in self._layers]
        self._calls = dict.fromkeys(self._layers, 0)  # of each layer since the current site's reset
        self._a_pass = dict(self._calls)  # calls in one pass
        self._hooks: list[Any] = []
        self._first = False

    def __enter__(self) -> Recalibration:
        for layer in self._layers:
            layer.train()
            self._hooks.append(layer.register_forward_pre_hook(self._count))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        for layer, momentum in zip(self._layers, self._momenta, strict=True):
            layer.momentum = momentum
            layer.eval()

    def _count(self, layer: nn.Module, _: object) -> None:
        """Let this call weigh as much as each one before."""
        assert isinstance(layer, _NormBase)
        self._calls[layer] += 1
        layer.momentum = 1 / self._calls[layer]

    def expect(self, batch: int) -> None:
        """The next pass is of calibration batch number `batch`, from 0; batches come in order, at every site alike.

        A layer that is called several times in a pass averages all its calls.
        """
        if self._first:
            self._a_pass = dict(self._calls)
        self._first = batch == 0
        for layer in self._layers:
            if batch == 0:
                layer.reset_running_stats()
            self._calls[layer] = batch * self._a_pass[layer]


def recalibrate(model: nn.Module, stats: NormStats) -> None:
    """Reset `model`'s running statistics and average them over the calibration batches, every batch alike."""
    assert stats.calibration is not None
    with Recalibration(model) as layers:
        for index, rows in enumerate(stats.batches()):
            layers.expect(index)
            call(model, stats.calibration, rows)


def call(model: nn.Module, data: Dataset, rows: slice) -> Tensor:
    """The model's outputs on some examples; a dict of inputs is passed as keywords."""
    if isinstance(data.inputs, Tensor):
        return model(data.inputs[rows])  # type: ignore[no-any-return]
    return model(**{name: part[rows] for name, part in data.inputs.items()})  # type: ignore[no-any-return]
