"""mli-check: the claims of four papers on monotonic linear interpolation as executable assertions.

The names below are loaded on first use, so that importing the package imports neither torch nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Curve": "curves",
    "DataSetting": "settings",
    "Dataset": "data",
    "LightningRecorder": "callbacks",
    "LinearPath": "paths",
    "MliCheckError": "errors",
    "ModelSetting": "settings",
    "Plane": "paths",
    "Recipe": "settings",
    "Recorder": "recorder",
    "Recording": "recordings",
    "RectifiedPath": "paths",
    "Run": "runs",
    "ScaledPath": "paths",
    "Setting": "settings",
    "Span": "paths",
    "Store": "runs",
    "Surface": "curves",
    "Symmetries": "symmetry.group",
    "TransformersRecorder": "callbacks",
    "Verdict": "statistics",
    "evaluate": "evaluation.front",
    "evaluate_many": "evaluation.front",
    "gsi": "symmetry.rescale",
    "load_dataset": "data",
    "load_recording": "recordings",
    "load_state": "states",
    "noise": "noises",
    "nsi": "symmetry.rescale",
    "register_rule": "symmetry.call",
    "rsi": "symmetry.rescale",
    "scale_symmetries": "symmetry.group",
    "temperature": "symmetry.rescale",
    "train": "runs",
    "train_many": "many",
    "vsi": "symmetry.rescale",
    "with_eta": "symmetry.rescale",
}

__all__ = sorted(["__version__", *_HOME])

if TYPE_CHECKING:
    from mli_check.callbacks import LightningRecorder as LightningRecorder
    from mli_check.callbacks import TransformersRecorder as TransformersRecorder
    from mli_check.curves import Curve as Curve
    from mli_check.curves import Surface as Surface
    from mli_check.data import Dataset as Dataset
    from mli_check.data import load_dataset as load_dataset
    from mli_check.errors import MliCheckError as MliCheckError
    from mli_check.evaluation.front import evaluate as evaluate
    from mli_check.evaluation.front import evaluate_many as evaluate_many
    from mli_check.many import train_many as train_many
    from mli_check.noises import noise as noise
    from mli_check.paths import LinearPath as LinearPath
    from mli_check.paths import Plane as Plane
    from mli_check.paths import RectifiedPath as RectifiedPath
    from mli_check.paths import ScaledPath as ScaledPath
    from mli_check.paths import Span as Span
    from mli_check.recorder import Recorder as Recorder
    from mli_check.recordings import Recording as Recording
    from mli_check.recordings import load_recording as load_recording
    from mli_check.runs import Run as Run
    from mli_check.runs import Store as Store
    from mli_check.runs import train as train
    from mli_check.settings import DataSetting as DataSetting
    from mli_check.settings import ModelSetting as ModelSetting
    from mli_check.settings import Recipe as Recipe
    from mli_check.settings import Setting as Setting
    from mli_check.states import load_state as load_state
    from mli_check.statistics import Verdict as Verdict
    from mli_check.symmetry.call import register_rule as register_rule
    from mli_check.symmetry.group import Symmetries as Symmetries
    from mli_check.symmetry.group import scale_symmetries as scale_symmetries
    from mli_check.symmetry.rescale import gsi as gsi
    from mli_check.symmetry.rescale import nsi as nsi
    from mli_check.symmetry.rescale import rsi as rsi
    from mli_check.symmetry.rescale import temperature as temperature
    from mli_check.symmetry.rescale import vsi as vsi
    from mli_check.symmetry.rescale import with_eta as with_eta


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("_"))]
