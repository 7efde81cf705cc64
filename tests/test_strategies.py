"""Tests of the drawn networks: their source makes them, nothing is dead, kinds are frequent, options are honoured."""

from __future__ import annotations

import gc
import linecache
import random
import re
import subprocess
import sys
import traceback
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.vendor.pretty import pretty
from torch import Tensor, nn

from mli_check.errors import OptionError, UnknownNameError
from mli_check.strategies import HOMOGENEOUS, Network, fill, inputs_for, networks, normal
from mli_check.strategies.generic import is_generic

if TYPE_CHECKING:
    from collections.abc import Callable

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
ANY = networks(dtypes=DTYPES)
NORMS = {"batch", "layer", "group"}
BRIEFLY = settings(max_examples=25)
ONCE = settings(database=None, phases=[Phase.generate])


def executed(source: str) -> nn.Module:
    """The model that the source makes in a fresh namespace."""
    namespace: dict[str, nn.Module] = {}
    exec(source, namespace)
    return namespace["model"]


def example(network: Network, batch: int = 6) -> Tensor:
    return normal((batch, *network.shape), network.dtype, 1)


def with_batch_norm(network: Network) -> bool:
    return "batch" in network.traits


def norms_of(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if hasattr(module, "eps")]


# The source is the network


@BRIEFLY
@given(ANY)
def test_the_source_makes_the_same_network(network: Network) -> None:
    other, x = executed(repr(network)), example(network)
    assert f"\n{network.source}\n" in pretty(network), "hypothesis must print it on lines of its own"
    assert other.training
    ours, theirs = network.model.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        assert torch.equal(tensor, theirs[name]), name
    assert len(list(network.model.parameters())) == len(list(other.parameters()))
    for training in (False, True):
        assert torch.equal(network.model.train(training)(x), other.train(training)(x))


def test_the_source_makes_the_same_network_in_a_fresh_process() -> None:
    network = find(ANY, with_batch_norm, settings=ONCE)
    script = f"{network.source}\nx = torch.arange({example(network).numel()}) % 7 / 4 - 1\n"
    script += f"x = x.reshape{(6, *network.shape)}.to({network.dtype})\nresult = model(x).double().tolist()\n"
    done = subprocess.run([sys.executable, "-c", f"{script}print(result)"], capture_output=True, text=True, check=True)
    namespace: dict[str, object] = {}
    exec(script, namespace)
    assert done.stdout.strip() == str(namespace["result"])


def test_an_error_in_a_network_shows_its_lines_while_it_lives() -> None:
    network = find(networks(), lambda network: "vector" in network.traits, settings=ONCE)
    with pytest.raises(RuntimeError) as caught:
        network.model(torch.zeros(6, 77))
    assert "x = self.fc1(x)" in "".join(traceback.format_exception(caught.value))
    name = network.model.forward.__code__.co_filename
    assert name in linecache.cache
    del network, caught
    gc.collect()
    assert name not in linecache.cache


@BRIEFLY
@given(st.data())
def test_drawing_leaves_the_global_generator_alone(data: st.DataObject) -> None:
    before = torch.get_rng_state()
    network = data.draw(ANY)
    fill(network.model, 3)
    data.draw(inputs_for(network))
    assert torch.equal(before, torch.get_rng_state())


# Nothing is dead, and numbers are generic


@BRIEFLY
@given(st.data())
def test_every_output_depends_on_the_input(data: st.DataObject) -> None:
    network = data.draw(ANY)
    x = data.draw(inputs_for(network, batch=8))
    assert x.shape == (8, *network.shape)
    for training in (False, True):
        out = network.model.train(training)(x)
        assert out.dtype == x.dtype == network.dtype
        assert torch.isfinite(out).all()
        assert len(out.unique(dim=0)) > 2


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=12)
@given(st.data())
def test_every_value_is_of_the_order_of_one_in_every_dtype(dtype: torch.dtype, data: st.DataObject) -> None:
    network = data.draw(networks(dtypes=(dtype,)))
    sizes = []
    for module in network.model.modules():
        module.register_forward_hook(lambda _, args, out: sizes.append(out.double().square().mean().sqrt().item()))
    for training in (False, True):
        out = network.model.train(training)(example(network))
        assert out.dtype == dtype
        out.sum().backward()
    assert min(sizes) > 0.05
    assert max(sizes) < 20


