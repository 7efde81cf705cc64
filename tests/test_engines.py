"""Every engine against plain forward passes: on the usual networks, on drawn ones, and on networks made to trip it."""

from __future__ import annotations

import copy
import random
import warnings
from collections import UserDict
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
import torch
from engine_helpers import ALPHAS, ENGINES, check, check_engines, linear, measured, truth
from helpers import SETTINGS, images, network, random_state
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from mli_check.data import Dataset
from mli_check.errors import OptionError, UnknownNameError
from mli_check.evaluation.first_layer import SharedLayer
from mli_check.evaluation.front import evaluate, evaluate_many
from mli_check.evaluation.recognition import PAYS
from mli_check.paths import LinearPath, Plane, RectifiedPath, ScaledPath, Span
from mli_check.states import digest
from mli_check.strategies import fill, inputs_for, networks
from mli_check.symmetry import scale_symmetries

if TYPE_CHECKING:
    from collections.abc import Callable

    from mli_check.paths import Point
    from mli_check.strategies import Network

DATA = images(83, seed=3)
CALIBRATION = images(70, seed=5)
BATCH = 16  # of calibration: four full batches and a ragged one of six
POLICIES = ("freeze", "interpolate", "recalibrate")
CASES = [(n, p) for n, s in SETTINGS.items() for p in (POLICIES if s.batch_norm else (None,))]
KINDS = ("linear", "only", "exponents", "scaled", "scaled exponents", "rectified", "plane")


def calibrated(policy: str | None) -> dict[str, Any]:
    if policy != "recalibrate":
        return {"norm_stats": policy}
    return {"norm_stats": policy, "calibration": CALIBRATION, "calibration_batch": BATCH}


def wanted(model: nn.Module, path: Span, policy: str | None, points: list[Point] | None = None, **options: Any) -> Any:
    points = points or [(alpha,) for alpha in ALPHAS]
    calibration = CALIBRATION if policy == "recalibrate" else None
    options = {"policy": policy, "calibration": calibration, "calibration_batch": BATCH} | options
    return truth(model, path, options.pop("data", DATA), points, **options)


def of_kind(kind: str, model: nn.Module) -> Span:
    init, final = random_state(model, 0), random_state(model, 1)
    depths = {name: depth for depth, name in enumerate([n for n in final if n.endswith("bias")], 1)}
    return {
        "linear": lambda: LinearPath(init, final),
        "only": lambda: LinearPath(init, final, only="*.weight"),
        "exponents": lambda: LinearPath(init, final, exponents=depths),
        "scaled": lambda: ScaledPath(final),
        "scaled exponents": lambda: ScaledPath(final, exponents=depths),
        "rectified": lambda: RectifiedPath(final, scale_symmetries(model, DATA.inputs[:6])),
        "plane": lambda: Plane(final, init),
    }[kind]()


# ---- the usual networks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "policy"), CASES, ids=str)
def test_every_engine_gives_what_plain_forward_passes_give(name: str, policy: str | None, kind: str) -> None:
    model = network(name)
    path, options = of_kind(kind, model), calibrated(policy)
    if kind == "plane":
        betas = (0.0, 0.25, 0.5) if policy == "interpolate" else (-0.5, 0.0, 0.5)  # a variance stays positive
        reference = wanted(model, path, policy, [(a, b) for a in ALPHAS for b in betas])
        found = measured(model, path, DATA, betas=betas, keep="summary", **options)
        for surface in found.values():
            check(surface, reference, DATA.targets)
    else:
        found = check_engines(model, path, DATA, wanted(model, path, policy), **options)
    assert [found[engine].record.engine for engine in ENGINES] == list(ENGINES)


@pytest.mark.parametrize(("name", "policy"), CASES, ids=str)
def test_engines_agree_to_twelve_digits_in_double_precision(name: str, policy: str | None) -> None:
    model = network(name).double()
    data, calibration = (Dataset(d.inputs.double(), d.targets) for d in (DATA, CALIBRATION))
    path, options = linear(model), calibrated(policy)
    if "calibration" in options:
        options["calibration"] = calibration
    found = measured(model, path, data, **options)
    for engine in ENGINES:
        assert found[engine].record.engine == engine
        assert found[engine].loss == pytest.approx(found["loop"].loss, rel=1e-12)
        assert np.array_equal(found[engine].error, found["loop"].error)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["fcn-bn", "vgg-bn"])
def test_a_call_gives_the_same_bits_each_time(name: str, engine: str) -> None:
    model = network(name)
    options = calibrated("recalibrate") | {"engine": engine, "keep": "logits"}
    first, second = (evaluate(model, linear(model), DATA, 5, **options) for _ in range(2))
    assert np.array_equal(first.logits, second.logits)
    assert np.array_equal(first.loss, second.loss)
    assert np.array_equal(first.outcomes.bits, second.outcomes.bits)


# ---- drawn networks


@settings(
    max_examples=25,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(network=networks(), policy=st.sampled_from(POLICIES), scaled=st.booleans(), data=st.data())
def test_engines_agree_on_drawn_networks(network: Network, policy: str, scaled: bool, data: st.DataObject) -> None:
    model = network.model
    inputs, calibration = (data.draw(inputs_for(network, batch=size)) for size in (60, 22))
    final = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    init = fill(copy.deepcopy(model), 77).state_dict()
    path = ScaledPath(final) if scaled else LinearPath(init, final)
    with torch.no_grad():
        outputs = copy.deepcopy(model).eval()(inputs[:2])
    assume(outputs.ndim == 2)
    targets = torch.arange(60) % outputs.shape[1]
    points, kept = [(alpha,) for alpha in (0.2, 0.5, 0.7, 1.0)], Dataset(calibration, torch.zeros(22))
    options: dict[str, Any] = {"norm_stats": policy, "calibration": kept, "calibration_batch": 8}
    wide, kept64 = copy.deepcopy(model).double(), Dataset(calibration.double(), torch.zeros(22))
    widened = type(path)(*({n: t.double() if t.is_floating_point() else t for n, t in s.items()} for s in path.basis))
    calibrations = {"policy": policy, "calibration_batch": 8}
    exact = truth(wide, widened, Dataset(inputs.double(), targets), points, calibration=kept64, **calibrations)
    found = truth(model, path, Dataset(inputs, targets), points, calibration=kept, **calibrations)
    assume(np.allclose(found.loss, exact.loss, rtol=1e-6))  # else rounding alone moves this network's loss too far
    assume(policy != "recalibrate" or not normalises_twice(model, inputs))
    check_engines(model, path, Dataset(inputs, targets), found, alphas=[alpha for (alpha,) in points], **options)


def normalises_twice(model: nn.Module, inputs: Tensor) -> bool:
    """Whether a layer with running statistics is called more than once in a forward pass."""
    calls: list[nn.Module] = []
    net = copy.deepcopy(model).eval()
    for layer in net.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.register_forward_hook(lambda layer, *_: calls.append(layer))
    net(inputs)
    return len(calls) > len(set(calls))


class NormTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.norm(self.first(x.flatten(1))).exp()))


