"""The rules of layers, normalisations, elementwise operations and attention: sound, exact and complete, case by case.

Each case is a tiny network with generic weights. What its group can be is decided without the rules, by Jacobians.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from symmetry_cases import Case, assert_alone, assert_complete, assert_exact, assert_sound, chain, net
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

TOKENS, CHANNELS = (6, 5, 4), (6, 4, 5)
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
conv, norm = partial(partial, nn.Conv1d), partial(partial, nn.BatchNorm1d)


def between(function: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    """A network with the function between two linear layers."""
    return net(lambda m, x: m.b(function(m.a(x))), a=(4, 3), b=(3, 2))


def of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], nn.Module]:
    """A network with a function of two linear layers' results in front of a third."""
    return net(lambda m, x: m.c(function(m.a(x), m.b(x))), a=(4, 3), b=(4, 3), c=(3, 2))


# Layers


def convolutions(dims: int) -> list[Case]:
    """In front of a ReLU, where a bias scales along, and of batch statistics, where it may be free."""
    conv, transposed, norm = (kinds[dims] for kinds in (CONV, TRANSPOSED, BATCH_NORM))
    shape = (6, 4) + (5,) * dims
    free, bordered = "0.weight 0.bias 1.weight 1.bias", "1.weight 1.bias"
    options: dict[str, tuple[dict[str, Any], str]] = {
        "plain": ({}, free),
        "stride": ({"stride": 2}, free),
        "groups": ({"groups": 2}, free),
        "padding zeros": ({"padding": 1}, bordered),
        "padding same": ({"padding": "same"}, bordered),
        "padding valid": ({"padding": "valid", "dilation": 2}, free),
        "padding reflect": ({"padding": 1, "padding_mode": "reflect"}, free),
        "padding replicate": ({"padding": 1, "padding_mode": "replicate"}, free),
        "padding circular": ({"padding": 1, "padding_mode": "circular"}, free),
    }
    found = []
    for name, (option, names) in list(options.items())[:: 1 if dims == 2 else 4]:
        layer = partial(conv, 4, 4, 3, **option)
        build = chain(partial(conv, 4, 4, 1), layer, partial(norm, 4))
        found.append(Case(f"conv, conv{dims}d {name}, batch norm", build, shape, alone=names))
        found.append(Case(f"conv{dims}d {name}, relu, conv", chain(layer, nn.ReLU, partial(conv, 4, 2, 1)), shape))
    more: list[tuple[str, Any]] = [
        ("", {}),
        (" stride", {"stride": 2, "output_padding": 1}),
        (" groups", {"groups": 2}),
    ]
    for name, option in more:
        build = chain(partial(conv, 4, 4, 1), partial(transposed, 4, 4, 2, **option), partial(norm, 4))
        found.append(Case(f"conv, conv_transpose{dims}d{name}, batch norm", build, shape, alone=bordered))
    return found


LAYERS = [
    Case("linear, relu, linear", chain((4, 3), nn.ReLU, (3, 2))),
    Case("one example without a batch", chain((4, 3), nn.ReLU, (3, 2)), (4,)),
    Case("one image without a batch", chain(conv(4, 3, 2), nn.ReLU, conv(3, 2, 1)), (4, 6)),
    *(case for dims in CONV for case in convolutions(dims)),
    Case("bilinear", net(lambda m, x: m.c(m.a(x), m.b(x)), a=(4, 3), b=(4, 3), c=partial(nn.Bilinear, 3, 3, 2))),
    Case("matmul", net(lambda m, x: m.b((x @ m.w).relu()), w=[4, 3], b=(3, 2))),
    Case("matmul with a vector", net(lambda m, x: m.a(x) @ m.w, a=(4, 3), w=[3])),
    Case("bmm", net(lambda m, x: torch.bmm(m.a(x), m.b(x).mT), a=(4, 3), b=(4, 3)), TOKENS),
    Case("baddbmm", net(lambda m, x: torch.baddbmm(m.p, m.a(x), m.b(x).mT), a=(4, 3), b=(4, 3), p=[5, 5]), TOKENS),
    Case("einsum", net(lambda m, x: torch.einsum("bi,oi->bo", m.a(x), m.w), a=(4, 3), w=[2, 3])),
    Case("addmm", net(lambda m, x: m.a(torch.addmm(m.p, x, m.w).relu()), p=[3], w=[4, 3], a=(3, 2))),
    Case("addmm, beta 0", net(lambda m, x: torch.addmm(m.p, x, m.w, beta=0), p=[3], w=[4, 3])),
    Case("low-rank update", net(lambda m, x: (m.a(x) + x @ m.u @ m.v).relu(), a=(4, 3), u=[4, 2], v=[2, 3])),
    Case("a sum of weights", net(lambda m, x: F.linear(x, m.u + m.v).relu(), u=[3, 4], v=[3, 4])),
    Case(
        "a cat of weights",
        net(lambda m, x: F.linear(x, torch.cat([m.u, m.v]))[:, :2].tanh(), u=[2, 4], v=[1, 4]),
        less=1,
        reason="a weight in parts has to scale as one",
    ),
]


