"""What the tests of the recorder share: recordings whose states tell where they are from, and competing processes.

Run as a script, `python recorder_helpers.py FOLDER SCRIPT...`, it does what needs a process of its own: one that may
fork, or that joins a process group. It prints what it saw as JSON, by script.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from killing import kill_all
from torch import Tensor, nn

import mli_check as mli
from mli_check import recordings
from mli_check.errors import OptionError, StoreError
from mli_check.runs import Store

if TYPE_CHECKING:
    from collections.abc import Callable

NAME, STEPS = "a", 2
OLD, NEW, NEXT = 10, 20, 30
LOST, REFUSED = 1, 3
ROUNDS = 10


def recorded(model: nn.Module, store: Path) -> mli.Recording:
    """A recording of one step, which doubles all parameters."""
    with mli.Recorder(model, name=NAME, store=store) as recorder:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
        recorder.step()
    return mli.load_recording(NAME, store)


def bits(state: dict[str, Tensor]) -> dict[str, tuple[Any, ...]]:
    return {
        name: (tensor.dtype, tensor.shape, tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist())
        for name, tensor in state.items()
    }


def filled(number: float, model: nn.Module | None = None) -> nn.Module:
    """The model, or a new one, with that number in all parameters."""
    model = nn.Linear(3, 2) if model is None else model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(number)
    return model


def record(store: Store | Path, value: int, *, name: str = NAME, pause: float = 0) -> mli.Recording:
    """A recording whose states are full of one number each, `value` plus the iteration; its losses are `value`."""
    model = filled(value)
    with mli.Recorder(model, name=name, store=store, overwrite=True, checkpoints=[1]) as recorder:
        for iteration in range(1, STEPS + 1):
            time.sleep(pause)
            filled(value + iteration, model)
            recorder.step(value)
        return recorder.finish()


def value_of(recording: mli.Recording) -> int:
    """By which value it was recorded; AssertionError if it mixes two, StoreError if it lacks what it should have."""
    states = {0: recording.init, **recording.checkpoints} | ({STEPS: recording.final} if recording.finished else {})
    numbers = [tensor.flatten() - iteration for iteration, state in states.items() for tensor in state.values()]
    values = {*torch.cat(numbers).tolist(), *(entry["loss"] for entry in recording.history)}
    assert len(values) == 1
    assert len(states) == len(recording.history) + 1
    return int(values.pop())


def tell(folder: Path, *scripts: str) -> dict[str, Any]:
    """What this file tells as a script, and the `folder` that it did it in."""
    command = [sys.executable, __file__, str(folder), *scripts]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) | {"folder": folder}


# What runs as a script


def kill(folder: Path) -> Any:
    """Processes die at each change that the start of a first recording makes, and that one over another makes."""

    def start(store: Store) -> None:
        mli.Recorder(filled(NEW), name=NAME, store=store).close()

    record(folder / "warm", OLD)  # imports all that is imported late, so that no child does
    first = kill_all(folder / "first", lambda store: None, start)
    return {"first": first, "over": kill_all(folder / "over", lambda s: record(s, OLD), lambda s: record(s, NEW))}


def forked(act: Callable[[], Any]) -> int:
    """The id of a process that acts; its exit status is REFUSED if another recorder was in its way."""
    child = os.fork()
    if child == 0:
        status = LOST
        try:
            act()
            status = 0
        except StoreError as error:
            status = REFUSED if "another recorder is writing" in str(error) else LOST
        finally:
            os._exit(status)
    return child


def status_of(child: int, meanwhile: Callable[[], None] = lambda: None) -> int:
    while True:
        meanwhile()
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)


def step_in_a_child(recorder: mli.Recorder) -> None:
    """The step must be refused, and to close the child's copy must not let others in."""
    with pytest.raises(OptionError, match="make the Recorder in the process that trains"):
        recorder.step()
    recorder.close()


def record_in_turn(folder: Path, value: int) -> None:
    """Try until no other recorder is in the way, but not for ever."""
    for _ in range(50):
        try:
            record(folder, value, pause=0.001)
            return
        except StoreError as error:
            if "another recorder" not in str(error):
                raise
        time.sleep(0.001)
    record(folder, value)


def compete(folder: Path) -> Any:
    """Two processes record at once, over and over, while this one reads; then others come in its own one's way."""
    folder /= "compete"
    record(folder, OLD)

    def read() -> None:
        """What the others are replacing right now may be gone, but not half there."""
        recordings.listed(Store(folder))
        with contextlib.suppress(StoreError):
            value_of(mli.load_recording(NAME, folder))

    rounds = []
    for _ in range(ROUNDS):
        children = [forked(lambda v=value: record_in_turn(folder, v)) for value in (OLD, NEW)]
        rounds.append(([status_of(child, read) for child in children], value_of(mli.load_recording(NAME, folder))))
    told: dict[str, Any] = {"rounds": rounds}
    model = filled(NEXT)
    with mli.Recorder(model, name=NAME, store=folder, overwrite=True, checkpoints=[1]) as recorder:
        told["a child of the recorder's process"] = status_of(forked(lambda: step_in_a_child(recorder)))
        told["another while held"] = status_of(forked(lambda: record(folder, OLD)))
        for iteration in range(1, STEPS + 1):
            filled(NEXT + iteration, model)
            recorder.step(NEXT)
    return told | {"held": value_of(mli.load_recording(NAME, folder))}


def distributed(folder: Path) -> Any:
    """Which wrapped models are recorded just as the plain one, in a group of one process; what is said of a sharded."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=0, world_size=1)
    plain = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    wrapped = {
        "ddp": DistributedDataParallel(plain),
        "compiled ddp": torch.compile(DistributedDataParallel(plain)),
        "ddp of compiled": DistributedDataParallel(torch.compile(plain)),
        "data parallel with a compiled layer": nn.DataParallel(nn.Sequential(torch.compile(plain[0]), plain[1])),
    }
    same = {}
    for name, model in wrapped.items():
        same[name] = bits(recorded(model, folder / name).final) == bits(plain.state_dict())
    sharded = fully_shard(nn.Linear(2, 2), mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(OptionError) as refused:
        mli.Recorder(sharded, name=NAME, store=folder)
    return {"same as plain": same, "sharded": str(refused.value)}


SCRIPTS = {"kill": kill, "compete": compete, "distributed": distributed}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({name: SCRIPTS[name](Path(sys.argv[1])) for name in sys.argv[2:]}))