def test_statistics_of_a_layer_called_twice_average_all_its_calls_alike() -> None:
    # went wrong once: the first call's share of the first batch is overwritten by the second call's, as
    # momentum is 1 for both; torch's update_bn counts calls
    model = NormTwice()
    check_engines(model, linear(model), DATA, wanted(model, linear(model), "recalibrate"), **calibrated("recalibrate"))


# ---- precision


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["fcn", "fcn-bn", "vgg"])
def test_bfloat16_is_recorded_and_near_the_reference(name: str, engine: str) -> None:
    # went wrong once: the probe compares a bfloat16 with a float32 output, and allclose raises
    model = network(name)
    policy = "recalibrate" if name == "fcn-bn" else None
    reference = wanted(model, linear(model), policy)
    options = calibrated(policy) | {"alphas": ALPHAS, "engine": engine, "keep": "logits"}
    found = evaluate(model, linear(model), DATA, precision="bf16", **options)
    assert found.record.precision == "bf16"
    assert found.record.engine == engine or (engine == "stacked" and "not stacked: " in str(found.record.notes))
    assert found.loss == pytest.approx(reference.loss, rel=0.03)
    assert not np.array_equal(found.loss, evaluate(model, linear(model), DATA, **options).loss)


@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
def test_tf32_on_a_cpu_is_an_error(engine: str) -> None:
    model = network("fcn")
    with pytest.raises(OptionError, match="precision='tf32' is for CUDA, got device cpu"):
        evaluate(model, linear(model), DATA, 3, precision="tf32", engine=engine)


@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
def test_an_unknown_precision_is_an_error(engine: str) -> None:
    model = network("fcn")
    with pytest.raises(UnknownNameError, match="unknown precision 'fp8'"):
        evaluate(model, linear(model), DATA, 3, precision="fp8", engine=engine)


# ---- what vmap can and cannot


class Pooling(nn.Module):
    """Operations whose batching rules a stacked pass needs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(1, 6, 3), nn.GroupNorm(2, 6), nn.Linear(24, 10)
        self.steps = nn.ModuleList([nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(3), nn.Upsample(scale_factor=2)])

    def forward(self, x: Tensor) -> Tensor:
        x = functional.gelu(self.norm(self.conv(x)))
        for step in self.steps:
            x = step(x)
        x = functional.adaptive_max_pool2d(functional.pad(x, (1, 1, 1, 1), mode="reflect"), 2)
        return self.last(functional.dropout(x.flatten(1), 0.5, self.training)).log_softmax(-1)


def test_pooling_padding_and_norms_are_stacked_without_a_warning() -> None:
    model = Pooling()
    found = check_engines(model, linear(model), DATA)
    assert found["stacked"].record.engine == "stacked"


class WithoutRule(nn.Module):
    """Uses an operation that vmap runs one by one, with a warning."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x.flatten(1)).renorm(2, 0, 2.0))


@pytest.mark.parametrize("attempt", [1, 2])
def test_an_operation_without_a_batching_rule_is_a_note_and_no_warning(attempt: int) -> None:
    model = WithoutRule()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = check_engines(model, linear(model), DATA)["stacked"].record
    assert seen == []
    assert found.engine == "first_layer"
    assert any("not stacked: There is a performance drop" in note for note in found.notes)


class Drawing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x.flatten(1))
        return self.last(h + torch.randn_like(h))


@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
def test_a_network_that_draws_random_numbers_is_measured_and_the_generator_stays(engine: str) -> None:
    model = Drawing()
    before = torch.get_rng_state()
    found = evaluate(model, linear(model), images(2000), 5, engine=engine)
    assert torch.equal(torch.get_rng_state(), before)
    silent = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Linear(16, 10))
    names = dict(zip(model.state_dict(), silent.state_dict(), strict=True))
    path = LinearPath(*({names[n]: t for n, t in state.items()} for state in linear(model).basis))
    assert np.all(found.loss >= evaluate(silent, path, images(2000), 5).loss - 0.1)
    assert np.isfinite(found.loss).all()


@pytest.mark.parametrize("engine", ["loop", "first_layer"])
def test_a_network_that_draws_its_first_layers_inputs_is_measured(engine: str) -> None:
    class Augmenting(Drawing):
        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x.flatten(1) + torch.randn(len(x), 64)))

    model = Augmenting()
    found = evaluate(model, linear(model), DATA, 5, engine=engine)
    assert found.record.engine == "loop"
    assert np.isfinite(found.loss).all()


# ---- running statistics and memory


@pytest.mark.parametrize("name", ["fcn-bn", "vgg-bn"])
def test_recalibrated_figures_do_not_depend_on_engine_or_memory(name: str) -> None:
    model = network(name)
    path = linear(model)
    reference = wanted(model, path, "recalibrate")
    with pytest.raises(OptionError) as caught:
        evaluate(model, path, DATA, 3, memory_limit=1, **calibrated("recalibrate"))
    least = int(str(caught.value).split("below the ")[1].split()[0])
    sizes = set()
    for extra in (0, 10_000, 100_000, 1_000_000):
        found = measured(model, path, DATA, memory_limit=least + extra, **calibrated("recalibrate"))
        for curve in found.values():
            check(curve, reference, DATA.targets)
            assert curve.record.calibration_batch == BATCH
            sizes.add(curve.record.batch_size)
    assert len(sizes) > 2


@pytest.mark.parametrize("engine", ENGINES)
def test_the_checkpoints_own_figures_come_with_every_engine(engine: str) -> None:
    model = network("vgg-bn")
    path = linear(model)
    found = evaluate(model, path, DATA, 5, engine=engine, **calibrated("recalibrate"))
    own = truth(model, path, DATA, [(1.0,)], policy="freeze")
    assert found.checkpoint["loss"] == pytest.approx(own.loss[0], rel=1e-5)


class NormFirst(nn.Module):
    def __init__(self, affine: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(64, affine=affine)
        self.first, self.between, self.last = nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(self.norm(x.flatten(1)))).relu())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("affine", [True, False])
def test_a_normalisation_before_the_first_layer_is_kept_apart(affine: bool, policy: str) -> None:
    model = NormFirst(affine)
    check_engines(model, linear(model), DATA, wanted(model, linear(model), policy), **calibrated(policy))


