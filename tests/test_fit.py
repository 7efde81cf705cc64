"""Tests of training one network."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from helpers import images, tiny_setting
from torch import Tensor, nn

from mli_check.data import Dataset, Normalisation
from mli_check.errors import OptionError
from mli_check.evaluation.front import evaluate
from mli_check.paths import LinearPath
from mli_check.settings import ModelSetting
from mli_check.states import digest, distance
from mli_check.training import fit as fitting
from mli_check.training.batches import _AUGMENTATION, weights_dtype
from mli_check.training.fit import Fit, fit, network
from mli_check.training.sets import reconstruction, training_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from mli_check.settings import Setting

STEPS_AN_EPOCH = 5  # of tiny_setting: 100 images in batches of 20


@pytest.fixture(scope="module")
def data() -> Dataset:
    return training_data(tiny_setting())


def normalised(setting: Setting, **model: Any) -> Setting:
    """The same setting with BN."""
    return dataclasses.replace(setting, model=dataclasses.replace(setting.model, batch_norm=True, **model))


def vgg(**recipe: Any) -> Setting:
    return normalised(tiny_setting(**recipe), name="vgg", variant="tiny", init="kaiming")


def resnet(**recipe: Any) -> Setting:
    return normalised(tiny_setting(**recipe), name="resnet", variant="8", hidden=())


def autoencoder(**recipe: Any) -> Setting:
    setting = tiny_setting(loss="squared_error", lr=1e-3, **recipe)
    return dataclasses.replace(setting, model=ModelSetting(name="autoencoder", hidden=(6,)))


def pixels(count: int, *, channels: int = 1, side: int = 8, classes: int = 10) -> Dataset:
    """Random uint8 images with random classes, normalised where a network sees them."""
    generator = torch.Generator().manual_seed(count)
    drawn = torch.randint(256, (count, channels, side, side), generator=generator, dtype=torch.uint8)
    targets = torch.randint(classes, (count,), generator=generator)
    normalisation = Normalisation((0.25, 0.5, 0.4)[:channels], (0.3, 0.2, 0.25)[:channels])
    return Dataset(drawn, targets, "pixels", classes, normalisation)


def states_of(result: Fit) -> dict[str, str]:
    """The digests of all states that a fit returns."""
    kept = {f"after {step}": state for step, state in result.checkpoints.items()}
    return {name: digest(state) for name, state in {"init": result.init, "final": result.final, **kept}.items()}


def plain_loop(
    setting: Setting,
    data: Dataset,
    optimiser: torch.optim.Optimizer,
    model: nn.Module,
    loss_of: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
) -> list[float]:
    """Train `model` as any tutorial would, and return the mean loss of each epoch over its examples."""
    recipe, losses = setting.recipe, []
    order = torch.Generator().manual_seed(recipe.order_seed)
    dtype = next(model.parameters()).dtype
    model.train()
    for _ in range(recipe.epochs):
        total = 0.0
        for batch in torch.randperm(len(data), generator=order).split(recipe.batch_size):
            optimiser.zero_grad()
            loss = loss_of(model(data.inputs[batch].to(dtype)), data.targets[batch])
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(batch)
        losses.append(total / len(data))
    return losses


# Repeatable, and by which seed


@pytest.mark.parametrize(
    "setting",
    [
        tiny_setting(checkpoints=(2,), momentum=0.9),
        normalised(tiny_setting(optimiser="adam", lr=0.01)),
        vgg(),
        vgg(augmentation="crop-flip", checkpoints=(2,), epochs=2),
        vgg(precision="bfloat16", checkpoints=(2,)),
        tiny_setting(precision="bfloat16", augmentation="crop", optimiser="rmsprop", lr=0.01),
    ],
    ids=[
        "fcn",
        "fcn with BN and Adam",
        "vgg with BN",
        "vgg with BN, augmented",
        "vgg with BN in bfloat16",
        "fcn in bfloat16, augmented, with RMSprop",
    ],
)
def test_the_same_setting_gives_the_same_bits(setting: Setting, data: Dataset) -> None:
    first, second = fit(setting, data), fit(setting, data)
    assert states_of(first) == states_of(second)
    assert first.history == second.history


def test_the_global_generators_do_not_matter(data: Dataset) -> None:
    torch.manual_seed(1)
    first = fit(tiny_setting(), data)
    torch.manual_seed(2)
    assert states_of(fit(tiny_setting(), data)) == states_of(first)


def test_the_global_generators_are_left_as_they_were(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def seeded(seed: int) -> None:
        raise AssertionError(f"the GPUs' generators were seeded with {seed}")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    fit(vgg(), data)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


def test_the_init_seed_changes_the_init_and_not_the_order(data: Dataset) -> None:
    assert digest(fit(tiny_setting(init_seed=1), data).init) != digest(fit(tiny_setting(), data).init)
    assert orders_of(tiny_setting(init_seed=1), data) == orders_of(tiny_setting(), data)


def test_the_order_seed_changes_the_order_and_not_the_init(data: Dataset) -> None:
    other, plain = fit(tiny_setting(order_seed=1), data), fit(tiny_setting(), data)
    assert digest(other.init) == digest(plain.init)
    assert digest(other.final) != digest(plain.final)
    assert orders_of(tiny_setting(order_seed=1), data) != orders_of(tiny_setting(), data)


def test_every_epoch_has_an_order_of_its_own_with_every_example_once(data: Dataset) -> None:
    first, second = orders_of(tiny_setting(epochs=2), data)
    assert first != second
    assert sorted(first) == sorted(second) == list(range(100))


def orders_of(setting: Setting, data: Dataset) -> list[list[int]]:
    """The examples of each epoch in the order in which the network sees them.

    Each example's pixels are its number, counted from 1, so that a crop of it tells it too.
    """
    numbers = torch.arange(1.0, len(data) + 1)[:, None, None, None].expand_as(data.inputs).clone()
    seen = seen_by(setting.with_recipe(lr=1e-12), Dataset(numbers, data.targets))
    order = (seen.amax((1, 2, 3)) - 1).int().tolist()
    return [order[start : start + len(data)] for start in range(0, len(order), len(data))]


def seen_by(setting: Setting, data: Dataset) -> Tensor:
    """What a fully connected network sees in training, which is watched where it flattens its inputs."""
    seen: list[Tensor] = []

    def watch(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, nn.Flatten):
            seen.append(args[0].clone())

    handle = nn.modules.module.register_module_forward_hook(watch)
    try:
        fit(setting, data)
    finally:
        handle.remove()
    return torch.cat(seen)


# The init


def test_the_init_is_the_network_before_the_first_step(data: Dataset) -> None:
    setting = normalised(tiny_setting(init_seed=3))
    assert digest(fit(setting, data).init) == digest(network(setting, data).state_dict())


def test_double_precision_starts_from_the_same_weights_and_keeps_them_double(data: Dataset) -> None:
    single, double = fit(tiny_setting(), data), fit(tiny_setting(precision="float64"), data)
    assert {tensor.dtype for tensor in (*double.init.values(), *double.final.values())} == {torch.float64}
    assert {tensor.dtype for tensor in (*single.init.values(), *single.final.values())} == {torch.float32}
    assert distance(single.init, double.init) == 0
    assert 0 < distance(single.final, double.final) < 1e-5


@pytest.mark.parametrize("present", [(0,), (2, 5)], ids=["the first class alone", "two classes"])
def test_a_dataset_that_lacks_classes_gets_a_network_for_all_of_them(present: tuple[int, ...], data: Dataset) -> None:
    targets = torch.tensor(present).repeat(100)[:100]
    result = fit(tiny_setting(), Dataset(data.inputs, targets, n_classes=10))
    assert result.final["3.weight"].shape == (10, 8)
    assert fit(tiny_setting(), Dataset(data.inputs, targets)).final["3.weight"].shape == (max(present) + 1, 8)


# Augmentation


@pytest.mark.parametrize("kind", ["crop", "crop-flip"])
def test_augmentation_does_not_change_the_order(kind: str, data: Dataset) -> None:
    plain = orders_of(tiny_setting(epochs=2, order_seed=5), data)
    assert orders_of(tiny_setting(epochs=2, order_seed=5, augmentation=kind), data) == plain


def test_every_epoch_is_augmented_anew_and_every_example_on_its_own() -> None:
    """All examples are one gradient, whose crops tell the draws."""
    one = (torch.arange(64.0) + 1).view(1, 1, 8, 8).expand(40, 1, 8, 8)
    seen = seen_by(tiny_setting(epochs=2, augmentation="crop-flip"), Dataset(one, torch.arange(40) % 10))
    first, second = seen.view(2, 40, 64).unbind()
    assert not torch.equal(first, second)
    for epoch in (first, second):
        assert len({tuple(image.tolist()) for image in epoch}) > 30  # of 162 that are possible, 36 expected


def test_crops_are_not_mirrored_and_half_of_crop_flips_are() -> None:
    """Every row of the images rises from left to right."""
    one = (torch.arange(64.0) + 1).view(1, 1, 8, 8).expand(200, 1, 8, 8)
    data = Dataset(one, torch.arange(200) % 10)
    falls = {}
    for kind in ("crop", "crop-flip"):
        seen = seen_by(tiny_setting(augmentation=kind), data)
        inside = (seen[..., 1:] > 0) & (seen[..., :-1] > 0)  # black is beyond the image
        falls[kind] = ((seen.diff(dim=-1) < 0) & inside).flatten(1).any(1)
    assert not falls["crop"].any()
    assert 70 < int(falls["crop-flip"].sum()) < 130


def test_the_order_seed_draws_the_augmentation_and_the_init_seed_does_not() -> None:
    one = (torch.arange(64.0) + 1).view(1, 1, 8, 8).expand(40, 1, 8, 8)
    data, setting = Dataset(one, torch.arange(40) % 10), tiny_setting(augmentation="crop-flip")
    plain = seen_by(setting, data)
    assert torch.equal(plain, seen_by(setting.with_recipe(init_seed=7), data))
    assert not torch.equal(plain, seen_by(setting.with_recipe(order_seed=7), data))


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_pixels_are_augmented_before_they_are_normalised(precision: str) -> None:
    """What a crop brings in is black, which is not zero where pixels are normalised."""
    dtype = getattr(torch, precision)
    white = Dataset(torch.full((40, 1, 8, 8), 255, dtype=torch.uint8), torch.arange(40) % 10)
    white = dataclasses.replace(white, normalisation=Normalisation((0.25,), (0.5,)))
    seen = seen_by(tiny_setting(augmentation="crop", precision=precision), white)
    assert seen.dtype == dtype
    assert seen.unique().tolist() == [-0.5, 1.5]


def test_other_inputs_are_padded_with_zeros() -> None:
    ones = Dataset(torch.ones(40, 1, 8, 8), torch.arange(40) % 10)
    assert seen_by(tiny_setting(augmentation="crop"), ones).unique().tolist() == [0, 1]


def test_an_augmented_network_is_another_one_with_the_same_init_and_schedule(data: Dataset) -> None:
    setting = tiny_setting(epochs=3, milestones=(1,), checkpoints=(2, 15))
    plain, augmented = fit(setting, data), fit(setting.with_recipe(augmentation="crop"), data)
    assert digest(plain.init) == digest(augmented.init)
    assert digest(plain.final) != digest(augmented.final)
    assert list(augmented.checkpoints) == [2, 15]
    assert digest(augmented.checkpoints[15]) == digest(augmented.final)
    for name in ("epoch", "iteration", "lr"):
        assert [entry[name] for entry in plain.history] == [entry[name] for entry in augmented.history]


def test_augmenting_what_is_no_image_is_refused() -> None:
    flat = Dataset(torch.ones(40, 64), torch.arange(40) % 10)
    assert fit(tiny_setting(), flat).diverged_at is None
    with pytest.raises(OptionError, match=r"leave recipe\.augmentation out"):
        fit(tiny_setting(augmentation="crop"), flat)


# Pixels


@pytest.mark.parametrize(
    ("setting", "channels"),
    [
        (normalised(tiny_setting(epochs=2, momentum=0.9)), 1),
        (vgg(), 3),
        (resnet(), 3),
        (normalised(tiny_setting(precision="bfloat16")), 3),
        (normalised(tiny_setting(precision="float64")), 3),
    ],
    ids=["fcn", "vgg", "resnet", "fcn in bfloat16", "fcn in float64"],
)
def test_pixels_train_to_the_same_bits_as_normalised_inputs(setting: Setting, channels: int) -> None:
    data = pixels(50, channels=channels)
    kept = fit(setting, data)
    plain = fit(setting, data.normalised(weights_dtype(setting.recipe)))
    assert states_of(kept) == states_of(plain)
    assert kept.history == plain.history


def test_augmented_pixels_are_left_as_they_were() -> None:
    data = pixels(50)
    before = data.inputs.clone()
    fit(tiny_setting(augmentation="crop-flip"), data)
    assert data.inputs.dtype == torch.uint8
    assert torch.equal(data.inputs, before)


@pytest.mark.parametrize("keep", ["examples", "logits"])
def test_pixels_are_evaluated_to_the_same_bits_as_normalised_inputs(keep: str) -> None:
    """As data, and as what statistics are recalibrated on."""
    setting = vgg(epochs=2)
    train, test = pixels(50, channels=3), pixels(60, channels=3)
    result, model = fit(setting, train), network(setting, train)
    path = LinearPath(result.init, result.final)
    options = {"norm_stats": "recalibrate", "calibration_batch": 20, "keep": keep}
    curves = [
        evaluate(model, path, data, 4, calibration=calibration, **options)
        for data in (test, test.normalised())
        for calibration in (train, train.normalised())
    ]
    for other in curves[1:]:
        for name in ("loss", "error", "balanced_error", "losses", "logits"):
            np.testing.assert_array_equal(getattr(curves[0], name), getattr(other, name))
        assert other.checkpoint == curves[0].checkpoint


# Autocast to bfloat16


@pytest.mark.parametrize("make", [lambda **recipe: normalised(tiny_setting(**recipe)), vgg], ids=["fcn", "vgg"])
def test_bfloat16_keeps_float32_states_close_to_those_of_float32(make: Callable[..., Setting], data: Dataset) -> None:
    settings = [make(lr=0.02, epochs=2, checkpoints=(3, 10), precision=name) for name in ("float32", "bfloat16")]
    single, half = (fit(setting, data) for setting in settings)
    for state in (half.init, half.final, *half.checkpoints.values()):
        assert {tensor.dtype for tensor in state.values()} == {torch.float32, torch.int64}
    assert digest(half.init) == digest(single.init)
    moved = distance(single.init, single.final)
    assert 0 < distance(half.final, single.final) < 0.25 * moved
    assert half.history[-1]["train_loss"] == pytest.approx(single.history[-1]["train_loss"], rel=0.02)
    assert half.history[-1]["train_loss"] != single.history[-1]["train_loss"]


def test_bfloat16_computes_outputs_in_bfloat16_and_the_loss_in_float32(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs_seen: list[Tensor] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        outputs_seen.append(outputs.detach())
        assert not torch.is_autocast_enabled("cpu")
        return nn.functional.cross_entropy(outputs, targets, reduction="none")

    monkeypatch.setattr(fitting, "resolve", lambda name: (name, loss))
    fit(tiny_setting(precision="bfloat16"), data)
    outputs = torch.cat(outputs_seen)
    assert outputs.dtype == torch.float32
    assert torch.equal(outputs, outputs.bfloat16().float())  # nothing beyond its 8 bits
    outputs_seen.clear()
    fit(tiny_setting(), data)
    outputs = torch.cat(outputs_seen)
    assert not torch.equal(outputs, outputs.bfloat16().float())


# Squared error


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean over examples of the squared distance to the target, example by example."""
    if targets.ndim == 1:
        targets = torch.eye(outputs.shape[1], dtype=outputs.dtype)[targets]
    return torch.stack([((a - b) ** 2).sum() for a, b in zip(outputs, targets, strict=True)]).mean()


