"""Initialisations that the papers name."""

from __future__ import annotations

from torch import nn


def kaiming(model: nn.Module) -> nn.Module:
    """Kaiming normal weights (fan-in, ReLU gain) with zero biases in every linear and convolution (Tao et al., B.1.2).

    Normalisation layers keep torch's ones and zeros. Changes `model` and returns it.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model