class NormBetween(nn.Module):
    """Two layers see data; the second is called when a normalisation has already run."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Linear(64, 8), nn.Linear(64, 8), nn.Linear(8, 10)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.last(self.norm(self.one(x)).relu() + self.two(x))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_first_layer_called_after_a_normalisation_gives_the_same_figures(policy: str) -> None:
    model = NormBetween()
    check_engines(model, linear(model), DATA, wanted(model, linear(model), policy), **calibrated(policy))


# ---- a subset of the calibration data


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["linear", "scaled exponents"])
def test_a_calibration_subset_gives_the_figures_of_the_examples_drawn(kind: str, engine: str) -> None:
    model = network("fcn-bn")
    path = of_kind(kind, model)
    options = {"alphas": ALPHAS, "engine": engine, "calibration_batch": BATCH}
    found = evaluate(model, path, DATA, calibration=CALIBRATION, calibration_subset=40, **options)
    drawn = CALIBRATION.shuffled().subset(40)
    alone = evaluate(model, path, DATA, calibration=drawn, **options)
    assert np.array_equal(found.loss, alone.loss)
    assert np.array_equal(found.error, alone.error)
    check(found, truth(model, path, DATA, calibration=drawn, calibration_batch=BATCH), DATA.targets)
    whole = truth(model, path, DATA, calibration=CALIBRATION, calibration_batch=BATCH)
    places = [0, 2, 4]
    full = evaluate(model, path, DATA, calibration=CALIBRATION, **options)
    assert (found.record.calibration_examples, full.record.calibration_examples) == (40, 70)
    loss, error = found.record.calibration_shift
    assert loss == pytest.approx(np.abs(found.loss - whole.loss)[places].max(), rel=1e-3)
    assert error == pytest.approx(np.abs(found.error - full.error)[places].max(), abs=1e-9)
    assert full.record.calibration_shift is None


def test_a_calibration_subset_of_a_regression_has_a_shift_of_the_loss_alone() -> None:
    model = network("fcn-bn")
    data = Dataset(DATA.inputs, torch.randn(83, 10, generator=torch.Generator().manual_seed(0)))
    options = {"calibration": CALIBRATION, "calibration_batch": BATCH, "loss": "squared_error"}
    record = evaluate(model, linear(model), data, 3, calibration_subset=40, **options).record
    loss, error = record.calibration_shift
    assert loss > 0
    assert error is None


def test_every_path_has_the_shift_of_its_own_calibration_subset() -> None:
    # went wrong once: evaluate_many gives every path's record the shift of the first path
    model = network("fcn-bn")
    paths = [linear(model), linear(model, 2, 3), ScaledPath(random_state(model, 4))]
    options = {"calibration": CALIBRATION, "calibration_batch": BATCH, "calibration_subset": 40}
    alone = [evaluate(model, path, DATA, 5, **options).record.calibration_shift for path in paths]
    together = [curve.record.calibration_shift for curve in evaluate_many(model, paths, DATA, 5, **options)]
    assert together == [pytest.approx(shift) for shift in alone]


def test_a_subset_of_all_examples_is_only_another_order() -> None:
    model = network("fcn-bn")
    options = {"calibration": CALIBRATION, "calibration_batch": 70}
    found = evaluate(model, linear(model), DATA, 5, calibration_subset=70, **options)
    assert found.record.calibration_shift == pytest.approx((0, 0), abs=1e-5)
    assert found.loss == pytest.approx(evaluate(model, linear(model), DATA, 5, **options).loss, rel=1e-5)


def test_a_batch_larger_than_the_subset_is_the_subset() -> None:
    model = network("fcn-bn")
    options = {"calibration": CALIBRATION, "calibration_batch": 60}
    record = evaluate(model, linear(model), DATA, 3, calibration_subset=33, **options).record
    assert (record.calibration_batch, record.calibration_examples) == (33, 33)


@pytest.mark.parametrize("count", [0, -1, -15, 1, 71, 2.5, True, "40", 17], ids=repr)
def test_a_bad_calibration_subset_is_an_error_that_says_so(count: Any) -> None:
    model = network("fcn-bn")
    options = {"calibration": CALIBRATION, "calibration_batch": BATCH}
    with pytest.raises(OptionError, match=r"calibration_subset|leaves one of 17 examples for a batch of its own"):
        evaluate(model, linear(model), DATA, 3, calibration_subset=count, **options)


@pytest.mark.parametrize("policy", ["freeze", "interpolate"])
def test_a_calibration_subset_without_recalibration_is_an_error(policy: str) -> None:
    for name in ("fcn-bn", "fcn"):
        model = network(name)
        with pytest.raises(OptionError, match="calibration_subset=40 needs norm_stats='recalibrate'"):
            evaluate(model, linear(model), DATA, 3, norm_stats=policy, calibration_subset=40)


# ---- many paths


@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
@pytest.mark.parametrize(("name", "policy"), CASES, ids=str)
def test_many_paths_give_what_each_gives_alone(name: str, policy: str | None, engine: str) -> None:
    model = network(name)
    first, last = random_state(model, 0), random_state(model, 1)
    paths = [LinearPath(first, last), Plane(last, random_state(model, 2)), ScaledPath(last), LinearPath(last, first)]
    paths += [LinearPath(random_state(model, seed), last) for seed in (3, 4)]
    paths += [LinearPath(first, last, only="*.bias")]
    options = calibrated(policy) | {"alphas": (0.5, 0.8, 1.0), "engine": engine, "allow_diverged": True}
    for found, path in zip(evaluate_many(model, paths, DATA, **options), paths, strict=True):
        alone = evaluate(model, path, DATA, **options)
        assert found.loss == pytest.approx(alone.loss, rel=1e-5, nan_ok=True)
        assert found.error == pytest.approx(alone.error, abs=0.5 / 83)
        assert found.record.path == path.label


class Counting(nn.Module):
    """Counts the examples that pass behind its first layer, batch by batch, on all copies of it."""

    batches: ClassVar[list[int]] = []

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 10)
        self.norm = nn.BatchNorm1d(16) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x.flatten(1))
        Counting.batches.append(len(x))
        return self.last(self.norm(h).relu())


@pytest.mark.parametrize("engine", ENGINES)
def test_points_that_coincide_are_computed_once(engine: str) -> None:
    model, data, count = Counting(), images(300, seed=1), 8
    paths = [linear(model, seed, 100) for seed in range(count)]
    final = random_state(model, 100)
    paths = [LinearPath(path.basis[0], final) for path in paths] + [ScaledPath(final)]
    Counting.batches.clear()
    found = evaluate_many(model, paths, data, 5, engine=engine)
    full = [batch for batch in Counting.batches if batch > 64]
    assert set(full) == {300}
    distinct = count * 4 + 1 + 4  # alpha = 1 is shared by all nine paths
    assert len(full) == (1 if engine == "stacked" else distinct)
    assert len({curve.loss[-1] for curve in found}) == 1
    assert all(curve.record.engine == engine for curve in found)


def test_a_path_given_twice_is_computed_once() -> None:
    model, data = Counting(), images(300, seed=1)
    init, final = random_state(model, 0), random_state(model, 1)
    Counting.batches.clear()
    paths = [LinearPath(init, final), LinearPath(init, final), LinearPath(dict(init), dict(final))]
    found = evaluate_many(model, paths, data, 5, engine="loop")
    assert len([batch for batch in Counting.batches if batch > 64]) == 5
    assert np.array_equal(found[0].loss, found[2].loss)


@pytest.mark.parametrize("limit", [None, 400_000], ids=["one batch", "several batches"])
def test_first_products_are_computed_once_a_basis_state_and_batch(
    limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data, count = Counting(), images(1000, seed=1), 6
    final = random_state(model, 100)
    products: list[int] = []
    apply = SharedLayer._apply

    def counted(self: SharedLayer, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        products.append(len(inputs))
        return apply(self, inputs, weight, bias)

    monkeypatch.setattr(SharedLayer, "_apply", counted)
    paths = [LinearPath(random_state(model, seed), final) for seed in range(count)]
    record = evaluate_many(model, paths, data, 11, engine="first_layer", memory_limit=limit)[0].record
    blocks = -(-1000 // record.batch_size)
    assert record.engine == "first_layer"
    assert (blocks > 1) == (limit is not None)
    assert len([size for size in products if size > 64]) == blocks * (count + 1)


# ---- the states of many paths differ in what does not move


class Coded(nn.Module):
    """A fixed code in front of the first layer: a buffer, that no path moves but every final state has its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("code", torch.zeros(64))
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x.flatten(1) + self.code).relu())


