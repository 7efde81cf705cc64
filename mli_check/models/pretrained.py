"""Networks that begin with pre-trained weights below a head that is drawn (Tao et al. 2024, Appendices A.1 and B.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from mli_check.data import weights
from mli_check.errors import DataError, OptionError
from mli_check.models.pretrained_images import efficientnet_lite0, resnet50
from mli_check.models.pretrained_texts import minilm, roberta
from mli_check.settings import ModelSetting

BUILDERS: dict[str, Callable[[tuple[int, ...], int], nn.Module]] = {
    "efficientnet-lite0": efficientnet_lite0,
    "minilm": minilm,
    "resnet50": resnet50,
    "roberta": roberta,
}
NORMALISATION = {
    "efficientnet-lite0": "batch_norm",
    "minilm": "layer_norm",
    "resnet50": "batch_norm",
    "roberta": "layer_norm",
}
_FIXED = ("hidden", "variant", "activation", "bias", "hidden_bias")  # which these architectures leave no choice of


def fine_tuned(setting: ModelSetting, example_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The architecture of `setting` with a head for so many classes, all drawn; `with_pretrained` reads its weights.

    Its setting says which normalisation it has, as the others do: `batch_norm` or `layer_norm`. Raises OptionError
    where the setting has another one, a field that leaves no choice, or examples of another form, and MissingDataError
    where a package is not installed.
    """
    default, wanted = ModelSetting(name=setting.name), NORMALISATION[setting.name]
    given = [name for name in _FIXED if getattr(setting, name) != getattr(default, name)]
    if given:
        told = ", ".join(f"{name}={getattr(setting, name)!r}" for name in given)
        raise OptionError(f"model `{setting.name}` is what it was trained as, got {told}; leave that out")
    if [setting.batch_norm, setting.layer_norm] != [wanted == "batch_norm", wanted == "layer_norm"]:
        raise OptionError(
            f"model `{setting.name}` has {wanted}=True and no other normalisation, got "
            f"batch_norm={setting.batch_norm}, layer_norm={setting.layer_norm}"
        )
    return BUILDERS[setting.name](example_shape, classes)


def with_pretrained(network: nn.Module, name: str) -> nn.Module:
    """Give `network`, made by `fine_tuned`, the pre-trained weights of its body; its head stays. Returns it.

    Raises MissingDataError where they are not there, with what brings them, and DataError where they are another
    model's.
    """
    body, found = network.get_submodule("body"), _weights(name)
    wanted = body.state_dict()
    wrong = [key for key, tensor in wanted.items() if key not in found or found[key].shape != tensor.shape]
    if wrong:
        raise DataError(
            f"{weights.find(name)} has no weights for {len(wrong)} tensors of `{name}`, such as `{wrong[0]}` of shape "
            f"{tuple(wanted[wrong[0]].shape)}; bring {weights.get(name).source or weights.EXTRA}"
        )
    body.load_state_dict({key: found[key] for key in wanted})
    return network


def _weights(name: str) -> Mapping[str, Tensor]:
    """The file's tensors under the names that the body has for them."""
    file = weights.find(name)
    found = _tensors(file, file.stat().st_mtime_ns)
    return {key.removeprefix(f"{name}."): tensor for key, tensor in found.items()}


@cache
def _tensors(file: Path, changed: int) -> Mapping[str, Tensor]:
    """The tensors of a file as it was when it was `changed`, read once; nothing of a pickle is run."""
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        tensors: Mapping[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no one kind of error for files that it cannot read
        raise DataError(f"{file} holds no weights: {type(error).__name__}: {error}; bring it again") from error
    return tensors
