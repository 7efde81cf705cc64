"""Whether a network is generic: nothing in it is dead or constant, and no activation acts as a linear map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_LEAST = 0.02  # a value varies if its standard deviation between examples is this part of its size
_KINKED = ("relu", "leaky_relu", "prelu", "abs")
_MAXIMA = ("max_pool2d", "adaptive_max_pool2d")


def is_generic(model: nn.Module, x: Tensor) -> bool:
    """True if in both modes every intermediate value varies between the examples of `x`, every channel does that batch
    norm divides by its deviation, and every activation has a unit that is on one side of its kink for some examples
    and on the other side for others, still so after a max pooling.

    Leaves the model in training mode, with the running statistics that two forward passes leave behind.
    """
    for training in (False, True):
        watch = _Watch(len(x))
        with torch.no_grad(), watch:
            model.train(training)(x)
        if not watch.generic:
            return False
    return True


class _Watch(TorchFunctionMode):
    """Looks at what goes into and comes out of every function of torch."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch, self.generic = batch, True

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func.__name__
        good = _good_input(name, args)  # now: some functions overwrite it
        out = func(*args, **(kwargs or {}))
        self.generic = self.generic and good and _good_output(name, args, out)
        if isinstance(out, Tensor) and out.is_floating_point() and out.ndim > 1 and len(out) == self.batch:
            self.generic = self.generic and _varies(out)
        return out


def _good_input(name: str, args: tuple[Any, ...]) -> bool:
    if name in _KINKED:
        return _differ(args[0] > 0)
    if name == "maximum":
        return _differ(args[0] > args[1])
    if name == "batch_norm":
        channels = args[0].float().transpose(0, 1).flatten(1)
        return bool(channels.std(dim=1).min() > _LEAST * _size(args[0]))
    return True


def _good_output(name: str, args: tuple[Any, ...], out: Any) -> bool:
    if name == "max":  # along a dimension
        return _differ(out.indices)
    if name in _MAXIMA:  # over so many pixels that it could hide the negative side of an activation before it
        return _differ(out > 0) or bool((args[0] > 0).all())
    return True


def _differ(sides: Tensor) -> bool:
    """Whether not all examples agree."""
    return bool((sides != sides[:1]).any())


def _varies(value: Tensor) -> bool:
    examples = value.float()
    return bool(examples.std(dim=0).mean() > _LEAST * _size(examples))


def _size(value: Tensor) -> Tensor:
    return value.float().square().mean().sqrt()