@pytest.mark.parametrize(
    ("setting", "change"),
    [
        (tiny_setting(loss="squared_error", lr=0.05, epochs=2, batch_size=30), lambda data: data),
        (autoencoder(epochs=2, batch_size=30), reconstruction),
    ],
    ids=["classes as one-hot vectors", "an autoencoder"],
)
def test_training_on_squared_errors_is_the_plain_loop(
    setting: Setting, change: Callable[[Dataset], Dataset], data: Dataset
) -> None:
    data = change(data)
    result, model = fit(setting, data), network(setting, data)
    losses = plain_loop(setting, data, torch.optim.SGD(model.parameters(), lr=setting.recipe.lr), model, squared)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(result.final[name], tensor, rtol=0, atol=1e-6)
    assert [entry["train_loss"] for entry in result.history] == pytest.approx(losses, rel=1e-6)


def test_an_autoencoder_learns_its_inputs(data: Dataset) -> None:
    history = fit(autoencoder(optimiser="adam", epochs=8), reconstruction(data)).history
    losses = [entry["train_loss"] for entry in history]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 2


def test_an_autoencoder_does_not_take_classes(data: Dataset) -> None:
    with pytest.raises(OptionError, match=r"learns its inputs.*'digits'.*pass Dataset\(x, x\)"):
        fit(autoencoder(), data)


