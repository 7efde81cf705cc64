"""Tests of the recorder: what it saves is what the training had, and what cannot be saved is said before training."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import images
from torch import nn

import mli_check as mli
from mli_check.errors import OptionError, StoreError
from mli_check.recorder import is_log_spaced


def made() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def one_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    loss = nn.functional.cross_entropy(model(torch.randn(16, 1, 8, 8)), torch.randint(10, (16,)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def copied(model: nn.Module) -> dict:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_states_are_read_back_to_the_bit_and_the_training_stays_as_it_was(tmp_path: Path) -> None:
    model, optimizer = made()
    by_hand = {0: copied(model)}
    for iteration in range(1, 13):
        one_step(model, optimizer)
        by_hand[iteration] = copied(model)
    model, optimizer = made()
    with mli.Recorder(model, optimizer, name="a", store=tmp_path) as recorder:
        for _ in range(12):
            recorder.step(one_step(model, optimizer))
    recording = mli.load_recording("a", tmp_path)
    assert same(recording.init, by_hand[0])
    assert same(recording.final, by_hand[12])
    assert list(recording.checkpoints) == [1, 2, 3, 5, 10]
    assert all(same(state, by_hand[iteration]) for iteration, state in recording.checkpoints.items())
    settings = recording.optimizer[0]["optimizers"][0]["groups"][0]
    assert (settings["lr"], settings["momentum"]) == (0.1, 0.9)
    curve = mli.evaluate(model, mli.LinearPath(recording.init, recording.final), images(20), norm_stats="freeze")
    assert len(curve.loss) == 51


def test_an_exception_leaves_it_unfinished_and_its_name_taken(tmp_path: Path) -> None:
    model, _ = made()
    recorder = mli.Recorder(model, name="a", store=tmp_path)
    with contextlib.suppress(ZeroDivisionError), recorder:
        recorder.step(float("nan"))
        raise ZeroDivisionError
    recording = mli.load_recording("a", tmp_path)
    assert (recording.finished, recording.history) == (False, [{"iteration": 1, "loss": None}])
    with pytest.raises(StoreError, match="unfinished"):
        _ = recording.final
    with pytest.raises(StoreError, match=r"unfinished.*overwrite=True"):
        mli.Recorder(model, name="a", store=tmp_path)
    mli.Recorder(model, name="a", store=tmp_path, overwrite=True).close()
    assert list(mli.load_recording("a", tmp_path).checkpoints) == []


def test_a_killed_process_leaves_a_readable_recording(tmp_path: Path) -> None:
    script = (
        "import os, sys, torch, mli_check as mli\n"
        "recorder = mli.Recorder(torch.nn.Linear(2, 2), name='a', store=sys.argv[1])\n"
        "[recorder.step(1.0) for _ in range(7)]\n"
        f"os.kill(os.getpid(), {int(signal.SIGKILL)})"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], env=dict(os.environ), check=False)
    assert done.returncode == -signal.SIGKILL
    recording = mli.load_recording("a", tmp_path)
    assert (recording.finished, list(recording.checkpoints), len(recording.init)) == (False, [1, 2, 3, 5], 2)


def test_a_damaged_byte_is_found(tmp_path: Path) -> None:
    model, _ = made()
    mli.Recorder(model, name="a", store=tmp_path).close()
    file = tmp_path / "recorded" / "a" / "init.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(StoreError, match=r"init\.safetensors.*damaged"):
        _ = mli.load_recording("a", tmp_path).init


def test_a_second_recorder_of_the_name_is_refused(tmp_path: Path) -> None:
    model, _ = made()
    first = mli.Recorder(model, name="a", store=tmp_path)
    with pytest.raises(StoreError, match="another recorder is writing"):
        mli.Recorder(model, name="a", store=tmp_path, overwrite=True)
    first.close()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", ".a", "a\n", "x" * 101])
def test_an_unsafe_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot name a recording"):
        mli.Recorder(made()[0], name=name, store=tmp_path)


def test_wrappers_leave_no_trace_in_the_names(tmp_path: Path) -> None:
    model, _ = made()
    for name, wrapped in {"parallel": nn.DataParallel(model), "compiled": torch.compile(model)}.items():
        mli.Recorder(wrapped, name=name, store=tmp_path).close()
        assert same(mli.load_recording(name, tmp_path).init, model.state_dict())


def test_a_store_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write the recording"):
        mli.Recorder(made()[0], name="a", store=tmp_path / "file")


def test_the_log_rule() -> None:
    kept = [iteration for iteration in range(1001) if is_log_spaced(iteration)]
    assert kept == [1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000]
