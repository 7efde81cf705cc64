"""The workbench of the claims: networks of a subject are trained and their curves measured once, then kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mli_check import states
from mli_check.curves import Curve
from mli_check.data import Dataset, load_dataset, sample
from mli_check.errors import OptionError
from mli_check.evaluation.front import evaluate
from mli_check.paths import LinearPath, ScaledPath, Span, grid
from mli_check.results import Chart, Series
from mli_check.runs import Run, Store, training_data
from mli_check.settings import Setting
from mli_check.statistics import RiseTest
from mli_check.subjects import Subject
from mli_check.training.fit import network
from mli_check.verdicts import level_for

UNRELATED = 1_000_000  # added to a network's seed for an initialisation that it was not trained from
LEFT_ENDS = {"own": "own initialisation", "unrelated": "unrelated initialisation", "zero": "zero"}
NOISY = {"plus": 1.0, "minus": -1.0}  # left ends theta_F + theta_0 and theta_F - theta_0


def check_device(device: str) -> None:
    """Raise OptionError unless tensors can be made on `device`."""
    try:
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"--device {device} cannot be used here: {str(error).splitlines()[0]}") from error


class Workbench:
    """Trains and measures the networks of one subject, numbered from 0; seeds start at `offset`."""

    def __init__(self, subject: Subject, store: Store, *, offset: int = 0, device: torch.device | str = "cpu") -> None:
        self.subject, self.store, self.offset = subject, store, offset
        self._where = torch.device(device)
        self._curves: dict[tuple[int, str, str | None], Curve] = {}
        self._loss_curves: dict[str, Curve] = {}
        self._runs: dict[str, Run] = {}

    @property
    def device(self) -> str:
        """The device by name, for the record: `cpu`, or the GPU's model."""
        return torch.cuda.get_device_name(self._where) if self._where.type == "cuda" else str(self._where)

    @property
    def alphas(self) -> NDArray[np.float64]:
        """The points of every curve."""
        return grid(self.subject.points)

    @cached_property
    def train(self) -> Dataset:
        """The training set, or the part of it that the setting names."""
        return training_data(self.subject.setting).to(self._where)

    @cached_property
    def test(self) -> Dataset:
        """The test examples that curves are measured on."""
        data = load_dataset(self.subject.setting.data.name, "test")
        return sample(data, self.subject.test_examples).to(self._where)

    @cached_property
    def calibration(self) -> Dataset:
        """The training examples that BN statistics are recalculated from."""
        return sample(self.train, self.subject.calibration_examples)

    @cached_property
    def model(self) -> nn.Module:
        """The architecture; its weights mean nothing."""
        return network(self.subject.setting, self.train)

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """One setting a network."""
        return self.subject.settings(self.offset)

    def run(self, setting: Setting) -> Run:
        """The trained network of a setting, also of a changed recipe, from the store if it is there."""
        if setting.digest not in self._runs:
            self._runs[setting.digest] = self.store.train(setting, self.train)
        return self._runs[setting.digest]

    def left_end(self, index: int, left: str) -> states.State:
        """The state where a path of network `index` starts.

        That is its `own` initialisation, an `unrelated` draw (`unrelated 2`, ... are others), or `plus` and `minus`:
        the trained network with its initialisation added or taken away.
        """
        setting = self.settings[index]
        if left == "own":
            return self.run(setting).init
        if left in NOISY:
            run = self.run(setting)
            noise = states.parameters(run.init)
            return {n: t + NOISY[left] * noise[n] if n in noise else t for n, t in run.final.items()}
        draw = int(left.removeprefix("unrelated") or 1)
        other = setting.with_seeds(setting.recipe.init_seed + draw * UNRELATED)
        return states.clone(network(other, self.train).state_dict())

    def path(self, index: int, left: str) -> Span:
        """From the left end, `zero` or one of `left_end`, to network `index` (Tao et al. 2024, Eq. 1 to 3)."""
        final = self._here(self.run(self.settings[index]).final)
        return ScaledPath(final) if left == "zero" else LinearPath(self._here(self.left_end(index, left)), final)

    def _here(self, state: states.State) -> states.State:
        """The state on the bench's device, so that the points of a path are made there."""
        return {name: tensor.to(self._where) for name, tensor in state.items()}

    def curve(self, index: int, left: str, norm_stats: str | None = None) -> Curve:
        """Test loss and error of one network from one left end; BN statistics are recalibrated unless said."""
        key = (index, left, norm_stats)
        if key not in self._curves:
            self._curves[key] = evaluate(
                self.model,
                self.path(index, left),
                self.test,
                self.subject.points,
                norm_stats=norm_stats,
                calibration=self.calibration if norm_stats in (None, "recalibrate") else None,
                device=self._where,
            )
        return self._curves[key]

    def curves(self, left: str, norm_stats: str | None = None) -> list[Curve]:
        """`curve` of every network."""
        return [self.curve(index, left, norm_stats) for index in range(self.subject.networks)]

    def loss_curve(self, run: Run) -> Curve:
        """Training loss over the whole training set from theta_0 to theta_F of a run."""
        digest = run.setting.digest
        if digest not in self._loss_curves:
            self._loss_curves[digest] = evaluate(
                self.model,
                LinearPath(self._here(run.init), self._here(run.final)),
                self.train,
                self.subject.points,
                calibration=self.calibration,
                device=self._where,
                allow_diverged=True,
            )
        return self._loss_curves[digest]

    def rise_tests(
        self, curves: Sequence[Curve], parts: int = 1, thresholds: Sequence[float | None] | None = None
    ) -> list[RiseTest]:
        """One rise test a network, at the level that keeps all of them, in all `parts` of the claim, at 5%.

        The margin is a share of each curve's own drop, or where given the network's of `thresholds`.
        """
        level = level_for(len(curves), parts)
        allowed = thresholds or [None] * len(curves)
        return [curve.rise_test(threshold=t, level=level) for curve, t in zip(curves, allowed, strict=True)]


def error_chart(title: str, groups: dict[str, Iterable[Curve]]) -> Chart:
    """Test error against alpha, a group of networks a colour."""
    lines: list[Series] = []
    alphas: Iterable[float] = []
    for group, curves in groups.items():
        for index, curve in enumerate(curves):
            lines.append(Series(group, f"network {index}", curve.values("balanced_error")))
            alphas = curve.alphas
    return Chart(title, "alpha", "test error (class-balanced)", alphas, lines)
