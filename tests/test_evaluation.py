"""Tests of evaluate against a loop written here on its own, of what it leaves alone, and of what it refuses."""

from __future__ import annotations

import copy
import random
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from helpers import SETTINGS, images, network, random_state
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

from mli_check.curves import Curve, Surface
from mli_check.data import Dataset
from mli_check.errors import DivergedError, OptionError, StateMismatchError, UnknownNameError
from mli_check.evaluation.front import evaluate, evaluate_many
from mli_check.models import build
from mli_check.paths import LinearPath, Plane, ScaledPath, Span
from mli_check.settings import ModelSetting
from mli_check.states import digest

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = images(83, seed=3)
CALIBRATION = images(70, seed=5)
BATCH = 32  # of calibration: two full batches and one of six
ALPHAS = (0.0, 0.3, 0.5, 0.9, 1.0)
POLICIES = ("freeze", "interpolate", "recalibrate")
CASES = [(n, p) for n, s in SETTINGS.items() for p in (POLICIES if s.batch_norm else (None,))]


def linear(model: nn.Module, **options: Any) -> LinearPath:
    return LinearPath(random_state(model, 0), random_state(model, 1), **options)


def calibrated(policy: str | None) -> dict[str, Any]:
    """The options of a policy."""
    if policy != "recalibrate":
        return {"norm_stats": policy}
    return {"norm_stats": policy, "calibration": CALIBRATION, "calibration_batch": BATCH}


# ---- an independent evaluation


def by_hand(
    model: nn.Module,
    state: dict[str, Tensor],
    data: Dataset,
    calibration: Dataset | None = None,
    loss: Callable[..., Tensor] = functional.cross_entropy,
) -> tuple[float, float]:
    """Mean loss and error at a state: argmax where one class is on top, chance among those that tie."""
    net = copy.deepcopy(model)
    net.load_state_dict(state)
    if calibration is not None:
        update_bn(DataLoader(TensorDataset(calibration.inputs), batch_size=BATCH), net)  # momentum None: cumulative
    net.eval()
    total, wrong = 0.0, 0.0
    with torch.no_grad():
        for inputs, targets in DataLoader(TensorDataset(data.inputs, data.targets), batch_size=17):
            outputs = net(inputs)
            total += loss(outputs, targets, reduction="none").double().sum().item()
            for row, target in zip(outputs, targets, strict=True):
                top = (row == row.max()).nonzero().flatten().tolist()
                hit = int(row.argmax()) == int(target) if len(top) == 1 else (int(target) in top) / len(top)
                wrong += 1 - hit
    return total / len(data), wrong / len(data)


def power(base: float, exponent: float) -> float:
    return 1.0 if exponent == 0 else base**exponent


class Case:
    """A path, the points to visit, and its coefficients (of init, of final) for a tensor and a point, written anew."""

    def __init__(self, kind: str, model: nn.Module, policy: str | None) -> None:
        init, final = random_state(model, 0), random_state(model, 1)
        depths = {name: depth for depth, name in enumerate([n for n in final if n.endswith("bias")], 1)}
        self.init, self.final, self.policy, self.kind, self.depths = init, final, policy, kind, depths
        self.betas = (0.0, 0.25, 0.5) if policy == "interpolate" else (-0.5, 0.0, 0.5)  # a variance stays positive
        self.options = {"betas": self.betas} if kind == "plane" else {}
        self.points = [(a, b) for a in ALPHAS for b in self.betas] if kind == "plane" else [(a,) for a in ALPHAS]
        self.path: Span = {
            "linear": lambda: LinearPath(init, final),
            "only": lambda: LinearPath(init, final, only="*.weight"),
            "powers": lambda: LinearPath(init, final, exponents=depths),
            "scaled": lambda: ScaledPath(final),
            "scaled powers": lambda: ScaledPath(final, exponents=depths),
            "plane": lambda: Plane(final, init),
        }[kind]()

    def coefficients(self, name: str, point: tuple[float, ...]) -> tuple[float, float]:
        alpha, depth = point[0], self.depths.get(name, 1)
        if self.kind == "plane":
            return point[1], alpha
        if self.kind == "only" and not name.endswith(".weight"):
            return 0.0, 1.0
        if self.kind in ("powers", "scaled powers"):
            return power(1 - alpha, depth) if self.kind == "powers" else 0.0, power(alpha, depth)
        return (0.0 if self.kind == "scaled" else 1 - alpha), alpha

    def state(self, point: tuple[float, ...]) -> dict[str, Tensor]:
        state = {}
        for name, tensor in self.final.items():
            still = not tensor.is_floating_point() or ("running_" in name and self.policy != "interpolate")
            one, other = (0.0, 1.0) if still else self.coefficients(name, point)
            state[name] = tensor if still else one * self.init[name] + other * tensor
        return state


