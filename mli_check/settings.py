"""What gets trained: frozen dataclasses that become canonical JSON, and that a SHA-256 digest.

Two settings that would train the same network have the same digest, on every machine and in every later version of
this package. So numbers are coerced to their field's type (1 and 1.0 agree), and a field that has its "absent means"
value is left out: a field added later does not change the digests of what was trained before. The value that an
absent field means can never change, even where the default that new settings get does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mli_check.errors import OptionError, UnknownNameError

TRAINING_VERSION = 1  # raise it whenever the trainer would produce other weights from the same setting

OPTIMISERS = ("sgd", "adam", "rmsprop")
INITIALISATIONS = ("torch", "kaiming", "xavier")
PRETRAINED = "pretrained"  # the form of an init that is read instead of drawn
ACTIVATIONS = ("relu", "tanh", "sigmoid")
PRECISIONS = ("float32", "float64", "bfloat16")
AUGMENTATIONS = ("", "crop", "crop-flip")
LOSSES = ("cross_entropy", "squared_error")
SCHEDULES = ("steps", "linear")


def _absent(value: Any) -> Any:
    return field(default=value, metadata={"absent": value})


@dataclass(frozen=True, kw_only=True)
class DataSetting:
    """Which examples a network is trained on. `subset` takes so many (0: all), as `mli_check.data.sample` does.

    `label_noise` is the share of training labels that are drawn anew, uniformly over the classes, by `label_seed`
    (Lucas et al. 2020, Appendix B.2).
    """

    name: str
    subset: int = _absent(0)
    label_noise: float = _absent(0.0)
    label_seed: int = _absent(0)


@dataclass(frozen=True, kw_only=True)
class ModelSetting:
    """An architecture of `mli_check.models`: hidden widths, a named variant, switches of BN, LN and biases.

    `hidden_bias` False takes the biases of all layers but the last, so that the one left is that of the logits.

    `init` is `torch` (each layer's own default), `kaiming` (normal, fan-in, ReLU gain) or `xavier` (normal), the latter
    two with zero biases; for models that were trained before also `pretrained`: those weights, below a head that is
    drawn.
    """

    name: str
    hidden: tuple[int, ...] = _absent(())
    variant: str = _absent("")
    batch_norm: bool = _absent(False)
    bias: bool = _absent(True)
    init: str = _absent("torch")
    activation: str = _absent("relu")
    hidden_bias: bool = _absent(True)
    layer_norm: bool = _absent(False)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained. The learning rate is multiplied by `gamma` after each number of epochs in `milestones`.

    `checkpoints` are iterations (optimiser steps, counted from 1) after which a state is kept; those beyond the end are
    an error. `init_seed` draws the weights, `order_seed` the order of the examples and their augmentation: `crop` (a
    random crop after padding by 4 pixels) or `crop-flip` (and mirrored half of the time), drawn anew in every epoch.
    `precision` `bfloat16` means float32 weights, with autocast to bfloat16 in the forward pass. With `schedule`
    `linear` the learning rate also falls in a straight line, a bit after each step, to 0 after the last.
    """

    optimiser: str
    lr: float
    epochs: int
    batch_size: int
    momentum: float = _absent(0.0)
    weight_decay: float = _absent(0.0)
    milestones: tuple[int, ...] = _absent(())
    gamma: float = _absent(0.1)
    init_seed: int = _absent(0)
    order_seed: int = _absent(0)
    checkpoints: tuple[int, ...] = _absent(())
    precision: str = _absent("float32")
    augmentation: str = _absent("")
    loss: str = _absent("cross_entropy")
    schedule: str = _absent("steps")

    def steps(self, examples: int) -> int:
        """How many iterations training on so many examples takes; the last batch of an epoch may be a smaller one."""
        return self.epochs * -(-examples // self.batch_size)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One network to train: the whole of what its weights depend on, apart from versions and threads.

    Raises OptionError for values that cannot be trained. Which datasets and models exist is checked where they are
    built, so that a setting can be made and digested without importing torch.
    """

    data: DataSetting
    model: ModelSetting
    recipe: Recipe

    def __post_init__(self) -> None:
        for name in ("data", "model", "recipe"):
            object.__setattr__(self, name, _coerced(getattr(self, name), name))
        _check(self)

    def canonical(self) -> str:
        """Canonical JSON: sorted keys, no spaces, absent fields left out."""
        content: dict[str, Any] = {"training_version": TRAINING_VERSION}
        content |= {name: _present(getattr(self, name)) for name in ("data", "model", "recipe")}
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hex."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    @property
    def reconstructs(self) -> bool:
        """Whether the network learns its own inputs (an autoencoder) rather than classes."""
        return self.model.name == "autoencoder"

    @property
    def summary(self) -> str:
        """One line for people."""
        model, recipe = self.model, self.recipe
        shape = "-".join(map(str, model.hidden)) or model.variant
        parts = [f"{model.name} {shape}".strip(), "BN" if model.batch_norm else "no BN"]
        parts += ["LN"] if model.layer_norm else []
        parts += [] if model.bias else ["no bias"]
        parts += [] if model.hidden_bias else ["no hidden bias"]
        parts += [model.activation] if model.activation != "relu" else []
        parts += [model.init] if model.init == PRETRAINED else []
        parts += [f"{self.data.name}{f'[:{self.data.subset}]' if self.data.subset else ''}"]
        parts += [f"{self.data.label_noise:.4g} of labels random"] if self.data.label_noise else []
        parts += [recipe.augmentation] if recipe.augmentation else []
        parts += [f"{recipe.optimiser} lr {recipe.lr:g}"]
        parts += [f"momentum {recipe.momentum:g}"] if recipe.momentum else []
        parts += [f"wd {recipe.weight_decay:g}"] if recipe.weight_decay else []
        parts += [f"x{recipe.gamma:g} at {recipe.milestones}"] if recipe.milestones else []
        parts += ["linear to 0"] if recipe.schedule == "linear" else []
        parts += [f"{recipe.epochs} epochs of batches of {recipe.batch_size}"]
        parts += [recipe.loss.replace("_", " ")] if recipe.loss != "cross_entropy" else []
        parts += [recipe.precision] if recipe.precision == "bfloat16" else []
        parts += [f"seeds {recipe.init_seed}/{recipe.order_seed}"]
        return ", ".join(parts)

    def with_seeds(self, init_seed: int, order_seed: int | None = None) -> Setting:
        """The same setting drawn again; the order follows the init's seed unless given."""
        order = init_seed if order_seed is None else order_seed
        return dataclasses.replace(
            self, recipe=dataclasses.replace(self.recipe, init_seed=init_seed, order_seed=order)
        )

    def with_recipe(self, **changes: Any) -> Setting:
        """The same network trained by a changed recipe."""
        return dataclasses.replace(self, recipe=dataclasses.replace(self.recipe, **changes))


def from_json(text: str) -> Setting:
    """The setting whose canonical JSON is `text`. Raises OptionError for another training version or unknown fields."""
    try:
        content = json.loads(text)
        version = content.pop("training_version")
        parts = {name: kind(**content.pop(name)) for name, kind in _PARTS.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(f"not the JSON of a setting: {error}") from error
    if version != TRAINING_VERSION:
        raise OptionError(f"a setting of training version {version!r}, expected {TRAINING_VERSION}; train it again")
    if content:
        raise OptionError(f"not the JSON of a setting: unknown fields {sorted(content)}")
    return Setting(**parts)


_PARTS: dict[str, type[Any]] = {"data": DataSetting, "model": ModelSetting, "recipe": Recipe}


def _coerced(part: Any, name: str) -> Any:
    """The part with every field of its declared type, so that 1 and 1.0, lists and tuples agree."""
    kind = _PARTS[name]
    if not isinstance(part, kind):
        raise OptionError(f"`{name}` must be a {kind.__name__}, got {part!r}")
    values = {}
    for entry in dataclasses.fields(part):
        value = getattr(part, entry.name)
        try:
            values[entry.name] = _COERCIONS[str(entry.type)](value)
        except (TypeError, ValueError, OverflowError) as error:
            raise OptionError(f"{name}.{entry.name}={value!r} cannot be read as {entry.type}: {error}") from error
    return kind(**values)


def _integer(value: Any) -> int:
    if int(value) != value:
        raise ValueError("not a whole number")
    return int(value)


def _real(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number + 0.0  # -0.0 becomes 0.0


def _truth(value: Any) -> bool:
    if value not in (True, False):
        raise ValueError("not a truth value")
    return bool(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


_COERCIONS: dict[str, Callable[[Any], Any]] = {
    "int": _integer,
    "float": _real,
    "bool": _truth,
    "str": _text,
    "tuple[int, ...]": lambda values: tuple(_integer(value) for value in values),
}


def _present(part: Any) -> dict[str, Any]:
    entries = {}
    for entry in dataclasses.fields(part):
        value = getattr(part, entry.name)
        if "absent" not in entry.metadata or value != entry.metadata["absent"]:
            entries[entry.name] = value
    return entries


def _check(setting: Setting) -> None:
    recipe, model, data = setting.recipe, setting.model, setting.data
    for what, got, known in (
        ("optimiser", recipe.optimiser, OPTIMISERS),
        ("init", model.init, (*INITIALISATIONS, PRETRAINED)),
        ("activation", model.activation, ACTIVATIONS),
        ("precision", recipe.precision, PRECISIONS),
        ("augmentation", recipe.augmentation, AUGMENTATIONS),
        ("loss", recipe.loss, LOSSES),
        ("schedule", recipe.schedule, SCHEDULES),
    ):
        if got not in known:
            raise UnknownNameError(what, got, known)
    rules = (
        (recipe.lr > 0, "lr", "positive"),
        (recipe.epochs >= 1, "epochs", "at least 1"),
        (recipe.batch_size >= 1, "batch_size", "at least 1"),
        (0 <= recipe.momentum < 1, "momentum", "in [0, 1)"),
        (recipe.weight_decay >= 0, "weight_decay", "not negative"),
        (recipe.gamma > 0, "gamma", "positive"),
        (all(epoch >= 0 for epoch in recipe.milestones), "milestones", "not negative"),
        (list(recipe.milestones) == sorted(set(recipe.milestones)), "milestones", "increasing epochs"),
        (all(step >= 1 for step in recipe.checkpoints), "checkpoints", "iterations from 1"),
        (list(recipe.checkpoints) == sorted(set(recipe.checkpoints)), "checkpoints", "increasing iterations"),
        (recipe.optimiser != "adam" or recipe.momentum == 0, "momentum", "0 for adam, which has its own betas"),
        (not setting.reconstructs or recipe.loss == "squared_error", "loss", "squared_error for an autoencoder"),
    )
    for holds, name, wanted in rules:
        if not holds:
            raise OptionError(f"recipe.{name}={getattr(recipe, name)!r} must be {wanted}")
    if data.subset < 0:
        raise OptionError(f"data.subset={data.subset!r} must not be negative")
    if not 0 <= data.label_noise <= 1:
        raise OptionError(f"data.label_noise={data.label_noise!r} must be a share between 0 and 1")
    if setting.reconstructs and data.label_noise:
        raise OptionError(
            f"data.label_noise={data.label_noise!r} goes with classes, and an autoencoder has none; leave it out"
        )
    if setting.reconstructs and recipe.augmentation:
        raise OptionError(
            f"recipe.augmentation={recipe.augmentation!r} would change an autoencoder's inputs and not its targets; "
            "leave it out"
        )
    if any(width < 1 for width in model.hidden):
        raise OptionError(f"model.hidden={model.hidden!r} must be positive widths")