@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
@pytest.mark.parametrize("order", [(0, 1), (0, 1, 1), (1, 0, 1, 1)], ids=str)
def test_paths_whose_final_states_have_other_buffers_are_kept_apart(order: tuple[int, ...], engine: str) -> None:
    # went wrong once: recognition looks at the inputs of two sites only, which may belong to one path, and at one site
    # a kind
    model = Coded()
    paths = [linear(model, 2 * index, 2 * index + 1) for index in order]
    for path, found in zip(paths, evaluate_many(model, paths, DATA, alphas=ALPHAS, engine=engine), strict=True):
        check(found, truth(model, path, DATA), DATA.targets)


def test_a_code_that_does_not_move_is_no_obstacle() -> None:
    model = Coded()
    found = check_engines(model, linear(model), DATA)
    assert found["first_layer"].record.engine == "first_layer"


class Gained(nn.Module):
    """A trained gain in front of the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(64))
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x.flatten(1) * self.gain).relu())


@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
@pytest.mark.parametrize("moving_first", [True, False])
def test_a_gain_that_moves_along_one_of_two_paths_is_seen(moving_first: bool, engine: str) -> None:
    # went wrong once: the two sites compared are alpha = 1 of the moving path and one of the path that leaves the gain
    # alone
    model = Gained()
    init, final = random_state(model, 0), random_state(model, 1)
    paths = [LinearPath(init, final), LinearPath(init, final, only=["first.*", "last.*"])]
    paths = paths if moving_first else paths[::-1]
    for path, found in zip(paths, evaluate_many(model, paths, DATA, alphas=ALPHAS, engine=engine), strict=True):
        check(found, truth(model, path, DATA), DATA.targets)


class Unit(nn.Module):
    """The trained gain's size does not matter, as the product is scaled to length 1; its sign does."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.first = nn.Parameter(torch.ones(64)), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(functional.normalize(x.flatten(1) * self.gain))


def test_inputs_that_only_look_alike_at_two_points_are_seen() -> None:
    # went wrong once: inputs at alpha = 1/2 and 1 are equal bit for bit, at alpha = -1 they are not
    model = Unit()
    path, alphas = ScaledPath(random_state(model, 0)), (-1.0, 0.5, 1.0)
    reference = truth(model, path, DATA, [(alpha,) for alpha in alphas])
    check_engines(model, path, DATA, reference, alphas=alphas)


# ---- networks made to trip the engines


