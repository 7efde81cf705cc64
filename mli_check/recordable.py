"""What can be recorded: a model's state as if it were not wrapped, its optimisers' settings, and what may be passed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from mli_check.errors import OptionError
from mli_check.states import to_bytes

_LIBRARY_WRAPPERS = {"AcceleratedOptimizer": "optimizer", "LightningOptimizer": "optimizer"}
_SHARDED = {"FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine"}

# What is saved of a model and its optimisers


def state_bytes(model: nn.Module) -> bytes:
    """The model's state, as if it were not wrapped, as the bytes of a safetensors file."""
    state = {_plain(name, _wrappings(model)): tensor for name, tensor in model.state_dict().items()}
    if not state:
        raise OptionError(f"the model {type(model).__name__} has an empty state_dict, so there is nothing to record")
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise OptionError(
                f"the model's state_dict holds {type(tensor).__name__} under {name!r}, expected tensors alone (no "
                "pickle is ever written); let get_extra_state return a tensor, or record a submodule without it"
            )
        if tensor.layout != torch.strided or tensor.is_meta or type(tensor).__name__ == "DTensor":
            what = "sharded" if type(tensor).__name__ == "DTensor" else "on meta" if tensor.is_meta else "sparse"
            raise OptionError(
                f"the tensor {name!r} is {what}, expected a whole dense tensor; record the model before that"
            )
    try:
        return to_bytes(state)
    except (RuntimeError, ValueError, KeyError, NotImplementedError) as error:
        dtypes = ", ".join(sorted({str(tensor.dtype) for tensor in state.values()}))
        raise OptionError(f"the model's state ({dtypes}) cannot be written as safetensors: {error}") from error


def checked_readable(content: bytes) -> bytes:
    """The bytes of a state, if they can be read back: a few dtypes can only be written. Raises OptionError."""
    try:
        safetensors.torch.load(content)
    except Exception as error:  # KeyError for a dtype, SafetensorError for a name, and whatever later versions raise
        raise OptionError(
            f"the model's state can be written as safetensors but cannot be read back ({type(error).__name__}: "
            f"{error}); keep its tensors in a common dtype such as float32 or bfloat16, and name none `__metadata__`"
        ) from error
    return content


def _wrappings(model: nn.Module) -> list[tuple[str, str]]:
    """The path of every wrapper in the model, deepest first, and the name under which it holds what it wraps."""
    found = []
    for path, module in model.named_modules(remove_duplicate=False):
        inner = _inner_name(module)
        if inner is not None:
            found.append((f"{path}." if path else "", f"{inner}."))
    return sorted(found, key=lambda wrapping: -len(wrapping[0]))


def _inner_name(module: nn.Module) -> str | None:
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return "module"
    compiled = type(module).__name__ == "OptimizedModule" and isinstance(getattr(module, "_orig_mod", None), nn.Module)
    return "_orig_mod" if compiled else None


def _plain(name: str, wrappings: Iterable[tuple[str, str]]) -> str:
    for path, inner in wrappings:
        if name.startswith(path + inner):
            name = path + name[len(path) + len(inner) :]
    return name


def unwrapped(model: nn.Module) -> nn.Module:
    """The model within DataParallel, DistributedDataParallel and torch.compile."""
    while (inner := _inner_name(model)) is not None:
        model = model.get_submodule(inner)
    return model


def settings_of(optimizer: Optimizer) -> dict[str, Any]:
    """The class of an optimiser, and of each group of parameters their number and all options that are scalars."""
    groups = []
    for group in optimizer.param_groups:
        options = {name: _option(value) for name, value in group.items() if name != "params"}
        kept = {name: value for name, value in options.items() if value is not ...}
        groups.append({"parameters": sum(tensor.numel() for tensor in group["params"])} | kept)
    return {"class": class_of(optimizer), "groups": groups}


def _option(value: Any) -> Any:
    """An option as JSON has it, numbers that are not finite as null; `...` for what is no scalar nor a few of them."""
    if isinstance(value, tuple | list):
        options = [_option(entry) for entry in value]
        return ... if ... in options or any(isinstance(entry, list | str) for entry in options) else options
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1):
        return finite(value)
    return ...


def class_of(thing: object) -> str:
    """The full name of its class."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def device_of(model: nn.Module) -> str:
    """Where the first of the model's tensors lies; empty if it has none."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return str(next((tensor.device for tensor in tensors), ""))


def finite(value: Any) -> float | None:
    """A number as JSON has it: None where it is not finite, or is None."""
    number = None if value is None else float(value)
    return number if number is not None and math.isfinite(number) else None


# What may be passed


def checked_model(model: Any) -> nn.Module:
    """The model, if it is a whole one. Raises OptionError."""
    if not isinstance(model, nn.Module):
        raise OptionError(f"model is {type(model).__name__}, expected a torch.nn.Module")
    sharded = {kind.__name__ for module in model.modules() for kind in type(module).__mro__} & _SHARDED
    if sharded:
        raise OptionError(f"the model is wrapped in {sharded.pop()}, whose state is sharded; record unsharded training")
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(tensor):
            raise OptionError(f"the model's {name!r} is not drawn yet; run one batch through the model, then record it")
    return model


def checked_optimizers(given: Any) -> list[Optimizer]:
    """The optimisers, out of what Accelerate or Lightning wrap them in. Raises OptionError."""
    optimizers: list[Optimizer] = []
    for optimizer in given if isinstance(given, Sequence) else [] if given is None else [given]:
        inner: Any = getattr(optimizer, _LIBRARY_WRAPPERS.get(type(optimizer).__name__, ""), optimizer)
        if not isinstance(getattr(inner, "param_groups", None), list):
            raise OptionError(
                f"optimizer is {type(inner).__name__}, expected a torch.optim.Optimizer or several in a list"
            )
        optimizers.append(inner)
    return optimizers


def checked_checkpoints(given: Any) -> Any:
    """The iterations to keep, as a set, or "log". Raises OptionError."""
    if given is None or (isinstance(given, str) and given == "log"):
        return given or frozenset()
    expected = "expected 'log', None, or the iterations to keep, whole numbers from 1 (theta_0 is always kept)"
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise OptionError(f"checkpoints={given!r}, {expected}")
    wanted = list(given)
    wrong = [each for each in wanted if isinstance(each, bool) or not isinstance(each, Integral) or each < 1]
    if wrong:
        raise OptionError(f"checkpoints holds {wrong[0]!r}, {expected}")
    return frozenset(map(int, wanted))


def checked_loss(loss: Any) -> Any:
    """A copy of the loss that no graph hangs on, where it lies. Raises OptionError."""
    if isinstance(loss, Tensor) and loss.numel() == 1 and not loss.is_complex():
        return loss.detach().clone()
    if loss is None or (isinstance(loss, Real) and not isinstance(loss, bool)):
        return loss
    got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
    raise OptionError(f"loss is {got}, expected a float or a tensor of one element; pass its mean, or nothing")
