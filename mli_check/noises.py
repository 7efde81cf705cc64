"""The noise epsilon of the MLI formula, alpha * theta_F + (1 - alpha) * epsilon (Tao et al. 2024, Equation 19).

A noise is a state like the trained one: fresh draws of an initialisation, a constant, or the negative gradient; any of
them scaled to a relative size delta (Definition 5.2).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mli_check.data.dataset import Dataset
from mli_check.errors import OptionError, UnknownNameError
from mli_check.losses import Loss, resolve
from mli_check.precision import full_float32
from mli_check.states import State, check_fits, is_running_statistic, parameters, size

_Draw = Callable[[Tensor, torch.Generator], None]
_BLOCK = 1000  # examples per block of a gradient


def _binary(weight: Tensor, generator: torch.Generator) -> None:
    scale = (2 / nn.init._calculate_correct_fan(weight, "fan_in")) ** 0.5
    weight.copy_(torch.randint(0, 2, weight.shape, generator=generator) * (2 * scale) - scale)


FAMILIES: dict[str, _Draw] = {
    "binary": _binary,
    "kaiming_uniform": lambda weight, generator: _kaiming(nn.init.kaiming_uniform_, weight, generator),
    "kaiming_normal": lambda weight, generator: _kaiming(nn.init.kaiming_normal_, weight, generator),
    "orthogonal": lambda weight, generator: _orthogonal(weight, generator),
}
KINDS = (*FAMILIES, "constant", "unrelated", "gradient")


def noise(
    kind: str,
    like: State,
    *,
    seed: int = 0,
    delta: float | None = None,
    model: nn.Module | None = None,
    data: Dataset | None = None,
    loss: str | Loss = "cross_entropy",
) -> dict[str, Tensor]:
    """A noise with the names, shapes, dtypes and devices of the trained state `like`.

    `kind` is one of

    - `binary`, `kaiming_uniform`, `kaiming_normal`, `orthogonal` (Tao et al. 2024, A.3): every tensor of two or more
      dimensions is drawn, with fan-in and the gain of ReLU; binary means plus or minus Kaiming's standard deviation.
      Vectors are as such initialisations leave them: biases zero, a normalisation's weight one;
    - `constant` (5.1.2): every parameter is the same number, that gives `delta`;
    - `unrelated`: each layer of `model` draws its parameters by its own `reset_parameters`;
    - `gradient` (4.2): minus the gradient of the mean `loss` over `data` at `like`, with `model` in evaluation mode.

    With `delta`, parameters are multiplied so that M(noise) / M(like) is `delta` (Definition 5.2). Running statistics
    are those of a fresh layer, mean 0 and variance 1; other buffers are `like`'s. Tensors that share memory in `like`
    get the same noise. The draw depends on `seed` and the shapes alone, not on the device; no global generator moves.
    Raises UnknownNameError for another kind, OptionError for a missing `delta`, `model` or `data` and for one that the
    kind does not take, StateMismatchError where `like` does not fit the model.
    """
    if kind not in KINDS:
        raise UnknownNameError("kind of noise", kind, KINDS)
    _check(kind, delta, model, data)
    drawn = fresh(like)
    if kind in FAMILIES:
        drawn |= _shared(like, _family(FAMILIES[kind], like, seed))
    elif kind == "constant":
        drawn |= {name: torch.ones_like(tensor) for name, tensor in parameters(like).items()}
    elif kind == "unrelated":
        assert model is not None
        drawn |= _redrawn(model, like, seed)
    else:
        assert model is not None
        assert data is not None
        drawn |= {name: -tensor for name, tensor in gradient(model, like, data, loss).items()}
    return drawn if delta is None else scaled(drawn, like, delta)


def scaled(state: State, like: State, delta: float) -> dict[str, Tensor]:
    """The state with its parameters multiplied so that M(state) / M(like) is `delta` (Tao et al. 2024, Section 5.1.1).

    Buffers stay. Raises OptionError for a negative or infinite `delta` and for a state that is zero.
    """
    if not 0 <= delta < float("inf"):
        raise OptionError(f"a relative scale `delta` is a finite number of at least 0, got {delta!r}")
    now = size(state)
    if now == 0:
        raise OptionError("a noise that is zero everywhere cannot be scaled to a `delta`; draw another one")
    factor = delta * size(like) / now
    moved = parameters(state)
    return {name: tensor * factor if name in moved else tensor.detach().clone() for name, tensor in state.items()}


def fresh(like: State) -> dict[str, Tensor]:
    """A copy of the state with the running statistics of fresh normalisation layers: mean 0, variance 1."""
    return {
        name: torch.full_like(tensor, float(name.endswith("var")))
        if is_running_statistic(name) and tensor.is_floating_point()
        else tensor.detach().clone()
        for name, tensor in like.items()
    }


def gradient(
    model: nn.Module, state: State, data: Dataset, loss: str | Loss = "cross_entropy"
) -> dict[str, Tensor]:
    """The gradient of the mean loss over `data` with respect to every parameter, at `state`, model in evaluation mode.

    Tensors have the state's dtype; sums over blocks of examples are kept in double precision. `model` is left as it is.
    """
    check_fits(model, state, "the state")
    device = data.targets.device
    replica = copy.deepcopy(model).to(device).eval()
    first = {id(tensor): name for name, tensor in reversed(list(replica.named_parameters(remove_duplicate=False)))}
    shared = {name: first[id(tensor)] for name, tensor in replica.named_parameters(remove_duplicate=False)}
    alone = {name: tensor for name, tensor in state.items() if shared.get(name, name) == name}
    given = {name: tensor.detach().to(device).clone() for name, tensor in alone.items()}
    weights = {name: given[name].requires_grad_() for name in dict.fromkeys(shared.values())}
    total = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in weights.items()}
    seen, per_example = data.normalised(next(iter(weights.values())).dtype), resolve(loss)[1]
    for start in range(0, len(data), _BLOCK):
        rows = slice(start, start + _BLOCK)
        with full_float32():
            value = per_example(_outputs(replica, given, seen, rows), seen.targets[rows]).sum()
            found = torch.autograd.grad(value, list(weights.values()))
        for whole, part in zip(total.values(), found, strict=True):
            whole += part
    return {name: (total[source] / len(data)).to(state[name]) for name, source in shared.items()}


def _outputs(model: nn.Module, state: State, data: Dataset, rows: slice) -> Tensor:
    """The model's outputs at a state; floating inputs take the dtype of its weights, a dict is passed as keywords."""
    dtype = next(iter(model.parameters())).dtype

    def part(tensor: Tensor) -> Tensor:
        return tensor[rows].to(dtype) if tensor.is_floating_point() else tensor[rows]

    inputs = data.inputs
    args = (part(inputs),) if isinstance(inputs, Tensor) else ()
    named = {} if isinstance(inputs, Tensor) else {name: part(tensor) for name, tensor in inputs.items()}
    outputs: Tensor = functional_call(model, dict(state), args, named)
    return outputs


