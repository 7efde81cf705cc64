"""The rules where constants pass: through pooling, reductions, views and attention, to what takes them out or does not.

Each case is a tiny network with generic weights. What its group can be is decided without the rules, by Jacobians.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from symmetry_cases import (
    COARSE,
    Case,
    assert_alone,
    assert_complete,
    assert_exact,
    assert_sound,
    batch_normed,
    chain,
    net,
)
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

TOKENS = (6, 5, 4)
EACH = "a.weight b.weight b.bias c.weight c.bias"


# Constants: what may be scaled alone in front of batch statistics over all but the channels, which come last


def constants(name: str, function: Callable[[Tensor], Tensor], *, free: bool = True, less: int = 0) -> Case:
    """A layer with a bias and the function between it and batch statistics."""
    names = "a.weight a.bias" if free else ""
    build = net(lambda m, x: batch_normed(function(m.a(x))), a=(4, 4))
    return Case(f"constants, {name}", build, TOKENS, alone=names, less=less, reason=COARSE if less else "")


def added(
    name: str, compute: Callable[..., Tensor], free: str, shape: Any = (12, 4), coarse: bool = False, **parts: Any
) -> Case:
    """A layer without bias and something else that may be constant."""
    build = net(compute, a=(4, 4, False), **parts)
    return Case(f"added, {name}", build, shape, alone=free, less=coarse, reason=COARSE if coarse else "")


def layer_normed(values: Tensor) -> Tensor:
    return F.layer_norm(values, values.shape[-1:], eps=1e-30)


def on_both(m: Any, x: Tensor) -> Tensor:
    return batch_normed(m.c(torch.cat([m.a(x), m.b(x)], 1)))


def sloped(m: Any, x: Tensor) -> Tensor:
    return layer_normed(m.a(x) + F.prelu(m.p.expand(12, 4), m.r))


passed: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing between": lambda h: h,
    "numbers": lambda h: -2 * h / 3,
    "transpose": lambda h: h.transpose(1, 2).mT,
    "permute": lambda h: h.permute(2, 0, 1).unsqueeze(1).squeeze(1).permute(1, 2, 0),
    "expand": lambda h: h[:, :, None].expand(6, 5, 2, 4),
    "slice": lambda h: h[:, 1:4:2],
    "select": lambda h: h[:, 0],
    "narrow to some channels": lambda h: h[..., 1:],
    "chunk": lambda h: h.chunk(2, 1)[1],
    "split": lambda h: torch.split(h, [2, 3], 1)[0],
    "unbind": lambda h: h.unbind(1)[2],
    "roll": lambda h: h.roll(1, 1),
    "roll over channels": lambda h: h.roll(1, 2),
    "stack over channels": lambda h: torch.stack([h, 2 * h], 2).flatten(2),
    "cat over channels": lambda h: torch.cat([h, 2 * h], 2),
    "pad by reflection": lambda h: F.pad(h.mT, (1, 1), mode="reflect").mT,
    "pad by replication": lambda h: F.pad(h.mT, (1, 1), mode="replicate").mT,
    "pad in a circle": lambda h: F.pad(h.mT, (1, 1), mode="circular").mT,
    "mean": lambda h: h.mean(1),
    "mean over channels": lambda h: h.mean(2),
    "sum": lambda h: h.sum(1),
    "max": lambda h: h.max(1)[0],
    "amin": lambda h: h.amin(1),
    "median": lambda h: h.median(1)[0],
    "std": lambda h: h.std(1),
    "var": lambda h: h.var(1),
    "cumsum over channels": lambda h: h.cumsum(2),
    "less the mean": lambda h: h - h.mean((0, 1), keepdim=True),
    "layer norm over tokens": lambda h: F.layer_norm(h.mT, (5,), eps=1e-30).mT,
}
held: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "abs": torch.abs,
    "dropout": lambda h: F.dropout(h, 0.4),
    "times the input": lambda h: h * torch.arange(30.0, dtype=h.dtype).view(6, 5, 1),
    "cat over tokens": lambda h: torch.cat([h, 2 * h], 1),
    "pad with zeros": lambda h: F.pad(h, (0, 0, 1, 1)),
    "norm": lambda h: h.norm(dim=1),
    "max over channels": lambda h: h.max(2)[0],
    "std over channels": lambda h: h.std(2),
    "cumsum": lambda h: h.cumsum(1),
    "layer norm over channels": lambda h: F.layer_norm(h, (4,), eps=1e-30),
    "softmax over channels": lambda h: h.softmax(2),
}
coarse: dict[str, Callable[[Tensor], Tensor]] = {
    "flip": lambda h: h.flip(1),
    "repeat": lambda h: h.repeat(1, 2, 1),
    "index_select": lambda h: h[:, [0, 2]],
    "pad by less than nothing": lambda h: F.pad(h, (0, 0, -1, -1)),
    "cat of two alike over tokens": lambda h: torch.cat([h, h], 1),
    "sort": lambda h: h.sort(1)[0],
    "topk": lambda h: h.topk(2, 1)[0],
    "flatten and back": lambda h: h.mT.flatten(1).view(6, 4, 5).mT,
    "einsum": lambda h: torch.einsum("btc,c->btc", h, torch.arange(1.0, 5, dtype=h.dtype)),
}
KINDS: dict[int, tuple[Any, ...]] = {
    1: (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveMaxPool1d, nn.AdaptiveAvgPool1d, "linear"),
    2: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, "bilinear"),
    3: (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveMaxPool3d, nn.AdaptiveAvgPool3d, "trilinear"),
}


def pools(dims: int) -> list[Case]:
    """Between a convolution, whose bias may be free, and batch statistics."""
    conv, norm, most, mean, adaptive_most, adaptive_mean, mode = KINDS[dims]
    layers: dict[str, Any] = {
        "max": partial(most, 2, dilation=2),
        "max, padding, ceil": partial(most, 3, 2, padding=1, ceil_mode=True),
        "mean, ceil": partial(mean, 2, ceil_mode=True),
        "mean, padding counted": partial(mean, 2, padding=1),
        "mean, padding not counted, ceil": partial(mean, 2, 2, 1, True, False),
        "adaptive max": partial(adaptive_most, 3),
        "adaptive mean": partial(adaptive_mean, 3),
        "nearest": partial(nn.Upsample, scale_factor=2),
        mode: partial(nn.Upsample, size=(7,) * dims, mode=mode),
    }
    free = {name: "" if name == "mean, padding counted" else "0.weight 0.bias" for name in layers}
    return [
        Case(f"pool {dims}d, {name}", chain(partial(conv, 2, 3, 1), layer, partial(norm, 3)), shape, alone=free[name])
        for name, layer in list(layers.items())[:: 1 if dims == 2 else 2]
        for shape in [(6, 2) + (5,) * dims]
    ]


CONSTANTS = [
    *(constants(name, function) for name, function in passed.items()),
    *(constants(name, function, free=False) for name, function in held.items()),
    *(constants(name, function, free=False, less=1) for name, function in coarse.items()),
    *(case for dims in KINDS for case in pools(dims)),
    added("softmax over tokens", lambda m, x: (m.a(x) + m.p).softmax(1), "p", TOKENS, p=[4]),
    added("softmax over channels", lambda m, x: (m.a(x) + m.p).softmax(2), "p", TOKENS, p=[5, 1]),
    added("softmax over all but the constant", lambda m, x: (m.a(x) + m.p).softmax(2), "", TOKENS, p=[4]),
    added("linear, linear", lambda m, x: batch_normed(m.c(m.b(m.a(x)))), EACH, b=(4, 3), c=(3, 2)),
    added("linear, relu", lambda m, x: batch_normed(m.b(m.a(x)).relu()), "", b=(4, 3)),
    added(
        "one number, linear, layer norm",
        lambda m, x: layer_normed(m.b(m.a(x) + m.p)),
        "b.weight",
        b=(4, 3, False),
        p=[1],
    ),
    added("linear over tokens", lambda m, x: batch_normed(m.b(m.a(x).mT).mT), "", TOKENS, b=(5, 3)),
    added("matmul of matrices", lambda m, x: batch_normed((m.a(x) + m.p) @ m.w), "a.weight p w", p=[4], w=[4, 3]),
    added("matmul of tokens", lambda m, x: batch_normed((m.a(x) + m.p) @ m.w), "a.weight p w", TOKENS, p=[4], w=[4, 3]),
    added("matmul of positions", lambda m, x: batch_normed((m.a(x) + m.p) @ m.w), "w", TOKENS, p=[5, 1], w=[4, 3]),
    added("matmul from the left", lambda m, x: layer_normed(m.w @ (m.a(x) + m.p)), "w", TOKENS, p=[4], w=[3, 5]),
    added("addmm", lambda m, x: batch_normed(torch.addmm(m.p, m.a(x), m.w)), "a.weight p w", p=[3], w=[4, 3]),
    added("times a weight", lambda m, x: batch_normed((m.a(x) + m.p) * m.w), "a.weight p w", p=[4], w=[4]),
    added("the input too, batch norm", lambda m, x: batch_normed(m.a(x) + m.p + x), "p", p=[4]),
    added("mean taken out by hand", lambda m, x: (h := m.a(x) + m.p) - h.mean(0), "", p=[4], coarse=True),
    added("one number, layer norm", lambda m, x: layer_normed(m.a(x) + m.p), "a.weight p", p=[1]),
    added("positions, layer norm", lambda m, x: layer_normed(m.a(x) + m.p), "", TOKENS, p=[5, 4]),
    added("rows, then columns", lambda m, x: layer_normed(m.a(x) + (m.u + m.v)), "u", TOKENS, u=[5, 1], v=[4]),
    added(
        "columns, then rows", lambda m, x: layer_normed(m.a(x) + (m.v + m.u)), "", TOKENS, coarse=True, u=[5, 1], v=[4]
    ),  # one summand becomes the constant of the other
    added("masked, batch norm", lambda m, x: batch_normed(m.a(x) + m.p.masked_fill(x > 0, 0)), "", p=[4]),
    added("dropout, batch norm", lambda m, x: batch_normed(m.a(x) + F.dropout(m.p.expand(12, 4))), "", p=[4]),
    added("a slope a channel, layer norm", sloped, "", coarse=True, p=[12, 1], r=[4]),
    added("to two layers' tokens, batch norm", on_both, "c.weight c.bias", TOKENS, b=(4, 4, False), c=(4, 3)),
    added("flat roll, softmax", lambda m, x: (m.a(x) + m.p).roll(1).softmax(2), "", (5, 3, 4, 4), p=[3, 1, 4]),
]


# Attention: a constant that all keys share is gone, one of a query's is not


def heads(values: Tensor) -> Tensor:
    return values.view(6, 5, 2, 2).transpose(1, 2)


def fused(m: Any, x: Tensor, positions: float | Tensor = 0.0, **options: Any) -> Any:
    return m.o(F.scaled_dot_product_attention(m.q(x), m.k(x) + positions, m.v(x), **options))


def fused_in_heads(m: Any, x: Tensor) -> Any:
    found = F.scaled_dot_product_attention(heads(m.q(x)), heads(m.k(x)), heads(m.v(x)))
    return m.o(found.transpose(1, 2).flatten(2))


def by_hand(m: Any, x: Tensor, change: Callable[[Tensor], Tensor] = lambda scores: scores) -> Any:
    return m.o(change(m.q(x) @ m.k(x).transpose(1, 2) / 2).softmax(-1) @ m.v(x))


def in_einsum(m: Any, x: Tensor) -> Any:
    scores = torch.einsum("bqd,bkd->bqk", m.q(x), m.k(x)).softmax(-1)
    return m.o(torch.einsum("bqk,bkd->bqd", scores, m.v(x)))


def attention(name: str, compute: Callable[..., Tensor], free: str = "k.bias", reason: str = "", **parts: Any) -> Case:
    build = net(compute, q=(4, 4), k=(4, 4), v=(4, 4), o=(4, 3), **parts)
    return Case(f"attention, {name}", build, TOKENS, less=bool(reason), reason=reason, alone=free)


def normed(m: Any, x: Tensor, **options: Any) -> Tensor:
    return batch_normed(F.scaled_dot_product_attention(x, x, m.v(x), **options))


def shared_values(m: Any, x: Tensor) -> Tensor:
    """Two heads of values, each for two heads of queries; one of the first is read and one of the second."""
    queries, keys = x[:, None].expand(6, 4, 5, 4), x[:, None].expand(6, 2, 5, 4)
    values = torch.stack([m.a(x), m.b(x)], 1)
    return F.scaled_dot_product_attention(queries, keys, values, enable_gqa=True)[:, 1:3].flatten(1)


def with_class_token(m: Any, x: Tensor) -> Any:
    return fused(m, torch.cat([m.t.expand(6, 1, 4), x], 1))


def multihead(mask: Tensor | None = None, needed: bool = True, **options: Any) -> Callable[[], nn.Module]:
    layer = partial(nn.MultiheadAttention, 4, 2, batch_first=True, **options)
    return net(lambda m, x: m.t(x, x, x, need_weights=needed, attn_mask=mask), t=layer)


FUTURE = torch.ones(5, 5, dtype=torch.bool).triu(1)
ATTENTION = [
    attention("fused", fused),
    attention("fused, in heads", fused_in_heads),
    attention("fused, causal", partial(fused, is_causal=True)),
    attention("fused, mask of bools", partial(fused, attn_mask=~FUTURE)),
    attention("fused, mask of weights", lambda m, x: fused(m, x, attn_mask=m.r), r=[5, 5]),
    attention("fused, a weight a query", lambda m, x: fused(m, x, attn_mask=m.r.expand(5, 5)), reason=COARSE, r=[5, 1]),
    attention("fused, positions of keys", lambda m, x: fused(m, x, positions=m.r), r=[5, 4]),
    attention("fused, dropout", partial(fused, dropout_p=0.3)),
    attention("by hand", by_hand),
    attention("by hand, relative positions", lambda m, x: by_hand(m, x, lambda scores: scores + m.r), r=[5, 5]),
    attention("by hand, a weight a query", lambda m, x: by_hand(m, x, lambda s: s + m.r), "k.bias r", r=[5, 1]),
    attention("by hand, -inf", partial(by_hand, change=lambda scores: scores.masked_fill(FUTURE, -torch.inf))),
    attention("by hand, -1e9", partial(by_hand, change=lambda scores: scores.masked_fill(FUTURE, -1e9)), "", COARSE),
    attention("class token", with_class_token, t=[1, 4]),
    attention("in einsum", in_einsum, "", COARSE),
    Case("attention, batch norm", net(normed, v=(4, 4)), TOKENS, alone="v.weight v.bias"),
    Case("attention with dropout, batch norm", net(partial(normed, dropout_p=0.3), v=(4, 4)), TOKENS, alone=""),
    Case("attention, queries share values in parts", net(shared_values, a=(4, 4), b=(4, 4)), TOKENS),
    Case("multi-head attention", multihead(), TOKENS),
    Case("multi-head attention, only its output", multihead(needed=False), TOKENS),
    Case("multi-head attention, mask", multihead(FUTURE), TOKENS),
    Case("multi-head attention, mask, only its output", multihead(FUTURE, needed=False), TOKENS),
    Case("multi-head attention, separate projections", multihead(kdim=4, vdim=4, bias=False), TOKENS),
    Case("multi-head attention, added keys", multihead(add_bias_kv=True, add_zero_attn=True), TOKENS),
    Case("encoder layer", partial(nn.TransformerEncoderLayer, 4, 2, 8, 0.1, batch_first=True), TOKENS),
]

CASES = [*CONSTANTS, *ATTENTION]
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


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES if case.alone is not None])
def test_these_tensors_may_be_scaled_alone(case: Case) -> None:
    assert_alone(case)
