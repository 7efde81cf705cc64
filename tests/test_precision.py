"""Tests that training and evaluation compute in full float32, whatever the caller's flags, and leave those alone."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from helpers import images, random_state, tiny_setting
from torch import nn

from mli_check.data import Dataset
from mli_check.errors import OptionError
from mli_check.evaluation import front
from mli_check.evaluation.front import evaluate
from mli_check.models import build
from mli_check.paths import LinearPath
from mli_check.precision import flags, full_float32
from mli_check.settings import ModelSetting
from mli_check.states import digest
from mli_check.training import fit as fitting
from mli_check.training.fit import Fit, fit

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("general", "cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")
WIDE = ModelSetting(name="fcn", hidden=(256, 256))  # products large enough for another kernel
DATA = images(200, classes=10, side=16)


@pytest.fixture(autouse=True)
def caller() -> Iterator[None]:
    """Whatever a test sets, the process has its flags back after."""
    legacy, before = torch.get_float32_matmul_precision(), readings()
    yield
    torch.set_float32_matmul_precision(legacy)
    for flag, name in zip(flags(), NAMES, strict=True):
        if flag.fp32_precision != before[name]:
            flag.fp32_precision = before[name]
    assert readings() == before


def readings() -> dict[str, str]:
    return dict(zip(NAMES, (flag.fp32_precision for flag in flags()), strict=True))


def ask_for(wanted: str) -> None:
    """What a caller may have set."""
    if wanted in ("medium", "high", "highest"):
        torch.set_float32_matmul_precision(wanted)
    elif wanted == "general tf32":
        torch.backends.fp32_precision = "tf32"
    elif wanted == "bfloat16 convolutions":
        torch.backends.mkldnn.conv.fp32_precision = "bf16"


CALLERS = ("nothing", "medium", "high", "highest", "general tf32", "bfloat16 convolutions")


def setting(**recipe: object) -> fitting.Setting:
    return dataclasses.replace(tiny_setting(batch_size=100, **recipe), model=WIDE)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(WIDE, (1, 16, 16), 10)


def curve() -> tuple[np.ndarray, np.ndarray]:
    """The losses of a curve, and all logits."""
    model = network()
    result = evaluate(model, LinearPath(random_state(model, 0), random_state(model, 1)), DATA, 3, keep="logits")
    return result.loss, result.logits


@pytest.fixture(scope="module")
def trained() -> Fit:
    return fit(setting(), DATA)


@pytest.fixture(scope="module")
def measured() -> tuple[np.ndarray, np.ndarray]:
    return curve()


def states(result: Fit) -> tuple[str, str]:
    return digest(result.init), digest(result.final)


# The flags


@pytest.mark.parametrize("wanted", CALLERS)
def test_inside_every_flag_reads_ieee_and_after_it_what_it_read_before(wanted: str) -> None:
    ask_for(wanted)
    before = readings()
    with full_float32():
        assert set(readings().values()) == {"ieee"}
    assert readings() == before


@pytest.mark.parametrize("wanted", CALLERS)
def test_an_exception_inside_brings_the_flags_back_too(wanted: str) -> None:
    ask_for(wanted)
    before = readings()
    with pytest.raises(ZeroDivisionError), full_float32():
        raise ZeroDivisionError
    assert readings() == before


def test_the_older_switch_reads_as_the_caller_set_it() -> None:
    torch.set_float32_matmul_precision("medium")
    with full_float32():
        pass
    assert torch.get_float32_matmul_precision() == "medium"
    assert torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("wanted", ["nothing", "general tf32"])
def test_flags_that_follow_the_general_one_still_follow_it_after(wanted: str) -> None:
    """In a process of its own: a flag once set, as other tests here set them, never follows the general one again."""
    lines = (
        "import torch",
        "from mli_check.precision import flags, full_float32",
        'torch.backends.fp32_precision = "tf32"' if wanted == "general tf32" else "",
        "with full_float32():",
        "    pass",
        'torch.backends.fp32_precision = "ieee"',
        "print({flag.fp32_precision for flag in flags()})",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "{'ieee'}"), done.stderr


def test_contexts_within_one_another_are_as_one() -> None:
    torch.set_float32_matmul_precision("medium")
    before = readings()
    with full_float32():
        with full_float32():
            pass
        assert set(readings().values()) == {"ieee"}
    assert readings() == before


# Who uses them


@pytest.mark.parametrize("wanted", CALLERS)
def test_training_leaves_the_callers_flags_alone(wanted: str) -> None:
    ask_for(wanted)
    before = readings()
    fit(tiny_setting(), images(40))
    assert readings() == before


@pytest.mark.parametrize("wanted", CALLERS)
def test_evaluating_leaves_the_callers_flags_alone(wanted: str) -> None:
    ask_for(wanted)
    before = readings()
    curve()
    assert readings() == before


def test_an_evaluation_that_is_refused_leaves_the_callers_flags_alone() -> None:
    torch.set_float32_matmul_precision("medium")
    before = readings()
    model = network()
    path = LinearPath(random_state(model, 0), random_state(model, 1))
    with pytest.raises(OptionError, match="outputs and targets of one shape"):
        evaluate(model, path, Dataset(DATA.inputs, DATA.inputs), 3, loss="squared_error")
    assert readings() == before


@pytest.mark.parametrize("wanted", CALLERS[1:])
def test_training_gives_the_same_bits_whatever_the_caller_set(wanted: str, trained: Fit) -> None:
    ask_for(wanted)
    again = fit(setting(), DATA)
    assert states(again) == states(trained)
    assert again.history == trained.history


@pytest.mark.parametrize("wanted", CALLERS[1:])
def test_evaluating_gives_the_same_bits_whatever_the_caller_set(
    wanted: str, measured: tuple[np.ndarray, np.ndarray]
) -> None:
    ask_for(wanted)
    for kept, again in zip(measured, curve(), strict=True):
        assert np.array_equal(kept, again)


def test_without_full_float32_the_callers_flags_would_change_what_is_trained_and_measured(
    monkeypatch: pytest.MonkeyPatch, trained: Fit, measured: tuple[np.ndarray, np.ndarray]
) -> None:
    """Shows that the two tests above can fail."""
    torch.set_float32_matmul_precision("medium")
    first, second = torch.linspace(-1, 1, 512 * 512).reshape(2, 512, 256).unbind()
    rounded = first @ second.T
    with full_float32():
        if torch.equal(first @ second.T, rounded):
            pytest.skip("this CPU multiplies no float32 matrices in bfloat16")
    monkeypatch.setattr(fitting, "full_float32", contextlib.nullcontext)
    monkeypatch.setattr(front, "arithmetic", lambda *_: contextlib.nullcontext())
    assert digest(fit(setting(), DATA).final) != digest(trained.final)
    assert not np.array_equal(curve()[1], measured[1])