# Optimisers and the schedule

OPTIMISERS: dict[str, tuple[dict[str, Any], Any]] = {
    "sgd": ({"optimiser": "sgd"}, lambda p: torch.optim.SGD(p, lr=0.1)),
    "sgd with momentum and weight decay": (
        {"optimiser": "sgd", "momentum": 0.9, "weight_decay": 0.01},
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    ),
    "adam": ({"optimiser": "adam", "lr": 0.01}, lambda p: torch.optim.Adam(p, lr=0.01)),
    "adam with weight decay": (
        {"optimiser": "adam", "lr": 0.01, "weight_decay": 0.1},
        lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    ),
    "rmsprop": ({"optimiser": "rmsprop", "lr": 0.01}, lambda p: torch.optim.RMSprop(p, lr=0.01)),
    "rmsprop with momentum and weight decay": (
        {"optimiser": "rmsprop", "lr": 0.01, "momentum": 0.5, "weight_decay": 0.1},
        lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, weight_decay=0.1),
    ),
}


@pytest.mark.parametrize(("recipe", "make"), OPTIMISERS.values(), ids=OPTIMISERS.keys())
def test_training_is_the_plain_loop(recipe: dict[str, Any], make: Any, data: Dataset) -> None:
    setting = normalised(tiny_setting(epochs=2, batch_size=30, order_seed=4, **recipe))  # the last batch has 10
    result = fit(setting, data)
    model = network(setting, data)
    losses = plain_loop(setting, data, make(model.parameters()), model)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(result.final[name], tensor, rtol=0, atol=1e-6)
    assert [entry["train_loss"] for entry in result.history] == pytest.approx(losses, rel=1e-6)


