"""What the fields of a model's setting switch on, and the complaints where an architecture does not have them."""

from __future__ import annotations

from torch import nn

from mli_check.errors import OptionError, UnknownNameError
from mli_check.settings import ModelSetting

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


def activation(setting: ModelSetting) -> nn.Module:
    """A layer of the setting's activation. Raises UnknownNameError for one that does not exist."""
    if setting.activation not in ACTIVATIONS:
        raise UnknownNameError("activation", setting.activation, ACTIVATIONS)
    return ACTIVATIONS[setting.activation]()


def check_relu(setting: ModelSetting) -> None:
    """Raise OptionError for another activation than ReLU, UnknownNameError for one that does not exist."""
    if not isinstance(activation(setting), nn.ReLU):
        raise OptionError(
            f"model `{setting.name}` has ReLU only, got activation={setting.activation!r}; leave `activation` out, or "
            "use `fcn` or `autoencoder`"
        )


def check_hidden_bias(setting: ModelSetting) -> None:
    """Raise OptionError for `hidden_bias=False` in another model than `fcn`, which alone has that switch."""
    if not setting.hidden_bias and setting.name != "fcn":
        raise OptionError(
            f"model `{setting.name}` has biases in all layers or in none, got hidden_bias=False; set `bias`, or use "
            "`fcn`"
        )


def check_layer_norm(setting: ModelSetting) -> None:
    """Raise OptionError for `layer_norm` in another model than `fcn`, or beside `batch_norm`."""
    if setting.layer_norm and setting.name != "fcn":
        raise OptionError(
            f"model `{setting.name}` has no layer normalisation to switch on, got layer_norm=True; leave it out, or "
            "use `fcn`"
        )
    if setting.layer_norm and setting.batch_norm:
        raise OptionError("one normalisation follows a layer, got batch_norm=True and layer_norm=True; choose one")


def check_no_hidden(setting: ModelSetting) -> None:
    """Raise OptionError for `hidden` widths, where the variant decides on all widths."""
    if setting.hidden:
        raise OptionError(
            f"model `{setting.name}` has the widths of its variant, got hidden={setting.hidden!r}; leave `hidden` out"
        )


def check_no_variant(setting: ModelSetting, instead: str) -> None:
    """Raise OptionError for a `variant`, saying what to give `instead`."""
    if setting.variant:
        raise OptionError(f"model `{setting.name}` has no variants, got variant={setting.variant!r}; give {instead}")


def check_images(who: str, example_shape: tuple[int, ...], side: int, channels: int | None = None) -> None:
    """Raise OptionError unless examples are images (channels, height, width) of at least `side` pixels a side.

    And of so many channels, where they are given.
    """
    if len(example_shape) != 3 or min(example_shape[1:]) < side or channels not in (None, example_shape[0]):
        many = "channels" if channels is None else channels
        raise OptionError(
            f"{who} needs images ({many}, height, width) of at least {side} pixels a side, got {example_shape}"
        )
