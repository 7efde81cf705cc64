"""A State is a plain state_dict: {name: tensor}. Reading, checking, measuring and loading states."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TypeAlias

import safetensors.torch
import torch
from torch import Tensor, nn

from mli_check.errors import OptionError, StateMismatchError

State: TypeAlias = Mapping[str, Tensor]

RUNNING_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def is_running_statistic(name: str) -> bool:
    """Whether a tensor of this name is a normalisation layer's buffer, which no optimiser trains."""
    return name.rpartition(".")[2] in RUNNING_STATISTICS


def parameters(state: State, model: nn.Module | None = None) -> dict[str, Tensor]:
    """The trained part of a state: `model`'s parameters, or without one all floating tensors but running statistics."""
    if model is not None:
        names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        return {name: tensor for name, tensor in state.items() if name in names}
    return {
        name: tensor
        for name, tensor in state.items()
        if tensor.is_floating_point() and not is_running_statistic(name)
    }


def buffers(state: State, model: nn.Module | None = None) -> dict[str, Tensor]:
    """What `parameters` leaves out."""
    trained = parameters(state, model)
    return {name: tensor for name, tensor in state.items() if name not in trained}


def size(state: State, model: nn.Module | None = None) -> float:
    """M(theta), the mean absolute parameter (Tao et al. 2024, Definition 5.2). Raises OptionError if there is none."""
    tensors = parameters(state, model).values()
    count = sum(tensor.numel() for tensor in tensors)
    if count == 0:
        raise OptionError("a state without floating-point parameters has no size M(theta)")
    total = sum(float(tensor.detach().abs().sum(dtype=torch.float64)) for tensor in tensors)
    return total / count


def delta(init: State, final: State, model: nn.Module | None = None) -> float:
    """delta = M(theta_0) / M(theta_F), the relative scale (Tao et al. 2024, Eq. 21)."""
    check_same(init, final, "init", "final")
    below = size(final, model)
    if below == 0:
        raise OptionError("the relative scale delta = M(init) / M(final) needs a final state that is not all zero")
    return size(init, model) / below


def distance(first: State, second: State, model: nn.Module | None = None) -> float:
    """Euclidean distance between the parameters of two states; running statistics are left out."""
    check_same(first, second, "first", "second")
    ours, theirs = parameters(first, model), parameters(second, model)
    gaps = (ours[n].detach().double() - theirs[n].detach().double().to(ours[n].device) for n in ours)
    return math.sqrt(sum(float(gap.square().sum()) for gap in gaps))


def digest(state: State) -> str:
    """SHA-256 (hex) of the names, dtypes, shapes and bytes of a state, independent of order and device."""
    content = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        content.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        content.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


def differences(first: State, second: State, first_name: str, second_name: str) -> list[str]:
    """Every difference in names, shapes and kinds of dtype, one line each; empty where the two fit."""
    lines = [f"`{name}` is in {first_name}, not in {second_name}" for name in first if name not in second]
    lines += [f"`{name}` is in {second_name}, not in {first_name}" for name in second if name not in first]
    for name, tensor in first.items():
        other = second.get(name)
        if other is None:
            continue
        if tensor.shape != other.shape:
            shapes = f"{tuple(tensor.shape)} in {first_name}, {tuple(other.shape)} in {second_name}"
            lines.append(f"`{name}` has shape {shapes}")
        if tensor.is_floating_point() != other.is_floating_point():
            lines.append(f"`{name}` is {tensor.dtype} in {first_name}, {other.dtype} in {second_name}")
    return lines


def check_same(first: State, second: State, first_name: str, second_name: str) -> None:
    """Raise StateMismatchError, listing all differences, unless the two states have the same tensors."""
    lines = differences(first, second, first_name, second_name)
    if lines:
        listed = "\n  ".join(lines)
        raise StateMismatchError(
            f"{first_name} and {second_name} do not fit, {len(lines)} difference(s):\n  {listed}\n"
            "Pass two states of the same architecture."
        )


def check_fits(model: nn.Module, state: State, name: str) -> None:
    """Raise StateMismatchError unless `state` has exactly the tensors of `model`."""
    check_same(state, model.state_dict(), name, "the model")


def clone(state: State) -> dict[str, Tensor]:
    """An independent copy, detached, on the same devices."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def zeros_like(state: State, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """A state of zeros with the shapes of `state` (of its tensors `names`, where given)."""
    return {name: torch.zeros_like(state[name]) for name in (state if names is None else names)}


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Read a state from a `.safetensors` file or a `.pt`/`.pth` file of tensors; code in a pickle is never run.

    A checkpoint that keeps its state_dict under `state_dict`, `model_state_dict` or `model` is unwrapped. Raises
    OptionError if the file is missing, damaged or holds no state.
    """
    file = Path(path)
    if not file.is_file():
        raise OptionError(f"no such file: {str(file)!r}; pass a .safetensors or .pt file with a state_dict")
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise OptionError(
            f"{str(file)!r} is damaged or holds more than tensors, so it is not loaded; save `model.state_dict()` alone"
        ) from error
    except Exception as error:  # on damaged bytes the unpickler raises IndexError, struct.error, AssertionError, ...
        raise OptionError(f"cannot read {str(file)!r} as a state: {error}") from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise OptionError(f"{str(file)!r} holds {type(content).__name__}, expected a state_dict {{name: tensor}}")
    return dict(content)


def to_bytes(state: State) -> bytes:
    """The state as the bytes of a safetensors file; tied tensors are written once a name."""
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()})