def test_a_step_of_sgd_is_the_negative_gradient_of_the_mean_loss(data: Dataset) -> None:
    setting = tiny_setting(batch_size=100, precision="float64")
    result = fit(setting, data)
    model = network(setting, data)
    nn.functional.cross_entropy(model(data.inputs.double()), data.targets).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(result.final[name], parameter.detach() - 0.1 * parameter.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("milestones", "rates"),
    [
        ((), [0.1, 0.1, 0.1, 0.1]),
        ((1,), [0.1, 0.05, 0.05, 0.05]),
        ((2, 3), [0.1, 0.1, 0.05, 0.025]),
        ((4, 9), [0.1, 0.1, 0.1, 0.1]),
    ],
    ids=str,
)
def test_the_learning_rate_falls_after_each_milestone(
    milestones: tuple[int, ...], rates: list[float], data: Dataset
) -> None:
    result = fit(tiny_setting(epochs=4, milestones=milestones, gamma=0.5), data)
    assert [entry["lr"] for entry in result.history] == pytest.approx(rates)


def test_the_learning_rate_of_a_milestone_is_the_one_that_trains(data: Dataset) -> None:
    """With gamma of almost nothing, what follows the first epoch does not move the network."""
    ends = (STEPS_AN_EPOCH, 2 * STEPS_AN_EPOCH)
    result = fit(tiny_setting(epochs=3, milestones=(1,), gamma=1e-30, checkpoints=ends), data)
    assert digest(result.checkpoints[ends[0]]) == digest(result.checkpoints[ends[1]]) == digest(result.final)
    assert digest(result.final) == digest(fit(tiny_setting(), data).final)


