"""Recorders for Lightning's Trainer and the Hugging Face Trainer, which count optimiser steps as those libraries do.

The libraries are imported when a recorder is made: its class then joins the library's own class of callbacks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from mli_check.errors import OptionError
from mli_check.recorder import Recorder
from mli_check.recordings import Recording
from mli_check.runs import Store


class _Callback:
    """What both have in common: a Recorder made when training starts, advanced to the trainer's count of steps."""

    def __init__(
        self,
        *,
        name: str,
        store: Store | str | Path | None = None,
        checkpoints: str | Iterable[int] | None = "log",
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.recording: Recording | None = None
        self._options: dict[str, Any] = {"store": store, "checkpoints": checkpoints, "overwrite": overwrite}
        self._recorder: Recorder | None = None

    def __new__(cls, *_: Any, **__: Any) -> Self:
        bases = cls._library()
        joined: Any = cls if issubclass(cls, bases) else _joined(cls, bases)  # type: ignore[arg-type]
        made: Self = object.__new__(joined)
        return made

    def close(self) -> None:
        """Stop recording; what is not finished stays unfinished, and another recorder may use its name."""
        if self._recorder is not None:
            self._recorder.close()

    @staticmethod
    def _library() -> tuple[type, ...]:
        raise NotImplementedError

    def _start(self, step: int, model: Any, optimizers: list[Any]) -> None:
        if step > 0:
            raise OptionError(
                f"the training goes on from step {step} of an earlier one, so the model is not at its initialisation "
                f"theta_0; train from the start, or leave {type(self).__name__} out"
            )
        self.close()
        self._recorder = Recorder(model, optimizers, name=self.name, **self._options)

    def _advance(self, step: int, loss: Any) -> None:
        if self._recorder is not None and step > self._recorder.iterations:
            self._recorder.advance(step - self._recorder.iterations, loss)

    def _finish(self) -> None:
        if self._recorder is not None:
            self.recording = self._recorder.finish()


class LightningRecorder(_Callback):
    """A callback for Lightning's Trainer that records init, checkpoints and final state, as `Recorder` does.

    `Trainer(callbacks=[mli.LightningRecorder(name="mlp")])`; when training has ended `.recording` has it, and so has
    `mli.load_recording(name)`. It counts `trainer.global_step`; the loss is that of the step's last batch. Raises
    OptionError if training is resumed from a checkpoint or sharded, or if Lightning is not installed.
    """

    @staticmethod
    def _library() -> tuple[type, ...]:
        packages = ("lightning.pytorch", "pytorch_lightning")
        loaded = [module for package in packages if (module := sys.modules.get(package)) is not None]
        if not loaded:
            loaded = [_first_of(packages, "lightning", "LightningRecorder")]
        return tuple(module.Callback for module in loaded)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Save theta_0."""
        strategy = type(trainer.strategy).__name__
        if any(word in strategy for word in ("FSDP", "DeepSpeed", "ModelParallel")):
            raise OptionError(f"Lightning's {strategy} shards the model; LightningRecorder needs it whole, as with ddp")
        if trainer.is_global_zero:
            self._start(trainer.global_step, pl_module, list(trainer.optimizers))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the optimiser's steps of this batch: none while gradients accumulate."""
        self._advance(trainer.global_step, outputs.get("loss") if isinstance(outputs, dict) else outputs)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Save theta_F and mark the recording finished."""
        self._finish()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave the recording unfinished."""
        self.close()


class TransformersRecorder(_Callback):
    """A callback for the Hugging Face Trainer that records init, checkpoints and final state, as `Recorder` does.

    `Trainer(..., callbacks=[mli.TransformersRecorder(name="bert")])`; when training has ended `.recording` has it, and
    so has `mli.load_recording(name)`. It counts `state.global_step`; losses in the history are those that the Trainer
    logs, each a mean since the last. Raises OptionError if training is resumed from a checkpoint or sharded, or if
    transformers is not installed.
    """

    @staticmethod
    def _library() -> tuple[type, ...]:
        return (_first_of(("transformers",), "transformers accelerate", "TransformersRecorder").TrainerCallback,)

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Save theta_0."""
        for option in ("fsdp", "deepspeed"):
            if getattr(args, option, None):
                raise OptionError(
                    f"the Trainer's option {option} shards the model; TransformersRecorder needs it whole"
                )
        if state.is_world_process_zero:
            optimizer = given.get("optimizer")
            self._start(state.global_step, given["model"], [] if optimizer is None else [optimizer])

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Count an optimiser's step."""
        self._advance(state.global_step, None)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
        """Put the loss that the Trainer logs into the history."""
        if self._recorder is not None and isinstance(logs, dict) and "loss" in logs:
            self._recorder.note_loss(state.global_step, logs["loss"])

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Save theta_F and mark the recording finished."""
        self._finish()


@cache
def _joined(callback: type, bases: tuple[type, ...]) -> Any:
    """The class of a recorder that is one of the library's callbacks too."""
    return type(callback.__name__, (callback, *bases), {"__module__": callback.__module__, "__doc__": callback.__doc__})


def _first_of(packages: tuple[str, ...], pip: str, wanted_by: str) -> Any:
    for package in packages:
        try:
            return import_module(package)
        except ModuleNotFoundError as error:
            if error.name is None or package.split(".")[0] != error.name.split(".")[0]:
                raise
    raise OptionError(f"{wanted_by} needs {packages[0]}, which is not installed; pip install {pip}")