@BRIEFLY
@given(ANY)
def test_parameters_and_statistics_are_generic(network: Network) -> None:
    for name, tensor in network.model.state_dict().items():
        assert (tensor.abs() > 0.01).all(), name
        if name.endswith("running_var"):
            assert (tensor > 0.4).all()
        elif tensor.is_floating_point() and tensor.numel() > 1:
            assert len(tensor.unique()) > 1
    widths = [module.weight.shape[0] for module in network.model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    assert min(widths[:-1], default=4) >= 4


class Dead(nn.Module):
    """A linear layer, and what a test does to its output."""

    def __init__(self, then: Callable[[Tensor], Tensor], bias: float = 0.3) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 16)
        self.then = then
        fill(self, 0)
        nn.init.constant_(self.fc.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.fc(x))


@pytest.mark.parametrize(
    ("then", "bias", "generic"),
    [
        (torch.relu, 0.3, True),
        (torch.relu, -30.0, False),
        (torch.relu, 30.0, False),
        (torch.abs, 0.3, True),
        (torch.abs, 30.0, False),
        (nn.LeakyReLU(inplace=True), 30.0, False),
        (nn.PReLU(), 30.0, False),
        (lambda x: torch.maximum(x, -x), 0.3, True),
        (lambda x: torch.maximum(x, -x), 30.0, False),
        (lambda x: x.unflatten(1, (2, 8)).max(dim=1).values, 0.3, True),
        (lambda x: torch.stack([x, x + 1], dim=1).max(dim=1).values, 0.3, False),
        (nn.BatchNorm1d(16), 0.3, True),
        (lambda x: nn.functional.batch_norm(x * torch.arange(16), None, None, training=True), 0.3, False),
        (lambda x: nn.MaxPool2d(2)(x.reshape(-1, 1, 4, 4).relu()), 0.3, True),
        (lambda x: nn.MaxPool2d(4)(x.reshape(-1, 1, 4, 4).relu()), 1.0, False),
        (lambda x: x * 0 + 1, 0.3, False),
        (lambda x: x * float("nan"), 0.3, False),
    ],
)
def test_a_planted_degeneracy_is_found(then: Callable[[Tensor], Tensor], bias: float, generic: bool) -> None:
    assert is_generic(Dead(then, bias), normal((8, 16), torch.float32, 0)) == generic


# What is drawn


def test_every_kind_is_frequent() -> None:
    traits: Counter[str] = Counter()
    sources = []

    @settings(max_examples=400, phases=[Phase.generate], derandomize=True, database=None)
    @given(networks())
    def count(network: Network) -> None:
        sources.append(network.source)
        traits.update(network.traits)
        traits["no bias"] += not {"bias", "shift"} & network.traits

    count()
    shares = {trait: number / len(sources) for trait, number in traits.most_common()}
    print(*(f"{trait} {share:.0%}" for trait, share in shares.items()))
    assert len(sources) >= 390
    assert min(shares[trait] for trait in ("skip", "concatenation", "batch", "layer", "group", "tied")) >= 0.2
    assert min(shares[trait] for trait in ("bias", "no bias", "image", "vector")) >= 0.25
    assert min(shares.values()) >= 0.02
    forms = ("inplace=True", "MaxPool", "AvgPool", ".weight = ", "unflatten", "chunk", "y += x", "affine=False")
    assert all(any(form in source for source in sources) for form in forms)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_every_network_can_be_exported_in_both_modes(data: st.DataObject) -> None:
    network = data.draw(ANY)
    x = data.draw(inputs_for(network))
    for training in (False, True):
        network.model.train(training)
        program = torch.export.export(network.model, (x,), strict=False)
        state = {name: tensor.clone() for name, tensor in network.model.state_dict().items()}
        out = network.model(x)
        network.model.load_state_dict(state)
        assert torch.equal(program.module()(x), out)


