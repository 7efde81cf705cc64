"""From MODULE:FACTORY on a command line to a network, and from shapes to an input for it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mli_check.errors import OptionError

DTYPES = {"float": torch.float32, "int": torch.int64, "bool": torch.bool}


def load_model(text: str) -> nn.Module:
    """The network that `MODULE:FACTORY` makes: FACTORY is called without arguments, or is a module already.

    The current folder is looked in first, as by `python -m`. Raises OptionError for a text of another form, a module
    that cannot be imported, a name that it does not have, a factory that fails or makes no torch.nn.Module.
    """
    module_name, colon, name = text.partition(":")
    if not colon or not module_name or not name:
        raise OptionError(f"a model is given as MODULE:FACTORY, such as torchvision.models:resnet18; got {text!r}")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise OptionError(f"cannot import {module_name!r} of {text!r}: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise OptionError(f"{module_name!r} has no {name!r}; name a function or class that makes the model")
        found = getattr(found, part)
    if isinstance(found, nn.Module):
        return found
    return _made(found, text)


def _made(factory: Callable[[], Any], text: str) -> nn.Module:
    if not callable(factory):
        raise OptionError(f"{text!r} is a {type(factory).__name__}, expected a function or class that makes the model")
    try:
        made = factory()
    except Exception as error:  # whatever a stranger's function raises
        raise OptionError(f"{text!r} fails when called without arguments: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise OptionError(f"{text!r} makes a {type(made).__name__}, expected a torch.nn.Module")
    return made


def example_inputs(shapes: Sequence[str]) -> tuple[Tensor, ...]:
    """Zeros, one tensor a shape: "2,3,64,64", or with a kind "2,16:int" (float, int, bool).

    Raises OptionError for a text of another form.
    """
    return tuple(_zeros(text) for text in shapes)


def _zeros(text: str) -> Tensor:
    sizes, _, kind = text.partition(":")
    kind = kind or "float"
    parts = [part.strip() for part in sizes.split(",")]
    if kind not in DTYPES or not all(part.isdecimal() and int(part) > 0 for part in parts):
        kinds = ", ".join(DTYPES)
        raise OptionError(f"an input is given by its shape, such as 2,3,64,64 or 2,16:int ({kinds}); got {text!r}")
    return torch.zeros([int(part) for part in parts], dtype=DTYPES[kind])
