"""Deep autoencoders (Lucas et al. 2021, Figure 4: 784-512-h-512-784 on MNIST)."""

from __future__ import annotations

from math import prod

from torch import nn

from mli_check.errors import OptionError
from mli_check.models.switches import activation, check_no_variant
from mli_check.settings import ModelSetting

WIDTH = 512  # of the layers beside the code


def autoencoder(setting: ModelSetting, example_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Linear layers example -> 512 -> h -> 512 -> example; (n, *example_shape) -> (n, *example_shape).

    `hidden` is (h,), the width of the code; `classes` does not matter. Our choices: [BN ->] activation follow the two
    layers of width 512, and neither follows the code or the output, which stay linear. Raises OptionError for `variant`
    and for `hidden` of another length than one.
    """
    check_no_variant(setting, "the width of its code, hidden=(h,)")
    if len(setting.hidden) != 1:
        raise OptionError(
            f"model `autoencoder` needs one hidden width, that of its code, got hidden={setting.hidden!r}; give (h,)"
        )
    pixels, code = prod(example_shape), setting.hidden[0]
    return nn.Sequential(
        nn.Flatten(),
        *_wide(setting, pixels),
        nn.Linear(WIDTH, code, bias=setting.bias),
        *_wide(setting, code),
        nn.Linear(WIDTH, pixels, bias=setting.bias),
        nn.Unflatten(1, example_shape),
    )


def _wide(setting: ModelSetting, inputs: int) -> list[nn.Module]:
    linear = nn.Linear(inputs, WIDTH, bias=setting.bias)
    return [linear, *([nn.BatchNorm1d(WIDTH)] if setting.batch_norm else []), activation(setting)]
