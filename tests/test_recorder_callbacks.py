"""Tests of the recorders for Lightning's and the Hugging Face Trainer, on the libraries themselves where installed."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import mli_check as mli
from mli_check.errors import OptionError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

INPUTS, TARGETS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3
LACKS = "{} is not installed: pip install 'mli-check[callbacks]'"


def lightning_trainer(recorder: Any, **options: Any) -> tuple[Any, nn.Module, Any]:
    """A Trainer, a module of a linear layer, and its data: 2 epochs of 4 steps, each of two batches."""
    pl = pytest.importorskip("lightning.pytorch", reason=LACKS.format("lightning"))

    class Module(pl.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 3)

        def training_step(self, batch: Any, index: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    quiet = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False)
    options |= {"max_epochs": 2, "accelerator": "cpu", "accumulate_grad_batches": 2} | quiet
    trainer = pl.Trainer(callbacks=[recorder], **options)
    return trainer, Module(), DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=8)


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_recorded(recording: mli.Recording, init: dict[str, Tensor], model: nn.Module) -> None:
    """Theta_0 and theta_F to the bit, checkpoints after 1, 2, 3, 5 of 8 optimiser steps, and a path between them."""
    assert recording.finished
    assert list(recording.checkpoints) == [1, 2, 3, 5]
    for state, wanted in ((recording.init, init), (recording.final, model.state_dict())):
        assert state.keys() == wanted.keys()
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in state.items())
    plain = nn.Linear(4, 3)
    ends = [{n.removeprefix("net."): t for n, t in state.items()} for state in (recording.init, recording.final)]
    curve = mli.evaluate(plain, mli.LinearPath(*ends), mli.Dataset(INPUTS, TARGETS), points=3)
    assert curve.loss[-1] < curve.loss[0]


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_lightning_counts_the_optimisers_steps(tmp_path: Path) -> None:
    pytest.importorskip("lightning.pytorch", reason=LACKS.format("lightning"))
    recorder = mli.LightningRecorder(name="run", store=tmp_path)
    trainer, module, loader = lightning_trainer(recorder)
    init = copied(module)
    trainer.fit(module, loader)
    assert trainer.global_step == 8
    assert_recorded(mli.load_recording("run", store=tmp_path), init, module)


@pytest.mark.filterwarnings("ignore")
def test_a_training_that_lightning_breaks_off_stays_unfinished(tmp_path: Path) -> None:
    pl = pytest.importorskip("lightning.pytorch", reason=LACKS.format("lightning"))

    class Fails(pl.Callback):  # type: ignore[name-defined,misc]
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 3:
                raise RuntimeError("planted")

    recorder = mli.LightningRecorder(name="run", store=tmp_path)
    trainer, module, loader = lightning_trainer(recorder)
    trainer.callbacks.append(Fails())
    with pytest.raises(RuntimeError, match="planted"):
        trainer.fit(module, loader)
    recording = mli.load_recording("run", store=tmp_path)
    assert not recording.finished
    assert list(recording.checkpoints) == [1, 2, 3]
    with pytest.raises(StoreError):
        _ = recording.final


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 3)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


@pytest.mark.filterwarnings("ignore")
def test_transformers_counts_the_optimisers_steps(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason=LACKS.format("transformers"))
    pytest.importorskip("accelerate", reason=LACKS.format("accelerate"))
    model, examples = Classifier(), [{"x": x, "labels": y} for x, y in zip(INPUTS, TARGETS, strict=True)]
    init = copied(model)
    arguments = transformers.TrainingArguments(
        str(tmp_path / "out"), num_train_epochs=2, per_device_train_batch_size=8, gradient_accumulation_steps=2,
        learning_rate=0.1, report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=True, logging_steps=2,
    )  # fmt: skip
    recorder = mli.TransformersRecorder(name="run", store=tmp_path)
    transformers.Trainer(model, arguments, train_dataset=examples, callbacks=[recorder]).train()
    assert_recorded(recorder.recording, init, model)


def test_a_resumed_training_is_refused_since_theta_0_is_lost(tmp_path: Path) -> None:
    pytest.importorskip("lightning.pytorch", reason=LACKS.format("lightning"))
    recorder = mli.LightningRecorder(name="run", store=tmp_path)
    with pytest.raises(OptionError, match="goes on from step 7"):
        recorder._start(7, nn.Linear(2, 2), [])


@pytest.mark.parametrize("name", ["LightningRecorder", "TransformersRecorder"])
def test_without_its_library_a_recorder_says_what_to_install(name: str) -> None:
    """In a process that finds neither library; importing mli_check and its callbacks needs none."""
    script = (
        "import sys, mli_check as mli\n"
        "sys.modules |= dict.fromkeys(['lightning', 'lightning.pytorch', 'pytorch_lightning', 'transformers'])\n"
        "from mli_check import callbacks\n"
        f"try:\n    mli.{name}(name='run')\nexcept mli.MliCheckError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=True)
    assert "pip install" in done.stdout