# Normalisations


def normalisations(train: bool) -> list[Case]:
    several: dict[str, Any] = {
        "linear, batch norm, relu, linear": chain((4, 3), norm(3), nn.ReLU, (3, 2)),
        "batch norm of the input": chain(norm(4), (4, 2)),
        "batch norm without affine": chain((4, 3), norm(3, affine=False), (3, 2)),
        "batch norm without running statistics": chain((4, 3), norm(3, track_running_stats=False)),
        "batch norm twice": chain((4, 3), norm(3), norm(3)),
        "the same batch norm twice": net(lambda m, x: m.n(m.a(m.n(x))), a=(4, 4), n=norm(4)),
        "batch norm of a cat": net(lambda m, x: m.n(torch.cat([m.a(x), m.b(x)], 1)), a=(4, 2), b=(4, 1), n=norm(3)),
        "layer norm": chain((4, 4), partial(nn.LayerNorm, 4), (4, 2)),
        "dropout, relu": chain((4, 4), partial(nn.Dropout, 0.4), nn.ReLU, (4, 2)),
        "dropout, batch norm": chain((4, 4), partial(nn.Dropout, 0.4), norm(4)),
        "alpha dropout": chain((4, 4), partial(nn.AlphaDropout, 0.4), (4, 2)),
    }
    statistics = partial(nn.InstanceNorm1d, 3, affine=True, track_running_stats=True)
    channels: dict[str, Any] = {
        "instance norm": chain(conv(4, 3, 1), partial(nn.InstanceNorm1d, 3), conv(3, 2, 1)),
        "instance norm with affine and statistics": chain(conv(4, 3, 1), statistics, conv(3, 2, 1)),
        "channel dropout, batch norm": chain(conv(4, 3, 1), partial(nn.Dropout1d, 0.4), norm(3)),
        "conv, batch norm, padded conv": chain(conv(4, 3, 2), norm(3), conv(3, 2, 2, padding=1)),
    }
    mode = "train" if train else "eval"
    return [
        *(Case(f"{name}, {mode}", build, train=train) for name, build in several.items()),
        *(Case(f"{name}, {mode}", build, CHANNELS, train) for name, build in channels.items()),
    ]


class Frozen(nn.BatchNorm1d):
    """Batch norm that stays in eval mode."""

    def train(self, mode: bool = True) -> Frozen:
        super().train(False)
        return self


def by_hand(h: Tensor) -> Tensor:
    return (h - h.mean(1, keepdim=True)) / (h - h.mean(1, keepdim=True)).pow(2).mean(1, keepdim=True).sqrt()


def by_hand_with_eta(h: Tensor) -> Tensor:
    return (h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True) + 1e-30).sqrt()


def normalised(kind: Callable[..., nn.Module], *sizes: object, **options: object) -> Callable[[], nn.Module]:
    """A normalisation with a convolution on either side."""
    return chain(conv(4, 4, 1), partial(kind, *sizes, **options), conv(4, 2, 1))


def normalised_cat(left: int, right: int) -> Callable[[], nn.Module]:
    """Two groups of channels, of two layers' results."""
    parts: dict[str, Any] = {"a": conv(4, left, 1), "b": conv(4, right, 1), "n": partial(nn.GroupNorm, 2, 4)}
    return net(lambda m, x: m.n(torch.cat([m.a(x), m.b(x)], 1)), **parts)