class Small(nn.Module):
    """Two linear layers and a ReLU module; subclasses say what is done with them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.last = nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)
        self.other, self.middle = nn.Linear(64, 16), nn.Linear(16, 16)
        self.register_buffer("code", torch.linspace(-1, 1, 16))
        self.gate = nn.Parameter(torch.linspace(-1, 1, 16))


def small(forward: Callable[[Any, Tensor], Any]) -> type[Small]:
    return type(forward.__name__, (Small,), {"forward": lambda self, x: forward(self, x)})


def skip_over_relu(net: Any, x: Tensor) -> Tensor:
    h = net.first(x.flatten(1))
    return net.last(h + net.relu(h))


def skip_before_relu(net: Any, x: Tensor) -> Tensor:
    h = net.middle(net.first(x.flatten(1)))
    r = net.relu(h)
    return net.last(torch.cat([h[:, :8], r[:, 8:]], 1))


def relu_of_data(net: Any, x: Tensor) -> Tensor:
    x = x.flatten(1)
    return net.last(net.first(net.relu(x)) + net.other(x))


def relu_of_data_alone(net: Any, x: Tensor) -> Tensor:
    return net.last(net.first(net.relu(x).flatten(1)))


def relu_of_parameter(net: Any, x: Tensor) -> Tensor:
    return net.last(net.first(x.flatten(1)) * net.gate + net.relu(net.gate))


def relu_of_buffer(net: Any, x: Tensor) -> Tensor:
    return net.last(net.first(x.flatten(1)) * net.code + net.relu(net.code))


def relu_of_bias_view(net: Any, x: Tensor) -> Tensor:
    return net.last(net.first(x.flatten(1)) + net.relu(net.middle.bias[:8]).repeat(2))


def relu_at_two_places(net: Any, x: Tensor) -> Tensor:
    h = net.relu(net.first(x.flatten(1)))
    return net.last(net.relu(net.middle(h)) + h)


def relu_at_two_places_one_kept(net: Any, x: Tensor) -> Tensor:
    h = net.relu(net.first(x.flatten(1)))
    y = net.middle(h)
    return net.last(net.relu(y) - y)


def linear_twice(net: Any, x: Tensor) -> Tensor:
    h = net.first(x.flatten(1)).relu()
    return net.last(net.middle(net.middle(h).relu()) + h)


def linear_twice_side_by_side(net: Any, x: Tensor) -> Tensor:
    h = net.first(x.flatten(1)).relu()
    return net.last(net.middle(h) * net.middle(-h))


def first_twice(net: Any, x: Tensor) -> Tensor:
    x = x.flatten(1)
    return net.last(net.first(x) * net.first(-2 * x).relu())


def recurrent(net: Any, x: Tensor) -> Tensor:
    h = torch.zeros(len(x), 16)
    for step in range(3):
        h = net.relu(net.first(x.flatten(1) * (step + 1)) + net.middle(h))
    return net.last(h)


def weight_read_elsewhere(net: Any, x: Tensor) -> Tensor:
    x = x.flatten(1)
    return net.last(net.first(x).relu()) + functional.linear(x, net.first.weight)[:, :10]


def weight_sign_read_elsewhere(net: Any, x: Tensor) -> Tensor:
    return net.last(net.first(x.flatten(1)).relu()) + (net.first.weight > 0).float().sum(1)[:10]


def two_branches(net: Any, x: Tensor) -> Tensor:
    x = x.flatten(1) - 0.1
    return net.last((net.first(x) + net.other(x.abs())).relu())


def two_branches_modified_between(net: Any, x: Tensor) -> Tensor:
    x = x.flatten(1) * 1
    one = net.first(x)
    x += 1
    return net.last((one + net.other(x)).relu())


def rectified_branch(net: Any, x: Tensor) -> Tensor:
    # went wrong once: a first pass hands out the inputs of both layers when the second is reached, and by then the ReLU
    # has
    # been run in place on the first one's
    x = x.flatten(1) - 0.1
    return net.last((net.first(x) + net.other(net.relu(x))).relu())


def checked_branches(net: Any, x: Tensor) -> Tensor:
    # went wrong once: between two first layers the network runs on the first one's NaN weight, which a check of its own
    # sees
    x = x.flatten(1)
    one = net.first(x)
    assert one.isfinite().all(), "the network checks its activations"
    return net.last((one + net.other(x)).relu())


def expanded(net: Any, x: Tensor) -> Tensor:
    # went wrong once: a ReLU cannot run in place on an expanded tensor, and the error comes out
    return net.last(net.relu(net.first(x.flatten(1))[:, :, None].expand(-1, -1, 4)).mean(-1))


def in_place_throughout(net: Any, x: Tensor) -> Tensor:
    h = net.first(x.flatten(1))
    h += net.gate
    h.relu_()
    h *= 2
    return net.last(h)


def preprocessing(net: Any, x: Tensor) -> Tensor:
    x = (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), keepdim=True) + 1e-3)
    return net.last(functional.gelu(net.first(x.flip(-1).flatten(1))))


def output_of_the_first_layer(net: Any, x: Tensor) -> Tensor:
    return net.first(x.flatten(1))


def view_of_the_first_layers_output(net: Any, x: Tensor) -> Tensor:
    return net.first(x.flatten(1))[:, :10]


def transposed_view(net: Any, x: Tensor) -> Tensor:
    return net.first(x.flatten(1)).relu().t()[3:13].t()


def output_rectified(net: Any, x: Tensor) -> Tensor:
    return net.relu(net.last(net.first(x.flatten(1))))


def output_of_the_middle(net: Any, x: Tensor) -> Tensor:
    h = net.middle(net.first(x.flatten(1)).relu())
    return h[:, :10]


def residual(net: Any, x: Tensor) -> Tensor:
    h = net.relu(net.first(x.flatten(1)))
    for _ in range(2):
        h = h + net.relu(net.middle(h))
    return net.last(h)


def parameters_as_output(net: Any, x: Tensor) -> Tensor:
    # went wrong once: outputs wait as views of a parameter, in which the next state is written
    return net.gate[:10].expand(len(x), 10)


def first_bias_as_output(net: Any, x: Tensor) -> Tensor:
    return net.first.bias[None, :10].expand(len(x), -1)


FORWARDS = (
    skip_over_relu, skip_before_relu, relu_of_data, relu_of_data_alone, relu_of_parameter, relu_of_buffer,
    relu_of_bias_view, relu_at_two_places, relu_at_two_places_one_kept, linear_twice, linear_twice_side_by_side,
    first_twice, recurrent, weight_read_elsewhere, weight_sign_read_elsewhere, two_branches,
    two_branches_modified_between, rectified_branch, checked_branches, expanded, in_place_throughout, preprocessing,
    output_of_the_first_layer, view_of_the_first_layers_output, transposed_view, output_rectified,
    output_of_the_middle, residual, parameters_as_output, first_bias_as_output,
)  # fmt: skip


@pytest.mark.parametrize("forward", FORWARDS, ids=lambda forward: forward.__name__)
def test_engines_agree_on_a_network_with(forward: Callable[[Any, Tensor], Any]) -> None:
    model = small(forward)()
    data = images(83, classes=10, seed=3)
    before = data.inputs.clone()
    for path in (linear(model), ScaledPath(random_state(model, 2))):
        check_engines(model, path, data)
    assert torch.equal(data.inputs, before)


@pytest.mark.parametrize(
    ("forward", "only"),
    [(rectified_branch, "first.*"), (residual, "middle.*"), (linear_twice, ["middle.*", "last.*"])],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_engines_agree_where_a_first_layer_stays(forward: Callable[[Any, Tensor], Any], only: Any) -> None:
    model = small(forward)()
    path = linear(model, only=only)
    check_engines(model, path, DATA, truth(model, path, DATA))


class FrozenFirst(nn.Module):
    """The first layer, too small to be shared, stays; two wide layers follow, one on its outputs' ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.wide, self.relu = nn.Linear(64, 128), nn.Linear(128, 16), nn.ReLU()
        self.wider, self.last = nn.Linear(128, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.small(x.flatten(1))
        return self.last(self.wide(h).relu() + self.wider(self.relu(h)))


@pytest.mark.parametrize("only", [["wide.*"], ["wide.*", "wider.*", "last.*"], ["wider.*"]], ids=str)
def test_a_layer_that_stays_does_not_hand_its_buffer_on(only: list[str]) -> None:
    # went wrong once: the inputs of `wide` are the buffer that `small` writes into and that the ReLU then changes in
    # place
    model = FrozenFirst()
    path = linear(model, only=only)
    check_engines(model, path, DATA, truth(model, path, DATA))


class Kept(nn.Module):
    """A tensor that is neither parameter nor state: a buffer that is not saved, an attribute, or the caller's own."""

    def __init__(self, code: Tensor, kind: str) -> None:
        super().__init__()
        self.first, self.relu, self.last = nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)
        if kind == "buffer":
            self.register_buffer("code", code, persistent=False)
        elif kind == "attribute":
            self.code = code
        else:
            self.codes = lambda: code
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        code = self.codes() if self.kind == "closure" else self.code
        return self.last(self.first(x.flatten(1)) * code + self.relu(code))


@pytest.mark.parametrize("kind", ["buffer", "attribute", "closure"])
def test_a_tensor_outside_the_state_is_not_rectified_in_place(kind: str) -> None:
    # went wrong once: only the state's tensors and the data are exempt from a ReLU in place
    code = torch.linspace(-1, 1, 16)
    model = Kept(code, kind)
    reference = truth(model, linear(model), DATA)
    try:
        check_engines(model, linear(model), DATA, reference)
    finally:
        assert torch.equal(code, torch.linspace(-1, 1, 16))


