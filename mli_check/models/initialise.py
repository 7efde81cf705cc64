"""Initialisations that the papers name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def kaiming(model: nn.Module) -> nn.Module:
    """Kaiming normal weights (fan-in, ReLU gain) with zero biases in every linear and convolution (Tao et al., B.1.2).

    Normalisation layers keep torch's ones and zeros. Changes `model` and returns it.
    """
    return _drawn(model, lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"))


def xavier(model: nn.Module) -> nn.Module:
    """Xavier (Glorot) normal weights, gain 1, with zero biases in every linear and convolution (Lucas et al. 2020, C).

    Normalisation layers keep torch's ones and zeros. Changes `model` and returns it.
    """
    return _drawn(model, nn.init.xavier_normal_)


def torch_own(model: nn.Module) -> nn.Module:
    """Each layer as torch has drawn it. Returns `model`."""
    return model


INITIALISERS: dict[str, Callable[[nn.Module], nn.Module]] = {"torch": torch_own, "kaiming": kaiming, "xavier": xavier}


def _drawn(model: nn.Module, draw: Callable[[Tensor], Tensor]) -> nn.Module:
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            draw(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model