@pytest.mark.parametrize("kind", ["linear", "only", "powers", "scaled", "scaled powers", "plane"])
@pytest.mark.parametrize(("name", "policy"), CASES, ids=str)
def test_figures_are_those_of_a_dataloader_loop_at_every_point(name: str, policy: str | None, kind: str):
    model = network(name)
    case = Case(kind, model, policy)
    found = evaluate(model, case.path, DATA, alphas=ALPHAS, **case.options, **calibrated(policy))
    calibration = CALIBRATION if policy == "recalibrate" else None
    wanted = [by_hand(model, case.state(point), DATA, calibration) for point in case.points]
    assert isinstance(found, Surface if kind == "plane" else Curve)
    assert found.loss.shape == found.error.shape == ((5, 3) if kind == "plane" else (5,))
    assert found.loss.ravel() == pytest.approx([loss for loss, _ in wanted], rel=1e-6)
    assert found.error.ravel() == pytest.approx([error for _, error in wanted], abs=1e-6)
    assert found.alphas.tolist() == list(ALPHAS)
    assert kind != "plane" or found.betas.tolist() == list(case.betas)


def doubled(data: Dataset) -> Dataset:
    return Dataset(data.inputs.double(), data.targets)


@pytest.mark.parametrize(("name", "policy"), CASES, ids=str)
def test_figures_agree_to_ten_digits_in_double_precision(name: str, policy: str | None):
    model = network(name).double()
    case = Case("linear", model, policy)
    calibration = doubled(CALIBRATION) if policy == "recalibrate" else None
    options = {"norm_stats": policy, "calibration": calibration, "calibration_batch": BATCH}
    found = evaluate(model, case.path, doubled(DATA), alphas=ALPHAS, **options)
    wanted = [by_hand(model, case.state(point), doubled(DATA), calibration) for point in case.points]
    assert found.loss == pytest.approx([loss for loss, _ in wanted], rel=1e-10)
    assert found.error == pytest.approx([error for _, error in wanted], abs=1e-6)


def test_alphas_below_zero_and_above_one_extend_the_path():
    model = network("fcn")
    case, alphas = Case("linear", model, None), (-0.5, -0.1, 0.0, 1.0, 1.7)
    found = evaluate(model, case.path, DATA, alphas=alphas)
    wanted = [by_hand(model, case.state((alpha,)), DATA) for alpha in alphas]
    assert found.loss == pytest.approx([loss for loss, _ in wanted], rel=1e-6)
    assert found.error == pytest.approx([error for _, error in wanted], abs=1e-6)


def test_the_balanced_error_weighs_every_class_of_the_data_alike():
    model = network("fcn")
    targets = torch.tensor([0] * 50 + [3] * 30 + [7] * 3)
    found = evaluate(model, linear(model), Dataset(DATA.inputs, targets), 5, keep="logits")
    wrong = found.logits.argmax(-1) != targets.numpy()
    wanted = np.mean([wrong[:, targets.numpy() == label].mean(1) for label in (0, 3, 7)], axis=0)
    assert found.balanced_error == pytest.approx(wanted)
    assert found.error == pytest.approx(wrong.mean(1))


def test_where_all_logits_tie_the_error_is_chance():
    model = network("fcn")
    found = evaluate(model, ScaledPath(random_state(model, 0)), DATA, 3)
    assert (found.error[0], found.balanced_error[0]) == pytest.approx((0.9, 0.9), abs=1e-6)
    assert found.loss[0] == pytest.approx(np.log(10), rel=1e-6)
    assert found.outcomes.errors()[:, 0] == pytest.approx(np.full(83, 0.9))


def test_the_same_call_gives_the_same_bits():
    model = network("vgg-bn")
    first, second = (evaluate(model, linear(model), DATA, 5, **calibrated("recalibrate")) for _ in range(2))
    assert np.array_equal(first.loss, second.loss)
    assert np.array_equal(first.outcomes.bits, second.outcomes.bits)


@pytest.mark.parametrize("points", [2, 4, 51])
def test_a_curve_has_so_many_points_with_both_ends(points: int):
    model = network("fcn")
    found = evaluate(model, linear(model), DATA, points)
    assert (len(found.alphas), found.alphas[0], found.alphas[-1]) == (points, 0, 1)


def test_a_plane_has_as_many_betas_from_minus_one_to_one():
    model = network("fcn")
    path = Plane(random_state(model, 0), random_state(model, 1))
    found = evaluate(model, path, DATA, 5)
    assert found.loss.shape == (5, 5)
    assert found.betas.tolist() == [-1, -0.5, 0, 0.5, 1]
    assert found.alphas.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.loss[:, 2] == pytest.approx(evaluate(model, ScaledPath(path.final), DATA, 5).loss, rel=1e-12)


def test_the_record_says_how_a_curve_was_made():
    model = network("fcn-bn")
    record = evaluate(model, linear(model, only="*.bias"), DATA, 3, **calibrated("recalibrate")).record
    assert (record.path, record.loss, record.norm_stats) == (
        "LinearPath(only='*.bias')",
        "cross_entropy",
        "recalibrate",
    )
    assert (record.calibration_batch, record.engine, record.precision, record.device) == (
        BATCH,
        "loop",
        "highest",
        "cpu",
    )
    assert (record.examples, record.batch_size) == (83, 83)
    assert record.seconds > 0


# ---- losses, targets and inputs of other kinds


def squared(outputs: Tensor, targets: Tensor, reduction: str = "none") -> Tensor:
    wanted = torch.eye(10)[targets] if targets.ndim == 1 else targets
    return ((outputs - wanted) ** 2).sum(1)