class OwnBuffer(nn.Module):
    """Gives its outputs in memory of its own, the same at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 10)
        self.out = torch.empty(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out[: len(x)].copy_(self.last(self.first(x.flatten(1)).relu()))


def test_outputs_in_memory_of_the_networks_own_are_taken_before_the_next_call() -> None:
    # went wrong once: outputs wait as views of the buffer, which the next site overwrites: all points get the last
    # one's figures
    model = OwnBuffer()
    check_engines(model, linear(model), DATA)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x.flatten(1)).relu()).relu())


def test_a_first_weight_that_is_tied_to_another_layer_is_not_shared() -> None:
    model = Tied()
    states = [random_state(model, seed) for seed in (0, 1)]
    for path in (LinearPath(*states), LinearPath(*({**s, "second.weight": s["first.weight"]} for s in states))):
        found = check_engines(model, path, DATA)
        assert any("shares its weight" in note for note in found["first_layer"].record.notes)


class TiedBias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, 10)
        self.second.bias = self.first.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x.flatten(1)).relu()).relu())


def test_a_first_bias_that_is_tied_takes_the_last_names_values() -> None:
    model = TiedBias()
    check_engines(model, linear(model), DATA)


def test_a_hook_of_the_first_layer_counts() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    for register in (
        lambda: model[1].register_forward_hook(lambda layer, args, out: out * 2),
        lambda: model[1].register_forward_pre_hook(lambda layer, args: (args[0] + 1,)),
        lambda: model[2].register_forward_hook(lambda layer, args, out: args[0] + out),
        lambda: model[3].register_forward_hook(lambda layer, args, out: out.square()),
    ):
        handle = register()
        check_engines(model, linear(model), DATA)
        handle.remove()


def test_a_forward_of_its_own_counts() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    plain, path = model[1].forward, linear(model)
    reference = truth(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)), path, DATA)
    model[1].forward = lambda x: plain(x)  # the caller's layer, not the copy's: whatever is done, no crash in a probe
    for engine in ENGINES:
        assert np.isfinite(evaluate(model, path, DATA, 5, engine=engine).loss).all()
    assert len(reference.loss) == 5


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrised_first_layers_are_measured(norm: Callable[[nn.Module], nn.Module]) -> None:
    def made(seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(nn.Flatten(), norm(nn.Linear(64, 16)), nn.ReLU(), nn.Linear(16, 10))

    model = made(0)
    check_engines(model, LinearPath(made(1).state_dict(), made(2).state_dict()), DATA)


def test_a_subclass_of_linear_is_measured() -> None:
    class Positive(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return functional.linear(x, self.weight.abs(), self.bias)

    model = nn.Sequential(nn.Flatten(), Positive(64, 16), nn.ReLU(), Positive(16, 10))
    found = check_engines(model, linear(model), DATA)
    assert found["first_layer"].record.engine == "loop"


def test_a_module_at_two_names_is_measured() -> None:
    layer = nn.Linear(64, 64)
    model = nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(64, 10))
    check_engines(model, linear(model), DATA)


def test_a_model_that_is_its_first_layer_is_shared() -> None:
    model, data = nn.Linear(64, 10), Dataset(DATA.inputs.flatten(1), DATA.targets)
    found = check_engines(model, linear(model), data)
    assert found["first_layer"].record.engine == "first_layer"
    assert found["stacked"].record.engine == "stacked"


def test_a_linear_layer_on_sequences_is_shared() -> None:
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Flatten(), nn.Linear(96, 10))
    data = Dataset(DATA.inputs[:, 0], DATA.targets)
    assert check_engines(model, linear(model), data)["first_layer"].record.engine == "first_layer"


CONVOLUTIONS = {
    "1d": (nn.Conv1d(3, 8, 3), (3, 10)),
    "1d without bias": (nn.Conv1d(3, 8, 3, bias=False), (3, 10)),
    "2d": (nn.Conv2d(3, 8, 3, padding=1), (3, 6, 6)),
    "2d without bias": (nn.Conv2d(3, 8, 3, bias=False), (3, 6, 6)),
    "3d": (nn.Conv3d(2, 4, 2), (2, 4, 4, 4)),
    "grouped": (nn.Conv2d(4, 8, 3, groups=2), (4, 6, 6)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), (4, 6, 6)),
    "strided": (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 7, 7)),
    "dilated": (nn.Conv2d(3, 8, 2, dilation=2), (3, 6, 6)),
    "circular": (nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"), (3, 6, 6)),
    "reflected": (nn.Conv1d(3, 8, 3, padding=1, padding_mode="reflect"), (3, 10)),
    "same": (nn.Conv2d(3, 8, 3, padding="same"), (3, 6, 6)),
    "one by one": (nn.Conv2d(3, 8, 1), (3, 6, 6)),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_first_convolutions_of_every_kind_are_shared(kind: str) -> None:
    conv, shape = CONVOLUTIONS[kind]
    inputs = torch.randn(83, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = conv(inputs[:1]).numel()
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(features, 10))
    data, init, final = Dataset(inputs, DATA.targets), random_state(model, 0), random_state(model, 1)
    exponents = {name: 2 for name in final if name.endswith("bias")}
    for path in (LinearPath(init, final), LinearPath(init, final, exponents=exponents), ScaledPath(final)):
        found = check_engines(model, path, data)
        assert found["first_layer"].record.engine == "first_layer"


def test_a_network_of_convolutions_alone_gives_maps() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    targets = torch.randn(83, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    data = Dataset(DATA.inputs, targets)
    reference = truth(model, linear(model), data, loss=lambda o, t: (o - t).square().flatten(1).sum(1))
    found = check_engines(model, linear(model), data, reference, loss="squared_error")
    assert all(curve.error is None for curve in found.values())


# ---- losses, inputs and outputs of other kinds


def hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.multi_margin_loss(outputs, targets, reduction="none")


def test_a_callable_loss_is_that_of_every_engine() -> None:
    model = network("fcn")
    check_engines(model, linear(model), DATA, truth(model, linear(model), DATA, loss=hinge), loss=hinge)


def test_regression_is_that_of_every_engine() -> None:
    model = network("fcn")
    data = Dataset(DATA.inputs, torch.randn(83, 10, generator=torch.Generator().manual_seed(0)))
    reference = truth(model, linear(model), data, loss=lambda o, t: (o - t).square().sum(1))
    for curve in check_engines(model, linear(model), data, reference, loss="squared_error").values():
        assert curve.error is None


def test_a_single_logit_is_that_of_every_engine() -> None:
    def logistic(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(outputs[:, 0], targets.float(), reduction="none")

    model, data = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 1)), images(83, classes=2)
    reference = truth(model, linear(model), data, loss=logistic)
    for curve in measured(model, linear(model), data, loss=logistic).values():
        assert curve.loss == pytest.approx(reference.loss, rel=1e-5)
        assert curve.logits == pytest.approx(reference.logits, rel=1e-4, abs=1e-5)
        assert curve.error is None


class Weighted(nn.Module):
    """Two inputs by name; outputs as a tensor, a dict or a pair."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.first, self.relu, self.last, self.form = nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10), form

    def forward(self, *, image: Tensor, weight: Tensor) -> Any:
        hidden = self.first(image.flatten(1))
        logits = self.last(self.relu(hidden)) * weight[:, None]
        return {"tensor": logits, "dict": {"logits": logits, "hidden": hidden}, "pair": (hidden, logits)}[self.form]


def chosen(outputs: Any) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs["logits"] if isinstance(outputs, dict) else outputs[1]


@pytest.mark.parametrize("form", ["tensor", "dict", "pair"])
def test_dicts_of_inputs_and_structured_outputs_are_those_of_every_engine(form: str) -> None:
    model = Weighted(form)
    data = Dataset({"image": DATA.inputs, "weight": torch.linspace(0.5, 2, 83)}, DATA.targets)

    def loss(outputs: Any, targets: Tensor) -> Tensor:
        return functional.cross_entropy(chosen(outputs), targets, reduction="none")

    reference = truth(model, linear(model), data, loss=loss)
    keep = "logits" if form == "tensor" else "examples"
    for engine, curve in measured(model, linear(model), data, loss=loss, keep=keep).items():
        check(curve, reference, DATA.targets)
        assert curve.record.engine == (
            {"stacked": "first_layer", "auto": "loop"}.get(engine, engine)
            if form != "tensor"
            else {"auto": "loop"}.get(engine, engine)
        )


def hidden_sum(outputs: Any, targets: Tensor) -> Tensor:
    """A loss of the first layer's outputs, which lie in memory that the next site uses."""
    hidden = outputs["hidden"] if isinstance(outputs, dict) else outputs[0]
    return hidden.square().sum(1)


@pytest.mark.parametrize("form", ["dict", "pair"])
def test_a_first_layers_outputs_inside_a_structure_are_not_overwritten(form: str) -> None:
    """The ReLU after it must not run in place here, for the structure holds what goes into it."""
    model = Weighted(form)
    data = Dataset({"image": DATA.inputs, "weight": torch.linspace(0.5, 2, 83)}, DATA.targets)
    reference = truth(model, linear(model), data, loss=hidden_sum)
    for limit in (None, 40_000):
        found = measured(model, linear(model), data, loss=hidden_sum, keep="examples", memory_limit=limit)
        for curve in found.values():
            check(curve, reference, DATA.targets)


