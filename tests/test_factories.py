"""Networks named on a command line, and inputs given by their shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from mli_check.errors import OptionError
from mli_check.factories import example_inputs, load_model

if TYPE_CHECKING:
    from pathlib import Path


def test_a_class_or_function_is_called_and_a_module_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    lines = (
        "from torch import nn",
        "class Zoo:",
        "    small = nn.Linear(3, 2)",
        "    large = staticmethod(lambda: nn.Linear(9, 9))",
    )
    (tmp_path / "some_models.py").write_text("\n".join(lines))
    assert isinstance(load_model("torch.nn:Identity"), nn.Identity)
    assert load_model("some_models:Zoo.small") is load_model("some_models:Zoo.small")
    large = load_model("some_models:Zoo.large")
    assert isinstance(large, nn.Linear)
    assert large.in_features == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("torchvision.models", "a model is given as MODULE:FACTORY"),
        (":f", "a model is given as MODULE:FACTORY"),
        ("no.such.module:f", "cannot import 'no.such.module'"),
        ("torchvision.models:resnet19", "'torchvision.models' has no 'resnet19'"),
        ("torch:pi", "is a float, expected a function or class"),
        ("torch:get_num_threads", "makes a int, expected a torch.nn.Module"),
        ("torch.nn:Linear", "fails when called without arguments: TypeError"),
    ],
)
def test_what_makes_no_model_is_refused(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load_model(text)


def test_inputs_are_zeros_of_the_shapes_and_kinds_given() -> None:
    images, tokens, mask = example_inputs(["2,3, 8,8", "4,7:int", "4:bool"])
    assert [tuple(one.shape) for one in (images, tokens, mask)] == [(2, 3, 8, 8), (4, 7), (4,)]
    assert [one.dtype for one in (images, tokens, mask)] == [torch.float32, torch.int64, torch.bool]
    assert not any(one.any() for one in (images, tokens, mask))


@pytest.mark.parametrize("text", ["", "2,x", "2,-3", "2,0", "2,3:double", "2;3"])
def test_a_shape_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"an input is given by its shape, such as 2,3,64,64"):
        example_inputs([text])
