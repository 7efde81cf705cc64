"""Batch normalisation of many networks under vmap, by the kernel that one network's goes through.

torch's own rule for vmap normalises without weight and bias and applies them by further operations, which takes longer
and rounds otherwise than a network alone; an optimiser that divides by the size of a gradient then blows differences
of rounding up to whole steps.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm


def normalise_stacked(model: nn.Module) -> None:
    """Have the BN layers of `model`, in train mode with running statistics, take the kernel when they are stacked."""
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            layer.forward = partial(_forward, layer)  # type: ignore[method-assign]


def _forward(layer: _BatchNorm, inputs: Tensor) -> Tensor:
    layer.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    normalised: Tensor = _Stacked.apply(
        inputs, layer.running_mean, layer.running_var, layer.weight, layer.bias, layer.momentum, layer.eps
    )
    return normalised


class _Stacked(torch.autograd.Function):
    """Batch statistics of (b, channels, ...); with one more dimension of members, all of their channels at once."""

    @staticmethod
    def forward(*args: Any) -> Tensor:
        raise NotImplementedError("batch normalisation of a single network: call the layer itself")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing to keep: what is differentiated is in `vmap`."""

    @staticmethod
    def vmap(info: Any, dims: Any, *args: Any) -> tuple[Tensor, int]:
        """Inputs of any layout; statistics, weight and bias (members, channels), as `Stack` has them."""
        inputs, mean, var, weight, bias, momentum, eps = args
        if inputs.ndim == 3 and inputs.device.type == "cpu":
            # The kernel goes along channels in vectors, and rounds otherwise where they end: each member by itself.
            alone = zip(inputs.movedim(dims[0], 0), mean, var, weight, bias, strict=True)
            return torch.stack([functional.batch_norm(*one, True, momentum, eps) for one in alone]), 0
        stacked = inputs.movedim(dims[0], 1)  # (b, members, channels, ...)
        flat = functional.batch_norm(
            stacked.flatten(1, 2), mean.view(-1), var.view(-1), weight.reshape(-1), bias.reshape(-1),
            training=True, momentum=momentum, eps=eps,
        )  # fmt: skip
        return flat.view(stacked.shape), 1
