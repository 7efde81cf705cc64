"""What the tests of scale symmetries share: running a network in a state, and deciding its group by other means."""

from __future__ import annotations

import copy
import warnings
from itertools import islice
from typing import TYPE_CHECKING

import torch
from hypothesis import assume
from torch import Tensor, nn
from torch.func import functional_call, jacfwd

from mli_check.strategies import fill
from mli_check.strategies.generic import is_generic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mli_check.symmetry import Symmetries

NO_ETA = 1e-30  # torch refuses 0 in training
WEIGHT_DRAWS = (1, 2, 3)


def without_eta(model: nn.Module, eta: float = NO_ETA) -> nn.Module:
    """The model itself, its normalisations with another eta."""
    for module in model.modules():
        if isinstance(getattr(module, "eps", None), float):
            module.eps = eta
    return model


def output(model: nn.Module, state: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """What the model computes in a state; model and state are left alone."""
    other = copy.deepcopy(model)
    other.load_state_dict(state)
    with torch.no_grad():
        found = other(inputs)
    assert isinstance(found, Tensor)
    return found


def numerical_dimensions(model: nn.Module, symmetries: Symmetries, inputs: Tensor) -> tuple[int, int]:
    """The dimension of the group with fixed and with free output, from Jacobians of the outputs in the log-scales.

    Scales that leave the output alone for all of several draws of the weights: for one draw alone, constants that reach
    the same few places can cancel one another, at factors that depend on the weights. In float64 and training mode.
    """
    draws = (fill(copy.deepcopy(model), seed) for seed in range(1, 50))
    generic = list(islice((one for one in draws if is_generic(one, inputs)), len(WEIGHT_DRAWS)))
    assume(len(generic) == len(WEIGHT_DRAWS))  # a network with a dead unit has symmetries of its own
    fixed, free, size = [], [], 0.0
    for index, drawn in enumerate(generic):
        jacobian, outputs = _jacobian(drawn, symmetries, inputs)
        fixed.append(jacobian)
        size = max(size, float(outputs.norm()))
        apart = [torch.zeros_like(outputs)] * len(generic)
        apart[index] = -outputs  # by how much the output is multiplied may differ from draw to draw
        free.append(torch.cat([jacobian, torch.stack(apart, dim=1)], dim=1))
    return _nullity(torch.cat(fixed), size), _nullity(torch.cat(free), size)


def _jacobian(model: nn.Module, symmetries: Symmetries, inputs: Tensor) -> tuple[Tensor, Tensor]:
    state = {name: tensor.detach() for name, tensor in model.state_dict().items() if name not in symmetries.aliases}

    def outputs(logs: Tensor) -> Tensor:
        scaled = {name: tensor.clone() for name, tensor in state.items()}
        for name, log in zip(symmetries.tensors, logs, strict=True):
            scaled[name] = state[name] * torch.exp(log)
        found = functional_call(model, scaled, (inputs,)).flatten()
        assert isinstance(found, Tensor)
        return found

    at = torch.zeros(len(symmetries.tensors), dtype=torch.float64)
    with warnings.catch_warnings():  # torch loads rules for forward mode that it compiles in a way it has deprecated
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        return jacfwd(outputs)(at), outputs(at).detach()


def _nullity(matrix: Tensor, size: float) -> int:
    """How many directions change nothing, beside outputs of this size."""
    return matrix.shape[1] - int((torch.linalg.svdvals(matrix) > 1e-9 * size).sum())


def redrawn(model: nn.Module) -> list[nn.Module]:
    """The model, and copies of it with other weights: for single weights a unit can be dead or a slope unused."""
    return [model, *(fill(copy.deepcopy(model), seed) for seed in WEIGHT_DRAWS)]


def rounding_bound(model: nn.Module, state: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """How far rounding can move an output when every tensor is multiplied by a factor that is no power of two.

    Each tensor is then off by at most two units of roundoff u, and each layer rounds sums of n terms, n its fan-in:
    (2 + depth * n) u relative to what the outputs are made of, max_i sum_j |d out_i / d theta_j * theta_j|. In front of
    a normalisation a sum is rounded relative to its size, not to its deviation, which is what stays: the largest ratio
    of the two multiplies the bound. To first order in u, taken twice.
    """
    other = copy.deepcopy(model)
    other.load_state_dict(state)
    ratios = [torch.ones(())]

    def watch(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        ratios.append(_size_by_deviation(module, arguments[0].detach()))

    hooks = [m.register_forward_pre_hook(watch) for m in other.modules() if isinstance(m, NORMS)]
    outputs = other(inputs).flatten()
    for hook in hooks:
        hook.remove()
    parameters = list(other.parameters())
    sensitivity = torch.zeros(())
    for one in outputs:
        slopes = torch.autograd.grad(one, parameters, retain_graph=True, allow_unused=True)
        made_of = sum((g * p).abs().sum() for g, p in zip(slopes, parameters, strict=True) if g is not None)
        sensitivity = torch.maximum(sensitivity, torch.as_tensor(made_of).detach())
    weights = [p for p in parameters if p.ndim > 1]
    fan_in = max((p[0].numel() for p in weights), default=1)
    depth = len(parameters) * 2  # tied layers run twice
    rounding = torch.finfo(outputs.dtype).eps / 2
    return 2 * (2 + depth * fan_in) * rounding * sensitivity * torch.stack(ratios).max()


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def _size_by_deviation(module: nn.Module, values: Tensor) -> Tensor:
    """The largest ratio of an entry's size to the deviation that a normalisation divides by."""
    if isinstance(module, nn.LayerNorm):
        flat = values.flatten(-len(module.normalized_shape)).reshape(-1, values[0].numel())
    elif isinstance(module, nn.GroupNorm):
        flat = values.reshape(len(values) * module.num_groups, -1)
    else:
        flat = values.transpose(0, 1).flatten(1)
        if not module.training:
            return torch.ones(())
    deviation = flat.std(1, correction=0)
    return torch.nan_to_num(flat.abs().amax(1) / deviation, nan=1.0, posinf=1.0).max()
