"""What the tests of claims share: the claims as modules, small networks to judge, and a stand-in for `mli`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from helpers import module_at

from mli_check.curves import Curve, Record
from mli_check.data import Dataset
from mli_check.settings import DataSetting, ModelSetting, Recipe, Setting
from mli_check.statistics import RiseTest, Verdict
from mli_check.subjects import Subject
from mli_check.training.sets import training_data
from mli_check.verdicts import Ruling
from mli_check.workbench import Workbench

FOLDER = Path(__file__).parents[1] / "claims"
REPRODUCED, NOT, OPEN = Verdict.REPRODUCED, Verdict.NOT_REPRODUCED, Verdict.INCONCLUSIVE
NAN = float("nan")


def load(name: str) -> ModuleType:
    """A module of claims by its path, as they lie in no package."""
    return module_at(FOLDER / f"{name}.py", f"criteria_of_{name}")


FALLING = RiseTest(
    decision=REPRODUCED,
    estimate=0.0,
    where=(0, 1),
    upper=0.02,
    lower=-0.03,
    drop=0.8,
    threshold=0.04,
    critical=3.2,
    examples=797,
    strictly_monotone=True,
    certain_rise=False,
    needed=None,
)
UNDECIDED = replace(FALLING, decision=OPEN, upper=0.05, needed=1200)
RISING = replace(FALLING, decision=NOT, estimate=0.2, lower=0.1, upper=0.3)
TESTS = {REPRODUCED: FALLING, OPEN: UNDECIDED, NOT: RISING}

MODULES = {path.stem: load(path.stem) for path in sorted(FOLDER.glob("test_*.py"))}


def small(name: str, *, batch_norm: bool = False, subset: int = 0, **recipe: Any) -> Subject:
    """Ten FCNs 64-32-32-10 on the digits."""
    options = {"optimiser": "sgd", "lr": 0.1, "momentum": 0.9, "epochs": 4, "batch_size": 50} | recipe
    return Subject(
        name=name,
        title=name,
        scale="quick",
        group=name,
        setting=Setting(
            data=DataSetting(name="digits", subset=subset),
            model=ModelSetting(name="fcn", hidden=(32, 32), batch_norm=batch_norm),
            recipe=Recipe(**options),
        ),
        calibration_examples=500 if batch_norm else 0,
    )


class Bench(Workbench):
    """A workbench that trains on the examples its setting names."""

    @cached_property
    def train(self) -> Dataset:
        return training_data(self.subject.setting)


RECORD = Record(
    path="Plane", loss="cross_entropy", norm_stats=None, calibration_batch=None, engine="loop", precision="highest",
    device="cpu", examples=1, batch_size=1, seconds=0.0,
)  # fmt: skip


def line(errors: Sequence[float]) -> Curve:
    """A curve of class-balanced errors over equal steps."""
    values = np.array(errors)
    return Curve(
        alphas=np.linspace(0, 1, len(values)), loss=values, error=values, balanced_error=values, outcomes=None,
        classes=None, record=RECORD,
    )  # fmt: skip


class Listener:
    """Stands in for the `mli` fixture: takes the ruling that a claim records."""

    ruling: Ruling

    def record(self, ruling: Ruling, *, subject: Any, **_: Any) -> None:
        assert not hasattr(self, "ruling")
        self.ruling = ruling


def judged(claim: Callable[..., None], subject: Subject, *tables: Workbench) -> Ruling:
    """What the claim says of these workbenches, given in the order in which it asks for them."""
    mli, given = Listener(), iter(tables)
    claim(mli, lambda _: next(given), subject)
    return mli.ruling
