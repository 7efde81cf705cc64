"""Tests of the recorder's corners: odd models, wrapped models, a full disk, a recording that was replaced."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recorder_helpers import NAME, NEW, OLD, bits, record, recorded, tell, value_of
from torch import Tensor, nn

import mli_check as mli
from mli_check import durable, recordings
from mli_check.errors import OptionError, StoreError

pytestmark = pytest.mark.xdist_group("recorder-corners")


class Odd(nn.Linear):
    """A linear layer, 4 to 3, with further buffers."""

    def __init__(self, **buffers: Tensor) -> None:
        super().__init__(4, 3)
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor)


class Extra(nn.Linear):
    """A linear layer, 4 to 3, with an extra state."""

    def __init__(self, extra: Any) -> None:
        super().__init__(4, 3)
        self.extra = extra

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


class OptimizedModule(nn.Linear):
    """A module of the user's that is called like the one of torch.compile."""


def losses(model: nn.Module, recording: mli.Recording) -> list[float]:
    """Of a model of four inputs and three classes, at three points of the recording's path."""
    inputs = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    data = mli.Dataset(inputs.to(next(model.parameters()).dtype), torch.arange(12) % 3)
    return mli.evaluate(model, mli.LinearPath(recording.init, recording.final), data, points=3).loss.tolist()


def test_tied_weights_are_restored_under_both_names_and_move_as_one(tmp_path: Path) -> None:
    tied = nn.Linear(4, 4)
    model = nn.Sequential(tied, nn.Tanh(), tied)
    init = bits(model.state_dict())
    recording = recorded(model, tmp_path)
    assert set(init) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert (bits(recording.init), bits(recording.final)) == (init, bits(model.state_dict()))
    fresh = nn.Sequential(other := nn.Linear(4, 4), nn.Tanh(), other)
    fresh.load_state_dict(recording.final)
    inputs = torch.randn(5, 4)
    assert torch.equal(fresh(inputs), model(inputs))
    assert len(set(losses(model, recording))) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_parameters_keep_their_precision_to_the_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    model = nn.Linear(4, 3).to(dtype)
    init = bits(model.state_dict())
    recording = recorded(model, tmp_path)
    assert (bits(recording.init), bits(recording.final)) == (init, bits(model.state_dict()))
    assert len(set(losses(model, recording))) == 3


def test_integer_scalar_empty_and_strided_buffers_come_back_to_the_bit(tmp_path: Path) -> None:
    kinds = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint64", "bool", "bfloat16", "float8_e4m3fn")
    buffers = {f"many_{kind}": torch.arange(3).to(getattr(torch, kind)) for kind in kinds}
    buffers |= {f"scalar_{kind}": torch.tensor(1).to(getattr(torch, kind)) for kind in kinds}
    buffers |= {"empty": torch.empty(0, 3), "no_indices": torch.empty(2, 0, dtype=torch.int64)}
    buffers |= {"odd": torch.tensor([-0.0, torch.nan, torch.inf, 1e-45]), "transposed": torch.randn(2, 3).t()}
    buffers |= {"expanded": torch.randn(1).expand(4), "conjugated": torch.randn(3, dtype=torch.complex64).conj()}
    model = Odd(**buffers)
    recording = recorded(model, tmp_path)
    assert bits(recording.final) == bits({name: each.resolve_conj() for name, each in model.state_dict().items()})


def test_a_state_has_its_names_in_the_same_order_at_every_reading(tmp_path: Path) -> None:
    recording = recorded(nn.Sequential(*(nn.Linear(2, 2) for _ in range(8))), tmp_path)
    assert [list(recording.read("init.safetensors")) for _ in range(5)] == [sorted(recording.init)] * 5


def test_a_tensor_of_extra_state_is_recorded_and_given_back(tmp_path: Path) -> None:
    model = nn.Sequential(Extra(torch.tensor([3, 1])))
    recording = recorded(model, tmp_path)
    fresh = nn.Sequential(Extra(None))
    fresh.load_state_dict(recording.final)
    assert torch.equal(fresh[0].extra, torch.tensor([3, 1]))
    assert len(set(losses(model, recording))) == 3


UNRECORDABLE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "extra state of a dictionary": (lambda: Extra({"scale": 1.0}), r"holds dict under '_extra_state'.*return a tensor"),
    "extra state of None": (lambda: nn.Sequential(Extra(None)), "holds NoneType under '0._extra_state'"),
    "a dtype that safetensors lacks": (lambda: Odd(x=torch.ones(2, dtype=torch.complex128)), r"complex128.*be written"),
    "a name of the format's own": (lambda: Odd(__metadata__=torch.ones(2)), "cannot be read back.*__metadata__"),
    "a sparse tensor": (lambda: Odd(x=torch.eye(2).to_sparse()), "'x' is sparse"),
    "parameters on meta": (lambda: nn.Linear(2, 2, device="meta"), "'weight' is on meta"),
    "parameters not yet drawn": (lambda: nn.Sequential(nn.LazyLinear(3)), r"'0\.weight'.*run one batch"),
}


@pytest.mark.parametrize("kind", UNRECORDABLE)
def test_what_cannot_be_saved_and_read_again_is_refused_before_training(kind: str, tmp_path: Path) -> None:
    make, message = UNRECORDABLE[kind]
    model = make()
    with pytest.raises(OptionError, match=message):
        mli.Recorder(model, name=NAME, store=tmp_path)
    assert recordings.names(tmp_path) == []


def test_a_users_class_that_is_called_like_a_wrapper_is_a_model_like_any(tmp_path: Path) -> None:
    model = OptimizedModule(4, 3)
    assert bits(recorded(model, tmp_path).final) == bits(model.state_dict())


def test_distributed_and_compiled_models_are_recorded_under_the_plain_names_and_sharded_ones_refused(
    tmp_path: Path,
) -> None:
    told = tell(tmp_path, "distributed")["distributed"]
    kinds = ("ddp", "compiled ddp", "ddp of compiled", "data parallel with a compiled layer")
    assert told["same as plain"] == dict.fromkeys(kinds, True)
    assert "FSDPModule, whose state is sharded" in told["sharded"]


def test_a_finish_that_could_not_be_written_is_none_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = mli.Recorder(nn.Linear(4, 3), name=NAME, store=tmp_path)
    recorder.step()
    replace = durable.replace

    def replace_but_manifests(path: Path, content: bytes) -> None:
        if path.name == "manifest.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(path, content)

    with monkeypatch.context() as full:
        full.setattr(durable, "replace", replace_but_manifests)
        with pytest.raises(StoreError, match="No space left"):
            recorder.finish()
    recorder.step()
    assert not mli.load_recording(NAME, tmp_path).finished
    assert recorder.finish().finished


def test_a_recording_that_was_replaced_since_it_was_loaded_says_so(tmp_path: Path) -> None:
    earlier = record(tmp_path, OLD)
    record(tmp_path, NEW)
    with pytest.raises(StoreError, match="recorded anew"):
        _ = earlier.final
    assert value_of(mli.load_recording(NAME, tmp_path)) == NEW
