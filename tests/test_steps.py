"""Tests of the optimiser's step: when it is captured and replayed, with a capture of our own, and on a GPU as it is."""

from __future__ import annotations

import dataclasses
import gc
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from helpers import images, tiny_setting
from torch import Tensor, nn

from mli_check.data import Dataset, Normalisation
from mli_check.losses import LOSSES
from mli_check.settings import ModelSetting, Recipe, Setting
from mli_check.states import digest, distance
from mli_check.training import fit as fitting
from mli_check.training import steps
from mli_check.training.fit import Fit, fit, network
from mli_check.training.steps import EagerStep, GraphedStep, optimiser_of

if TYPE_CHECKING:
    from collections.abc import Callable

FULL, RAGGED = 20, 7
CPU = torch.device("cpu")


def eager_step(setting: Setting | None = None) -> EagerStep:
    setting = setting or tiny_setting(momentum=0.9)
    model = network(setting, images(40)).train()
    optimiser = optimiser_of(model.parameters(), setting.recipe, CPU)
    return EagerStep(model, optimiser, LOSSES[setting.recipe.loss], setting.recipe)


def batch(size: int = FULL, seed: int = 0) -> tuple[Tensor, Tensor]:
    data = images(size, seed=seed)
    return data.inputs, data.targets


def state(step: EagerStep) -> str:
    return digest(step.model.state_dict())


# The step as torch runs it


def test_a_step_returns_the_sum_of_the_losses_before_it_in_double_precision_without_a_graph() -> None:
    step, (inputs, targets) = eager_step(), batch()
    with torch.no_grad():
        wanted = nn.functional.cross_entropy(step.model(inputs), targets, reduction="none").double().sum()
    total = step(inputs, targets)
    assert total.dtype == torch.float64
    assert not total.requires_grad
    assert float(total) == pytest.approx(float(wanted))