def test_states_that_are_no_dicts_and_states_of_another_dtype_are_measured() -> None:
    model = network("fcn")
    init, final = random_state(model, 0), random_state(model, 1)
    wide = [{name: tensor.double() for name, tensor in state.items()} for state in (init, final)]
    reference = truth(model, LinearPath(init, final), DATA)
    for path in (
        LinearPath(UserDict(init), UserDict(final)),
        LinearPath(*wide),
        LinearPath(wide[0], final),
        LinearPath(init, wide[1]),
        LinearPath({n: t.clone().requires_grad_() for n, t in init.items()}, final),
    ):
        check_engines(model, path, DATA, reference)


def test_one_example_is_enough() -> None:
    model, data = network("fcn"), Dataset(DATA.inputs[:1], DATA.targets[:1])
    check_engines(model, linear(model), data)


# ---- diverged states


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38], ids=str)
@pytest.mark.parametrize("where", ["weight", "bias", "1.weight", "5.bias"])
def test_a_diverged_state_does_not_leak_where_its_coefficient_is_zero(value: float, where: str) -> None:
    model = network("fcn")
    good = random_state(model, 0)
    bad = {n: torch.full_like(t, value) if n.endswith(where) else t for n, t in random_state(model, 1).items()}
    for path, finite in ((LinearPath(good, bad), 0), (LinearPath(bad, good), -1)):
        reference = truth(model, path, DATA)
        for engine, curve in measured(model, path, DATA, allow_diverged=True).items():
            assert np.isfinite(curve.loss[finite]), engine
            assert curve.loss[finite] == pytest.approx(reference.loss[finite], rel=1e-5)
            assert np.array_equal(np.isfinite(curve.loss), np.isfinite(reference.loss)), engine
            check(curve, reference, DATA.targets)


@pytest.mark.parametrize("engine", ENGINES)
def test_nan_noise_does_not_leak_into_the_ray_of_a_plane(engine: str) -> None:
    model = network("vgg")
    final = random_state(model, 1)
    path = Plane(final, {name: torch.full_like(tensor, float("nan")) for name, tensor in final.items()})
    found = evaluate(model, path, DATA, 5, betas=(-0.5, 0, 0.5), engine=engine)
    reference = truth(model, ScaledPath(final), DATA, [(alpha,) for alpha in np.linspace(0, 1, 5)])
    assert found.loss[:, 1] == pytest.approx(reference.loss, rel=1e-5)
    assert np.isnan(found.loss[:, [0, 2]]).all()


@pytest.mark.parametrize("scale", [1e30, 1e36, 3e37, 1e38], ids=str)
def test_weights_near_the_largest_number_give_the_same_figures(scale: float) -> None:
    model = network("fcn")
    final = {n: t * (scale if n == "1.weight" else 1e-3) for n, t in random_state(model, 1).items()}
    alphas = (0.0, 1e-38, 1e-30, 1e-3, 0.5, 1.0)
    path = ScaledPath(final)
    reference = truth(model, path, DATA, [(alpha,) for alpha in alphas])
    for curve in measured(model, path, DATA, alphas=alphas, allow_diverged=True, keep="summary").values():
        assert curve.loss == pytest.approx(reference.loss, rel=1e-4, nan_ok=True)


@pytest.mark.parametrize("forward", [skip_over_relu, weight_read_elsewhere, relu_at_two_places_one_kept])
def test_a_network_that_diverges_halfway_is_checked_where_it_is_finite(forward: Callable[[Any, Tensor], Any]) -> None:
    # went wrong once: sharing and running in place are verified at the middle and the end, where all outputs are NaN
    # and so agree
    model = small(forward)()
    final = {n: t * float("nan") if n == "last.bias" else t for n, t in random_state(model, 1).items()}
    path = LinearPath(random_state(model, 0), final)
    check_engines(model, path, DATA, allow_diverged=True)


# ---- which engine, and why


def wide(inputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, 10))


@pytest.mark.parametrize(("products", "engine"), [(PAYS - 1, "loop"), (PAYS, "first_layer"), (PAYS + 1, "first_layer")])
def test_auto_shares_first_layers_of_enough_products_an_output(products: int, engine: str) -> None:
    data = Dataset(torch.randn(83, products, generator=torch.Generator().manual_seed(0)), DATA.targets)
    model = wide(products)
    found = check_engines(model, linear(model), data)
    assert found["auto"].record.engine == engine
    assert found["first_layer"].record.engine == "first_layer"
    few = f"no first layer to share: `1` has only {products} products an output"
    assert any(few in note for note in found["auto"].record.notes) == (engine == "loop")


def test_auto_counts_the_products_of_a_grouped_convolution_by_group() -> None:
    data = Dataset(torch.randn(83, 32, 6, 6, generator=torch.Generator().manual_seed(0)), DATA.targets)
    for groups, engine in ((1, "first_layer"), (4, "loop")):
        model = nn.Sequential(nn.Conv2d(32, 8, 3, groups=groups), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))
        assert evaluate(model, linear(model), data, 5).record.engine == engine


def test_as_many_products_as_points_are_not_worth_it() -> None:
    model = wide(128)
    data = Dataset(torch.randn(83, 128, generator=torch.Generator().manual_seed(0)), DATA.targets)
    record = evaluate(model, linear(model), data, 2).record
    assert record.engine == "loop"
    assert record.notes == ("no first layer to share: `1` would need 2 products for 2 points",)


def test_a_network_without_layers_or_without_a_module_for_them_is_looped() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(64, 10))

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ self.weight

    model = Plain()
    found = check_engines(model, linear(model), DATA)
    assert [found[e].record.engine for e in ("loop", "first_layer", "stacked", "auto")] == [
        "loop",
        "loop",
        "stacked",
        "loop",
    ]
    assert "no first layer to share: the model calls none" in found["first_layer"].record.notes


def test_a_limit_below_the_products_is_a_note() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10))
    path = linear(model)
    reference = truth(model, path, DATA)
    with pytest.raises(OptionError) as caught:
        evaluate(model, path, DATA, 3, memory_limit=1)
    least = int(str(caught.value).split("below the ")[1].split()[0])
    notes = set()
    for extra in (0, 4_000, 20_000, 200_000):
        for curve in measured(model, path, DATA, memory_limit=least + extra).values():
            check(curve, reference, DATA.targets)
            notes |= set(curve.record.notes)
    assert "the first layer's products do not fit into memory_limit" in notes


def test_progress_counts_every_site_once_with_every_engine() -> None:
    model = network("fcn-bn")
    for engine in ENGINES:
        calls: list[tuple[int, int]] = []
        evaluate(
            model,
            linear(model),
            DATA,
            5,
            engine=engine,
            progress=lambda done, total, calls=calls: calls.append((done, total)),
            **calibrated("recalibrate"),
        )
        total = calls[-1][1]
        assert total in (5, 6)  # the checkpoint's own figures are a site too
        assert calls == [(done, total) for done in range(1, total + 1)]


