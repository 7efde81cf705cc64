"""What cannot be traced is said with its line; what has no rule takes a user's; everything else is left as it was."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from symmetry_cases import net, said
from torch import Tensor, nn

from mli_check.errors import TraceError, UnknownOperationError
from mli_check.symmetry import register_rule, scale_symmetries
from mli_check.symmetry.call import RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mli_check.symmetry import Call, Value

INPUTS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))


# What cannot be traced


def branch(m: Any, x: Tensor) -> Any:
    h = m.a(x)
    if h.sum() > 0:
        return h
    return -h


def number_of(h: Tensor) -> int:
    return int(h[0, 0].item())


def number(m: Any, x: Tensor) -> Any:
    h = m.a(x)
    return h * number_of(h)


class Positive(nn.Linear):
    """As many results as there are positive ones."""

    def forward(self, x: Tensor) -> Tensor:
        h = super().forward(x)
        return h[h > 0]


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (net(branch, a=(4, 4))(), "if h.sum() > 0:"),
        (net(number, a=(4, 4))(), "return int(h[0, 0].item())"),
        (Positive(4, 4), "return h[h > 0]"),
    ],
    ids=["a branch", "a number in a function", "a shape"],
)
def test_what_depends_on_the_data_is_a_trace_error_that_quotes_the_line(model: nn.Module, line: str) -> None:
    message = said(TraceError, lambda: scale_symmetries(model, INPUTS))
    assert "test_symmetry_tracing.py" in message
    assert f"`{line}`" in message
    assert "values of tensors" in message
    assert "register_rule" not in message


@pytest.mark.parametrize(
    ("model", "example"),
    [(net(branch, a=(4, 4))(), INPUTS), (nn.Linear(4, 2), torch.ones(3, 5))],
    ids=["a branch", "a shape that does not fit"],
)
def test_what_torch_prints_while_it_fails_is_held_back(
    model: nn.Module, example: Tensor, capfd: pytest.CaptureFixture[str]
) -> None:
    """The error says it, in fewer lines."""
    with pytest.raises(TraceError):
        scale_symmetries(model, example)
    assert capfd.readouterr() == ("", "")


def scaled_part(m: Any, x: Tensor) -> Any:
    h = m.a(x)
    h[:, :2].mul_(m.w)
    return h


def view_before(m: Any, x: Tensor) -> Any:
    h = m.a(x)
    part = h[:, :2]
    h *= m.v
    return part


def of_chunk(m: Any, x: Tensor) -> Any:
    h = m.a(x)
    h.chunk(2, 1)[0].mul_(m.w)
    return h


def of_split(m: Any, x: Tensor) -> Any:
    h = m.a(x)
    first, _ = h.split(2, 1)
    first += m.w
    return h


def of_unbind(m: Any, x: Tensor) -> Any:
    h = m.a(x)
    h.unbind(1)[0].mul_(m.u)
    return h


def of_whole_in_einsum(m: Any, x: Tensor) -> Any:
    h = m.a(x)
    torch.einsum("ij->ij", h).mul_(m.v)
    return h


VIEWS = (scaled_part, view_before, of_chunk, of_split, of_unbind, of_whole_in_einsum)


@pytest.mark.parametrize("compute", VIEWS, ids=[compute.__name__ for compute in VIEWS])
def test_a_view_that_is_changed_in_place_and_seen_elsewhere_is_a_trace_error(compute: Callable[..., Tensor]) -> None:
    model = net(compute, a=(4, 4), v=[4], w=[2], u=[12])()
    message = said(TraceError, lambda: scale_symmetries(model, INPUTS))
    assert "_.Tensor`" in message
    assert "still shows" in message
    assert "without the in-place operation" in message


@pytest.mark.parametrize(
    ("example", "words"),
    [
        (torch.ones(3, 5), ["the network cannot be traced", "[3, 5]", "Check that the example input fits"]),
        ((), ["missing a required argument", "input", "Check that the example input fits"]),
        ((INPUTS, INPUTS), ["too many positional arguments", "Check that the example input fits"]),
        ({"y": INPUTS}, ["missing a required argument", "Check that the example input fits"]),
    ],
    ids=["shape", "none", "too many", "other name"],
)
def test_an_example_that_does_not_fit_is_a_trace_error(example: Any, words: list[str]) -> None:
    """It quotes no line of Python's own library."""
    message = said(TraceError, lambda: scale_symmetries(nn.Linear(4, 2), example))
    assert all(word in message for word in words)
    assert "inspect.py" not in message


# Operations without a rule, and rules that users give


@pytest.fixture
def rules() -> Iterator[None]:
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


@torch.library.custom_op("mli_check_tests::steep", mutates_args=())
def steep(values: Tensor) -> Tensor:
    """Three times a ReLU."""
    return 3 * values.relu()


@steep.register_fake
def _(values: Tensor) -> Tensor:
    return torch.empty_like(values)