def test_squared_error_of_classes_is_against_one_hot_targets_and_keeps_the_error():
    model = network("fcn")
    case = Case("linear", model, None)
    found = evaluate(model, case.path, DATA, alphas=ALPHAS, loss="squared_error")
    wanted = [by_hand(model, case.state(point), DATA, loss=squared) for point in case.points]
    assert found.loss == pytest.approx([loss for loss, _ in wanted], rel=1e-6)
    assert found.error == pytest.approx([error for _, error in wanted], abs=1e-6)
    assert found.record.loss == "squared_error"


def regression(model: nn.Module, **options: Any) -> Curve:
    targets = torch.randn(83, 10, generator=torch.Generator().manual_seed(0))
    return evaluate(model, linear(model), Dataset(DATA.inputs, targets), alphas=ALPHAS, loss="squared_error", **options)


def test_regression_targets_give_a_loss_and_no_error():
    model = network("fcn")
    found = regression(model, keep="logits")
    targets = torch.randn(83, 10, generator=torch.Generator().manual_seed(0)).numpy()
    assert found.loss == pytest.approx(((found.logits - targets) ** 2).sum(-1).mean(-1), rel=1e-6)
    assert found.error is found.balanced_error is found.outcomes is found.classes is None
    assert found.delta() >= 0


def test_asking_regression_for_its_error_says_what_to_read_instead():
    found = regression(network("fcn"))
    for read in (found.plateau, found.descent_interval, lambda: found.delta("error")):
        with pytest.raises(OptionError, match="has no error: its targets are not class indices; read `loss`"):
            read()
    with pytest.raises(OptionError, match="needs classification targets"):
        found.rise_test()


def hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.multi_margin_loss(outputs, targets, reduction="none")


def test_a_loss_may_be_a_callable_and_goes_by_its_name():
    model = network("fcn")
    case = Case("linear", model, None)
    found = evaluate(model, case.path, DATA, alphas=ALPHAS, loss=hinge)
    wanted = [by_hand(model, case.state(p), DATA, loss=functional.multi_margin_loss) for p in case.points]
    assert found.loss == pytest.approx([loss for loss, _ in wanted], rel=1e-6)
    assert found.error == pytest.approx([error for _, error in wanted], abs=1e-6)
    assert found.record.loss == "hinge"


@pytest.mark.parametrize(("reduction", "got"), [("mean", r"\(\)"), ("sum", r"\(\)")], ids=["a mean", "a sum"])
def test_a_loss_that_is_not_per_example_is_an_error_that_says_what_to_return(reduction: str, got: str):
    def total(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets, reduction=reduction)

    model = network("fcn")
    message = rf"the loss `total` returned {got} for 83 examples, expected shape \(83,\): return one loss per example"
    with pytest.raises(OptionError, match=message):
        evaluate(model, linear(model), DATA, 3, loss=total)


class Weighted(nn.Module):
    """Two inputs by name; the outputs in a dict, as transformers' models give them."""

    def __init__(self, wrapped: bool) -> None:
        super().__init__()
        self.inner, self.wrapped = nn.Linear(64, 10), wrapped

    def forward(self, *, image: Tensor, weight: Tensor) -> Tensor | dict[str, Tensor]:
        logits = self.inner(image.flatten(1)) * weight[:, None]
        return {"logits": logits} if self.wrapped else logits


def named_inputs() -> Dataset:
    return Dataset({"image": DATA.inputs, "weight": torch.linspace(0.5, 2, 83)}, DATA.targets)


@pytest.mark.parametrize("limit", [None, 30_000], ids=["one batch", "several batches"])
def test_a_dict_of_inputs_is_passed_as_keywords(limit: int | None):
    model = Weighted(wrapped=False)
    final = random_state(model, 0)
    found = evaluate(model, ScaledPath(final), named_inputs(), 3, memory_limit=limit)
    logits = functional.linear(DATA.inputs.flatten(1), final["inner.weight"], final["inner.bias"])
    logits = logits * torch.linspace(0.5, 2, 83)[:, None]
    assert found.loss[-1] == pytest.approx(functional.cross_entropy(logits, DATA.targets).item(), rel=1e-6)
    assert found.error[-1] == pytest.approx((logits.argmax(1) != DATA.targets).float().mean().item())
    assert (found.record.batch_size < 83) == (limit is not None)


def test_outputs_in_a_dict_give_the_loss_that_the_callable_takes_from_them():
    def from_dict(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs["logits"], targets, reduction="none")

    wrapped, plain = Weighted(wrapped=True), Weighted(wrapped=False)
    path = linear(plain)
    found = evaluate(wrapped, path, named_inputs(), 5, loss=from_dict)
    assert found.loss == pytest.approx(evaluate(plain, path, named_inputs(), 5).loss, rel=1e-12)
    assert found.error is None


# ---- what stays as it is


def random_states() -> tuple[object, ...]:
    name, keys, *rest = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), (name, keys.tobytes(), *rest), random.getstate()