def _check(kind: str, delta: float | None, model: nn.Module | None, data: Dataset | None) -> None:
    if kind == "constant" and delta is None:
        raise OptionError("noise of kind 'constant' has the size that `delta` says; pass delta=")
    for name, given, kinds in (("model", model, ("unrelated", "gradient")), ("data", data, ("gradient",))):
        if given is None and kind in kinds:
            raise OptionError(f"noise of kind {kind!r} needs `{name}`; pass it")
        if given is not None and kind not in kinds:
            raise OptionError(f"noise of kind {kind!r} takes no `{name}`, only {' and '.join(kinds)} do; leave it out")


def _kaiming(draw: Callable[..., Tensor], weight: Tensor, generator: torch.Generator) -> None:
    draw(weight, nonlinearity="relu", generator=generator)


def _orthogonal(weight: Tensor, generator: torch.Generator) -> None:
    nn.init.orthogonal_(weight, gain=nn.init.calculate_gain("relu"), generator=generator)


def _family(draw: _Draw, like: State, seed: int) -> dict[str, Tensor]:
    """One draw of every parameter: matrices and kernels by `draw`, vectors as an initialisation leaves them."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, tensor in parameters(like).items():
        value = torch.zeros(tensor.shape)
        if tensor.ndim >= 2:
            draw(value, generator)
        elif name.rpartition(".")[2] == "weight":
            value.fill_(1.0)
        found[name] = value.to(tensor)
    return found


def _shared(like: State, drawn: dict[str, Tensor]) -> dict[str, Tensor]:
    """The draws, with that of the first for all tensors that share memory in `like`."""
    first: dict[tuple[int, torch.Size], str] = {}
    keys = {name: (like[name].data_ptr(), like[name].shape) for name in drawn if like[name].numel()}
    return {name: drawn[first.setdefault(keys[name], name)] if name in keys else drawn[name] for name in drawn}


def _redrawn(model: nn.Module, like: State, seed: int) -> dict[str, Tensor]:
    """The parameters of a copy of the model after every layer has drawn its own anew."""
    check_fits(model, like, "the state")
    replica = copy.deepcopy(model).cpu()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for name, layer in replica.named_modules():
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()
            elif next(layer.parameters(recurse=False), None) is not None:
                raise OptionError(
                    f"layer {name or type(layer).__name__!r} has parameters and no `reset_parameters`, so it cannot "
                    "draw them anew; pass a freshly built model's state as the noise instead"
                )
    return {name: tensor.detach().to(like[name]) for name, tensor in replica.named_parameters(remove_duplicate=False)}