# Checkpoints and history


def test_checkpoints_are_the_states_after_so_many_steps(data: Dataset) -> None:
    setting = normalised(tiny_setting(epochs=2, checkpoints=(1, 5, 6, 10)))
    result = fit(setting, data)
    assert list(result.checkpoints) == [1, 5, 6, 10]
    assert digest(result.checkpoints[5]) == digest(fit(setting.with_recipe(epochs=1, checkpoints=()), data).final)
    assert digest(result.checkpoints[10]) == digest(result.final)
    assert [int(state["2.num_batches_tracked"]) for state in result.checkpoints.values()] == [1, 5, 6, 10]
    assert len(set(states_of(result).values())) == 5  # init, four checkpoints; the last is the final state


def test_checkpoints_do_not_change_training(data: Dataset) -> None:
    kept, plain = fit(tiny_setting(checkpoints=(1, 2, 3)), data), fit(tiny_setting(), data)
    assert digest(kept.final) == digest(plain.final)


def test_history_has_an_entry_an_epoch(data: Dataset) -> None:
    history = fit(tiny_setting(epochs=3, batch_size=30), data).history
    assert [list(entry) for entry in history] == [["epoch", "iteration", "lr", "train_loss"]] * 3
    assert [(entry["epoch"], entry["iteration"]) for entry in history] == [(1, 4), (2, 8), (3, 12)]
    losses = [entry["train_loss"] for entry in history]
    assert losses == sorted(losses, reverse=True)
    assert 0 < losses[-1] < math.log(10) + 0.3