def fingerprint(model: nn.Module, path: Span, *datasets: Dataset) -> tuple[object, ...]:
    """Everything of the caller's that an evaluation could spoil."""
    tensors = [*model.parameters(), *model.buffers()]
    data = [digest({"inputs": data.inputs, "targets": data.targets}) for data in datasets]
    return (
        digest(model.state_dict()),
        [tensor._version for tensor in tensors],
        [tensor.requires_grad for tensor in tensors],
        [None if tensor.grad is None else digest({"grad": tensor.grad}) for tensor in tensors],
        [tensor.stride() for tensor in tensors],
        [module.training for module in model.modules()],
        [module.momentum for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)],
        [(digest(state), [tensor._version for tensor in state.values()]) for state in path.basis],
        data,
        random_states(),
        (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()),
    )


def used(name: str) -> nn.Module:
    """A network in the middle of a user's work: partly in training mode, partly frozen, with gradients."""
    model = network(name).train()
    functional.cross_entropy(model(DATA.inputs), DATA.targets).backward()
    next(model.parameters()).requires_grad_(False)
    next(module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)).eval()
    return model


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["fcn-bn", "vgg-bn"])
def test_model_states_data_and_random_numbers_stay_as_they_are(name: str, policy: str):
    model = used(name)
    for path in (linear(model), ScaledPath(model.state_dict()), Plane(random_state(model, 0), random_state(model, 1))):
        before = fingerprint(model, path, DATA, CALIBRATION)
        evaluate(model, path, DATA, 3, allow_diverged=True, **calibrated(policy))
        assert fingerprint(model, path, DATA, CALIBRATION) == before


def test_a_path_between_a_models_own_tensors_leaves_the_model_alone():
    model = network("fcn")
    path = LinearPath(random_state(model, 0), model.state_dict())
    before = fingerprint(model, path, DATA)
    evaluate(model, path, DATA, 5)
    assert fingerprint(model, path, DATA) == before


class StopError(Exception):
    pass


def interrupt(*args: object) -> Tensor:
    raise StopError


def interrupt_progress(done: int, total: int) -> None:
    if done == 2:
        raise StopError


def broken(state: dict[str, Tensor], value: float) -> dict[str, Tensor]:
    return {n: torch.full_like(t, value) if n.endswith("weight") else t for n, t in state.items()}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"loss": interrupt}, StopError),
        ({"progress": interrupt_progress}, StopError),
        ({"memory_limit": 10}, OptionError),
        ({"calibration_batch": 69}, OptionError),
        ({"calibration": Dataset(torch.zeros(4, 1, 3, 3), torch.zeros(4))}, RuntimeError),
        ({"path": "diverged"}, DivergedError),
    ],
    ids=["the loss", "the progress", "the memory", "the calibration batch", "calibration that does not fit", "NaN"],
)
def test_everything_stays_as_it_is_when_an_evaluation_fails(options: dict[str, Any], error: type[Exception]):
    model = used("fcn-bn")
    path = linear(model)
    if options.get("path"):
        path = LinearPath(path.basis[0], broken(path.basis[1], float("nan")))
    before = fingerprint(model, path, DATA, CALIBRATION)
    asked = calibrated("recalibrate") | {name: value for name, value in options.items() if name != "path"}
    with pytest.raises(error):
        evaluate(model, path, DATA, 5, **asked)
    assert fingerprint(model, path, DATA, CALIBRATION) == before


def test_the_owner_of_a_hook_stays_as_it_is_and_the_hook_counts():
    """A hook may be part of the network (weight_norm's is), so it runs, on a copy of the object that it belongs to."""

    class Doubling:
        calls = 0

        def __call__(self, module: nn.Module, args: object, outputs: Tensor) -> Tensor:
            self.calls += 1
            return 2 * outputs

        def method(self, module: nn.Module, args: object, outputs: Tensor) -> Tensor:
            return self(module, args, outputs)

    path = linear(network("fcn"))
    wanted = evaluate(network("fcn"), path, DATA, 3, loss=lambda o, t: hinge(2 * o, t)).loss
    owner = Doubling()
    for hook in (owner, owner.method):
        model = network("fcn")
        model.register_forward_hook(hook)
        assert evaluate(model, path, DATA, 3, loss=hinge).loss == pytest.approx(wanted, rel=1e-12)
        assert owner.calls == 0
        model(DATA.inputs)
        assert owner.calls == 1
        owner.calls = 0


