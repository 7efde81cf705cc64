"""The workbench of the claims: networks of a subject are trained and their curves measured once, then kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mli_check import states
from mli_check.curves import Curve
from mli_check.data import Dataset, load_dataset, sample
from mli_check.errors import OptionError
from mli_check.evaluation.front import evaluate_many
from mli_check.many import train_many
from mli_check.measured import Measured
from mli_check.paths import LinearPath, ScaledPath, Span, grid
from mli_check.results import Chart, Series
from mli_check.runs import Run, Store
from mli_check.settings import PRETRAINED, Setting
from mli_check.statistics import RiseTest
from mli_check.subjects import Subject
from mli_check.training.fit import network
from mli_check.training.sets import training_data
from mli_check.verdicts import Constancy, compare, level_for

if TYPE_CHECKING:
    from mli_check.symmetry import Symmetries

UNRELATED = 1_000_000  # added to a network's seed for an initialisation that it was not trained from
LEFT_ENDS = {"own": "own initialisation", "unrelated": "unrelated initialisation", "zero": "zero"}
NOISY = {"plus": 1.0, "minus": -1.0}  # left ends theta_F + theta_0 and theta_F - theta_0
POWERS = (1 / 64, 1 / 16, 1 / 2, 1.0)  # multiplying by these rounds nothing
SCALES = sorted({0.0, 0.02, 0.04, 0.1, 0.14, 0.2, 0.3, *POWERS})  # beside them of the 50 steps: dense where curves fall


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
        self._measured, self._digests = Measured(store.root), dict[str, str]()
        self._curves: dict[tuple[str, str | None], list[Curve]] = {}
        self._loss_curves: dict[str, Curve] = {}
        self._scaled_curves: dict[tuple[str, tuple[tuple[str, float], ...], bool], Curve] = {}
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
        """The trained network of a setting, from the store if it is there; the subject's own are trained together."""
        self.runs(self.settings if setting in self.settings else [setting])
        return self._runs[setting.digest]

    def runs(self, settings: Sequence[Setting]) -> list[Run]:
        """The trained networks of several settings, also of changed recipes, in their order; trained together."""
        missing = [setting for setting in settings if setting.digest not in self._runs]
        for run in train_many(missing, self.store, data=self.train):
            self._runs[run.setting.digest] = run
        return [self._runs[setting.digest] for setting in settings]

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
        if other.model.init == PRETRAINED:  # whose every draw would be the same weights
            other = replace(other, model=replace(other.model, init="torch"))
        return states.clone(network(other, self.train).state_dict())

    def path(self, index: int, left: str) -> LinearPath | ScaledPath:
        """From the left end, `zero` or one of `left_end`, to network `index` (Tao et al. 2024, Eq. 1 to 3)."""
        final = self.here(self.run(self.settings[index]).final)
        return ScaledPath(final) if left == "zero" else LinearPath(self.here(self.left_end(index, left)), final)

    def here(self, state: states.State) -> states.State:
        """The state on the bench's device, so that the points of a path are made there."""
        return {name: tensor.to(self._where) for name, tensor in state.items()}

    def curves(self, left: str, norm_stats: str | None = None) -> list[Curve]:
        """Test loss and error of every network from one left end; BN statistics are recalibrated unless said."""
        key = left, norm_stats
        if key not in self._curves:
            paths = [self.path(index, left) for index in range(self.subject.networks)]
            self._curves[key] = self.measure(paths, norm_stats=norm_stats)
        return self._curves[key]

    def loss_curves(self, runs: Sequence[Run]) -> list[Curve]:
        """Training loss over the whole training set from theta_0 to theta_F of each run, measured together."""
        missing = [run for run in runs if run.setting.digest not in self._loss_curves]
        curves = self.losses_on_lines([(run.init, run.final) for run in missing])
        self._loss_curves |= {run.setting.digest: curve for run, curve in zip(missing, curves, strict=True)}
        return [self._loss_curves[run.setting.digest] for run in runs]

    def losses_on_lines(self, ends: Sequence[tuple[states.State, states.State]]) -> list[Curve]:
        """Training loss over the whole training set on the straight lines between pairs of states."""
        paths = [LinearPath(self.here(init), self.here(final)) for init, final in ends]
        return self.measure(paths, "train", allow_diverged=True)

    def measure(
        self, paths: Sequence[Span], part: str = "test", model: nn.Module | None = None, **options: Any
    ) -> list[Any]:
        """The curves (of a Plane the surface) of paths over the `test` or `train` examples; options as for `evaluate`.

        They have the subject's points unless the options say otherwise, and come from the store if they were measured
        before. `model` defaults to the subject's; another one must be told from it by the names of its tensors.
        """
        options = {"points": self.subject.points} | options
        data: Dataset = getattr(self, part)
        calibrates = options.get("norm_stats") in (None, "recalibrate")
        shared = {
            "model": [self.subject.setting.model.name, repr(self.subject.setting.model), self._digest("train")],
            "data": self._digest(part),
            "calibration": self._digest("calibration") if calibrates else None,
            "device": self.device,
            "options": options,
        }
        keys = [
            shared
            | {
                "path": [type(path).__name__, getattr(path, "exponents", {}), getattr(path, "still", [])],
                "basis": [states.digest(state) for state in path.basis],
            }
            for path in paths
        ]
        return self._measured.curves(
            keys,
            lambda places: evaluate_many(
                self.model if model is None else model,
                [paths[place] for place in places],
                data,
                calibration=self.calibration if calibrates else None,
                device=self._where,
                **options,
            ),
        )

    def _digest(self, part: str) -> str:
        """Of one of the bench's datasets: `test`, `train` or `calibration`."""
        if part not in self._digests:
            data: Dataset = getattr(self, part)
            self._digests[part] = states.digest({"inputs": data.inputs, "targets": data.targets})  # type: ignore[dict-item]
        return self._digests[part]

    @cached_property
    def symmetries(self) -> Symmetries:
        """The scale symmetries of the model, where it has BN with the batch statistics that are recalculated."""
        from mli_check.symmetry import scale_symmetries  # here, for sympy takes long to load

        return scale_symmetries(copy.deepcopy(self.model).train(), self.train.rows(slice(0, 2)).cpu())

    def scaled_curve(self, path: ScaledPath, *, eta_follows: bool = False) -> Curve:
        """Test error and outputs at the SCALES of a path from zero, BN statistics recalculated.

        With `eta_follows`, the eta of every BN takes the power of alpha that the variance beside it takes: what holds
        for eta = 0 (Tao et al. 2024, Eq. 18) is then exact.
        """
        key = (states.digest(path.final), tuple(sorted(path.exponents.items())), eta_follows)
        if key not in self._scaled_curves:
            model, final, exponents = self.model, self.here(path.final), dict(path.exponents)
            if eta_follows:
                model = with_eta_as_tensor(self.model)
                final = self.here(model.state_dict() | dict(final))
                factors = {name: 2.0 ** exponents.get(name, 1.0) for name in self.symmetries.tensors}
                followed = self.symmetries.eta_factors(factors)
                exponents |= {f"{module}.{ETA}": math.log2(factor) for module, factor in followed.items()}
            path = ScaledPath(final, exponents=exponents)
            (self._scaled_curves[key],) = self.measure([path], "test", model, alphas=SCALES, keep="logits")
        return self._scaled_curves[key]

    def constancy(self, path: ScaledPath, curve: Curve) -> Constancy:
        """How the outputs for alpha > 0 compare with theta_F's, times what the path's factors make of the output."""
        assert curve.logits is not None
        alphas = curve.alphas[1:]
        tensors = self.symmetries.tensors
        factors = [self.symmetries.output_factor({n: a ** path.exponents.get(n, 1.0) for n in tensors}) for a in alphas]
        wanted = np.array(factors, np.float32)[:, None, None] * curve.logits[-1]
        return compare(curve.logits[1:], wanted, np.isin(alphas, POWERS))

    def rise_tests(
        self, curves: Sequence[Curve], parts: int = 1, thresholds: Sequence[float | None] | None = None
    ) -> list[RiseTest]:
        """One rise test a network, at the level that keeps all of them, in all `parts` of the claim, at 5%.

        The margin is a share of each curve's own drop, or where given the network's of `thresholds`.
        """
        level = level_for(len(curves), parts)
        allowed = thresholds or [None] * len(curves)
        return [curve.rise_test(threshold=t, level=level) for curve, t in zip(curves, allowed, strict=True)]