# ---- what stays as it is


def fingerprint(model: nn.Module, path: Span, *datasets: Dataset) -> tuple[object, ...]:
    tensors = [*model.parameters(), *model.buffers()]
    name, keys, *rest = np.random.get_state()
    return (
        digest(model.state_dict()),
        [(tensor._version, tensor.requires_grad, tensor.stride()) for tensor in tensors],
        [(module.training, sorted(vars(module))) for module in model.modules()],
        [module.inplace for module in model.modules() if isinstance(module, nn.ReLU)],
        [module.momentum for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)],
        [(digest(state), [tensor._version for tensor in state.values()]) for state in path.basis],
        [digest({"inputs": data.inputs, "targets": data.targets}) for data in datasets],
        (torch.get_rng_state().numpy().tobytes(), name, keys.tobytes(), tuple(rest), random.getstate()),
        (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        (torch.get_float32_matmul_precision(), torch.backends.mkldnn.matmul.fp32_precision),
        len(warnings.filters),
    )


class StopError(Exception):
    pass


def stopping(outputs: Tensor, targets: Tensor) -> Tensor:
    if len(outputs) > 2:
        raise StopError
    return functional.cross_entropy(outputs, targets, reduction="none")


@pytest.mark.parametrize("precision", ["highest", "bf16"])
@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
@pytest.mark.parametrize("name", ["fcn-bn", "vgg-bn"])
def test_everything_of_the_callers_stays_as_it_is(name: str, engine: str, precision: str) -> None:
    model = network(name).train()
    next(model.parameters()).requires_grad_(False)
    for path in (LinearPath(random_state(model, 0), model.state_dict()), ScaledPath(random_state(model, 2))):
        before = fingerprint(model, path, DATA, CALIBRATION)
        for policy in POLICIES:
            options = calibrated(policy) | {"engine": engine, "precision": precision}
            evaluate(model, path, DATA, 4, **options)
            with pytest.raises(StopError):
                evaluate(model, path, DATA, 4, loss=stopping, **options)
            assert fingerprint(model, path, DATA, CALIBRATION) == before


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("forward", [relu_of_data, relu_of_data_alone, relu_of_buffer, relu_of_parameter])
def test_a_relu_of_what_is_the_callers_leaves_it_alone(forward: Callable[[Any, Tensor], Any], engine: str) -> None:
    model = small(forward)()
    path, data = linear(model), images(83, seed=4)
    before = fingerprint(model, path, data)
    evaluate(model, path, data, 5, engine=engine)
    assert fingerprint(model, path, data) == before


# ---- running out of memory


class Hungry(nn.Module):
    """Runs out of memory on more than `most` examples, behind its first layer."""

    most: ClassVar[int] = 2**30
    seen: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.last = nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.first(x.flatten(1)))
        if len(x) > Hungry.most:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        return self.last(h)


@pytest.fixture
def hungry(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda most: monkeypatch.setattr(Hungry, "most", most)


@pytest.mark.parametrize("most", [200, 110, 70, 64])
@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
def test_what_runs_out_of_memory_goes_on_with_halves(engine: str, most: int, hungry: Callable[[int], None]) -> None:
    # went wrong once: halves that are halved again lose examples: `range` keeps the old step, `part` takes the new,
    # smaller size
    model, data = Hungry(), images(347, seed=2)
    path = linear(model)
    reference = truth(model, path, data)
    hungry(most)
    found = evaluate(model, path, data, alphas=ALPHAS, engine=engine, keep="logits")
    check(found, reference, data.targets)
    assert found.losses.mean(1, dtype=np.float64) == pytest.approx(found.loss, rel=1e-6)  # none lost, none twice
    assert found.record.batch_size <= most
    assert f"out of memory: went on with batches of {found.record.batch_size}" in found.record.notes


@pytest.mark.parametrize("most", [63, 20, 2])
@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
def test_memory_for_fewer_examples_than_are_probed_is_enough(
    engine: str, most: int, hungry: Callable[[int], None]
) -> None:
    # went wrong once: the probes of recognition, lean and stacked take 64 examples, and what they raise comes out
    model, data = Hungry(), images(100, seed=2)
    path = linear(model)
    reference = truth(model, path, data)
    hungry(most)
    check(evaluate(model, path, data, alphas=ALPHAS, engine=engine, keep="logits"), reference, data.targets)


@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
def test_a_single_example_that_does_not_fit_is_an_error(engine: str, hungry: Callable[[int], None]) -> None:
    model = Hungry()
    hungry(0)
    with pytest.raises(torch.OutOfMemoryError, match="simulated"):
        evaluate(model, linear(model), images(100), 5, engine=engine)


@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
@pytest.mark.parametrize("every", [2, 3, 7])
def test_memory_that_runs_out_now_and_then_loses_no_example(
    engine: str, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    class Moody(Hungry):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal calls
            calls += len(x) > 64
            if len(x) > 64 and calls % every == 0:
                raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
            return super().forward(x)

    model, data = Moody(), images(400, seed=2)
    path = linear(model)
    reference = truth(Hungry(), path, data)
    progress: list[int] = []
    options = {"engine": engine, "progress": lambda done, total: progress.append(done)}
    found = evaluate(model, path, data, alphas=ALPHAS, keep="logits", **options)
    check(found, reference, data.targets)
    assert progress == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
def test_a_surface_and_many_paths_survive_running_out_of_memory(engine: str, hungry: Callable[[int], None]) -> None:
    model, data = Hungry(), images(200, seed=2)
    paths = [linear(model), Plane(random_state(model, 1), random_state(model, 2))]
    expected = evaluate_many(model, paths, data, 5, engine="loop")
    hungry(64)
    for found, reference in zip(evaluate_many(model, paths, data, 5, engine=engine), expected, strict=True):
        assert found.loss == pytest.approx(reference.loss, rel=1e-5)
        assert found.error == pytest.approx(reference.error, abs=1e-6)


# ---- data-dependent control flow


class Choosing(nn.Module):
    """Calls the one or the other layer, as the first example of the batch says."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Linear(64, 16), nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.last((self.one(x) if x[0, 0] < 50 else self.two(x)).relu())


@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
def test_a_layer_that_some_batches_leave_out_is_no_assertion_error(engine: str) -> None:
    # went wrong once: the shared layer has no inputs in a batch that does not call it, and an `assert` of the engine
    # fails
    model = Choosing()
    inputs = DATA.inputs.repeat(4, 1, 1, 1)
    inputs[166:, 0, 0, 0] = 99
    data = Dataset(inputs, DATA.targets.repeat(4))
    path = linear(model)
    halves = [Dataset(inputs[part], data.targets[part]) for part in (slice(0, 166), slice(166, None))]
    reference = np.mean([truth(model, path, half).loss for half in halves], axis=0)
    limit = 4 * sum(p.numel() for p in model.parameters()) + 166 * 3 * 256 * 8 // 5
    found = evaluate(model, path, data, alphas=ALPHAS, engine=engine, memory_limit=limit)
    if 166 % found.record.batch_size == 0:
        assert found.loss == pytest.approx(reference, rel=1e-5)
    assert np.isfinite(found.loss).all()