class Noisy(nn.Module):
    """Draws random numbers in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(1) + torch.randn(len(x), 64))


def test_a_network_that_draws_random_numbers_does_not_move_the_callers_generator():
    model = Noisy()
    before = random_states()
    evaluate(model, linear(model), DATA, 3)
    assert random_states() == before


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_the_callers_gradient_mode_neither_matters_nor_changes(mode: Any):
    model = network("vgg")
    wanted = evaluate(model, linear(model), DATA, 3).loss
    with mode():
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        found = evaluate(network("vgg"), linear(model), DATA, 3).loss
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == modes
    assert np.array_equal(found, wanted)


# ---- memory and batches


def smallest_limit(model: nn.Module, path: Span, **options: Any) -> int:
    """The limit below which an evaluation refuses, as its message says."""
    with pytest.raises(OptionError, match=r"memory_limit=1 bytes is below the \d+ that a copy") as caught:
        evaluate(model, path, DATA, 3, memory_limit=1, **options)
    return int(str(caught.value).split("below the ")[1].split()[0])


@pytest.mark.parametrize("name", ["fcn", "vgg", "vgg-bn"])
def test_figures_do_not_depend_on_the_memory_limit(name: str):
    model = network(name)
    path, options = linear(model), calibrated("recalibrate" if name == "vgg-bn" else None)
    least = smallest_limit(model, path, **options)
    whole = evaluate(model, path, DATA, 5, keep="examples", **options)
    sizes = {whole.record.batch_size}
    for extra in (0, 5_000, 40_000, 300_000):
        found = evaluate(model, path, DATA, 5, keep="examples", memory_limit=least + extra, **options)
        sizes.add(found.record.batch_size)
        assert found.loss == pytest.approx(whole.loss, rel=1e-6)
        assert found.losses == pytest.approx(whole.losses, rel=1e-4, abs=1e-5)
        assert np.array_equal(found.error, whole.error)
        assert np.array_equal(found.outcomes.errors(), whole.outcomes.errors())
        assert found.record.calibration_batch == whole.record.calibration_batch
    assert min(sizes) == 1 if name != "vgg-bn" else min(sizes) < 20  # the limit holds a calibration batch
    assert max(sizes) == 83
    assert len(sizes) >= 3


@pytest.mark.parametrize("limit", [1, 0, -1])
def test_a_limit_below_one_example_is_an_error_that_says_how_much_is_needed(limit: int):
    model = network("fcn")
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    needed = smallest_limit(model, linear(model))
    message = rf"memory_limit={limit} bytes is below the {needed} that a copy of the model \({size}\) and one example"
    with pytest.raises(OptionError, match=message):
        evaluate(model, linear(model), DATA, 3, memory_limit=limit)
    assert evaluate(model, linear(model), DATA, 3, memory_limit=needed).record.batch_size == 1
    with pytest.raises(OptionError, match="raise the limit"):
        evaluate(model, linear(model), DATA, 3, memory_limit=needed - 1)


def test_more_than_some_thousand_examples_go_in_several_even_batches():
    model, data = network("fcn"), images(8203)
    found = evaluate(model, linear(model), data, 2, keep="logits")
    assert found.record.batch_size == 2735
    assert found.logits.shape == (2, 8203, 10)
    assert found.loss[-1] == pytest.approx(by_hand(model, random_state(model, 1), data)[0], rel=1e-6)


# ---- keep and progress


def test_examples_keep_their_losses_and_their_mean_is_the_curve():
    model = network("vgg")
    found = evaluate(model, linear(model), DATA, 5, keep="examples")
    assert found.losses.shape == (5, 83)
    assert found.losses.dtype == np.float32
    assert found.losses.mean(1, dtype=np.float64) == pytest.approx(found.loss, rel=1e-7)
    assert found.logits is None
    assert found.outcomes.errors().shape == (83, 5)
    assert found.outcomes.errors().mean(0, dtype=np.float64) == pytest.approx(found.error, abs=1e-9)
    assert found.classes.tolist() == DATA.targets.tolist()


def test_logits_give_back_losses_and_errors():
    model = network("vgg")
    found = evaluate(model, linear(model), DATA, 5, keep="logits")
    assert found.logits.shape == (5, 83, 10)
    for point in range(5):
        logits = torch.from_numpy(found.logits[point])
        losses = functional.cross_entropy(logits, DATA.targets, reduction="none")
        assert found.losses[point] == pytest.approx(losses.numpy(), rel=1e-6)
        assert found.outcomes.errors()[:, point].tolist() == (logits.argmax(1) != DATA.targets).tolist()


def test_what_is_kept_does_not_change_the_figures_and_a_summary_keeps_neither():
    model = network("vgg")
    summary, logits = (evaluate(model, linear(model), DATA, 5, keep=keep) for keep in ("summary", "logits"))
    assert summary.losses is summary.logits is None
    assert np.array_equal(summary.loss, logits.loss)
    assert np.array_equal(summary.error, logits.error)


def test_progress_is_called_after_each_point():
    model, calls = network("fcn"), []
    evaluate(model, linear(model), DATA, 4, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    calls.clear()
    path = Plane(random_state(model, 0), random_state(model, 1))
    evaluate(model, path, DATA, 3, betas=[0, 1], progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize("progress", [True, False, None])
def test_progress_is_silent_where_nobody_watches(progress: bool | None, capfd: pytest.CaptureFixture[str]):
    model = network("fcn")
    evaluate_many(model, [linear(model), ScaledPath(random_state(model, 0))], DATA, 3, progress=progress)
    assert tuple(capfd.readouterr()) == ("", "")


# ---- several paths


def test_many_paths_give_what_each_gives_alone():
    model = network("vgg-bn")
    options = calibrated("recalibrate")
    first, last = random_state(model, 0), random_state(model, 1)
    paths = [LinearPath(first, last), ScaledPath(last), Plane(last, first), LinearPath(last, first)]
    for found, path in zip(evaluate_many(model, paths, DATA, 3, **options), paths, strict=True):
        alone = evaluate(model, path, DATA, 3, **options)
        assert type(found) is type(alone)
        assert np.array_equal(found.loss, alone.loss)
        assert np.array_equal(found.error, alone.error)
        assert found.record.path == path.label


def test_paths_may_come_from_a_generator_and_may_be_none():
    model = network("fcn")
    found = evaluate_many(model, (ScaledPath(random_state(model, seed)) for seed in range(3)), DATA, 3)
    assert len(found) == 3
    assert evaluate_many(model, [], DATA) == []


# ---- running statistics


@pytest.mark.parametrize("name", ["fcn-bn", "vgg-bn"])
def test_recalibrated_statistics_come_with_the_checkpoints_own_figures(name: str):
    model = network(name)
    path = linear(model)
    found = evaluate(model, path, DATA, 3, **calibrated("recalibrate"))
    loss, error = by_hand(model, path.final, DATA)
    assert found.checkpoint == {"loss": pytest.approx(loss, rel=1e-6), "error": pytest.approx(error, abs=1e-6)}
    assert found.loss[-1] != pytest.approx(loss, rel=1e-3)
    frozen = evaluate(model, path, DATA, 3, norm_stats="freeze")
    assert frozen.checkpoint is None
    assert frozen.loss[-1] == found.checkpoint["loss"]
    assert frozen.error[-1] == found.checkpoint["error"]


def test_recalibration_forgets_the_statistics_of_the_checkpoint_even_if_they_are_nan():
    model = network("fcn-bn")
    init, final = random_state(model, 0), random_state(model, 1)
    spoilt = {name: tensor * float("nan") if "running_" in name else tensor for name, tensor in final.items()}
    wanted, found = (
        evaluate(model, LinearPath(init, end), DATA, 3, **calibrated("recalibrate")) for end in (final, spoilt)
    )
    assert np.array_equal(found.loss, wanted.loss)
    assert np.isnan(found.checkpoint["loss"])


def test_networks_without_running_statistics_have_no_policy_and_need_no_calibration():
    model = network("vgg")
    found = evaluate(model, linear(model), DATA, 3)
    assert (found.record.norm_stats, found.record.calibration_batch, found.checkpoint) == (None, None, None)
    model = nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 10))
    assert evaluate(model, linear(model), DATA, 3).record.norm_stats is None


def test_a_policy_for_a_network_without_statistics_changes_nothing():
    model = network("fcn")
    wanted = evaluate(model, linear(model), DATA, 3).loss
    for policy in POLICIES:
        found = evaluate(model, linear(model), DATA, 3, **calibrated(policy))
        assert np.array_equal(found.loss, wanted)
        assert found.checkpoint is None


@pytest.mark.parametrize("asked", [{}, {"norm_stats": "recalibrate"}], ids=["by default", "by name"])
def test_recalibration_without_calibration_data_names_the_other_two_policies(asked: dict[str, str]):
    model = network("fcn-bn")
    with pytest.raises(OptionError) as caught:
        evaluate(model, linear(model), DATA, 3, **asked)
    message = str(caught.value)
    assert all(part in message for part in ("needs `calibration`", "norm_stats='freeze'", "'interpolate'"))


def test_recalibration_is_the_policy_when_nothing_is_said():
    model = network("fcn-bn")
    options = {"calibration": CALIBRATION, "calibration_batch": BATCH}
    found = evaluate(model, linear(model), DATA, 3, **options)
    assert found.record.norm_stats == "recalibrate"
    assert np.array_equal(found.loss, evaluate(model, linear(model), DATA, 3, **calibrated("recalibrate")).loss)


def test_the_calibration_batch_changes_the_figures_and_is_recorded():
    model = network("fcn-bn")
    losses = set()
    for batch, recorded in ((10, 10), (35, 35), (70, 70), (500, 70)):
        options = {"calibration": CALIBRATION, "calibration_batch": batch}
        found = evaluate(model, linear(model), DATA, 3, **options)
        assert found.record.calibration_batch == recorded
        losses.add(found.loss[1])
    assert len(losses) == 3


@pytest.mark.parametrize("batch", [69, 23, 3])
def test_a_calibration_batch_that_leaves_one_example_is_an_error(batch: int):
    model = network("fcn-bn")
    message = f"calibration_batch={batch} leaves one of 70 examples for a batch of its own, which has no variance"
    with pytest.raises(OptionError, match=message):
        evaluate(model, linear(model), DATA, 3, calibration=CALIBRATION, calibration_batch=batch)


@pytest.mark.parametrize("batch", [1, 0, -2, 2.5, True, None], ids=repr)
def test_a_calibration_batch_is_a_whole_number_of_at_least_two(batch: object):
    model = network("fcn-bn")
    with pytest.raises(OptionError, match=f"`calibration_batch` must be a whole number of at least 2, got {batch!r}"):
        evaluate(model, linear(model), DATA, 3, calibration=CALIBRATION, calibration_batch=batch)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["fcn-bn", "vgg-bn"])
def test_no_nan_appears_at_the_origin_where_interpolated_variances_vanish(name: str, policy: str):
    model = network(name)
    final = random_state(model, 1)
    origin = {n: torch.zeros_like(t) for n, t in final.items()}
    for path in (ScaledPath(final), LinearPath(origin, final)):
        found = evaluate(model, path, DATA, alphas=(0, 1e-30, 1e-6, 1), keep="logits", **calibrated(policy))
        assert np.isfinite(found.logits).all()
        assert found.error[0] == pytest.approx(0.9, abs=1e-6)


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.drop(self.first(self.drop(x.flatten(1))))).relu())


@pytest.mark.parametrize("policy", POLICIES)
def test_dropout_is_off_also_while_statistics_are_recalibrated(policy: str):
    model, without = Dropping().train(), Dropping()
    without.drop.p = 0.0
    path, options = linear(model), calibrated(policy)
    first, second, wanted = (evaluate(m, path, DATA, 3, **options).loss for m in (model, model, without))
    assert np.array_equal(first, second)
    assert np.array_equal(first, wanted)
    assert model.drop.training


# ---- layouts


class Convolving(nn.Module):
    """Flattens with `view`, which refuses channels-last tensors, or with `flatten`."""

    def __init__(self, view: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Linear(216, 10)
        self.by_view = view

    def forward(self, x: Tensor) -> Tensor:
        features = self.norm(self.conv(x)).relu()
        return self.last(features.view(len(x), -1) if self.by_view else features.flatten(1))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_network_that_flattens_with_view_gives_the_same_figures(policy: str):
    viewing, flattening = Convolving(view=True), Convolving(view=False)
    path, options = linear(viewing), calibrated(policy)
    contiguous, last = (evaluate(model, path, DATA, 5, **options) for model in (viewing, flattening))
    assert ["channels_last" in curve.record.notes for curve in (contiguous, last)] == [False, True]
    assert contiguous.loss == pytest.approx(last.loss, rel=1e-6)
    assert np.array_equal(contiguous.error, last.error)


def test_images_that_are_targets_or_lie_channels_last_already_are_compared_pixel_by_pixel():
    model = nn.Conv2d(1, 3, 3, padding=1)
    targets = torch.randn(83, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    final = random_state(model, 1)
    with torch.no_grad():
        outputs = functional.conv2d(DATA.inputs, final["weight"], final["bias"], padding=1)
    wanted = (outputs - targets).square().flatten(1).sum(1).mean().item()
    for layout in (torch.contiguous_format, torch.channels_last):
        data = Dataset(DATA.inputs, targets.contiguous(memory_format=layout))
        assert evaluate(model, ScaledPath(final), data, 3, loss="squared_error").loss[-1] == pytest.approx(
            wanted, rel=1e-6
        )


# ---- diverged networks


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38], ids=str)
def test_a_diverged_network_is_an_error_unless_allowed(value: float):
    model = network("fcn")
    init = random_state(model, 0)
    path = LinearPath(init, broken(random_state(model, 1), value))
    with pytest.raises(DivergedError, match=r"the loss at the end of LinearPath is (nan|inf): .*allow_diverged=True"):
        evaluate(model, path, DATA, 5)
    found = evaluate(model, path, DATA, 5, allow_diverged=True)
    assert found.loss[0] == pytest.approx(by_hand(model, init, DATA)[0], rel=1e-6)
    assert not np.isfinite(found.loss[-1])
    assert not found.is_monotone()


def test_a_diverged_plane_is_an_error_where_it_meets_the_network():
    model = network("fcn")
    path = Plane(broken(random_state(model, 1), float("nan")), random_state(model, 0))
    with pytest.raises(DivergedError, match="the loss at the end of Plane is nan"):
        evaluate(model, path, DATA, 3)
    found = evaluate(model, path, DATA, 3, allow_diverged=True)
    assert np.isfinite(found.loss[0]).all()
    assert np.isnan(found.loss[1:]).all()
    assert np.all(found.error[1:] == 1)


def test_a_diverged_start_is_no_error_and_stays_visible():
    model = network("fcn")
    path = LinearPath(broken(random_state(model, 0), float("nan")), random_state(model, 1))
    found = evaluate(model, path, DATA, 5)
    assert np.isnan(found.loss).tolist() == [True, True, True, True, False]
    assert np.isnan(found.delta())
    assert np.isnan(found.plateau("loss"))


def test_a_path_that_stops_before_its_end_does_not_judge_the_end():
    model = network("fcn")
    path = LinearPath(random_state(model, 0), broken(random_state(model, 1), float("nan")))
    assert np.isnan(evaluate(model, path, DATA, alphas=(0, 0.5)).loss).tolist() == [False, True]


# ---- bad arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "loup"}, r"unknown engine 'loup'. Did you mean `loop`\? Known: auto, "),
        ({"keep": "logit"}, r"unknown keep 'logit'. Did you mean `logits`\? Known: examples, logits, summary"),
        ({"precision": "high"}, r"unknown precision 'high'. Did you mean `highest`\?"),
        ({"loss": "cross-entropy"}, r"unknown loss 'cross-entropy'. Did you mean `cross_entropy`\?"),
        ({"norm_stats": "recalibrated"}, r"unknown policy for norm_stats 'recalibrated'. Did you mean `recalibrate`\?"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_unknown_names_are_errors_that_offer_the_nearest(options: dict[str, str], message: str):
    model = network("fcn-bn")
    with pytest.raises(UnknownNameError, match=message):
        evaluate(model, linear(model), DATA, 3, **options)


def test_an_unknown_option_of_many_paths_is_named():
    model = network("fcn")
    with pytest.raises(
        UnknownNameError, match=r"unknown option of evaluate_many 'calibraton'. Did you mean `calibration`"
    ):
        evaluate_many(model, [linear(model)], DATA, calibraton=CALIBRATION)


@pytest.mark.parametrize("points", [1, 0, 2.5, True], ids=repr)
def test_a_curve_needs_two_points(points: object):
    model = network("fcn")
    with pytest.raises(OptionError, match=f"`points` must be a whole number of at least 2, got points={points!r}"):
        evaluate(model, linear(model), DATA, points)


@pytest.mark.parametrize("axis", ["alphas", "betas"])
def test_alphas_and_betas_that_do_not_increase_are_errors(axis: str):
    model = network("fcn")
    path = Plane(random_state(model, 0), random_state(model, 1))
    with pytest.raises(OptionError, match="must be at least 2 finite, increasing numbers"):
        evaluate(model, path, DATA, 3, **{axis: [1, 0]})


def test_betas_belong_to_planes():
    model = network("fcn")
    with pytest.raises(OptionError, match="`betas` belongs to a Plane, and ScaledPath has only alphas; leave it out"):
        evaluate(model, ScaledPath(random_state(model, 0)), DATA, 3, betas=[0, 1])


def test_states_that_do_not_fit_the_model_are_listed_all():
    model, other = network("fcn"), build(ModelSetting(name="fcn", hidden=(16, 13)), (1, 8, 8), 10)
    state = random_state(other, 0) | {"extra": torch.zeros(1)}
    with pytest.raises(StateMismatchError) as caught:
        evaluate(model, ScaledPath(state), DATA, 3)
    message = str(caught.value)
    assert "the final state of ScaledPath and the model do not fit, 4 difference(s)" in message
    for part in (
        "`extra` is in the final state of ScaledPath",
        "`3.weight` has shape (13, 16)",
        "(12, 16) in the model",
    ):
        assert part in message
    with pytest.raises(StateMismatchError):
        evaluate_many(model, [linear(model), ScaledPath(state)], DATA, 3)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error", hinge])
def test_classes_that_the_model_does_not_know_are_an_error(loss: Any):
    model = network("fcn")
    data = Dataset(DATA.inputs, DATA.targets + 1, "shifted")
    message = (
        r"dataset 'shifted' has class 10, the model gives 10 logits \(classes 0 to 9\); use a model with at least 11"
    )
    with pytest.raises(OptionError, match=message):
        evaluate(model, linear(model), data, 3, loss=loss)


def test_a_model_that_cannot_be_copied_is_an_error_that_says_what_to_pass():
    computed, locked = network("fcn"), network("fcn")
    computed.kept = computed(DATA.inputs)
    locked.lock = threading.Lock()
    for model in (computed, locked):
        with pytest.raises(OptionError, match=r"the model cannot be copied \(.*\); pass a freshly built model"):
            evaluate(model, linear(network("fcn")), DATA, 3)


def test_a_device_may_be_named():
    model = network("fcn")
    for device in ("cpu", torch.device("cpu")):
        assert evaluate(model, linear(model), DATA, 3, device=device).record.device == "cpu"


class WithPositions(nn.Module):
    """A linear model that adds a fixed code to its inputs, kept as a floating buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("code", torch.arange(64.0))
        self.linear = nn.Linear(64, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(inputs.flatten(1) + self.code)


def test_floating_buffers_that_are_no_running_statistics_stay_at_the_final_states() -> None:
    model, data = WithPositions(), images(20)
    final = random_state(model, 1) | {"code": torch.arange(64.0)}
    init = random_state(model, 0) | {"code": torch.zeros(64)}
    curve = evaluate(model, LinearPath(init, final), data, alphas=[0.0, 0.5, 1.0])
    model.load_state_dict(init | {"code": final["code"]})
    with torch.no_grad():
        wanted = functional.cross_entropy(model(data.inputs), data.targets)
    assert curve.loss[0] == pytest.approx(float(wanted), rel=1e-6)


def test_a_model_of_one_logit_takes_a_binary_loss_of_the_callers_own() -> None:
    model, data = nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), images(20, classes=2)

    def logistic(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(outputs[:, 0], targets.float(), reduction="none")

    curve = evaluate(model, ScaledPath(random_state(model, 0)), data, points=3, loss=logistic)
    assert curve.loss[0] == pytest.approx(np.log(2))
    assert curve.error is None


def test_class_targets_of_any_integer_dtype_give_the_same_curve() -> None:
    model, data = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), images(20)
    path = ScaledPath(random_state(model, 0))
    wanted = evaluate(model, path, data, points=3)
    for dtype in (torch.uint8, torch.int16, torch.int32):
        found = evaluate(model, path, Dataset(data.inputs, data.targets.to(dtype)), points=3)
        assert found.loss == pytest.approx(wanted.loss)
        assert found.error == pytest.approx(wanted.error)


def test_a_surface_that_should_keep_examples_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    plane = Plane(random_state(model, 0), random_state(model, 1))
    with pytest.raises(OptionError, match="Surface"):
        evaluate(model, plane, images(10), points=3, keep="examples")