ETA = "eta"
SMALLEST = torch.finfo(torch.float32).tiny  # at alpha = 0, where outputs tie anyway: torch refuses an eta of 0


def with_eta_as_tensor(model: nn.Module) -> nn.Module:
    """A copy of the model in which the eta of every BN is one more parameter, `eta`, so that a path can move it."""
    changed = copy.deepcopy(model)
    for layer in changed.modules():
        if isinstance(layer, _BatchNorm):
            eta = torch.tensor(layer.eps, dtype=torch.float64)
            layer.register_parameter(ETA, nn.Parameter(eta, requires_grad=False))
            layer.register_forward_pre_hook(_read_eta)
    return changed


def _read_eta(layer: nn.Module, _: object) -> None:
    layer.eps = max(float(layer.eta), SMALLEST)  # type: ignore[assignment,arg-type]


def error_chart(title: str, groups: dict[str, Iterable[Curve]]) -> Chart:
    """Test error against alpha, a group of networks a colour."""
    lines: list[Series] = []
    alphas: Iterable[float] = []
    for group, curves in groups.items():
        for index, curve in enumerate(curves):
            lines.append(Series(group, f"network {index}", curve.values("balanced_error")))
            alphas = curve.alphas
    return Chart(title, "alpha", "test error (class-balanced)", alphas, lines)