NORMALISATIONS = [
    *normalisations(train=True),
    *normalisations(train=False),
    Case("frozen batch norm in train mode", chain((4, 3), partial(Frozen, 3), nn.ReLU, (3, 2), norm(2))),
    Case(
        "batch norm with a shift alone",
        net(lambda m, x: F.batch_norm(m.a(x), None, None, None, m.p, True, 0.1, 1e-30), a=(4, 3), p=[3]),
    ),
    Case("layer norm of two dimensions", normalised(nn.LayerNorm, [4, 5]), CHANNELS),
    Case("layer norm without affine", normalised(nn.LayerNorm, 5, elementwise_affine=False), CHANNELS),
    Case("layer norm without shift", normalised(nn.LayerNorm, 5, bias=False), CHANNELS),
    Case("layer norm by hand", between(by_hand)),
    Case("layer norm by hand, with eta", between(by_hand_with_eta), less=1, reason="eta is a number there"),
    Case("group norm", normalised(nn.GroupNorm, 2, 4), CHANNELS),
    Case("group norm, a group a channel", normalised(nn.GroupNorm, 4, 4), CHANNELS),
    Case("group norm of a cat at its border", normalised_cat(2, 2), CHANNELS),
    Case("group norm of a cat across its border", normalised_cat(1, 3), CHANNELS),
    Case("rms norm", normalised(nn.RMSNorm, 5, eps=1e-30), CHANNELS),
    Case("rms norm without affine", normalised(nn.RMSNorm, 5, eps=1e-30, elementwise_affine=False), CHANNELS),
    Case("local response norm", normalised(nn.LocalResponseNorm, 2), CHANNELS),
]


# One argument: whether f(a x) = a**k f(x). The dimension by Jacobians says which

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **{f.__name__: f for f in (F.relu, F.leaky_relu, torch.abs, torch.neg, torch.clone, torch.square)},
    **{f.__name__: f for f in (torch.reciprocal, F.gelu, F.silu, torch.tanh, torch.sigmoid, F.hardtanh, F.hardswish)},
    **{f.__name__: f for f in (F.hardsigmoid, F.elu, F.selu, F.celu, F.mish, F.softplus, F.logsigmoid, F.softsign)},
    **{f.__name__: f for f in (F.softshrink, F.tanhshrink, torch.exp, torch.sin, torch.erf)},
    "relu6": lambda h: F.relu6(9 * h),
    "log": lambda h: h.abs().log(),
    "glu": lambda h: F.glu(torch.cat([h, h], 1)),
    "clamp(min=0)": lambda h: h.clamp(min=0),
    "clamp(max=0)": lambda h: h.clamp(max=0),
    "clamp(0, 1)": lambda h: h.clamp(0, 1),
    "threshold at 0, else 0": lambda h: F.threshold(h, 0, 0),
    "threshold at 0, else 1": lambda h: F.threshold(h, 0, 1),
    "h ** 3": lambda h: h**3,
    "|h| ** 1.5": lambda h: h.abs() ** 1.5,
    "h ** -1": lambda h: h**-1,
    "2 ** h": lambda h: 2**h,
    "|h| ** h": lambda h: h.abs() ** h,
    "sqrt": lambda h: h.abs().sqrt(),
    "rsqrt": lambda h: h.abs().rsqrt(),
    "-2 * h / 3": lambda h: -2 * h / 3,
    "2 / h": lambda h: 2 / h,
    "h / std": lambda h: h / h.std(1, keepdim=True),
    "h * var": lambda h: h * h.var(1, keepdim=True),
    "0 - h": lambda h: 0 - h,
    "1 - h": lambda h: 1 - h,
    "h + 0": lambda h: h + 0,
    "h + 2": lambda h: h + 2,
    "softmax": lambda h: h.softmax(1),
    "softmax over examples": lambda h: h.softmax(0),
    "log_softmax": lambda h: h.log_softmax(1),
    "softmin": lambda h: F.softmin(h, 1),
    "logsumexp": lambda h: h - h.logsumexp(1, keepdim=True),
    "maximum with zeros": lambda h: torch.maximum(h, torch.zeros_like(h)),
    "times a comparison with 0": lambda h: h * (h > 0),
    "where, of two multiples": lambda h: torch.where(h > 0, h, 2 * h),
    "where, else 0": lambda h: torch.where(h > 0, h, 0.0),
    "where, else 1": lambda h: torch.where(h > 0, h, 1.0),
    "masked_fill with 0": lambda h: h.masked_fill(h < 0, 0),
    "masked_fill with 1": lambda h: h.masked_fill(h < 0, 1),
    "normalize without eps": lambda h: F.normalize(h, eps=0),
    "to the dtype that it has": lambda h: h.to(torch.float64),
    "to the dtype of another": lambda h: h.type_as(h.double()),
    "divided by how many are positive": lambda h: h / torch.linalg.vector_norm(h.relu(), 0),
}
BLIND = "a Jacobian does not see a step move"