def test_a_step_minimises_the_mean_and_forgets_the_gradients_before() -> None:
    step, (inputs, targets) = eager_step(tiny_setting()), batch()
    parameters = list(step.model.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    gradients = torch.autograd.grad(nn.functional.cross_entropy(step.model(inputs), targets), parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    step(inputs, targets)
    for parameter, start, gradient in zip(parameters, before, gradients, strict=True):
        torch.testing.assert_close(parameter.detach(), start - 0.1 * gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("recipe", "kind"),
    [
        ({"optimiser": "sgd", "momentum": 0.9, "weight_decay": 0.1}, torch.optim.SGD),
        ({"optimiser": "adam", "weight_decay": 0.1}, torch.optim.Adam),
        ({"optimiser": "rmsprop", "momentum": 0.5}, torch.optim.RMSprop),
    ],
    ids=["sgd", "adam", "rmsprop"],
)
def test_optimisers_are_torchs_with_the_recipes_options(recipe: dict[str, Any], kind: type) -> None:
    wanted = tiny_setting(**recipe).recipe
    optimiser = optimiser_of(nn.Linear(2, 2).parameters(), wanted, CPU)
    (group,) = optimiser.param_groups
    assert type(optimiser) is kind
    assert (group["lr"], group["weight_decay"]) == (0.1, wanted.weight_decay)
    assert group.get("momentum", 0) == wanted.momentum
    assert not group.get("fused")
    assert not group.get("capturable")


@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop"])
def test_on_cuda_optimisers_are_fused_or_capturable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SGD keeps no count of its steps and has no such option; RMSprop has no fused kernel."""
    optimiser = optimiser_of(nn.Linear(2, 2).parameters(), tiny_setting(optimiser=name).recipe, torch.device("cuda"))
    (group,) = optimiser.param_groups
    assert (group.get("fused"), group.get("capturable")) == {
        "sgd": (True, None),
        "adam": (True, True),
        "rmsprop": (None, True),
    }[name]


# When it is captured and replayed


class Recorded:
    """What a GraphedStep did: ("aside" | "eager" | "capture" | "replay", examples), in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: Exception | None = None) -> None:
        self.done: list[tuple[str, int]] = []
        self.rates: list[float] = []
        record, rates, quiet = self.done, self.rates, EagerStep.__call__
        named = ["eager"]

        def run(name: str, step: EagerStep, inputs: Tensor, targets: Tensor) -> Tensor:
            named.append(name)
            try:
                return step(inputs, targets)
            finally:
                named.pop()

        class Captured:
            def __init__(self, step: EagerStep, inputs: Tensor, targets: Tensor, now: tuple[float, ...]) -> None:
                record.append(("capture", len(targets)))
                rates.extend(now)
                if fails is not None:
                    raise fails
                self.step, self.rates = step, now

            def replay(self, inputs: Tensor, targets: Tensor) -> Tensor:
                assert self.step.rates == self.rates
                return run("replay", self.step, inputs, targets)

        def called(step: EagerStep, inputs: Tensor, targets: Tensor) -> Tensor:
            record.append((named[-1], len(targets)))
            return quiet(step, inputs, targets)

        def aside(graphed: GraphedStep, inputs: Tensor, targets: Tensor) -> Tensor:
            return run("aside", graphed._step, inputs, targets)

        monkeypatch.setattr(steps, "_Captured", Captured)
        monkeypatch.setattr(GraphedStep, "_aside", aside)
        monkeypatch.setattr(EagerStep, "__call__", called)

    @property
    def names(self) -> str:
        """The first letters of what was done, a capital for a full batch."""
        return "".join(name[0].upper() if size == FULL else name[0] for name, size in self.done)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return Recorded(monkeypatch)


def train(step: Callable[[Tensor, Tensor], Tensor], sizes: str, optimiser: torch.optim.Optimizer) -> list[float]:
    """Train on full (`F`) and ragged (`r`) batches; at `/` the learning rate is halved."""
    totals = []
    for place, size in enumerate(sizes):
        if size == "/":
            optimiser.param_groups[0]["lr"] /= 2
        else:
            totals.append(float(step(*batch(FULL if size == "F" else RAGGED, seed=place))))
    return totals


SCHEDULES = {
    "full batches": ("FFFFFF", "AAACRRR"),
    "a ragged batch is stepped as usual and keeps the capture": ("FFFFFrFFrF", "AAACRReRReR"),
    "ragged batches while warming up": ("FrFrFrF", "AaAeCReR"),
    "a ragged batch right after warming up is not what is captured": ("FFFrFFFr", "AAAeCRRRe"),
    "every second batch is ragged": ("FrFrFrFr", "AaAeCReRe"),
    "a new learning rate captures anew": ("FFFFF/FF", "AAACRRCRR"),
    "a new learning rate while warming up": ("FF/FFF", "AAACRR"),
    "a new learning rate met by a ragged batch": ("FFFF/rFF", "AAACReCRR"),
    "several new learning rates": ("FFFF/F//FF/F", "AAACRCRCRRCR"),
    "too few batches for a capture": ("FFF", "AAA"),
    "ragged batches alone": ("rrrrr", "aaacrr"),
}


@pytest.mark.parametrize(("sizes", "wanted"), SCHEDULES.values(), ids=SCHEDULES.keys())
def test_three_steps_are_run_aside_then_full_batches_are_replayed(sizes: str, wanted: str, recorded: Recorded) -> None:
    graphed, eager = eager_step(), eager_step()
    step = GraphedStep(graphed)
    totals = train(step, sizes, graphed.optimiser)
    assert recorded.names == wanted
    assert (step.failure, step.captures) == ("", wanted.upper().count("C"))
    assert totals == train(eager, sizes, eager.optimiser)
    assert state(graphed) == state(eager)


def test_each_capture_holds_the_learning_rate_of_its_time(recorded: Recorded) -> None:
    step = eager_step()
    train(GraphedStep(step), "FFFF/F/F", step.optimiser)
    assert recorded.rates == [0.1, 0.05, 0.025]


def test_targets_of_another_shape_are_no_reason_to_replay(recorded: Recorded) -> None:
    step = GraphedStep(eager_step(tiny_setting(loss="squared_error")))
    inputs, targets = batch()
    for _ in range(4):
        step(inputs, targets)
    step(inputs, nn.functional.one_hot(targets, 10))
    assert recorded.names == "AAACRE"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("CUDA error: operation not permitted\nCompile with ..."), "CUDA error: operation not permitted"),
        (torch.OutOfMemoryError("out of memory"), "out of memory"),
        (RuntimeError("\n  a late first line\n"), "a late first line"),
        (RuntimeError(), "RuntimeError"),
    ],
    ids=["two lines", "out of memory", "an empty first line", "no message"],
)
def test_a_capture_that_fails_is_told_and_training_goes_on_with_every_batch_once(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = Recorded(monkeypatch, fails=error)
    graphed, eager = eager_step(), eager_step()
    step = GraphedStep(graphed)
    totals = train(step, "FFFFFrF/FF", graphed.optimiser)
    assert recorded.names == "AAACEEeEEE"
    assert (step.failure, step.captures) == (told, 0)
    assert totals == train(eager, "FFFFFrF/FF", eager.optimiser)
    assert state(graphed) == state(eager)


def test_after_a_failed_capture_nothing_of_it_is_alive_in_the_step_that_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its autograd graph would be: a step on top of it waits for the stream of a capture that is broken."""
    Recorded(monkeypatch)
    alive: list[bool] = []

    class Witness:
        def __del__(self) -> None:
            alive.append(False)

    class Captured:
        def __init__(self, *arguments: object) -> None:
            witness = Witness()
            raise RuntimeError(f"with {type(witness).__name__} in its frame")

    monkeypatch.setattr(steps, "_Captured", Captured)
    eager = eager_step()
    step = GraphedStep(eager)
    for _ in range(3):
        step(*batch())
    handle = eager.model.register_forward_pre_hook(lambda *given: alive.append(True))
    step(*batch())
    handle.remove()
    assert alive == [False, True]


def test_an_error_that_is_no_failed_capture_is_not_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    Recorded(monkeypatch, fails=KeyError("a mistake of ours"))
    step = eager_step()
    with pytest.raises(KeyError):
        train(GraphedStep(step), "FFFF", step.optimiser)


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[GraphedStep]:
    """Let `fit` train with graphed steps on the CPU; they are collected."""
    made: list[GraphedStep] = []

    def graphed(*arguments: Any) -> GraphedStep:
        made.append(GraphedStep(EagerStep(*arguments)))
        return made[-1]

    monkeypatch.setattr(fitting, "EagerStep", graphed)
    return made


@pytest.mark.parametrize("recipe", [{}, {"optimiser": "adam", "lr": 0.01}, {"precision": "bfloat16"}], ids=str)
def test_a_whole_training_of_graphed_steps_is_the_one_of_eager_steps(
    recipe: dict[str, Any], recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = tiny_setting(epochs=4, milestones=(2,), checkpoints=(6, 12, 18), **recipe)
    data = images(107)
    plain = fit(setting, data)
    recorded.done.clear()
    made = as_on_a_gpu(monkeypatch)
    graphed = fit(setting, data)
    assert recorded.names == "AAACRRe" + "RRRRRe" + "CRRRRRe" + "RRRRRe"
    assert made[0].captures == 2
    assert states_of(graphed) == states_of(plain)
    assert graphed.history == plain.history


@pytest.mark.parametrize(
    ("count", "fails", "wanted"),
    [
        (100, None, ("cuda_graph",)),
        (40, None, ()),
        (100, RuntimeError("not here"), ("no cuda_graph: not here",)),
    ],
    ids=["captured", "too short for a capture", "failed"],
)
def test_the_execution_says_whether_a_graph_was_replayed(
    count: int, fails: Exception | None, wanted: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    Recorded(monkeypatch, fails)
    as_on_a_gpu(monkeypatch)
    assert fit(tiny_setting(), images(count)).execution == ("fused", *wanted)


def states_of(result: Fit) -> dict[str | int, str]:
    kept = {"init": result.init, "final": result.final} | result.checkpoints
    return {name: digest(tensors) for name, tensors in kept.items()}


# On a GPU

needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
MODELS = {
    "fcn": ModelSetting(name="fcn", hidden=(32,)),
    "fcn with BN": ModelSetting(name="fcn", hidden=(32,), batch_norm=True),
    "resnet8 with BN": ModelSetting(name="resnet", variant="8", batch_norm=True),
    "vgg": ModelSetting(name="vgg", variant="tiny", init="kaiming"),
}
OPTIMISERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimiser": "sgd", "lr": 0.05},
    "sgd with momentum and weight decay": {"optimiser": "sgd", "lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3},
    "adam": {"optimiser": "adam", "lr": 1e-3, "weight_decay": 1e-3},
    "rmsprop": {"optimiser": "rmsprop", "lr": 1e-3, "momentum": 0.5},
}
STEPS = 9  # an epoch: eight full batches and a ragged one


def gpu_setting(model: str, optimiser: str, **recipe: Any) -> Setting:
    """Four epochs with a milestone in their middle and a state kept after each."""
    options = {"epochs": 4, "batch_size": 32, "milestones": (2,)} | OPTIMISERS[optimiser] | recipe
    ends = tuple(STEPS * (epoch + 1) for epoch in range(options["epochs"]))
    return dataclasses.replace(tiny_setting(), model=MODELS[model], recipe=Recipe(**options, checkpoints=ends))


def gpu_data() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(256, (8 * 32 + 11, 3, 16, 16), generator=generator, dtype=torch.uint8)
    targets = torch.randint(10, (len(drawn),), generator=generator)
    return Dataset(drawn, targets, "pixels", 10, Normalisation((0.5,) * 3, (0.25,) * 3))


class Ungraphed(GraphedStep):
    """Steps as usual, on the same device with the same kernels."""

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
            return self._step(inputs, targets)


def assert_close(first: Fit, second: Fit, rtol: float) -> None:
    """Of one schedule; after each epoch as close as `rtol` of the way that the second went."""
    for entry, other in zip(first.history, second.history, strict=True):
        assert (entry["epoch"], entry["iteration"], entry["lr"]) == (other["epoch"], other["iteration"], other["lr"])
        assert entry["train_loss"] == pytest.approx(other["train_loss"], rel=max(rtol, 1e-6))
    assert list(first.checkpoints) == list(second.checkpoints)
    for step, kept in first.checkpoints.items():
        assert distance(kept, second.checkpoints[step]) <= rtol * distance(second.init, second.checkpoints[step])
        for name, tensor in kept.items():
            if name.endswith("num_batches_tracked"):
                assert int(tensor) == int(second.checkpoints[step][name]) == step


def erratic(model: str, optimiser: str) -> bool:
    """Whether last bits grow large: RMSprop's first step is a sign, and BN makes gradients that are rounding alone."""
    return "BN" in model and (optimiser == "rmsprop" or (model.startswith("resnet") and optimiser == "adam"))


PAIRS = [(model, optimiser) for model in MODELS for optimiser in OPTIMISERS]
STEADY = [pair for pair in PAIRS if not erratic(*pair)]
SPREAD = {"fcn with BN": 1e-4, "resnet8 with BN": 0.1}  # rounding alone: 1e-5 and 0.04
GRAPHED = [
    *((*pair, "float64", 1e-6) for pair in PAIRS),
    *((*pair, "float32", SPREAD.get(pair[0], 1e-5)) for pair in STEADY),
    *((model, "sgd", "bfloat16", 0.25) for model in MODELS),  # float32 itself is up to 0.2 away
]
ON_THE_CPU = [
    *((*pair, "float32", 1e-3) for pair in STEADY),
    *((*pair, "float64", 1e-6) for pair in PAIRS if erratic(*pair)),
]


@needs_a_gpu
@pytest.mark.parametrize(("model", "optimiser", "precision", "rtol"), GRAPHED)
def test_graphed_training_is_eager_training(
    model: str, optimiser: str, precision: str, rtol: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, data = gpu_setting(model, optimiser, precision=precision), gpu_data().to("cuda")
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    graphed = fit(setting, data)
    monkeypatch.setattr(fitting, "GraphedStep", Ungraphed)
    eager = fit(setting, data)
    fused = () if optimiser == "rmsprop" else ("fused",)
    convolves = () if model.startswith("fcn") else ("channels_last",)
    assert graphed.execution == (*fused, *convolves, "cuda_graph")
    assert eager.execution == (*fused, *convolves)
    assert graphed.device.startswith("cuda")
    assert len({digest(kept) for kept in graphed.checkpoints.values()}) == 4
    assert_close(graphed, eager, rtol)


@needs_a_gpu
@pytest.mark.parametrize(
    "recipe", [{"augmentation": "crop-flip"}, {"loss": "squared_error", "lr": 0.01}], ids=["augmented", "squared error"]
)
def test_graphed_training_of_other_recipes_is_eager_training(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, data = gpu_setting("vgg", "sgd", **recipe), gpu_data().to("cuda")
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    graphed = fit(setting, data)
    monkeypatch.setattr(fitting, "GraphedStep", Ungraphed)
    assert_close(graphed, fit(setting, data), 1e-5)


@needs_a_gpu
@pytest.mark.parametrize(("model", "optimiser", "precision", "rtol"), ON_THE_CPU)
def test_an_epoch_on_a_gpu_is_an_epoch_on_the_cpu(model: str, optimiser: str, precision: str, rtol: float) -> None:
    """In TensorFloat-32 products and convolutions would differ more."""
    setting = gpu_setting(model, optimiser, epochs=1, milestones=(), precision=precision)
    assert_close(fit(setting, gpu_data().to("cuda")), fit(setting, gpu_data()), rtol)


@needs_a_gpu
def test_captures_and_trainings_that_are_over_give_their_memory_back() -> None:
    setting, data = gpu_setting("resnet8 with BN", "sgd", milestones=(1, 2, 3)), gpu_data().to("cuda")
    reserved = []
    for _ in range(3):
        fit(setting, data)
        gc.collect()
        torch.cuda.empty_cache()
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[2] <= reserved[1]


@needs_a_gpu
def test_a_capture_that_breaks_off_leaves_the_stream_and_trains_on(monkeypatch: pytest.MonkeyPatch) -> None:
    setting, data = gpu_setting("fcn with BN", "sgd"), gpu_data().to("cuda")
    plain = fit(setting, data)
    usual = EagerStep.__call__

    def synchronising(step: EagerStep, inputs: Tensor, targets: Tensor) -> Tensor:
        total = usual(step, inputs, targets)
        float(total)  # is not allowed in a capture
        return total

    monkeypatch.setattr(EagerStep, "__call__", synchronising)
    stream = torch.cuda.current_stream()
    broken = fit(setting, data)
    assert torch.cuda.current_stream() == stream
    assert broken.execution[-1].startswith("no cuda_graph: ")
    assert_close(broken, plain, 1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_gpu_that_is_not_the_current_one_is_trained_on() -> None:
    """A capture on another device's stream would record nothing and train nothing."""
    setting, data = gpu_setting("fcn with BN", "sgd"), gpu_data()
    fit(setting, data.to("cuda:0"))
    other = fit(setting, data.to("cuda:1"))
    assert torch.cuda.current_device() == 0
    assert "cuda_graph" in other.execution
    assert_close(other, fit(setting, data), 1e-3)