class Head(nn.Module):
    """A function in a module of its own, so that its place has a name."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x) * 2


def headed(function: Callable[[Tensor], Tensor]) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), Head(function), nn.Linear(4, 2))


OPERATIONS = [(steep, "mli_check_tests::steep"), (torch.trunc, "aten::trunc")]
every_operation = pytest.mark.parametrize(("function", "name"), OPERATIONS, ids=[name for _, name in OPERATIONS])


@every_operation
def test_an_operation_without_a_rule_is_named_with_its_place(function: Callable[[Tensor], Tensor], name: str) -> None:
    message = said(UnknownOperationError, lambda: scale_symmetries(headed(function), INPUTS))
    assert f'@mli_check.symmetry.register_rule("{name}")' in message
    assert "stands in `1` (Head), test_symmetry_tracing.py, line" in message
    assert "`return self.function(x) * 2`" in message


@every_operation
@pytest.mark.usefixtures("rules")
def test_a_users_rule_is_used(function: Callable[[Tensor], Tensor], name: str) -> None:
    def settles(call: Call) -> Value:
        (argument,) = call.arguments
        return call.result(call.scale(call.value(argument)))

    assert register_rule(name)(settles) is settles
    found = scale_symmetries(headed(function), INPUTS)
    assert found.dimension == 1
    assert found.violations({"0.weight": 2.0, "0.bias": 2.0, "2.weight": 0.5}) == []


@pytest.mark.usefixtures("rules")
def test_a_users_rule_is_used_for_the_in_place_variant_too_and_replaces_an_earlier_one() -> None:
    @register_rule("aten::relu", "aten::leaky_relu")
    def fixed(call: Call) -> Value:
        call.demand_fixed(call.value("self"))
        return call.result(call.scale(call.value("self")))

    for layer in (nn.ReLU(), nn.ReLU(inplace=True), nn.LeakyReLU(inplace=True)):
        found = scale_symmetries(nn.Sequential(nn.Linear(4, 3), layer, nn.Linear(3, 2)), INPUTS)
        assert found.dimension == 0
        assert any("not homogeneous" in str(equation) for equation in found.equations)


def with_gradients(m: Any, x: Tensor) -> Any:
    with torch.enable_grad():
        h = m.a(x)
    return m.b(h)


def without_autocast(m: Any, x: Tensor) -> Any:
    with torch.autocast("cpu", enabled=False):
        h = m.a(x)
    return m.b(h)


@pytest.mark.parametrize("compute", [with_gradients, without_autocast])
@pytest.mark.usefixtures("rules")
def test_a_region_is_looked_into_or_the_advice_can_be_followed(compute: Callable[..., Tensor]) -> None:
    """The advice being a name for `register_rule`, which takes names with a namespace only."""
    model = net(compute, a=(4, 4), b=(4, 2))()
    message = ""
    try:
        assert scale_symmetries(model, INPUTS).dimension == 1
    except TraceError as error:
        message = str(error)
    assert ", ." not in message  # the place where a line would stand
    for advised in re.findall(r'register_rule\("(.*?)"\)', message):
        register_rule(advised)


# What tracing leaves as it was


def busy_network() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.ReLU(inplace=True), nn.Linear(4, 2))
    model(torch.randn(12, 4)).sum().backward()
    model[1].eval()
    model[4].weight.requires_grad_(False)
    return model


def snapshot(model: nn.Module) -> list[Any]:
    """All that tracing could change, in short."""
    tensors = list(model.state_dict(keep_vars=True).items())
    return [
        [(name, tensor.data_ptr(), digest(tensor), tensor.requires_grad) for name, tensor in tensors],
        [None if tensor.grad is None else digest(tensor.grad) for _, tensor in tensors],
        [(name, module.training, sorted(vars(module))) for name, module in model.named_modules()],
        [digest(torch.get_rng_state()), hash(random.getstate()), repr(np.random.get_state())],
        [torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled()],
    ]


def digest(tensor: Tensor) -> int:
    return hash(tensor.detach().numpy().tobytes())


def test_tracing_changes_neither_the_model_nor_any_generator() -> None:
    model, inputs = busy_network(), INPUTS.clone()
    before = snapshot(model)
    scale_symmetries(model, inputs)
    assert snapshot(model) == before
    assert torch.equal(inputs, INPUTS)


def test_tracing_that_fails_changes_nothing_either() -> None:
    model = nn.Sequential(busy_network(), net(branch, a=(2, 2))())
    before = snapshot(model)
    with pytest.raises(TraceError):
        scale_symmetries(model, INPUTS)
    assert snapshot(model) == before


def kept(m: Any, x: Tensor) -> Any:
    m.features = m.a(x)
    return m.b(m.features)


def counted(m: Any, x: Tensor) -> Any:
    m.buffer += 1
    return m.a(x) * m.buffer


def drawn(m: Any, x: Tensor) -> Any:
    return m.a(x) * (1 + random.random() + np.random.rand())


LEAVING = [kept, counted, drawn]


@pytest.mark.filterwarnings("ignore:The tensor attribute self.features was assigned")  # torch's; it is right
@pytest.mark.parametrize("compute", LEAVING, ids=["keeps its features", "counts in a buffer", "draws elsewhere"])
def test_what_a_forward_pass_would_leave_behind_is_not_there(compute: Callable[..., Tensor]) -> None:
    model = net(compute, a=(4, 4), b=(4, 2), buffer=torch.ones(()))()
    before = snapshot(model)
    scale_symmetries(model, INPUTS)
    assert snapshot(model) == before