def gated(m: Any, x: Tensor) -> Any:
    """Squeeze and excite."""
    h = m.a(x)
    return m.d(h * m.c(m.b(h.mean(2, keepdim=True)).relu()).sigmoid())


ELEMENTWISE = [
    *(Case(name, between(function)) for name, function in FUNCTIONS.items()),
    Case("hardshrink", between(F.hardshrink), less=1, reason=BLIND),
    Case("a gate at 0.3", between(lambda h: h * (h > 0.3)), less=1, reason=BLIND),
    Case("division that rounds down", between(lambda h: h.div(0.1, rounding_mode="floor")), less=2, reason=BLIND),
    Case("times its sign", between(lambda h: h * h.sign())),
    Case("times ones of its shape", between(lambda h: h * torch.ones_like(h))),
    Case("times where the largest is", between(lambda h: h * (h.argmax(1, keepdim=True) + 1))),
    Case("to whole numbers", between(lambda h: (9 * h).long().double()), less=2, reason=BLIND),
    Case("normalize", between(F.normalize), less=1, reason="eps bounds the norm from below"),
    Case("prelu", chain((4, 3), nn.PReLU, (3, 2))),
    Case("prelu, a slope a channel", chain((4, 3), partial(nn.PReLU, 3), (3, 2))),
    *(Case(f"{f.__name__} of two", of_two(f)) for f in (torch.add, torch.sub, torch.mul, torch.div)),
    *(Case(f"{f.__name__} of two", of_two(f)) for f in (torch.maximum, torch.minimum, torch.fmax)),
    Case("add with alpha", of_two(lambda u, v: torch.add(u, v, alpha=2))),
    Case("a product of roots", net(lambda m, x: m.a(x).abs().sqrt() * m.b(x).abs().sqrt(), a=(4, 3), b=(4, 3))),
    Case("where of two", net(lambda m, x: m.c(torch.where(x > 0, m.a(x), m.b(x))), a=(4, 4), b=(4, 4), c=(4, 2))),
    Case("a layer or a weight", net(lambda m, x: torch.where(x > 0, m.a(x), m.p).relu(), a=(4, 4), p=[4])),
    Case("layer scale", net(lambda m, x: (m.a(x) + m.g * m.b(x).relu()).relu(), a=(4, 4), b=(4, 4), g=[4])),
    Case("a weight without dimensions", net(lambda m, x: m.t * m.a(x), a=(4, 3), t=[])),
    Case(
        "squeeze and excite", net(gated, a=conv(4, 4, 1), b=conv(4, 2, 1), c=conv(2, 4, 1), d=conv(4, 2, 1)), CHANNELS
    ),
    Case("highway", net(lambda m, x: (t := m.t(x).sigmoid()) * m.a(x) + (1 - t) * x, a=(4, 4), t=(4, 4))),
    Case("constants that multiply", net(lambda m, x: m.a(x / 3) * m.s * torch.tensor(2.0), a=(4, 2), s=torch.ones(2))),
    Case("a buffer that is added", net(lambda m, x: m.b(m.a(x) + m.s), a=(4, 4), b=(4, 2), s=torch.ones(4))),
    Case(
        "a buffer of zeros that is added",
        net(lambda m, x: m.b(m.a(x) + m.s), a=(4, 4), b=(4, 2), s=torch.zeros(4)),
        less=1,
        reason="buffers are not looked into",
    ),
    Case(
        "0 times another layer",
        net(lambda m, x: m.a(x) + 0 * m.b(x), a=(4, 2), b=(4, 2)),
        less=1,
        reason="0 times a tensor is not seen to be zeros",
    ),
]

CASES = [*LAYERS, *NORMALISATIONS, *ELEMENTWISE]
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
