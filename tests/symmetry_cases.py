"""Tiny networks as data, and what they compute under scales: for the tests of the rules of single operations."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from symmetry_helpers import without_eta
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations
from torch.utils import _pytree as pytree

from mli_check.symmetry import Symmetries, scale_symmetries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

DRAWS = (1, 2)  # of the weights
SAMPLES = range(3)  # of the group, for each draw
COARSE = "the rule asks for one scale and no constants"


class Net(nn.Module):
    """A network whose forward pass is a function of itself and its inputs; parts are layers, weights and buffers."""

    def __init__(self, compute: Callable[..., object], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.compute = compute
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> object:
        return self.compute(self, *inputs)


@dataclass(frozen=True, eq=False)
class Case:
    """A network and the shape of its input.

    `less`, with its `reason`: by how much the group is knowingly smaller than it could be. `alone`: all tensors that
    may be scaled alone, where that is the point.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (12, 4)
    train: bool = True
    less: int = 0
    reason: str = ""
    alone: str | None = None

    @property
    def inputs(self) -> Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)

    def model(self, seed: int = DRAWS[0]) -> nn.Module:
        """The network in float64 without eta, with generic weights that belong to the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            torch.set_default_dtype(torch.float64)  # not .double(), which would part tensors that share memory
            try:
                model = without_eta(self.build()).train(self.train)
            finally:
                torch.set_default_dtype(torch.float32)
        return drawn(model, seed)


def net(compute: Callable[..., object], **parts: object) -> Callable[[], Net]:
    """What builds a Net: a tuple stands for a linear layer, a list for a weight of that shape, a tensor is a buffer."""
    return lambda: Net(compute, **{name: made(part) for name, part in parts.items()})


def chain(*parts: object) -> Callable[[], nn.Sequential]:
    """What builds one layer after the other: tuples for linear ones, else what builds them."""
    return lambda: nn.Sequential(*map(made, parts))


def batch_normed(values: Tensor) -> Tensor:
    """Batch norm without weights, of channels that are in the last dimension."""
    flat = values.reshape(-1, values.shape[-1])
    return nn.functional.batch_norm(flat, None, None, training=True, eps=1e-30).reshape(values.shape)


def made(part: Any) -> Any:
    if isinstance(part, tuple):
        return nn.Linear(*part)
    if isinstance(part, list):
        return nn.Parameter(torch.ones(part))
    return part.clone() if isinstance(part, Tensor) else part()


def drawn(model: nn.Module, seed: int) -> nn.Module:
    """The model itself, its weights and running statistics generic and away from zero; other buffers stay."""
    generator = torch.Generator().manual_seed(seed)
    statistics = {name: buffer for name, buffer in model.named_buffers() if "running" in name}
    with torch.no_grad():
        for name, tensor in (dict(model.named_parameters()) | statistics).items():
            size = 0.5 + torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
            sign = torch.randint(0, 2, tensor.shape, generator=generator) * 2 - 1
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 1
            tensor.copy_(size if name.endswith("running_var") else sign * size / fan_in**0.5)
    return model


@cache
def group_of(case: Case) -> Symmetries:
    """The group that is tested."""
    return scale_symmetries(case.model(), case.inputs)


def floats(found: object) -> list[Tensor]:
    """The floating-point tensors in what a network returns."""
    return [leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def computed(model: nn.Module, state: Mapping[str, Tensor], inputs: Tensor) -> list[Tensor]:
    """What the model returns in a state, which it is left in; always with the same dropout masks."""
    model.load_state_dict(state)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [one.clone() for one in floats(model(inputs.clone()))]


# What the tests ask of every case


def assert_sound(case: Case) -> None:
    """Any element leaves the outputs alone; any of the free group multiplies each by the factor that it says."""
    for group, seed in zip((group_of(case), group_of(case).free), DRAWS, strict=True):
        for factors, pairs in scaled(case, group, seed, dyadic=False):
            for found, wanted in pairs:
                assert (found - wanted).abs().max() <= 1e-9 * wanted.abs().max(), factors


def assert_exact(case: Case) -> None:
    """Powers of two of the exact subgroup change no bit."""
    for group, seed in zip((group_of(case).exact, group_of(case).free.exact), DRAWS, strict=True):
        for factors, pairs in scaled(case, group, seed, dyadic=True):
            for found, wanted in pairs:
                assert torch.equal(found, wanted), factors


def scaled(
    case: Case, group: Symmetries, seed: int, *, dyadic: bool
) -> Iterator[tuple[dict[str, float], list[tuple[Tensor, Tensor]]]]:
    """Elements, and for each what every output becomes and what it should."""
    model, inputs = case.model(seed), case.inputs
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = computed(model, state, inputs)
    for sample in SAMPLES:
        factors = group.sample(sample, dyadic=dyadic)
        sizes = [group.output_factor(factors, name) for name in group.outputs]
        if group.output == "fixed":
            assert sizes == pytest.approx([1.0] * len(sizes))
        after = computed(model, group.apply(state, factors), inputs)
        yield factors, [(found, one * size) for found, one, size in zip(after, before, sizes, strict=True)]


def assert_complete(case: Case) -> None:
    """The dimensions are those of Jacobians, but for what is knowingly missing."""
    assert bool(case.less) == bool(case.reason)
    group = group_of(case)
    assert set(group.tensors) == set(scalable(case.model()))
    numerical = numerical_dimensions(case)
    assert (group.dimension + case.less, group.free.dimension + case.less) == numerical


def assert_alone(case: Case) -> None:
    """These tensors, and no others, may be scaled without any other."""
    group = group_of(case)
    assert {name for name in group.tensors if not group.violations({name: 2.0})} == set((case.alone or "").split())


def said(error: type[Exception], call: Callable[[], object]) -> str:
    """What the error says, in one line."""
    with pytest.raises(error) as caught:
        call()
    return " ".join(str(caught.value).split())


# The dimension by other means


def numerical_dimensions(case: Case) -> tuple[int, int]:
    """The dimension of the group with fixed and with free outputs, from Jacobians of the outputs in the log-scales.

    Stacked over several draws of the weights. Running statistics count as tensors in eval mode, and what they are of
    the variance of what they normalise must stay, as the outputs must.
    """
    fixed, free, size = [], [], 0.0
    for index, seed in enumerate(DRAWS):
        jacobian, found = slopes(case, seed)
        size = max(size, *(float(part.norm()) for part in found))
        apart = torch.zeros(len(jacobian), len(found) * len(DRAWS), dtype=torch.float64)
        start = 0
        for number, part in enumerate(found):
            apart[start : start + part.numel(), number * len(DRAWS) + index] = -part.flatten()
            start += part.numel()
        fixed.append(jacobian)
        free.append(torch.cat([jacobian, apart], dim=1))
    return nullity(torch.cat(fixed), size), nullity(torch.cat(free), size)


def nullity(matrix: Tensor, size: float) -> int:
    """How many directions change nothing, beside outputs of this size."""
    return matrix.shape[1] - int((torch.linalg.svdvals(matrix) > 1e-9 * size).sum())


def scalable(model: nn.Module) -> dict[str, list[str]]:
    """The tensors that a group speaks of, each with all its names: weights, and running statistics that are read."""
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    for prefix, module in model.named_modules():
        if reads_statistics(module):
            names += [f"{prefix}.{name}".lstrip(".") for name in ("running_mean", "running_var")]
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    found: dict[int, list[str]] = {}
    for name in names:
        found.setdefault(tensors[name].untyped_storage().data_ptr(), []).append(name)
    return {first: [first, *others] for first, *others in found.values()}


def reads_statistics(module: nn.Module) -> bool:
    return not module.training and getattr(module, "running_var", None) is not None


def slopes(case: Case, seed: int) -> tuple[Tensor, list[Tensor]]:
    """The Jacobian of outputs, and of statistics beside what they are of, in the log-scales; and the outputs."""
    ratios: list[Tensor] = []
    model, inputs = differentiable(case.model(seed), ratios), case.inputs
    state = {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    dual: Any = forward_ad
    columns: list[Tensor] = []
    outputs: list[Tensor] = []
    for names in scalable(model).values():
        ratios.clear()
        with dual.dual_level(), torch.random.fork_rng(devices=[]), sdpa_kernel(SDPBackend.MATH), quietly():
            torch.manual_seed(0)
            moved = {name: tensor.clone() for name, tensor in state.items()}
            moved |= {name: dual.make_dual(moved[name], moved[name].clone()) for name in names if name in moved}
            found = floats(functional_call(model, moved, (inputs.clone(),)))
            values, tangents = zip(*map(dual.unpack_dual, (*found, *ratios)), strict=True)
        outputs = list(values[: len(found)])
        parts = [torch.zeros_like(one) if slope is None else slope for one, slope in zip(values, tangents, strict=True)]
        columns.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(columns, dim=1), outputs


@contextmanager
def quietly() -> Iterator[None]:
    """torch loads rules for forward mode that it compiles in a way that it has deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        yield


def differentiable(model: nn.Module, ratios: list[Tensor]) -> nn.Module:
    """The model itself, with that written out of which torch has no slopes: running statistics and weight_norm.

    Each call appends the running variance beside the variance of what is normalised.
    """

    def normalise(module: Any, values: Tensor) -> Any:
        def shaped(tensor: Tensor) -> Tensor:
            return tensor.reshape(-1, *[1] * (values.ndim - 2))

        ratios.append(module.running_var / values.transpose(0, 1).flatten(1).var(1))
        normal = (values - shaped(module.running_mean)) / shaped(module.running_var).sqrt()
        return normal * shaped(module.weight) + shaped(module.bias) if module.affine else normal

    for module in model.modules():
        if isinstance(module, parametrizations._WeightNorm):
            vars(module)["forward"] = lambda size, direction: size * direction / direction.norm(dim=1, keepdim=True)
        if reads_statistics(module):
            vars(module)["forward"] = partial(normalise, module)
    return model