def test_the_loss_of_an_epoch_is_the_mean_over_examples_not_batches(data: Dataset) -> None:
    """At a learning rate of almost nothing it is the loss of the init, although the last batch is smaller."""
    setting = tiny_setting(lr=1e-30, batch_size=30)
    model = network(setting, data)
    with torch.no_grad():
        whole = float(nn.functional.cross_entropy(model(data.inputs), data.targets))
    assert fit(setting, data).history[0]["train_loss"] == pytest.approx(whole, rel=1e-6)


def test_progress_is_told_after_each_epoch(data: Dataset) -> None:
    told: list[tuple[int, int]] = []
    fit(tiny_setting(epochs=3), data, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_fit_says_where_and_how_long(data: Dataset) -> None:
    result = fit(tiny_setting(), data)
    assert result.device == "cpu"
    assert result.execution == ()
    assert 0 < result.seconds < 60
    assert result.diverged_at is None


# Divergence


def test_training_that_diverges_stops_after_that_epoch(data: Dataset) -> None:
    result = fit(tiny_setting(lr=1e38, epochs=5), data)
    assert result.diverged_at == 1
    assert len(result.history) == 1
    assert not math.isfinite(result.history[0]["train_loss"])
    assert all(tensor.isfinite().all() for tensor in result.init.values())
    assert not all(tensor.isfinite().all() for tensor in result.final.values())


def test_divergence_in_a_later_epoch_is_dated(data: Dataset) -> None:
    result = fit(tiny_setting(epochs=5, milestones=(2,), gamma=1e38), data)
    assert result.diverged_at == len(result.history) == 3
    assert [math.isfinite(entry["train_loss"]) for entry in result.history] == [True, True, False]


def test_a_large_but_finite_loss_is_no_divergence(data: Dataset) -> None:
    result = fit(tiny_setting(lr=1e3, epochs=2), data)
    assert result.diverged_at is None
    assert result.history[0]["train_loss"] > 100


# What cannot be trained


@pytest.mark.parametrize("setting", [normalised(tiny_setting()), vgg()], ids=["fcn", "vgg"])
@pytest.mark.parametrize("batch_size", [1, 3, 9, 11, 33, 99])
def test_bn_refuses_a_batch_of_one(setting: Setting, batch_size: int, data: Dataset) -> None:
    with pytest.raises(OptionError, match=rf"batches of {batch_size} leave one of 100 .* choose another"):
        fit(setting.with_recipe(batch_size=batch_size), data)


@pytest.mark.parametrize("batch_size", [7, 98, 100, 1000])
def test_bn_takes_batches_that_leave_none_or_more_than_one(batch_size: int, data: Dataset) -> None:
    assert fit(normalised(tiny_setting(batch_size=batch_size)), data).diverged_at is None


def test_bn_refuses_a_dataset_of_one(data: Dataset) -> None:
    with pytest.raises(OptionError, match="leave one of 1 examples"):
        fit(normalised(tiny_setting()), data.subset(1))


@pytest.mark.parametrize("batch_size", [1, 33])
def test_without_bn_a_batch_of_one_is_fine(batch_size: int, data: Dataset) -> None:
    result = fit(tiny_setting(batch_size=batch_size), data)
    assert result.history[0]["iteration"] == math.ceil(100 / batch_size)


@pytest.mark.parametrize(("checkpoints", "late"), [((6,), "[6]"), ((1, 5, 6, 99), "[6, 99]")], ids=str)
def test_a_checkpoint_beyond_the_end_is_refused(checkpoints: tuple[int, ...], late: str, data: Dataset) -> None:
    with pytest.raises(OptionError) as raised:
        fit(tiny_setting(checkpoints=checkpoints), data)
    assert str(raised.value) == f"recipe.checkpoints {late} lie beyond the last iteration, 5; leave them out"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Dataset({"ids": torch.ones(4, 2)}, torch.arange(4)), "dict of inputs"),
        (Dataset(torch.ones(4, 2), torch.ones(4)), "not classes"),
    ],
    ids=["dict of inputs", "regression"],
)
def test_data_that_the_recipes_cannot_train_on_are_refused(wrong: Dataset, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        fit(tiny_setting(), wrong)


def test_the_data_are_left_as_they_were() -> None:
    given = images(40)
    before = digest({"inputs": given.inputs, "targets": given.targets})
    fit(tiny_setting(), given)
    assert digest({"inputs": given.inputs, "targets": given.targets}) == before


@pytest.mark.parametrize("seed", [0, 7, -3, 2**40])
def test_augmentation_is_drawn_from_a_stream_of_its_own(seed: int) -> None:
    """torch's generator reads the lowest 32 bits of a seed, so that an offset above them would change nothing."""
    streams = [torch.Generator().manual_seed(seed + offset) for offset in (0, _AUGMENTATION)]
    first, second = (torch.randint(2**31, (20,), generator=stream) for stream in streams)
    assert not torch.equal(first, second)
