"""Fully connected networks (Tao et al. 2024, FCN4; Lucas et al. 2020, Appendix C)."""

from __future__ import annotations

from math import prod

from torch import nn

from mli_check.models.switches import activation, check_no_variant
from mli_check.settings import ModelSetting


def fcn(setting: ModelSetting, example_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Flatten, then linear -> [BN or LN ->] activation for each hidden width, then a linear layer of logits.

    FCN4 has four linear layers, so three hidden widths. Raises OptionError for `variant`, which fcn does not have.
    """
    check_no_variant(setting, "its `hidden` widths")
    layers: list[nn.Module] = [nn.Flatten()]
    width = prod(example_shape)
    for hidden in setting.hidden:
        layers.append(nn.Linear(width, hidden, bias=setting.bias and setting.hidden_bias))
        layers += [nn.BatchNorm1d(hidden)] if setting.batch_norm else []
        layers += [nn.LayerNorm(hidden)] if setting.layer_norm else []
        layers.append(activation(setting))
        width = hidden
    layers.append(nn.Linear(width, classes, bias=setting.bias))
    return nn.Sequential(*layers)
