"""Tests of the recorder's corners: odd models, wrapped models, killed and competing processes, the store's commands.

Run as a script, `python test_recorder_corners.py FOLDER SCRIPT...`, it does what needs a process of its own: one that
may fork, or that joins a process group. It prints what it saw as JSON, by script.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from killing import DEATH, kill_all
from torch import Tensor, nn
from typer.testing import CliRunner

import mli_check as mli
from mli_check import durable, recordings
from mli_check.cli import app
from mli_check.errors import OptionError, StoreError
from mli_check.run_files import signed
from mli_check.runs import Store

if TYPE_CHECKING:
    from collections.abc import Callable

NAME, STEPS = "a", 2
OLD, NEW, NEXT = 10, 20, 30
LOST, REFUSED = 1, 3
ROUNDS = 10
pytestmark = pytest.mark.xdist_group("recorder-corners")
FORKS = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


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
    told: dict[str, Any],
) -> None:
    kinds = ("ddp", "compiled ddp", "ddp of compiled", "data parallel with a compiled layer")
    assert told["distributed"]["same as plain"] == dict.fromkeys(kinds, True)
    assert "FSDPModule, whose state is sharded" in told["distributed"]["sharded"]


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


# Processes that are killed, and that compete


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


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What this file tells as a script, and the `folder` that it did it in."""
    folder = tmp_path_factory.mktemp("told")
    command = [sys.executable, __file__, str(folder), *(SCRIPTS if hasattr(os, "fork") else ["distributed"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) | {"folder": folder}


def reached(store: Path) -> tuple[int, int] | None:
    """The recording's value and its iterations, one more if finished; None where there is none."""
    assert len(recordings.listed(Store(store))) == len(recordings.names(store))
    found = mli.load_recording(NAME, store) if recordings.names(store) else None
    return found and (value_of(found), found.iterations + found.finished)


@FORKS
def test_a_process_killed_at_any_moment_leaves_the_old_recording_or_the_new_one_and_the_next_replaces_it(
    told: dict[str, Any],
) -> None:
    last = STEPS + 1  # what `reached` is of a finished recording
    ends = {"first": [None, (NEW, 0)], "over": [(OLD, last), (NEW, 0), (NEW, 1), (NEW, last)]}
    for name, killed in told["kill"].items():
        assert killed["statuses"] == [0] + [DEATH] * len(killed["changes"])
        stores = [told["folder"] / name / str(k) for k in range(1, len(killed["changes"]) + 1)]
        left = [reached(store) for store in stores]
        assert list(dict.fromkeys(left)) == ends[name]
        for store, change, before in zip(stores, killed["changes"], left, strict=True):
            where = f"{name}, killed at change {store.name}, {change}"
            if before is not None:
                with pytest.raises(StoreError, match=r"already.*overwrite=True"):
                    mli.Recorder(nn.Linear(3, 2), name=NAME, store=store)
            assert reached(store) == before, where
            record(store, NEXT)
            assert reached(store) == (NEXT, last), where
            assert [folder.name for folder in (store / "recorded").iterdir()] == [NAME], where
            assert len([file for file in (store / "recorded").rglob("*") if file.is_file()]) == STEPS + 2, where


def test_an_old_recording_that_a_killed_process_half_deleted_never_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the new one in its place is deleted by hand."""
    folder = record(tmp_path, OLD).folder

    def die_half_way(doomed: Path, **_: Any) -> None:
        if doomed.is_dir():
            (doomed / "init.safetensors").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(shutil, "rmtree", die_half_way)
        with pytest.raises(KeyboardInterrupt):
            record(tmp_path, NEW)
    assert mli.load_recording(NAME, tmp_path).init["bias"].unique() == NEW
    shutil.rmtree(folder)
    assert recordings.names(tmp_path) == []
    assert value_of(record(tmp_path, NEXT)) == NEXT


@FORKS
def test_processes_that_record_one_name_at_once_are_refused_or_last_and_never_mixed(told: dict[str, Any]) -> None:
    compete = told["compete"]
    for statuses, value in compete["rounds"]:
        assert set(statuses) <= {0, REFUSED}
        assert statuses[{OLD: 0, NEW: 1}[value]] == 0
    assert compete["another while held"] == REFUSED
    assert compete["a child of the recorder's process"] == 0
    assert compete["held"] == NEXT


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def old_run(root: Path) -> Path:
    """The folder of a run of another training version."""
    folder = root / "runs" / ("0" * 64)
    folder.mkdir(parents=True)
    manifest = {"summary": "old", "created": "2020-01-01T00:00:00+00:00", "device": "cpu", "seconds": 1.0}
    (folder / "manifest.json").write_bytes(signed(manifest | {"training_version": 0}))
    return folder


@pytest.mark.parametrize("options", [[], ["--older-than", "0"], ["--all"]], ids=" ".join)
def test_prune_deletes_no_recording_whatever_it_is_asked(options: list[str], tmp_path: Path) -> None:
    record(tmp_path, OLD)
    mli.Recorder(nn.Linear(2, 2), name="unfinished", store=tmp_path).close()
    before, run = snapshot(tmp_path / "recorded"), old_run(tmp_path)
    told = CliRunner().invoke(app, ["runs", "prune", "--store", str(tmp_path), *options])
    assert (told.exit_code, "recorded" in told.output, run.exists()) == (0, False, False)
    assert snapshot(tmp_path / "recorded") == before
    assert value_of(mli.load_recording(NAME, tmp_path)) == OLD


def test_list_shows_every_recording_beside_the_runs(tmp_path: Path) -> None:
    run = old_run(tmp_path)
    whole, damaged, aside = (record(tmp_path, OLD, name=name) for name in ("whole", "damaged", "aside"))
    mli.Recorder(nn.Linear(2, 2), name="unfinished", store=tmp_path).close()
    (damaged.folder / "manifest.json").write_bytes(b"{}")
    aside.folder.rename(aside.folder.with_name(".old+aside"))
    told = CliRunner().invoke(app, ["runs", "list", "--json", "--store", str(tmp_path)])
    assert {entry["digest"]: entry["summary"] for entry in json.loads(told.output)} == {
        run.name: "old",
        "recorded/whole": "recording whole: Linear, 2 iterations, finished",
        "recorded/aside": "recording aside: Linear, 2 iterations, finished",
        "recorded/unfinished": "recording unfinished: Linear, 0 iterations, unfinished",
        "recorded/damaged": "recording damaged: damaged manifest",
    }
    sizes = {entry["digest"]: entry["size"] for entry in json.loads(told.output)}
    assert sizes["recorded/whole"] == sum(len(each) for name, each in snapshot(whole.folder).items() if "safe" in name)
    table = CliRunner().invoke(app, ["runs", "list", "--store", str(tmp_path)]).output
    assert (table.count("recorded "), "5 networks" in table) == (4, True)


def test_list_outlives_a_recording_that_is_replaced_while_it_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path, OLD)
    rglob = Path.rglob

    def found_then_replaced(folder: Path, pattern: str) -> list[Path]:
        files = [*rglob(folder, pattern), folder / "gone.safetensors"]
        monkeypatch.undo()
        record(tmp_path, NEW)
        return files

    monkeypatch.setattr(Path, "rglob", found_then_replaced)
    (entry,) = recordings.listed(Store(tmp_path))
    assert entry.summary == "recording a: Linear, 2 iterations, finished"


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
