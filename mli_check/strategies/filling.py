"""Generic numbers for a network's parameters and running statistics, which follow from a seed alone.

Weights are bounded away from zero, so that factors such as 2**-3 do not push them below float16's normal numbers.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm)
_GAIN = 1.5**0.5  # a ReLU halves the mean square, a skip adds one: between the two, activations stay near 1


def fill(model: Model, seed: int) -> Model:
    """The model itself, every parameter and buffer overwritten with generic numbers; a shared tensor is filled once.

    Weights have either sign and about 1.2 / sqrt(fan in); norm weights lie in +-[0.5, 1.5], biases, shifts and running
    means in +-[0.1, 0.4], running variances in [0.5, 1.5], slopes of a PReLU in [0.1, 0.4]. All come from a generator
    of its own: torch's global one is neither read nor moved.
    """
    generator = torch.Generator().manual_seed(seed)
    done: set[int] = set()
    with torch.no_grad():
        for module in model.modules():
            tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            for name, tensor in tensors:
                if id(tensor) not in done:
                    done.add(id(tensor))
                    tensor.copy_(_numbers(module, name, tensor, generator))
    return model


def _numbers(module: nn.Module, name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return torch.randint(1, 100, tensor.shape, generator=generator)  # num_batches_tracked
    uniform = torch.rand(tensor.shape, generator=generator, dtype=torch.float32)
    signs = torch.randint(0, 2, tensor.shape, generator=generator) * 2 - 1
    if name == "running_var":
        return 0.5 + uniform
    if isinstance(module, nn.PReLU):
        return 0.1 + 0.3 * uniform
    if name in ("bias", "running_mean"):
        return (0.1 + 0.3 * uniform) * signs
    if isinstance(module, _NORMS) or tensor.ndim < 2:
        return (0.5 + uniform) * signs
    return (0.5 + uniform) * signs * (_GAIN / math.sqrt(tensor[0].numel()))
