"""Tests of train_many: grouping, what is stored by whom, errors, kills, and two processes that want the same."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from filelock import FileLock
from helpers import images, script_environment, tiny_setting

from mli_check import many
from mli_check.data import Dataset
from mli_check.errors import DamagedRunWarning, OptionError, UnknownNameError
from mli_check.many import train_many
from mli_check.runs import FINAL, Store
from mli_check.settings import ModelSetting
from mli_check.training.ensemble import fit_together
from mli_check.training.fit import fit
from mli_check.training.sets import training_data

if TYPE_CHECKING:
    from mli_check.settings import Setting

SETTING = tiny_setting(epochs=2)
SIX = [SETTING.with_seeds(seed) for seed in range(6)]
OTHERS = [dataclasses.replace(s, model=ModelSetting(name="fcn", hidden=(4,))) for s in SIX[:2]]  # too few to stack


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[Setting]]:
    """The settings that were trained, in groups."""
    calls: list[list[Setting]] = []

    def alone(setting: Setting, *rest: Any) -> Any:
        calls.append([setting])
        return fit(setting, *rest)

    def together(settings: list[Setting], *rest: Any) -> Any:
        calls.append(list(settings))
        return fit_together(settings, *rest)

    monkeypatch.setattr(many, "fit", alone)
    monkeypatch.setattr(many, "fit_together", together)
    return calls


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def assert_clean(store: Store) -> None:
    """Nothing is left over, and no lock is held."""
    assert not list(store.root.glob("tmp/*"))
    for lock in store.root.glob("locks/*"):
        with FileLock(lock, timeout=0):
            pass


# What comes back, and who trained it


def test_runs_come_in_the_order_of_the_settings_each_trained_once(store: Store, trained: list[list[Setting]]) -> None:
    wanted = [SIX[3], *OTHERS, SIX[0], SIX[3], *SIX]
    runs = train_many((setting for setting in wanted), store)
    assert [run.setting for run in runs] == wanted
    assert trained == [[SIX[3], SIX[0], SIX[1], SIX[2], SIX[4], SIX[5]], [OTHERS[0]], [OTHERS[1]]]
    for run in runs:
        torch.testing.assert_close(run.final, fit(run.setting, training_data(run.setting)).final)
    assert_clean(store)


def test_the_manifest_says_who_trained(store: Store) -> None:
    stacked, alone = train_many([*SIX, OTHERS[0]], store)[0::6]
    assert (stacked.manifest["trainer"], alone.manifest["trainer"]) == ("ensemble", "fit")
    assert len(stacked.manifest["group"]) == 64
    assert stacked.manifest["execution"] == ["vmap"]
    assert alone.manifest["group"] is None


def test_what_is_stored_is_not_trained_again(store: Store, trained: list[list[Setting]]) -> None:
    first = store.train(SIX[2])
    found = train_many(SIX, store)
    assert trained == [[*SIX[:2], *SIX[3:]]]
    assert found[2].manifest == first.manifest
    train_many(SIX, store)
    assert len(trained) == 1
    assert train_many([], store) == []


def test_a_damaged_run_is_set_aside_and_trained_again(store: Store, trained: list[list[Setting]]) -> None:
    runs = train_many(SIX, store)
    file = runs[1].folder / FINAL
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(DamagedRunWarning, match="set aside") as caught:
        again = train_many(SIX, store)
    assert [warning.filename for warning in caught] == [__file__]
    assert trained[1:] == [[SIX[1]]]
    assert len(list(store.root.glob("damaged/*"))) == 1
    assert torch.isfinite(again[1].final["1.weight"]).all()


def test_random_labels_share_their_inputs_and_are_trained_at_once(store: Store, trained: list[list[Setting]]) -> None:
    noisy = [
        dataclasses.replace(s, data=dataclasses.replace(s.data, label_noise=0.1 * seed)) for seed, s in enumerate(SIX)
    ]
    for run in train_many(noisy, store):
        torch.testing.assert_close(run.final, fit(run.setting, training_data(run.setting)).final)
    assert len(trained) == 1


def test_data_given_are_trained_on(store: Store) -> None:
    data = images(60)
    for run in train_many(SIX, store, data=data):
        torch.testing.assert_close(run.final, fit(run.setting, data).final)


def test_progress_counts_the_epochs_of_missing_networks(store: Store) -> None:
    store.train(SIX[0])
    told: list[tuple[int, int]] = []
    train_many([*SIX, *OTHERS], store, lambda done, total: told.append((done, total)))
    assert {total for _, total in told} == {2 * 7}
    done = [done for done, _ in told]
    assert done == sorted(done)
    assert done[-1] == 14
    assert len(set(done)) >= 5


# What cannot be trained


def test_data_for_settings_that_name_several_sets_are_refused(store: Store) -> None:
    other = dataclasses.replace(SIX[0], data=dataclasses.replace(SIX[0].data, subset=50))
    with pytest.raises(OptionError, match="the settings name several"):
        train_many([SIX[1], other], store, data=images(60))


def test_a_setting_that_does_not_fit_is_named_before_any_is_trained(store: Store, trained: list[list[Setting]]) -> None:
    late = SIX[3].with_recipe(checkpoints=(999,))
    with pytest.raises(OptionError, match=r"seeds 3/3: .*\[999\] lie beyond the last iteration"):
        train_many([*SIX, late], store)
    with pytest.raises(UnknownNameError, match="digitz"):
        train_many([*SIX, dataclasses.replace(SIX[0], data=dataclasses.replace(SIX[0].data, name="digitz"))], store)
    assert trained == []
    assert_clean(store)


@pytest.mark.parametrize(
    ("model", "error"),
    [
        pytest.param(ModelSetting(name="vgg", variant="huge"), UnknownNameError, id="unknown variant"),
        pytest.param(ModelSetting(name="vgg", variant="16"), OptionError, id="images too small"),
    ],
)
def test_a_network_that_cannot_be_built_is_named_before_any_is_trained(
    model: ModelSetting, error: type[OptionError], store: Store, trained: list[list[Setting]]
) -> None:
    with pytest.raises(error, match=f"^{model.name} .*seeds 3/3: "):
        train_many([*SIX, dataclasses.replace(SIX[3], model=model)], store)
    assert trained == []
    assert_clean(store)


def test_vectors_that_should_be_cropped_are_refused_before_any_is_trained(
    store: Store, trained: list[list[Setting]]
) -> None:
    cropped = SIX[3].with_recipe(augmentation="crop")
    with pytest.raises(OptionError, match=r"seeds 3/3: recipe.augmentation='crop' crops images .* shape \(64,\)"):
        train_many([*SIX, cropped], store, data=Dataset(torch.randn(60, 64), torch.arange(60) % 10))
    assert trained == []


def test_what_was_trained_before_an_error_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "fit", lambda *_: pytest.fail("planted"))
    with pytest.raises(pytest.fail.Exception, match="planted"):
        train_many([*SIX, *OTHERS], store)
    assert all(store.find(setting) for setting in SIX)
    assert not any(store.find(setting) for setting in OTHERS)
    assert_clean(store)


def test_out_of_memory_halves_the_ensemble(
    store: Store, trained: list[list[Setting]], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = many.fit_together

    def small(settings: list[Setting], *rest: Any) -> Any:
        if len(settings) > 2:
            raise torch.OutOfMemoryError("planted")
        return together(settings, *rest)

    monkeypatch.setattr(many, "fit_together", small)
    told: list[int] = []
    runs = train_many(SIX, store, lambda done, total: told.append(done))
    assert [run.setting for run in runs] == SIX
    assert trained == [[SIX[0]], SIX[1:3], [SIX[3]], SIX[4:]]
    assert told == sorted(told)
    assert told[-1] == 12


def test_progress_does_not_go_back_when_memory_runs_out_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    together = many.fit_together

    def late(settings: list[Setting], data: Any, progress: Any) -> Any:
        if len(settings) > 3:
            progress(1, 2)
            raise torch.OutOfMemoryError("planted")
        return together(settings, data, progress)

    monkeypatch.setattr(many, "fit_together", late)
    told: list[int] = []
    train_many(SIX, store, lambda done, total: told.append(done))
    assert told == [6, 9, 12]


def test_a_single_network_that_does_not_fit_raises(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise torch.OutOfMemoryError("planted")

    monkeypatch.setattr(many, "fit_together", never)
    monkeypatch.setattr(many, "fit", never)
    with pytest.raises(torch.OutOfMemoryError, match="planted"):
        train_many(SIX, store)
    assert_clean(store)


# Kills, and other processes

SCRIPT = """
import json, os, signal, sys, torch
from helpers import tiny_setting
from mli_check.runs import Store
from mli_check.many import train_many
torch.set_num_threads(1)
root, order, die_after = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
store, written = Store(root), []
write = store.write
def counted(setting, *args, **kwargs):
    if len(written) == die_after:
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(setting.recipe.init_seed)
    return write(setting, *args, **kwargs)
store.write = counted
train_many([tiny_setting(epochs=2).with_seeds(seed) for seed in order], store)
print(json.dumps(written))
"""


def start(store: Store, order: list[int], die_after: int = -1) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", SCRIPT, str(store.root), json.dumps(order), str(die_after)]
    return subprocess.Popen(words, env=script_environment(), stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_after_a_kill_what_was_finished_is_there_and_the_rest_is_trained(
    store: Store, trained: list[list[Setting]]
) -> None:
    process = start(store, list(range(6)), die_after=2)
    process.communicate(timeout=100)
    assert process.returncode == -signal.SIGKILL
    assert [bool(store.find(setting)) for setting in SIX] == [True, True, False, False, False, False]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(train_many(SIX, store)) == 6
    assert trained == [SIX[2:]]
    assert_clean(store)


def test_two_processes_that_want_the_same_train_it_once(store: Store) -> None:
    processes = [start(store, order) for order in (list(range(8)), list(range(11, 2, -1)))]
    written = [json.loads(process.communicate(timeout=100)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(written[0] + written[1]) == list(range(12))
    assert_clean(store)
