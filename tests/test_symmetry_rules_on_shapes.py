"""The rules where parts matter: of a concatenation, of one memory under several names, of what a network returns.

Each case is a tiny network with generic weights. What its group can be is decided without the rules, by Jacobians.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from symmetry_cases import COARSE, Case, assert_complete, assert_exact, assert_sound, batch_normed, net
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

if TYPE_CHECKING:
    from collections.abc import Callable

TOKENS, CHANNELS = (6, 5, 4), (6, 4, 5)
conv = partial(partial, nn.Conv1d)


# Parts of a concatenation that scale apart, taken apart again


def parts(name: str, function: Callable[[Tensor], Any], less: int = 0) -> Case:
    """Two and four channels of two layers, side by side, and a layer for each after the function."""

    def compute(m: Any, x: Tensor) -> list[Tensor]:
        first, second = function(torch.cat([m.a(x), m.b(x)], 1))
        return [m.c(first), m.d(second)]

    build = net(compute, a=(4, 2), b=(4, 4), c=(2, 2), d=(4, 2))
    return Case(f"parts, {name}", build, less=less, reason=COARSE if less else "")


def cut(values: Tensor) -> tuple[Tensor, Tensor]:
    return values[..., :2], values[..., 2:]


ORDER = [0, 3, 1, 2, 4, 5]  # the first part's channels first again
apart: dict[str, Callable[[Tensor], Any]] = {
    "split": lambda h: torch.split(h, [2, 4], 1),
    "slices from the end": lambda h: (h[:, :-4], h[:, -4:]),
    "chunks": lambda h: (h.chunk(3, 1)[0], torch.cat(h.chunk(3, 1)[1:], 1)),
    "tensor_split": lambda h: torch.tensor_split(h, [2], 1),
    "unbind and stack": lambda h: cut(torch.stack(h.unbind(1), 1)),
    "select": lambda h: (torch.stack([h[:, 0], h[:, 1]], 1), h[:, 2:]),
    "relu, leaky_relu, abs": lambda h: cut(F.leaky_relu(h.relu() - h).abs()),
    "clamp, prelu": lambda h: cut(F.prelu(h.clamp(max=0), torch.full((1,), 0.3, dtype=h.dtype))),
    "dropout": lambda h: cut(F.dropout(h, 0.3)),
    "masked_fill": lambda h: cut(h.masked_fill(torch.eye(12, 6, dtype=torch.bool), 0)),
    "view": lambda h: (h.view(12, 3, 2)[:, 0], h.view(12, 3, 2)[:, 1:].flatten(1)),
    "transpose": lambda h: (h.t()[:2].t(), h.t()[2:].t()),
    "permute, squeeze": lambda h: cut(h[None].permute(2, 0, 1).squeeze(1).t()),
    "expand, sum": lambda h: cut(h[:, None].expand(12, 3, 6).sum(1)),
    "roll over examples": lambda h: cut(h.roll(1, 0)),
    "pad over examples": lambda h: cut(F.pad(h, (0, 0, 1, 1))),
    "zeros between": lambda h: (h[:, :2], torch.cat([h[:, :2], torch.zeros_like(h), h[:, 2:]], 1)[:, 8:]),
    "cat of cats": lambda h: cut(torch.cat([h[:, 4:], h, h], 1)[:, 2:8]),
    "mean over examples": lambda h: cut(h.mean(0)),
    "amax over examples": lambda h: cut(h.amax(0)),
    "sort over examples": lambda h: cut(h.sort(0)[0]),
    "std over examples": lambda h: cut(h.std(0)),
    "norm over examples": lambda h: cut(h.norm(dim=0)),
    "cumsum over examples": lambda h: cut(h.cumsum(0)),
    "batch norm": lambda h: cut(batch_normed(h)),
    "sum of like parts": lambda h: cut(h + h.relu()),
    "sum of unlike parts": lambda h: cut(h + torch.cat([h[:, :4], h[:, :2]], 1)),
    "product": lambda h: cut(h * torch.cat([h[:, 2:], h[:, :2]], 1)),
    "maximum": lambda h: cut(torch.maximum(h, 2 * h)),
}
mixed: dict[str, Callable[[Tensor], Any]] = {
    "square": lambda h: cut(h**2),
    "one by it": lambda h: cut(1 / h),
    "where": lambda h: cut(torch.where(h > 0, h, -h)),
    "view across the border": lambda h: cut(h.view(12, 2, 3).relu().flatten(1)),
    "stack, every other channel": lambda h: cut(torch.stack([h[:, :2], h[:, 2:4], h[:, 4:]], 2).flatten(1)[:, ORDER]),
    "roll over channels": lambda h: cut(h.roll(2, 1).roll(-2, 1)),
    "flip over examples": lambda h: cut(h.flip(0)),
    "index": lambda h: (h[:, [0, 1]], h[:, [2, 3, 4, 5]]),
    "pad over channels": lambda h: (F.pad(h, (1, 1))[:, 1:3], F.pad(h, (1, 1))[:, 3:7]),
}


def group_convolution(left: int, right: int) -> Case:
    """Two groups of channels; the border between the parts is theirs, or is not."""
    layers = {"a": conv(4, left, 1), "b": conv(4, right, 1), "c": conv(4, 4, 2, groups=2)}
    build = net(lambda m, x: m.c(torch.cat([m.a(x), m.b(x)], 1)), **layers)
    return Case(f"parts, convolution in groups, {left} and {right}", build, CHANNELS)


PARTS = [
    *(parts(name, function) for name, function in apart.items()),
    *(parts(name, function, less=1) for name, function in mixed.items()),
    Case("parts, relu, linear", net(lambda m, x: m.c(torch.cat([m.a(x), x], 1).relu()), a=(4, 2), c=(6, 2))),
    Case("parts, softmax", net(lambda m, x: torch.cat([m.a(x), m.b(x)], 1).softmax(1), a=(4, 2), b=(4, 2))),
    group_convolution(2, 2),
    group_convolution(1, 3),
    Case("zeros for missing channels", net(lambda m, x: (m.a(x) + F.pad(m.b(x), (0, 2))).relu(), a=(4, 4), b=(4, 2))),
    Case(
        "class token", net(lambda m, x: torch.cat([m.t.expand(6, 1, 4), m.a(x)], 1).relu(), a=(4, 4), t=[1, 4]), TOKENS
    ),
    Case(
        "a part is cut away, its bias with it",
        net(lambda m, x: torch.cat([m.a(x), m.b(x)], 1)[:, :2], a=(4, 2), b=(4, 2)),
        less=1,
        reason="constants are kept for the whole, not by part",
    ),
]


# Tensors under several names, or made of others; networks that return several tensors


def tied(share: Callable[[nn.Linear, nn.Linear], None], *sizes: int) -> Callable[[], nn.Module]:
    """Two linear layers whose weights are made to share memory."""

    def build() -> nn.Module:
        first, second = nn.Linear(4, sizes[0]), nn.Linear(sizes[0], sizes[1])
        share(first, second)
        return nn.Sequential(first, nn.ReLU(), second)

    return build


def one_parameter(first: nn.Linear, second: nn.Linear) -> None:
    second.weight = first.weight


def one_memory(first: nn.Linear, second: nn.Linear) -> None:
    second.weight = nn.Parameter(first.weight.data.t())


EMBEDDING = partial(nn.Embedding, 3, 4, padding_idx=2)
SHARED = [
    Case("the same layer twice", net(lambda m, x: m.b(m.a(m.a(x).relu()).relu()), a=(4, 4), b=(4, 2))),
    Case("one parameter in two layers", tied(one_parameter, 4, 4)),
    Case("one memory in two layers, transposed", tied(one_memory, 4, 4)),
    Case("one memory in two layers, transposed, of two shapes", tied(one_memory, 3, 4)),
    Case("a weight and its transpose", net(lambda m, x: F.linear(m.a(x).relu(), m.a.weight.t(), m.p), a=(4, 3), p=[4])),
    Case("embedding", net(lambda m, x: m.a(m.e((x > 0).long()).relu()), a=(4, 2), e=EMBEDDING)),
    Case(
        "embedding, head of its weight",
        net(lambda m, x: m.a(m.e((x > 0).long())) @ m.e.weight.t(), a=(4, 4), e=EMBEDDING),
    ),
    Case("weight_norm", net(lambda m, x: m.a(x).relu(), a=lambda: parametrizations.weight_norm(nn.Linear(4, 3)))),
    Case("divided by its deviation", net(lambda m, x: F.linear(x, m.w / m.w.std(), m.p).relu(), w=[3, 4], p=[3])),
    Case("two outputs", net(lambda m, x: (m.a(x), [m.b(x), 3]), a=(4, 3), b=(4, 2))),
    Case("heads by name", net(lambda m, x: {"b": m.b(h := m.a(x).relu()), "c": m.c(h)}, a=(4, 3), b=(3, 2), c=(3, 2))),
    Case("returns a weight, the input and a sum", net(lambda m, x: (m.a.weight, x, m.a(x).sum(0)), a=(4, 3))),
]


# In-place operations on whole tensors


def activated(m: Any, x: Tensor) -> Any:
    h = m.a(x)
    h.relu_().mul_(2)
    return m.b(h)


def residual(m: Any, x: Tensor) -> Any:
    h = m.a(x).relu_()
    h += m.b(x)
    return m.c(h.relu_())


def accumulated(m: Any, x: Tensor) -> Any:
    h = torch.zeros(12, 4, dtype=x.dtype)
    h += m.a(x)
    h *= m.w
    return m.b(h.relu())


IN_PLACE = [
    Case("in place, relu and a factor", net(activated, a=(4, 4), b=(4, 2))),
    Case("in place, residual", net(residual, a=(4, 4), b=(4, 4), c=(4, 2))),
    Case("in place, onto zeros", net(accumulated, a=(4, 4), b=(4, 2), w=[4])),
]

CASES = [*PARTS, *SHARED, *IN_PLACE]
every_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


@every_case
def test_elements_leave_the_outputs_alone(case: Case) -> None:
    assert_sound(case)


@every_case
def test_powers_of_two_change_no_bit(case: Case) -> None:
    assert_exact(case)


@every_case
def test_the_dimension_is_that_of_jacobians(case: Case) -> None:
    assert_complete(case)