@BRIEFLY
@given(ANY)
def test_traits_say_what_is_in_the_source(network: Network) -> None:
    source, traits = network.source, network.traits
    assert ("image" in traits) == (len(network.shape) == 3) != ("vector" in traits)
    for trait, word in {"batch": "BatchNorm", "layer": "LayerNorm", "group": "GroupNorm", "prelu": "PReLU"}.items():
        assert (trait in traits) == (word in source), trait
    for trait, pattern in {
        "concatenation": r"torch\.cat",
        "skip": r"x \+ y|y \+= x",
        "stride": r"2d\(.*stride=2",
    }.items():
        assert (trait in traits) == bool(re.search(pattern, source)), trait
    maps = [module for module in network.model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    assert ("bias" in traits) == any(module.bias is not None for module in maps)
    assert ("shift" in traits) == any(module.bias is not None for module in norms_of(network.model))
    steps = Counter(re.findall(r"self\.(\w+)\(", source[source.index("def forward") :]))
    assert ("tied" in traits) == (".weight = self" in source or max(steps.values()) > 1)
    groups = [
        module.groups / module.in_channels for module in maps if isinstance(module, nn.Conv2d) and module.groups > 1
    ]
    assert ("depthwise" in traits) == (1 in groups)


def test_networks_shrink_to_few_plain_layers() -> None:
    drawn, shrinking = networks(max_blocks=2), settings(database=None)
    network = find(drawn, with_batch_norm, random=random.Random(0), settings=shrinking)
    assert network.source.count("= nn.") <= 4
    assert not network.traits & {"bias", "shift", "maxout", "prelu", "pooling"}


# Options


OPTIONS: dict[str, tuple[dict[str, object], Callable[[Network], bool]]] = {
    "no norms": ({"norms": (None,)}, lambda network: not norms_of(network.model)),
    "batch norm alone": ({"norms": ("batch",)}, lambda network: not network.traits & {"layer", "group"}),
    "no biases": ({"biases": (False,)}, lambda network: "bias" not in " ".join(network.model.state_dict())),
    "all biases": (
        {"biases": (True,)},
        lambda network: all(getattr(module, "bias", None) is not None for module in with_weights(network)),
    ),
    "no blocks but chains": (
        {"skips": False, "concatenations": False, "tied": False},
        lambda network: not network.traits & {"skip", "concatenation", "tied"},
    ),
    "abs alone": (
        {"activations": ["abs"]},
        lambda network: "abs" in network.traits and not network.traits & {*HOMOGENEOUS} - {"abs"},
    ),
    "one block": ({"max_blocks": 1}, lambda network: not network.traits & {"skip", "concatenation", "tied"}),
}


def with_weights(network: Network) -> list[nn.Module]:
    kinds = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
    return [module for module in network.model.modules() if isinstance(module, kinds)]


@pytest.mark.parametrize(("options", "holds"), OPTIONS.values(), ids=OPTIONS)
@settings(max_examples=15)
@given(st.data())
def test_options_are_honoured(options: dict, holds: Callable[[Network], bool], data: st.DataObject) -> None:
    assert holds(data.draw(networks(**options)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norms": ("instance",)}, r"unknown value in `norms` 'instance'\. .*Known: None, batch, group, layer"),
        ({"norms": "batch"}, "`norms` must be a tuple of some of .*, got norms='batch'"),
        ({"norms": ()}, r"`norms` must be a tuple of some of .*, got norms=\(\)"),
        ({"activations": ("gelu",)}, "unknown value in `activations` 'gelu'.*leaky_relu"),
        ({"dtypes": torch.float32}, "`dtypes` must be a tuple of some of .*, got dtypes=torch.float32"),
        ({"dtypes": (torch.int64,)}, "unknown value in `dtypes` 'torch.int64'"),
        ({"biases": True}, "`biases` must be a tuple of some of .*, got biases=True"),
        ({"skips": None}, "`skips` must be True or False, got skips=None"),
        ({"max_blocks": 0}, "`max_blocks` must be a whole number of at least 1, got max_blocks=0"),
        ({"max_blocks": 2.0}, "`max_blocks` must be a whole number of at least 1, got max_blocks=2.0"),
    ],
)
def test_a_bad_option_is_an_error_at_once(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        networks(**options)
    assert isinstance(caught.value, UnknownNameError) == message.startswith("unknown")


def test_too_few_examples_are_an_error() -> None:
    network = Network(nn.Linear(5, 3), shape=(5,), dtype=torch.float32, traits=frozenset(), source="")
    with pytest.raises(OptionError, match="`batch` must be a whole number of at least 5, got batch=4"):
        inputs_for(network, batch=4)
